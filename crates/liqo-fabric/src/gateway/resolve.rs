//! Where peers' gateways are: names are looked up again and again.
//!
//! An address once chosen is kept while the name still has it, so that a name with several addresses does not
//! make the tunnel jump; IPv4 is preferred. A name that cannot be looked up keeps what it had.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

/// Pause between two looks at all names.
const AGAIN: Duration = Duration::from_secs(20);

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
            let names: Vec<_> = self.names().clone().into_iter().collect();
            for (name, before) in names {
                let found: Vec<_> = match tokio::net::lookup_host((name.as_str(), 0)).await {
                    Ok(found) => found.map(|address: SocketAddr| address.ip()).collect(),
                    Err(error) => {
                        tracing::warn!(name, error = %error, "the address of a peer's gateway cannot be looked up");
                        continue;
                    }
                };
                let now = choose(before, &found);
                if now != before {
                    tracing::info!(name, address = ?now, "a peer's gateway has another address");
                    self.names().entry(name).and_modify(|known| *known = now);
                    self.bell.notify_one();
                }
            }
            let _ = tokio::time::timeout(AGAIN, self.wanted.notified()).await;
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
