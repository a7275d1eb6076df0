//! The decisions of this cluster about a peer, as the peer's `ForeignCluster` records them.

use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use liqo_api::{
    discovery::{ForeignCluster, PeeringEnabled},
    meta::{annotation, label},
};

use crate::naming;

fn label_is(one: &ForeignCluster, key: &str, value: &str) -> bool {
    one.metadata.labels.as_ref().and_then(|all| all.get(key)).is_some_and(|found| found == value)
}

fn tenant_condition(one: &ForeignCluster) -> &str {
    let all = one.metadata.annotations.as_ref();
    all.and_then(|all| all.get(annotation::TENANT_CONDITION)).map(String::as_str).unwrap_or_default()
}

/// Value of the annotation [`annotation::TENANT_CONDITION`] that bans a peer.
pub const BANNED: &str = "Banned";

/// Whether the peer gets nothing and is not even heard.
pub fn is_banned(one: &ForeignCluster) -> bool {
    tenant_condition(one) == BANNED
}

/// Whether a cluster ID is banned. The ban holds for the ID: a further `ForeignCluster` of the same ID, whatever its name and
/// age, does not lift the ban.
pub fn bans<'a>(all: impl IntoIterator<Item = &'a ForeignCluster>, cluster_id: &str) -> bool {
    all.into_iter().any(|one| is_banned(one) && id_of(one) == cluster_id)
}

/// The order in which the `ForeignCluster`s of one peer count: only the smallest counts. A banned one comes before all others,
/// then the oldest.
pub fn precedence(one: &ForeignCluster) -> (bool, (Option<i64>, &str)) {
    (!is_banned(one), age(one))
}

/// The order of `ForeignCluster`s by their age: the smaller, the older.
pub fn age(one: &ForeignCluster) -> (Option<i64>, &str) {
    let created = one.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second());
    (created, one.metadata.uid.as_deref().unwrap_or_default())
}

/// ID of the peer that a `ForeignCluster` stands for; empty while the ID is unknown.
pub fn id_of(one: &ForeignCluster) -> &str {
    one.spec.cluster_identity.as_ref().map_or("", |identity| identity.cluster_id.as_str())
}

/// When the last of all certificates expires that this cluster gave to a peer (Unix seconds), as the tenant namespace or the
/// `ForeignCluster` of the peer records it ([`annotation::CERTIFICATE_EXPIRE_TIME`]).
pub fn certificates_end(recorded_on: &ObjectMeta) -> Option<i64> {
    recorded_on.annotations.as_ref()?.get(annotation::CERTIFICATE_EXPIRE_TIME)?.parse().ok()
}

/// What is to be recorded when a certificate that ends at `ends` is known; `None`: what is recorded already. A certificate that was
/// replaced, or whose Secret was deleted, opens what the peer may have until the certificate ends, so the record never goes down.
pub fn later_end(recorded_on: &ObjectMeta, ends: Option<i64>) -> Option<i64> {
    let recorded = certificates_end(recorded_on);
    ends.filter(|ends| recorded.is_none_or(|recorded| recorded < *ends))
}

/// Every value of the annotation [`annotation::TENANT_CONDITION`].
pub const CONDITIONS: [&str; 3] = ["Cordoned", "Drained", BANNED];

/// The value of [`annotation::TENANT_CONDITION`] when it is none of [`CONDITIONS`]. What it was meant to restrict is not known, so
/// the peer keeps what it has and is granted nothing new, as if it were cordoned.
pub fn unknown_condition(one: &ForeignCluster) -> Option<&str> {
    Some(tenant_condition(one)).filter(|value| !value.is_empty() && !CONDITIONS.contains(value))
}

/// The sentence about an unknown value of [`annotation::TENANT_CONDITION`]: its effect, and the values there are.
pub fn unknown_told(value: &str) -> String {
    format!(
        "The annotation {} says {value:?}, which is unknown and counts as Cordoned; known are {}",
        annotation::TENANT_CONDITION,
        CONDITIONS.join(", ")
    )
}

/// The peer of a tenant namespace: the namespace carries both labels, and its name is computed from the peer's ID or recorded in the
/// status of the peer's `ForeignCluster`. Labels alone make no tenant namespace: whoever may edit a namespace can write them.
pub fn peer_of_tenant<'a, 'b>(
    namespace: &'a Namespace,
    mut peers: impl Iterator<Item = &'b ForeignCluster>,
) -> Option<&'a str> {
    let (name, claimed) = (namespace.metadata.name.as_deref()?, naming::claimed_tenant_of(namespace)?);
    let is_recorded = |one: &ForeignCluster| {
        let local = one.status.as_ref().and_then(|status| status.tenant_namespace.local.as_deref());
        id_of(one) == claimed && local == Some(name)
    };
    naming::tenant_of(namespace, peers.any(is_recorded).then_some(name))
}

