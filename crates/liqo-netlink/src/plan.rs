//! What leads from what is seen to what is wanted. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;

use crate::change::Change;
use crate::nft;
use crate::state::{Fdb, Link, LinkKind, Neighbour, Realm, Route, Rule, State};

/// What was seen in a namespace: a state whose table is told by what can be read back of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// All but the table; `state.table` is `None`.
    pub state: State,
    /// The table.
    pub table: Option<Arc<nft::Seal>>,
    /// Names of links that exist, of all that the realm and the wanted state name.
    pub present: BTreeSet<String>,
}

/// The changes that lead from `seen` to `wanted`, in the order in which they must be made: links and what stands on
/// them, the table before the routes that bring packets to it, rules last; then removals in reverse. What needs a link
/// that is neither there nor made waits.
#[must_use]
pub fn plan(realm: &Realm, wanted: &State, seen: &Seen) -> Vec<Change> {
    let mut steps = Steps::default();
    let ground = links(&mut steps, realm, wanted, seen);
    on_links(&mut steps, &ground, wanted, &seen.state);
    for (path, value) in &wanted.sysctls {
        if seen.state.sysctls.get(path) != Some(value) {
            steps.add.push(Change::SetSysctl(path.clone(), value.clone()));
        }
    }
    table(&mut steps, realm, wanted.table.as_ref(), seen.table.as_deref());
    routes(&mut steps, &ground, wanted, &seen.state);
    rules(&mut steps, wanted, &seen.state);
    steps.add.extend(steps.remove.into_iter().rev());
    steps.add
}

#[derive(Default)]
struct Steps {
    add: Vec<Change>,
    /// In the order of making; done in reverse.
    remove: Vec<Change>,
}

/// Links as they are while the plan is carried out.
struct Ground<'a> {
    present: &'a BTreeSet<String>,
    /// Made now: nothing that was seen stands on them.
    fresh: BTreeSet<&'a str>,
    /// Removed at the end, and with them what stands on them.
    gone: BTreeSet<&'a str>,
}

impl Ground<'_> {
    /// Whether something can be put on the link.
    fn carries(&self, dev: &str) -> bool {
        self.fresh.contains(dev) || self.present.contains(dev)
    }

    /// Whether what was seen on the link is still there when the plan begins to add.
    fn keeps(&self, dev: &str) -> bool {
        !self.fresh.contains(dev)
    }

    /// Whether what was seen on the link must be removed by itself.
    fn lingers(&self, dev: &str) -> bool {
        !self.fresh.contains(dev) && !self.gone.contains(dev)
    }
}

fn links<'a>(steps: &mut Steps, realm: &Realm, wanted: &'a State, seen: &'a Seen) -> Ground<'a> {
    let mut ground = Ground { present: &seen.present, fresh: BTreeSet::new(), gone: BTreeSet::new() };
    for (name, link) in &wanted.links {
        let old = seen.state.links.get(name);
        match (old, &link.kind) {
            (None, LinkKind::Other) => continue,
            (Some(old), kind) if *kind == LinkKind::Other || old.kind == *kind => {
                if !fits(link, old) {
                    steps.add.push(Change::SetLink(name.clone(), link.clone()));
                }
                continue;
            }
            (Some(_), _) => steps.add.push(Change::RemoveLink(name.clone())),
            (None, _) => {}
        }
        steps.add.push(Change::AddLink(name.clone(), link.clone()));
        ground.fresh.insert(name);
        if let LinkKind::Veth { peer, peer_netns: None } = &link.kind {
            // The other end appears with it, and is given its properties by name.
            ground.fresh.insert(peer);
            if let Some(other) = wanted.links.get(peer).filter(|other| other.kind == LinkKind::Other) {
                steps.add.push(Change::SetLink(peer.clone(), other.clone()));
            }
        }
    }
    for (name, link) in &seen.state.links {
        if realm.links.contains(name) && !wanted.links.contains_key(name) && link.kind != LinkKind::Other {
            ground.gone.insert(name);
            steps.remove.push(Change::RemoveLink(name.clone()));
        }
    }
    ground
}

