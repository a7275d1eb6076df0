//! Which pairs of keys there shall be: what is there, what is wished, what follows. A pure function.
//!
//! Make before break: a new pair that takes the place of an established one (our key changed, or the peer's did) does so after its
//! first handshake. Until then the old pair carries the traffic.

use std::collections::{BTreeSet, HashMap, HashSet};

use ipnet::IpNet;

use crate::{Peer, PublicKey};

/// A pair that is there.
#[derive(Clone, Debug)]
pub(crate) struct Present {
    /// Our public key in it.
    pub(crate) ours: PublicKey,
    /// The peer's.
    pub(crate) key: PublicKey,
    /// What is sent to it.
    pub(crate) allowed: Vec<IpNet>,
    /// Whether it has shaken hands.
    pub(crate) established: bool,
}

/// What shall be there for one wished peer; numbers are positions in the list of what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The pair itself. `None`: it must be made.
    pub(crate) pair: Option<usize>,
    /// The pair that carries the traffic until this one has shaken hands.
    pub(crate) before: Option<usize>,
}

/// One entry per wished peer. Pairs that no entry names shall go.
#[must_use]
pub(crate) fn plan(present: &[Present], own: &PublicKey, wished: &[Peer]) -> Vec<Wanted> {
    let keys: HashSet<&PublicKey> = wished.iter().map(|peer| &peer.key).collect();
    let pairs: HashMap<(&PublicKey, &PublicKey), usize> =
        present.iter().enumerate().map(|(i, p)| ((&p.ours, &p.key), i)).collect();
    let mut taken = HashSet::new();
    wished
        .iter()
        .map(|peer| {
            let pair = pairs.get(&(own, &peer.key)).copied();
            if pair.is_some_and(|i| present[i].established) {
                return Wanted { pair, before: None };
            }
            let same_peer = |p: &Present| p.key == peer.key && p.ours != *own;
            let same_place = |p: &Present| !keys.contains(&p.key) && same(&p.allowed, &peer.allowed);
            let established = |test: &dyn Fn(&Present) -> bool| present.iter().position(|p| p.established && test(p));
            let before = established(&same_peer).or_else(|| established(&same_place)).filter(|i| taken.insert(*i));
            Wanted { pair, before }
        })
        .collect()
}

/// Whether both lists hold the same prefixes.
fn same(a: &[IpNet], b: &[IpNet]) -> bool {
    a.iter().collect::<BTreeSet<_>>() == b.iter().collect::<BTreeSet<_>>()
}

#[cfg(test)]
mod tests {
    use super::{Present, Wanted, plan};
    use crate::{Peer, PublicKey};

    fn key(byte: u8) -> PublicKey {
        PublicKey::from_bytes([byte; 32])
    }

    fn present(ours: u8, theirs: u8, prefix: &str, established: bool) -> Present {
        Present { ours: key(ours), key: key(theirs), allowed: vec![prefix.parse().unwrap()], established }
    }

    fn peer(theirs: u8, prefix: &str) -> Peer {
        Peer { key: key(theirs), endpoint: None, allowed: vec![prefix.parse().unwrap()], keepalive: None }
    }

    #[test]
    fn what_is_wished_and_there_stays() {
        let there = [present(1, 7, "10.1.0.0/16", true), present(1, 8, "10.2.0.0/16", false)];
        let plan = plan(&there, &key(1), &[peer(7, "10.9.0.0/16"), peer(8, "10.2.0.0/16")]);
        assert_eq!(plan, [Wanted { pair: Some(0), before: None }, Wanted { pair: Some(1), before: None }]);
    }

    #[test]
    fn a_new_key_of_a_peer_waits_behind_the_old_one() {
        let there = [present(1, 7, "10.1.0.0/16", true)];
        let first = plan(&there, &key(1), &[peer(9, "10.1.0.0/16")]);
        assert_eq!(first, [Wanted { pair: None, before: Some(0) }]);
        // Still waiting, then there.
        let mut there = [there[0].clone(), present(1, 9, "10.1.0.0/16", false)];
        assert_eq!(plan(&there, &key(1), &[peer(9, "10.1.0.0/16")]), [Wanted { pair: Some(1), before: Some(0) }]);
        there[1].established = true;
        assert_eq!(plan(&there, &key(1), &[peer(9, "10.1.0.0/16")]), [Wanted { pair: Some(1), before: None }]);
    }

    #[test]
    fn our_new_key_waits_behind_our_old_one() {
        let there = [present(1, 7, "10.1.0.0/16", true), present(1, 8, "10.2.0.0/16", false)];
        let plan = plan(&there, &key(2), &[peer(7, "10.1.0.0/16"), peer(8, "10.2.0.0/16")]);
        assert_eq!(plan, [Wanted { pair: None, before: Some(0) }, Wanted { pair: None, before: None }]);
    }

    #[test]
    fn a_peer_that_is_gone_or_elsewhere_is_nobodys_predecessor() {
        let there = [present(1, 7, "10.1.0.0/16", true)];
        assert_eq!(plan(&there, &key(1), &[]), []);
        assert_eq!(plan(&there, &key(1), &[peer(9, "10.3.0.0/16")]), [Wanted { pair: None, before: None }]);
        // One that is still wished keeps its place: two peers then claim it, and the last one wins.
        let both = plan(&there, &key(1), &[peer(7, "10.1.0.0/16"), peer(9, "10.1.0.0/16")]);
        assert_eq!(both[1], Wanted { pair: None, before: None });
    }

    #[test]
    fn one_predecessor_serves_one_successor() {
        let there = [present(1, 7, "10.1.0.0/16", true)];
        let plan = plan(&there, &key(1), &[peer(8, "10.1.0.0/16"), peer(9, "10.1.0.0/16")]);
        assert_eq!(plan.iter().filter(|wanted| wanted.before.is_some()).count(), 1);
    }
}
