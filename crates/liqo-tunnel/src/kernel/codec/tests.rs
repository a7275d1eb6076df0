use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use netlink_packet_core::{Emitable, NetlinkMessage};
use netlink_packet_generic::GenlMessage;
use netlink_packet_wireguard::{
    WireguardAttribute, WireguardCmd, WireguardMessage, WireguardPeer, WireguardPeerAttribute, WireguardPeerFlags,
    WireguardTimeSpec,
};

use super::{MOST, Seen, changes, messages, peers};
use crate::plan::Wanted;
use crate::{Peer, PublicKey};

const NEW: Wanted = Wanted { pair: None, before: None };

fn key(byte: u8) -> PublicKey {
    PublicKey::from_bytes([byte; 32])
}

fn nets(list: &[&str]) -> Vec<IpNet> {
    list.iter().map(|net| net.parse().unwrap()).collect()
}

fn peer(byte: u8, allowed: &[&str]) -> Peer {
    Peer { key: key(byte), endpoint: Some("192.0.2.7:5871".parse().unwrap()), allowed: nets(allowed), keepalive: None }
}

fn seen(byte: u8, allowed: &[&str]) -> Seen {
    Seen {
        key: key(byte),
        endpoint: Some("198.51.100.9:40000".parse().unwrap()),
        allowed: nets(allowed),
        keepalive: 0,
        last_handshake: None,
        received: 0,
        sent: 0,
    }
}

