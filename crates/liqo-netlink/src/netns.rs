//! Network namespaces: named ones as `ip netns` keeps them, and work done inside without moving the caller's thread.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{fstat, fstatfs};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_bind_recursive, mount_change, unmount};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{Error, Result};
use crate::sys;

/// `f_type` of a namespace file (`linux/magic.h`).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// A network namespace, held open: it lives at least as long as this value.
#[derive(Debug)]
pub struct Netns(File);

impl Netns {
    /// The calling thread's namespace.
    pub fn current() -> Result<Self> {
        File::open("/proc/thread-self/ns/net")
            .map(Self)
            .map_err(|error| Error::new("opening the current network namespace", error))
    }

    /// The namespace bound at `path`. A plain file there (left by a machine's restart) is refused.
    pub fn open(path: &Path) -> Result<Self> {
        let doing = || format!("opening network namespace {}", path.display());
        let file = File::open(path).map_err(|error| Error::new(doing(), error))?;
        let stat = fstatfs(&file).map_err(|error| Error::new(doing(), error))?;
        if stat.f_type as u64 != NSFS_MAGIC {
            return Err(Error::new(doing(), Errno::INVAL).said(Some("the file is not a namespace".into())));
        }
        Ok(Self(file))
    }

    /// The namespace bound at `path`, made if there is none, as `ip netns add` does: the directory is made and is a
    /// shared mount, so that other mount namespaces see it; a file that is no namespace is removed first.
    pub fn create(path: &Path) -> Result<Self> {
        match Self::open(path) {
            Ok(netns) => return Ok(netns),
            Err(error) if error.errno() == Some(Errno::NOENT.raw_os_error()) => {}
            Err(error) if error.errno() == Some(Errno::INVAL.raw_os_error()) => Self::remove(path)?,
            Err(error) => return Err(error),
        }
        let doing = || format!("creating network namespace {}", path.display());
        let make = || -> io::Result<()> {
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory)?;
                share(directory)?;
            }
            File::create_new(path)?;
            std::thread::scope(|scope| {
                let bind = || {
                    sys::unshare_network()?;
                    mount_bind("/proc/thread-self/ns/net", path).map_err(io::Error::from)
                };
                join(scope.spawn(bind))
            })
        };
        make().map_err(|error| Error::new(doing(), error))?;
        Self::open(path)
    }

    /// Unbinds the namespace at `path` and removes the file. Absent is fine. What other mount namespaces bind at the file goes
    /// with the file. The kernel frees the namespace, with all links made in it, when nobody holds it any more.
    pub fn remove(path: &Path) -> Result<()> {
        let doing = || format!("removing network namespace {}", path.display());
        match unmount(path, UnmountFlags::DETACH) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(error) => return Err(Error::new(doing(), error)),
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::new(doing(), error)),
            _ => Ok(()),
        }
    }

    /// Whether the calling thread is in it.
    fn is_current(&self) -> bool {
        let identity = |file: &File| fstat(file).map(|stat| (stat.st_dev, stat.st_ino)).ok();
        Self::current().is_ok_and(|current| identity(&current.0) == identity(&self.0))
    }

    /// Another handle of the same namespace.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Runs `work` inside the namespace, on a thread of its own that ends with it: the caller's thread never moves. In the caller's own
    /// namespace it just runs, which needs no right to change namespaces. Sockets and files opened there stay in the namespace and may
    /// be used anywhere.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        if self.is_current() {
            return Ok(work());
        }
        std::thread::scope(|scope| {
            join(scope.spawn(|| {
                move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(work())
            }))
        })
        .map_err(|error| Error::new("entering a network namespace", error))
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A panic in the thread goes on in the caller.
fn join<T>(thread: std::thread::ScopedJoinHandle<'_, io::Result<T>>) -> io::Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Makes `directory` a shared mount; binds it to itself first if it is no mount point yet.
fn share(directory: &Path) -> io::Result<()> {
    let flags = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    match mount_change(directory, flags) {
        Err(Errno::INVAL) => {
            mount_bind_recursive(directory, directory)?;
            mount_change(directory, flags)?;
            Ok(())
        }
        other => Ok(other?),
    }
}
