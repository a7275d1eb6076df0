//! The objects an in-band peering consists of, as pure values: who writes them is decided elsewhere.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::{Namespace, Secret},
};
use kube::{ResourceExt, api::ObjectMeta};
use liqo_api::{
    ClusterIdentity,
    discovery::{ForeignCluster, ForeignClusterSpec, PeeringEnabled, PeeringType},
    meta::label,
    names,
    net::{NetworkConfig, NetworkConfigSpec},
};
use liqo_core::naming;
use serde_json::json;

use super::side::{Address, Facts};
use crate::peer::plan::{self, Plan};

fn labels<const N: usize>(labels: [(&str, &str); N]) -> Option<BTreeMap<String, String>> {
    Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into())
}

/// What to do about the tenant namespace of a peer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tenant {
    /// It exists.
    Use(String),
    /// An earlier one is going away.
    Wait(String),
    /// There is none yet.
    Create(String),
}

/// Pure: the tenant namespace of `peer`, given those labelled for it.
///
/// # Errors
/// When nobody could say which one counts.
pub(crate) fn tenant(labelled: &[Namespace], peer: &ClusterIdentity) -> Result<Tenant, String> {
    match labelled {
        [] => Ok(Tenant::Create(naming::tenant_namespace(peer))),
        [one] if one.metadata.deletion_timestamp.is_some() => Ok(Tenant::Wait(one.name_any())),
        [one] => Ok(Tenant::Use(one.name_any())),
        several => {
            let names: Vec<_> = several.iter().map(ResourceExt::name_any).collect();
            let (names, key) = (names.join(", "), label::CLUSTER_ID);
            Err(format!("the namespaces {names} all carry the label {key} of this cluster: delete all but one"))
        }
    }
}

/// The tenant namespace of `peer`.
pub(crate) fn tenant_namespace(name: &str, peer: &ClusterIdentity) -> Namespace {
    let labels = labels([(label::CLUSTER_ID, &peer.cluster_id), (label::TENANT_NAMESPACE, "true")]);
    Namespace {
        metadata: ObjectMeta { name: Some(name.to_owned()), labels, ..ObjectMeta::default() },
        ..Namespace::default()
    }
}

/// What `from` tells `to` about its networks: the original, in the cluster `from`.
pub(crate) fn original(facts: &Facts, to: &ClusterIdentity, namespace: &str) -> NetworkConfig {
    let config = [("publicKey", facts.gateway.public_key.clone()), ("port", facts.gateway.port.to_string())];
    let spec = NetworkConfigSpec {
        cluster: to.clone(),
        pod_cidr: facts.pod_cidr.clone(),
        external_cidr: facts.external_cidr.clone(),
        endpoint_ip: facts.gateway.address.clone(),
        backend_type: "wireguard".to_owned(),
        backend_config: config.map(|(key, value)| (key.to_owned(), value)).into(),
    };
    let mut original = NetworkConfig::new(&naming::unique_name(to), spec);
    original.metadata.namespace = Some(namespace.to_owned());
    original.metadata.labels = labels([(label::REPLICATION, "true"), (label::REMOTE_ID, &to.cluster_id)]);
    original
}

/// The copy of an original in the cluster it is addressed to, as the replicator would make it: it finds the copy
/// and takes it over.
pub(crate) fn copy(original: &NetworkConfig, from: &ClusterIdentity, namespace: &str) -> NetworkConfig {
    let mut copy = NetworkConfig::new(&original.name_any(), original.spec.clone());
    copy.metadata.namespace = Some(namespace.to_owned());
    copy.metadata.labels = labels([
        (label::REPLICATION, "false"),
        (label::REPLICATED, "true"),
        (label::ORIGIN_ID, &from.cluster_id),
        (label::REMOTE_ID, &original.spec.cluster.cluster_id),
    ]);
    copy
}

/// The token that lets us in at `peer`.
pub(crate) fn token_secret(token: &str, peer: &ClusterIdentity, namespace: &str) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(format!("{}{}", names::REMOTE_TOKEN_PREFIX, peer.cluster_id)),
            namespace: Some(namespace.to_owned()),
            labels: labels([(label::CLUSTER_ID, &peer.cluster_id), (label::AUTH_TOKEN, "")]),
            ..ObjectMeta::default()
        },
        data: Some([(names::TOKEN_KEY.to_owned(), ByteString(token.as_bytes().to_vec()))].into()),
        ..Secret::default()
    }
}

/// Under which URLs a peer is reached through the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Urls {
    auth: String,
    proxy: String,
}

