//! Places for connections: each source has a share, and when all places are taken, the connection that has waited longest is
//! closed.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::{sync::Notify, time::Instant};

use super::Limits;
use crate::rate::source;

/// The connections of one server. Clones share them.
#[derive(Clone)]
pub(super) struct Places(Arc<Inner>);

struct Inner {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    taken: HashMap<u64, Taken>,
}

struct Taken {
    source: IpAddr,
    doing: Doing,
    since: Instant,
    /// Bytes of the body that is being read, or answered.
    bytes: usize,
    cut: Arc<Notify>,
}

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// It waits for the other side: for a handshake, a head, or a body.
    Waiting,
    /// A request is being answered, or the connection has earned its place for as long as it lasts (HTTP/2).
    Answering,
}

/// The place of one connection; dropping the last clone frees the place.
#[derive(Clone)]
pub(super) struct Place(Arc<Owned>);

/// Leads to the place of a connection for as long as that is served: an upgraded one has none.
#[derive(Clone)]
pub(super) struct Way(Weak<Owned>);

impl Way {
    pub(super) fn place(&self) -> Option<Place> {
        self.0.upgrade().map(Place)
    }
}

struct Owned {
    places: Places,
    id: u64,
    cut: Arc<Notify>,
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.places.state().taken.remove(&self.id);
    }
}

