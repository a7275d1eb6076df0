//! Free networks in a pool and free addresses in a network.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use crate::network::{first_of, halves, nth, overlap};

/// A free network of mask length `length` in `pool`, where those in `held` are not free.
///
/// Of the free blocks (as large as their alignment allows) the smallest that fits, the lowest of these: so large blocks
/// stay whole, and the choices are those recorded from clusters of Liqo 0.8.3.
pub(crate) fn free_network(pool: &IpNet, length: u8, held: &[IpNet]) -> Option<IpNet> {
    smallest_block(pool, length, held).map(|block| first_of(&block, length))
}

fn smallest_block(block: &IpNet, length: u8, held: &[IpNet]) -> Option<IpNet> {
    let within: Vec<IpNet> = held.iter().filter(|one| overlap(one, block)).copied().collect();
    if block.prefix_len() > length || within.iter().any(|one| one.contains(block)) {
        return None;
    }
    if within.is_empty() {
        return Some(*block);
    }
    let [low, high] = halves(block)?;
    let (low, high) = (smallest_block(&low, length, &within), smallest_block(&high, length, &within));
    match (low, high) {
        (Some(low), Some(high)) if high.prefix_len() > low.prefix_len() => Some(high),
        (low, high) => low.or(high),
    }
}

/// The lowest address of `network` that is not in `held`; never its first (the network itself), its second (the
/// tunnel's) or its last (broadcast).
pub(crate) fn free_address(network: &IpNet, held: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let last = network.broadcast();
    let mut index = 2;
    let mut candidate = nth(network, index);
    for taken in held.range(candidate..) {
        if *taken != candidate {
            break;
        }
        index += 1;
        candidate = nth(network, index);
    }
    (candidate < last && network.contains(&candidate)).then_some(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_smallest_free_block_that_fits_is_taken_the_lowest_of_them_first() {
        let cases = [
            // As recorded: external network of the cluster, then pod and external network of the peer.
            ("10.0.0.0/8", 16, vec!["10.96.0.0/16", "10.244.0.0/16"], Some("10.97.0.0/16")),
            ("10.0.0.0/8", 16, vec!["10.96.0.0/16", "10.244.0.0/16", "10.97.0.0/16"], Some("10.245.0.0/16")),
            ("10.0.0.0/8", 16, vec!["10.96.0.0/15", "10.244.0.0/15"], Some("10.98.0.0/16")),
            ("10.0.0.0/8", 16, vec![], Some("10.0.0.0/16")),
            ("10.0.0.0/8", 8, vec![], Some("10.0.0.0/8")),
            ("10.0.0.0/8", 7, vec![], None),
            ("10.0.0.0/8", 8, vec!["10.255.255.0/24"], None),
            ("10.0.0.0/8", 9, vec!["10.255.255.0/24"], Some("10.0.0.0/9")),
            ("10.0.0.0/8", 24, vec!["10.0.0.0/9", "10.128.0.0/9"], None),
            ("10.0.0.0/8", 24, vec!["0.0.0.0/4"], None),
            ("192.168.0.0/16", 24, vec!["10.0.0.0/8"], Some("192.168.0.0/24")),
            ("fd00::/48", 64, vec!["fd00::/64"], Some("fd00:0:0:1::/64")),
        ];
        for (pool, length, held, expected) in cases {
            let found = free_network(&pool.parse().unwrap(), length, &nets(&held));
            assert_eq!(found, expected.map(|text| text.parse().unwrap()), "{pool} /{length} {held:?}");
        }
    }

    #[test]
    fn first_second_and_last_address_are_never_given() {
        let network: IpNet = "10.0.0.0/29".parse().unwrap();
        let mut held = BTreeSet::new();
        while let Some(address) = free_address(&network, &held) {
            assert!(held.insert(address));
        }
        let texts: Vec<_> = held.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        held.remove(&"10.0.0.4".parse().unwrap());
        assert_eq!(free_address(&network, &held), "10.0.0.4".parse().ok(), "what is released comes back");
        let highest: IpNet = "255.255.255.248/29".parse().unwrap();
        let held = (2..7).map(|index| nth(&highest, index)).collect();
        assert_eq!(free_address(&highest, &held), None, "the end of the address space is an end");
    }
}
