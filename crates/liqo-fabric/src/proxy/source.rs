//! Sources of tunnels through the proxy. The pods of a peer have addresses in one range, so tunnels are counted by network:
//! open tunnels of one peer do not use up the tunnels of another.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;

/// Bits of a network that is counted as one source, of IPv4 and of IPv6: as long as pod ranges mostly are.
const PREFIX: (u8, u8) = (16, 48);

/// The open tunnels of each source. Only sources with a tunnel are kept.
#[derive(Debug)]
pub(super) struct Sources {
    most: u32,
    open: Mutex<BTreeMap<IpNet, u32>>,
}

impl Sources {
    /// At most `most` tunnels for each source.
    pub(super) fn new(most: u32) -> Arc<Self> {
        Arc::new(Self { most, open: Mutex::default() })
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<IpNet, u32>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A permit for one more tunnel of the source with this address.
    ///
    /// # Errors
    /// A sentence when the source has its maximum of tunnels.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Result<Place, String> {
        let source = network(address);
        let mut open = self.open();
        let count = open.get(&source).copied().unwrap_or_default();
        if count >= self.most {
            let most = self.most;
            return Err(format!(
                "{most} tunnels from {source} are in use, that is the limit (--max-tunnels-per-source)"
            ));
        }
        open.insert(source, count + 1);
        Ok(Place { sources: Arc::clone(self), source })
    }

    /// Open tunnels by source.
    pub(super) fn all(&self) -> BTreeMap<IpNet, u32> {
        self.open().clone()
    }
}

/// A tunnel's place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    sources: Arc<Sources>,
    source: IpNet,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.sources.open();
        let left = open.get(&self.source).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            open.remove(&self.source);
        } else {
            open.insert(self.source, left);
        }
    }
}

/// The network an address is counted for; an IPv4 address may be written as an IPv6 one.
fn network(address: IpAddr) -> IpNet {
    let address = address.to_canonical();
    let bits = if address.is_ipv4() { PREFIX.0 } else { PREFIX.1 };
    IpNet::new(address, bits).unwrap_or_else(|_| address.into()).trunc()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_its_limit_and_takes_nothing_from_others() {
        let sources = Sources::new(2);
        let take = |address: &str| sources.take(address.parse().unwrap());
        let first = take("10.42.0.1").unwrap();
        let _second = take("::ffff:10.42.200.7").unwrap();
        let told = take("10.42.7.7").unwrap_err();
        assert!(told.starts_with("2 tunnels from 10.42.0.0/16 are in use"), "{told}");
        let other = take("10.43.0.1").unwrap();
        let _v6 = take("fd00:1:2:3::1").unwrap();
        drop(first);
        assert!(take("10.42.7.7").is_ok());
        drop(other);
        let open: Vec<String> = sources.all().iter().map(|(source, count)| format!("{source} {count}")).collect();
        assert_eq!(open, ["10.42.0.0/16 1", "fd00:1:2::/48 1"], "what is gone leaves nothing");
    }
}
