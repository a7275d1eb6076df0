//! Flows of UDP as connection tracking remembers them (`linux/netfilter/nfnetlink_conntrack.h`).
//!
//! The first packet of a flow decides how addresses and ports are translated. The kernel keeps that decision for as long as
//! packets of the flow come, whatever rules are added meanwhile; only a deleted flow is decided anew.

use std::net::SocketAddr;

use rustix::io::Errno;

use crate::error::Result;
use crate::kernel::{Kernel, refused};
use crate::rt::{address, af, octets};
use crate::socket::{Refusal, Socket};
use crate::state::Family;
use crate::wire::{ACK, Message, Writer, attributes, find};

/// Most flows that one listing gives for each version of IP.
const MOST: usize = 1024;

/// `NFNL_SUBSYS_CTNETLINK`.
const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_FILTER: u16 = 25;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
/// Source and destination of IPv4; those of IPv6 are two higher.
const CTA_IP: [u16; 2] = [1, 2];
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
/// Fields of a tuple that a filter compares: the protocol, the source port, the destination port.
const PROTOCOL: u32 = 1 << 3;
const SOURCE_PORT: u32 = 1 << 4;
const DESTINATION_PORT: u32 = 1 << 5;
const UDP: u8 = 17;

/// Source and destination of the packets of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Source.
    pub from: SocketAddr,
    /// Destination.
    pub to: SocketAddr,
}

/// A flow of UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The first packet, as it came.
    pub original: Way,
    /// An answer, as it is sent before its addresses and ports are translated back.
    pub reply: Way,
}

impl Kernel {
    /// Flows of UDP that were opened to port `to` of any address and whose answers are sent from port `from`: with two equal
    /// ports, those whose destination port was not translated. At most 1024 of each version of IP. The kernel walks its whole
    /// table, which takes some 10 ms on a large machine. Linux 5.8 and later give only the flows wanted here, earlier ones all.
    pub fn udp_flows(&self, to: u16, from: u16) -> Result<Vec<Flow>> {
        let mut flows = Vec::new();
        for family in [Family::V4, Family::V6] {
            let found = list(self.netfilter(), family, to, from);
            flows.extend(found.map_err(|no| refused(format!("listing the flows to UDP port {to}"), no))?);
        }
        Ok(flows)
    }

    /// Makes the kernel forget the flow between these ends, also one that came after the listing: its next packet is a first
    /// one. Tells whether there was such a flow.
    pub fn forget(&self, flow: &Flow) -> Result<bool> {
        // Without a tuple, the request would delete every flow of the namespace.
        let body = |w: &mut Writer| tuple(w, CTA_TUPLE_ORIG, &flow.original);
        let family = if flow.original.to.is_ipv4() { Family::V4 } else { Family::V6 };
        match self.netfilter().request(DELETE, ACK, &header(family), body, |_| ()) {
            Ok(()) => Ok(true),
            Err(Refusal { errno: Errno::NOENT, .. }) => Ok(false),
            Err(no) => {
                let Way { from, to } = flow.original;
                Err(refused(format!("deleting the flow from {from} to {to}"), no))
            }
        }
    }
}

fn list(socket: &Socket, family: Family, to: u16, from: u16) -> std::result::Result<Vec<Flow>, Refusal> {
    let filter = |w: &mut Writer| {
        w.nest(CTA_TUPLE_ORIG, |w| protocol(w, &[(CTA_PROTO_DST_PORT, to)]));
        w.nest(CTA_TUPLE_REPLY, |w| protocol(w, &[(CTA_PROTO_SRC_PORT, from)]));
        w.nest(CTA_FILTER, |w| {
            w.put_u32(CTA_FILTER_ORIG_FLAGS, PROTOCOL | DESTINATION_PORT);
            w.put_u32(CTA_FILTER_REPLY_FLAGS, PROTOCOL | SOURCE_PORT);
        });
    };
    let mut room = MOST;
    socket.list(GET, &header(family), filter, |message| {
        let flow = decode(message).filter(|flow| flow.original.to.port() == to && flow.reply.from.port() == from)?;
        room = room.checked_sub(1)?;
        Some(flow)
    })
}

