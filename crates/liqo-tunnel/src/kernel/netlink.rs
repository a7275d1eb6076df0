//! Requests and answers: generic netlink for WireGuard, route netlink for the device.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkDeserializable, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_generic::GenlMessage;
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_wireguard::{WireguardAttribute, WireguardCmd, WireguardMessage};
use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};

use crate::Error;

/// Makes, raises and removes the device. Works in the namespace of the thread that made it.
pub(super) struct Link(Socket);

/// Reads and sets its keys and peers. Works in the namespace of the thread that made it, from any thread.
pub(super) struct Wireguard {
    socket: Socket,
    family: u16,
}

impl Link {
    pub(super) fn new() -> Result<Self, Error> {
        Ok(Self(open(NETLINK_ROUTE)?))
    }

    /// Makes a device and moves it; its UDP socket stays where it was made.
    pub(super) fn create(&mut self, name: &str, mtu: u32, to: BorrowedFd<'_>) -> Result<(), Error> {
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        let made = request(&self.0, RouteNetlinkMessage::NewLink(created(name, mtu)), flags);
        made.map_err(|error| match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => Error::NoKernel(error.to_string()),
            _ => Error::io(format!("make the interface `{name}`"), error),
        })?;
        let mut moved = LinkMessage::default();
        moved.attributes = vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::NetNsFd(to.as_raw_fd())];
        request(&self.0, RouteNetlinkMessage::SetLink(moved), NLM_F_REQUEST | NLM_F_ACK).map(drop).map_err(|error| {
            let _ = self.remove(name);
            Error::io(format!("move the interface `{name}` into its namespace"), error)
        })
    }

    pub(super) fn up(&mut self, name: &str) -> Result<(), Error> {
        let mut up = LinkMessage::default();
        up.header.flags = LinkFlags::Up;
        up.header.change_mask = LinkFlags::Up;
        up.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        let answer = request(&self.0, RouteNetlinkMessage::SetLink(up), NLM_F_REQUEST | NLM_F_ACK);
        answer.map(drop).map_err(|error| Error::io(format!("bring the interface `{name}` up"), error))
    }

    pub(super) fn remove(&mut self, name: &str) -> Result<(), Error> {
        let mut gone = LinkMessage::default();
        gone.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        match request(&self.0, RouteNetlinkMessage::DelLink(gone), NLM_F_REQUEST | NLM_F_ACK) {
            Err(error) if error.raw_os_error() != Some(libc::ENODEV) => {
                Err(Error::io(format!("remove the interface `{name}`"), error))
            }
            _ => Ok(()),
        }
    }
}

/// The device as it is asked for.
fn created(name: &str, mtu: u32) -> LinkMessage {
    let mut made = LinkMessage::default();
    made.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Wireguard)]),
    ];
    made
}

impl Wireguard {
    /// Looks the family up, whose number the kernel chose when it started.
    pub(super) fn new() -> Result<Self, Error> {
        let socket = open(NETLINK_GENERIC)?;
        let ask =
            GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas: vec![GenlCtrlAttrs::FamilyName("wireguard".to_owned())] };
        let answers = request(&socket, GenlMessage::from_payload(ask), NLM_F_REQUEST | NLM_F_ACK)
            .map_err(|error| Error::NoKernel(error.to_string()))?;
        let family = answers.iter().flat_map(|answer| &answer.payload.nlas).find_map(|attribute| match attribute {
            GenlCtrlAttrs::FamilyId(id) => Some(*id),
            _ => None,
        });
        let family = family.ok_or_else(|| Error::NoKernel("its netlink family has no number".to_owned()))?;
        Ok(Self { socket, family })
    }

    /// Everything the kernel tells of a device.
    pub(super) fn get(&mut self, name: &str) -> Result<Vec<WireguardAttribute>, Error> {
        let ask = self.message(WireguardCmd::GetDevice, name, Vec::new());
        let answers = request(&self.socket, ask, NLM_F_REQUEST | NLM_F_DUMP)
            .map_err(|error| Error::io(format!("read the tunnel `{name}`"), error))?;
        Ok(answers.into_iter().flat_map(|answer| answer.payload.attributes).collect())
    }

    /// Changes what the attributes name.
    pub(super) fn set(&mut self, name: &str, attributes: Vec<WireguardAttribute>) -> Result<(), Error> {
        let change = self.message(WireguardCmd::SetDevice, name, attributes);
        let answer = request(&self.socket, change, NLM_F_REQUEST | NLM_F_ACK);
        answer.map(drop).map_err(|error| Error::io(format!("change the tunnel `{name}`"), error))
    }

    fn message(
        &self,
        cmd: WireguardCmd,
        name: &str,
        attributes: Vec<WireguardAttribute>,
    ) -> GenlMessage<WireguardMessage> {
        let attributes = std::iter::once(WireguardAttribute::IfName(name.to_owned())).chain(attributes).collect();
        let mut message = GenlMessage::from_payload(WireguardMessage { cmd, attributes });
        message.set_resolved_family_id(self.family);
        message
    }
}

fn open(protocol: isize) -> Result<Socket, Error> {
    let open = || {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(socket)
    };
    open().map_err(|error: io::Error| Error::io("open a netlink socket", error))
}

/// Sends one message and takes all its answers.
fn request<M>(socket: &Socket, message: M, flags: u16) -> io::Result<Vec<M>>
where
    M: NetlinkSerializable + NetlinkDeserializable,
    NetlinkPayload<M>: From<M>,
{
    let mut message = NetlinkMessage::from(message);
    message.header.flags = flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let answer = NetlinkMessage::<M>::deserialize(rest).map_err(io::Error::other)?;
            let length = (answer.header.length as usize).next_multiple_of(4);
            match answer.payload {
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(answers),
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                _ => {}
            }
            if length == 0 {
                return Err(io::Error::other("the kernel answered with an empty message"));
            }
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage};
    use netlink_packet_route::RouteNetlinkMessage;

    use super::created;

    /// What `ip link add name liqo.tunnel mtu 1420 type wireguard` sends, but for the order of attributes.
    #[test]
    fn the_device_is_asked_for_byte_for_byte() {
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewLink(created("liqo.tunnel", 1420)));
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let wanted: Vec<u8> = [
            // Length, RTM_NEWLINK, flags, sequence, port; then the header of the link: all zeros.
            &[76, 0, 0, 0, 16, 0, 0x05, 0x06, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &[0; 16],
            // IFLA_IFNAME, IFLA_MTU.
            b"\x10\x00\x03\x00liqo.tunnel\x00",
            &[8, 0, 4, 0, 0x8c, 0x05, 0, 0],
            // IFLA_LINKINFO with IFLA_INFO_KIND.
            &[20, 0, 18, 0],
            b"\x0e\x00\x01\x00wireguard\0\0\0",
        ]
        .concat();
        assert_eq!(bytes, wanted);
    }
}
