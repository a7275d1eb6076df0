//! A netlink socket that asks and reads all answers.
//!
//! The kernel works a request off inside `send` and queues the answers before it returns (a listing: part by part, as
//! it is read), so nothing here ever waits: an empty queue without the final answer is an error.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{
    set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, set_socket_send_buffer_size,
    set_socket_send_buffer_size_force, socket_send_buffer_size,
};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, getsockname, recv, send, socket_with,
};

use crate::sys;
use crate::wire::{
    DUMP_INTERRUPTED, Message, NLMSG_DONE, NLMSG_ERROR, NLMSG_MIN_TYPE, Writer, attributes, messages, text, u32_at,
};

/// `NETLINK_CAP_ACK`: an answer holds the header of the request, not all of it.
const NETLINK_CAP_ACK: libc::c_int = 10;
/// `NETLINK_EXT_ACK`: an answer holds words.
const NETLINK_EXT_ACK: libc::c_int = 11;
/// `NETLINK_GET_STRICT_CHK`: the kernel applies the filters of a listing.
const NETLINK_GET_STRICT_CHK: libc::c_int = 12;
/// Flag and number of the words in an answer.
const ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// Size of a receive buffer: listings come in parts of at most 32 KiB.
const PART: usize = 64 * 1024;
/// A listing that changes while it is read is read again this often.
const TRIES: usize = 10;

/// Which family of requests.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Family {
    /// Links, addresses, neighbours, routes, rules.
    Route,
    /// nftables.
    Netfilter,
}

/// The kernel's no.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) errno: Errno,
    pub(crate) said: Option<String>,
    /// Number of the refused message.
    pub(crate) sequence: u32,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, said: None, sequence: 0 }
    }
}

/// A socket of one namespace.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    port: u32,
    next: AtomicU32,
    /// One exchange at a time; holds the receive buffer.
    turn: Mutex<Vec<u8>>,
}

impl Socket {
    /// Opens a socket in the calling thread's namespace; `groups` is a bit set of multicast groups (bit n - 1).
    pub(crate) fn open(family: Family, groups: u32) -> io::Result<Self> {
        let protocol: Option<Protocol> = match family {
            Family::Route => None,
            Family::Netfilter => Some(netlink::NETFILTER),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        for option in [NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK] {
            sys::set_netlink_option(&fd, option)?;
        }
        if set_socket_recv_buffer_size_force(&fd, 1 << 20).is_err() {
            set_socket_recv_buffer_size(&fd, 1 << 20)?;
        }
        bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        let port = SocketAddrNetlink::try_from(getsockname(&fd)?)?.pid();
        Ok(Self { fd, port, next: AtomicU32::new(1), turn: Mutex::new(Vec::new()) })
    }

    /// Our number: the kernel names it in notices of changes that we asked for.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// For listening only.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// A writer whose messages are numbered after all earlier ones; `messages` is how many it will hold at most.
    pub(crate) fn writer(&self, messages: u32) -> Writer {
        Writer::new(self.next.fetch_add(messages, Ordering::Relaxed))
    }

    /// Sends one request and gives what is answered besides the acknowledgement to `each`.
    pub(crate) fn request(
        &self,
        kind: u16,
        flags: u16,
        fixed: &[u8],
        attributes: impl FnOnce(&mut Writer),
        each: impl FnMut(Message<'_>),
    ) -> Result<(), Refusal> {
        let mut writer = self.writer(1);
        writer.message(kind, flags, fixed, attributes);
        self.exchange(&writer, each)
    }

    /// Lists; reads again from the start if the listing changed meanwhile.
    pub(crate) fn list<T>(
        &self,
        kind: u16,
        fixed: &[u8],
        attributes: impl Fn(&mut Writer),
        mut each: impl FnMut(Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Refusal> {
        let mut tries = 0;
        loop {
            let mut found = Vec::new();
            tries += 1;
            match self.request(kind, crate::wire::DUMP, fixed, &attributes, |message| found.extend(each(message))) {
                Err(Refusal { errno: Errno::INTR, .. }) if tries < TRIES => {}
                other => return other.map(|()| found),
            }
        }
    }

    /// Sends all messages at once and reads all answers. The first refusal is returned.
    pub(crate) fn exchange(&self, writer: &Writer, mut each: impl FnMut(Message<'_>)) -> Result<(), Refusal> {
        let mut buffer = self.turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        buffer.resize(PART, 0);
        // Answers of a request that was given up.
        while !matches!(recv(&self.fd, &mut buffer[..], RecvFlags::DONTWAIT), Err(Errno::AGAIN)) {}
        self.room_for(writer.bytes().len())?;
        send(&self.fd, writer.bytes(), SendFlags::empty())?;
        let mut refusal = None;
        let mut done = false;
        let mut interrupted = false;
        loop {
            let length = match recv(&self.fd, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => length,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                // Too many refusals for the buffer: the first ones say enough.
                Err(Errno::NOBUFS) if refusal.is_some() => continue,
                Err(errno) => return Err(errno.into()),
            };
            for message in messages(&buffer[..length]) {
                if message.sequence.wrapping_sub(writer.first()) > writer.last().wrapping_sub(writer.first()) {
                    continue;
                }
                interrupted |= message.flags & DUMP_INTERRUPTED != 0;
                match message.kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        done |= message.sequence == writer.answered();
                        let answer = answer(message);
                        refusal = refusal.or(answer);
                    }
                    kind if kind >= NLMSG_MIN_TYPE => {
                        // A single object asked for without an acknowledgement.
                        done = true;
                        each(message);
                    }
                    _ => {}
                }
            }
        }
        match refusal {
            Some(refusal) => Err(refusal),
            None if interrupted => Err(Errno::INTR.into()),
            None if !done => Err(Errno::PROTO.into()),
            None => Ok(()),
        }
    }

    /// A transaction is one datagram: it must fit into the send buffer.
    fn room_for(&self, length: usize) -> Result<(), Errno> {
        let wanted = length + 4096;
        if socket_send_buffer_size(&self.fd)? >= wanted {
            return Ok(());
        }
        // The kernel doubles what is asked for.
        set_socket_send_buffer_size_force(&self.fd, wanted).or_else(|_| set_socket_send_buffer_size(&self.fd, wanted))
    }
}

/// The refusal in an answer, if it is one.
fn answer(message: Message<'_>) -> Option<Refusal> {
    let code = u32_at(message.body, 0)?.cast_signed();
    if code == 0 {
        return None;
    }
    // An answer repeats the header of the request between the code and the words; the end of a listing does not.
    let fixed = if message.kind == NLMSG_ERROR { 4 + 16 } else { 4 };
    let said = (message.flags & ACK_TLVS != 0)
        .then(|| attributes(message.body, fixed).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG))
        .flatten()
        .map(|(_, words)| text(words));
    Some(Refusal { errno: Errno::from_raw_os_error(-code), said, sequence: message.sequence })
}
