//! Many datagrams with one system call: `recvmmsg` with `UDP_GRO`, `sendmmsg` with `UDP_SEGMENT`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Most messages of one call, both ways.
pub(crate) const BATCH: usize = 16;
/// A message holds what UDP can hold, or what the kernel merged into one.
pub(crate) const MESSAGE: usize = 1 << 16;
/// Room for control data: two headers with an address and a size.
const CONTROL: usize = 96;
const NAME: usize = 28;
const UDP_SEGMENT: libc::c_int = 103;
const UDP_GRO: libc::c_int = 104;
const IPV6_PKTINFO: libc::c_int = 50;
/// `struct cmsghdr` of the kernel: length, level, type.
const CONTROL_HEADER: usize = 16;

/// Where a peer is, and which of our addresses it talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The peer's address; IPv4 as such, never mapped.
    pub(crate) to: SocketAddr,
    /// Our address, so that answers leave from where questions arrive, and the interface of a link-local one.
    pub(crate) from: Option<(Ipv6Addr, u32)>,
}

impl Endpoint {
    /// A peer that was never heard of: the routing table chooses our address.
    pub(crate) fn new(to: SocketAddr) -> Self {
        Self { to, from: None }
    }
}

/// `struct msghdr` and `struct mmsghdr` as the kernel has them on 64 bits.
#[repr(C)]
#[derive(Clone, Copy)]
struct Header {
    name: *mut u8,
    name_length: usize,
    pieces: *mut libc::iovec,
    pieces_length: usize,
    control: *mut u8,
    control_length: usize,
    flags: u64,
    length: u64,
}

impl Header {
    const EMPTY: Self = Self {
        name: std::ptr::null_mut(),
        name_length: 0,
        pieces: std::ptr::null_mut(),
        pieces_length: 0,
        control: std::ptr::null_mut(),
        control_length: 0,
        flags: 0,
        length: 0,
    };
}

#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// What one call received: up to [`BATCH`] messages, each of one or more datagrams of one sender.
pub(crate) struct Datagrams {
    buffer: Box<[u8]>,
    names: [[u8; NAME]; BATCH],
    control: [Control; BATCH],
    /// Lengths of the message, its sender and its control data.
    lengths: [(usize, usize, usize); BATCH],
}

impl Datagrams {
    /// Allocates the only buffers receiving ever needs.
    pub(crate) fn new() -> Self {
        Self {
            buffer: vec![0; BATCH * MESSAGE].into_boxed_slice(),
            names: [[0; NAME]; BATCH],
            control: [Control([0; CONTROL]); BATCH],
            lengths: [(0, 0, 0); BATCH],
        }
    }

    /// Takes all messages that are there; with `wait`, waits for the first for as long as the socket is set to. 0 when the socket was shut down.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>, wait: bool) -> io::Result<usize> {
        let mut pieces = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: MESSAGE }; BATCH];
        let mut headers = [Header::EMPTY; BATCH];
        for (i, chunk) in self.buffer.chunks_exact_mut(MESSAGE).enumerate() {
            pieces[i].iov_base = chunk.as_mut_ptr().cast();
            headers[i].name = self.names[i].as_mut_ptr();
            headers[i].name_length = NAME;
            headers[i].pieces = &raw mut pieces[i];
            headers[i].pieces_length = 1;
            headers[i].control = self.control[i].0.as_mut_ptr();
            headers[i].control_length = CONTROL;
        }
        // SAFETY: every header points to live memory of the length it tells: distinct parts of `self` and of `pieces`.
        let count = unsafe {
            libc::syscall(
                libc::SYS_recvmmsg,
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH,
                if wait { libc::MSG_WAITFORONE } else { libc::MSG_DONTWAIT },
                std::ptr::null_mut::<libc::timespec>(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for (header, lengths) in headers.iter().zip(&mut self.lengths).take(count) {
            *lengths = (
                (header.length & 0xffff_ffff) as usize,
                header.name_length & 0xffff_ffff,
                header.control_length.min(CONTROL),
            );
        }
        Ok(count)
    }

    /// Message `i` of the last call: its bytes, the size of its datagrams (the last may be shorter), and its sender.
    pub(crate) fn message(&self, i: usize) -> Option<(&[u8], usize, Endpoint)> {
        let (length, name, control) = *self.lengths.get(i)?;
        let bytes = self.buffer.get(i * MESSAGE..i * MESSAGE + length.min(MESSAGE))?;
        let to = read_name(self.names[i].get(..name)?)?;
        let (size, from) = read_control(&self.control[i].0[..control]);
        Some((bytes, size.unwrap_or(length).max(1), Endpoint { to, from }))
    }
}

/// One message to send: datagrams that lie behind one another in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outgoing {
    /// Offset in the buffer.
    pub(crate) start: usize,
    /// Bytes of all its datagrams.
    pub(crate) length: usize,
    /// Bytes of each datagram; the last may be shorter.
    pub(crate) size: usize,
    /// Where to.
    pub(crate) endpoint: Endpoint,
}