/// Whether a user of this cluster has decided something about what the peer gets here. The decision is recorded nowhere but on this
/// object, which therefore outlives the requests of the peer. `outgoingPeeringEnabled` is no such decision: `Yes` is a wish of its
/// own ([`wants`]), and for a peer that was not found on the local network `No` means the same as `Auto`.
pub fn is_decided(one: &ForeignCluster) -> bool {
    !tenant_condition(one).is_empty() || one.spec.incoming_peering_enabled != PeeringEnabled::Auto
}

/// Whether a `ForeignCluster` records the key to which the ID of the peer belongs: a ban has ended the Secret with the certificate of that
/// key. When the last certificate of the peer has ended, the ID may belong to another key.
pub fn is_remembered(one: &ForeignCluster, now: i64) -> bool {
    let recorded = one.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(annotation::LAST_CERTIFICATE));
    recorded && certificates_end(&one.metadata).is_some_and(|ends| ends > now)
}

/// Whether everything the peer consumes is taken back.
pub fn is_drained(one: &ForeignCluster) -> bool {
    matches!(tenant_condition(one), "Drained" | BANNED)
}

/// Whether the peer is granted nothing new. Every condition says so, also an unknown one.
pub fn is_cordoned(one: &ForeignCluster) -> bool {
    !tenant_condition(one).is_empty()
}

/// Whether we want resources from the peer.
pub fn wants(one: &ForeignCluster, auto_join: bool) -> bool {
    match one.spec.outgoing_peering_enabled {
        _ if one.metadata.deletion_timestamp.is_some() || is_banned(one) => false,
        PeeringEnabled::Yes => true,
        PeeringEnabled::No => false,
        PeeringEnabled::Auto => auto_join && label_is(one, label::DISCOVERY_TYPE, label::DISCOVERY_LAN),
    }
}

/// Whether this cluster gives resources to the peer, or why not.
///
/// # Errors
/// A sentence that says why not, and what to do.
pub fn accepts(one: &ForeignCluster, by_default: bool) -> Result<(), &'static str> {
    match one.spec.incoming_peering_enabled {
        _ if one.metadata.deletion_timestamp.is_some() => {
            Err("This ForeignCluster is being deleted: no resources are offered any more")
        }
        _ if is_banned(one) => {
            Err("The remote cluster is banned from this cluster: `liqoctl uncordon tenant` lets it ask again")
        }
        _ if is_drained(one) => {
            Err("The remote cluster is drained, what it had here is taken back: `liqoctl uncordon tenant` ends that")
        }
        PeeringEnabled::Yes => Ok(()),
        PeeringEnabled::Auto if by_default => Ok(()),
        PeeringEnabled::Auto => {
            Err("The remote cluster asks for resources, and this cluster accepts no requests by itself: set \
             spec.incomingPeeringEnabled of this ForeignCluster to Yes to accept the request")
        }
        PeeringEnabled::No => {
            Err("The remote cluster asks for resources, and spec.incomingPeeringEnabled of this ForeignCluster says No")
        }
    }
}

