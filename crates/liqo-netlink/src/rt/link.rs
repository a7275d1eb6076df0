//! Links: make, change, remove, move, look.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::rt::{address, octets};
use crate::socket::{Refusal, Socket};
use crate::state::{Link, LinkKind, Mac};
use crate::wire::{ACK, CREATE, EXCLUSIVE, Message, Writer, attributes, find, text, u16_at, u32_at};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWNSID: u16 = 88;
const RTM_GETNSID: u16 = 90;

const IFINFOMSG: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_LOCAL6: u16 = 17;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
/// `RTEXT_FILTER_SKIP_STATS`: counters are not asked for.
const SKIP_STATS: u32 = 1 << 3;

const IFF_UP: u32 = 1;
const IFF_NOARP: u32 = 0x80;

/// A link as listed.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    pub(crate) arp: bool,
    pub(crate) kind: FoundKind,
}

/// Kinds that we make; the other end of a pair is told by index and namespace number.
#[derive(Clone, Debug)]
pub(crate) enum FoundKind {
    Veth { peer: u32, nsid: Option<i32> },
    Vxlan { vni: u32, port: u16, local: IpAddr },
    Other,
}

/// The link of this name.
pub(crate) fn by_name(socket: &Socket, name: &str) -> Result<Option<Found>, Refusal> {
    get(socket, 0, Some(name))
}

/// The link of this index.
pub(crate) fn by_index(socket: &Socket, index: u32) -> Result<Option<Found>, Refusal> {
    get(socket, index, None)
}

