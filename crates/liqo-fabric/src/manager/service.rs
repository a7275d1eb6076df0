//! The gRPC service `ipam`: answers virtual kubelets and `liqoctl`, on every replica.
//!
//! Pods of peers reach the pods of this cluster, the network manager's among them, so every caller shows a token of its
//! ServiceAccount made for this service. A virtual kubelet may ask about the peer of its namespace only, and may export only
//! the addresses that [`Exports`] permits. A caller on the loopback uses a port that the API server forwards after it has
//! checked the caller's rights: `liqoctl`, also that of Liqo 0.8.3, needs no token and may export any address.
//! Who calls is found out before a question is read ([`Identity`]), what the caller may ask afterwards ([`Ipam::admit`]).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use liqo_api::names;
use liqo_front::grpc::{self, Caller, Credentials, Identity, Status, Who};
use liqo_ipam::{Plan, Refusal as Why};
use liqo_ipam_rpc::{Call, Ipam, Refusal, Subject};
use liqo_kube::{
    Cluster,
    access::Callers,
    ledger::Away,
    metrics::{Metric, Samples},
};

use super::{around::Surroundings, exports::Exports, ledger::Ledger, tenants::Tenants};

const CALLS: Metric =
    Metric::counter("liqo_ipam_calls_total", "Calls of the IPAM service, by outcome.", &["call", "outcome"]);
const TURNED_AWAY: Metric = Metric::counter(
    "liqo_ipam_callers_refused_total",
    "Calls of callers without a valid token, and questions the caller has no right to.",
    &[],
);

/// How often each call was answered and refused.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    calls: [(AtomicU64, AtomicU64); 4],
    /// Calls of callers without a valid token, and questions the caller has no right to.
    turned_away: AtomicU64,
}

impl Counts {
    fn add<T>(&self, call: Call, outcome: &Result<T, Refusal>) {
        let (answered, refused) = &self.calls[call as usize];
        if outcome.is_ok() { answered } else { refused }.fetch_add(1, Ordering::Relaxed);
    }

    /// All counts.
    pub(crate) fn samples(&self, samples: &mut Samples) {
        for (call, (answered, refused)) in Call::ALL.into_iter().zip(&self.calls) {
            for (outcome, count) in [("answered", answered), ("refused", refused)] {
                samples.count(&CALLS, &[call.name(), outcome], count.load(Ordering::Relaxed));
            }
        }
        samples.count(&TURNED_AWAY, &[], self.turned_away.load(Ordering::Relaxed));
    }
}

/// The service.
pub(crate) struct Service {
    ledger: Ledger,
    counts: Arc<Counts>,
    callers: Callers,
    tenants: Tenants,
    exports: Exports,
}

impl Service {
    /// The service, as soon as the tenant namespaces are known. `api_server` is the address under which pods of this cluster
    /// reach its API server.
    pub(crate) async fn start(
        cluster: &Cluster,
        ledger: Ledger,
        counts: Arc<Counts>,
        api_server: &str,
        (tenants, surroundings): (Tenants, Arc<Surroundings>),
    ) -> Self {
        tenants.ready().await;
        surroundings.ready().await;
        let callers = Callers::for_audience(cluster.clone(), names::IPAM_AUDIENCE);
        Self { ledger, counts, callers, tenants, exports: Exports::new(cluster.clone(), api_server, surroundings) }
    }

