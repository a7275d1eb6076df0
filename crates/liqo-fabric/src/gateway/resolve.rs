//! Where peers' gateways are: names are looked up again and again.
//!
//! An address once chosen is kept while the name still has it, so that a name with several addresses does not
//! make the tunnel jump; IPv4 is preferred. A name that cannot be looked up keeps what it had.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, future, stream};
use tokio::sync::Notify;

/// Pause between two looks at all names.
const AGAIN: Duration = Duration::from_secs(20);
/// No name is waited for longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Names that are looked up at the same time: a name without an answer keeps no other waiting.
const AT_ONCE: usize = 8;
/// Addresses of one name that are looked at.
const MOST: usize = 64;

/// The names in use. Copies share them.
#[derive(Clone)]
pub(crate) struct Resolver {
    names: Arc<Mutex<BTreeMap<String, Option<IpAddr>>>>,
    wanted: Arc<Notify>,
    bell: Arc<Notify>,
}

impl Resolver {
    /// Starts looking up; `bell` is rung when a name has another address.
    pub(crate) fn start(bell: Arc<Notify>) -> Self {
        let resolver = Self { names: Arc::default(), wanted: Arc::new(Notify::new()), bell };
        tokio::spawn(resolver.clone().run());
        resolver
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<String, Option<IpAddr>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address of `host`, now or not yet.
    pub(crate) fn address(&self, host: &str) -> Option<IpAddr> {
        if let Ok(address) = host.trim_matches(['[', ']']).parse() {
            return Some(address);
        }
        match self.names().get(host) {
            Some(known) => return *known,
            None if host.is_empty() => return None,
            None => {}
        }
        self.names().insert(host.to_owned(), None);
        self.wanted.notify_one();
        None
    }

    /// Forgets names nobody asks for any longer.
    pub(crate) fn keep(&self, hosts: &BTreeSet<&str>) {
        self.names().retain(|name, _| hosts.contains(name.as_str()));
    }

    async fn run(self) {
        loop {
            let names = self.names().clone();
            let looks = names.into_iter().map(|(name, before)| self.look_up(name, before));
            stream::iter(looks).buffer_unordered(AT_ONCE).for_each(|()| future::ready(())).await;
            let _ = tokio::time::timeout(AGAIN, self.wanted.notified()).await;
        }
    }

    async fn look_up(&self, name: String, before: Option<IpAddr>) {
        let ask = async {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(found.take(MOST).map(|address: SocketAddr| address.ip()).collect::<Vec<_>>())
        };
        let asked = tokio::time::timeout(PATIENCE, ask).await;
        let found = match asked.unwrap_or_else(|elapsed| Err(io::Error::from(elapsed))) {
            Ok(found) => found,
            Err(error) => {
                return tracing::warn!(name, error = %error, "the address of a peer's gateway cannot be looked up");
            }
        };
        let now = choose(before, &found);
        if now != before {
            tracing::info!(name, address = ?now, "a peer's gateway has another address");
            self.names().entry(name).and_modify(|known| *known = now);
            self.bell.notify_one();
        }
    }
}

fn choose(before: Option<IpAddr>, found: &[IpAddr]) -> Option<IpAddr> {
    if let Some(before) = before.filter(|before| found.contains(before)) {
        return Some(before);
    }
    let mut found: Vec<_> = found.to_vec();
    found.sort();
    // IPv4 sorts first.
    found.first().copied().or(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_kept_while_the_name_has_it() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (old, new, six) = (ip("192.0.2.9"), ip("192.0.2.1"), ip("2001:db8::1"));
        assert_eq!(choose(Some(old), &[new, old]), Some(old));
        assert_eq!(choose(Some(old), &[six, new]), Some(new));
        assert_eq!(choose(None, &[six]), Some(six));
        assert_eq!(choose(Some(old), &[]), Some(old));
        assert_eq!(choose(None, &[]), None);
    }
}
