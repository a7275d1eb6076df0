//! Doing one change. What is already so, or already gone, is no failure.

use std::fs::File;
use std::os::fd::AsFd as _;

use rustix::io::Errno;

use crate::change::Change;
use crate::error::{Error, Result};
use crate::kernel::{Kernel, refused};
use crate::nft::{self, Transaction};
use crate::rt::neighbour::Table;
use crate::rt::{address, link, neighbour, route, rule};
use crate::socket::Refusal;
use crate::state::{Fdb, Link, LinkKind, Neighbour, Realm};
use crate::sysctl;

type Answer = std::result::Result<(), Refusal>;

pub(super) fn act(kernel: &Kernel, realm: &Realm, change: &Change) -> Result<()> {
    let socket = kernel.route();
    let answer = match change {
        Change::AddLink(name, wanted) => return add_link(kernel, name, wanted),
        Change::SetSysctl(path, value) => return sysctl::write(kernel.netns(), path, value),
        Change::SetLink(name, wanted) => kernel.found(name).and_then(|found| link::set(socket, &found, wanted)),
        Change::RemoveLink(name) => gone(kernel.index(name).and_then(|index| link::remove(socket, index))),
        Change::AddAddress(it) => kernel.index(&it.dev).and_then(|index| address::add(socket, index, it.net)),
        Change::RemoveAddress(it) => {
            gone(kernel.index(&it.dev).and_then(|index| address::remove(socket, index, it.net)))
        }
        Change::SetNeighbour(Neighbour { dev, ip, mac }) => {
            kernel.index(dev).and_then(|index| neighbour::set(socket, Table::Neighbours, index, *ip, *mac))
        }
        Change::RemoveNeighbour(Neighbour { dev, ip, mac }) => {
            gone(kernel.index(dev).and_then(|index| neighbour::remove(socket, Table::Neighbours, index, *ip, *mac)))
        }
        Change::SetFdb(Fdb { dev, mac, dst }) => {
            kernel.index(dev).and_then(|index| neighbour::set(socket, Table::Forwarding, index, *dst, *mac))
        }
        Change::RemoveFdb(Fdb { dev, mac, dst }) => {
            gone(kernel.index(dev).and_then(|index| neighbour::remove(socket, Table::Forwarding, index, *dst, *mac)))
        }
        Change::Transact(it) => transact(kernel, it),
        Change::RemoveTable(family, name) => gone(transact(kernel, &Transaction::removal(*family, name))),
        Change::SetRoute(it) => kernel.index(&it.dev).and_then(|index| route::set(socket, index, realm.protocol, it)),
        Change::RemoveRoute(it) if it.dev.is_empty() => gone(route::remove(socket, 0, it)),
        Change::RemoveRoute(it) => gone(kernel.index(&it.dev).and_then(|index| route::remove(socket, index, it))),
        Change::AddRule(it) => there(rule::add(socket, realm.protocol, it)),
        Change::RemoveRule(it) => gone(rule::remove(socket, realm.protocol, it)),
    };
    answer.map_err(|no| refused(format!("{change}"), no))
}

fn add_link(kernel: &Kernel, name: &str, wanted: &Link) -> Result<()> {
    let doing = || format!("adding link {name}");
    let netns = match &wanted.kind {
        LinkKind::Veth { peer_netns: Some(path), .. } => {
            Some(File::open(path).map_err(|error| Error::new(doing(), error).said(Some(path.display().to_string())))?)
        }
        _ => None,
    };
    let socket = kernel.route();
    there(link::add(socket, name, wanted, netns.as_ref().map(|netns| netns.as_fd())))
        .and_then(|()| link::set(socket, &kernel.found(name)?, wanted))
        .map_err(|no| refused(doing(), no))
}

/// Another transaction that runs at the same moment makes the kernel begin anew by itself.
fn transact(kernel: &Kernel, transaction: &Transaction) -> Answer {
    let mut writer = kernel.netfilter().writer(1 << 16);
    nft::write(&mut writer, transaction);
    kernel.netfilter().exchange(&writer, |_| ()).map_err(|no| {
        let place = no.sequence.wrapping_sub(writer.first());
        let said = no.said.map(|said| format!(": {said}")).unwrap_or_default();
        Refusal { said: Some(format!("at message {place} of the transaction{said}")), ..no }
    })
}

/// What is there already is fine.
fn there(answer: Answer) -> Answer {
    match answer {
        Err(Refusal { errno: Errno::EXIST, .. }) => Ok(()),
        other => other,
    }
}

/// What is gone already is fine.
fn gone(answer: Answer) -> Answer {
    match answer {
        Err(Refusal { errno: Errno::NOENT | Errno::SRCH | Errno::NODEV | Errno::ADDRNOTAVAIL, .. }) => Ok(()),
        other => other,
    }
}
