//! The calls that no safe crate offers.
#![expect(
    unsafe_code,
    reason = "netlink socket options have no safe wrapper; unshare and AsyncFd's registration are unsafe by contract"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Moves the calling thread into a network namespace of its own. The thread should end soon after.
pub(crate) fn unshare_network() -> io::Result<()> {
    // SAFETY: only the network namespace changes; neither the file table nor the memory of other threads is affected.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.map_err(io::Error::from)
}

/// Switches a boolean option of level `SOL_NETLINK` on.
pub(crate) fn set_netlink_option(socket: impl AsFd, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the file descriptor is borrowed for the call; the pointer and length describe `on`, which outlives it.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            std::ptr::from_ref(&on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Registers a socket with the runtime, for reading.
pub(crate) fn readable(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned file descriptor is valid and the same until it is dropped, which deregisters it first.
    unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.map_err(io::Error::from)
}
