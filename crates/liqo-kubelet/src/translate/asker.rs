//! Asks the IPAM for what is wanted, and gives back what no longer is.

use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use liqo_ipam_rpc::{IpamClient, IpamError};
use liqo_kube::{
    Queue,
    metrics::{Metric, Samples},
};

use super::memory::{Answer, Memory, Step, Trouble, User};

const ADDRESSES: Metric = Metric::gauge(
    "liqo_virtual_kubelet_addresses",
    "Addresses the IPAM was asked to translate, by kind (endpoints here, pods there) and state of the question.",
    &["kind", "state"],
);

/// No question takes longer.
pub(super) const DEADLINE: Duration = Duration::from_secs(3);

/// Which way addresses go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// From here, for the peer: the IPAM keeps what it was asked for until it is given back.
    Out,
    /// From the peer, for us.
    Home,
}

/// Remembers, and asks, for one way.
pub(crate) struct Asker {
    way: Way,
    ipam: IpamClient,
    peer: String,
    memory: Mutex<Memory>,
    listeners: Mutex<HashMap<Arc<str>, Listener>>,
    queue: Queue<IpAddr>,
}

/// Who listens for a scope. While one pair of namespaces takes over from another there are two, and nothing is
/// given back in between.
struct Listener {
    queue: Queue<String>,
    holders: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Asker {
    fn new(way: Way, ipam: IpamClient, peer: &str) -> Self {
        let (memory, listeners) = (Mutex::default(), Mutex::default());
        Self { way, ipam, peer: peer.to_owned(), memory, listeners, queue: Queue::new() }
    }

    /// For endpoints here.
    pub(super) fn out(ipam: IpamClient, peer: &str) -> Self {
        Self::new(Way::Out, ipam, peer)
    }

    /// For pods there.
    pub(super) fn home(ipam: IpamClient, peer: &str) -> Self {
        Self::new(Way::Home, ipam, peer)
    }

    /// Addresses to look at.
    pub(super) fn queue(&self) -> &Queue<IpAddr> {
        &self.queue
    }

    /// What is remembered.
    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }

    /// Addresses by the state of their question.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in floating point")]
    pub(super) fn samples(&self, samples: &mut Samples) {
        let way = match self.way {
            Way::Out => "endpoints",
            Way::Home => "pods",
        };
        for (state, count) in ["known", "asking", "failed"].into_iter().zip(self.memory().count()) {
            samples.gauge(&ADDRESSES, &[way, state], count as f64);
        }
    }

    fn push(&self, addresses: Vec<IpAddr>) {
        addresses.into_iter().for_each(|ip| self.queue.push(ip));
    }

    /// From now on `user` wants exactly these addresses.
    pub(super) fn wish(&self, user: &User, wanted: BTreeSet<IpAddr>) {
        let look = self.memory().wish(user, wanted, Instant::now());
        self.push(look);
    }

    /// Every answer may have changed.
    pub(super) fn doubt(&self) {
        let look = self.memory().doubt();
        self.push(look);
    }

    /// Does what is to be done about one address.
    pub(super) async fn settle(&self, ip: IpAddr) -> Result<Option<Duration>, Infallible> {
        let now = Instant::now();
        let step = self.memory().step(ip, now);
        match step {
            Step::Rest => return Ok(None),
            Step::Wait(pause) => return Ok(Some(pause)),
            Step::Postpone(until) => {
                let users = self.memory().postpone(ip, until, now);
                self.wake(users);
            }
            Step::Ask => {
                let outcome = match self.way {
                    Way::Out => self.ipam.map_endpoint_ip(&self.peer, ip).await,
                    Way::Home => self.ipam.home_pod_ip(&self.peer, ip).await,
                };
                let outcome = outcome.map_err(|error| self.trouble(&error));
                let is_ok = outcome.is_ok();
                let users = self.settled(|memory| memory.learn(ip, outcome, Instant::now()));
                self.wake(users);
                if is_ok {
                    return Ok(None);
                }
            }
            Step::Release => {
                let outcome = match self.way {
                    Way::Out => self.ipam.unmap_endpoint_ip(&self.peer, ip).await,
                    Way::Home => Ok(()),
                };
                let outcome = outcome.map_err(|error| self.trouble(&error));
                if !self.settled(|memory| memory.released(ip, outcome, Instant::now())) {
                    return Ok(None);
                }
            }
        }
        // It did not work out, or is wanted again: when to look is known now.
        self.queue.push(ip);
        Ok(None)
    }

