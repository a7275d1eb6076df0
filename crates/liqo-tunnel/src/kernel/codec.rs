//! What the kernel is told and what it tells, as values (`linux/wireguard.h`). Pure.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use netlink_packet_core::Emitable;
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute, WireguardPeer,
    WireguardPeerAttribute, WireguardPeerFlags,
};

use crate::plan::Wanted;
use crate::{Peer, PeerState, PrivateKey, PublicKey};

/// Bytes of peers in one message: the length of an attribute has 16 bits.
const MOST: usize = 48 << 10;
/// Prefixes of one peer in one message.
const PREFIXES: usize = 512;
/// Seconds between keepalives of a peer that waits for its first handshake: they make the kernel try.
const EAGER: u16 = 1;

/// A peer as the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) key: PublicKey,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) allowed: Vec<IpNet>,
    pub(super) keepalive: u16,
    pub(super) last_handshake: Option<SystemTime>,
    pub(super) received: u64,
    pub(super) sent: u64,
}

impl Seen {
    pub(super) fn state(&self) -> PeerState {
        let Self { key, endpoint, last_handshake, received, sent, .. } = *self;
        PeerState { key, endpoint, last_handshake, received, sent }
    }
}

/// Key and port of a device.
pub(super) fn device(key: &PrivateKey, port: u16) -> Vec<WireguardAttribute> {
    vec![WireguardAttribute::PrivateKey(*key.as_bytes()), WireguardAttribute::ListenPort(port)]
}

/// The peers of a device. A peer whose prefixes do not fit one message is told in several.
pub(super) fn peers(attributes: &[WireguardAttribute]) -> Vec<Seen> {
    let mut seen: Vec<Seen> = Vec::new();
    let told = attributes.iter().filter_map(|attribute| match attribute {
        WireguardAttribute::Peers(peers) => Some(peers),
        _ => None,
    });
    for told in told.flatten().filter_map(peer) {
        match seen.last_mut() {
            Some(last) if last.key == told.key => last.allowed.extend(told.allowed),
            _ => seen.push(told),
        }
    }
    seen
}

fn peer(told: &WireguardPeer) -> Option<Seen> {
    let key = told.0.iter().find_map(|attribute| match attribute {
        WireguardPeerAttribute::PublicKey(key) => Some(PublicKey::from_bytes(*key)),
        _ => None,
    })?;
    let mut seen =
        Seen { key, endpoint: None, allowed: Vec::new(), keepalive: 0, last_handshake: None, received: 0, sent: 0 };
    for attribute in &told.0 {
        match attribute {
            WireguardPeerAttribute::Endpoint(endpoint) => seen.endpoint = Some(*endpoint),
            WireguardPeerAttribute::PersistentKeepalive(seconds) => seen.keepalive = *seconds,
            WireguardPeerAttribute::RxBytes(bytes) => seen.received = *bytes,
            WireguardPeerAttribute::TxBytes(bytes) => seen.sent = *bytes,
            WireguardPeerAttribute::AllowedIps(prefixes) => seen.allowed = prefixes.iter().filter_map(prefix).collect(),
            // All zeros: never.
            WireguardPeerAttribute::LastHandshake(time) if time.seconds > 0 => {
                let since = Duration::new(time.seconds.unsigned_abs(), u32::try_from(time.nano_seconds).unwrap_or(0));
                seen.last_handshake = SystemTime::UNIX_EPOCH.checked_add(since);
            }
            _ => {}
        }
    }
    Some(seen)
}

fn prefix(told: &WireguardAllowedIp) -> Option<IpNet> {
    let address = told.0.iter().find_map(|attribute| match attribute {
        WireguardAllowedIpAttr::IpAddr(address) => Some(*address),
        _ => None,
    })?;
    let length = told.0.iter().find_map(|attribute| match attribute {
        WireguardAllowedIpAttr::Cidr(length) => Some(*length),
        _ => None,
    })?;
    IpNet::new(address, length).ok()
}

