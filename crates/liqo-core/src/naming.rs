//! Names that follow from a cluster's identity.
//!
//! Both sides of a peering compute the same names, so these rules are part of the wire contract.

use k8s_openapi::api::core::v1::Namespace;
use liqo_api::{ClusterIdentity, meta::label, names, offloading::NamespaceMappingStrategy};
use sha2::{Digest, Sha256};

/// `<cluster name>-<first six hex digits of the SHA-256 of the cluster ID>`.
pub fn unique_name(cluster: &ClusterIdentity) -> String {
    format!("{}-{}", cluster.cluster_name, short_hash(&cluster.cluster_id))
}

/// The namespace dedicated to `remote` in this cluster, unless another cluster has the name: see [`longer_tenant_namespace`].
pub fn tenant_namespace(remote: &ClusterIdentity) -> String {
    format!("{}{}", names::TENANT_NAMESPACE_PREFIX, unique_name(remote))
}

/// The namespace dedicated to `remote` where [`tenant_namespace`] is taken, because the IDs of two clusters with one name begin
/// with the same digits of their hashes, by chance or by search.
pub fn longer_tenant_namespace(remote: &ClusterIdentity) -> String {
    format!("{}{}-{}", names::TENANT_NAMESPACE_PREFIX, remote.cluster_name, hash(&remote.cluster_id, LONGER))
}

/// The node that stands for `remote`.
pub fn virtual_node(remote: &ClusterIdentity) -> String {
    format!("{}{}", names::VIRTUAL_NODE_PREFIX, remote.cluster_name)
}

/// How the namespace `name` of the cluster `local` is called in a provider.
pub fn remote_namespace(name: &str, local: &ClusterIdentity, strategy: NamespaceMappingStrategy) -> String {
    match strategy {
        NamespaceMappingStrategy::EnforceSameName => name.to_owned(),
        NamespaceMappingStrategy::DefaultName => format!("{name}-{}", unique_name(local)),
    }
}

/// The peer of a tenant namespace: the namespace carries both labels, and its name is computed from the peer's ID or equals
/// `known`, the name recorded for that peer. The labels alone make no tenant namespace.
pub fn tenant_of<'a>(namespace: &'a Namespace, known: Option<&str>) -> Option<&'a str> {
    let (peer, name) = (claimed_tenant_of(namespace)?, namespace.metadata.name.as_deref()?);
    let computed = name.strip_prefix(names::TENANT_NAMESPACE_PREFIX);
    let ends = |bytes: usize| computed.is_some_and(|unique| unique.ends_with(&format!("-{}", hash(peer, bytes))));
    let computed = ends(SHORT) || ends(LONGER);
    (computed || known == Some(name)).then_some(peer)
}

/// The peer that the labels of a namespace claim; a claim is no proof.
pub fn claimed_tenant_of(namespace: &Namespace) -> Option<&str> {
    let labels = namespace.metadata.labels.as_ref()?;
    let is_tenant = labels.get(label::TENANT_NAMESPACE).is_some_and(|value| value == "true");
    labels.get(label::CLUSTER_ID).map(String::as_str).filter(|id| is_tenant && !id.is_empty())
}

/// First six hex digits of the SHA-256 of `text`.
pub fn short_hash(text: &str) -> String {
    hash(text, SHORT)
}

/// Bytes of the hash in names: in those of Liqo 0.8.3, and where such a name is taken.
const SHORT: usize = 3;
const LONGER: usize = 10;

/// The first bytes of the SHA-256 of `text`, in hex.
fn hash(text: &str, bytes: usize) -> String {
    Sha256::digest(text).iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
}

/// Longest name of most objects (a DNS-1123 subdomain), in bytes.
pub const LONGEST_NAME: usize = 253;
/// Longest value of a label, in bytes.
pub const LONGEST_LABEL: usize = 63;

/// A name or label value derived from `text`, at most `longest` bytes long: the text itself if it is short enough, else its
/// beginning and a hash of all of it. What was a valid name, or value, stays one.
///
/// # Panics
/// When `longest` leaves no room for the hash.
pub fn within(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let hash = hash(text, 8);
    let room = longest.checked_sub(hash.len() + 1).expect("room for the hash");
    let (beginning, _) = text.split_at(text.floor_char_boundary(room));
    format!("{}-{hash}", beginning.trim_end_matches(['-', '.', '_']))
}

/// Why a text is not a DNS-1123 label (RFC 1123: lower case letters, digits and hyphens, at most 63).
pub fn dns_label_error(text: &str) -> Option<&'static str> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    match text {
        "" => Some("is empty"),
        _ if text.len() > 63 => Some("is longer than 63 characters"),
        _ if !text.chars().all(inner) => Some("may only contain lowercase letters, digits and hyphens"),
        _ if !edge(text.chars().next()) || !edge(text.chars().last()) => {
            Some("must start and end with a lowercase letter or a digit")
        }
        _ => None,
    }
}

