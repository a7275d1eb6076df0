//! Permanent neighbours, and forwarding entries of VXLAN links, which the kernel keeps as neighbours of a bridge.

use std::net::IpAddr;

use crate::rt::{address, af, octets};
use crate::socket::{Refusal, Socket};
use crate::state::Mac;
use crate::wire::{ACK, CREATE, Message, REPLACE, Writer, attributes, u16_at, u32_at};

const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const NDMSG: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_IFINDEX: u16 = 8;
const NUD_PERMANENT: u16 = 0x80;
/// The entry is the link's own, not its bridge's.
const NTF_SELF: u8 = 0x02;

/// Which of the two tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// Next hop to hardware address.
    Neighbours,
    /// Hardware address to machine.
    Forwarding,
}

/// Permanent entries of a link.
pub(crate) fn list(socket: &Socket, table: Table, index: u32) -> Result<Vec<(IpAddr, Mac)>, Refusal> {
    let family = if table == Table::Forwarding { libc::AF_BRIDGE as u8 } else { 0 };
    // The forwarding table's listing filters by the header, the neighbours' by an attribute.
    let header = header(family, if table == Table::Forwarding { index } else { 0 }, 0, 0);
    let attributes = |w: &mut Writer| {
        if table == Table::Neighbours {
            w.put_u32(NDA_IFINDEX, index);
        }
    };
    socket.list(RTM_GETNEIGH, &header, attributes, |message| {
        let bridge = message.body.first() == Some(&(libc::AF_BRIDGE as u8));
        (u32_at(message.body, 4) == Some(index) && bridge == (table == Table::Forwarding))
            .then(|| decode(message))
            .flatten()
    })
}

/// Adds or replaces an entry.
pub(crate) fn set(socket: &Socket, table: Table, index: u32, ip: IpAddr, mac: Mac) -> Result<(), Refusal> {
    send(socket, RTM_NEWNEIGH, CREATE | REPLACE | ACK, table, index, (ip, mac))
}

/// Removes an entry.
pub(crate) fn remove(socket: &Socket, table: Table, index: u32, ip: IpAddr, mac: Mac) -> Result<(), Refusal> {
    send(socket, RTM_DELNEIGH, ACK, table, index, (ip, mac))
}

/// Index of the link a notice is about, if the entry is or was permanent.
pub(crate) fn notice(message: Message<'_>) -> Option<u32> {
    let permanent = message.kind == RTM_DELNEIGH || u16_at(message.body, 8)? & NUD_PERMANENT != 0;
    (permanent && matches!(message.kind, RTM_NEWNEIGH | RTM_DELNEIGH)).then(|| u32_at(message.body, 4)).flatten()
}

fn send(
    socket: &Socket,
    kind: u16,
    flags: u16,
    table: Table,
    index: u32,
    (ip, mac): (IpAddr, Mac),
) -> Result<(), Refusal> {
    let header = match table {
        Table::Neighbours => header(af(ip.into()), index, NUD_PERMANENT, 0),
        Table::Forwarding => header(libc::AF_BRIDGE as u8, index, NUD_PERMANENT, NTF_SELF),
    };
    let attributes = |w: &mut Writer| {
        w.put(NDA_DST, &octets(ip));
        w.put(NDA_LLADDR, &mac.0);
    };
    socket.request(kind, flags, &header, attributes, |_| ())
}

fn decode(message: Message<'_>) -> Option<(IpAddr, Mac)> {
    if message.kind != RTM_NEWNEIGH || u16_at(message.body, 8)? & NUD_PERMANENT == 0 {
        return None;
    }
    let (mut ip, mut mac) = (None, None);
    for (kind, value) in attributes(message.body, NDMSG) {
        match kind {
            NDA_DST => ip = address(value),
            NDA_LLADDR => mac = <[u8; 6]>::try_from(value).ok().map(Mac),
            _ => {}
        }
    }
    Some((ip?, mac?))
}

/// `ndmsg`.
fn header(family: u8, index: u32, state: u16, flags: u8) -> [u8; NDMSG] {
    let mut header = [0; NDMSG];
    header[0] = family;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&state.to_ne_bytes());
    header[10] = flags;
    header
}
