//! Taking a test bed down: everything it made goes, in the order in which it lets go.
//!
//! Kept true: only what belongs to the test bed is touched. A process belongs to it when it lives in one of its network
//! namespaces; a mount, when it lies below its directory; all else bears its prefix. Done twice, it does no harm.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::mount::{UnmountFlags, unmount};

use crate::{
    cluster::Node,
    process::{Process, Signal},
    record::Record,
    run::ip,
};

pub fn down(record: &Record) -> Result<()> {
    kill(&record.dir, &namespaces(record))?;
    let nodes: Vec<_> = subdirectories(&record.dir).iter().flat_map(|cluster| subdirectories(cluster)).collect();
    let containers = forget_shims(&nodes);
    release_mounts(&record.dir)?;
    remove_networks(record)?;
    remove_cgroups(&containers);
    remove_notes(record);
    remove_directory(&record.dir)?;
    record.forget();
    Ok(())
}

/// Pulls a node's plug: everything on it dies and its network is gone; the cluster is told nothing.
pub(crate) fn unplug(node: &Node) -> Result<()> {
    kill(&node.dir, &[node.netns_file()])?;
    let containers = forget_shims(std::slice::from_ref(&node.dir));
    release_mounts(&node.dir)?;
    ip("", &format!("netns del {}", node.netns))?;
    remove_cgroups(&containers);
    remove_directory(&node.dir)
}

/// Kills whoever lives in these network namespaces (the nodes') or in one mounted below the directory (the pods').
fn kill(dir: &Path, namespaces: &[PathBuf]) -> Result<()> {
    let mut ours: HashSet<u64> = namespaces.iter().filter_map(|path| inode(path)).collect();
    ours.extend(mounts(dir, "nsfs").iter().filter_map(|path| inode(path)));
    let began = Instant::now();
    loop {
        let alive: Vec<_> = processes().into_iter().filter(|process| lives_in(process, &ours)).collect();
        if alive.is_empty() {
            return Ok(());
        }
        for process in &alive {
            process.signal(Signal::KILL);
        }
        if began.elapsed() > Duration::from_secs(20) {
            bail!("{} processes do not die: {alive:?}", alive.len());
        }
        sleep(Duration::from_millis(20));
    }
}

fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Process::find).collect()
}

fn lives_in(process: &Process, namespaces: &HashSet<u64>) -> bool {
    let namespace = inode(Path::new(&format!("/proc/{}/ns/net", process.pid)));
    process.pid != std::process::id() && namespace.is_some_and(|inode| namespaces.contains(&inode))
}

fn inode(path: &Path) -> Option<u64> {
    // Not `exists`: a namespace's file is a bind mount, and its inode is the namespace.
    fs::metadata(path).ok().map(|metadata| metadata.ino())
}

fn namespaces(record: &Record) -> Vec<PathBuf> {
    with_prefix(Path::new("/run/netns"), &record.prefix())
}

/// Mount points below a directory, the deepest first; of one type or, when empty, all.
fn mounts(dir: &Path, kind: &str) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounts = table.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (path, is) = (PathBuf::from(words.next()?), words.next()?);
        (path.starts_with(dir) && (kind.is_empty() || kind == is)).then_some(path)
    });
    let mut mounts: Vec<_> = mounts.collect();
    mounts.reverse();
    mounts
}

fn release_mounts(dir: &Path) -> Result<()> {
    for _ in 0..5 {
        let mounts = mounts(dir, "");
        if mounts.is_empty() {
            return Ok(());
        }
        for path in mounts {
            // One that is gone already, below another that was detached, is no matter; the table is read again.
            let _ = unmount(&path, UnmountFlags::DETACH);
        }
    }
    bail!("mounts stay below {}: {:?}", dir.display(), mounts(dir, ""))
}

/// Removes the sockets of containerd's shims, which they alone would have removed; gives their containers' names.
fn forget_shims(nodes: &[PathBuf]) -> Vec<OsString> {
    let mut containers = Vec::new();
    for node in nodes {
        for task in subdirectories(&node.join("containerd/io.containerd.runtime.v2.task/k8s.io")) {
            if let Ok(address) = fs::read_to_string(task.join("address")) {
                let _ = fs::remove_file(address.trim().trim_start_matches("unix://"));
            }
            containers.extend(task.file_name().map(OsString::from));
        }
    }
    containers
}

fn remove_networks(record: &Record) -> Result<()> {
    if Path::new("/sys/class/net").join(record.host_link()).exists() {
        ip("", &format!("link del {}", record.host_link()))?;
    }
    for path in namespaces(record) {
        let name = path.file_name().context("a namespace has a name")?.to_string_lossy().into_owned();
        ip("", &format!("netns del {name}"))?;
    }
    Ok(())
}

/// Without cgroups per class of service the kubelet names no parent, and containerd makes `k8s.io/<container>`.
fn remove_cgroups(containers: &[OsString]) {
    let root = Path::new("/sys/fs/cgroup");
    for hierarchy in subdirectories(root).iter().map(PathBuf::as_path).chain([root]) {
        let parent = hierarchy.join("k8s.io");
        containers
            .iter()
            .map(|container| parent.join(container))
            .filter(|group| group.is_dir())
            .for_each(|group| remove_cgroup(&group));
        // It stays while another test bed has containers.
        let _ = fs::remove_dir(parent);
    }
}

fn remove_cgroup(group: &Path) {
    subdirectories(group).iter().for_each(|child| remove_cgroup(child));
    // The last process may still be on its way out.
    for _ in 0..20 {
        if fs::remove_dir(group).is_ok() || !group.exists() {
            return;
        }
        sleep(Duration::from_millis(10));
    }
}

/// Notes that CNI and the kubelet leave where no option sends them elsewhere.
fn remove_notes(record: &Record) {
    for place in ["/var/lib/cni/results", "/var/lib/cni/cache/results"] {
        for note in with_prefix(Path::new(place), &record.prefix()) {
            let _ = fs::remove_file(note);
        }
    }
    for link in fs::read_dir("/var/log/containers").into_iter().flatten().flatten() {
        if fs::read_link(link.path()).is_ok_and(|target| target.starts_with(&record.dir)) {
            let _ = fs::remove_file(link.path());
        }
    }
}

fn remove_directory(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if dir.exists() => Err(error).with_context(|| format!("cannot remove {}", dir.display())),
        _ => Ok(()),
    }
}

fn with_prefix(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)).map(|entry| entry.path()).collect()
}

fn subdirectories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}
