//! May a peer have a namespace of this name, and is it there?

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use liqo_api::{
    meta::{annotation, label},
    names,
};
use liqo_core::naming::dns_label_error;

use super::super::is_leaving;

/// For whom a namespace was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// `<namespace>/<name>` of the map that asked for it.
    pub map: String,
    /// How it is called where the map comes from.
    pub original: String,
}

/// For whom a namespace was made; `None`: not for a peer.
pub(super) fn owner_of(namespace: &Namespace) -> Option<Owner> {
    let all = namespace.annotations();
    let map = all.get(annotation::MANAGED_BY_NAMESPACE_MAP)?.clone();
    Some(Owner { map, original: all.get(annotation::ORIGINAL_NAME).cloned().unwrap_or_default() })
}

/// The annotations that say for whom a namespace was made.
pub(super) fn originals(owner: &Owner) -> BTreeMap<String, String> {
    BTreeMap::from([
        (annotation::MANAGED_BY_NAMESPACE_MAP.to_owned(), owner.map.clone()),
        (annotation::ORIGINAL_NAME.to_owned(), owner.original.clone()),
    ])
}

/// What to do about one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Make it.
    Create,
    /// It is there; does it need its label back?
    Keep {
        /// Whether the label with the peer's ID is wrong.
        label: bool,
    },
    /// It is going away; it is made again afterwards.
    Wait,
    /// The peer does not get it, for this reason.
    Refuse(String),
}

/// Compares a wish with the namespace that has that name.
pub(super) fn look(owner: &Owner, origin: &str, name: &str, there: Option<&Namespace>, reserved: &[&str]) -> Wish {
    if let Some(why) = dns_label_error(name) {
        return Wish::Refuse(format!("the name of the namespace {name:?} {why}"));
    }
    let system = name.starts_with("kube-") || name.starts_with(names::TENANT_NAMESPACE_PREFIX);
    if system || reserved.contains(&name) {
        return Wish::Refuse(format!("namespace {name:?} belongs to this cluster: peers cannot have it"));
    }
    let Some(there) = there else { return Wish::Create };
    match owner_of(there) {
        Some(is) if is.map != owner.map => Wish::Refuse(foreign(owner, name)),
        None => Wish::Refuse(foreign(owner, name)),
        Some(is) if is.original != owner.original => {
            Wish::Refuse(format!("namespace {name:?} is already the remote namespace of {:?}", is.original))
        }
        Some(_) if is_leaving(there) => Wish::Wait,
        Some(_) => {
            let label = there.labels().get(label::REMOTE_CLUSTER_ID).map(String::as_str);
            Wish::Keep { label: label != Some(origin) }
        }
    }
}

fn foreign(owner: &Owner, name: &str) -> String {
    format!("namespace {name:?} already exists and it is not managed by NamespaceMap {:?}", owner.map)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(map: &str, original: &str) -> Owner {
        Owner { map: map.to_owned(), original: original.to_owned() }
    }

    fn namespace(owner: Option<Owner>, origin: &str) -> Namespace {
        let mut namespace = Namespace::default();
        namespace.metadata.annotations = owner.map(|owner| originals(&owner));
        namespace.labels_mut().insert(label::REMOTE_CLUSTER_ID.to_owned(), origin.to_owned());
        namespace
    }

    fn ask(name: &str, there: Option<&Namespace>) -> Wish {
        look(&owner("tenant/map", "demo"), "id", name, there, &["liqo", "liqo-storage"])
    }

    #[test]
    fn a_peer_gets_what_is_free_or_its_own() {
        let own = namespace(Some(owner("tenant/map", "demo")), "id");
        assert_eq!(ask("demo-x", None), Wish::Create);
        assert_eq!(ask("liqo-demo", None), Wish::Create);
        assert_eq!(ask("demo-x", Some(&own)), Wish::Keep { label: false });
        let unlabelled = namespace(Some(owner("tenant/map", "demo")), "other");
        assert_eq!(ask("demo-x", Some(&unlabelled)), Wish::Keep { label: true });
        let mut leaving = own;
        leaving.metadata.deletion_timestamp = Some(liqo_kube::now());
        assert_eq!(ask("demo-x", Some(&leaving)), Wish::Wait);
    }

    #[test]
    fn a_peer_does_not_get_what_is_not_its_own() {
        let others = [
            namespace(None, "id"),
            namespace(Some(owner("tenant/other", "demo")), "id"),
            namespace(Some(owner("tenant/map", "another")), "id"),
        ];
        for there in &others {
            assert!(matches!(ask("demo-x", Some(there)), Wish::Refuse(_)));
        }
        assert_eq!(
            ask("demo-x", Some(&others[0])),
            Wish::Refuse(
                "namespace \"demo-x\" already exists and it is not managed by NamespaceMap \"tenant/map\"".to_owned()
            )
        );
        let own = namespace(Some(owner("tenant/map", "demo")), "id");
        for name in ["kube-system", "kube-x", "liqo", "liqo-storage", "liqo-tenant-x", "A", "", &"n".repeat(64)] {
            assert!(matches!(ask(name, None), Wish::Refuse(_)), "{name}");
            assert!(matches!(ask(name, Some(&own)), Wish::Refuse(_)), "{name}");
        }
    }
}
