//! The gRPC service `ipam`: answers virtual kubelets and `liqoctl`, on every replica.
//!
//! Pods of peers reach our pods, this one among them: whoever asks shows a token of its ServiceAccount, made for this service. A
//! virtual kubelet asks about the peer of its namespace, and about no other. Who comes by the loopback comes by a port that the
//! API server forwards, and was let in by it: so `liqoctl`, that of Liqo 0.8.3 too, needs no token.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use liqo_api::{meta::label, names};
use liqo_ipam::{Plan, Refusal as Why};
use liqo_ipam_rpc::{Call, Caller, Ipam, Refusal};
use liqo_kube::{Cluster, Store, tokens::Tokens};

use super::ledger::{Away, Ledger};

/// How often each call was answered and refused.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    calls: [(AtomicU64, AtomicU64); 4],
    /// Callers that showed nothing, or asked what they may not.
    turned_away: AtomicU64,
}

impl Counts {
    fn add<T>(&self, call: Call, outcome: &Result<T, Refusal>) {
        let (answered, refused) = &self.calls[call as usize];
        if outcome.is_ok() { answered } else { refused }.fetch_add(1, Ordering::Relaxed);
    }

    /// In the Prometheus text format.
    pub(crate) fn text(&self) -> String {
        let mut text = "# TYPE liqo_ipam_calls_total counter\n".to_owned();
        for (call, (answered, refused)) in Call::ALL.into_iter().zip(&self.calls) {
            for (outcome, count) in [("answered", answered), ("refused", refused)] {
                let count = count.load(Ordering::Relaxed);
                let labels = format!("call=\"{}\",outcome=\"{outcome}\"", call.name());
                text.push_str(&format!("liqo_ipam_calls_total{{{labels}}} {count}\n"));
            }
        }
        let turned_away = self.turned_away.load(Ordering::Relaxed);
        text.push_str(&format!(
            "# TYPE liqo_ipam_callers_refused_total counter\nliqo_ipam_callers_refused_total {turned_away}\n"
        ));
        text
    }
}

/// The service.
pub(crate) struct Service {
    ledger: Ledger,
    counts: Arc<Counts>,
    tokens: Tokens,
    tenants: Store<Namespace>,
}

impl Service {
    /// The service, as soon as it knows who its peers are.
    pub(crate) async fn start(cluster: &Cluster, ledger: Ledger, counts: Arc<Counts>) -> Self {
        let tenants = cluster.watch("").labels(&format!("{}=true", label::TENANT_NAMESPACE)).start(|_| ());
        tenants.ready().await;
        Self { ledger, counts, tokens: Tokens::new(cluster.clone(), names::IPAM_AUDIENCE), tenants }
    }

    fn peer_of(&self, tenant: &str) -> Option<String> {
        self.tenants.get("", tenant)?.labels().get(label::CLUSTER_ID).filter(|id| !id.is_empty()).cloned()
    }

    fn latest(&self) -> Result<Arc<Plan>, Refusal> {
        let starting = || Refusal::Unavailable("the address storage has not been read yet".to_owned());
        self.ledger.latest().ok_or_else(starting)
    }

    fn counted<T>(&self, call: Call, outcome: Result<T, Refusal>) -> Result<T, Refusal> {
        self.counts.add(call, &outcome);
        outcome
    }
}

impl Ipam for Service {
    async fn admit(&self, caller: &Caller, cluster_id: Option<&str>) -> Result<(), Refusal> {
        if caller.address.is_some_and(is_forwarded) {
            return Ok(());
        }
        let outcome = match caller.token.as_deref() {
            None => Err(nobody("no token was shown")),
            Some(token) => match self.tokens.user(token).await {
                Ok(Some(user)) => may_ask(&user, cluster_id, |tenant| self.peer_of(tenant)),
                Ok(None) => Err(nobody("the token shown is none of this cluster, or for another audience")),
                Err(error) => {
                    Err(Refusal::Unavailable(format!("the API server did not say whose token it is: {error}")))
                }
            },
        };
        if let Err(why) = &outcome {
            self.counts.turned_away.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(address = ?caller.address, "{why}");
        }
        outcome
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

fn nobody(why: &str) -> Refusal {
    let audience = names::IPAM_AUDIENCE;
    Refusal::Unauthenticated(format!(
        "{why}: show a ServiceAccount's token with audience {audience} as \"authorization: Bearer\""
    ))
}

/// Whether this user may ask about this peer. `peer_of` gives the peer of a tenant namespace.
fn may_ask(user: &str, peer: Option<&str>, peer_of: impl Fn(&str) -> Option<String>) -> Result<(), Refusal> {
    let account = user.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
    let tenant = account.filter(|(_, name)| *name == names::VIRTUAL_KUBELET).map(|(namespace, _)| namespace);
    match tenant.and_then(peer_of) {
        None => Err(Refusal::Forbidden(format!("{user} is no virtual kubelet of a peer: it may ask nothing here"))),
        Some(own) if peer.is_none_or(|peer| peer == own) => Ok(()),
        Some(own) => Err(Refusal::Forbidden(format!("{user} may ask about cluster {own} only"))),
    }
}

fn away(away: Away) -> Refusal {
    Refusal::Unavailable(away.to_string())
}

/// What a refusal means to whoever asked: is it worth asking again?
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
        let text = counts.text();
        assert!(text.contains("{call=\"MapEndpointIP\",outcome=\"answered\"} 1\n"), "{text}");
        assert!(text.contains("{call=\"BelongsToPodCIDR\",outcome=\"refused\"} 1\n"), "{text}");
        assert_eq!(text.lines().filter(|line| line.ends_with(" 0")).count(), 7);
    }

    #[test]
    fn a_virtual_kubelet_asks_about_its_own_peer() {
        let peer_of = |tenant: &str| (tenant == "liqo-tenant-milan").then(|| "milan".to_owned());
        let ask = |user: &str, peer: Option<&str>| may_ask(user, peer, peer_of);
        let kubelet = "system:serviceaccount:liqo-tenant-milan:virtual-kubelet";
        assert_eq!((ask(kubelet, Some("milan")), ask(kubelet, None)), (Ok(()), Ok(())));
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
