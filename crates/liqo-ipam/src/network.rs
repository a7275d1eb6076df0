//! Networks and addresses in them: what can be one, and how one stands for another.

use std::{net::IpAddr, ops::RangeInclusive};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::Refusal;

/// Networks no pod of another cluster can be in, with what they are (RFC 6890, RFC 5771, RFC 4291).
const UNROUTABLE: [(&str, &str); 11] = [
    ("0.0.0.0/8", "\"this network\""),
    ("127.0.0.0/8", "the loopback network"),
    ("169.254.0.0/16", "link-local addresses"),
    ("224.0.0.0/4", "multicast addresses"),
    ("255.255.255.255/32", "the broadcast address"),
    ("::/128", "the unspecified address"),
    ("::1/128", "the loopback address"),
    ("::ffff:0:0/96", "IPv4 addresses"),
    ("fe80::/10", "link-local addresses"),
    ("ff00::/8", "multicast addresses"),
    ("100::/64", "the discard network"),
];

/// Private networks (RFC 1918, RFC 6598, RFC 4193): no traffic to the Internet has a destination in them.
const PRIVATE: [&str; 5] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"];

/// Mask lengths a network of a peer may have: no cluster is larger, and none can work in less.
const LENGTHS_V4: RangeInclusive<u8> = 8..=29;
const LENGTHS_V6: RangeInclusive<u8> = 16..=125;

/// A network as a user or a peer writes it.
///
/// Equal or overlapping with others is not checked here: that is what remapping is for.
pub(crate) fn parse(what: &str, text: &str) -> Result<IpNet, Refusal> {
    let syntax = || Refusal::Syntax { what: what.to_owned(), text: text.to_owned() };
    let network: IpNet = text.trim().parse().map_err(|_| syntax())?;
    if network != network.trunc() {
        return Err(Refusal::HostBits { what: what.to_owned(), text: text.to_owned(), network: network.trunc() });
    }
    if network.prefix_len() == 0 {
        return Err(Refusal::Everything { what: what.to_owned(), network });
    }
    for (range, reason) in UNROUTABLE {
        let range: IpNet = range.parse().expect("the table holds networks");
        if overlap(&network, &range) {
            return Err(Refusal::Unroutable { what: what.to_owned(), network, range, reason });
        }
    }
    if network.max_prefix_len() - network.prefix_len() < 2 {
        return Err(Refusal::TooSmall { what: what.to_owned(), network });
    }
    Ok(network)
}

/// The network again, if a cluster can be of that size.
pub(crate) fn size_of_a_peer(what: &str, network: IpNet) -> Result<IpNet, Refusal> {
    let lengths = if network.addr().is_ipv4() { LENGTHS_V4 } else { LENGTHS_V6 };
    if lengths.contains(&network.prefix_len()) {
        return Ok(network);
    }
    let (shortest, longest) = (*lengths.start(), *lengths.end());
    Err(Refusal::Length { what: what.to_owned(), network, shortest, longest })
}

/// Whether nothing of a network is on the Internet.
pub(crate) fn is_private(network: &IpNet) -> bool {
    PRIVATE.iter().any(|text| text.parse::<IpNet>().is_ok_and(|private| private.contains(network)))
}

/// Whether a gateway of a peer may be at `address`: nobody sends UDP to what has a meaning on its own machine only, or to
/// many machines at once.
pub fn is_unicast(address: IpAddr) -> bool {
    let single = IpNet::from(address.to_canonical());
    UNROUTABLE.iter().all(|(text, _)| text.parse::<IpNet>().is_ok_and(|range| !range.contains(&single)))
}

/// Whether two networks share an address.
pub(crate) fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// Whether both are IPv4 or both IPv6.
pub(crate) fn same_version(a: &IpNet, b: &IpNet) -> bool {
    a.max_prefix_len() == b.max_prefix_len()
}

/// The address in `network` with the host bits `address` has behind the mask of `network`; the network's own host
/// bits, if any are set, do not matter. `None` when one is IPv4 and the other IPv6.
pub fn host_in(address: IpAddr, network: &IpNet) -> Option<IpAddr> {
    match (address, network) {
        (IpAddr::V4(address), IpNet::V4(network)) => {
            let host = u32::from(address) & u32::from(network.hostmask());
            Some((u32::from(network.network()) | host).to_be_bytes().into())
        }
        (IpAddr::V6(address), IpNet::V6(network)) => {
            let host = u128::from(address) & u128::from(network.hostmask());
            Some((u128::from(network.network()) | host).to_be_bytes().into())
        }
        _ => None,
    }
}

