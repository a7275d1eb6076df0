//! Rules as expressions over registers (`linux/netfilter/nf_tables.h`).

use std::net::IpAddr;

use ipnet::IpNet;

use crate::nft::element::{code, ends, name, number};
use crate::nft::{DataType, Family, Key, Rule, Statement, Table, Target, Value, Verdict};
use crate::rt::octets;
use crate::wire::Writer;

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
pub(super) const NFTA_DATA_VALUE: u16 = 1;
pub(super) const NFTA_DATA_VERDICT: u16 = 2;
pub(super) const NFTA_VERDICT_CODE: u16 = 1;
pub(super) const NFTA_VERDICT_CHAIN: u16 = 2;

/// Register that holds a verdict.
const VERDICT: u32 = 0;
/// First of the sixteen registers of four bytes.
const FIRST: u32 = 8;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const NF_NAT_RANGE_NETMAP: u32 = 0x40;
const NFT_CMP_EQ: u32 = 0;
const NFT_CMP_NEQ: u32 = 1;
const NFT_LOOKUP_F_INV: u32 = 1;

/// Where a property comes from.
enum Source {
    Meta(u32),
    Ct(u32),
    /// Of the connection as its first packet was, before any translation.
    Original(u32),
    Payload {
        base: u32,
        offset: u32,
    },
    /// `fib daddr type`.
    DaddrType,
}

/// Version of IP that a property exists in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    V4,
    V6,
}

impl Version {
    fn number(self) -> u8 {
        if self == Self::V4 { NFPROTO_IPV4 } else { NFPROTO_IPV6 }
    }

    /// Registers of four bytes that an address takes.
    fn words(self) -> u32 {
        if self == Self::V4 { 1 } else { 4 }
    }
}