fn get(socket: &Socket, index: u32, name: Option<&str>) -> Result<Option<Found>, Refusal> {
    let mut found = None;
    let attributes = |w: &mut Writer| {
        w.put_u32(IFLA_EXT_MASK, SKIP_STATS);
        if let Some(name) = name {
            w.put_str(IFLA_IFNAME, name);
        }
    };
    let answer = socket.request(RTM_GETLINK, 0, &header(index, 0, 0), attributes, |message| found = decode(message));
    match answer {
        Ok(()) => Ok(found),
        Err(Refusal { errno: rustix::io::Errno::NODEV, .. }) => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

/// Makes a link, down, with its kind only; `peer_netns` is where the other end of a pair goes.
pub(crate) fn add(socket: &Socket, name: &str, link: &Link, peer_netns: Option<BorrowedFd<'_>>) -> Result<(), Refusal> {
    let attributes = |w: &mut Writer| {
        w.put_str(IFLA_IFNAME, name);
        w.nest(IFLA_LINKINFO, |w| info(w, &link.kind, peer_netns));
    };
    socket.request(RTM_NEWLINK, CREATE | EXCLUSIVE | ACK, &header(0, 0, 0), attributes, |_| ())
}

fn info(w: &mut Writer, kind: &LinkKind, peer_netns: Option<BorrowedFd<'_>>) {
    match kind {
        LinkKind::Veth { peer, .. } => {
            w.put_str(IFLA_INFO_KIND, "veth");
            w.nest(IFLA_INFO_DATA, |w| {
                w.nest(VETH_INFO_PEER, |w| {
                    w.raw(&header(0, 0, 0));
                    w.put_str(IFLA_IFNAME, peer);
                    if let Some(netns) = peer_netns {
                        w.put_u32(IFLA_NET_NS_FD, netns.as_raw_fd().cast_unsigned());
                    }
                });
            });
        }
        LinkKind::Vxlan { vni, port, local } => {
            w.put_str(IFLA_INFO_KIND, "vxlan");
            w.nest(IFLA_INFO_DATA, |w| {
                w.put_u32(IFLA_VXLAN_ID, *vni);
                w.put(IFLA_VXLAN_PORT, &port.to_be_bytes());
                w.put(IFLA_VXLAN_LEARNING, &[0]);
                w.put(if local.is_ipv4() { IFLA_VXLAN_LOCAL } else { IFLA_VXLAN_LOCAL6 }, &octets(*local));
            });
        }
        LinkKind::Other => {}
    }
}

/// Gives a link those of its properties that are wanted and differ: setting the hardware address that it has would
/// flush its neighbours.
pub(crate) fn set(socket: &Socket, found: &Found, link: &Link) -> Result<(), Refusal> {
    let mac = link.mac.filter(|mac| found.mac != Some(*mac));
    let mtu = link.mtu.filter(|mtu| found.mtu != *mtu);
    let properties = |w: &mut Writer| {
        if let Some(mac) = mac {
            w.put(IFLA_ADDRESS, &mac.0);
        }
        if let Some(mtu) = mtu {
            w.put_u32(IFLA_MTU, mtu);
        }
    };
    if mac.is_some() || mtu.is_some() {
        socket.request(RTM_NEWLINK, ACK, &header(found.index, 0, 0), properties, |_| ())?;
    }
    let flag = |on, flag| if on { flag } else { 0 };
    let arp = link.arp.filter(|arp| found.arp != *arp);
    let change = flag(found.up != link.up, IFF_UP) | flag(arp.is_some(), IFF_NOARP);
    if change == 0 {
        return Ok(());
    }
    let flags = flag(link.up, IFF_UP) | flag(arp == Some(false), IFF_NOARP);
    socket.request(RTM_NEWLINK, ACK, &header(found.index, flags, change), |_| (), |_| ())
}

/// Removes a link.
pub(crate) fn remove(socket: &Socket, index: u32) -> Result<(), Refusal> {
    socket.request(RTM_DELLINK, ACK, &header(index, 0, 0), |_| (), |_| ())
}

/// Moves a link into another namespace.
pub(crate) fn move_to(socket: &Socket, index: u32, netns: BorrowedFd<'_>) -> Result<(), Refusal> {
    let netns = netns.as_raw_fd().cast_unsigned();
    socket.request(RTM_NEWLINK, ACK, &header(index, 0, 0), |w| w.put_u32(IFLA_NET_NS_FD, netns), |_| ())
}

/// The number by which the socket's namespace knows another one; `None`: it does not.
pub(crate) fn nsid(socket: &Socket, netns: BorrowedFd<'_>) -> Result<Option<i32>, Refusal> {
    let mut id = None;
    let fd = netns.as_raw_fd().cast_unsigned();
    socket.request(
        RTM_GETNSID,
        0,
        &[0; 4],
        |w| w.put_u32(NETNSA_FD, fd),
        |message| {
            if message.kind == RTM_NEWNSID {
                id = attributes(message.body, 4)
                    .find(|(kind, _)| *kind == NETNSA_NSID)
                    .and_then(|(_, value)| u32_at(value, 0))
                    .map(u32::cast_signed);
            }
        },
    )?;
    Ok(id.filter(|id| *id >= 0))
}

/// Index and name of the link a notice is about. Those of a protocol's own settings (IPv6 has its timers) are not told.
pub(crate) fn notice(message: Message<'_>) -> Option<(u32, String)> {
    (matches!(message.kind, RTM_NEWLINK | RTM_DELLINK) && message.body.first() == Some(&(libc::AF_UNSPEC as u8)))
        .then(|| decode_any(message))
        .flatten()
        .map(|found| (found.index, found.name))
}

fn decode(message: Message<'_>) -> Option<Found> {
    (message.kind == RTM_NEWLINK).then(|| decode_any(message)).flatten()
}

fn decode_any(message: Message<'_>) -> Option<Found> {
    let flags = u32_at(message.body, 8)?;
    let mut found = Found {
        index: u32_at(message.body, 4)?,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: flags & IFF_UP != 0,
        arp: flags & IFF_NOARP == 0,
        kind: FoundKind::Other,
    };
    let (mut peer, mut nsid, mut link_info) = (0, None, None);
    for (kind, value) in attributes(message.body, IFINFOMSG) {
        match kind {
            IFLA_IFNAME => found.name = text(value),
            IFLA_ADDRESS => found.mac = <[u8; 6]>::try_from(value).ok().map(Mac),
            IFLA_MTU => found.mtu = u32_at(value, 0)?,
            IFLA_LINK => peer = u32_at(value, 0)?,
            IFLA_LINK_NETNSID => nsid = u32_at(value, 0).map(u32::cast_signed),
            IFLA_LINKINFO => link_info = Some(value),
            _ => {}
        }
    }
    if let Some(info) = link_info {
        found.kind = decode_kind(info, peer, nsid).unwrap_or(FoundKind::Other);
    }
    Some(found)
}

fn decode_kind(info: &[u8], peer: u32, nsid: Option<i32>) -> Option<FoundKind> {
    match text(find(info, IFLA_INFO_KIND)?).as_str() {
        "veth" => Some(FoundKind::Veth { peer, nsid }),
        "vxlan" => {
            let data = find(info, IFLA_INFO_DATA)?;
            if find(data, IFLA_VXLAN_LEARNING).is_none_or(|learning| learning != [0]) {
                return None;
            }
            let local = find(data, IFLA_VXLAN_LOCAL).or_else(|| find(data, IFLA_VXLAN_LOCAL6));
            Some(FoundKind::Vxlan {
                vni: u32_at(find(data, IFLA_VXLAN_ID)?, 0)?,
                port: u16::from_be(u16_at(find(data, IFLA_VXLAN_PORT)?, 0)?),
                local: address(local?)?,
            })
        }
        _ => None,
    }
}

/// `ifinfomsg`.
fn header(index: u32, flags: u32, change: u32) -> [u8; IFINFOMSG] {
    let mut header = [0; IFINFOMSG];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}