    /// Notes what came of a question, and says when the IPAM went or came back.
    fn settled<T>(&self, note: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.memory();
        let before = memory.is_out();
        let noted = note(&mut memory);
        let after = memory.is_out();
        drop(memory);
        match (before, after) {
            (false, true) => tracing::warn!("the IPAM does not answer, addresses wait for it"),
            (true, false) => tracing::info!("the IPAM answers again"),
            _ => {}
        }
        noted
    }

    fn trouble(&self, error: &IpamError) -> Trouble {
        tracing::debug!(error = error as &dyn std::error::Error, "no answer from the IPAM");
        if error.is_unreachable() { Trouble::Away } else { Trouble::Refused(error.message().to_owned()) }
    }

    fn wake(&self, users: Vec<User>) {
        let listeners = lock(&self.listeners);
        for user in users {
            if let Some(listener) = listeners.get(&user.scope) {
                listener.queue.push(user.name);
            }
        }
    }
}

/// The wishes of one kind of objects in one namespace; they end with it.
pub(crate) struct Wishes {
    asker: Arc<Asker>,
    scope: Arc<str>,
}

impl Wishes {
    /// Wishes of a scope. While two values for one scope exist, the older one may be dropped without releasing its wishes.
    pub(super) fn new(asker: &Arc<Asker>, scope: &str, queue: &Queue<String>) -> Self {
        let scope: Arc<str> = scope.into();
        let mut listeners = lock(&asker.listeners);
        let listener =
            listeners.entry(Arc::clone(&scope)).or_insert_with(|| Listener { queue: queue.clone(), holders: 0 });
        listener.queue = queue.clone();
        listener.holders += 1;
        drop(listeners);
        Self { asker: Arc::clone(asker), scope }
    }

    fn user(&self, name: &str) -> User {
        User { scope: Arc::clone(&self.scope), name: name.to_owned() }
    }

    /// From now on the object `name` wants exactly these addresses.
    pub(crate) fn set(&self, name: &str, wanted: BTreeSet<IpAddr>) {
        self.asker.wish(&self.user(name), wanted);
    }

    /// What the object `name` wants.
    pub(crate) fn of(&self, name: &str) -> BTreeSet<IpAddr> {
        self.asker.memory().wished(&self.user(name))
    }

    /// Objects that want anything.
    pub(crate) fn names(&self) -> Vec<String> {
        self.asker.memory().names(&self.scope)
    }

    /// What is known about an address.
    pub(crate) fn answer(&self, ip: IpAddr) -> Answer {
        self.asker.memory().answer(ip)
    }

    /// Why an address has been refused for so long that the user should know.
    pub(crate) fn lasting_refusal(&self, ip: IpAddr) -> Option<String> {
        self.asker.memory().lasting_refusal(ip, Instant::now())
    }
}

impl Drop for Wishes {
    fn drop(&mut self) {
        let mut listeners = lock(&self.asker.listeners);
        let Some(listener) = listeners.get_mut(&self.scope) else { return };
        listener.holders -= 1;
        if listener.holders > 0 {
            return;
        }
        listeners.remove(&self.scope);
        drop(listeners);
        let look = self.asker.memory().leave(&self.scope, Instant::now());
        self.asker.push(look);
    }
}

#[cfg(test)]
mod tests;
