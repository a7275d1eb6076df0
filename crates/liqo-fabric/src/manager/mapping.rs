//! What gateways translate for each peer.
//!
//! Keeps true: there is one `NatMapping` for each peer that has told how it sees us, and it says what the address
//! plan says; whatever else somebody wrote there, or took away, is put right, at start and later.
//!
//! Watches   `NatMapping`, and the address plan.
//! Writes    `NatMapping`.
//! Removes   `NatMapping` of peers that are gone, and all but the oldest of several for one peer.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use kube::ResourceExt;
use liqo_api::{
    meta::label,
    net::{NatMapping, NatMappingSpec},
};
use liqo_kube::{Cluster, KubeError, Queue, Store, drive};
use serde_json::json;

use super::ledger::{Ledger, is_configured};

/// Label of the kind.
const LABEL: &str = "net.liqo.io/natmapping";

/// What shall be done about the mappings of one peer.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
struct Plan {
    remove: Vec<Arc<NatMapping>>,
    write: Option<Write>,
}

#[derive(Clone, Debug, PartialEq)]
enum Write {
    Create(Box<NatMapping>),
    Replace(Arc<NatMapping>, NatMappingSpec),
}

fn plan(peer: &str, wanted: Option<NatMappingSpec>, mut existing: Vec<Arc<NatMapping>>) -> Plan {
    existing.retain(|one| one.metadata.deletion_timestamp.is_none());
    let Some(wanted) = wanted else { return Plan { remove: existing, write: None } };
    existing.sort_by_key(|one| (one.creation_timestamp(), one.uid()));
    let remove = if existing.is_empty() { Vec::new() } else { existing.split_off(1) };
    let write = match existing.pop() {
        Some(current) if current.spec == wanted => None,
        Some(current) => Some(Write::Replace(current, wanted)),
        None => {
            let mut new = NatMapping::new(&format!("natmapping-{peer}"), wanted);
            let labels = [(label::TUNNEL_CLUSTER_ID, peer), (LABEL, "true")];
            new.metadata.labels = Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
            Some(Write::Create(Box::new(new)))
        }
    };
    Plan { remove, write }
}

/// Runs for ever. Keys are cluster IDs.
pub(crate) async fn run(cluster: Cluster, ledger: Ledger, queue: Queue<String>, repairs: Arc<AtomicU64>) {
    let seen = queue.clone();
    let mappings = cluster.watch::<NatMapping>("").labels(&format!("{LABEL}=true")).start(move |one: &NatMapping| {
        seen.push(peer_of(one));
    });
    ledger.until(is_configured).await;
    mappings.ready().await;
    ledger.latest().iter().flat_map(|plan| plan.peers()).for_each(|peer| queue.push(peer.to_owned()));
    drive("nat-mapping", queue, 2, |peer| settle(&cluster, &ledger, &mappings, &repairs, peer)).await;
}

fn peer_of(mapping: &NatMapping) -> String {
    mapping.labels().get(label::TUNNEL_CLUSTER_ID).unwrap_or(&mapping.spec.cluster_id).clone()
}

async fn settle(
    cluster: &Cluster,
    ledger: &Ledger,
    mappings: &Store<NatMapping>,
    repairs: &AtomicU64,
    peer: String,
) -> Result<Option<std::time::Duration>, KubeError> {
    let wanted = ledger.latest().and_then(|plan| plan.nat_mapping(&peer));
    let Plan { remove, write } = plan(&peer, wanted, mappings.filter(|one| peer_of(one) == peer));
    if !remove.is_empty() || write.is_some() {
        repairs.fetch_add(1, Ordering::Relaxed);
    }
    for excess in remove {
        cluster.remove(&*excess).await?;
    }
    match write {
        Some(Write::Create(new)) => drop(cluster.create(&*new).await?),
        Some(Write::Replace(old, spec)) => drop(cluster.put(&*old, false, &[("/spec", json!(spec))]).await?),
        None => {}
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

    use super::*;

    fn spec(addresses: &[(&str, &str)]) -> NatMappingSpec {
        NatMappingSpec {
            cluster_id: "peer".to_owned(),
            cluster_mappings: addresses.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
            ..NatMappingSpec::default()
        }
    }

    fn stored(name: &str, age: i64, spec: NatMappingSpec) -> Arc<NatMapping> {
        let mut one = NatMapping::new(name, spec);
        one.metadata.creation_timestamp = Some(Time(Timestamp::from_second(age).unwrap()));
        Arc::new(one)
    }

    #[test]
    fn what_gateways_read_is_what_is_planned() {
        let wanted = spec(&[("10.96.0.1", "10.98.0.2")]);
        let made = plan("peer", Some(wanted.clone()), vec![]).write;
        let Some(Write::Create(new)) = made else { panic!("{made:?}") };
        let labels: Vec<_> = new.labels().iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(labels, [("clusterID", "peer"), ("net.liqo.io/natmapping", "true")], "as recorded");
        assert_eq!(new.spec, wanted);
        let good = stored("a", 1, wanted.clone());
        assert_eq!(plan("peer", Some(wanted.clone()), vec![Arc::clone(&good)]), Plan::default());
        for bad in [
            spec(&[]),
            spec(&[("10.96.0.1", "10.98.0.3")]),
            spec(&[("10.96.0.1", "10.98.0.2"), ("1.1.1.1", "2.2.2.2")]),
        ] {
            let bad = stored("a", 1, bad);
            let write = plan("peer", Some(wanted.clone()), vec![Arc::clone(&bad)]).write;
            assert_eq!(write, Some(Write::Replace(bad, wanted.clone())));
        }
        let younger = stored("b", 2, wanted.clone());
        let both = vec![Arc::clone(&younger), Arc::clone(&good)];
        assert_eq!(plan("peer", Some(wanted), both).remove, [younger]);
        assert_eq!(plan("peer", None, vec![Arc::clone(&good)]), Plan { remove: vec![good], write: None });
    }
}
