//! Addresses of one cluster as the other one must write them.
//!
//! Where Liqo connects the networks, pods and endpoints have other addresses on the other side. Addresses of the peer's pods are
//! computed from the networks of the tunnel ([`Remapping`]). Addresses of endpoints here are the IPAM's (gRPC) to give, and those
//! of pods where another IPAM connects the networks without a `TunnelEndpoint`: its answers are remembered, objects are forged
//! from memory, and looked at again when an answer comes or changes. While the IPAM does not answer, everything that needs no new
//! answer goes on.
//!
//! Watches   `TunnelEndpoint` of the peer: other networks may mean other addresses.
//! Writes    nothing; asks the IPAM for addresses while they are wanted.
//! Removes   mappings of endpoints nobody wants any more, see [`memory`], also those of an earlier process, see
//!           [`leftovers`]. Those of a peer that goes are the IPAM's own business.

mod asker;
mod leftovers;
mod memory;
mod remapping;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use liqo_api::{
    meta::label,
    names,
    net::{TunnelEndpoint, TunnelEndpointSpec},
};
use liqo_ipam_rpc::IpamClient;
use liqo_kube::{Cluster, Queue, Store, drive, life::Life, reach::Reach};
use tokio::sync::{Notify, watch};

use self::asker::Asker;
use crate::{link::Link, reflect::Pairs};

pub(crate) use asker::Wishes;
pub(crate) use memory::Answer;
pub(crate) use remapping::Remapping;

/// Questions to the IPAM at the same time, for each way.
const WORKERS: usize = 8;

/// What becomes of addresses on their way to the other cluster and back.
#[derive(Clone)]
pub(crate) enum Addresses {
    /// They are kept to ourselves.
    Hidden,
    /// They are the same on both sides.
    Same(Arc<Elsewhere>),
    /// Liqo connects the networks, and may have remapped them.
    Translated(Translated),
}

/// Where pods of the other cluster may be, if nobody translates their addresses: the other cluster says which addresses they have,
/// and Services of this cluster send traffic there.
#[derive(Debug)]
pub(crate) struct Elsewhere {
    /// Networks of the pods of the other cluster; none: they are not known.
    pub(crate) networks: Vec<IpNet>,
    /// Addresses that are not of this cluster.
    pub(crate) outside: Reach,
}

impl Elsewhere {
    fn answer(&self, ip: IpAddr) -> Answer {
        let is_theirs = self.networks.is_empty() || self.networks.iter().any(|network| network.contains(&ip));
        if is_theirs && self.outside.check(ip).is_ok() { Answer::Known(ip) } else { Answer::Failed }
    }
}

/// The two ways of addresses.
#[derive(Clone)]
pub(crate) struct Translated {
    /// Endpoints here, for the peer.
    out: Arc<Asker>,
    /// Pods of the peer, for us, where there is no tunnel.
    home: Arc<Asker>,
    /// Pods of the peer, for us, where there is a tunnel.
    remapping: watch::Sender<Remapping>,
}

impl Addresses {
    /// Addresses translated by the IPAM at `server`.
    ///
    /// # Errors
    /// A text that says why `server` is no address.
    pub(crate) fn translated(server: &str, peer: &str) -> Result<Self, String> {
        let ipam = IpamClient::new(server).map_err(|error| format!("--ipam-server: {error}"))?;
        let ipam = ipam.with_deadline(asker::DEADLINE).with_token(format!(
            "{}/{}",
            names::IPAM_TOKEN_DIRECTORY,
            names::IPAM_TOKEN_FILE
        ));
        let out = Arc::new(Asker::out(ipam.clone(), peer));
        let home = Arc::new(Asker::home(ipam, peer));
        Ok(Self::Translated(Translated { out, home, remapping: watch::Sender::default() }))
    }

    /// Whether they are kept to ourselves.
    pub(crate) fn are_hidden(&self) -> bool {
        matches!(self, Self::Hidden)
    }

    /// How endpoints here look there, for one kind of objects in one namespace. Whoever waits for an answer is
    /// named in the queue when it comes.
    pub(crate) fn endpoints(&self, scope: &str, queue: &Queue<String>) -> View {
        match self {
            Self::Translated(both) => View::Translated(Wishes::new(&both.out, scope, queue)),
            Self::Hidden | Self::Same(_) => View::Same,
        }
    }

    /// How pods there look here, likewise; changes with [`Addresses::remappings`], too.
    pub(crate) fn pods(&self, scope: &str, queue: &Queue<String>) -> View {
        match self {
            Self::Translated(both) => {
                let (remapping, wishes) = (both.remapping.subscribe(), Wishes::new(&both.home, scope, queue));
                View::Remapped { remapping, wishes }
            }
            Self::Same(elsewhere) => View::Elsewhere(Arc::clone(elsewhere)),
            Self::Hidden => View::Same,
        }
    }

    /// The remapping of the peer's pod network, as it changes; `None` where nothing is remapped.
    pub(crate) fn remappings(&self) -> Option<watch::Receiver<Remapping>> {
        match self {
            Self::Translated(both) => Some(both.remapping.subscribe()),
            Self::Hidden | Self::Same(_) => None,
        }
    }

