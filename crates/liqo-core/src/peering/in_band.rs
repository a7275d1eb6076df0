//! The objects an in-band peering consists of: nobody can exchange them before the tunnel exists, so whoever may write in
//! both clusters writes what the controllers of both would write.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use liqo_api::{
    ClusterIdentity,
    discovery::{ForeignCluster, ForeignClusterSpec, PeeringEnabled, PeeringType},
    meta::label,
    net::{NetworkConfig, NetworkConfigSpec},
};
use serde_json::json;

use super::{Plan, id_of, is_leaving, labels, name};
use crate::naming;

/// Where a Service is found inside its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Cluster IP of the Service, or the address to which the other cluster maps the cluster IP.
    pub ip: IpAddr,
    /// TCP port of the Service.
    pub port: u16,
}

/// What to do about the tenant namespace of a peer.
#[derive(Debug, PartialEq, Eq)]
pub enum Tenant {
    /// Use the namespace of this name, which exists.
    Use(String),
    /// Wait until the earlier namespace of this name is deleted.
    Wait(String),
    /// Create a namespace of this name.
    Create(String),
}

/// What to do about the tenant namespace of `peer`, given the namespaces that are labelled for the peer.
///
/// # Errors
/// A sentence, when several namespaces are labelled.
pub fn tenant(labelled: &[Namespace], peer: &ClusterIdentity) -> Result<Tenant, String> {
    match labelled {
        [] => Ok(Tenant::Create(naming::tenant_namespace(peer))),
        [one] if one.metadata.deletion_timestamp.is_some() => Ok(Tenant::Wait(name(&one.metadata))),
        [one] => Ok(Tenant::Use(name(&one.metadata))),
        several => {
            let names: Vec<_> = several.iter().map(|one| name(&one.metadata)).collect();
            let (names, key) = (names.join(", "), label::CLUSTER_ID);
            Err(format!("the namespaces {names} all carry the label {key} of this cluster: delete all but one"))
        }
    }
}

/// What a cluster tells the cluster that `spec` names about its networks (see [`super::networks`]): the original, in the tenant
/// namespace of that cluster.
pub fn original(spec: NetworkConfigSpec, namespace: &str) -> NetworkConfig {
    let mut original = NetworkConfig::new(&naming::unique_name(&spec.cluster), spec);
    let metadata = &mut original.metadata;
    metadata.namespace = Some(namespace.to_owned());
    metadata.labels = labels([(label::REPLICATION, "true"), (label::REMOTE_ID, &original.spec.cluster.cluster_id)]);
    original
}

/// The copy of an original of the cluster `from` in the cluster that the original is addressed to, as the replicator makes
/// copies: the replicator finds this copy and takes the copy over.
pub fn copy(original: &NetworkConfig, from: &ClusterIdentity, namespace: &str) -> NetworkConfig {
    let mut copy = NetworkConfig::new(&name(&original.metadata), original.spec.clone());
    copy.metadata.namespace = Some(namespace.to_owned());
    copy.metadata.labels = labels([
        (label::REPLICATION, "false"),
        (label::REPLICATED, "true"),
        (label::ORIGIN_ID, &from.cluster_id),
        (label::REMOTE_ID, &original.spec.cluster.cluster_id),
    ]);
    copy
}

/// The URLs under which a peer is reached through the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Urls {
    auth: String,
    proxy: String,
}

impl Urls {
    /// URLs of the authentication service and of the proxy, whose addresses are those that the other cluster uses.
    pub fn of(auth: Address, proxy: Address) -> Self {
        let host = |address: Address| SocketAddr::new(address.ip, address.port).to_string();
        Self { auth: format!("https://{}", host(auth)), proxy: format!("http://{}", host(proxy)) }
    }
}

/// Whether a cluster that knows the peers `known` may peer in-band with `peer`; gives the `ForeignCluster` of the peer, if there is
/// one.
///
/// # Errors
/// A sentence: a peering of another type exists, or the name is taken.
pub fn check<'a>(known: &'a [ForeignCluster], peer: &ClusterIdentity) -> Result<Option<&'a ForeignCluster>, String> {
    let called = &peer.cluster_name;
    let same_id = known.iter().find(|one| id_of(one) == peer.cluster_id);
    let same_name = known.iter().find(|one| name(&one.metadata) == *called);
    // One whose ID has not been learnt yet may be the peer.
    if let Some(one) = same_id.or(same_name.filter(|one| id_of(one).is_empty())) {
        let (is, wanted) = (one.spec.peering_type, PeeringType::InBand);
        if is != wanted && !is_leaving(one) {
            return Err(format!(
                "a peering of type {is:?} already exists towards remote cluster {called:?}, cannot be changed to \
                 {wanted:?}: end it first with `liqoctl unpeer out-of-band {}`, on both clusters",
                name(&one.metadata)
            ));
        }
        return Ok(Some(one));
    }
    match same_name {
        Some(other) => Err(format!(
            "the name {called:?} of the remote cluster belongs to another cluster (cluster ID {}) already",
            id_of(other)
        )),
        None => Ok(None),
    }
}