impl Urls {
    /// From the addresses as the other side sees them.
    pub(crate) fn of(auth: Address, proxy: Address) -> Self {
        let host = |address: Address| std::net::SocketAddr::new(address.ip, address.port).to_string();
        Self { auth: format!("https://{}", host(auth)), proxy: format!("http://{}", host(proxy)) }
    }
}

/// Whether `known` allows an in-band peering with `peer`; gives the object there is.
///
/// # Errors
/// When a peering of another type exists, or its name is taken.
pub(crate) fn check<'a>(
    known: &'a [ForeignCluster],
    peer: &ClusterIdentity,
) -> Result<Option<&'a ForeignCluster>, String> {
    let name = &peer.cluster_name;
    let same_id = known.iter().find(|one| plan::id_of(one) == peer.cluster_id);
    let same_name = known.iter().find(|one| one.name_any() == *name);
    // One whose ID has not been learnt yet may be the peer.
    if let Some(one) = same_id.or(same_name.filter(|one| plan::id_of(one).is_empty())) {
        let (is, wanted) = (one.spec.peering_type, PeeringType::InBand);
        if is != wanted && !plan::is_leaving(one) {
            return Err(format!(
                "a peering of type {is:?} already exists towards remote cluster {name:?}, cannot be changed to \
                 {wanted:?}: end it first with `liqoctl unpeer out-of-band {}`, on both clusters",
                one.name_any()
            ));
        }
        return Ok(Some(one));
    }
    match same_name {
        Some(other) => Err(format!(
            "the name {name:?} of the remote cluster belongs to another cluster (cluster ID {}) already",
            plan::id_of(other)
        )),
        None => Ok(None),
    }
}

/// Pure: what to write so that `peer` is known in-band. Nothing is wished from it yet: whoever hears of a wish
/// before it knows the peer would take the peering for an out-of-band one.
///
/// # Errors
/// As [`check`].
pub(crate) fn foreign_cluster(known: &[ForeignCluster], peer: &ClusterIdentity, urls: &Urls) -> Result<Plan, String> {
    let Some(one) = check(known, peer)? else {
        return Ok(Plan::Create(Box::new(new(peer, urls))));
    };
    if plan::is_leaving(one) {
        return Ok(Plan::Wait(one.name_any()));
    }
    let identity = one.spec.cluster_identity.clone().unwrap_or_default();
    let name = Some(identity.cluster_name).filter(|name| !name.is_empty()).unwrap_or(peer.cluster_name.clone());
    let patch = json!({
        "metadata": {"resourceVersion": one.resource_version()},
        "spec": {
            "clusterIdentity": {"clusterID": peer.cluster_id, "clusterName": name},
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
    use crate::in_band::gateway::{Gateway, Reachability};

    fn rome() -> ClusterIdentity {
        ClusterIdentity::new("09897b82-7830-483b-b786-9cf90899f809", "consumer")
    }

    fn milan() -> ClusterIdentity {
        ClusterIdentity::new("16fbeaec-e4e4-41dc-9eea-170ce95d7dd9", "provider")
    }

    fn facts() -> Facts {
        let address = |ip: &str, port| Address { ip: ip.parse().unwrap(), port };
        Facts {
            pod_cidr: "10.244.0.0/16".into(),
            external_cidr: "10.97.0.0/16".into(),
            gateway: Gateway {
                address: "172.30.0.11".into(),
                port: 32205,
                public_key: "9v9D+gK8ara2qUR9Jb3UhLGfgb3ZPWeF4aAE7mmwRx0=".into(),
                reach: Reachability::Private,
            },
            auth: address("10.96.0.7", 443),
            proxy: address("10.96.0.8", 8118),
        }
    }

    fn urls() -> Urls {
        let Facts { auth, proxy, .. } = facts();
        Urls::of(auth, proxy)
    }

    /// Compared with what was recorded of an out-of-band peering: in-band the same objects are made by hand.
    #[test]
    fn network_configurations_are_the_recorded_ones() {
        let original = original(&facts(), &milan(), "liqo-tenant-provider-ca6261");
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
        let original = original(&facts(), &milan(), "a");
        assert_eq!(
            (original.status.as_ref(), copy(&original, &rome(), "b").status),
            (None::<&NetworkConfigStatus>, None)
        );
    }

    #[test]
    fn a_new_peer_is_known_before_anything_is_wished_from_it() {
        let Ok(Plan::Create(made)) = foreign_cluster(&[], &milan(), &urls()) else { panic!("not created") };
        assert_eq!(made.name_any(), "provider");
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
        assert_eq!(found.name_any(), "mediolanum");
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
        out_of_band.metadata.deletion_timestamp = Some(liqo_kube::now());
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
            one.metadata.deletion_timestamp = deleting.then(liqo_kube::now);
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
