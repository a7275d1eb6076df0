//! One step towards what is wanted.

use std::fmt::{self, Display};

use crate::nft;
use crate::state::{Address, Fdb, Link, Neighbour, Route, Rule};

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
    /// Changes the nftables table, in one transaction.
    Transact(nft::Transaction),
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

impl Display for Change {
    /// What is done, for errors.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddLink(name, _) => write!(f, "adding link {name}"),
            Self::SetLink(name, _) => write!(f, "changing link {name}"),
            Self::RemoveLink(name) => write!(f, "removing link {name}"),
            Self::AddAddress(it) => write!(f, "adding address {} to {}", it.net, it.dev),
            Self::RemoveAddress(it) => write!(f, "removing address {} from {}", it.net, it.dev),
            Self::SetNeighbour(it) => write!(f, "setting neighbour {} on {} to {}", it.ip, it.dev, it.mac),
            Self::RemoveNeighbour(it) => write!(f, "removing neighbour {} from {}", it.ip, it.dev),
            Self::SetFdb(it) => write!(f, "forwarding {} on {} to {}", it.mac, it.dev, it.dst),
            Self::RemoveFdb(it) => write!(f, "no longer forwarding {} on {} to {}", it.mac, it.dev, it.dst),
            Self::SetSysctl(path, value) => write!(f, "setting net/{path} to {value}"),
            Self::Transact(it) => write!(f, "changing nftables table {}", it.table()),
            Self::RemoveTable(_, name) => write!(f, "removing nftables table {name}"),
            Self::SetRoute(it) => write!(f, "setting route {it}"),
            Self::RemoveRoute(it) => write!(f, "removing route {it}"),
            Self::AddRule(it) => write!(f, "adding rule {} to table {}", it.priority, it.table),
            Self::RemoveRule(it) => write!(f, "removing rule {} to table {}", it.priority, it.table),
        }
    }
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
    /// The nftables table: its sets, chains and rules.
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
            Self::Transact(it) if it.is_of_elements() => Kind::Elements,
            Self::Transact(_) | Self::RemoveTable(..) => Kind::Table,
            Self::SetRoute(_) | Self::RemoveRoute(_) => Kind::Route,
            Self::AddRule(_) | Self::RemoveRule(_) => Kind::Rule,
        }
    }
}
