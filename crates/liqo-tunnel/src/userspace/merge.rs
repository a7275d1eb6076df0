//! Packets of one flow that arrive together go to the kernel in one piece: the reverse of `split`, for TCP and UDP, IPv4 and IPv6.
//!
//! A few flows are open at a time, so that flows that arrive interleaved still merge. A packet joins only if every byte of its headers
//! says that it follows, and if its checksum holds: a damaged packet stays alone and is refused by its receiver. Order
//! within a flow is kept.

use std::io::IoSlice;

use super::packet::{TCP, UDP, finish_ipv4, fold, get16, get32, pseudo, put16, sum};
use super::split::{GSO_TCP4, GSO_TCP6, GSO_UDP, NEEDS_CHECKSUM, VNET};

/// Flows that may be open at a time.
const FLOWS: usize = 8;
/// Packets that may become one (`UDP_MAX_SEGMENTS` of older kernels).
const PIECES: usize = 64;
/// Bytes that may become one: what an IP packet can hold.
const TOTAL: usize = 65_535;

const TCP_ACK: u8 = 0x10;
const TCP_PSH: u8 = 0x08;

/// Takes what goes to the interface: a `virtio_net_hdr` and the pieces of one packet.
pub(crate) trait Output {
    /// Writes one packet.
    fn write(&mut self, pieces: &[IoSlice<'_>]);
}

/// Where a packet lies in the arena.
type Span = (usize, usize);

/// Flows that wait for more.
pub(crate) struct Merger {
    flows: Vec<Flow>,
    /// Lists of flows that are closed: nothing is allocated once all have been in use.
    spare: Vec<Vec<Span>>,
    /// The interface takes merged UDP.
    uso: bool,
}

struct Flow {
    /// The first packet; its header will be that of the whole.
    first: Span,
    head: usize,
    /// Where the TCP or UDP header starts.
    start: usize,
    /// Payload of the first packet; only the last may have less.
    size: usize,
    /// Bytes of the whole so far.
    total: usize,
    /// The TCP sequence number that follows.
    next: u32,
    /// The last packet says that its data shall be delivered.
    push: bool,
    pieces: Vec<Span>,
}

/// A packet that may merge.
struct Candidate {
    protocol: u8,
    start: usize,
    head: usize,
}

impl Merger {
    /// `uso`: the interface takes merged UDP.
    pub(crate) fn new(uso: bool) -> Self {
        Self { flows: Vec::with_capacity(FLOWS), spare: Vec::with_capacity(FLOWS), uso }
    }

    /// Takes the packet at `span` of the arena. It is written now, or with others of its flow at the latest by [`Merger::flush`].
    pub(crate) fn push(&mut self, arena: &mut [u8], span: Span, output: &mut impl Output) {
        let packet = &arena[span.0..span.0 + span.1];
        let Some(candidate) = candidate(packet, self.uso) else {
            self.close_same(arena, span, output);
            return alone(arena, span, output);
        };
        if let Some(i) = self.flows.iter().rposition(|flow| same_flow(&arena[flow.first.0..], packet, &candidate)) {
            if self.flows[i].follows(arena, span, &candidate) {
                self.flows[i].take(span, packet, &candidate);
                if self.flows[i].is_full(span.1 - candidate.head) {
                    self.close(i, arena, output);
                }
                return;
            }
            self.close(i, arena, output);
        }
        if self.flows.len() == FLOWS {
            self.close(0, arena, output);
        }
        let packet = &arena[span.0..span.0 + span.1];
        if !verified(packet, &candidate) {
            return alone(arena, span, output);
        }
        let pieces = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(PIECES));
        self.flows.push(Flow::new(span, packet, &candidate, pieces));
    }

    /// Writes everything that waits.
    pub(crate) fn flush(&mut self, arena: &mut [u8], output: &mut impl Output) {
        for flow in self.flows.drain(..) {
            self.spare.push(flow.write(arena, output));
        }
    }

    fn close(&mut self, i: usize, arena: &mut [u8], output: &mut impl Output) {
        let pieces = self.flows.remove(i).write(arena, output);
        self.spare.push(pieces);
    }

    /// A packet that cannot merge (a FIN, say) must not overtake its flow.
    fn close_same(&mut self, arena: &mut [u8], span: Span, output: &mut impl Output) {
        while let Some(i) = self.flows.iter().position(|flow| {
            let (first, packet) = (&arena[flow.first.0..], &arena[span.0..span.0 + span.1]);
            addresses(first) == addresses(packet)
        }) {
            self.close(i, arena, output);
        }
    }
}

impl Flow {
    fn new(span: Span, packet: &[u8], candidate: &Candidate, pieces: Vec<Span>) -> Self {
        let Candidate { protocol, start, head } = *candidate;
        let size = span.1 - head;
        Self {
            first: span,
            head,
            start,
            size,
            total: span.1,
            next: get32(packet, start + 4).wrapping_add(size as u32),
            push: protocol == TCP && packet[start + 13] & TCP_PSH != 0,
            pieces,
        }
    }

    /// Whether the packet continues this flow, to the byte.
    fn follows(&self, arena: &[u8], span: Span, candidate: &Candidate) -> bool {
        let Candidate { protocol, start, head } = *candidate;
        let first = &arena[self.first.0..self.first.0 + self.first.1];
        let packet = &arena[span.0..span.0 + span.1];
        let size = span.1 - head;
        if self.push || head != self.head || size > self.size || self.total + size > TOTAL {
            return false;
        }
        let network = if packet[0] >> 4 == 4 {
            // Type of service, flags and fragment, time to live.
            packet[1] == first[1] && packet[6..9] == first[6..9]
        } else {
            // Class and flow label, hop limit.
            packet[..4] == first[..4] && packet[7] == first[7]
        };
        let transport = protocol == UDP
            || (get32(packet, start + 4) == self.next
                && packet[start + 8..start + 13] == first[start + 8..start + 13]
                && packet[start + 14..start + 16] == first[start + 14..start + 16]
                && packet[start + 18..head] == first[start + 18..head]);
        network && transport && verified(packet, candidate)
    }