/// `nfgenmsg`.
fn header(family: Family) -> [u8; 4] {
    [af(family), 0, 0, 0]
}

fn tuple(w: &mut Writer, kind: u16, way: &Way) {
    let [source, destination] = CTA_IP.map(|kind| if way.to.is_ipv4() { kind } else { kind + 2 });
    w.nest(kind, |w| {
        w.nest(CTA_TUPLE_IP, |w| {
            w.put(source, &octets(way.from.ip()));
            w.put(destination, &octets(way.to.ip()));
        });
        protocol(w, &[(CTA_PROTO_SRC_PORT, way.from.port()), (CTA_PROTO_DST_PORT, way.to.port())]);
    });
}

fn protocol(w: &mut Writer, ports: &[(u16, u16)]) {
    w.nest(CTA_TUPLE_PROTO, |w| {
        w.put(CTA_PROTO_NUM, &[UDP]);
        for (kind, port) in ports {
            w.put(*kind, &port.to_be_bytes());
        }
    });
}

/// The flow in an answer, if it is one of UDP.
fn decode(message: Message<'_>) -> Option<Flow> {
    if message.kind != NEW {
        return None;
    }
    let value = |kind| attributes(message.body, 4).find(|(found, _)| *found == kind).map(|(_, value)| value);
    Some(Flow { original: way(value(CTA_TUPLE_ORIG)?)?, reply: way(value(CTA_TUPLE_REPLY)?)? })
}

fn way(tuple: &[u8]) -> Option<Way> {
    let (ip, protocol) = (find(tuple, CTA_TUPLE_IP)?, find(tuple, CTA_TUPLE_PROTO)?);
    if find(protocol, CTA_PROTO_NUM)? != [UDP] {
        return None;
    }
    let end = |kind_of_address: u16, kind_of_port| {
        let bytes = find(ip, kind_of_address).or_else(|| find(ip, kind_of_address + 2))?;
        let port = find(protocol, kind_of_port)?.first_chunk().copied().map(u16::from_be_bytes)?;
        Some(SocketAddr::new(address(bytes)?, port))
    };
    Some(Way { from: end(CTA_IP[0], CTA_PROTO_SRC_PORT)?, to: end(CTA_IP[1], CTA_PROTO_DST_PORT)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages;

    /// A flow as it is after a journey to the kernel and back.
    fn again(flow: &Flow) -> Option<Flow> {
        let mut writer = Writer::new(1);
        writer.message(NEW, 0, &header(Family::V4), |w| {
            tuple(w, CTA_TUPLE_ORIG, &flow.original);
            tuple(w, CTA_TUPLE_REPLY, &flow.reply);
        });
        messages(writer.bytes()).next().and_then(decode)
    }

    #[test]
    fn a_flow_that_is_written_is_read() {
        let way = |from: &str, to: &str| Way { from: from.parse().unwrap(), to: to.parse().unwrap() };
        for (original, reply) in [
            (way("192.0.2.7:5871", "192.0.2.1:31871"), way("192.0.2.1:5871", "192.0.2.7:5871")),
            (way("[fd00::7]:5871", "[fd00::1]:31871"), way("[fd00::1]:5871", "[fd00::7]:5871")),
        ] {
            let flow = Flow { original, reply };
            assert_eq!(again(&flow), Some(flow));
        }
    }

    /// A flow that is read, from whatever bytes, is deleted by the same ends.
    #[test]
    fn fuzz_flows() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "reply", |bytes| {
            for flow in messages(bytes).filter_map(decode) {
                assert_eq!(again(&flow), Some(flow));
            }
        });
    }
}
