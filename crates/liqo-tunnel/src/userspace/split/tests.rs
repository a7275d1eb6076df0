use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::{GSO_TCP4, GSO_TCP6, GSO_UDP, Malformed, NEEDS_CHECKSUM, TAIL, VNET, split};
use crate::userspace::merge::{Merger, Output};
use crate::userspace::packet::{fold, get16, get32, pseudo, put16, sum};

/// A frame as the kernel hands it over: one header, `payload` bytes, to be cut at `size`.
pub(crate) fn frame(v4: bool, tcp: bool, options: usize, payload: &[u8], size: usize, flow: u8) -> Vec<u8> {
    let start = if v4 { 20 } else { 40 };
    let head = start + if tcp { 20 + options * 4 } else { 8 };
    let mut packet = vec![0; head];
    packet[0] = if v4 { 0x45 } else { 0x60 };
    let total = head + payload.len();
    if v4 {
        put16(&mut packet, 2, total as u16);
        packet[4..6].copy_from_slice(&[0xff, 0xfe]);
        packet[6] = 0x40;
        packet[8] = 64;
        packet[9] = if tcp { 6 } else { 17 };
        packet[12..20].copy_from_slice(&[10, 0, 1, flow, 10, 0, 2, 1]);
    } else {
        put16(&mut packet, 4, (total - 40) as u16);
        packet[6] = if tcp { 6 } else { 17 };
        packet[7] = 64;
        packet[8] = 0xfd;
        packet[23] = flow;
        packet[24] = 0xfd;
        packet[39] = 1;
    }
    packet[start..start + 4].copy_from_slice(&[0x12, flow, 0x00, 0x50]);
    if tcp {
        packet[start + 4..start + 8].copy_from_slice(&0xffff_ff00u32.to_be_bytes());
        packet[start + 12] = ((5 + options) << 4) as u8;
        packet[start + 13] = 0x18;
        packet[start + 20..head].fill(1);
    }
    packet.extend_from_slice(payload);
    let mut header = [0; VNET];
    header[0] = NEEDS_CHECKSUM;
    header[1] = if !tcp {
        GSO_UDP
    } else if v4 {
        GSO_TCP4
    } else {
        GSO_TCP6
    };
    let field = if tcp { 16 } else { 6 };
    for (at, value) in [(2, head), (4, size), (6, start), (8, field)] {
        header[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
    }
    [header.to_vec(), packet].concat()
}

pub(crate) fn cut(frame: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let mut buffer = frame.to_vec();
    buffer.resize(frame.len() + TAIL, 0xee);
    let mut packets = Vec::new();
    split(&mut buffer, frame.len(), mtu, |packet| packets.push(packet.to_vec())).unwrap();
    packets
}

/// The packet without padding, after every field that a receiver checks has been checked.
pub(crate) fn checked(packet: &[u8]) -> Vec<u8> {
    let v4 = packet[0] >> 4 == 4;
    let length = if v4 { usize::from(get16(packet, 2)) } else { 40 + usize::from(get16(packet, 4)) };
    assert!(packet[length..].iter().all(|byte| *byte == 0), "padding is zeros");
    let packet = &packet[..length];
    let (start, protocol) = if v4 { (20, packet[9]) } else { (40, packet[6]) };
    if v4 {
        assert_eq!(fold(sum(&packet[..20], 0)), 0xffff, "header checksum");
    }
    if protocol == 17 {
        assert_eq!(usize::from(get16(packet, start + 4)), length - start);
    }
    assert_eq!(fold(sum(&packet[start..], pseudo(packet, protocol, length - start))), 0xffff, "checksum");
    packet.to_vec()
}

#[derive(Default)]
struct Frames(Vec<Vec<u8>>);

impl Output for Frames {
    fn write(&mut self, pieces: &[std::io::IoSlice<'_>]) {
        self.0.push(pieces.iter().flat_map(|piece| piece.to_vec()).collect());
    }
}

/// Lets all packets through a merger, as one batch.
fn merged(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut arena = Vec::new();
    let spans: Vec<_> = packets
        .iter()
        .map(|packet| {
            arena.extend_from_slice(packet);
            (arena.len() - packet.len(), packet.len())
        })
        .collect();
    let (mut merger, mut frames) = (Merger::new(true), Frames::default());
    for span in spans {
        merger.push(&mut arena, span, &mut frames);
    }
    merger.flush(&mut arena, &mut frames);
    frames.0
}

proptest! {
    #[test]
    fn fuzz_what_is_cut_is_right_and_merges_to_what_it_was(
        v4: bool, tcp: bool, options in 0..=10usize, size in 1..1460usize, length in 1..60_000usize, mtu in 1280..1500usize,
    ) {
        let size = size.max(length / 60 + 1);
        let payload: Vec<u8> = (0..length).map(|i| (i * 7 + i / 251) as u8).collect();
        let whole = frame(v4, tcp, if tcp { options } else { 0 }, &payload, size, 1);
        let packets: Vec<Vec<u8>> = cut(&whole, mtu).iter().map(|packet| checked(packet)).collect();
        prop_assert_eq!(packets.len(), length.div_ceil(size));
        let head = whole.len() - VNET - length;
        let joined: Vec<u8> = packets.iter().flat_map(|packet| packet[head..].to_vec()).collect();
        prop_assert!(joined == payload);
        if tcp {
            let start = if v4 { 20 } else { 40 };
            for (i, packet) in packets.iter().enumerate() {
                prop_assert_eq!(get32(packet, start + 4), 0xffff_ff00u32.wrapping_add((i * size) as u32));
                prop_assert_eq!(packet[start + 13], if i + 1 == packets.len() { 0x18 } else { 0x10 });
            }
        }
        let back = merged(&packets);
        prop_assert_eq!(back.len(), 1);
        let again: Vec<Vec<u8>> = cut(&back[0], mtu).iter().map(|packet| checked(packet)).collect();
        prop_assert!(again == packets);
    }

    #[test]
    fn fuzz_any_bytes_are_cut_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), kind in 0..8u8, length in 0..420usize) {
        if bytes.len() > 5 {
            bytes[1] = kind;
            bytes[5] = 0;
        }
        let _ = split(&mut bytes, length, 1420, |_| {});
    }

    #[test]
    fn fuzz_a_damaged_header_is_cut_or_refused(v4: bool, tcp: bool, at in 0..74usize, byte: u8, length in 1..4000usize) {
        let mut whole = frame(v4, tcp, 0, &vec![7; length], 1000, 1);
        let last = whole.len() - 1;
        whole[at.min(last)] = byte;
        let length = whole.len();
        whole.resize(length + TAIL, 0);
        let _ = split(&mut whole, length, 1420, |_| {});
    }
}