impl Places {
    pub(super) fn new(limits: Limits) -> Self {
        Self(Arc::new(Inner { limits, state: Mutex::default() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from `address`; none when all it could have are answering.
    pub(super) fn take(&self, address: IpAddr) -> Option<Place> {
        let source = source(address);
        let Limits { connections, per_source, .. } = self.0.limits;
        let mut state = self.state();
        if state.taken.values().filter(|taken| taken.source == source).count() >= per_source {
            state.cut_longest(|taken| taken.source == source)?;
        } else if state.taken.len() >= connections {
            let loudest = state.loudest()?;
            state.cut_longest(|taken| taken.source == loudest)?;
        }
        let (id, cut) = (state.next, Arc::new(Notify::new()));
        state.next += 1;
        let taken = Taken { source, doing: Doing::Waiting, since: Instant::now(), bytes: 0, cut: Arc::clone(&cut) };
        state.taken.insert(id, taken);
        drop(state);
        Some(Place(Arc::new(Owned { places: self.clone(), id, cut })))
    }
}

impl State {
    /// Closes the connection that has waited longest among those that may be closed.
    fn cut_longest(&mut self, may: impl Fn(&Taken) -> bool) -> Option<()> {
        let waiting = self.taken.iter().filter(|(_, taken)| taken.doing == Doing::Waiting && may(taken));
        let id = *waiting.min_by_key(|(id, taken)| (taken.since, **id))?.0;
        self.taken.remove(&id)?.cut.notify_one();
        Some(())
    }

    /// The source with the most connections, among sources with a waiting connection.
    fn loudest(&self) -> Option<IpAddr> {
        let mut counts: HashMap<IpAddr, (usize, bool)> = HashMap::new();
        for taken in self.taken.values() {
            let (count, waits) = counts.entry(taken.source).or_default();
            *count += 1;
            *waits |= taken.doing == Doing::Waiting;
        }
        let waiting = counts.into_iter().filter(|(_, (_, waits))| *waits);
        waiting.max_by_key(|(_, (count, _))| *count).map(|(source, _)| source)
    }
}

impl Place {
    pub(super) fn way(&self) -> Way {
        Way(Arc::downgrade(&self.0))
    }

    /// What the connection does from now on. The room of a body stays taken while its request is being answered.
    pub(super) fn does(&self, doing: Doing) {
        if let Some(taken) = self.0.places.state().taken.get_mut(&self.0.id) {
            (taken.doing, taken.since) = (doing, Instant::now());
            if doing == Doing::Waiting {
                taken.bytes = 0;
            }
        }
    }

    /// How many requests the connection may carry at the same time, by HTTP/2; `None`: HTTP/1.1.
    pub(super) fn streams(&self) -> Option<u32> {
        self.0.places.0.limits.streams
    }

    /// Whether the connection is not closed for others.
    pub(super) fn is_kept(&self) -> bool {
        self.0.places.state().taken.get(&self.0.id).is_some_and(|taken| taken.doing == Doing::Answering)
    }

    /// Takes room for `bytes` more bytes of a body, if necessary by closing the connection whose body started earliest. `false`
    /// when there is no room.
    pub(super) fn reads(&self, bytes: usize) -> bool {
        let (places, id) = (&self.0.places, self.0.id);
        let mut state = places.state();
        while state.taken.values().map(|taken| taken.bytes).sum::<usize>().saturating_add(bytes)
            > places.0.limits.bodies
        {
            let mine = state.taken.get(&id).map(|taken| taken.since);
            // A body that started later may still finish sooner.
            let older = |taken: &Taken| taken.bytes > 0 && mine.is_some_and(|mine| taken.since < mine);
            if state.cut_longest(older).is_none() {
                return false;
            }
        }
        let mine = state.taken.get_mut(&id);
        mine.map(|taken| taken.bytes = taken.bytes.saturating_add(bytes)).is_some()
    }

    /// Returns when the connection must end: somebody else needs the place, or a request has been answered for too long.
    pub(super) async fn until_cut(&self) {
        let overdue = async {
            let Some(longest) = self.0.places.0.limits.answer else { return std::future::pending().await };
            loop {
                let since = {
                    let state = self.0.places.state();
                    let taken = state.taken.get(&self.0.id).filter(|taken| taken.doing == Doing::Answering);
                    taken.map_or_else(Instant::now, |taken| taken.since)
                };
                if since.elapsed() >= longest {
                    return;
                }
                tokio::time::sleep_until(since + longest).await;
            }
        };
        tokio::select! {
            () = self.0.cut.notified() => {}
            () = overdue => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(connections: usize, per_source: usize, bodies: usize) -> Places {
        Places::new(Limits { connections, per_source, bodies, answer: None, streams: None })
    }

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn is_cut(place: &Place) -> bool {
        !place.0.places.state().taken.contains_key(&place.0.id)
    }

    #[tokio::test]
    async fn who_has_waited_longest_gives_way_and_who_is_answered_does_not() {
        let places = places(10, 2, 0);
        let (first, second) = (places.take(ip(1)).unwrap(), places.take(ip(1)).unwrap());
        first.does(Doing::Answering);
        let third = places.take(ip(1)).unwrap();
        assert_eq!((is_cut(&first), is_cut(&second)), (false, true));
        tokio::time::timeout(std::time::Duration::from_secs(1), second.until_cut()).await.unwrap();
        third.does(Doing::Answering);
        assert!(places.take(ip(1)).is_none() && places.take(ip(2)).is_some());
        drop(third);
        assert!(places.take(ip(1)).is_some());
    }

    #[tokio::test]
    async fn the_loudest_source_gives_way_to_others() {
        let places = places(5, 4, 0);
        let loud: Vec<_> = (0..4).map(|_| places.take(ip(1)).unwrap()).collect();
        let shy = places.take(ip(2)).unwrap();
        let quiet = places.take(ip(3)).unwrap();
        assert_eq!(loud.iter().map(is_cut).collect::<Vec<_>>(), [true, false, false, false]);
        assert!(!is_cut(&shy) && !is_cut(&quiet));
    }

    #[tokio::test]
    async fn a_new_body_takes_the_room_of_an_old_one() {
        let places = places(10, 10, 100);
        let (old, new) = (places.take(ip(1)).unwrap(), places.take(ip(2)).unwrap());
        old.does(Doing::Waiting);
        assert!(old.reads(60) && old.reads(40) && !old.reads(1));
        new.does(Doing::Waiting);
        assert!(new.reads(50) && is_cut(&old) && !old.reads(1));
        assert!(!new.reads(51), "nobody takes from itself");
        new.does(Doing::Answering);
        let third = places.take(ip(3)).unwrap();
        assert!(third.reads(50) && !third.reads(1), "nor from a request that is being answered");
        new.does(Doing::Waiting);
        assert!(third.reads(50));
    }
}