    /// Whether a user may ask about a subject.
    async fn judge(&self, user: &str, subject: Subject<'_>) -> Result<(), Refusal> {
        let tenant = may_ask(user, subject.cluster_id, |tenant| self.tenants.peer_of(tenant))?;
        let Subject { cluster_id: Some(peer), exported: Some(ip) } = subject else { return Ok(()) };
        let plan = self.latest()?;
        if plan.is_reachable_by(peer, ip) {
            return Ok(());
        }
        match self.exports.permits((tenant, peer), ip, &plan).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::Forbidden(format!(
                "address {ip} is in no EndpointSlice of a namespace offloaded to cluster {peer}, or is an address of a node, \
                 of the API server, of a Service or of another peer that no pod of that namespace has: the virtual kubelet may not export it"
            ))),
            Err(error) => {
                Err(Refusal::Unavailable(format!("the API server did not say which endpoints are reflected: {error}")))
            }
        }
    }

    fn latest(&self) -> Result<Arc<Plan>, Refusal> {
        let starting = || Refusal::Unavailable("the address storage has not been read yet".to_owned());
        self.ledger.latest().ok_or_else(starting)
    }

    /// Counts callers that are turned away.
    fn judged<T, E: std::fmt::Display>(&self, outcome: Result<T, E>) -> Result<T, E> {
        if let Err(why) = &outcome {
            self.counts.turned_away.fetch_add(1, Ordering::Relaxed);
            tracing::debug!("{why}");
        }
        outcome
    }

    fn counted<T>(&self, call: Call, outcome: Result<T, Refusal>) -> Result<T, Refusal> {
        self.counts.add(call, &outcome);
        outcome
    }
}

impl Identity for Service {
    async fn identify(&self, shown: Credentials<'_>) -> Result<Who, Status> {
        if is_forwarded(shown.peer.address.ip()) {
            return Ok(Who::Forwarded);
        }
        let remedy = format!(
            "show a ServiceAccount's token with audience {} as \"authorization: Bearer\"",
            names::IPAM_AUDIENCE
        );
        let user = self.judged(grpc::user(&self.callers, shown, &remedy).await)?;
        self.judged(may_ask(&user.name, None, |tenant| self.tenants.peer_of(tenant)))?;
        Ok(Who::User(user))
    }
}

impl Ipam for Service {
    type Caller = Caller;

    async fn admit(&self, caller: &Caller, subject: Subject<'_>) -> Result<(), Refusal> {
        if let Who::User(user) = &caller.who {
            self.judged(self.judge(&user.name, subject).await)?;
        }
        caller.keep();
        Ok(())
    }

    async fn map_endpoint_ip(&self, cluster_id: &str, ip: IpAddr) -> Result<IpAddr, Refusal> {
        let cluster = cluster_id.to_owned();
        let mapped = self.ledger.change(move |plan| match plan.map_endpoint(&cluster, ip) {
            Ok((new, address)) => (new, Ok(address)),
            Err(why) => (plan.clone(), Err(why)),
        });
        let outcome = mapped.await.map_err(away).and_then(|mapped| mapped.map_err(refusal));
        self.counted(Call::MapEndpointIp, outcome)
    }

    async fn unmap_endpoint_ip(&self, cluster_id: &str, ip: IpAddr) -> Result<(), Refusal> {
        let cluster = cluster_id.to_owned();
        let outcome = self.ledger.change(move |plan| (plan.unmap_endpoint(&cluster, ip), ())).await.map_err(away);
        self.counted(Call::UnmapEndpointIp, outcome)
    }

    async fn home_pod_ip(&self, cluster_id: &str, ip: IpAddr) -> Result<IpAddr, Refusal> {
        let outcome = self.latest().and_then(|plan| plan.home_pod_ip(cluster_id, ip).map_err(refusal));
        self.counted(Call::GetHomePodIp, outcome)
    }

    async fn belongs_to_pod_cidr(&self, ip: IpAddr) -> Result<bool, Refusal> {
        let outcome = self.latest().and_then(|plan| plan.belongs_to_pod_network(ip).map_err(refusal));
        self.counted(Call::BelongsToPodCidr, outcome)
    }
}

/// A port forwarded by the API server ends at the loopback of the pod, at exactly these addresses.
fn is_forwarded(address: IpAddr) -> bool {
    address == IpAddr::V4(Ipv4Addr::LOCALHOST) || address == IpAddr::V6(Ipv6Addr::LOCALHOST)
}