/// Sends up to [`BATCH`] messages and tells how many went. Fails only if the first of them did.
pub(crate) fn send(socket: BorrowedFd<'_>, v6: bool, buffer: &[u8], messages: &[Outgoing]) -> io::Result<usize> {
    let mut pieces = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH];
    let mut names = [[0u8; NAME]; BATCH];
    let mut control = [Control([0; CONTROL]); BATCH];
    let mut headers = [Header::EMPTY; BATCH];
    let count = messages.len().min(BATCH);
    for (i, message) in messages.iter().take(count).enumerate() {
        let bytes = buffer.get(message.start..message.start + message.length).unwrap_or_default();
        pieces[i] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        headers[i].name_length = write_name(&mut names[i], message.endpoint.to, v6);
        headers[i].name = names[i].as_mut_ptr();
        headers[i].pieces = &raw mut pieces[i];
        headers[i].pieces_length = 1;
        headers[i].control_length = write_control(&mut control[i].0, message, v6);
        headers[i].control = control[i].0.as_mut_ptr();
    }
    // SAFETY: every header points to live memory of the length it tells, which the kernel only reads.
    let sent = unsafe { libc::syscall(libc::SYS_sendmmsg, socket.as_raw_fd(), headers.as_mut_ptr(), count, 0) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// `struct sockaddr_in6` or `struct sockaddr_in`.
fn write_name(name: &mut [u8; NAME], to: SocketAddr, v6: bool) -> usize {
    name[2..4].copy_from_slice(&to.port().to_be_bytes());
    match to {
        SocketAddr::V4(to) if !v6 => {
            name[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            name[4..8].copy_from_slice(&to.ip().octets());
            return 16;
        }
        SocketAddr::V4(to) => name[8..24].copy_from_slice(&to.ip().to_ipv6_mapped().octets()),
        SocketAddr::V6(to) => {
            name[8..24].copy_from_slice(&to.ip().octets());
            name[24..28].copy_from_slice(&to.scope_id().to_ne_bytes());
        }
    }
    name[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
    NAME
}

fn read_name(name: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes([*name.first()?, *name.get(1)?]));
    let port = u16::from_be_bytes([*name.get(2)?, *name.get(3)?]);
    if family == libc::AF_INET {
        let ip: [u8; 4] = name.get(4..8)?.try_into().ok()?;
        return Some(SocketAddrV4::new(Ipv4Addr::from(ip), port).into());
    }
    let ip = Ipv6Addr::from(<[u8; 16]>::try_from(name.get(8..24)?).ok()?);
    let scope = u32::from_ne_bytes(name.get(24..28)?.try_into().ok()?);
    Some(match ip.to_canonical() {
        IpAddr::V4(ip) => SocketAddrV4::new(ip, port).into(),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, scope).into(),
    })
}

/// Writes the datagram size and our address; tells the length.
fn write_control(control: &mut [u8; CONTROL], message: &Outgoing, v6: bool) -> usize {
    let mut at = 0;
    let mut put = |level: libc::c_int, kind: libc::c_int, data: &[u8]| {
        control[at..at + 8].copy_from_slice(&(CONTROL_HEADER + data.len()).to_ne_bytes());
        control[at + 8..at + 12].copy_from_slice(&level.to_ne_bytes());
        control[at + 12..at + 16].copy_from_slice(&kind.to_ne_bytes());
        control[at + 16..at + 16 + data.len()].copy_from_slice(data);
        at += (CONTROL_HEADER + data.len()).next_multiple_of(8);
    };
    if message.length > message.size {
        put(libc::IPPROTO_UDP, UDP_SEGMENT, &(message.size as u16).to_ne_bytes());
    }
    if let (Some((from, interface)), true) = (message.endpoint.from, v6) {
        let mut info = [0; 20];
        info[..16].copy_from_slice(&from.octets());
        // Only a link-local address needs its interface; any other may leave where the routes say.
        let scope = if from.is_unicast_link_local() { interface } else { 0 };
        info[16..].copy_from_slice(&scope.to_ne_bytes());
        put(libc::IPPROTO_IPV6, IPV6_PKTINFO, &info);
    }
    at
}

/// The datagram size and our address, where they are told.
fn read_control(mut control: &[u8]) -> (Option<usize>, Option<(Ipv6Addr, u32)>) {
    let (mut size, mut from) = (None, None);
    while let Some((header, rest)) = control.split_at_checked(CONTROL_HEADER) {
        let word = |at: usize| i32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let length = u64::from_ne_bytes(std::array::from_fn(|i| header[i])) as usize;
        let Some(data) = length.checked_sub(CONTROL_HEADER).and_then(|length| rest.get(..length)) else { break };
        match (word(8), word(12), data.len()) {
            (libc::IPPROTO_UDP, UDP_GRO, 4..) => {
                size = usize::try_from(i32::from_ne_bytes([data[0], data[1], data[2], data[3]])).ok();
            }
            (libc::IPPROTO_IPV6, IPV6_PKTINFO, 20) => {
                let ip: [u8; 16] = std::array::from_fn(|i| data[i]);
                from = Some((Ipv6Addr::from(ip), u32::from_ne_bytes([data[16], data[17], data[18], data[19]])));
            }
            _ => {}
        }
        control = control.get(length.next_multiple_of(8)..).unwrap_or_default();
    }
    (size, from)
}

#[cfg(test)]
mod tests {
    use super::{CONTROL, Endpoint, NAME, Outgoing, read_control, read_name, write_control, write_name};

    #[test]
    fn addresses_survive_the_kernels_form() {
        for (to, v6) in [("192.0.2.7:5871", true), ("192.0.2.7:5871", false), ("[2001:db8::7]:5871", true)] {
            let mut name = [0; NAME];
            let length = write_name(&mut name, to.parse().unwrap(), v6);
            assert_eq!(read_name(&name[..length]), Some(to.parse().unwrap()), "{to}");
        }
    }

    #[test]
    fn our_address_comes_back_as_it_was_told() {
        let from = Some(("2001:db8::1".parse().unwrap(), 0));
        let endpoint = Endpoint { to: "[2001:db8::7]:5871".parse().unwrap(), from };
        let mut control = [0; CONTROL];
        let message = Outgoing { start: 0, length: 3000, size: 1452, endpoint };
        let length = write_control(&mut control, &message, true);
        assert_eq!(length, 24 + 40);
        assert_eq!(read_control(&control[..length]).1, from);
    }

    #[test]
    fn control_data_that_lies_is_left() {
        for seed in 0..2000u32 {
            let mut state = seed.wrapping_mul(2_654_435_761) | 1;
            let mut bytes = [0u8; CONTROL];
            for byte in &mut bytes {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                *byte = state as u8;
            }
            // Short lengths are the interesting ones.
            bytes[1..8].fill(0);
            read_control(&bytes);
            read_name(&bytes[..NAME]);
        }
    }
}
