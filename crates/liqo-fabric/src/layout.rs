//! Names, numbers and addresses of the fabric inside a cluster.
//!
//! Interface names, the namespace, ports and the VNI are those of Liqo 0.8.3 (data-plane 7.2–7.8): people
//! know them from documentation, firewalls and CNI settings that skip `liqo*`. How they are used is ours.

use std::net::Ipv4Addr;

/// The network namespace of the tunnel, on gateway nodes.
pub const NAMESPACE: &str = "/run/netns/liqo-netns";
/// The gateway node's end of the pair that leads into the namespace.
pub const VETH_HOST: &str = "liqo.host";
/// The other end, in the namespace.
pub const VETH_GATEWAY: &str = "liqo.gateway";
/// The tunnel, in the namespace.
pub const TUNNEL: &str = "liqo.tunnel";
/// The overlay between the nodes of a cluster.
pub const OVERLAY: &str = "liqo.vxlan";
/// Next hop into the namespace; assigned to no interface.
pub const VETH_GATEWAY_IP: Ipv4Addr = Ipv4Addr::new(169, 254, 100, 1);
/// Next hop out of the namespace; assigned to no interface.
pub const VETH_HOST_IP: Ipv4Addr = Ipv4Addr::new(169, 254, 100, 2);
/// The tunnel's own address, never routed outside the namespace.
pub const TUNNEL_IP: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 1);
/// UDP port of WireGuard.
pub const WIREGUARD_PORT: u16 = 5871;
/// UDP port of the connection check, in the namespace.
pub const PING_PORT: u16 = 12345;
/// UDP port gateways of one cluster watch each other on.
pub const HEARTBEAT_PORT: u16 = 5874;
/// VXLAN network identifier of the overlay.
pub const OVERLAY_VNI: u32 = 18952;
/// UDP port of the overlay.
pub const OVERLAY_PORT: u16 = 4879;
/// Routing table of what leads to peers, on every node.
pub const TABLE_TO_PEERS: u32 = 18952;
/// Routing table of what leads back to the nodes, on gateway nodes.
pub const TABLE_TO_NODES: u32 = 18953;
/// Priority of the rule that looks into [`TABLE_TO_NODES`], for packets that came in by [`VETH_HOST`] and carry
/// [`MARK_FROM_PEERS`]. The link alone is not enough: the reverse-path filter looks up the route back with the outgoing
/// link as input, and would accept packets of a node (to a node port) from the overlay only.
pub const RULE_TO_NODES: u32 = 32763;
/// Priority of the rule that looks into [`TABLE_TO_PEERS`].
pub const RULE_TO_PEERS: u32 = 32764;
/// Mark of packets that have come out of the tunnel's namespace, on gateway nodes.
pub const MARK_FROM_PEERS: u32 = 0x10;
/// The nftables table, in the namespace and on the nodes.
pub const NFT_TABLE: &str = "liqo";

/// The Service peers reach the gateway by.
pub const GATEWAY_SERVICE: &str = "liqo-gateway";
/// Annotation of that Service: address of the node of the active gateway.
pub const GATEWAY_NODE_IP: &str = "net.liqo.io/gatewayNodeIP";
/// Label of gateway pods, `active` or `standby`.
pub const GATEWAY_LABEL: &str = "net.liqo.io/gateway";
/// Secret with the WireGuard key pair.
pub const KEY_SECRET: &str = "wireguard-pubkey";
/// Label of that Secret, with the value `wireguard`.
pub const KEY_LABEL: &str = "net.liqo.io/key";
/// Its entries.
pub const PUBLIC_KEY: &str = "publicKey";
/// Its entries.
pub const PRIVATE_KEY: &str = "privateKey";

/// Where the Service of the own API server is, and the label of its `EndpointSlice`s.
pub const API_SERVER_NAMESPACE: &str = "default";
/// The label.
pub const API_SERVER_SLICES: &str = "kubernetes.io/service-name=kubernetes";

/// Bytes a packet grows by in the tunnel: IPv4, UDP, WireGuard's header and tag (20 + 8 + 16 + 16).
pub const TUNNEL_OVERHEAD_V4: u16 = 60;
/// The same over IPv6.
pub const TUNNEL_OVERHEAD_V6: u16 = 80;
/// Bytes a packet grows by on the overlay: Ethernet, IPv4, UDP, VXLAN (14 + 20 + 8 + 8).
pub const OVERLAY_OVERHEAD: u16 = 50;
