//! Flows that connection tracking took in before there was a rule for them, and that a rule is asked about once they are deleted.
//! Needs root.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "bed/bed.rs"]
mod bed;

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use bed::{Ns, cable};
use liqo_netlink::Flow;

/// The port that a peer sends to.
const NODE_PORT: u16 = 31871;
/// The port that a gateway listens on.
const PORT: u16 = 5871;
/// Time for a packet to cross a cable.
const LIMIT: Duration = Duration::from_secs(5);

/// A node that tracks connections, and a peer.
struct Bed {
    node: Ns,
    peer: Ns,
}

impl Bed {
    fn new() -> Self {
        let (node, peer) = (Ns::new(), Ns::new());
        cable(&node, "eth0", "192.0.2.1/24", &peer, "eth0", "192.0.2.2/24");
        node.run("ip addr add fd00::1/64 dev eth0 nodad");
        peer.run("ip addr add fd00::2/64 dev eth0 nodad");
        node.nft("table inet track { chain come { type filter hook prerouting priority 0; ct state new counter; }; }");
        Self { node, peer }
    }

    fn socket(ns: &Ns, address: &str, port: u16) -> UdpSocket {
        let socket = ns.netns.enter(|| UdpSocket::bind((address, port))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        socket
    }

    /// As kube-proxy does, translates the node port from now on.
    fn translate(&self) {
        self.node.nft(&format!(
            "table inet proxy {{ chain come {{ type nat hook prerouting priority -100; udp dport {NODE_PORT} redirect to :{PORT}; }}; }}"
        ));
    }

    /// Flows of the node to the node port, whose answers are sent from this port.
    fn flows(&self, from: u16) -> Vec<Flow> {
        self.node.kernel.udp_flows(NODE_PORT, from).unwrap()
    }
}

/// Calls `send` until a datagram arrives at `socket`; returns the source of the datagram, or `None` when none arrives within `limit`.
fn read(socket: &UdpSocket, limit: Duration, send: impl Fn()) -> Option<SocketAddr> {
    let (end, mut buffer) = (Instant::now() + limit, [0; 64]);
    while Instant::now() < end {
        send();
        if let Ok((_, from)) = socket.recv_from(&mut buffer) {
            return Some(from);
        }
    }
    None
}

fn a_deleted_flow_is_translated(node_ip: &str, peer_ip: &str) {
    let bed = Bed::new();
    let (gateway, peer) = (Bed::socket(&bed.node, node_ip, PORT), Bed::socket(&bed.peer, peer_ip, PORT));
    let another = Bed::socket(&bed.peer, peer_ip, PORT + 1);
    // Nobody listens: the node says so, and the next call of the sender tells.
    let send = |socket: &UdpSocket, port: u16| drop(socket.send_to(b"hello", (node_ip, port)));
    let deadline = Instant::now() + LIMIT;
    while bed.flows(NODE_PORT).is_empty() && Instant::now() < deadline {
        send(&another, NODE_PORT + 1);
        send(&peer, NODE_PORT);
    }
    bed.translate();
    assert_eq!(read(&gateway, Duration::from_millis(300), || send(&peer, NODE_PORT)), None, "the old decision holds");

    let flows = bed.flows(NODE_PORT);
    let [flow] = flows.as_slice() else { panic!("{flows:?}") };
    let ends = [(flow.original.from, peer_ip, PORT), (flow.original.to, node_ip, NODE_PORT)];
    for (end, ip, port) in ends {
        assert_eq!(end, SocketAddr::new(ip.parse().unwrap(), port));
    }
    assert_eq!((flow.reply.from, flow.reply.to), (flow.original.to, flow.original.from));
    assert!(bed.node.kernel.forget(flow).unwrap());
    assert!(!bed.node.kernel.forget(flow).unwrap(), "nothing is left to delete");
    let from = read(&gateway, LIMIT, || send(&peer, NODE_PORT)).expect("the rule is asked");
    gateway.send_to(b"hello", from).unwrap();
    let answered_from = read(&peer, LIMIT, || ()).unwrap();
    assert_eq!(answered_from.port(), NODE_PORT);

    assert!(bed.flows(NODE_PORT).is_empty());
    assert_eq!(bed.flows(PORT).len(), 1);
    let beside = bed.node.kernel.udp_flows(NODE_PORT + 1, NODE_PORT + 1).unwrap();
    assert_eq!(beside.len(), 1, "flows of others are kept");
}

#[test]
fn a_deleted_flow_is_translated_v4() {
    a_deleted_flow_is_translated("192.0.2.1", "192.0.2.2");
}

#[test]
fn a_deleted_flow_is_translated_v6() {
    a_deleted_flow_is_translated("fd00::1", "fd00::2");
}
