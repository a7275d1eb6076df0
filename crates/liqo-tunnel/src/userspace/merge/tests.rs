use std::io::IoSlice;

use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::{FLOWS, Merger, Output};
use crate::userspace::split::VNET;
use crate::userspace::split::tests::{checked, cut, frame};

#[derive(Default)]
struct Frames(Vec<Vec<u8>>);

impl Output for Frames {
    fn write(&mut self, pieces: &[IoSlice<'_>]) {
        self.0.push(pieces.iter().flat_map(|piece| piece.to_vec()).collect());
    }
}

fn merged(packets: &[Vec<u8>], uso: bool) -> Vec<Vec<u8>> {
    let (mut arena, mut spans) = (Vec::new(), Vec::new());
    for packet in packets {
        spans.push((arena.len(), packet.len()));
        arena.extend_from_slice(packet);
    }
    let (mut merger, mut frames) = (Merger::new(uso), Frames::default());
    for span in spans {
        merger.push(&mut arena, span, &mut frames);
    }
    merger.flush(&mut arena, &mut frames);
    assert!(merger.flows.is_empty());
    frames.0
}

/// The packets of one flow.
fn packets(v4: bool, tcp: bool, flow: u8, length: usize) -> Vec<Vec<u8>> {
    let payload: Vec<u8> = (0..length).map(|i| (i * 13 + usize::from(flow)) as u8).collect();
    cut(&frame(v4, tcp, 0, &payload, 1000, flow), 1420).iter().map(|packet| checked(packet)).collect()
}

/// What the kernel will make of the frames, in order.
fn unmerged(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    frames.iter().flat_map(|frame| cut(frame, 1420)).map(|packet| checked(&packet)).collect()
}

/// The packets of one flow, by its port.
fn of_flow(packets: &[Vec<u8>], v4: bool, flow: u8) -> Vec<Vec<u8>> {
    let port = if v4 { 21 } else { 41 };
    packets.iter().filter(|packet| (packet[0] >> 4 == 4) == v4 && packet[port] == flow).cloned().collect()
}

#[test]
fn interleaved_flows_still_merge() {
    for (v4, tcp) in [(true, true), (true, false), (false, true), (false, false)] {
        let flows: Vec<_> = (0..FLOWS as u8).map(|flow| packets(v4, tcp, flow, 10_000)).collect();
        let turns: Vec<Vec<u8>> = (0..10).flat_map(|i| flows.iter().map(move |flow| flow[i].clone())).collect();
        let frames = merged(&turns, true);
        assert_eq!(frames.len(), FLOWS);
        for (flow, packets) in flows.iter().enumerate() {
            assert_eq!(&of_flow(&unmerged(&frames), v4, flow as u8), packets);
        }
    }
}

#[test]
fn more_flows_than_places_lose_nothing() {
    let flows: Vec<_> = (0..3 * FLOWS as u8).map(|flow| packets(true, true, flow, 3000)).collect();
    let turns: Vec<Vec<u8>> = (0..3).flat_map(|i| flows.iter().map(move |flow| flow[i].clone())).collect();
    assert_eq!(unmerged(&merged(&turns, true)).len(), turns.len());
}

#[test]
fn a_damaged_packet_stays_alone_and_as_it_was() {
    let mut stream = packets(true, true, 1, 5000);
    *stream[2].last_mut().unwrap() ^= 1;
    let frames = merged(&stream, true);
    assert_eq!(frames.len(), 3);
    assert!(frames[1] == [vec![0; VNET], stream[2].clone()].concat());
}

#[test]
fn what_does_not_follow_starts_anew_and_in_order() {
    let stream = packets(true, true, 1, 5000);
    let gap: Vec<_> = [0, 1, 3, 4].map(|i| stream[i].clone()).to_vec();
    let frames = merged(&gap, true);
    assert_eq!(frames.len(), 2);
    assert_eq!(unmerged(&frames), gap);
}

#[test]
fn a_last_packet_does_not_overtake() {
    let mut stream = packets(true, true, 1, 3500);
    let fin = stream.last_mut().unwrap();
    fin[33] |= 1;
    crate::userspace::packet::put16(fin, 36, 0);
    let checksum = !crate::userspace::packet::fold(crate::userspace::packet::sum(
        &fin[20..],
        crate::userspace::packet::pseudo(fin, 6, fin.len() - 20),
    ));
    crate::userspace::packet::put16(fin, 36, checksum);
    let frames = merged(&stream, true);
    assert_eq!(frames.len(), 2);
    assert_eq!(unmerged(&frames), stream);
}

#[test]
fn udp_stays_apart_where_the_kernel_cannot_cut_it() {
    assert_eq!(merged(&packets(true, false, 1, 5000), false).len(), 5);
}

#[test]
fn other_headers_stay_apart() {
    // Type of service, time to live, window, acknowledgement: a byte of the second packet differs.
    for at in [1, 8, 28, 34] {
        let mut stream = packets(true, true, 1, 2000);
        stream[1][at] ^= 4;
        crate::userspace::packet::finish_ipv4(&mut stream[1], 20);
        crate::userspace::packet::put16(&mut stream[1], 36, 0);
        let checksum = !crate::userspace::packet::fold(crate::userspace::packet::sum(
            &stream[1][20..],
            crate::userspace::packet::pseudo(&stream[1], 6, stream[1].len() - 20),
        ));
        crate::userspace::packet::put16(&mut stream[1], 36, checksum);
        assert_eq!(merged(&stream, true).len(), 2, "byte {at}");
    }
}

proptest! {
    #[test]
    fn fuzz_any_order_of_flows_keeps_every_flow(order in proptest::collection::vec(0..20u8, 0..200)) {
        let flows: Vec<_> = (0..20).map(|flow| packets(flow % 2 == 0, flow % 3 != 0, flow, 40_000)).collect();
        let mut next = vec![0; flows.len()];
        let mut stream = Vec::new();
        for flow in order {
            let packets = &flows[usize::from(flow)];
            let at = &mut next[usize::from(flow)];
            if let Some(packet) = packets.get(*at) {
                stream.push(packet.clone());
                *at += 1;
            }
        }
        let back = unmerged(&merged(&stream, true));
        for (flow, (packets, count)) in flows.iter().zip(next).enumerate() {
            prop_assert_eq!(&of_flow(&back, flow % 2 == 0, flow as u8)[..], &packets[..count]);
        }
    }

    #[test]
    fn fuzz_any_bytes_pass_as_they_are(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 0..20)) {
        let frames = merged(&packets, true);
        prop_assert_eq!(frames.len(), packets.len());
        for (frame, packet) in frames.iter().zip(&packets) {
            prop_assert!(frame[VNET..] == packet[..]);
        }
    }

    #[test]
    fn fuzz_damaged_packets_neither_panic_nor_merge(at in 0..60usize, byte: u8, v4: bool, tcp: bool) {
        let mut stream = packets(v4, tcp, 1, 3000);
        let before = stream[1].clone();
        stream[1][at] = byte;
        let frames = merged(&stream, true);
        // Either the header was damaged where no checksum of the upper layer looks, or the packet is alone, unchanged.
        let alone = frames.iter().any(|frame| frame[VNET..] == stream[1][..]);
        let network = at < if v4 { 20 } else { 40 };
        prop_assert!(stream[1] == before || alone || network, "byte {at}");
    }
}

/// Packets that are alone pass as they are.
#[test]
fn fuzz_recorded_packets() {
    liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "packet", |bytes| {
        let frames = merged(&[bytes.to_vec()], true);
        assert_eq!(frames.len(), 1);
        assert!(frames[0][VNET..] == *bytes);
    });
}