/// The tenant namespace of the virtual kubelet `user`, if that user may ask about `peer`. `peer_of` gives the peer of a tenant
/// namespace.
fn may_ask<'u>(
    user: &'u str,
    peer: Option<&str>,
    peer_of: impl Fn(&str) -> Option<String>,
) -> Result<&'u str, Refusal> {
    let account = user.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
    let tenant = account.filter(|(_, name)| *name == names::VIRTUAL_KUBELET).map(|(namespace, _)| namespace);
    match tenant.and_then(|tenant| Some((tenant, peer_of(tenant)?))) {
        None => {
            Err(Refusal::Forbidden(format!("{user} is not the virtual kubelet of a peer and may not ask the IPAM")))
        }
        Some((tenant, own)) if peer.is_none_or(|peer| peer == own) => Ok(tenant),
        Some((_, own)) => Err(Refusal::Forbidden(format!("{user} may ask about cluster {own} only"))),
    }
}

fn away(away: Away) -> Refusal {
    Refusal::Unavailable(away.to_string())
}

/// The refusal as the caller sees it; its kind says whether the same question may succeed later.
fn refusal(why: Why) -> Refusal {
    let text = why.to_string();
    match why {
        Why::UnknownPeer(_) => Refusal::Unknown(text),
        Why::NotYetSeen(_) | Why::NotConfigured => Refusal::NotYet(text),
        Why::ExternalExhausted(_) | Why::PoolsExhausted { .. } | Why::TooManyOfPeer { .. } | Why::TooMany { .. } => {
            Refusal::Exhausted(text)
        }
        _ => Refusal::Invalid(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_outcome() {
        let counts = Counts::default();
        counts.add(Call::MapEndpointIp, &Ok(()));
        counts.add(Call::BelongsToPodCidr, &Err::<(), _>(Refusal::NotYet(String::new())));
        let mut samples = Samples::default();
        counts.samples(&mut samples);
        let text = samples.text();
        assert!(text.contains("{call=\"MapEndpointIP\",outcome=\"answered\"} 1\n"), "{text}");
        assert!(text.contains("{call=\"BelongsToPodCIDR\",outcome=\"refused\"} 1\n"), "{text}");
        assert_eq!(text.lines().filter(|line| line.ends_with(" 0")).count(), 7);
    }

    #[test]
    fn a_virtual_kubelet_asks_about_its_own_peer() {
        let peer_of = |tenant: &str| (tenant == "liqo-tenant-milan").then(|| "milan".to_owned());
        let ask = |user: &str, peer: Option<&str>| may_ask(user, peer, peer_of).map(str::to_owned);
        let (kubelet, milan) =
            ("system:serviceaccount:liqo-tenant-milan:virtual-kubelet", "liqo-tenant-milan".to_owned());
        assert_eq!((ask(kubelet, Some("milan")), ask(kubelet, None)), (Ok(milan.clone()), Ok(milan)));
        assert!(matches!(ask(kubelet, Some("turin")), Err(Refusal::Forbidden(why)) if why.contains("milan only")));
        for user in [
            "system:serviceaccount:liqo-tenant-milan:default",
            "system:serviceaccount:default:virtual-kubelet",
            "system:serviceaccount:virtual-kubelet",
            "virtual-kubelet",
            "milan",
            "",
        ] {
            assert!(matches!(ask(user, Some("milan")), Err(Refusal::Forbidden(_))), "{user}");
        }
    }

    #[test]
    fn only_a_forwarded_port_needs_no_token() {
        let forwarded = |text: &str| is_forwarded(text.parse().unwrap());
        assert!(forwarded("127.0.0.1") && forwarded("::1"));
        assert!(!forwarded("127.0.0.6") && !forwarded("10.244.0.7") && !forwarded("::ffff:127.0.0.1"));
    }
}
