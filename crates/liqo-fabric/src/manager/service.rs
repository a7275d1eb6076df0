//! The gRPC service `ipam`: answers virtual kubelets and `liqoctl`, on every replica.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use liqo_ipam::{Plan, Refusal as Why};
use liqo_ipam_rpc::{Call, Ipam, Refusal};

use super::ledger::{Away, Ledger};

/// How often each call was answered and refused.
#[derive(Debug, Default)]
pub(crate) struct Counts([(AtomicU64, AtomicU64); 4]);

impl Counts {
    fn add<T>(&self, call: Call, outcome: &Result<T, Refusal>) {
        let (answered, refused) = &self.0[call as usize];
        if outcome.is_ok() { answered } else { refused }.fetch_add(1, Ordering::Relaxed);
    }

    /// In the Prometheus text format.
    pub(crate) fn text(&self) -> String {
        let mut text = "# TYPE liqo_ipam_calls_total counter\n".to_owned();
        for (call, (answered, refused)) in Call::ALL.into_iter().zip(&self.0) {
            for (outcome, count) in [("answered", answered), ("refused", refused)] {
                let count = count.load(Ordering::Relaxed);
                let labels = format!("call=\"{}\",outcome=\"{outcome}\"", call.name());
                text.push_str(&format!("liqo_ipam_calls_total{{{labels}}} {count}\n"));
            }
        }
        text
    }
}

/// The service.
pub(crate) struct Service {
    ledger: Ledger,
    counts: Arc<Counts>,
}

impl Service {
    pub(crate) fn new(ledger: Ledger, counts: Arc<Counts>) -> Self {
        Self { ledger, counts }
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

fn away(away: Away) -> Refusal {
    Refusal::Unavailable(away.to_string())
}

/// What a refusal means to whoever asked: is it worth asking again?
fn refusal(why: Why) -> Refusal {
    let text = why.to_string();
    match why {
        Why::UnknownPeer(_) => Refusal::Unknown(text),
        Why::NotYetSeen(_) | Why::NotConfigured => Refusal::NotYet(text),
        Why::ExternalExhausted(_) | Why::PoolsExhausted { .. } => Refusal::Exhausted(text),
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
        assert_eq!(text.lines().filter(|line| line.ends_with(" 0")).count(), 6);
    }
}