    fn take(&mut self, span: Span, packet: &[u8], candidate: &Candidate) {
        let size = span.1 - self.head;
        self.pieces.push((span.0 + self.head, size));
        self.total += size;
        self.next = self.next.wrapping_add(size as u32);
        self.push = candidate.protocol == TCP && packet[candidate.start + 13] & TCP_PSH != 0;
    }

    fn is_full(&self, last: usize) -> bool {
        self.push || last < self.size || self.pieces.len() + 1 == PIECES
    }

    /// One packet if nobody joined, exactly as it came; else the whole, whose checksum the kernel finishes if anybody asks.
    /// Gives the list of pieces back, empty.
    fn write(mut self, arena: &mut [u8], output: &mut impl Output) -> Vec<Span> {
        if self.pieces.is_empty() {
            alone(arena, self.first, output);
            return self.pieces;
        }
        let packet = &mut arena[self.first.0..self.first.0 + self.first.1];
        let v4 = packet[0] >> 4 == 4;
        if v4 {
            put16(packet, 2, self.total as u16);
            finish_ipv4(packet, 20);
        } else {
            put16(packet, 4, (self.total - 40) as u16);
        }
        let upper = self.total - self.start;
        let tcp = packet[if v4 { 9 } else { 6 }] == TCP;
        let (kind, protocol, field) = match (tcp, v4) {
            (true, true) => (GSO_TCP4, TCP, 16),
            (true, false) => (GSO_TCP6, TCP, 16),
            (false, _) => (GSO_UDP, UDP, 6),
        };
        if !tcp {
            put16(packet, self.start + 4, upper as u16);
        } else if self.push {
            packet[self.start + 13] |= TCP_PSH;
        }
        let partial = fold(pseudo(packet, protocol, upper));
        put16(packet, self.start + field, partial);
        let mut header = [0; VNET];
        header[0] = NEEDS_CHECKSUM;
        header[1] = kind;
        for (at, value) in [(2, self.head), (4, self.size), (6, self.start), (8, field)] {
            header[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
        }
        let mut slices = [IoSlice::new(&[]); PIECES + 2];
        slices[0] = IoSlice::new(&header);
        slices[1] = IoSlice::new(&arena[self.first.0..self.first.0 + self.first.1]);
        for (slice, piece) in slices[2..].iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(&arena[piece.0..piece.0 + piece.1]);
        }
        output.write(&slices[..self.pieces.len() + 2]);
        self.pieces.clear();
        self.pieces
    }
}

/// Writes a packet as it came.
fn alone(arena: &[u8], span: Span, output: &mut impl Output) {
    output.write(&[IoSlice::new(&[0; VNET]), IoSlice::new(&arena[span.0..span.0 + span.1])]);
}

/// Whether a packet may merge at all: whole, without options or extension headers, TCP data with no flag but ACK and PSH, or UDP
/// with a checksum.
fn candidate(packet: &[u8], uso: bool) -> Option<Candidate> {
    let (protocol, start) = match *packet.first()? {
        0x45 if get16(packet, 6) & 0x3fff == 0 && usize::from(get16(packet, 2)) == packet.len() => {
            (*packet.get(9)?, 20)
        }
        byte if byte >> 4 == 6 && usize::from(get16(packet, 4)) + 40 == packet.len() => (*packet.get(6)?, 40),
        _ => return None,
    };
    let head = match protocol {
        TCP => {
            let flags = *packet.get(start + 13)?;
            if flags & !TCP_PSH != TCP_ACK {
                return None;
            }
            start + usize::from(packet[start + 12] >> 4) * 4
        }
        UDP if uso
            && usize::from(get16(packet, start + 4)) + start == packet.len()
            && get16(packet, start + 6) != 0 =>
        {
            start + 8
        }
        _ => return None,
    };
    (head >= start + if protocol == TCP { 20 } else { 8 } && head < packet.len()).then_some(Candidate {
        protocol,
        start,
        head,
    })
}

/// Addresses and the four bytes where ports are.
fn addresses(packet: &[u8]) -> (&[u8], u8, Option<&[u8]>) {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) if packet.len() >= 20 => {
            let start = usize::from(packet[0] & 15) * 4;
            (&packet[12..20], packet[9], packet.get(start..start + 4))
        }
        Some(6) if packet.len() >= 40 => (&packet[8..40], packet[6], packet.get(40..44)),
        _ => (&[], 0, None),
    }
}

/// Whether both packets belong to the same flow.
fn same_flow(first: &[u8], packet: &[u8], candidate: &Candidate) -> bool {
    let start = candidate.start;
    if first[0] >> 4 != packet[0] >> 4 || first[start..start + 4] != packet[start..start + 4] {
        return false;
    }
    if start == 20 {
        first[9] == packet[9] && first[12..20] == packet[12..20]
    } else {
        first[6] == packet[6] && first[8..40] == packet[8..40]
    }
}

/// Whether the checksum of the upper layer holds.
fn verified(packet: &[u8], candidate: &Candidate) -> bool {
    let upper = packet.len() - candidate.start;
    fold(sum(&packet[candidate.start..], pseudo(packet, candidate.protocol, upper))) == 0xffff
}

#[cfg(test)]
mod tests;
