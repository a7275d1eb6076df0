//! One nftables table as a value: sets and maps, chains, rules.
//!
//! The kernel holds at most one table of ours in a namespace. Rules are exchanged in one transaction: packets see the
//! old or the new ones. Elements come and go alone, so that one more peer costs little among a thousand.

mod element;
mod encode;
mod expression;
mod read;
mod seal;
mod transaction;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

pub use seal::Seal;
pub use transaction::Transaction;

pub(crate) use encode::write;
pub(crate) use read::{generation, notice, seal};

/// Which packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 and IPv6. A match on an address of one version implies the version.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Which packets it sees.
    pub family: Family,
    /// Its name, unique within the family.
    pub name: String,
    /// Sets and maps by name.
    pub sets: BTreeMap<String, Set>,
    /// Chains by name, up to 127 bytes.
    pub chains: BTreeMap<String, Chain>,
}

/// The type of one field of a set's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// IPv4 address.
    Ipv4,
    /// IPv6 address.
    Ipv6,
    /// Name of a link.
    Name,
    /// Number of a protocol over IP.
    Protocol,
    /// TCP, UDP or SCTP port.
    Port,
    /// Packet or connection mark.
    Mark,
}

/// The type of what a map holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
    /// IPv4 addresses: the target of a translation.
    Ipv4,
    /// IPv6 addresses.
    Ipv6,
    /// IPv4 prefixes: translation keeps the host bits (NETMAP, RFC 6296 without the checksum).
    Prefix4,
    /// IPv6 prefixes.
    Prefix6,
    /// Verdicts.
    Verdict,
}

/// A set, or with `data` a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Types of the key's fields, concatenated.
    pub keys: Vec<KeyType>,
    /// Elements may be prefixes. One field: red-black tree; several: PIPAPO. Without it a hash is used and every
    /// prefix in a key must be a single address.
    pub interval: bool,
    /// What is held; `None`: a set.
    pub data: Option<DataType>,
    /// Key to datum; the datum is there exactly if the set is a map. Overlapping keys are refused by the kernel.
    pub elements: BTreeMap<Vec<Item>, Option<Datum>>,
}

/// One field of a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// For [`KeyType::Ipv4`] and [`KeyType::Ipv6`].
    Net(IpNet),
    /// For [`KeyType::Name`].
    Name(String),
    /// For [`KeyType::Protocol`], [`KeyType::Port`] and [`KeyType::Mark`].
    Number(u32),
}

impl From<IpNet> for Item {
    fn from(net: IpNet) -> Self {
        Self::Net(net)
    }
}

impl From<IpAddr> for Item {
    fn from(address: IpAddr) -> Self {
        Self::Net(address.into())
    }
}

/// What a map's element holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Datum {
    /// For [`DataType::Ipv4`] and [`DataType::Ipv6`].
    Address(IpAddr),
    /// For [`DataType::Prefix4`] and [`DataType::Prefix6`].
    Prefix(IpNet),
    /// For [`DataType::Verdict`].
    Verdict(Verdict),
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where packets enter; `None`: only by jump.
    pub base: Option<Base>,
    /// In order.
    pub rules: Vec<Rule>,
}

/// Where packets enter a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// What the chain may do.
    pub kind: ChainKind,
    /// When it is passed.
    pub hook: Hook,
    /// Order among the chains of a hook: -100 is `dstnat`, 0 `filter`, 100 `srcnat`, -150 `mangle`.
    pub priority: i32,
    /// What is not decided is dropped instead of accepted.
    pub drop: bool,
}

/// What a base chain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    /// Accept, drop, mangle.
    Filter,
    /// Translate; sees the first packet of a connection only.
    Nat,
    /// Mangle with a new route afterwards (hook output).
    Route,
}

/// When a base chain is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// To this machine.
    Input,
    /// Passing through.
    Forward,
    /// From this machine.
    Output,
    /// After routing.
    Postrouting,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Shown by `nft list`; at most 100 bytes.
    pub comment: String,
    /// Matches and actions, left to right; the first match that fails ends the rule.
    pub statements: Vec<Statement>,
}

/// A property of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Name of the link it came in by (`meta iifname`).
    Iif,
    /// Name of the link it goes out by (`meta oifname`).
    Oif,
    /// Protocol over IP (`meta l4proto`).
    Protocol,
    /// Packet mark.
    Mark,
    /// Connection mark.
    CtMark,
    /// Connection state, a bit set: see [`ct`].
    CtState,
    /// Connection status, a bit set: see [`ct`].
    CtStatus,
    /// Direction of the packet within its connection: 0 is that of the first packet, [`ct::REPLY`] the other one. A packet
    /// that is not tracked has none.
    CtDirection,
    /// IPv4 destination that the connection was opened to, before any translation (`ct original ip daddr`).
    OriginalDaddr,
    /// IPv4 source.
    Saddr,
    /// IPv4 destination.
    Daddr,
    /// IPv6 source.
    Saddr6,
    /// IPv6 destination.
    Daddr6,
    /// Source port, whatever the protocol (`th sport`).
    Sport,
    /// Destination port (`th dport`).
    Dport,
    /// Flags of TCP, a bit set: SYN is 2, RST 4; implies the protocol.
    TcpFlags,
    /// Type and code of ICMP, as one number of two octets: see [`ICMP_TOO_BIG`]. Compare the protocol first.
    IcmpKind,
    /// IPv4 destination of the packet that an ICMP error is about. Compare the protocol first.
    IcmpDaddr,
    /// Type of the destination by the routing table: local is 2 (`fib daddr type`).
    DaddrType,
}

