//! Unicast routes.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::rt::{address, af, everything, octets};
use crate::socket::{Refusal, Socket};
use crate::state::{Family, Route};
use crate::wire::{ACK, CREATE, Message, REPLACE, Writer, attributes, find, u32_at};

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTMSG: usize = 12;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTAX_MTU: u16 = 2;
const RTN_UNICAST: u8 = 1;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
/// In a removal: any scope.
const RT_SCOPE_NOWHERE: u8 = 255;
const RTNH_F_ONLINK: u32 = 4;
/// Set on copies that the IPv6 stack made of a route.
const RTM_F_CLONED: u32 = 0x200;

/// What a listing is restricted to, in the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Filter {
    /// One table.
    Table(u32),
    /// One origin, in all tables.
    Protocol(u8),
}

/// A route as listed: the link by index. Zero: none or several (a kind we never make).
pub(crate) type Found = (u32, Route);

/// Routes of one address family.
pub(crate) fn list(socket: &Socket, family: Family, filter: Filter) -> Result<Vec<Found>, Refusal> {
    let mut header = [0; RTMSG];
    header[0] = af(family);
    let mut only = None;
    match filter {
        Filter::Table(table) => only = Some(table),
        Filter::Protocol(protocol) => header[5] = protocol,
    }
    let attributes = |w: &mut Writer| {
        if let Some(table) = only {
            w.put_u32(RTA_TABLE, table);
        }
    };
    match socket.list(RTM_GETROUTE, &header, attributes, |message| decode(message, family)) {
        // A table that holds nothing may not exist.
        Err(Refusal { errno: rustix::io::Errno::NOENT, .. }) => Ok(Vec::new()),
        other => other,
    }
}

/// Adds a route or replaces the one of its table and prefix.
pub(crate) fn set(socket: &Socket, index: u32, protocol: u8, route: &Route) -> Result<(), Refusal> {
    let family = Family::from(route.prefix.addr());
    let scope = if route.via.is_none() && family == Family::V4 { RT_SCOPE_LINK } else { RT_SCOPE_UNIVERSE };
    let flags = if route.onlink { RTNH_F_ONLINK } else { 0 };
    let header = header(route, protocol, scope, RTN_UNICAST, flags);
    socket.request(RTM_NEWROUTE, CREATE | REPLACE | ACK, &header, |w| body(w, index, route), |_| ())
}

/// Removes a route.
pub(crate) fn remove(socket: &Socket, index: u32, route: &Route) -> Result<(), Refusal> {
    let attributes = |w: &mut Writer| {
        w.put(RTA_DST, &octets(route.prefix.addr()));
        w.put_u32(RTA_TABLE, route.table);
        if index != 0 {
            w.put_u32(RTA_OIF, index);
        }
    };
    socket.request(RTM_DELROUTE, ACK, &header(route, 0, RT_SCOPE_NOWHERE, 0, 0), attributes, |_| ())
}

/// Table and origin of the route a notice is about.
pub(crate) fn notice(message: Message<'_>) -> Option<(u32, u8)> {
    if !matches!(message.kind, RTM_NEWROUTE | RTM_DELROUTE) || u32_at(message.body, 8)? & RTM_F_CLONED != 0 {
        return None;
    }
    let named = attributes(message.body, RTMSG).find(|(kind, _)| *kind == RTA_TABLE);
    let table = named.and_then(|(_, value)| u32_at(value, 0)).or(message.body.get(4).map(|t| u32::from(*t)))?;
    Some((table, *message.body.get(5)?))
}

fn body(w: &mut Writer, index: u32, route: &Route) {
    w.put(RTA_DST, &octets(route.prefix.addr()));
    w.put_u32(RTA_TABLE, route.table);
    w.put_u32(RTA_OIF, index);
    match route.via {
        Some(via) if via.is_ipv4() == route.prefix.addr().is_ipv4() => w.put(RTA_GATEWAY, &octets(via)),
        Some(via) => {
            let family = u16::from(af(via.into()));
            w.put(RTA_VIA, &[&family.to_ne_bytes()[..], &octets(via)].concat());
        }
        None => {}
    }
    if let Some(src) = route.src {
        w.put(RTA_PREFSRC, &octets(src));
    }
    if let Some(mtu) = route.mtu {
        w.nest(RTA_METRICS, |w| w.put_u32(RTAX_MTU, mtu));
    }
}

fn decode(message: Message<'_>, family: Family) -> Option<Found> {
    let flags = u32_at(message.body, 8)?;
    if message.kind != RTM_NEWROUTE || flags & RTM_F_CLONED != 0 {
        return None;
    }
    let mut index = 0;
    let mut destination: IpAddr = everything(family).addr();
    let mut route = Route {
        table: u32::from(*message.body.get(4)?),
        prefix: everything(family),
        via: None,
        dev: String::new(),
        onlink: flags & RTNH_F_ONLINK != 0,
        mtu: None,
        src: None,
    };
    for (kind, value) in attributes(message.body, RTMSG) {
        match kind {
            RTA_DST => destination = address(value)?,
            RTA_TABLE => route.table = u32_at(value, 0)?,
            RTA_OIF => index = u32_at(value, 0)?,
            RTA_GATEWAY => route.via = address(value),
            RTA_VIA => route.via = address(value.get(2..)?),
            RTA_PREFSRC => route.src = address(value),
            RTA_METRICS => route.mtu = find(value, RTAX_MTU).and_then(|mtu| u32_at(mtu, 0)),
            _ => {}
        }
    }
    route.prefix = IpNet::new(destination, *message.body.get(1)?).ok()?;
    if *message.body.get(7)? != RTN_UNICAST {
        index = 0;
    }
    Some((index, route))
}

/// `rtmsg`. The table is told by an attribute, which has room for all numbers.
fn header(route: &Route, protocol: u8, scope: u8, kind: u8, flags: u32) -> [u8; RTMSG] {
    let mut header = [0; RTMSG];
    header[0] = af(route.prefix.addr().into());
    header[1] = route.prefix.prefix_len();
    header[5] = protocol;
    header[6] = scope;
    header[7] = kind;
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header
}
