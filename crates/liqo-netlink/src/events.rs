//! Notice of changes made by others.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::unix::AsyncFd;

use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::nft;
use crate::rt::{address, link, neighbour, route, rule};
use crate::socket::{Family, Socket};
use crate::state::Realm;
use crate::sys;
use crate::wire::{Message, messages};

/// Multicast groups of rtnetlink: links, neighbours, addresses, routes and rules of both versions (`RTNLGRP_*`).
const ROUTE_GROUPS: u32 = group(1) | group(3) | group(5) | group(7) | group(8) | group(9) | group(11) | group(19);
/// `NFNLGRP_NFTABLES`.
const NFTABLES_GROUP: u32 = group(7);

const fn group(number: u32) -> u32 {
    1 << (number - 1)
}

/// Notice that somebody else may have changed something of a realm. Changes that were asked for through the same
/// [`Kernel`] are not told, nor are those of anything outside the realm.
#[derive(Debug)]
pub struct Events {
    route: AsyncFd<OwnedFd>,
    netfilter: AsyncFd<OwnedFd>,
    scope: Scope,
    buffer: Vec<u8>,
}

/// What is told.
#[derive(Debug)]
struct Scope {
    realm: Realm,
    /// Links of the realm, now or before.
    indexes: BTreeSet<u32>,
    /// Who is ourselves.
    ports: [u32; 2],
}

impl Events {
    pub(crate) fn open(kernel: &Kernel, realm: &Realm) -> Result<Self> {
        let failed = |error| Error::new("listening to changes of the network", error);
        let open = || {
            let route = Socket::open(Family::Route, ROUTE_GROUPS)?;
            std::io::Result::Ok((route, Socket::open(Family::Netfilter, NFTABLES_GROUP)?))
        };
        let (route, netfilter) = kernel.netns().enter(open)?.map_err(failed)?;
        let mut scope = Scope {
            realm: realm.clone(),
            indexes: BTreeSet::new(),
            ports: [kernel.route().port(), kernel.netfilter().port()],
        };
        for name in &realm.links {
            scope.indexes.extend(kernel.link(name)?.map(|link| link.index));
        }
        Ok(Self {
            route: sys::readable(route.into_fd()).map_err(failed)?,
            netfilter: sys::readable(netfilter.into_fd()).map_err(failed)?,
            scope,
            buffer: vec![0; 64 * 1024],
        })
    }

    /// Waits until something may have changed. All that happens between two calls is told by the next one, once. May
    /// be dropped and called again: nothing is lost.
    pub async fn changed(&mut self) -> Result<()> {
        let failed = |error| Error::new("listening to changes of the network", error);
        loop {
            let (mut ready, of_route) = tokio::select! {
                ready = self.route.readable() => (ready.map_err(failed)?, true),
                ready = self.netfilter.readable() => (ready.map_err(failed)?, false),
            };
            let mut told = false;
            loop {
                match recv(ready.get_inner(), &mut self.buffer[..], RecvFlags::DONTWAIT) {
                    Ok((length, _)) => {
                        for message in messages(&self.buffer[..length]) {
                            told |= self.scope.told(message, of_route);
                        }
                    }
                    // Notices were lost: anything may have changed.
                    Err(Errno::NOBUFS) => told = true,
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    Err(errno) => return Err(failed(std::io::Error::from(errno))),
                }
            }
            ready.clear_ready();
            if told {
                return Ok(());
            }
        }
    }
}

impl Scope {
    fn told(&mut self, message: Message<'_>, of_route: bool) -> bool {
        if !of_route {
            let ours = self.realm.table.as_ref();
            return !self.ports.contains(&message.port)
                && ours.is_some_and(|(family, name)| nft::notice(message, *family, name));
        }
        // Learnt from our own changes too.
        if let Some((index, name)) = link::notice(message)
            && self.realm.links.contains(&name)
        {
            self.indexes.insert(index);
        }
        if self.ports.contains(&message.port) {
            return false;
        }
        let on_ours = link::notice(message).map(|(index, _)| index);
        let on_ours = on_ours.or(address::notice(message)).or(neighbour::notice(message));
        on_ours.is_some_and(|index| self.indexes.contains(&index))
            || route::notice(message)
                .is_some_and(|(table, protocol)| self.realm.tables.contains(&table) || protocol == self.realm.protocol)
            || rule::notice(message) == Some(self.realm.protocol)
    }
}