/// Addresses, neighbours, forwarding entries.
fn on_links(steps: &mut Steps, ground: &Ground<'_>, wanted: &State, seen: &State) {
    let new = |dev: &str, there: bool| ground.carries(dev) && !(there && ground.keeps(dev));
    let add = &mut steps.add;
    let addresses = wanted.addresses.iter().filter(|it| new(&it.dev, seen.addresses.contains(it)));
    add.extend(addresses.cloned().map(Change::AddAddress));
    let neighbours = wanted.neighbours.iter().filter(|it| new(&it.dev, seen.neighbours.contains(it)));
    add.extend(neighbours.cloned().map(Change::SetNeighbour));
    let fdb = wanted.fdb.iter().filter(|it| new(&it.dev, seen.fdb.contains(it)));
    add.extend(fdb.cloned().map(Change::SetFdb));

    let remove = &mut steps.remove;
    let addresses = seen.addresses.difference(&wanted.addresses).filter(|it| ground.lingers(&it.dev));
    remove.extend(addresses.cloned().map(Change::RemoveAddress));
    // One of the same next hop, or of the same hardware address, is replaced and not removed.
    let hops: BTreeSet<_> = wanted.neighbours.iter().map(|it| (&it.dev, it.ip)).collect();
    let stale = |it: &&Neighbour| ground.lingers(&it.dev) && !hops.contains(&(&it.dev, it.ip));
    remove.extend(seen.neighbours.difference(&wanted.neighbours).filter(stale).cloned().map(Change::RemoveNeighbour));
    let macs: BTreeSet<_> = wanted.fdb.iter().map(|it| (&it.dev, it.mac)).collect();
    let stale = |it: &&Fdb| ground.lingers(&it.dev) && !macs.contains(&(&it.dev, it.mac));
    remove.extend(seen.fdb.difference(&wanted.fdb).filter(stale).cloned().map(Change::RemoveFdb));
}

fn table(steps: &mut Steps, realm: &Realm, wanted: Option<&nft::Table>, seen: Option<&nft::Seal>) {
    match (wanted, seen) {
        (Some(table), seen) => steps.add.extend(table.transactions(seen).into_iter().map(Change::Transact)),
        (None, Some(_)) => {
            let ours = realm.table.iter();
            steps.remove.extend(ours.map(|(family, name)| Change::RemoveTable(*family, name.clone())));
        }
        (None, None) => {}
    }
}

fn routes(steps: &mut Steps, ground: &Ground<'_>, wanted: &State, seen: &State) {
    let whole = |it: &Route| Route { prefix: it.prefix.trunc(), ..it.clone() };
    let wanted: BTreeMap<_, _> = wanted.routes.iter().map(|it| ((it.table, it.prefix.trunc()), whole(it))).collect();
    let new = |it: &Route| ground.carries(&it.dev) && !(seen.routes.contains(it) && ground.keeps(&it.dev));
    steps.add.extend(wanted.values().filter(|it| new(it)).cloned().map(Change::SetRoute));
    // Kept: a wanted route, and a route that the new wanted route replaces in place.
    let kept = |it: &Route| wanted.get(&(it.table, it.prefix)).is_some_and(|better| better == it || new(better));
    let stale = seen.routes.iter().filter(|it| ground.lingers(&it.dev) && !kept(it));
    steps.remove.extend(stale.cloned().map(Change::RemoveRoute));
}

fn rules(steps: &mut Steps, wanted: &State, seen: &State) {
    let wanted: BTreeSet<Rule> = wanted.rules.iter().map(plain).collect();
    steps.add.extend(wanted.difference(&seen.rules).cloned().map(Change::AddRule));
    steps.remove.extend(seen.rules.difference(&wanted).cloned().map(Change::RemoveRule));
}

/// Whether a link has all wanted properties.
fn fits(wanted: &Link, seen: &Link) -> bool {
    wanted.up == seen.up
        && wanted.mac.is_none_or(|mac| seen.mac == Some(mac))
        && wanted.mtu.is_none_or(|mtu| seen.mtu == Some(mtu))
        && wanted.arp.is_none_or(|arp| seen.arp == Some(arp))
}

/// A rule as the kernel tells it: everywhere is nowhere in particular, host bits are zero.
fn plain(rule: &Rule) -> Rule {
    let plain = |net: Option<IpNet>| net.filter(|net| net.prefix_len() > 0).map(|net| net.trunc());
    Rule { from: plain(rule.from), to: plain(rule.to), ..rule.clone() }
}

#[cfg(test)]
mod tests;
