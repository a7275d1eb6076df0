//! May a peer have a namespace of this name, and is it there?

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use liqo_api::{
    meta::{annotation, label},
    names,
};
use liqo_core::naming::{dns_label_error, short_hash};

use super::super::is_leaving;

/// For whom a namespace was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// `<namespace>/<name>` of the map that asked for it.
    pub map: String,
    /// Name of the namespace in the cluster that the map comes from.
    pub original: String,
}

/// For whom a namespace was made; `None`: not for a peer.
pub(super) fn owner_of(namespace: &Namespace) -> Option<Owner> {
    let all = namespace.annotations();
    let map = all.get(annotation::MANAGED_BY_NAMESPACE_MAP)?.clone();
    Some(Owner { map, original: all.get(annotation::ORIGINAL_NAME).cloned().unwrap_or_default() })
}

/// Whether a namespace carries the label of a peer. Annotations alone make no namespace a peer's.
pub(super) fn is_marked(namespace: &Namespace, origin: &str) -> bool {
    namespace.labels().get(label::REMOTE_CLUSTER_ID).is_some_and(|peer| peer == origin)
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
pub(super) enum Step {
    /// Make the namespace.
    Create,
    /// The namespace exists; says whether its labels must be restored.
    Keep {
        /// Whether the label with the peer's ID, or one of Pod Security, is wrong.
        label: bool,
    },
    /// The namespace is being deleted; it is made again afterwards.
    Wait,
    /// The peer does not get it, for this reason.
    Refuse(String),
}

/// What holds for all namespaces of peers.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// The namespaces of Liqo itself.
    pub own: [String; 2],
    /// Names, or patterns with a `*`, that no peer gets. A namespace that a peer has keeps its name.
    pub reserved: Vec<String>,
    /// Names, or patterns with a `*`, that a peer may choose; every other name ends with the hash of its cluster ID, as the
    /// names of the strategy `DefaultName` do.
    pub free: Vec<String>,
    /// The Pod Security Standard enforced.
    pub pod_security: String,
    /// Namespaces one peer may have here, whatever maps it sends.
    pub namespaces_per_peer: usize,
    /// Objects of each kind that a peer may have in one namespace.
    pub objects: Vec<(String, String)>,
}

impl Rules {
    /// The labels of a namespace made for a peer.
    pub(super) fn labels(&self, origin: &str) -> BTreeMap<String, String> {
        let security = |mode: &str, level: &str| (format!("{}{mode}", label::POD_SECURITY_PREFIX), level.to_owned());
        BTreeMap::from([
            (label::REMOTE_CLUSTER_ID.to_owned(), origin.to_owned()),
            security("enforce", &self.pod_security),
            security("warn", "restricted"),
            security("audit", "restricted"),
        ])
    }

    /// Whether the name is that of Kubernetes or of Liqo.
    pub(super) fn is_system(&self, name: &str) -> bool {
        name.starts_with("kube-")
            || name.starts_with(names::TENANT_NAMESPACE_PREFIX)
            || self.own.iter().any(|own| own == name)
    }

    /// Why a peer gets no new namespace of that name.
    fn closed(&self, name: &str, origin: &str) -> Option<String> {
        if self.reserved.iter().any(|pattern| matches(pattern, name)) {
            return Some(belongs_here(name));
        }
        let is_free = name.ends_with(&format!("-{}", short_hash(origin)))
            || self.free.iter().any(|pattern| matches(pattern, name));
        (!is_free).then(|| {
            format!(
                "peers do not choose the name {name:?} here (offloading.freeNames): offload the namespace with the \
                 NamespaceMappingStrategy DefaultName"
            )
        })
    }
}

/// Whether a name is like a pattern; `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name
            .strip_prefix(start)
            .is_some_and(|name| (0..=name.len()).any(|at| name.get(at..).is_some_and(|name| matches(rest, name)))),
    }
}

/// The entries of `map` within the limit of its peer, by their original names. `maps`: what all maps of the peer ask for, the
/// oldest first; `there`: the namespaces that were made for them. Entries whose namespace exists come first. A namespace that
/// no map names any more counts until it is gone.
pub(super) fn within(
    map: &str,
    maps: &[(String, &BTreeMap<String, String>)],
    there: &[(Owner, String)],
    most: usize,
) -> BTreeSet<String> {
    let entries = maps.iter().flat_map(|(map, desired)| {
        desired.iter().map(move |(original, name)| (Owner { map: map.clone(), original: original.clone() }, name))
    });
    let (kept, new): (Vec<_>, Vec<_>) =
        entries.partition(|(owner, name)| there.iter().any(|(is, at)| is == owner && at == *name));
    let allowed = kept.into_iter().take(most).chain(new.into_iter().take(most.saturating_sub(there.len())));
    allowed.filter(|(owner, _)| owner.map == map).map(|(owner, _)| owner.original).collect()
}

