//! The calls that no safe crate offers.
#![expect(unsafe_code, reason = "netlink socket options have no safe wrapper; unshare is marked unsafe in rustix")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

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