/// What to write so that `peer` is known in-band. No resources are asked for yet: a peer that hears of such a wish before it knows
/// this cluster would take the peering for an out-of-band one.
///
/// # Errors
/// As [`check`].
pub fn foreign_cluster(known: &[ForeignCluster], peer: &ClusterIdentity, urls: &Urls) -> Result<Plan, String> {
    let Some(one) = check(known, peer)? else {
        return Ok(Plan::Create(Box::new(new(peer, urls))));
    };
    if is_leaving(one) {
        return Ok(Plan::Wait(name(&one.metadata)));
    }
    let identity = one.spec.cluster_identity.clone().unwrap_or_default();
    let known_as = Some(identity.cluster_name).filter(|name| !name.is_empty()).unwrap_or(peer.cluster_name.clone());
    let patch = json!({
        "metadata": {"resourceVersion": one.metadata.resource_version},
        "spec": {
            "clusterIdentity": {"clusterID": peer.cluster_id, "clusterName": known_as},
            "foreignAuthUrl": urls.auth,
            "foreignProxyUrl": urls.proxy,
            "insecureSkipTLSVerify": one.spec.insecure_skip_tls_verify.unwrap_or(true),
        },
    });
    Ok(Plan::Update(Box::new(one.clone()), patch))
}

fn new(peer: &ClusterIdentity, urls: &Urls) -> ForeignCluster {
    ForeignCluster {
        metadata: ObjectMeta {
            name: Some(peer.cluster_name.clone()),
            labels: labels([(label::CLUSTER_ID, &peer.cluster_id)]),
            ..ObjectMeta::default()
        },
        spec: ForeignClusterSpec {
            peering_type: PeeringType::InBand,
            cluster_identity: Some(peer.clone()),
            outgoing_peering_enabled: PeeringEnabled::No,
            incoming_peering_enabled: PeeringEnabled::Auto,
            foreign_auth_url: urls.auth.clone(),
            foreign_proxy_url: Some(urls.proxy.clone()),
            insecure_skip_tls_verify: Some(true),
            ttl: None,
        },
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use liqo_api::net::NetworkConfigStatus;

    use super::*;
    use crate::peering::{Gateway, networks, tenant_namespace};

    fn rome() -> ClusterIdentity {
        ClusterIdentity::new("09897b82-7830-483b-b786-9cf90899f809", "consumer")
    }

    fn milan() -> ClusterIdentity {
        ClusterIdentity::new("16fbeaec-e4e4-41dc-9eea-170ce95d7dd9", "provider")
    }

    fn now() -> k8s_openapi::apimachinery::pkg::apis::meta::v1::Time {
        serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap()
    }

    fn told() -> NetworkConfigSpec {
        let gateway = Gateway {
            address: "172.30.0.11".into(),
            port: 32205,
            public_key: "9v9D+gK8ara2qUR9Jb3UhLGfgb3ZPWeF4aAE7mmwRx0=".into(),
        };
        networks(&milan(), ["10.244.0.0/16".into(), "10.97.0.0/16".into()], &gateway)
    }

    fn urls() -> Urls {
        let address = |ip: &str, port| Address { ip: ip.parse().unwrap(), port };
        Urls::of(address("10.96.0.7", 443), address("10.96.0.8", 8118))
    }

    /// Compared with what was recorded of an out-of-band peering: in-band the same objects are made by hand.
    #[test]
    fn network_configurations_are_the_recorded_ones() {
        let original = original(told(), "liqo-tenant-provider-ca6261");
        let value = serde_json::to_value(&original).unwrap();
        assert_eq!(
            value["spec"],
            json!({"backendType": "wireguard", "backend_config": {"port": "32205", "publicKey": "9v9D+gK8ara2qUR9Jb3UhLGfgb3ZPWeF4aAE7mmwRx0="},
                "cluster": {"clusterID": "16fbeaec-e4e4-41dc-9eea-170ce95d7dd9", "clusterName": "provider"},
                "endpointIP": "172.30.0.11", "externalCIDR": "10.97.0.0/16", "podCIDR": "10.244.0.0/16"})
        );
        assert_eq!(value["metadata"]["name"], "provider-ca6261");
        assert_eq!(
            value["metadata"]["labels"],
            json!({"liqo.io/remoteID": "16fbeaec-e4e4-41dc-9eea-170ce95d7dd9", "liqo.io/replication": "true"})
        );
        let copy = serde_json::to_value(copy(&original, &rome(), "liqo-tenant-consumer-ed03b8")).unwrap();
        assert_eq!(copy["spec"], value["spec"]);
        assert_eq!(
            (copy["metadata"]["name"].as_str(), copy["metadata"]["namespace"].as_str()),
            (Some("provider-ca6261"), Some("liqo-tenant-consumer-ed03b8"))
        );
        assert_eq!(
            copy["metadata"]["labels"],
            json!({"liqo.io/originID": "09897b82-7830-483b-b786-9cf90899f809", "liqo.io/remoteID": "16fbeaec-e4e4-41dc-9eea-170ce95d7dd9",
                "liqo.io/replicated": "true", "liqo.io/replication": "false"})
        );
    }

    /// Applied by us, a status must stay what the receiver said.
    #[test]
    fn neither_has_a_status_of_ours() {
        let original = original(told(), "a");
        assert_eq!(
            (original.status.as_ref(), copy(&original, &rome(), "b").status),
            (None::<&NetworkConfigStatus>, None)
        );
    }

    #[test]
    fn a_new_peer_is_known_before_anything_is_wished_from_it() {
        let Ok(Plan::Create(made)) = foreign_cluster(&[], &milan(), &urls()) else { panic!("not created") };
        assert_eq!(name(&made.metadata), "provider");
        assert_eq!(
            serde_json::to_value(&made.spec).unwrap(),
            json!({"clusterIdentity": {"clusterID": milan().cluster_id, "clusterName": "provider"},
                "foreignAuthUrl": "https://10.96.0.7:443", "foreignProxyUrl": "http://10.96.0.8:8118",
                "incomingPeeringEnabled": "Auto", "insecureSkipTLSVerify": true, "outgoingPeeringEnabled": "No", "peeringType": "InBand"})
        );
    }

    #[test]
    fn a_known_peer_keeps_its_wishes() {
        let mut one = new(&milan(), &urls());
        one.metadata.name = Some("mediolanum".into());
        one.metadata.resource_version = Some("7".into());
        one.spec.outgoing_peering_enabled = PeeringEnabled::Yes;
        let Ok(Plan::Update(found, patch)) = foreign_cluster(&[one], &milan(), &urls()) else { panic!("not updated") };
        assert_eq!(name(&found.metadata), "mediolanum");
        assert_eq!(patch["metadata"], json!({"resourceVersion": "7"}));
        assert_eq!(patch["spec"]["foreignProxyUrl"], "http://10.96.0.8:8118");
        let spec = patch["spec"].as_object().unwrap();
        assert!(
            !spec.contains_key("outgoingPeeringEnabled") && !spec.contains_key("incomingPeeringEnabled"),
            "{patch}"
        );
    }

    #[test]
    fn other_peerings_and_taken_names_are_refused() {
        let mut out_of_band = new(&milan(), &urls());
        out_of_band.spec.peering_type = PeeringType::OutOfBand;
        let why = check(&[out_of_band.clone()], &milan()).unwrap_err();
        assert!(why.starts_with("a peering of type OutOfBand already exists towards remote cluster \"provider\", cannot be changed to InBand"), "{why}");
        out_of_band.metadata.deletion_timestamp = Some(now());
        assert!(
            matches!(foreign_cluster(&[out_of_band], &milan(), &urls()), Ok(Plan::Wait(name)) if name == "provider")
        );
        let mut unknown = new(&ClusterIdentity::new("", "provider"), &urls());
        unknown.metadata.labels = None;
        assert!(matches!(check(std::slice::from_ref(&unknown), &milan()), Ok(Some(_))));
        assert!(matches!(foreign_cluster(&[unknown], &milan(), &urls()), Ok(Plan::Update(..))));
        let namesake = new(&ClusterIdentity::new("other", "provider"), &urls());
        assert!(check(&[namesake], &milan()).unwrap_err().contains("belongs to another cluster (cluster ID other)"));
    }

    #[test]
    fn one_tenant_namespace_is_used_and_two_are_refused() {
        let namespace = |name: &str, deleting: bool| {
            let mut one = tenant_namespace(name, &milan());
            one.metadata.deletion_timestamp = deleting.then(now);
            one
        };
        assert_eq!(tenant(&[], &milan()), Ok(Tenant::Create("liqo-tenant-provider-ca6261".into())));
        assert_eq!(tenant(&[namespace("x", false)], &milan()), Ok(Tenant::Use("x".into())));
        assert_eq!(tenant(&[namespace("x", true)], &milan()), Ok(Tenant::Wait("x".into())));
        assert!(tenant(&[namespace("x", false), namespace("y", true)], &milan()).unwrap_err().contains("x, y"));
    }

    #[test]
    fn urls_hold_addresses_of_both_families() {
        let six = Address { ip: "fd00::7".parse().unwrap(), port: 443 };
        assert_eq!(
            Urls::of(six, six),
            Urls { auth: "https://[fd00::7]:443".into(), proxy: "http://[fd00::7]:443".into() }
        );
    }
}
