//! A namespace's kernel, through netlink sockets opened inside it.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::events::Events;
use crate::netns::Netns;
use crate::plan::{Change, Kind, Seen};
use crate::state::{Mac, Realm, State};

/// Netlink sockets inside one namespace. Calls block for microseconds (a large nftables transaction: milliseconds)
/// and never wait for anything but the kernel, so they may be made from asynchronous code.
#[derive(Debug)]
pub struct Kernel {}

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
    /// Wanted links of kind `Other` that nobody has made yet; what stands on them waits.
    pub awaited: BTreeSet<String>,
}

impl Kernel {
    /// Opens the sockets inside `netns`. They stay there, whatever thread uses them.
    pub fn open(_netns: &Netns) -> Result<Self> {
        Err(missing())
    }

    /// What of the realm is there. `wanted` says which values below `/proc/sys/net` and which namespaces of other
    /// ends to look into.
    pub fn observe(&self, _realm: &Realm, _wanted: &State) -> Result<Seen> {
        Err(missing())
    }

    /// Does the changes in order. Goes on after a failure and tells them all.
    pub fn act(&self, _realm: &Realm, _changes: &[Change]) -> Result<()> {
        Err(missing())
    }

    /// Looks, plans and acts: afterwards the realm is as wanted, or the error says what is not.
    pub fn settle(&self, _realm: &Realm, _wanted: &State) -> Result<Repairs> {
        Err(missing())
    }

    /// Removes everything of the realm.
    pub fn clear(&self, _realm: &Realm) -> Result<Repairs> {
        Err(missing())
    }

    /// The link of this name, if there is one.
    pub fn link(&self, _name: &str) -> Result<Option<LinkInfo>> {
        Err(missing())
    }

    /// Moves a link into another namespace, keeping its name.
    pub fn move_link(&self, _name: &str, _to: &Netns) -> Result<()> {
        Err(missing())
    }

    /// Tells when something of the realm may have been changed by somebody else. Needs a tokio runtime.
    pub fn events(&self, _realm: &Realm) -> Result<Events> {
        Err(missing())
    }
}

fn missing() -> Error {
    Error::new("not there yet", rustix::io::Errno::NOSYS)
}
