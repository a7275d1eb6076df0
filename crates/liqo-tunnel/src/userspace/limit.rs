//! How many handshakes are answered. Each costs four multiplications on the curve, about a quarter of a millisecond; a sender has no
//! use for more than a few per second.
//!
//! Anybody who knows our public key can write a message with somebody else's source address. So what such a message uses up is never
//! taken from those who have proved their address with a cookie (white paper, 5.3): at worst a sender is asked for the proof.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Instant;

/// Handshakes of one sender per second, and at once.
const EACH: f32 = 20.0;
/// Handshakes per second, and at once, of all senders together that have not proved their address.
const UNPROVEN: f32 = 200.0;
/// Buckets of senders. Several senders may share a bucket; a sender cannot choose its bucket.
const SENDERS: usize = 1024;

/// What is done with a handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is looked into.
    Answer,
    /// The sender must prove its address with a cookie.
    Ask,
    /// The sender has proved its address, and sends too much.
    Drop,
}

/// Handshakes that may still come.
#[derive(Clone, Copy)]
struct Bucket {
    last: Option<Instant>,
    tokens: f32,
}

/// Buckets of senders, by hash of their address.
pub(crate) struct Limit {
    hash: RandomState,
    proven: Box<[Bucket]>,
    unproven: Box<[Bucket]>,
    all_unproven: Bucket,
}

impl Default for Limit {
    fn default() -> Self {
        let each = vec![Bucket::full(EACH); SENDERS].into_boxed_slice();
        Self { hash: RandomState::new(), proven: each.clone(), unproven: each, all_unproven: Bucket::full(UNPROVEN) }
    }
}

impl Limit {
    /// Judges one more handshake message of this sender. An IPv6 sender counts as its /64.
    pub(crate) fn judge(&mut self, sender: IpAddr, proven: bool, now: Instant) -> Verdict {
        let network = match sender {
            IpAddr::V4(address) => u64::from(u32::from(address)),
            IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
        };
        let slot = self.hash.hash_one(network) as usize % SENDERS;
        if proven {
            return if self.proven[slot].take(EACH, now) { Verdict::Answer } else { Verdict::Drop };
        }
        let passes = self.unproven[slot].take(EACH, now) && self.all_unproven.take(UNPROVEN, now);
        if passes { Verdict::Answer } else { Verdict::Ask }
    }
}

impl Bucket {
    fn full(rate: f32) -> Self {
        Self { last: None, tokens: rate }
    }

    fn take(&mut self, rate: f32, now: Instant) -> bool {
        let passed = self.last.map_or(0.0, |last| now.duration_since(last).as_secs_f32());
        self.tokens = (self.tokens + passed * rate).min(rate);
        self.last = Some(now);
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::{Duration, Instant};

    use super::{Limit, Verdict};

    fn count(limit: &mut Limit, sender: IpAddr, proven: bool, now: Instant, verdict: Verdict) -> usize {
        (0..1000).filter(|_| limit.judge(sender, proven, now) == verdict).count()
    }

    #[test]
    fn a_flood_of_one_sender_is_cut_and_others_pass() {
        let (mut limit, now) = (Limit::default(), Instant::now());
        let flood = "192.0.2.1".parse().unwrap();
        for now in [now, now + Duration::from_secs(1)] {
            assert_eq!(count(&mut limit, flood, false, now, Verdict::Answer), 20);
            assert_eq!(count(&mut limit, flood, true, now, Verdict::Answer), 20);
        }
        assert_eq!(limit.judge(flood, false, now), Verdict::Ask, "the sender may be another one than it says");
        assert_eq!(limit.judge(flood, true, now), Verdict::Drop);
    }

    #[test]
    fn messages_with_a_forged_source_take_nothing_from_who_proves_its_own() {
        let (mut limit, now) = (Limit::default(), Instant::now());
        let victim = "192.0.2.1".parse().unwrap();
        assert_eq!(count(&mut limit, victim, false, now, Verdict::Drop), 0);
        for forged in 0..100_000_u32 {
            limit.judge(Ipv4Addr::from(forged).into(), false, now);
        }
        assert_eq!(limit.judge(victim, false, now), Verdict::Ask);
        assert_eq!(limit.judge(victim, true, now), Verdict::Answer);
    }

    #[test]
    fn all_who_prove_nothing_share_a_limit() {
        let (mut limit, now) = (Limit::default(), Instant::now());
        let answered = (0..100_000_u32)
            .filter(|one| limit.judge(Ipv4Addr::from(*one).into(), false, now) == Verdict::Answer)
            .count();
        assert_eq!(answered, 200);
    }
}