/// What leads from the peers that are there to those that are wished; `before`: what was wished until now. A peer that has not changed is not
/// touched, and one that has roamed is not called back.
pub(super) fn changes(seen: &[Seen], before: &[Peer], wished: &[Peer], wanted: &[Wanted]) -> Vec<WireguardPeer> {
    let mut changes: Vec<WireguardPeer> = Vec::new();
    for (peer, wanted) in wished.iter().zip(wanted) {
        let there = wanted.pair.map(|i| &seen[i]);
        let endpoint_before = before.iter().find(|old| old.key == peer.key).and_then(|old| old.endpoint);
        let mut change = vec![WireguardPeerAttribute::PublicKey(*peer.key.as_bytes())];
        if let Some(endpoint) = peer.endpoint.filter(|_| there.is_none() || endpoint_before != peer.endpoint) {
            change.push(WireguardPeerAttribute::Endpoint(endpoint));
        }
        // Behind another, a peer has no prefixes yet: the kernel would give it the traffic at once.
        let waits = wanted.before.is_some();
        let keepalive = if waits { EAGER } else { peer.keepalive.map_or(0, seconds) };
        if there.is_none_or(|there| there.keepalive != keepalive) {
            change.push(WireguardPeerAttribute::PersistentKeepalive(keepalive));
        }
        let allowed: &[IpNet] = if waits { &[] } else { &peer.allowed };
        if there.is_none_or(|there| !same(&there.allowed, allowed)) {
            change.push(WireguardPeerAttribute::Flags(WireguardPeerFlags::ReplaceAllowedIps));
            let (first, rest) = allowed.split_at(allowed.len().min(PREFIXES));
            change.push(prefixes(first));
            changes.push(WireguardPeer(change));
            changes.extend(rest.chunks(PREFIXES).map(|more| {
                WireguardPeer(vec![WireguardPeerAttribute::PublicKey(*peer.key.as_bytes()), prefixes(more)])
            }));
        } else if change.len() > 1 {
            changes.push(WireguardPeer(change));
        }
    }
    let stays = |i: usize| wanted.iter().any(|wanted| wanted.pair == Some(i) || wanted.before == Some(i));
    let gone = seen.iter().enumerate().filter(|(i, _)| !stays(*i));
    changes.extend(gone.map(|(_, peer)| {
        WireguardPeer(vec![
            WireguardPeerAttribute::PublicKey(*peer.key.as_bytes()),
            WireguardPeerAttribute::Flags(WireguardPeerFlags::RemoveMe),
        ])
    }));
    changes
}

fn same(a: &[IpNet], b: &[IpNet]) -> bool {
    let sorted = |nets: &[IpNet]| {
        let mut nets: Vec<IpNet> = nets.iter().map(IpNet::trunc).collect();
        nets.sort();
        nets.dedup();
        nets
    };
    sorted(a) == sorted(b)
}

fn prefixes(nets: &[IpNet]) -> WireguardPeerAttribute {
    let attribute = |net: &IpNet| {
        let family = match net.addr() {
            IpAddr::V4(_) => WireguardAddressFamily::Ipv4,
            IpAddr::V6(_) => WireguardAddressFamily::Ipv6,
        };
        WireguardAllowedIp(vec![
            WireguardAllowedIpAttr::Family(family),
            WireguardAllowedIpAttr::IpAddr(net.network()),
            WireguardAllowedIpAttr::Cidr(net.prefix_len()),
        ])
    };
    WireguardPeerAttribute::AllowedIps(nets.iter().map(attribute).collect())
}

/// A change of nothing but the keepalive.
pub(super) fn keepalive(peer: &PublicKey, seconds: u16) -> WireguardPeer {
    WireguardPeer(vec![
        WireguardPeerAttribute::PublicKey(*peer.as_bytes()),
        WireguardPeerAttribute::PersistentKeepalive(seconds),
    ])
}

/// Whole seconds, at least one.
pub(super) fn seconds(interval: Duration) -> u16 {
    u16::try_from(interval.as_secs()).unwrap_or(u16::MAX).max(1)
}

/// Divides changes among messages that fit.
pub(super) fn messages(changes: Vec<WireguardPeer>) -> Vec<Vec<WireguardPeer>> {
    let mut messages: Vec<Vec<WireguardPeer>> = Vec::new();
    let mut room = 0;
    for change in changes {
        let length = change.buffer_len();
        match messages.last_mut() {
            Some(message) if length <= room => message.push(change),
            _ => {
                room = MOST;
                messages.push(vec![change]);
            }
        }
        room = room.saturating_sub(length);
    }
    messages
}

#[cfg(test)]
mod tests;
