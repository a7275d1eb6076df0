//! Longest-prefix match, for who is sent a packet and who may have sent one.
//!
//! All prefixes of one family are flattened into ranges of addresses that do not overlap, sorted: a look-up is one binary search
//! (11 steps for 1,000 peers with two prefixes each) over memory that lies together.

use std::net::IpAddr;

use ipnet::IpNet;

/// Maps addresses to the number of a group of peers.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

/// `starts[i]` begins a range that ends before `starts[i + 1]` and belongs to `owners[i]`.
#[derive(Debug)]
struct Ranges<A> {
    starts: Vec<A>,
    owners: Vec<Option<u32>>,
}

impl<A> Default for Ranges<A> {
    fn default() -> Self {
        Self { starts: Vec::new(), owners: Vec::new() }
    }
}

impl Routes {
    /// Of equal prefixes the last one wins, as in the kernel's WireGuard.
    pub(crate) fn new(prefixes: impl IntoIterator<Item = (IpNet, u32)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (prefix, owner) in prefixes {
            match prefix {
                IpNet::V4(net) => v4.push((u32::from(net.network()), u32::from(net.broadcast()), owner)),
                IpNet::V6(net) => v6.push((u128::from(net.network()), u128::from(net.broadcast()), owner)),
            }
        }
        Self { v4: Ranges::new(v4, |end| end.checked_add(1)), v6: Ranges::new(v6, |end| end.checked_add(1)) }
    }

    /// The owner of the longest prefix with this address.
    pub(crate) fn find(&self, address: IpAddr) -> Option<u32> {
        match address {
            IpAddr::V4(address) => self.v4.find(u32::from(address)),
            IpAddr::V6(address) => self.v6.find(u128::from(address)),
        }
    }
}

impl<A: Copy + Ord> Ranges<A> {
    /// `prefixes`: first and last address, owner. Prefixes nest or are apart, so a stack of the open ones is enough.
    fn new(mut prefixes: Vec<(A, A, u32)>, after: impl Fn(A) -> Option<A>) -> Self {
        // Outer before inner; the sort is stable, so of equal prefixes the last comes last and covers the others.
        prefixes.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        let mut ranges = Self::default();
        let mut open: Vec<(A, u32)> = Vec::new();
        for (start, end, owner) in prefixes {
            ranges.close(&mut open, Some(start), &after);
            ranges.begin(start, Some(owner));
            open.push((end, owner));
        }
        ranges.close(&mut open, None, &after);
        ranges
    }

    /// Ends the open prefixes that end before `next`: behind each, the one around it goes on.
    fn close(&mut self, open: &mut Vec<(A, u32)>, next: Option<A>, after: &impl Fn(A) -> Option<A>) {
        while let Some((end, _)) = open.pop_if(|(end, _)| next.is_none_or(|next| *end < next)) {
            let around = open.last().map(|(_, owner)| *owner);
            if let Some(behind) = after(end) {
                self.begin(behind, around);
            }
        }
    }

    fn begin(&mut self, start: A, owner: Option<u32>) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.owners.pop();
        }
        self.starts.push(start);
        self.owners.push(owner);
    }

    fn find(&self, address: A) -> Option<u32> {
        let behind = self.starts.partition_point(|start| *start <= address);
        *self.owners.get(behind.checked_sub(1)?)?
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use ipnet::{IpNet, Ipv4Net};
    use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

    use super::Routes;

    fn naive(prefixes: &[(IpNet, u32)], address: IpAddr) -> Option<u32> {
        let longest =
            prefixes.iter().filter(|(net, _)| net.contains(&address)).map(|(net, _)| net.prefix_len()).max()?;
        prefixes
            .iter()
            .rev()
            .find(|(net, _)| net.contains(&address) && net.prefix_len() == longest)
            .map(|(_, owner)| *owner)
    }

    fn prefix() -> impl Strategy<Value = (IpNet, u32)> {
        // Few different bits, so that prefixes nest and touch.
        (0..16u32, 0..=32u8, 0..9u32).prop_map(|(bits, length, owner)| {
            let address = Ipv4Addr::from(bits << 28 | bits << 4 | 0xf);
            (IpNet::V4(Ipv4Net::new(address, length).unwrap().trunc()), owner)
        })
    }

    proptest! {
        #[test]
        fn fuzz_look_ups_are_those_of_a_plain_search(prefixes in proptest::collection::vec(prefix(), 0..24), high in 0..16u32, low in any::<u8>()) {
            let routes = Routes::new(prefixes.clone());
            for address in [high << 28 | u32::from(low), high << 28, (high << 28).wrapping_sub(1), u32::MAX] {
                let address = IpAddr::V4(Ipv4Addr::from(address));
                prop_assert_eq!(routes.find(address), naive(&prefixes, address));
            }
        }
    }

    #[test]
    fn the_longest_prefix_wins_in_both_families() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let routes = Routes::new([
            (net("0.0.0.0/0"), 0),
            (net("10.0.0.0/8"), 1),
            (net("10.1.0.0/16"), 2),
            (net("10.1.0.0/16"), 3),
            (net("fd00::/8"), 4),
            (net("fd00:1::/32"), 5),
        ]);
        for (address, owner) in [
            ("9.9.9.9", Some(0)),
            ("10.200.0.1", Some(1)),
            ("10.1.255.255", Some(3)),
            ("10.2.0.0", Some(1)),
            ("255.255.255.255", Some(0)),
            ("fd00:1::7", Some(5)),
            ("fd00:2::7", Some(4)),
            ("2001:db8::1", None),
        ] {
            assert_eq!(routes.find(address.parse().unwrap()), owner, "{address}");
        }
        assert_eq!(Routes::default().find("10.0.0.1".parse().unwrap()), None);
    }
}