    /// Starts to ask, and to clear up what an earlier process left.
    pub(crate) fn start(&self, life: &Life, home: &Cluster, link: &Arc<Link>, pairs: &Arc<Pairs>) {
        let Self::Translated(Translated { out, home: back, remapping }) = self else { return };
        for (name, asker) in [("endpoint-addresses", out), ("pod-addresses", back)] {
            let (asker, queue) = (Arc::clone(asker), asker.queue().clone());
            life.spawn(name, async move { drive(name, queue, WORKERS, |ip| asker.settle(ip)).await });
        }
        let both = [Arc::clone(out), Arc::clone(back)];
        life.metrics(move |samples| both.iter().for_each(|asker| asker.samples(samples)));
        let askers = [Arc::clone(out), Arc::clone(back)];
        life.spawn("networks", follow(watch(home, link), askers, remapping.clone()));
        let leftovers = leftovers::Leftovers {
            home: home.clone(),
            peer: link.there.cluster_id.clone(),
            asker: Arc::clone(out),
            pairs: Arc::clone(pairs),
        };
        life.spawn("leftover-addresses", leftovers.run());
    }
}

/// How addresses look on the other side, for one kind of objects in one namespace.
pub(crate) enum View {
    /// As they are.
    Same,
    /// As they are, if they can be of the other cluster.
    Elsewhere(Arc<Elsewhere>),
    /// As the IPAM says.
    Translated(Wishes),
    /// As the networks of the tunnel say; without a tunnel, as the IPAM says.
    Remapped {
        /// What the networks of the tunnel say.
        remapping: watch::Receiver<Remapping>,
        /// What the IPAM is asked for.
        wishes: Wishes,
    },
}

impl View {
    /// What is known about an address.
    pub(crate) fn answer(&self, ip: IpAddr) -> Answer {
        match self {
            Self::Same => Answer::Known(ip),
            Self::Elsewhere(elsewhere) => elsewhere.answer(ip),
            Self::Translated(wishes) => wishes.answer(ip),
            Self::Remapped { remapping, wishes } => {
                let remapping = *remapping.borrow();
                remapping.answer(ip).unwrap_or_else(|| wishes.answer(ip))
            }
        }
    }

    /// The one that translates.
    pub(crate) fn wishes(&self) -> Option<&Wishes> {
        match self {
            Self::Same | Self::Elsewhere(_) => None,
            Self::Translated(wishes) | Self::Remapped { wishes, .. } => Some(wishes),
        }
    }

    /// From now on the object `name` wants exactly these addresses.
    pub(crate) fn set(&self, name: &str, wanted: BTreeSet<IpAddr>) {
        match self {
            Self::Same | Self::Elsewhere(_) => {}
            Self::Translated(wishes) => wishes.set(name, wanted),
            Self::Remapped { remapping, wishes } => {
                let asks = *remapping.borrow() == Remapping::Absent;
                wishes.set(name, if asks { wanted } else { BTreeSet::new() });
            }
        }
    }
}

struct Tunnels {
    store: Store<TunnelEndpoint>,
    news: Arc<Notify>,
}

fn watch(home: &Cluster, link: &Link) -> Tunnels {
    let news = Arc::new(Notify::new());
    let selector = format!("{}={}", label::TUNNEL_CLUSTER_ID, link.there.cluster_id);
    let store = home.watch::<TunnelEndpoint>(&link.tenant_namespace).labels(&selector).start({
        let news = Arc::clone(&news);
        move |_| news.notify_one()
    });
    Tunnels { store, news }
}

/// Doubts every answer, and remaps pods anew, whenever the networks of a tunnel have changed.
async fn follow(tunnels: Tunnels, askers: [Arc<Asker>; 2], remapping: watch::Sender<Remapping>) {
    tunnels.store.ready().await;
    let mut before = None;
    loop {
        let all = tunnels.store.all();
        let now: BTreeMap<_, _> = all.iter().map(|one| (one.metadata.uid.clone(), networks(&one.spec))).collect();
        if before.as_ref() != Some(&now) {
            tracing::debug!(tunnels = now.len(), "networks of the tunnel known or changed");
            askers.iter().for_each(|asker| asker.doubt());
            // A tunnel that is replaced may still be shown beside its successor.
            let current = all.iter().min_by_key(|one| (one.metadata.deletion_timestamp.is_some(), &one.metadata.name));
            remapping.send_replace(current.map_or(Remapping::Absent, |tunnel| Remapping::of(&tunnel.spec)));
            before = Some(now);
        }
        tunnels.news.notified().await;
    }
}

/// What of a tunnel translations are made from.
fn networks(spec: &TunnelEndpointSpec) -> [String; 8] {
    let TunnelEndpointSpec {
        local_pod_cidr,
        local_nat_pod_cidr,
        local_external_cidr,
        local_nat_external_cidr,
        remote_pod_cidr,
        remote_nat_pod_cidr,
        remote_external_cidr,
        remote_nat_external_cidr,
        ..
    } = spec;
    [
        local_pod_cidr,
        local_nat_pod_cidr,
        local_external_cidr,
        local_nat_external_cidr,
        remote_pod_cidr,
        remote_nat_pod_cidr,
        remote_external_cidr,
        remote_nat_external_cidr,
    ]
    .map(String::clone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_of_the_other_cluster_are_in_its_networks() {
        let in_networks = |networks: &[&str], ip: &str| {
            let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
            Elsewhere { networks, outside: Reach::default() }.answer(ip.parse().unwrap())
        };
        for (networks, ip, is_believed) in [
            (&[][..], "10.244.0.9", true),
            (&[], "127.0.0.1", false),
            (&["10.9.0.0/16"], "10.9.1.2", true),
            (&["10.9.0.0/16"], "10.244.0.9", false),
            (&["10.8.0.0/16", "10.9.0.0/16"], "10.9.1.2", true),
        ] {
            let answer = in_networks(networks, ip);
            assert_eq!(matches!(answer, Answer::Known(_)), is_believed, "{networks:?} {ip}");
        }
    }
}
