//! Doing something in another network namespace.

use std::os::fd::BorrowedFd;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Error;

/// Runs `work` in a network namespace, on a thread of its own: the namespace of a thread that lives on is never touched, so nobody
/// can be left in the wrong one.
///
/// # Errors
/// The namespace cannot be entered (`CAP_SYS_ADMIN`), or the thread not be started.
pub(crate) fn within<T: Send>(namespace: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespace".to_owned()).spawn_scoped(scope, || {
            move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
                .map_err(|error| Error::io("enter the network namespace of the tunnel", error))?;
            Ok(work())
        });
        match thread.map_err(|error| Error::io("start a thread", error))?.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
