//! Addresses on links.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::rt::{address, af, octets};
use crate::socket::{Refusal, Socket};
use crate::wire::{ACK, CREATE, Message, REPLACE, Writer, attributes, u32_at};

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const IFADDRMSG: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// No duplicate address detection: the address is usable at once (IPv6).
const IFA_F_NODAD: u8 = 0x02;

/// Addresses of a link, without those that the kernel makes itself (`fe80::/10`).
pub(crate) fn list(socket: &Socket, index: u32) -> Result<Vec<IpNet>, Refusal> {
    let mut header = [0; IFADDRMSG];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    socket.list(
        RTM_GETADDR,
        &header,
        |_| (),
        |message| (message.kind == RTM_NEWADDR).then(|| decode(message)).flatten(),
    )
}

/// Adds an address.
pub(crate) fn add(socket: &Socket, index: u32, net: IpNet) -> Result<(), Refusal> {
    send(socket, RTM_NEWADDR, CREATE | REPLACE | ACK, index, net)
}

/// Removes an address.
pub(crate) fn remove(socket: &Socket, index: u32, net: IpNet) -> Result<(), Refusal> {
    send(socket, RTM_DELADDR, ACK, index, net)
}

/// Index of the link a notice is about, if the address is one that would be listed.
pub(crate) fn notice(message: Message<'_>) -> Option<u32> {
    matches!(message.kind, RTM_NEWADDR | RTM_DELADDR).then(|| decode(message)).flatten()?;
    u32_at(message.body, 4)
}

fn send(socket: &Socket, kind: u16, flags: u16, index: u32, net: IpNet) -> Result<(), Refusal> {
    let mut header = [0; IFADDRMSG];
    header[0] = af(net.addr().into());
    header[1] = net.prefix_len();
    header[2] = IFA_F_NODAD;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let attributes = |w: &mut Writer| {
        w.put(IFA_LOCAL, &octets(net.addr()));
        w.put(IFA_ADDRESS, &octets(net.addr()));
    };
    socket.request(kind, flags, &header, attributes, |_| ())
}

fn decode(message: Message<'_>) -> Option<IpNet> {
    let (mut local, mut other) = (None, None);
    for (kind, value) in attributes(message.body, IFADDRMSG) {
        match kind {
            IFA_LOCAL => local = address(value),
            IFA_ADDRESS => other = address(value),
            _ => {}
        }
    }
    let found = local.or(other)?;
    let made_by_kernel = matches!(found, IpAddr::V6(ip) if ip.is_unicast_link_local());
    (!made_by_kernel).then(|| IpNet::new(found, *message.body.get(1)?).ok()).flatten()
}