/// Bits of [`Key::CtState`] and [`Key::CtStatus`], values of [`Key::CtDirection`].
pub mod ct {
    /// State: cannot be tracked.
    pub const INVALID: u32 = 1;
    /// State: packets were seen in both directions.
    pub const ESTABLISHED: u32 = 2;
    /// State: belongs to another connection (ICMP errors).
    pub const RELATED: u32 = 4;
    /// State: first packet.
    pub const NEW: u32 = 8;
    /// Direction: from the one that the connection was opened to.
    pub const REPLY: u32 = 1;
    /// Status: the source is translated.
    pub const SNAT: u32 = 1 << 4;
    /// Status: the destination is translated.
    pub const DNAT: u32 = 1 << 5;
}

/// [`Key::IcmpKind`]: destination unreachable, fragmentation needed (RFC 1191).
pub const ICMP_TOO_BIG: u32 = 0x0304;

/// Flag SYN of [`Key::TcpFlags`].
pub const TCP_SYN: u32 = 2;

/// A value compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Name of a link, whole.
    Name(String),
    /// Prefix or, at full length, an address.
    Net(IpNet),
    /// Protocol, port, mark, type.
    Number(u32),
}

impl From<&str> for Value {
    fn from(name: &str) -> Self {
        Self::Name(name.into())
    }
}

impl From<IpNet> for Value {
    fn from(net: IpNet) -> Self {
        Self::Net(net)
    }
}

impl From<IpAddr> for Value {
    fn from(address: IpAddr) -> Self {
        Self::Net(address.into())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number)
    }
}

/// Where a rule or a packet goes on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Done with this chain; chains of later priority still see it.
    Accept,
    /// Gone.
    Drop,
    /// Back to the caller, or to the policy.
    Return,
    /// Into a chain and back.
    Jump(String),
    /// Into a chain for good.
    Goto(String),
}

/// The target of a translation of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One address.
    Address(IpAddr),
    /// A prefix of the same length as the range matched before: host bits are kept (NETMAP).
    Prefix(IpNet),
    /// The packet's own property: `snat to ip saddr` fixes the source against later masquerading.
    Own(Key),
    /// What a map holds for these properties; prefixes keep the host bits. No element: the rule does not match.
    Map(Vec<Key>, String),
}

/// A match or an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// Goes on if the property is (`true`) or is not (`false`) the value.
    Compare(Key, bool, Value),
    /// Goes on if any of the bits is set.
    AnyBit(Key, u32),
    /// Goes on if the properties, concatenated, are (`true`) or are not (`false`) in the set.
    Lookup(Vec<Key>, bool, String),
    /// Counts packets and bytes.
    Counter,
    /// Ends the rule.
    Verdict(Verdict),
    /// Ends the rule with the verdict that the map holds; goes on if it holds none.
    VerdictMap(Vec<Key>, String),
    /// Source becomes an address of the link it goes out by.
    Masquerade,
    /// New source.
    Snat(Target),
    /// New destination.
    Dnat(Target),
    /// Lowers the maximum segment size of a SYN to what the route's MTU carries (`tcp option maxseg size set rt mtu`).
    ClampMss,
    /// Clears "don't fragment" of IPv4 (RFC 791): what is too large on the way is cut, and the sender hears nothing of it.
    AllowFragments,
    /// Sets the packet's mark.
    SetMark(u32),
    /// Keeps the packet out of connection tracking, and so out of every translation; before that looks at it (-200).
    NoTrack,
}

/// The property is the value.
pub fn is(key: Key, value: impl Into<Value>) -> Statement {
    Statement::Compare(key, true, value.into())
}

/// The property is not the value.
pub fn not(key: Key, value: impl Into<Value>) -> Statement {
    Statement::Compare(key, false, value.into())
}

/// The properties are in the set.
pub fn within(keys: &[Key], set: &str) -> Statement {
    Statement::Lookup(keys.to_vec(), true, set.into())
}

/// The properties are not in the set.
pub fn outside(keys: &[Key], set: &str) -> Statement {
    Statement::Lookup(keys.to_vec(), false, set.into())
}

/// A rule of a comment and its statements.
pub fn rule(comment: &str, statements: impl IntoIterator<Item = Statement>) -> Rule {
    Rule { comment: comment.into(), statements: statements.into_iter().collect() }
}

#[cfg(test)]
mod tests;
