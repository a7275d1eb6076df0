//! What an out-of-band peering writes, decided before anything is written.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use liqo_api::{
    ClusterIdentity,
    discovery::{ForeignCluster, ForeignClusterSpec, PeeringEnabled, PeeringType},
    meta::label,
};
use serde_json::json;

use super::{Plan, id_of, is_leaving, labels, name};
use crate::naming::{cluster_id_error, dns_label_error};

/// The parameters of the other cluster, from the command that the other cluster generated.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Name of the other cluster here: a DNS label.
    pub name: String,
    /// URL of the authentication service of the other cluster.
    pub auth_url: String,
    /// Cluster ID of the other cluster.
    pub cluster_id: String,
    /// The token for the authentication service of the other cluster.
    pub token: String,
}

impl Ask {
    /// Whether the parameters are valid by themselves; the state of this cluster is not looked at.
    ///
    /// # Errors
    /// A sentence that says which text is wrong and why.
    pub fn check(&self) -> Result<(), String> {
        if let Some(why) = dns_label_error(&self.name) {
            return Err(format!("the cluster name {:?} {why}", self.name));
        }
        if let Some(why) = cluster_id_error(&self.cluster_id) {
            return Err(format!("the cluster ID {:?} {why}", self.cluster_id));
        }
        if self.token.is_empty() {
            return Err(
                "the authentication token is empty: `liqoctl generate peer-command` on the remote cluster prints it"
                    .to_owned(),
            );
        }
        if self.token.chars().any(char::is_whitespace) {
            return Err("the authentication token contains white space: was it cut?".to_owned());
        }
        check_url(&self.auth_url)
    }
}

/// What the schema of ForeignCluster asks of an authentication URL.
fn check_url(url: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("the authentication URL {url:?} {why}: it must look like https://HOST[:PORT]"));
    let Some(rest) = url.strip_prefix("https://") else { return wrong("does not start with https://") };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() {
        return wrong("has no host");
    }
    if !rest.chars().all(|c| c.is_ascii_alphanumeric() || "-()@:%_+.~#?&/=".contains(c)) {
        return wrong("contains characters that are not allowed");
    }
    let (host, port) = authority.rsplit_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    if port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port == 0) || port.parse::<u16>().is_err()) {
        return wrong("has no valid port");
    }
    let host = host.rsplit('@').next().unwrap_or_default();
    let Some((first, last)) = host.rsplit_once('.') else { return wrong("names a host without a dot") };
    if first.is_empty() || last.is_empty() || last.len() > 6 || !last.chars().all(|c| c.is_ascii_alphanumeric()) {
        return wrong("has a host that is neither a full name nor an IPv4 address");
    }
    Ok(())
}

/// What to write about the other cluster in the cluster `local`, which knows the peers `known`.
///
/// # Errors
/// A sentence: the other cluster is this one, its name is taken, or a peering of another type exists.
pub fn plan(ask: &Ask, local: &ClusterIdentity, known: &[ForeignCluster]) -> Result<Plan, String> {
    if ask.cluster_id == local.cluster_id {
        return Err("the Cluster ID of the remote cluster is the same of that of the local cluster".to_owned());
    }
    let same_id = known.iter().find(|one| id_of(one) == ask.cluster_id);
    let same_name = known
        .iter()
        .find(|one| name(&one.metadata) == ask.name && id_of(one) != ask.cluster_id && !id_of(one).is_empty());
    match (same_id, same_name) {
        (None, Some(other)) => Err(format!(
            "the name {:?} belongs to another cluster (cluster ID {}): choose another name",
            ask.name,
            id_of(other)
        )),
        (None, None) => match known.iter().find(|one| name(&one.metadata) == ask.name) {
            // Known by its URL only, its ID has not been learnt yet.
            Some(foreign) => update(ask, foreign),
            None => Ok(Plan::Create(Box::new(create(ask)))),
        },
        (Some(foreign), _) => update(ask, foreign),
    }
}

fn create(ask: &Ask) -> ForeignCluster {
    ForeignCluster {
        metadata: ObjectMeta {
            name: Some(ask.name.clone()),
            labels: labels([(label::CLUSTER_ID, &ask.cluster_id)]),
            ..ObjectMeta::default()
        },
        spec: ForeignClusterSpec {
            peering_type: PeeringType::OutOfBand,
            cluster_identity: Some(ClusterIdentity::new(&ask.cluster_id, &ask.name)),
            outgoing_peering_enabled: PeeringEnabled::Yes,
            incoming_peering_enabled: PeeringEnabled::Auto,
            foreign_auth_url: ask.auth_url.clone(),
            foreign_proxy_url: None,
            insecure_skip_tls_verify: Some(true),
            ttl: None,
        },
        status: None,
    }
}

