//! Looking at what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Result;
use crate::kernel::{Kernel, refused};
use crate::netns::Netns;
use crate::nft::{self, Seal};
use crate::plan::Seen;
use crate::rt::link::{Found, FoundKind};
use crate::rt::route::Filter;
use crate::rt::{address, link, neighbour, route, rule};
use crate::socket::{Family as Protocol, Refusal, Socket};
use crate::state::{Address, Family, Fdb, Link, LinkKind, Neighbour, Realm, State};
use crate::sysctl;

pub(super) fn observe(kernel: &Kernel, realm: &Realm, wanted: &State) -> Result<Seen> {
    let mut seen = Seen::default();
    let links = links(kernel, realm, wanted)
        .and_then(|links| {
            on_links(kernel, realm, &links, &mut seen.state)?;
            routes(kernel, realm, &links, &mut seen.state)?;
            Ok(links)
        })
        .map_err(|no| refused("looking at links, addresses, neighbours and routes", no))?;
    for family in [Family::V4, Family::V6] {
        let rules = rule::list(kernel.route(), family, realm.protocol);
        seen.state.rules.extend(rules.map_err(|no| refused("looking at policy rules", no))?);
    }
    let peers = Peers::of(wanted);
    for (name, found) in &links {
        seen.present.insert(name.clone());
        if realm.links.contains(name) || wanted.links.contains_key(name) {
            seen.state.links.insert(name.clone(), peers.link(kernel, found)?);
        }
    }
    seen.state.sysctls = sysctl::read(kernel.netns(), wanted.sysctls.keys())?;
    seen.table = table(kernel, realm, wanted.table.as_ref())?;
    Ok(seen)
}

/// Links that the realm or the wanted state names, those that exist. Asked for one by one: a node has hundreds of
/// others.
fn links(kernel: &Kernel, realm: &Realm, wanted: &State) -> std::result::Result<BTreeMap<String, Found>, Refusal> {
    let mut names: BTreeSet<&String> = realm.links.iter().chain(wanted.links.keys()).collect();
    names.extend(wanted.addresses.iter().map(|it| &it.dev));
    names.extend(wanted.neighbours.iter().map(|it| &it.dev));
    names.extend(wanted.fdb.iter().map(|it| &it.dev));
    names.extend(wanted.routes.iter().map(|it| &it.dev));
    let mut links = BTreeMap::new();
    for name in names {
        if let Some(found) = link::by_name(kernel.route(), name)? {
            links.insert(name.clone(), found);
        }
    }
    Ok(links)
}

fn on_links(
    kernel: &Kernel,
    realm: &Realm,
    links: &BTreeMap<String, Found>,
    state: &mut State,
) -> std::result::Result<(), Refusal> {
    for (dev, found) in links.iter().filter(|(name, _)| realm.links.contains(*name)) {
        let nets = address::list(kernel.route(), found.index)?;
        state.addresses.extend(nets.into_iter().map(|net| Address { dev: dev.clone(), net }));
        let entries = neighbour::list(kernel.route(), neighbour::Table::Neighbours, found.index)?;
        state.neighbours.extend(entries.into_iter().map(|(ip, mac)| Neighbour { dev: dev.clone(), ip, mac }));
        if matches!(found.kind, FoundKind::Vxlan { .. }) {
            let entries = neighbour::list(kernel.route(), neighbour::Table::Forwarding, found.index)?;
            state.fdb.extend(entries.into_iter().map(|(dst, mac)| Fdb { dev: dev.clone(), mac, dst }));
        }
    }
    Ok(())
}

fn routes(
    kernel: &Kernel,
    realm: &Realm,
    links: &BTreeMap<String, Found>,
    state: &mut State,
) -> std::result::Result<(), Refusal> {
    let mut filters: Vec<Filter> = realm.tables.iter().map(|table| Filter::Table(*table)).collect();
    if realm.protocol != 0 {
        filters.push(Filter::Protocol(realm.protocol));
    }
    let mut names: BTreeMap<u32, String> = links.iter().map(|(name, found)| (found.index, name.clone())).collect();
    for filter in filters {
        for family in [Family::V4, Family::V6] {
            for (index, mut it) in route::list(kernel.route(), family, filter)? {
                it.dev = match names.get(&index) {
                    Some(name) => name.clone(),
                    None => foreign(kernel.route(), index, &mut names)?,
                };
                state.routes.insert(it);
            }
        }
    }
    Ok(())
}

