//! `ConfigMap` to `ConfigMap`. The root certificates get another name there, since every namespace has its own.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use liqo_api::meta::annotation;
use liqo_kube::twin::{Forged, Reflect};

use super::twin_meta::{SKIPPED, is_skipped, metadata};
use crate::link::Link;

/// The config map with which Kubernetes tells every namespace the authority of its API server.
const ROOT_CA: &str = "kube-root-ca.crt";

#[derive(Clone)]
pub(super) struct ConfigMaps(pub(super) Arc<Link>);

/// How our root certificates are called there: with the first five characters of our cluster ID.
pub(super) fn root_ca_there(home_cluster_id: &str) -> String {
    let id: String = home_cluster_id.chars().take(5).collect();
    format!("{ROOT_CA}.{id}")
}

/// How a config map is called there.
pub(super) fn name_there(name: &str, home_cluster_id: &str) -> String {
    if name == ROOT_CA { root_ca_there(home_cluster_id) } else { name.to_owned() }
}

impl Reflect for ConfigMaps {
    const NAME: &'static str = "config-map";
    type Here = ConfigMap;
    type There = ConfigMap;
    type Seen = ConfigMap;
    const RECORD: Option<&'static str> = Some(annotation::ORIGINAL_UID);

    fn forge(&self, here: &ConfigMap, _there: Option<&ConfigMap>) -> Forged<ConfigMap> {
        if is_skipped(here) {
            return Forged::Nothing(Some(SKIPPED.to_owned()));
        }
        Forged::Make(Box::new(ConfigMap {
            metadata: metadata(here, &self.0),
            data: here.data.clone(),
            binary_data: here.binary_data.clone(),
            immutable: here.immutable,
        }))
    }

    fn ours(&self, there: &ConfigMap) -> bool {
        self.0.made(there)
    }

    fn name_there(&self, name: &str) -> String {
        name_there(name, &self.0.here.cluster_id)
    }

    fn name_here(&self, name: &str) -> Option<String> {
        if name == root_ca_there(&self.0.here.cluster_id) {
            return Some(ROOT_CA.to_owned());
        }
        // Every namespace there has one of its own.
        (name != ROOT_CA).then(|| name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kube::ResourceExt;

    use super::*;

    fn config_maps() -> ConfigMaps {
        ConfigMaps(Arc::new(Link::example()))
    }

    #[test]
    fn everything_but_the_identity_is_copied() {
        let mut here = ConfigMap {
            data: Some(BTreeMap::from([("key".to_owned(), "value".to_owned())])),
            immutable: Some(true),
            ..ConfigMap::default()
        };
        here.metadata.uid = Some("x".into());
        here.labels_mut().insert("app".into(), "web".into());
        here.annotations_mut().insert("note".into(), "yes".into());
        let Forged::Make(twin) = config_maps().forge(&here, None) else { panic!("it is reflected") };
        assert_eq!((twin.data.clone(), twin.immutable), (here.data.clone(), here.immutable));
        assert_eq!(twin.labels().len(), 3);
        assert!(config_maps().ours(&twin) && !config_maps().ours(&here));
        assert_eq!((twin.annotations(), twin.metadata.uid.as_ref()), (here.annotations(), None));

        here.annotations_mut().insert(annotation::SKIP_REFLECTION.into(), "false".into());
        assert_eq!(config_maps().forge(&here, None), Forged::Nothing(Some(SKIPPED.into())));
    }

    #[test]
    fn the_root_certificates_have_another_name_there() {
        let maps = config_maps();
        assert_eq!(maps.name_there("kube-root-ca.crt"), "kube-root-ca.crt.09897");
        assert_eq!(maps.name_here("kube-root-ca.crt.09897").as_deref(), Some("kube-root-ca.crt"));
        assert_eq!(maps.name_here("kube-root-ca.crt"), None, "that one is theirs");
        assert_eq!((maps.name_there("a"), maps.name_here("a")), ("a".to_owned(), Some("a".to_owned())));
    }
}
