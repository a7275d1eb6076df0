//! What the kernel hands over in one piece is cut into packets that fit: TCP and UDP segmentation, in place.
//!
//! A TUN interface with `IFF_VNET_HDR` gives up to 64 KiB of one flow with one header (TSO, USO; `linux/virtio_net.h`). Packet
//! `k` is made by writing its header directly before its payload, over payload that has been sent already: no byte of payload is moved.

use super::packet::{TCP, UDP, finish_ipv4, fold, get16, get32, pseudo, put16, sum};

/// `struct virtio_net_hdr`: before each packet, both ways.
pub(crate) const VNET: usize = 10;
/// Room a caller leaves after the frame: packets are padded to 16 bytes.
pub(crate) const TAIL: usize = 16;
/// Longest header of one packet: IPv6 with extensions, TCP with options.
const HEAD: usize = 256;

pub(crate) const NEEDS_CHECKSUM: u8 = 1;
pub(crate) const GSO_NONE: u8 = 0;
pub(crate) const GSO_TCP4: u8 = 1;
pub(crate) const GSO_TCP6: u8 = 4;
pub(crate) const GSO_UDP: u8 = 5;
/// A flag beside the type: the flow uses explicit congestion notification.
const GSO_ECN: u8 = 0x80;

const TCP_FIN_PSH: u8 = 0x09;
const TCP_CWR: u8 = 0x80;

/// A frame whose header does not fit its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Calls `each` with every packet of the frame in `buffer[..length]`, complete with checksums and padded with zeros to a multiple
/// of 16 bytes, but not beyond `mtu` (WireGuard white paper, 5.4.6). The buffer needs [`TAIL`] bytes after the frame.
pub(crate) fn split(
    buffer: &mut [u8],
    length: usize,
    mtu: usize,
    mut each: impl FnMut(&[u8]),
) -> Result<(), Malformed> {
    let (header, packet) = buffer.split_at_mut_checked(VNET).ok_or(Malformed)?;
    let length = length.checked_sub(VNET).filter(|length| length + TAIL <= packet.len()).ok_or(Malformed)?;
    let little = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let (size, start, field) = (little(4), little(6), little(8));
    let kind = header[1] & !GSO_ECN;
    if kind == GSO_NONE {
        if header[0] & NEEDS_CHECKSUM != 0 {
            complete(packet.get_mut(..length).ok_or(Malformed)?, start, field)?;
        }
        padded(packet, 0, length, mtu, &mut each);
        return Ok(());
    }
    segments(packet, length, &Cut { kind, size, start }, mtu, &mut each)
}

/// How a large packet is cut.
struct Cut {
    kind: u8,
    /// Payload bytes of each packet.
    size: usize,
    /// Where the TCP or UDP header starts.
    start: usize,
}

/// Finishes a checksum of which the kernel wrote the part of the pseudo header.
fn complete(packet: &mut [u8], start: usize, field: usize) -> Result<(), Malformed> {
    let checksum = !fold(sum(packet.get(start..).ok_or(Malformed)?, 0));
    if start + field + 2 > packet.len() {
        return Err(Malformed);
    }
    // UDP tells "no checksum" by 0, so a sum of 0 is written as its other form (RFC 768).
    put16(packet, start + field, if checksum == 0 && field == 6 { 0xffff } else { checksum });
    Ok(())
}

fn segments(
    packet: &mut [u8],
    length: usize,
    cut: &Cut,
    mtu: usize,
    each: &mut impl FnMut(&[u8]),
) -> Result<(), Malformed> {
    let Cut { kind, size, start } = *cut;
    let v4 = packet[0] >> 4 == 4;
    let (protocol, fixed) = match (kind, v4) {
        (GSO_TCP4, true) | (GSO_TCP6, false) => (TCP, 20),
        (GSO_UDP, _) => (UDP, 8),
        _ => return Err(Malformed),
    };
    if size == 0 || start < if v4 { 20 } else { 40 } || start + fixed > length {
        return Err(Malformed);
    }
    let head = if protocol == TCP { start + usize::from(packet[start + 12] >> 4) * 4 } else { start + 8 };
    if head < start + fixed || head > length || head > HEAD {
        return Err(Malformed);
    }
    let mut saved = [0; HEAD];
    saved[..head].copy_from_slice(&packet[..head]);
    let total = length - head;
    let mut at = 0;
    let mut number = 0;
    while at < total {
        let take = size.min(total - at);
        let segment = &mut packet[at..at + head + take];
        segment[..head].copy_from_slice(&saved[..head]);
        address(segment, v4, number);
        let upper = head - start + take;
        if protocol == TCP {
            let sequence = get32(&saved, start + 4).wrapping_add(at as u32);
            segment[start + 4..start + 8].copy_from_slice(&sequence.to_be_bytes());
            segment[start + 13] &= !if at + take < total { TCP_FIN_PSH } else { 0 } & !if at > 0 { TCP_CWR } else { 0 };
        } else {
            put16(segment, start + 4, upper as u16);
        }
        let field = start + if protocol == TCP { 16 } else { 6 };
        put16(segment, field, 0);
        let checksum = !fold(sum(&segment[start..], pseudo(segment, protocol, upper)));
        put16(segment, field, if checksum == 0 && protocol == UDP { 0xffff } else { checksum });
        padded(packet, at, head + take, mtu, each);
        at += take;
        number += 1;
    }
    Ok(())
}

/// Writes length, identification and checksum of the IP header of packet `number`.
fn address(segment: &mut [u8], v4: bool, number: u16) {
    let length = segment.len();
    if v4 {
        put16(segment, 2, length as u16);
        let id = get16(segment, 4).wrapping_add(number);
        put16(segment, 4, id);
        finish_ipv4(segment, usize::from(segment[0] & 15) * 4);
    } else {
        put16(segment, 4, (length - 40) as u16);
    }
}

/// Hands out `packet[at..at + length]` and zeros behind it. What lies behind is payload of the next packet, and stays.
fn padded(packet: &mut [u8], at: usize, length: usize, mtu: usize, each: &mut impl FnMut(&[u8])) {
    let padding = length.next_multiple_of(16).min(mtu).max(length) - length;
    let end = at + length;
    let mut kept = [0; TAIL];
    kept[..padding].copy_from_slice(&packet[end..end + padding]);
    packet[end..end + padding].fill(0);
    each(&packet[at..end + padding]);
    packet[end..end + padding].copy_from_slice(&kept[..padding]);
}

#[cfg(test)]
pub(crate) mod tests;