/// The address that stands in `to` for `address` in `from`. `None` when the address is not in `from`, or the networks
/// are not of one size, so that two addresses would become one.
pub fn remap(address: IpAddr, from: &IpNet, to: &IpNet) -> Option<IpAddr> {
    let one_to_one = same_version(from, to) && from.prefix_len() == to.prefix_len() && from.contains(&address);
    if one_to_one { host_in(address, to) } else { None }
}

/// Address number `index` of a network, counted from its first.
pub(crate) fn nth(network: &IpNet, index: u32) -> IpAddr {
    match network.network() {
        IpAddr::V4(base) => u32::from(base).saturating_add(index).to_be_bytes().into(),
        IpAddr::V6(base) => u128::from(base).saturating_add(u128::from(index)).to_be_bytes().into(),
    }
}

/// The first `length` bits of a network as a network of its own.
pub(crate) fn first_of(network: &IpNet, length: u8) -> IpNet {
    match network {
        IpNet::V4(network) => Ipv4Net::new(network.network(), length).map(IpNet::from).unwrap_or((*network).into()),
        IpNet::V6(network) => Ipv6Net::new(network.network(), length).map(IpNet::from).unwrap_or((*network).into()),
    }
}

/// Both halves of a network, the lower one first; `None` for a single address.
pub(crate) fn halves(network: &IpNet) -> Option<[IpNet; 2]> {
    let mut halves = network.subnets(network.prefix_len() + 1).ok()?;
    Some([halves.next()?, halves.next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_move_between_networks_by_their_host_bits() {
        let cases = [
            ("10.2.1.3", "10.0.4.0/24", "10.0.4.3"),
            ("10.2.127.128", "10.0.128.0/23", "10.0.129.128"),
            ("10.244.0.43", "10.245.0.0/16", "10.245.0.43"),
            ("10.2.1.3", "10.0.4.77/24", "10.0.4.3"),
            ("10.2.1.3", "192.168.7.4/32", "192.168.7.4"),
            ("fd00::1:2:3", "fd01:0:0:7::/64", "fd01:0:0:7:0:1:2:3"),
        ];
        for (address, network, expected) in cases {
            assert_eq!(host_in(address.parse().unwrap(), &net(network)), Some(expected.parse().unwrap()), "{address}");
        }
        assert_eq!(host_in("10.0.0.1".parse().unwrap(), &net("fd00::/64")), None);
    }

    #[test]
    fn networks_of_different_size_do_not_stand_for_each_other() {
        let remapped = |address: &str, from, to| remap(address.parse().unwrap(), &net(from), &net(to));
        let expected = Some("10.245.1.2".parse().unwrap());
        assert_eq!(remapped("10.244.1.2", "10.244.0.0/16", "10.245.0.0/16"), expected);
        assert_eq!(remapped("10.243.1.2", "10.244.0.0/16", "10.245.0.0/16"), None, "not in the network");
        assert_eq!(remapped("10.244.1.2", "10.244.0.0/16", "10.245.0.0/17"), None, "a smaller one");
        assert_eq!(remapped("10.244.1.2", "10.244.0.0/16", "10.244.0.0/15"), None, "a larger one");
        assert_eq!(remapped("fd00::1", "fd00::/16", "10.244.0.0/16"), None, "another IP version");
    }

    #[test]
    fn what_cannot_be_a_network_of_pods_is_refused_with_its_reason() {
        let cases = [
            ("", "is not a network"),
            ("10.0.0.0", "is not a network"),
            ("10.0.0.0/33", "is not a network"),
            ("10.0.0/8", "is not a network"),
            ("\u{0}10.0.0.0/8", "is not a network"),
            ("10.0.0.1/8", "the network is 10.0.0.0/8"),
            ("0.0.0.0/0", "every address there is"),
            ("0.0.0.0/1", "\"this network\""),
            ("128.0.0.0/1", "link-local"),
            ("127.0.0.0/8", "loopback"),
            ("127.64.0.0/10", "loopback"),
            ("169.254.0.0/24", "link-local"),
            ("224.0.0.0/4", "multicast"),
            ("239.1.0.0/16", "multicast"),
            ("255.255.255.252/30", "broadcast"),
            ("::/0", "every address there is"),
            ("::/1", "unspecified"),
            ("fe80::/64", "link-local"),
            ("ff02::/16", "multicast"),
            ("10.0.0.0/31", "too small"),
            ("10.0.0.1/32", "too small"),
            ("fd00::/127", "too small"),
        ];
        for (text, expected) in cases {
            let refusal = parse("pod network of cluster x", text).unwrap_err().to_string();
            assert!(refusal.contains(expected) && refusal.contains("pod network of cluster x"), "{text}: {refusal}");
        }
        for good in ["10.0.0.0/8", "10.0.0.0/30", " 100.64.0.0/10 ", "240.0.0.0/8", "fd00::/48", "1.0.0.0/8"] {
            assert!(parse("x", good).is_ok(), "{good}");
        }
    }
}
