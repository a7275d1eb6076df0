//! Which test beds exist on this machine, under whatever state directory.
//!
//! Kept true: a slot (1 to 250) belongs to one test bed. It gives the /24 `172.30.<slot>.0`, the prefix `lq<slot>-` of its
//! network namespaces and the host's interface `lq<slot>`. Claims are made under a lock.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::{
    assets,
    process::Process,
    run::{command, output, write},
};

const DIRECTORY: &str = "/run/liqo-testbed";

/// One test bed as the machine knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub name: String,
    pub slot: u8,
    pub dir: PathBuf,
    /// Who tears it down; nobody when it is persistent.
    pub owner: Option<Process>,
    pub reaper: Option<Process>,
}

impl Record {
    /// Takes a free slot.
    pub fn claim(name: &str, persistent: bool) -> Result<Self> {
        let _lock = lock()?;
        let records = all()?;
        if persistent && records.iter().any(|record| record.name == name) {
            bail!("a test bed called {name} exists already");
        }
        let routes = output(command("ip").args(["-4", "route", "show"]))?;
        let free = |slot: &u8| {
            !records.iter().any(|record| record.slot == *slot) && !routes.contains(&format!("172.30.{slot}.0/24"))
        };
        let slot = (1..=250).find(free).context("no slot is free: 250 test beds on this machine")?;
        let dir = assets::state().join(slot.to_string());
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let owner = (!persistent).then(Process::me);
        let record = Self { name: name.to_owned(), slot, dir, owner, reaper: None };
        record.save()?;
        Ok(record)
    }

    pub fn save(&self) -> Result<()> {
        let temporary = self.file().with_extension("new");
        write(&temporary, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&temporary, self.file()).context("cannot save a record")
    }

    pub fn forget(&self) {
        let _ = fs::remove_file(self.file());
    }

    /// Neither its owner nor its reaper lives, and it was not meant to outlive them.
    pub fn abandoned(&self) -> bool {
        self.owner.is_some_and(|owner| !owner.alive()) && !self.reaper.is_some_and(|reaper| reaper.alive())
    }

    /// The first three numbers of its addresses.
    pub fn net(&self) -> String {
        format!("172.30.{}", self.slot)
    }

    /// The host's leg on the wire.
    pub fn host_link(&self) -> String {
        format!("lq{}", self.slot)
    }

    /// What its network namespaces start with, its CNI networks and its cgroups too.
    pub fn prefix(&self) -> String {
        format!("lq{}-", self.slot)
    }

    /// The namespace of the bridge.
    pub fn wan(&self) -> String {
        format!("lq{}-wan", self.slot)
    }

    fn file(&self) -> PathBuf {
        PathBuf::from(DIRECTORY).join(format!("{}.json", self.slot))
    }
}

/// Every test bed of this machine, by slot.
pub fn all() -> Result<Vec<Record>> {
    let Ok(files) = fs::read_dir(DIRECTORY) else { return Ok(Vec::new()) };
    let paths = files.flatten().map(|file| file.path()).filter(|path| path.extension().is_some_and(|is| is == "json"));
    // A file may go while we read: that test bed is no more.
    let mut records: Vec<Record> =
        paths.filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok()).collect();
    records.sort_by_key(|record| record.slot);
    Ok(records)
}

fn lock() -> Result<fs::File> {
    fs::create_dir_all(DIRECTORY).with_context(|| format!("cannot make {DIRECTORY}: are you root?"))?;
    let file = fs::File::create(PathBuf::from(DIRECTORY).join("lock")).context("cannot open the lock")?;
    file.lock().context("cannot lock")?;
    Ok(file)
}
