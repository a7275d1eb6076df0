//! Policy rules that look up a table.

use ipnet::IpNet;

use crate::rt::{address, af, octets};
use crate::socket::{Refusal, Socket};
use crate::state::{Family, Rule};
use crate::wire::{ACK, CREATE, EXCLUSIVE, Message, Writer, attributes, text, u32_at};

const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_GETRULE: u16 = 34;
const FIB_RULE_HDR: usize = 12;
const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_PROTOCOL: u16 = 21;
const FR_ACT_TO_TBL: u8 = 1;

/// Rules of one address family with this origin.
pub(crate) fn list(socket: &Socket, family: Family, protocol: u8) -> Result<Vec<Rule>, Refusal> {
    let mut header = [0; FIB_RULE_HDR];
    header[0] = af(family);
    socket.list(RTM_GETRULE, &header, |_| (), |message| decode(message, family, protocol))
}

/// Adds a rule.
pub(crate) fn add(socket: &Socket, protocol: u8, rule: &Rule) -> Result<(), Refusal> {
    let attributes = |w: &mut Writer| body(w, protocol, rule);
    socket.request(RTM_NEWRULE, CREATE | EXCLUSIVE | ACK, &header(rule), attributes, |_| ())
}

/// Removes a rule.
pub(crate) fn remove(socket: &Socket, protocol: u8, rule: &Rule) -> Result<(), Refusal> {
    socket.request(RTM_DELRULE, ACK, &header(rule), |w| body(w, protocol, rule), |_| ())
}

/// Origin of the rule a notice is about.
pub(crate) fn notice(message: Message<'_>) -> Option<u8> {
    matches!(message.kind, RTM_NEWRULE | RTM_DELRULE).then(|| origin(message))
}

fn origin(message: Message<'_>) -> u8 {
    let found = attributes(message.body, FIB_RULE_HDR).find(|(kind, _)| *kind == FRA_PROTOCOL);
    found.and_then(|(_, value)| value.first().copied()).unwrap_or(0)
}

fn body(w: &mut Writer, protocol: u8, rule: &Rule) {
    w.put_u32(FRA_PRIORITY, rule.priority);
    w.put_u32(FRA_TABLE, rule.table);
    w.put(FRA_PROTOCOL, &[protocol]);
    if let Some(iif) = &rule.iif {
        w.put_str(FRA_IIFNAME, iif);
    }
    if let Some(mark) = rule.mark {
        w.put_u32(FRA_FWMARK, mark);
        w.put_u32(FRA_FWMASK, mark);
    }
    if let Some(from) = rule.from {
        w.put(FRA_SRC, &octets(from.addr()));
    }
    if let Some(to) = rule.to {
        w.put(FRA_DST, &octets(to.addr()));
    }
}

fn decode(message: Message<'_>, family: Family, protocol: u8) -> Option<Rule> {
    if message.kind != RTM_NEWRULE || origin(message) != protocol {
        return None;
    }
    let (to_length, from_length) = (*message.body.get(1)?, *message.body.get(2)?);
    let table = u32::from(*message.body.get(4)?);
    let mut rule = Rule { family, priority: 0, table, iif: None, mark: None, from: None, to: None };
    for (kind, value) in attributes(message.body, FIB_RULE_HDR) {
        match kind {
            FRA_PRIORITY => rule.priority = u32_at(value, 0)?,
            FRA_TABLE => rule.table = u32_at(value, 0)?,
            FRA_IIFNAME => rule.iif = Some(text(value)),
            FRA_FWMARK => rule.mark = Some(u32_at(value, 0)?).filter(|mark| *mark != 0),
            FRA_SRC => rule.from = IpNet::new(address(value)?, from_length).ok(),
            FRA_DST => rule.to = IpNet::new(address(value)?, to_length).ok(),
            _ => {}
        }
    }
    Some(rule)
}

/// `fib_rule_hdr`.
fn header(rule: &Rule) -> [u8; FIB_RULE_HDR] {
    let mut header = [0; FIB_RULE_HDR];
    header[0] = af(rule.family);
    header[1] = rule.to.map_or(0, |net| net.prefix_len());
    header[2] = rule.from.map_or(0, |net| net.prefix_len());
    header[7] = FR_ACT_TO_TBL;
    header
}
