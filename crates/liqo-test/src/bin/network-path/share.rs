//! Shares of the processor: load and tunnels compete as pods on a node do, not as programs beside all pods.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

const ROOT: &str = "/sys/fs/cgroup";

/// The control group that decides how much of the processor a process gets when others want it too.
pub(crate) struct Share(PathBuf);

impl Share {
    /// That of a process: of `cpu` where each controller has its own hierarchy, else of the only one (cgroups(7)).
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/cgroup");
        let groups = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let group = |wanted: fn(&str) -> bool| {
            groups.lines().find_map(|line| {
                let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
                wanted(controllers).then(|| Path::new(ROOT).join(controllers).join(group.trim_start_matches('/')))
            })
        };
        let of_cpu = group(|controllers| controllers.split(',').any(|one| one == "cpu"));
        of_cpu.or_else(|| group(str::is_empty)).map(Self).with_context(|| format!("{path} names no group"))
    }

    /// Moves a process, with all its threads.
    pub(crate) fn take(&self, pid: u32) -> Result<()> {
        let file = self.0.join("cgroup.procs");
        fs::write(&file, pid.to_string()).with_context(|| format!("cannot write {}", file.display()))
    }
}