fn update(ask: &Ask, foreign: &ForeignCluster) -> Result<Plan, String> {
    if is_leaving(foreign) {
        return Ok(Plan::Wait(name(&foreign.metadata)));
    }
    if foreign.spec.peering_type != PeeringType::OutOfBand {
        return Err(format!(
            "a peering of type {:?} already exists towards remote cluster {:?}, cannot be changed to {:?}",
            foreign.spec.peering_type,
            ask.name,
            PeeringType::OutOfBand
        ));
    }
    let known_as = foreign.spec.cluster_identity.as_ref().map(|identity| identity.cluster_name.clone());
    let known_as = known_as.filter(|name| !name.is_empty()).unwrap_or_else(|| ask.name.clone());
    let patch = json!({
        "metadata": {"resourceVersion": foreign.metadata.resource_version},
        "spec": {
            "clusterIdentity": {"clusterID": ask.cluster_id, "clusterName": known_as},
            "foreignAuthUrl": ask.auth_url,
            "foreignProxyUrl": null,
            "outgoingPeeringEnabled": PeeringEnabled::Yes,
            "insecureSkipTLSVerify": foreign.spec.insecure_skip_tls_verify.unwrap_or(true),
        },
    });
    Ok(Plan::Update(Box::new(foreign.clone()), patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "16fbeaec-e4e4-41dc-9eea-170ce95d7dd9";

    fn ask() -> Ask {
        Ask {
            name: "milan".into(),
            auth_url: "https://172.30.0.12:32137".into(),
            cluster_id: ID.into(),
            token: "t".into(),
        }
    }

    fn known(name: &str, id: &str) -> ForeignCluster {
        let mut foreign = create(&Ask { name: name.into(), cluster_id: id.into(), ..ask() });
        foreign.metadata.resource_version = Some("7".into());
        foreign
    }

    fn here() -> ClusterIdentity {
        ClusterIdentity::new("09897b82-7830-483b-b786-9cf90899f809", "rome")
    }

    #[test]
    fn words_are_checked_before_anything_else() {
        assert_eq!(ask().check(), Ok(()));
        for (wrong, part) in [
            (Ask { name: "Milan".into(), ..ask() }, "cluster name"),
            (Ask { cluster_id: "a b".into(), ..ask() }, "cluster ID"),
            (Ask { token: String::new(), ..ask() }, "token is empty"),
            (Ask { token: "a b".into(), ..ask() }, "white space"),
            (Ask { auth_url: "http://a.b".into(), ..ask() }, "does not start with https://"),
        ] {
            assert!(wrong.check().unwrap_err().contains(part), "{part}");
        }
    }

    #[test]
    fn urls_are_those_the_schema_accepts() {
        for good in ["https://1.2.3.4", "https://1.2.3.4:443", "https://auth.rome.it/path", "https://www.rome.it:8443"]
        {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "https://",
            "https://rome",
            "https://rome:443",
            "https://[fd00::1]:443",
            "https://a.b:0",
            "https://a.b:x",
            "https://a b.c",
            "https://a.toolongtld",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_cluster_is_created_as_recorded() {
        let Ok(Plan::Create(made)) = plan(&ask(), &here(), &[]) else { panic!("not created") };
        let spec = serde_json::to_value(&made.spec).unwrap();
        assert_eq!(
            spec,
            json!({"clusterIdentity": {"clusterID": ID, "clusterName": "milan"}, "foreignAuthUrl": "https://172.30.0.12:32137",
                "incomingPeeringEnabled": "Auto", "insecureSkipTLSVerify": true, "outgoingPeeringEnabled": "Yes", "peeringType": "OutOfBand"})
        );
    }

    #[test]
    fn a_known_cluster_keeps_its_names() {
        let Ok(Plan::Update(one, patch)) = plan(&ask(), &here(), &[known("mediolanum", ID)]) else {
            panic!("not updated")
        };
        assert_eq!(name(&one.metadata), "mediolanum");
        assert_eq!(patch["spec"]["clusterIdentity"]["clusterName"], "mediolanum");
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
    }

    #[test]
    fn refusals_say_why() {
        let itself = Ask { cluster_id: here().cluster_id, ..ask() };
        assert!(plan(&itself, &here(), &[]).unwrap_err().contains("the same of that of the local cluster"));
        assert!(plan(&ask(), &here(), &[known("milan", "other")]).unwrap_err().contains("belongs to another cluster"));
        let mut in_band = known("milan", ID);
        in_band.spec.peering_type = PeeringType::InBand;
        assert_eq!(
            plan(&ask(), &here(), &[in_band]).unwrap_err(),
            "a peering of type InBand already exists towards remote cluster \"milan\", cannot be changed to OutOfBand"
        );
    }

    #[test]
    fn what_is_being_deleted_is_waited_for() {
        let mut leaving = known("milan", ID);
        leaving.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert!(matches!(plan(&ask(), &here(), &[leaving]), Ok(Plan::Wait(name)) if name == "milan"));
    }
}