impl From<IpAddr> for Version {
    fn from(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl Key {
    fn source(self) -> Source {
        match self {
            Self::Mark => Source::Meta(3),
            Self::Iif => Source::Meta(6),
            Self::Oif => Source::Meta(7),
            Self::Protocol => Source::Meta(16),
            Self::CtState => Source::Ct(0),
            Self::CtDirection => Source::Ct(1),
            Self::CtStatus => Source::Ct(2),
            Self::CtMark => Source::Ct(3),
            Self::OriginalDaddr => Source::Original(20),
            Self::Saddr => Source::Payload { base: 1, offset: 12 },
            Self::Daddr => Source::Payload { base: 1, offset: 16 },
            Self::Saddr6 => Source::Payload { base: 1, offset: 8 },
            Self::Daddr6 => Source::Payload { base: 1, offset: 24 },
            Self::Sport => Source::Payload { base: 2, offset: 0 },
            Self::Dport => Source::Payload { base: 2, offset: 2 },
            Self::TcpFlags => Source::Payload { base: 2, offset: 13 },
            Self::IcmpKind => Source::Payload { base: 2, offset: 0 },
            // Behind eight octets of ICMP, at its place in the inner header.
            Self::IcmpDaddr => Source::Payload { base: 2, offset: 8 + 16 },
            Self::DaddrType => Source::DaddrType,
        }
    }

    fn length(self) -> usize {
        match self {
            Self::Protocol | Self::TcpFlags | Self::CtDirection => 1,
            Self::Sport | Self::Dport | Self::IcmpKind => 2,
            Self::Iif | Self::Oif | Self::Saddr6 | Self::Daddr6 => 16,
            Self::Mark
            | Self::CtMark
            | Self::CtState
            | Self::CtStatus
            | Self::OriginalDaddr
            | Self::Saddr
            | Self::Daddr
            | Self::IcmpDaddr
            | Self::DaddrType => 4,
        }
    }

    fn version(self) -> Option<Version> {
        match self {
            Self::Saddr | Self::Daddr => Some(Version::V4),
            Self::Saddr6 | Self::Daddr6 => Some(Version::V6),
            _ => None,
        }
    }
}

/// Writes the expressions of a rule.
pub(super) fn write(w: &mut Writer, table: &Table, rule: &Rule) {
    let version = match table.family {
        Family::Inet => None,
        Family::Ip => Some(Version::V4),
        Family::Ip6 => Some(Version::V6),
    };
    let mut expressions = Expressions { w, table, version, tcp: false };
    for statement in &rule.statements {
        expressions.statement(statement);
    }
}

struct Expressions<'a> {
    w: &'a mut Writer,
    table: &'a Table,
    /// What is known of the packet at this place of the rule.
    version: Option<Version>,
    tcp: bool,
}

impl Expressions<'_> {
    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::Compare(key, equal, value) => self.compare(*key, *equal, value),
            Statement::AnyBit(key, bits) => {
                let mask = number(key.length(), *bits);
                self.load(*key, FIRST, key.length());
                self.mask(&mask);
                self.cmp(false, &vec![0; mask.len()]);
            }
            Statement::Lookup(keys, inside, set) => {
                self.load_all(keys);
                self.lookup(set, None, if *inside { 0 } else { NFT_LOOKUP_F_INV });
            }
            Statement::Counter => self.expression("counter", |_| ()),
            Statement::Verdict(verdict) => self.verdict(verdict),
            Statement::VerdictMap(keys, map) => {
                self.load_all(keys);
                self.lookup(map, Some(VERDICT), 0);
            }
            Statement::Masquerade => self.expression("masq", |_| ()),
            Statement::Snat(target) => self.translate(0, target),
            Statement::Dnat(target) => self.translate(1, target),
            Statement::ClampMss => self.clamp(),
            Statement::AllowFragments => self.allow_fragments(),
            Statement::NoTrack => self.expression("notrack", |_| ()),
            Statement::SetMark(mark) => {
                self.immediate(FIRST, &mark.to_ne_bytes());
                self.expression("meta", |w| {
                    w.put_be32(2, 3);
                    w.put_be32(3, FIRST);
                });
            }
        }
    }

    fn compare(&mut self, key: Key, equal: bool, value: &Value) {
        match value {
            Value::Name(text) => {
                self.load(key, FIRST, key.length());
                self.cmp(equal, &name(text));
            }
            Value::Number(value) => {
                self.load(key, FIRST, key.length());
                self.cmp(equal, &number(key.length(), *value));
                self.tcp |= key == Key::Protocol && equal && *value == u32::from(IPPROTO_TCP);
            }
            Value::Net(net) => self.compare_net(key, equal, *net),
        }
    }

    /// Whole bytes of a prefix are loaded alone; other lengths are masked.
    fn compare_net(&mut self, key: Key, equal: bool, net: IpNet) {
        let (low, _) = ends(net);
        let bits = usize::from(net.prefix_len());
        if bits > 0 && bits.is_multiple_of(8) {
            self.load(key, FIRST, bits / 8);
            self.cmp(equal, &low[..bits / 8]);
            return;
        }
        let mask: Vec<u8> = match net {
            IpNet::V4(net) => net.netmask().octets().to_vec(),
            IpNet::V6(net) => net.netmask().octets().to_vec(),
        };
        self.load(key, FIRST, key.length());
        self.mask(&mask);
        self.cmp(equal, &low);
    }

    fn verdict(&mut self, verdict: &Verdict) {
        let (code, chain) = code(verdict);
        self.expression("immediate", |w| {
            w.put_be32(1, VERDICT);
            w.nest(2, |w| {
                w.nest(NFTA_DATA_VERDICT, |w| {
                    w.put_be32(NFTA_VERDICT_CODE, code.cast_unsigned());
                    if let Some(chain) = chain {
                        w.put_str(NFTA_VERDICT_CHAIN, chain);
                    }
                });
            });
        });
    }

    fn translate(&mut self, manip: u32, target: &Target) {
        let version;
        let mut range = false;
        match target {
            Target::Address(address) => {
                version = Version::from(*address);
                self.assume(version);
                self.immediate(FIRST, &octets(*address));
            }
            Target::Prefix(net) => {
                version = Version::from(net.addr());
                range = true;
                self.assume(version);
                let (low, high) = ends(*net);
                self.immediate(FIRST, &low);
                self.immediate(FIRST + version.words(), &high);
            }
            Target::Own(key) => {
                version = key.version().unwrap_or(Version::V4);
                self.load(*key, FIRST, key.length());
            }
            Target::Map(keys, map) => {
                let data = self.table.sets.get(map).and_then(|set| set.data);
                version = match data {
                    Some(DataType::Ipv6 | DataType::Prefix6) => Version::V6,
                    _ => Version::V4,
                };
                range = matches!(data, Some(DataType::Prefix4 | DataType::Prefix6));
                self.assume(version);
                self.load_all(keys);
                self.lookup(map, Some(FIRST), 0);
            }
        }
        self.expression("nat", |w| {
            w.put_be32(1, manip);
            w.put_be32(2, u32::from(version.number()));
            w.put_be32(3, FIRST);
            if range {
                w.put_be32(4, FIRST + version.words());
                w.put_be32(7, NF_NAT_RANGE_NETMAP);
            }
        });
    }

    fn clamp(&mut self) {
        self.assume_tcp();
        self.expression("rt", |w| {
            w.put_be32(1, FIRST);
            w.put_be32(2, 3);
        });
        self.expression("byteorder", |w| {
            w.put_be32(1, FIRST);
            w.put_be32(2, FIRST);
            w.put_be32(3, 1);
            w.put_be32(4, 2);
            w.put_be32(5, 2);
        });
        // Option 2 (maximum segment size, RFC 9293) of TCP, two bytes at offset two; the kernel never raises it.
        self.expression("exthdr", |w| {
            w.put(2, &[2]);
            w.put_be32(3, 2);
            w.put_be32(4, 2);
            w.put_be32(6, 1);
            w.put_be32(7, FIRST);
        });
    }

    /// Loads properties one after the other.
    fn load_all(&mut self, keys: &[Key]) {
        for key in keys {
            self.depend(*key);
        }
        let mut register = FIRST;
        for key in keys {
            self.load(*key, register, key.length());
            register += key.length().div_ceil(4) as u32;
        }
    }

    /// Loads the first `length` bytes of a property.
    fn load(&mut self, key: Key, register: u32, length: usize) {
        self.depend(key);
        match key.source() {
            Source::Meta(meta) => self.expression("meta", |w| {
                w.put_be32(1, register);
                w.put_be32(2, meta);
            }),
            Source::Ct(ct) => self.expression("ct", |w| {
                w.put_be32(1, register);
                w.put_be32(2, ct);
            }),
            Source::Original(ct) => self.expression("ct", |w| {
                w.put_be32(1, register);
                w.put_be32(2, ct);
                w.put(3, &[0]);
            }),
            Source::Payload { base, offset } => self.expression("payload", |w| {
                w.put_be32(1, register);
                w.put_be32(2, base);
                w.put_be32(3, offset);
                w.put_be32(4, length as u32);
            }),
            Source::DaddrType => self.expression("fib", |w| {
                w.put_be32(1, register);
                w.put_be32(2, 3);
                w.put_be32(3, 2);
            }),
        }
    }

    /// Makes sure that the packet has the property.
    fn depend(&mut self, key: Key) {
        if let Some(version) = key.version() {
            self.assume(version);
        }
        if key == Key::TcpFlags {
            self.assume_tcp();
        }
    }

    fn assume(&mut self, version: Version) {
        if self.version != Some(version) {
            self.version = Some(version);
            self.expression("meta", |w| {
                w.put_be32(1, FIRST);
                w.put_be32(2, 15);
            });
            self.cmp(true, &[version.number()]);
        }
    }

    fn assume_tcp(&mut self) {
        if !self.tcp {
            self.tcp = true;
            self.load(Key::Protocol, FIRST, 1);
            self.cmp(true, &[IPPROTO_TCP]);
        }
    }

    fn cmp(&mut self, equal: bool, value: &[u8]) {
        self.expression("cmp", |w| {
            w.put_be32(1, FIRST);
            w.put_be32(2, if equal { NFT_CMP_EQ } else { NFT_CMP_NEQ });
            w.nest(3, |w| w.put(NFTA_DATA_VALUE, value));
        });
    }

    fn mask(&mut self, mask: &[u8]) {
        self.expression("bitwise", |w| {
            w.put_be32(1, FIRST);
            w.put_be32(2, FIRST);
            w.put_be32(3, mask.len() as u32);
            w.nest(4, |w| w.put(NFTA_DATA_VALUE, mask));
            w.nest(5, |w| w.put(NFTA_DATA_VALUE, &vec![0; mask.len()]));
        });
    }

    fn allow_fragments(&mut self) {
        const FLAGS: u32 = 6;
        const CHECKSUM: u32 = 10;
        const NFT_PAYLOAD_CSUM_INET: u32 = 1;
        self.assume(Version::V4);
        self.expression("payload", |w| {
            w.put_be32(1, FIRST);
            w.put_be32(2, 1);
            w.put_be32(3, FLAGS);
            w.put_be32(4, 2);
        });
        self.mask(&[0xbf, 0xff]);
        self.expression("payload", |w| {
            w.put_be32(5, FIRST);
            w.put_be32(2, 1);
            w.put_be32(3, FLAGS);
            w.put_be32(4, 2);
            w.put_be32(6, NFT_PAYLOAD_CSUM_INET);
            w.put_be32(7, CHECKSUM);
            w.put_be32(8, 0);
        });
    }

    fn lookup(&mut self, set: &str, into: Option<u32>, flags: u32) {
        self.expression("lookup", |w| {
            w.put_str(1, set);
            w.put_be32(2, FIRST);
            if let Some(register) = into {
                w.put_be32(3, register);
            }
            if flags != 0 {
                w.put_be32(5, flags);
            }
        });
    }

    fn immediate(&mut self, register: u32, value: &[u8]) {
        self.expression("immediate", |w| {
            w.put_be32(1, register);
            w.nest(2, |w| w.put(NFTA_DATA_VALUE, value));
        });
    }

    fn expression(&mut self, kind: &str, attributes: impl FnOnce(&mut Writer)) {
        self.w.nest(NFTA_LIST_ELEM, |w| {
            w.put_str(NFTA_EXPR_NAME, kind);
            w.nest(NFTA_EXPR_DATA, attributes);
        });
    }
}
