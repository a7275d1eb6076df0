//! What leads from what is seen to what is wanted. Pure.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use crate::nft;
use crate::state::{Address, Fdb, Link, Neighbour, Realm, Route, Rule, State};

/// One step. Each may be done twice: the second time changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Makes a link, then gives it its properties.
    AddLink(String, Link),
    /// Gives an existing link its properties.
    SetLink(String, Link),
    /// Removes a link, and with it all that is on it.
    RemoveLink(String),
    /// Adds an address.
    AddAddress(Address),
    /// Removes an address.
    RemoveAddress(Address),
    /// Adds or replaces a neighbour.
    SetNeighbour(Neighbour),
    /// Removes a neighbour.
    RemoveNeighbour(Neighbour),
    /// Adds or replaces a forwarding entry.
    SetFdb(Fdb),
    /// Removes a forwarding entry.
    RemoveFdb(Fdb),
    /// Writes a value below `/proc/sys/net`.
    SetSysctl(String, String),
    /// Replaces the nftables table, or makes it, in one transaction.
    SetTable(nft::Table),
    /// Adds and removes elements of sets of the table, in one transaction.
    SetElements(nft::Elements),
    /// Removes the table.
    RemoveTable(nft::Family, String),
    /// Adds a route or replaces the one of its table and prefix.
    SetRoute(Route),
    /// Removes a route.
    RemoveRoute(Route),
    /// Adds a rule.
    AddRule(Rule),
    /// Removes a rule.
    RemoveRule(Rule),
}

/// What a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A link or its properties.
    Link,
    /// An address.
    Address,
    /// A neighbour.
    Neighbour,
    /// A forwarding entry.
    Fdb,
    /// A value below `/proc/sys/net`.
    Sysctl,
    /// The nftables table as a whole.
    Table,
    /// Elements of its sets.
    Elements,
    /// A route.
    Route,
    /// A policy rule.
    Rule,
}

impl Display for Kind {
    /// The word for a metric's label.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Link => "link",
            Self::Address => "address",
            Self::Neighbour => "neighbour",
            Self::Fdb => "fdb",
            Self::Sysctl => "sysctl",
            Self::Table => "table",
            Self::Elements => "elements",
            Self::Route => "route",
            Self::Rule => "rule",
        })
    }
}

impl Change {
    /// What it is about.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::AddLink(..) | Self::SetLink(..) | Self::RemoveLink(_) => Kind::Link,
            Self::AddAddress(_) | Self::RemoveAddress(_) => Kind::Address,
            Self::SetNeighbour(_) | Self::RemoveNeighbour(_) => Kind::Neighbour,
            Self::SetFdb(_) | Self::RemoveFdb(_) => Kind::Fdb,
            Self::SetSysctl(..) => Kind::Sysctl,
            Self::SetTable(_) | Self::RemoveTable(..) => Kind::Table,
            Self::SetElements(_) => Kind::Elements,
            Self::SetRoute(_) | Self::RemoveRoute(_) => Kind::Route,
            Self::AddRule(_) | Self::RemoveRule(_) => Kind::Rule,
        }
    }
}

/// What was seen in a namespace: a state whose table is told by what can be read back cheaply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// All but the table; `state.table` is `None`.
    pub state: State,
    /// The table.
    pub table: Option<nft::Seal>,
    /// Indexes of all links, ours and others.
    pub indexes: BTreeMap<String, u32>,
}

/// The changes that lead from `seen` to `wanted`, in the order in which they must be made: links first and what stands
/// on them after; removals after additions, in reverse.
#[must_use]
pub fn plan(_realm: &Realm, _wanted: &State, _seen: &Seen) -> Vec<Change> {
    Vec::new()
}