/// Why a text is not the ID of a cluster: a UUID (RFC 9562) in lower case, as every release of Liqo makes them. A user is
/// named after the ID of its cluster, so no ID may be the name of another user.
pub fn cluster_id_error(text: &str) -> Option<&'static str> {
    let is_digit = |c: char| matches!(c, '0'..='9' | 'a'..='f');
    let groups: Vec<_> = text.split('-').collect();
    let is_uuid = groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| group.chars().all(is_digit));
    match text {
        "" => Some("is empty"),
        _ if is_uuid => None,
        _ => Some("must be a UUID in lower case, like 09897b82-7830-483b-b786-9cf90899f809"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn names_are_those_recorded_from_real_clusters() {
        let consumer = ClusterIdentity::new("09897b82-7830-483b-b786-9cf90899f809", "consumer");
        let provider = ClusterIdentity::new("16fbeaec-e4e4-41dc-9eea-170ce95d7dd9", "provider");
        assert_eq!(unique_name(&consumer), "consumer-ed03b8");
        assert_eq!(tenant_namespace(&provider), "liqo-tenant-provider-ca6261");
        assert_eq!(longer_tenant_namespace(&provider), "liqo-tenant-provider-ca6261eb8b0c5a40b73f");
        assert_eq!(virtual_node(&provider), "liqo-provider");
        assert_eq!(remote_namespace("demo", &consumer, NamespaceMappingStrategy::DefaultName), "demo-consumer-ed03b8");
        assert_eq!(short_hash("token"), "3c469e");
    }

    proptest! {
        #[test]
        fn derived_names_are_valid_bounded_and_their_own(
            one in "[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", other in "[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?",
        ) {
            for longest in [LONGEST_LABEL, LONGEST_NAME] {
                let short = within(&one, longest);
                prop_assert!(short.len() <= longest);
                prop_assert!(short.chars().next_back().is_some_and(|last| last.is_ascii_alphanumeric()));
                prop_assert_eq!(short == within(&other, longest), one == other);
                prop_assert!(one.len() > longest || short == one);
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            prop_assert!(within(&text, 20).len() <= 20);
        }
    }

    #[test]
    fn names_at_the_limits_are_kept_and_longer_ones_are_cut() {
        for (length, kept) in [(62, true), (63, true), (64, false), (253, false)] {
            let name = "a".repeat(length);
            assert_eq!(within(&name, LONGEST_LABEL) == name, kept, "{length}");
        }
        assert_eq!(within("a-......b", 18).len(), 9);
        assert!(within(&format!("{}-......b", "a".repeat(60)), 63).starts_with(&"a".repeat(46)));
    }

    #[test]
    fn a_label_is_refused_with_its_reason() {
        for bad in ["", "Rome", "-rome", "rome-", "ro_me", "rome.it", &"a".repeat(64)] {
            assert!(dns_label_error(bad).is_some(), "{bad}");
        }
        for good in ["rome", "1", "a-1", &"a".repeat(63)] {
            assert_eq!(dns_label_error(good), None, "{good}");
        }
    }

    #[test]
    fn an_id_is_a_uuid_and_nothing_else() {
        assert_eq!(cluster_id_error("09897b82-7830-483b-b786-9cf90899f809"), None);
        for bad in [
            "",
            "admin",
            "system:masters",
            "09897B82-7830-483b-b786-9cf90899f809",
            "09897b82-7830-483b-b786-9cf90899f80",
            "09897b82-7830-483b-b786-9cf90899f809-",
            "09897b82-7830-483b-b7869-cf90899f809",
            "g9897b82-7830-483b-b786-9cf90899f809",
        ] {
            assert!(cluster_id_error(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn a_namespace_is_a_tenant_by_its_labels_and_its_name() {
        const ID: &str = "16fbeaec-e4e4-41dc-9eea-170ce95d7dd9";
        for (name, tenant, known, expected) in [
            ("liqo-tenant-provider-ca6261", "true", None, true),
            // The provider was renamed: the hash of its ID stays.
            ("liqo-tenant-another-ca6261", "true", None, true),
            ("liqo-tenant-provider-ed03b8", "true", None, false),
            // The usual name was taken.
            ("liqo-tenant-provider-ca6261eb8b0c5a40b73f", "true", None, true),
            ("liqo-tenant-provider-ca626100000000000000", "true", None, false),
            ("team-a", "true", None, false),
            ("team-a", "true", Some("team-a"), true),
            ("liqo-tenant-provider-ca6261", "false", Some("liqo-tenant-provider-ca6261"), false),
        ] {
            let mut namespace = Namespace::default();
            namespace.metadata.name = Some(name.to_owned());
            let labels = [(label::TENANT_NAMESPACE, tenant), (label::CLUSTER_ID, ID)];
            namespace.metadata.labels = Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
            assert_eq!(tenant_of(&namespace, known), expected.then_some(ID), "{name}");
        }
    }

    /// An ID that is accepted is the name of no user of Kubernetes or of an authority, and names objects and labels as it is.
    #[test]
    fn fuzz_cluster_ids() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "cluster_id", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            if cluster_id_error(&text).is_none() {
                assert_eq!((text.len(), text.to_lowercase()), (36, text.to_string()), "{text:?}");
                assert!(text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-'), "{text:?}");
            }
        });
    }
}
