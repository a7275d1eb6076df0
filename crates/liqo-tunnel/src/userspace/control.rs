//! Makes the pairs equal to what is wished, and publishes the table of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::link::Link;
use super::routes::Routes;
use super::table::{Board, Entry, Identity, Table};
use crate::plan::{Present, Wanted, plan};
use crate::{Error, Peer, PrivateKey, PublicKey};

/// What is wished and what is there.
pub(crate) struct Control {
    mask: u32,
    /// The current key first.
    identities: Vec<Arc<Identity>>,
    wished: Vec<Peer>,
    links: Vec<Arc<Link>>,
    /// Some pair takes the place of another after its handshake.
    waiting: bool,
}

impl Control {
    /// Nothing wished yet.
    pub(crate) fn new(key: &PrivateKey, mask: u32) -> Self {
        let identities = vec![Arc::new(Identity::new(key))];
        Self { mask: mask & 0x00ff_ffff, identities, wished: Vec::new(), links: Vec::new(), waiting: false }
    }

    /// Our current public key.
    pub(crate) fn own(&self) -> PublicKey {
        self.identities[0].public
    }

    /// Whether a handshake may change the table.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// Answers under `key` from now on. Gives the pairs that must shake hands.
    pub(crate) fn set_key(&mut self, key: &PrivateKey, board: &Board) -> Vec<Arc<Link>> {
        let public = key.public();
        match self.identities.iter().position(|identity| identity.public == public) {
            Some(known) => self.identities.swap(0, known),
            None => self.identities.insert(0, Arc::new(Identity::new(key))),
        }
        self.settle(board)
    }

    /// Wishes exactly these peers. Gives the pairs that must shake hands.
    pub(crate) fn set_peers(&mut self, peers: &[Peer], board: &Board) -> Result<Vec<Arc<Link>>, Error> {
        crate::distinct(peers)?;
        self.wished = peers.to_vec();
        Ok(self.settle(board))
    }

    /// Makes what is there equal to what is wished. Changes nothing when nothing has happened since.
    pub(crate) fn settle(&mut self, board: &Board) -> Vec<Arc<Link>> {
        let present: Vec<Present> = self
            .links
            .iter()
            .map(|link| Present {
                ours: link.ours,
                key: link.key,
                allowed: link.lock().allowed().to_vec(),
                established: link.is_established(),
            })
            .collect();
        let plan = plan(&present, &self.own(), &self.wished);
        let mut strange = Vec::new();
        let mut pairs = Vec::with_capacity(plan.len());
        let mut used: HashSet<u32> = self.links.iter().map(|link| link.slot).collect();
        for (peer, wanted) in self.wished.iter().zip(&plan) {
            let (link, is_news) = self.pair(peer, *wanted, &mut used);
            let before = wanted.before.map(|i| self.links[i].clone());
            // It has the same peer when it is our key that is new; one that stands for a peer's former key stays where that peer was.
            if let Some(before) = before.as_ref().filter(|before| before.key == peer.key)
                && before.lock().expect_at(peer.endpoint)
            {
                strange.push(before.clone());
            }
            if is_news {
                strange.push(link.clone());
            }
            pairs.push((link, before));
        }
        self.replace(&pairs);
        self.waiting = pairs.iter().any(|(_, before)| before.is_some());
        board.publish(self.table(&pairs));
        strange
    }

    /// The pair for a wished peer, kept or made, and whether it has yet to shake hands there.
    fn pair(&self, peer: &Peer, wanted: Wanted, used: &mut HashSet<u32>) -> (Arc<Link>, bool) {
        let identity = &self.identities[0];
        match wanted.pair.map(|i| &self.links[i]) {
            Some(link) => {
                let is_news = link.lock().wish(peer);
                (link.clone(), is_news)
            }
            None => {
                let slot = (0..).find(|slot| used.insert(*slot)).unwrap_or_default();
                let link = Link::new(slot, slot ^ self.mask, &identity.private, peer, &identity.inner);
                (Arc::new(link), true)
            }
        }
    }

    /// Keeps the pairs of the plan only; a successor takes over the counters of the pair it replaces.
    fn replace(&mut self, pairs: &[(Arc<Link>, Option<Arc<Link>>)]) {
        let kept: HashSet<u32> = pairs
            .iter()
            .flat_map(|(link, before)| [Some(link.slot), before.as_ref().map(|link| link.slot)])
            .flatten()
            .collect();
        for gone in self.links.iter().filter(|link| !kept.contains(&link.slot)) {
            if let Some((heir, _)) = pairs.iter().find(|(link, _)| link.key == gone.key) {
                let before = gone.lock();
                heir.lock().inherit(&before);
            }
        }
        let before = pairs.iter().filter_map(|(_, before)| before.clone());
        self.links = pairs.iter().map(|(link, _)| link.clone()).chain(before).collect();
        let own = self.own();
        self.identities
            .retain(|identity| identity.public == own || self.links.iter().any(|link| link.ours == identity.public));
    }

    fn table(&self, pairs: &[(Arc<Link>, Option<Arc<Link>>)]) -> Table {
        let mut table = Table { mask: self.mask, identities: self.identities.clone(), ..Table::default() };
        for (group, (link, before)) in (0..).zip(pairs) {
            table.senders.push(before.as_ref().unwrap_or(link).slot);
            for (pair, eager) in [(Some(link), before.is_some()), (before.as_ref(), false)] {
                let Some(pair) = pair else { continue };
                let slot = pair.slot as usize;
                if table.entries.len() <= slot {
                    table.entries.resize_with(slot + 1, || None);
                }
                table.by_keys.insert((pair.ours, pair.key), pair.slot);
                table.entries[slot] = Some(Entry { link: pair.clone(), group, eager });
            }
        }
        let prefixes =
            (0..).zip(&self.wished).flat_map(|(group, peer)| peer.allowed.iter().map(move |net| (*net, group)));
        table.routes = Routes::new(prefixes);
        table
    }

    /// The pair with a peer under our current key.
    pub(crate) fn current(&self, peer: &PublicKey) -> Option<Arc<Link>> {
        let own = self.own();
        self.links.iter().find(|link| link.ours == own && link.key == *peer).cloned()
    }

    /// All pairs, by peer.
    pub(crate) fn by_peer(&self) -> Vec<(PublicKey, Vec<Arc<Link>>)> {
        let mut order = Vec::new();
        let mut map: HashMap<PublicKey, Vec<Arc<Link>>> = HashMap::new();
        for link in &self.links {
            map.entry(link.key).or_insert_with(|| {
                order.push(link.key);
                Vec::new()
            });
            map.entry(link.key).and_modify(|links| links.push(link.clone()));
        }
        order.into_iter().filter_map(|key| map.remove(&key).map(|links| (key, links))).collect()
    }
}
