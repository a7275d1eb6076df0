//! Being elsewhere in the network: a thread of this process in the namespace of a node or of a pod.
//!
//! Kept true: only that thread moves. Sockets it opens belong to the namespace, and no program has to be there.

use std::{
    fs::File,
    path::{Path, PathBuf},
    thread::JoinHandle,
};

use anyhow::{Context, Result};
use rustix::{
    fd::AsFd,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::process::Process;

/// A network namespace that exists.
#[derive(Debug)]
pub struct Netns(File);

impl Netns {
    /// By the file that names it, as `ip netns` keeps them.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(path: &Path) -> Result<Self> {
        File::open(path).map(Self).with_context(|| format!("there is no network namespace {}", path.display()))
    }

    /// The one a process lives in.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn of(process: Process) -> Result<Self> {
        Self::open(&PathBuf::from(format!("/proc/{}/ns/net", process.pid)))
    }

    /// Does something there and waits for it.
    ///
    /// # Errors
    /// When it cannot be entered.
    ///
    /// # Panics
    /// When `act` does.
    pub fn run<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        self.spawn(act)?.join().expect("what is done in a namespace does not panic")
    }

    /// Does something there meanwhile.
    ///
    /// # Errors
    /// When the namespace cannot be named once more.
    pub fn spawn<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<Result<T>>> {
        let namespace = self.0.try_clone().context("cannot share a namespace")?;
        Ok(std::thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .context("cannot enter a network namespace")?;
            Ok(act())
        }))
    }
}
