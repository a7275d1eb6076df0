//! A namespace's kernel, through netlink sockets opened inside it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use crate::change::{Change, Kind};
use crate::error::{Error, Result};
use crate::events::Events;
use crate::netns::Netns;
use crate::nft::Seal;
use crate::plan::{Seen, plan};
use crate::rt::link::{self, Found};
use crate::socket::{Family, Refusal, Socket};
use crate::state::{Link, LinkKind, Mac, Realm, State};

mod act;
mod observe;

/// How often settling looks again after it changed a link.
const PASSES: usize = 3;

/// Netlink sockets inside one namespace. Calls block for microseconds (a large nftables transaction: milliseconds)
/// and never wait for anything but the kernel, so they may be made from asynchronous code.
#[derive(Debug)]
pub struct Kernel {
    netns: Netns,
    route: Socket,
    netfilter: Socket,
    /// The table as last read, and the number of transactions the namespace had seen before it was read.
    memo: Mutex<Option<(u32, Option<Arc<Seal>>)>>,
}

/// A link as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// Its index in the namespace.
    pub index: u32,
    /// Its hardware address, if it has one (TUN and WireGuard have none).
    pub mac: Option<Mac>,
    /// Largest packet, bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
}

/// What settling had to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repairs {
    /// Changes made, by kind. Empty: all was as wanted.
    pub made: BTreeMap<Kind, usize>,
    /// Wanted links of kind [`LinkKind::Other`] that nobody has made yet; what stands on them waits.
    pub awaited: BTreeSet<String>,
}

impl Kernel {
    /// Opens the sockets inside `netns`. They stay there, whatever thread uses them.
    pub fn open(netns: &Netns) -> Result<Self> {
        let failed = |error| Error::new("opening netlink sockets", error);
        let open = || io::Result::Ok((Socket::open(Family::Route, 0)?, Socket::open(Family::Netfilter, 0)?));
        let (route, netfilter) = netns.enter(open)?.map_err(failed)?;
        Ok(Self { netns: netns.try_clone().map_err(failed)?, route, netfilter, memo: Mutex::new(None) })
    }

    /// What of the realm is there. `wanted` says which links, which values below `/proc/sys/net` and which namespaces
    /// of other ends to look at besides. The kernel itself restricts all listings to what is ours, so the cost does
    /// not depend on what others keep there.
    pub fn observe(&self, realm: &Realm, wanted: &State) -> Result<Seen> {
        observe::observe(self, realm, wanted)
    }

    /// Does the changes in order. Goes on after a failure and tells them all.
    pub fn act(&self, realm: &Realm, changes: &[Change]) -> Result<()> {
        let failures = changes.iter().filter_map(|change| act::act(self, realm, change).err()).collect();
        match Error::all(failures) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Looks, plans and acts: afterwards the realm is as wanted, or the error says what is not. The repairs count what
    /// was missing or wrong; after a change of `wanted` they count that change too.
    pub fn settle(&self, realm: &Realm, wanted: &State) -> Result<Repairs> {
        let mut repairs = Repairs::default();
        for _ in 0..PASSES {
            let seen = self.observe(realm, wanted)?;
            let changes = plan(realm, wanted, &seen);
            self.act(realm, &changes)?;
            for change in &changes {
                *repairs.made.entry(change.kind()).or_default() += 1;
            }
            let absent = |(name, link): (&String, &Link)| {
                (link.kind == LinkKind::Other && !seen.present.contains(name)).then(|| name.clone())
            };
            repairs.awaited = wanted.links.iter().filter_map(absent).collect();
            // A link that changes may lose what stood on it: a new hardware address flushes neighbours.
            if !changes.iter().any(|change| change.kind() == Kind::Link) {
                break;
            }
        }
        Ok(repairs)
    }

    /// Removes all of the realm. Values below `/proc/sys/net` stay.
    pub fn clear(&self, realm: &Realm) -> Result<Repairs> {
        self.settle(realm, &State::default())
    }

    /// The link of this name, if there is one.
    pub fn link(&self, name: &str) -> Result<Option<LinkInfo>> {
        let found = link::by_name(&self.route, name).map_err(|no| refused(format!("looking at link {name}"), no))?;
        Ok(found.map(|found| LinkInfo { index: found.index, mac: found.mac, mtu: found.mtu, up: found.up }))
    }

    /// Next hops of the IPv4 default routes.
    pub fn default_gateways(&self) -> Result<Vec<IpAddr>> {
        crate::gateways::read(&self.netns)
    }

    /// Moves a link into another namespace, where it keeps its name and loses its addresses and routes.
    pub fn move_link(&self, name: &str, to: &Netns) -> Result<()> {
        let doing = || format!("moving link {name} into another namespace");
        let index = self.index(name).map_err(|no| refused(doing(), no))?;
        link::move_to(&self.route, index, to.as_fd()).map_err(|no| refused(doing(), no))
    }

    /// Notice of changes that others make to the realm. Must be called inside a tokio runtime.
    pub fn events(&self, realm: &Realm) -> Result<Events> {
        Events::open(self, realm)
    }

    pub(crate) fn netns(&self) -> &Netns {
        &self.netns
    }

    pub(crate) fn route(&self) -> &Socket {
        &self.route
    }

    pub(crate) fn netfilter(&self) -> &Socket {
        &self.netfilter
    }

    /// A link that must be there.
    fn found(&self, name: &str) -> std::result::Result<Found, Refusal> {
        Ok(link::by_name(&self.route, name)?.ok_or(Errno::NODEV)?)
    }

    /// Its index.
    fn index(&self, name: &str) -> std::result::Result<u32, Refusal> {
        Ok(self.found(name)?.index)
    }
}

/// The kernel's no to an act.
pub(crate) fn refused(doing: impl Into<String>, no: Refusal) -> Error {
    Error::new(doing, no.errno).said(no.said)
}
