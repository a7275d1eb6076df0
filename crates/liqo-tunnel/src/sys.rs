//! The system calls no safe wrapper has: TUN set-up, socket options, and batches of datagrams.
//!
//! `recvmmsg` and `sendmmsg` are called without the C library: musl has no true `sendmmsg` on 64 bits, it loops.

#![expect(unsafe_code, reason = "system calls without a safe wrapper")]

mod batch;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

pub(crate) use batch::{Datagrams, Endpoint, MESSAGE, Outgoing, send};

/// `linux/if_tun.h`
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_TSO4: libc::c_ulong = 0x02;
const TUN_F_TSO6: libc::c_ulong = 0x04;
const TUN_F_USO4: libc::c_ulong = 0x20;
const TUN_F_USO6: libc::c_ulong = 0x40;
const IFF_TUN: i16 = 0x0001;
const IFF_NO_PI: i16 = 0x1000;
const IFF_VNET_HDR: i16 = 0x4000;
const IFF_TUN_EXCL: u16 = 0x8000;
/// Packets that may wait in the interface until they are read. The kernel's 500 are gone in the blink in which another thread has the
/// processor, and every one more is lost: this is what the UDP socket holds on the other side.
const QUEUE: i32 = 4096;
/// `linux/udp.h`
const UDP_GRO: libc::c_int = 104;
/// `linux/in.h`, `linux/in6.h`: do not fragment, and take no notice of what path MTU discovery learned.
const IP_PMTUDISC_PROBE: libc::c_int = 3;
const IP_MTU_DISCOVER: libc::c_int = 10;
const IPV6_MTU_DISCOVER: libc::c_int = 23;
const IPV6_RECVPKTINFO: libc::c_int = 49;

/// A TUN interface and what it can carry in one piece.
#[derive(Debug)]
pub(crate) struct Tun {
    /// Not blocking.
    pub(crate) file: File,
    /// The kernel hands over and takes UDP datagrams of one flow in one piece (USO, since 6.2).
    pub(crate) uso: bool,
}

/// Makes the TUN interface `name` in the namespace of the calling thread, up and with this MTU. It goes away with the file.
pub(crate) fn open_tun(name: &str, mtu: u32) -> io::Result<Tun> {
    let file = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::NONBLOCK)?;
    let mut request = Request::new(name);
    request.flags(IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL.cast_signed());
    request.call(file.as_fd(), TUNSETIFF)?;
    let offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    let uso = set_offloads(&file, offloads | TUN_F_USO4 | TUN_F_USO6).is_ok();
    if !uso {
        set_offloads(&file, offloads)?;
    }
    set_link(name, mtu)?;
    Ok(Tun { file, uso })
}

fn set_offloads(file: &File, offloads: libc::c_ulong) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETOFFLOAD as _, offloads) })
}

/// Sets MTU and queue of an interface and brings it up.
fn set_link(name: &str, mtu: u32) -> io::Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    let mut request = Request::new(name);
    request.value(mtu.cast_signed());
    request.call(socket.as_fd(), libc::SIOCSIFMTU as _)?;
    let mut request = Request::new(name);
    request.value(QUEUE);
    request.call(socket.as_fd(), libc::SIOCSIFTXQLEN as _)?;
    let mut request = Request::new(name);
    request.call(socket.as_fd(), libc::SIOCGIFFLAGS as _)?;
    let up = request.get_flags() | libc::IFF_UP as i16;
    request.flags(up);
    request.call(socket.as_fd(), libc::SIOCSIFFLAGS as _)
}

/// `struct ifreq`: a name and 24 bytes whose meaning depends on the call.
#[repr(C, align(8))]
struct Request {
    name: [u8; 16],
    data: [u8; 24],
}

impl Request {
    fn new(name: &str) -> Self {
        let mut request = Self { name: [0; 16], data: [0; 24] };
        let length = name.len().min(15);
        request.name[..length].copy_from_slice(&name.as_bytes()[..length]);
        request
    }

    fn flags(&mut self, flags: i16) {
        self.data[..2].copy_from_slice(&flags.to_ne_bytes());
    }

    fn get_flags(&self) -> i16 {
        i16::from_ne_bytes([self.data[0], self.data[1]])
    }

    fn value(&mut self, value: i32) {
        self.data[..4].copy_from_slice(&value.to_ne_bytes());
    }

    fn call(&mut self, fd: BorrowedFd<'_>, number: libc::c_ulong) -> io::Result<()> {
        // SAFETY: `self` has the size and layout of `struct ifreq`, which all these calls read or write and do not keep.
        checked(unsafe { libc::ioctl(fd.as_raw_fd(), number as _, std::ptr::from_mut(self)) })
    }
}

/// A UDP socket on `port` of all addresses: blocking with a time limit, no fragments, receive and send offloads on. IPv6 and IPv4 (as mapped
/// addresses) where the kernel has IPv6, else IPv4 only.
pub(crate) fn open_udp(port: u16, wait: std::time::Duration) -> io::Result<(OwnedFd, bool)> {
    let (socket, v6) = match bound_socket(libc::AF_INET6, port) {
        Ok(socket) => (socket, true),
        Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => return Err(error),
        Err(_) => (bound_socket(libc::AF_INET, port)?, false),
    };
    let fd = socket.as_fd();
    option(fd, libc::IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)?;
    if v6 {
        option(fd, libc::IPPROTO_IPV6, IPV6_MTU_DISCOVER, IP_PMTUDISC_PROBE)?;
        option(fd, libc::IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)?;
    }
    // Large enough for what arrives while the other thread has the processor. Without the right to force it, it is a wish.
    for (force, wish) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        if option(fd, libc::SOL_SOCKET, force, 7 << 20).is_err() {
            option(fd, libc::SOL_SOCKET, wish, 7 << 20)?;
        }
    }
    only_wireguard(fd)?;
    // Missing before Linux 5.0: datagrams then come one by one.
    let _ = option(fd, libc::IPPROTO_UDP, UDP_GRO, 1);
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, Some(wait))?;
    Ok((socket, v6))
}

/// Lets the kernel drop what cannot be a message before it takes room in the queue: the first four bytes are a type from 1 to 4 and zeros.
fn only_wireguard(fd: BorrowedFd<'_>) -> io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // The filter sees the UDP header too, hence 8. Loads are in network order. A packet too short to load is dropped.
    let mut program = [
        step(LOAD, 0, 0, 8),
        step(EQUAL, 4, 0, 0x0100_0000),
        step(EQUAL, 3, 0, 0x0200_0000),
        step(EQUAL, 2, 0, 0x0300_0000),
        step(EQUAL, 1, 0, 0x0400_0000),
        step(RETURN, 0, 0, 0),
        step(RETURN, 0, 0, u32::MAX),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let length = size_of::<libc::sock_fprog>() as libc::socklen_t;
    // SAFETY: points to a program of that many steps, which the kernel checks and copies.
    checked(unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, (&raw const filter).cast(), length)
    })
}

fn bound_socket(family: libc::c_int, port: u16) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked and owned by nobody else.
    let socket = unsafe {
        let fd = libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        checked(fd)?;
        OwnedFd::from_raw_fd(fd)
    };
    if family == libc::AF_INET6 {
        option(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0)?;
        rustix::net::bind(&socket, &std::net::SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port)))?;
    } else {
        rustix::net::bind(&socket, &std::net::SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, port)))?;
    }
    Ok(socket)
}

fn option(fd: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: points to an int of that length, which the kernel copies.
    checked(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), length) })
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