/// The sentence that a peer which asks for resources is told while it is granted nothing, or nothing new. It is read in the
/// peer's cluster.
pub fn refusal(one: &ForeignCluster, by_default: bool) -> Option<&'static str> {
    match one.spec.incoming_peering_enabled {
        _ if one.metadata.deletion_timestamp.is_some() => Some("this cluster ends the peering"),
        _ if is_banned(one) => Some("the cluster that asks is banned from this cluster"),
        _ if is_drained(one) => Some("this cluster takes back what it has granted, and grants nothing new for now"),
        PeeringEnabled::No => Some("this cluster does not accept the request"),
        PeeringEnabled::Auto if !by_default => {
            Some("the request waits for the approval of an administrator of this cluster")
        }
        _ if is_cordoned(one) => Some("this cluster grants nothing new for now; what was granted stays"),
        PeeringEnabled::Auto | PeeringEnabled::Yes => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    /// A peer with these decisions about it.
    pub(crate) fn peer(outgoing: &str, incoming: &str, condition: &str) -> ForeignCluster {
        serde_json::from_value(json!({
            "metadata": {"name": "milan", "annotations": {"liqo.io/tenant-condition": condition}},
            "spec": {
                "clusterIdentity": {"clusterID": "a", "clusterName": "milan"}, "foreignAuthUrl": "https://1.2.3.4",
                "outgoingPeeringEnabled": outgoing, "incomingPeeringEnabled": incoming,
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_peer_is_told_why_exactly_while_it_is_granted_nothing_new() {
        for condition in ["", "Cordoned", "Drained", "Banned", "Unknown"] {
            for (incoming, by_default) in [("Yes", false), ("Auto", true), ("Auto", false), ("No", true)] {
                let one = peer("No", incoming, condition);
                let refused = accepts(&one, by_default).is_err() || is_cordoned(&one);
                let told = refusal(&one, by_default);
                assert_eq!(told.is_some(), refused, "{condition} {incoming} {by_default}: {told:?}");
                assert!(told.is_none_or(|told| told.contains("this cluster")), "{told:?}");
            }
        }
        let told = |incoming, condition| refusal(&peer("No", incoming, condition), false).unwrap();
        assert!(told("Auto", "").contains("approval"));
        assert!(told("Yes", "Cordoned").contains("what was granted stays"));
        assert!(told("Yes", "Drained").contains("takes back"));
    }

    #[test]
    fn a_ban_holds_for_an_id_whatever_other_foreign_clusters_say() {
        let named = |id: &str, condition| {
            let mut one = peer("Yes", "Yes", condition);
            one.spec.cluster_identity.as_mut().unwrap().cluster_id = id.to_owned();
            one
        };
        let all = [named("a", ""), named("b", "Banned"), named("a", "Banned"), named("c", "Drained")];
        for (id, banned) in [("a", true), ("b", true), ("c", false), ("d", false), ("", false)] {
            assert_eq!(bans(&all, id), banned, "{id}");
        }
        assert!(precedence(&all[2]) < precedence(&all[0]), "what is granted is decided by the banned one");
    }

    #[test]
    fn an_unknown_condition_is_told_and_grants_nothing_new() {
        for (condition, unknown, cordoned) in [
            ("", false, false),
            ("Cordoned", false, true),
            ("Drained", false, true),
            ("Banned", false, true),
            ("cordoned", true, true),
            ("Baned", true, true),
            (" ", true, true),
        ] {
            let one = peer("Auto", "Auto", condition);
            assert_eq!((unknown_condition(&one).is_some(), is_cordoned(&one)), (unknown, cordoned), "{condition:?}");
        }
        let told = unknown_told("Baned");
        assert!(told.contains("\"Baned\"") && told.contains("Cordoned, Drained, Banned"), "{told}");
    }

    #[test]
    fn the_key_of_a_banned_peer_is_remembered_until_its_certificates_have_ended() {
        for (certificate, ends, now, remembered) in [
            (Some("PEM"), Some("100"), 99, true),
            (Some("PEM"), Some("100"), 100, false),
            (None, Some("100"), 99, false),
            (Some("PEM"), None, 99, false),
        ] {
            let mut one = peer("Auto", "Auto", "");
            let recorded = [(annotation::LAST_CERTIFICATE, certificate), (annotation::CERTIFICATE_EXPIRE_TIME, ends)];
            let recorded = recorded.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())));
            one.metadata.annotations = Some(recorded.collect());
            assert_eq!(is_remembered(&one, now), remembered, "{certificate:?} {ends:?} {now}");
        }
    }

    #[test]
    fn the_end_of_the_last_certificate_never_goes_down() {
        let meta = |recorded: Option<&str>| ObjectMeta {
            annotations: recorded.map(|at| [(annotation::CERTIFICATE_EXPIRE_TIME.to_owned(), at.to_owned())].into()),
            ..ObjectMeta::default()
        };
        for (recorded, ends, wanted) in [
            (None, None, None),
            (None, Some(700), Some(700)),
            (Some("600"), Some(700), Some(700)),
            // A renewal with a shorter life, and a Secret that was deleted.
            (Some("9000"), Some(700), None),
            (Some("9000"), None, None),
            (Some("9000"), Some(9000), None),
            (Some("soon"), Some(700), Some(700)),
        ] {
            assert_eq!(later_end(&meta(recorded), ends), wanted, "{recorded:?} {ends:?}");
        }
    }

    #[test]
    fn what_a_user_decides_is_a_decision() {
        for (outgoing, incoming, condition, decided) in [
            ("Auto", "Auto", "", false),
            ("No", "Auto", "", false),
            ("Auto", "No", "", true),
            ("Auto", "Yes", "", true),
            ("Auto", "Auto", "Cordoned", true),
            ("Auto", "Auto", "Baned", true),
        ] {
            assert_eq!(is_decided(&peer(outgoing, incoming, condition)), decided, "{outgoing} {incoming} {condition}");
        }
    }
}
