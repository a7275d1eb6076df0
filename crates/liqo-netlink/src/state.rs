//! What a namespace should look like, as ordered sets of values, and what in it is ours.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::nft;

/// A hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// IPv4 or IPv6, where no address tells which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl From<IpAddr> for Family {
    fn from(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// What a link is. Two different kinds of one name: the link is made anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// One end of a pair. The other end is made with it; a state of the other namespace names it as [`LinkKind::Other`].
    Veth {
        /// Name of the other end.
        peer: String,
        /// Path of the other end's namespace (`/run/netns/x`); `None`: the same namespace.
        peer_netns: Option<PathBuf>,
    },
    /// VXLAN without learning: only the forwarding entries ([`Fdb`]) say where a frame goes (RFC 7348).
    Vxlan {
        /// Network identifier, 24 bits.
        vni: u32,
        /// UDP port, both ends.
        port: u16,
        /// Source address of outer packets.
        local: IpAddr,
    },
    /// Made by somebody else (a TUN device, the other end of a pair, WireGuard): never created, never removed; its
    /// properties are kept. While it is absent, everything that names it as `dev` waits.
    Other,
}

/// A link and those of its properties that are kept; `None` leaves the property alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// What it is.
    pub kind: LinkKind,
    /// Hardware address.
    pub mac: Option<Mac>,
    /// Largest packet, bytes.
    pub mtu: Option<u32>,
    /// Administratively up.
    pub up: bool,
    /// Answers and asks for neighbours (ARP; for IPv6 neighbour discovery). `None` leaves it.
    pub arp: Option<bool>,
}

/// An address on a link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Name of the link.
    pub dev: String,
    /// Address and prefix length.
    pub net: IpNet,
}

/// A permanent neighbour (ARP or NDP entry).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// Name of the link.
    pub dev: String,
    /// Next hop.
    pub ip: IpAddr,
    /// Its hardware address.
    pub mac: Mac,
}

/// A permanent forwarding entry of a VXLAN link: frames for `mac` go to the machine `dst`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fdb {
    /// Name of the VXLAN link.
    pub dev: String,
    /// Inner destination.
    pub mac: Mac,
    /// Outer destination.
    pub dst: IpAddr,
}

/// A unicast route. One route per table and prefix: a second one replaces the first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Table number; 254 is `main`.
    pub table: u32,
    /// Destination; its host bits must be zero.
    pub prefix: IpNet,
    /// Next hop; `None`: the destination is on the link itself (scope link).
    pub via: Option<IpAddr>,
    /// Name of the link.
    pub dev: String,
    /// The next hop is taken as reachable on the link although no address covers it.
    pub onlink: bool,
    /// Path MTU of this route, bytes.
    pub mtu: Option<u32>,
    /// Preferred source.
    pub src: Option<IpAddr>,
}

impl Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.prefix)?;
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        write!(f, " dev {} table {}", self.dev, self.table)
    }
}

/// A policy rule that looks up a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Lower is earlier.
    pub priority: u32,
    /// Table looked up.
    pub table: u32,
    /// Only packets that came in by this link.
    pub iif: Option<String>,
    /// Only packets whose mark has all these bits.
    pub mark: Option<u32>,
    /// Only packets from here.
    pub from: Option<IpNet>,
    /// Only packets to here.
    pub to: Option<IpNet>,
}

/// What a namespace should hold of ours, or what was seen there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// By name.
    pub links: BTreeMap<String, Link>,
    /// On links of the realm.
    pub addresses: BTreeSet<Address>,
    /// On links of the realm; only permanent ones.
    pub neighbours: BTreeSet<Neighbour>,
    /// On VXLAN links of the realm; only permanent ones.
    pub fdb: BTreeSet<Fdb>,
    /// Path below `/proc/sys/net`, for example `ipv4/ip_forward`, to value. Written, never put back.
    pub sysctls: BTreeMap<String, String>,
    /// In tables of the realm, or with its protocol number.
    pub routes: BTreeSet<Route>,
    /// With the realm's protocol number.
    pub rules: BTreeSet<Rule>,
    /// The one nftables table; absent when wanted: removed if the realm names one.
    pub table: Option<nft::Table>,
}

/// What is ours in a namespace: all of it that is not wanted is removed, nothing else ever is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Realm {
    /// Exact names of links. Addresses, neighbours and forwarding entries on them are ours too.
    pub links: BTreeSet<String>,
    /// Route tables that are wholly ours.
    pub tables: BTreeSet<u32>,
    /// Our number in `rtm_protocol` of routes and `FRA_PROTOCOL` of rules: what carries it is ours in every table.
    /// Numbers up to 16 and those in `/etc/iproute2/rt_protos` are taken.
    pub protocol: u8,
    /// The nftables table that is ours.
    pub table: Option<(nft::Family, String)>,
}

/// A hardware address made of an IP address: always the same one, locally administered, unicast. For IPv4 the
/// address is in the last four bytes, so two addresses never share one; for IPv6 it is a hash of 42 bits.
#[must_use]
pub fn mac_of(ip: IpAddr) -> Mac {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            Mac([0x0a, 0x4c, a, b, c, d])
        }
        IpAddr::V6(ip) => {
            use sha2::Digest as _;
            let hash = sha2::Sha256::digest(ip.octets());
            Mac([0x0e | (hash[5] & 0xf0), hash[0], hash[1], hash[2], hash[3], hash[4]])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Mac, mac_of};

    #[test]
    fn a_mac_made_of_an_address_is_local_and_unicast() {
        assert_eq!(mac_of("172.30.0.11".parse().unwrap()), Mac([0x0a, 0x4c, 172, 30, 0, 11]));
        for ip in ["10.0.0.1", "fd00::1", "fd00::2", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
            let mac = mac_of(ip.parse().unwrap());
            assert_eq!(mac.0[0] & 0b11, 0b10, "{ip} {mac}");
        }
        assert_ne!(mac_of("fd00::1".parse().unwrap()), mac_of("fd00::2".parse().unwrap()));
    }
}