/// `linux/wireguard.h`, written out: one peer with an endpoint, a keepalive and two prefixes.
#[test]
fn a_new_peer_is_told_byte_for_byte() {
    let mut wished = peer(7, &["10.1.0.0/16", "fd00:7::/64"]);
    wished.keepalive = Some(Duration::from_secs(25));
    let change = changes(&[], &[], &[wished], &[NEW]);
    let message = WireguardMessage {
        cmd: WireguardCmd::SetDevice,
        attributes: vec![WireguardAttribute::IfName("wg".to_owned()), WireguardAttribute::Peers(change)],
    };
    let mut message = GenlMessage::from_payload(message);
    message.set_resolved_family_id(0x1f);
    let mut message = NetlinkMessage::from(message);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let wanted: Vec<u8> = [
        // nlmsghdr: length, family, flags, sequence, port; genlmsghdr: WG_CMD_SET_DEVICE, version 1.
        &[180, 0, 0, 0, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
        &[1, 1, 0, 0],
        // WGDEVICE_A_IFNAME, WGDEVICE_A_PEERS, peer 0.
        b"\x07\x00\x02\x00wg\0\0",
        &[152, 0, 8, 0x80],
        &[148, 0, 0, 0x80],
        // WGPEER_A_PUBLIC_KEY
        &[36, 0, 1, 0],
        &[7; 32],
        // WGPEER_A_ENDPOINT: sockaddr_in
        &[20, 0, 4, 0, 2, 0, 0x16, 0xef, 192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0],
        // WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL
        &[6, 0, 5, 0, 25, 0, 0, 0],
        // WGPEER_A_FLAGS: WGPEER_F_REPLACE_ALLOWEDIPS
        &[8, 0, 3, 0, 2, 0, 0, 0],
        // WGPEER_A_ALLOWEDIPS: family, address, length
        &[72, 0, 9, 0x80],
        &[28, 0, 0, 0x80, 6, 0, 1, 0, 2, 0, 0, 0, 8, 0, 2, 0, 10, 1, 0, 0, 5, 0, 3, 0, 16, 0, 0, 0],
        &[40, 0, 0, 0x80, 6, 0, 1, 0, 10, 0, 0, 0, 20, 0, 2, 0, 0xfd, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[5, 0, 3, 0, 64, 0, 0, 0],
    ]
    .concat();
    assert_eq!(bytes[16..], wanted[16..]);
    assert_eq!(bytes[..6], [&(wanted.len() as u32).to_le_bytes()[..], &[0x1f, 0]].concat());
}

#[test]
fn what_has_not_changed_is_not_touched() {
    let wished = [peer(7, &["10.1.0.0/16"])];
    let there = [seen(7, &["10.1.0.0/16"])];
    let kept = Wanted { pair: Some(0), before: None };
    // It has roamed; the wish is the old one.
    assert_eq!(changes(&there, &wished, &wished, &[kept]), []);
    // The wish is a new one.
    let mut moved = wished.clone();
    moved[0].endpoint = Some("192.0.2.99:5871".parse().unwrap());
    let change = changes(&there, &wished, &moved, &[kept]);
    assert_eq!(
        change,
        [WireguardPeer(vec![
            WireguardPeerAttribute::PublicKey([7; 32]),
            WireguardPeerAttribute::Endpoint("192.0.2.99:5871".parse().unwrap())
        ])]
    );
}

#[test]
fn a_successor_has_no_prefixes_until_it_has_shaken_hands() {
    let there = [seen(7, &["10.1.0.0/16"])];
    let wished = [peer(8, &["10.1.0.0/16"])];
    let change = changes(&there, &[], &wished, &[Wanted { pair: None, before: Some(0) }]);
    assert_eq!(change.len(), 1, "the old one stays");
    assert!(change[0].0.contains(&WireguardPeerAttribute::AllowedIps(Vec::new())));
    assert!(change[0].0.contains(&WireguardPeerAttribute::PersistentKeepalive(1)));
    let there = [there[0].clone(), seen(8, &[])];
    let change = changes(&there, &wished, &wished, &[Wanted { pair: Some(1), before: None }]);
    assert_eq!(change.len(), 2);
    assert!(change[1].0.contains(&WireguardPeerAttribute::Flags(WireguardPeerFlags::RemoveMe)));
    assert_eq!(change[1].0[0], WireguardPeerAttribute::PublicKey([7; 32]));
}

#[test]
fn a_thousand_peers_are_divided_among_messages() {
    let wished: Vec<Peer> = (0..2000u32)
        .map(|n| {
            let mut bytes = [1; 32];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            Peer { key: PublicKey::from_bytes(bytes), ..peer(1, &["10.1.0.0/16", "10.2.0.0/16"]) }
        })
        .collect();
    let all = changes(&[], &[], &wished, &vec![NEW; wished.len()]);
    let divided = messages(all.clone());
    assert!(divided.len() > 4);
    for message in &divided {
        assert!(message.as_slice().buffer_len() <= MOST);
    }
    assert_eq!(divided.concat(), all);
}

#[test]
fn prefixes_of_one_peer_are_divided_too() {
    let mut wished = peer(7, &[]);
    wished.allowed = (0..3000u32).map(|n| format!("10.{}.{}.0/24", n >> 8, n & 255).parse().unwrap()).collect();
    let all = changes(&[], &[], &[wished.clone()], &[NEW]);
    assert_eq!(all.len(), 6);
    let replacing =
        |peer: &WireguardPeer| peer.0.iter().any(|attribute| matches!(attribute, WireguardPeerAttribute::Flags(_)));
    assert!(replacing(&all[0]) && !all[1..].iter().any(replacing), "only the first replaces");
    // As the kernel tells it back: the same peer several times.
    let told: Vec<WireguardAttribute> = messages(all).into_iter().map(WireguardAttribute::Peers).collect();
    let back = peers(&told);
    assert_eq!((back.len(), &back[0].allowed), (1, &wished.allowed));
}

#[test]
fn what_the_kernel_tells_is_understood() {
    let told = WireguardPeer(vec![
        WireguardPeerAttribute::PublicKey([7; 32]),
        WireguardPeerAttribute::LastHandshake(WireguardTimeSpec { seconds: 1_700_000_000, nano_seconds: 5 }),
        WireguardPeerAttribute::Endpoint("[2001:db8::7]:5871".parse().unwrap()),
        WireguardPeerAttribute::RxBytes(11),
        WireguardPeerAttribute::TxBytes(12),
    ]);
    let never = WireguardPeer(vec![
        WireguardPeerAttribute::PublicKey([8; 32]),
        WireguardPeerAttribute::LastHandshake(WireguardTimeSpec { seconds: 0, nano_seconds: 0 }),
    ]);
    let nobody = WireguardPeer(vec![WireguardPeerAttribute::RxBytes(1)]);
    let seen = peers(&[WireguardAttribute::Peers(vec![told, never, nobody])]);
    assert_eq!(seen.len(), 2);
    let state = seen[0].state();
    assert_eq!((state.received, state.sent), (11, 12));
    assert_eq!(state.last_handshake, Some(SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5)));
    assert_eq!(seen[1].last_handshake, None);
}