/// Compares what a map asks for with the namespace that has that name.
pub(super) fn look(owner: &Owner, origin: &str, name: &str, there: Option<&Namespace>, rules: &Rules) -> Step {
    if let Some(why) = dns_label_error(name) {
        return Step::Refuse(format!("the name of the namespace {name:?} {why}"));
    }
    if rules.is_system(name) {
        return Step::Refuse(belongs_here(name));
    }
    let Some(there) = there else { return rules.closed(name, origin).map_or(Step::Create, Step::Refuse) };
    match owner_of(there) {
        Some(is) if is.map != owner.map => Step::Refuse(foreign(owner, name)),
        None => Step::Refuse(foreign(owner, name)),
        Some(is) if is.original != owner.original => {
            Step::Refuse(format!("namespace {name:?} is already the remote namespace of {:?}", is.original))
        }
        Some(_) if is_leaving(there) => Step::Wait,
        Some(_) if !is_marked(there, origin) => {
            Step::Refuse(format!("namespace {name:?} has no label {}={origin}", label::REMOTE_CLUSTER_ID))
        }
        Some(_) => {
            let is_wrong = rules.labels(origin).iter().any(|(key, value)| there.labels().get(key) != Some(value));
            Step::Keep { label: is_wrong }
        }
    }
}

