//! Handshakes per second and sender. Each costs four multiplications on the curve; a sender has no use for more than a few.

use std::net::IpAddr;
use std::time::Instant;

/// Handshakes a sender may begin per second, and at once.
const RATE: f32 = 20.0;
/// Senders that are told apart; more share a bucket.
const BUCKETS: usize = 256;

/// Buckets of senders, by hash of their address.
pub(crate) struct Limit {
    buckets: Box<[(Option<Instant>, f32)]>,
}

impl Default for Limit {
    fn default() -> Self {
        Self { buckets: vec![(None, RATE); BUCKETS].into_boxed_slice() }
    }
}

impl Limit {
    /// Whether this sender may begin one more. An IPv6 sender is its network of 64 bits.
    pub(crate) fn take(&mut self, sender: IpAddr, now: Instant) -> bool {
        let bits = match sender {
            IpAddr::V4(address) => u64::from(u32::from(address)),
            IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
        };
        let slot = (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize % BUCKETS;
        let (last, tokens) = &mut self.buckets[slot];
        let passed = last.map_or(0.0, |last| now.duration_since(last).as_secs_f32());
        *tokens = (*tokens + passed * RATE).min(RATE);
        *last = Some(now);
        let enough = *tokens >= 1.0;
        if enough {
            *tokens -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Limit;

    #[test]
    fn a_flood_of_one_sender_is_cut_and_others_pass() {
        let (mut limit, now) = (Limit::default(), Instant::now());
        let flood = "192.0.2.1".parse().unwrap();
        assert_eq!((0..1000).filter(|_| limit.take(flood, now)).count(), 20);
        assert!(limit.take("192.0.2.2".parse().unwrap(), now));
        let later = now + Duration::from_secs(1);
        assert_eq!((0..1000).filter(|_| limit.take(flood, later)).count(), 20);
    }
}
