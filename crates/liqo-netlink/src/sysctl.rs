//! Values below `/proc/sys/net`, which shows the namespace of the thread that opens it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use crate::error::{Error, Result};
use crate::netns::Netns;

/// Current values of these paths, without what is absent: a link's directory comes with the link.
pub(crate) fn read<'a>(netns: &Netns, paths: impl Iterator<Item = &'a String>) -> Result<BTreeMap<String, String>> {
    let paths: Vec<&String> = paths.collect();
    if paths.is_empty() {
        return Ok(BTreeMap::new());
    }
    let one = |path: &&String| {
        let value = fs::read_to_string(file(path)).ok()?;
        Some(((*path).clone(), value.trim_end().to_owned()))
    };
    netns.enter(|| paths.iter().filter_map(one).collect())
}

/// Writes a value.
pub(crate) fn write(netns: &Netns, path: &str, value: &str) -> Result<()> {
    let write = || -> io::Result<()> {
        if path.split('/').any(|part| part.is_empty() || part == "..") {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        fs::write(file(path), value)
    };
    netns.enter(write)?.map_err(|error| Error::new(format!("setting net/{path} to {value}"), error))
}

/// In an unprivileged container `/proc/sys` is read-only; the part about the network can be mounted here.
const MOUNTED: &str = "/run/proc-sys-net";

fn file(path: &str) -> String {
    let root = if Path::new(MOUNTED).is_dir() { MOUNTED } else { "/proc/sys/net" };
    format!("{root}/{path}")
}