/// Name of a link that nobody asked for but a route of ours uses.
fn foreign(socket: &Socket, index: u32, names: &mut BTreeMap<u32, String>) -> std::result::Result<String, Refusal> {
    let name = match index {
        0 => String::new(),
        _ => link::by_index(socket, index)?.map(|found| found.name).unwrap_or_default(),
    };
    names.insert(index, name.clone());
    Ok(name)
}

/// Namespaces in which wanted pairs have their other end.
struct Peers<'a>(BTreeSet<&'a PathBuf>);

impl<'a> Peers<'a> {
    fn of(wanted: &'a State) -> Self {
        let path = |link: &'a Link| match &link.kind {
            LinkKind::Veth { peer_netns: Some(path), .. } => Some(path),
            _ => None,
        };
        Self(wanted.links.values().filter_map(path).collect())
    }

    fn link(&self, kernel: &Kernel, found: &Found) -> Result<Link> {
        let kind = match &found.kind {
            FoundKind::Vxlan { vni, port, local } => LinkKind::Vxlan { vni: *vni, port: *port, local: *local },
            FoundKind::Veth { peer, nsid } => self.veth(kernel, *peer, *nsid)?,
            FoundKind::Other => LinkKind::Other,
        };
        Ok(Link { kind, mac: found.mac, mtu: Some(found.mtu), up: found.up, arp: Some(found.arp) })
    }

    /// The other end's name, if it is in this namespace or in one that a wanted pair names.
    fn veth(&self, kernel: &Kernel, index: u32, nsid: Option<i32>) -> Result<LinkKind> {
        let unknown = LinkKind::Veth { peer: String::new(), peer_netns: None };
        let failed = |no| refused("looking for the other end of a pair", no);
        let Some(nsid) = nsid else {
            let peer = link::by_index(kernel.route(), index).map_err(failed)?;
            return Ok(peer.map_or(unknown, |peer| LinkKind::Veth { peer: peer.name, peer_netns: None }));
        };
        for path in &self.0 {
            if let Some(peer) = self.inside(kernel, path, nsid, index)? {
                return Ok(LinkKind::Veth { peer, peer_netns: Some((*path).clone()) });
            }
        }
        Ok(unknown)
    }

    /// The name of a link in the namespace at `path`, if that is the one which the kernel calls `nsid`.
    fn inside(&self, kernel: &Kernel, path: &Path, nsid: i32, index: u32) -> Result<Option<String>> {
        let failed = |no| refused(format!("looking into namespace {}", path.display()), no);
        // Absent: the pair is of a namespace that was removed and is still held by somebody.
        let Ok(netns) = Netns::open(path) else { return Ok(None) };
        if link::nsid(kernel.route(), netns.as_fd()).map_err(failed)? != Some(nsid) {
            return Ok(None);
        }
        let socket = netns.enter(|| Socket::open(Protocol::Route, 0))?;
        let socket = socket.map_err(|error| crate::error::Error::new("opening a netlink socket", error))?;
        Ok(link::by_index(&socket, index).map_err(failed)?.map(|found| found.name))
    }
}

/// The table, read only if a transaction, whoever's, went through since it was read last.
fn table(kernel: &Kernel, realm: &Realm, wanted: Option<&nft::Table>) -> Result<Option<Arc<Seal>>> {
    let named = wanted.map(|table| (table.family, table.name.as_str()));
    let Some((family, name)) = named.or(realm.table.as_ref().map(|(family, name)| (*family, name.as_str()))) else {
        return Ok(None);
    };
    let failed = |no| refused(format!("looking at nftables table {name}"), no);
    // Taken before the table is read: what happens meanwhile makes the next look a whole one.
    let generation = nft::generation(kernel.netfilter()).map_err(failed)?;
    let mut memo = kernel.memo.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some((read_at, seal)) = &*memo
        && *read_at == generation
        && seal.as_ref().is_none_or(|seal| wanted.is_none_or(|table| seal.covers(table)))
    {
        return Ok(seal.clone());
    }
    let seal = nft::seal(kernel.netfilter(), family, name, wanted).map_err(failed)?.map(Arc::new);
    *memo = Some((generation, seal.clone()));
    Ok(seal)
}