fn belongs_here(name: &str) -> String {
    format!("namespace {name:?} belongs to this cluster: peers cannot have it")
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
        namespace.metadata.labels = Some(rules().labels(origin));
        namespace
    }

    fn rules() -> Rules {
        Rules {
            own: ["liqo", "liqo-storage"].map(str::to_owned),
            reserved: ["cert-manager", "istio-*"].map(str::to_owned).into(),
            free: vec!["*".to_owned()],
            pod_security: "baseline".to_owned(),
            namespaces_per_peer: 64,
            objects: Vec::new(),
        }
    }

    fn ask(name: &str, there: Option<&Namespace>) -> Step {
        look(&owner("tenant/map", "demo"), "id", name, there, &rules())
    }

    #[test]
    fn a_peer_gets_what_is_free_or_its_own() {
        let own = namespace(Some(owner("tenant/map", "demo")), "id");
        assert_eq!(ask("demo-x", None), Step::Create);
        assert_eq!(ask("liqo-demo", None), Step::Create);
        assert_eq!(ask("demo-x", Some(&own)), Step::Keep { label: false });
        // Annotations alone do not make a namespace the peer's: whoever may edit a namespace can write them.
        let unlabelled = namespace(Some(owner("tenant/map", "demo")), "other");
        assert!(matches!(ask("demo-x", Some(&unlabelled)), Step::Refuse(why) if why.contains("no label")));
        let mut loosened = own.clone();
        loosened.labels_mut().insert("pod-security.kubernetes.io/enforce".to_owned(), "privileged".to_owned());
        assert_eq!(ask("demo-x", Some(&loosened)), Step::Keep { label: true });
        let mut leaving = own;
        leaving.metadata.deletion_timestamp = Some(liqo_kube::now());
        assert_eq!(ask("demo-x", Some(&leaving)), Step::Wait);
    }

    #[test]
    fn a_peer_does_not_get_what_is_not_its_own() {
        let others = [
            namespace(None, "id"),
            namespace(Some(owner("tenant/other", "demo")), "id"),
            namespace(Some(owner("tenant/map", "another")), "id"),
        ];
        for there in &others {
            assert!(matches!(ask("demo-x", Some(there)), Step::Refuse(_)));
        }
        assert_eq!(
            ask("demo-x", Some(&others[0])),
            Step::Refuse(
                "namespace \"demo-x\" already exists and it is not managed by NamespaceMap \"tenant/map\"".to_owned()
            )
        );
        let own = namespace(Some(owner("tenant/map", "demo")), "id");
        for name in ["kube-system", "kube-x", "liqo", "liqo-storage", "liqo-tenant-x", "A", "", &"n".repeat(64)] {
            assert!(matches!(ask(name, None), Step::Refuse(_)), "{name}");
            assert!(matches!(ask(name, Some(&own)), Step::Refuse(_)), "{name}");
        }
    }

    #[test]
    fn reserved_names_are_given_to_no_peer_and_taken_from_none() {
        let own = namespace(Some(owner("tenant/map", "demo")), "id");
        for name in ["cert-manager", "istio-system"] {
            assert_eq!(ask(name, None), Step::Refuse(belongs_here(name)));
            assert_eq!(ask(name, Some(&own)), Step::Keep { label: false }, "{name} before an upgrade");
        }
    }

    #[test]
    fn a_provider_chooses_which_names_are_free() {
        let look = |free: &[&str], name: &str, there: Option<&Namespace>| {
            let rules = Rules { free: free.iter().map(|name| (*name).to_owned()).collect(), ..rules() };
            look(&owner("tenant/map", "demo"), "id", name, there, &rules)
        };
        let (unique, own) =
            (format!("demo-rome-{}", short_hash("id")), namespace(Some(owner("tenant/map", "demo")), "id"));
        for (free, name, wanted) in [
            (&["*"][..], "velero", true),
            (&["shop", "lab-*"], "shop", true),
            (&["shop", "lab-*"], "lab-7", true),
            (&["shop", "lab-*"], "velero", false),
            (&[], "demo", false),
            (&[], "demo-rome-000000", false),
            (&[], &unique, true),
        ] {
            let made = look(free, name, None);
            assert_eq!(made == Step::Create, wanted, "{free:?} {name}: {made:?}");
            assert_eq!(look(free, name, Some(&own)), Step::Keep { label: false }, "{name}");
        }
        assert!(matches!(look(&[], "demo", None), Step::Refuse(why) if why.contains("offloading.freeNames")));
    }

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("default", "default", true),
            ("default", "default-x", false),
            ("istio-*", "istio-system", true),
            ("*-system", "gatekeeper-system", true),
            ("*-system", "systems", false),
            ("a*b*c", "a-b-c", true),
            ("*", "anything", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn all_maps_of_a_peer_share_its_namespaces() {
        type Entries<'a> = &'a [(&'a str, &'a str)];
        let allowed = |maps: &[(&str, Entries<'_>)], there: &[(&str, &str, &str)], most: usize| -> Vec<String> {
            let text =
                |all: Entries<'_>| all.iter().map(|(key, name)| ((*key).to_owned(), (*name).to_owned())).collect();
            let asked: Vec<(String, BTreeMap<_, _>)> =
                maps.iter().map(|(map, all)| ((*map).to_owned(), text(all))).collect();
            let asked: Vec<_> = asked.iter().map(|(map, all)| (map.clone(), all)).collect();
            let there: Vec<_> = there.iter().map(|(map, key, name)| (owner(map, key), (*name).to_owned())).collect();
            let of =
                |map: &str| within(map, &asked, &there, most).into_iter().map(|key| format!("{map}/{key}")).collect();
            maps.iter().flat_map(|(map, _)| -> Vec<String> { of(map) }).collect()
        };
        let four: Entries<'_> = &[("a", "a-x"), ("b", "b-x"), ("c", "c-x"), ("d", "d-x")];
        let more: Entries<'_> = &[("e", "e-x"), ("f", "f-x")];
        for (maps, there, most, wanted) in [
            (vec![("t/m", four)], vec![], 9, "t/m/a t/m/b t/m/c t/m/d"),
            (vec![("t/m", four)], vec![("t/m", "d", "d-x")], 2, "t/m/a t/m/d"),
            (vec![("t/m", four)], vec![("t/m", "a", "a-x"), ("t/m", "d", "d-x")], 1, "t/m/a"),
            // A second map begins where the first one ends.
            (vec![("t/m", four), ("t/n", more)], vec![], 5, "t/m/a t/m/b t/m/c t/m/d t/n/e"),
            (vec![("t/n", more), ("t/m", four)], vec![], 5, "t/n/e t/n/f t/m/a t/m/b t/m/c"),
            (
                vec![("t/m", four), ("t/n", more)],
                vec![("t/n", "e", "e-x"), ("t/n", "f", "f-x")],
                3,
                "t/m/a t/n/e t/n/f",
            ),
            // Namespaces on their way out, renamed or of a map that is gone, count.
            (vec![("t/m", more)], vec![("t/m", "e", "old"), ("t/gone", "a", "a-x")], 3, "t/m/e"),
            (vec![("t/m", more)], vec![("t/m", "e", "old"), ("t/gone", "a", "a-x")], 2, ""),
        ] {
            assert_eq!(allowed(&maps, &there, most).join(" "), wanted, "{maps:?} {there:?} {most}");
        }
    }
}