#[test]
fn padding_ends_at_sixteen_or_the_mtu() {
    for (length, mtu, wanted) in
        [(1, 1420, 32), (1380, 1420, 1408), (1392, 1420, 1420), (1400, 1420, 1428), (4, 1420, 32)]
    {
        let mut plain = frame(true, false, 0, &vec![1; length], 0, 1);
        plain[1] = 0;
        assert_eq!(cut(&plain, mtu)[0].len(), wanted, "{length} bytes");
    }
}

#[test]
fn an_unfinished_checksum_is_finished() {
    let mut plain = frame(true, true, 3, b"some bytes", 0, 1);
    plain[1] = 0;
    // As the kernel leaves it: the sum of the pseudo header in its place.
    let part = fold(pseudo(&plain[VNET..], 6, plain.len() - VNET - 20));
    put16(&mut plain, VNET + 36, part);
    crate::userspace::packet::finish_ipv4(&mut plain[VNET..], 20);
    checked(&cut(&plain, 1420)[0]);
}

#[test]
fn frames_that_cannot_be_are_refused() {
    let good = frame(true, true, 0, &[7; 3000], 1000, 1);
    for (at, byte) in [(1, GSO_TCP6), (1, 3), (4, 0), (6, 0), (6, 0xff), (VNET + 32, 0x10), (VNET + 32, 0xf0)] {
        let mut bad = good.clone();
        bad[at] = byte;
        if at == 4 {
            bad[5] = 0;
        }
        if at == VNET + 32 && byte == 0xf0 {
            bad.truncate(VNET + 50);
        }
        let length = bad.len();
        bad.resize(length + TAIL, 0);
        assert_eq!(split(&mut bad, length, 1420, |_| {}), Err(Malformed), "byte {at} = {byte:#x}");
    }
}

#[test]
fn fuzz_recorded_frames() {
    liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "frame", |bytes| {
        let mut whole = bytes.to_vec();
        whole.resize(bytes.len() + TAIL, 0);
        let _ = split(&mut whole, bytes.len(), 1420, |_| {});
    });
}
