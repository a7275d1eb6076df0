//! What the network under the fabric carries.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsFd,
};

use rustix::net::sockopt;

/// What Ethernet carries, where the kernel does not tell.
const ETHERNET: u16 = 1500;

/// The largest packet, in bytes, that a node may send to another one, or else to where packets without a better way go. Asks
/// the kernel, sends nothing.
pub(crate) fn carries(node: IpAddr, to: Option<IpAddr>) -> u16 {
    // Documentation addresses (RFC 5737, RFC 3849) are routed like any other.
    let anywhere = if node.is_ipv4() { [192, 0, 2, 1].into() } else { [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into() };
    let any: IpAddr = if node.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let ask = || -> io::Result<u32> {
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.connect(SocketAddr::new(to.unwrap_or(anywhere), 9))?;
        Ok(sockopt::ip_mtu(socket.as_fd())?)
    };
    ask().ok().and_then(|mtu| u16::try_from(mtu).ok()).unwrap_or(ETHERNET)
}
