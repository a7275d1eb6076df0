//! `Ingress` to `Ingress`, served there by whatever class is the default one.

use std::sync::Arc;

use k8s_openapi::api::networking::v1::{Ingress, IngressSpec};
use liqo_api::meta::annotation;
use liqo_kube::twin::{Forged, Reflect};

use super::twin_meta::{SKIPPED, is_skipped, metadata};
use crate::link::Link;

/// The class as it was written before there was a field for it.
const CLASS: &str = "kubernetes.io/ingress.class";

#[derive(Clone)]
pub(super) struct Ingresses(pub(super) Arc<Link>);

impl Reflect for Ingresses {
    const NAME: &'static str = "ingress";
    type Here = Ingress;
    type There = Ingress;
    type Seen = Ingress;
    const RECORD: Option<&'static str> = Some(annotation::ORIGINAL_UID);

    fn forge(&self, here: &Ingress, _there: Option<&Ingress>) -> Forged<Ingress> {
        if is_skipped(here) {
            return Forged::Nothing(Some(SKIPPED.to_owned()));
        }
        let mut metadata = metadata(here, &self.0);
        if let Some(annotations) = &mut metadata.annotations {
            annotations.remove(CLASS);
        }
        let spec = here.spec.clone().map(|spec| IngressSpec { ingress_class_name: None, ..spec });
        Forged::Make(Box::new(Ingress { metadata, spec, status: None }))
    }

    fn ours(&self, there: &Ingress) -> bool {
        self.0.made(there)
    }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_class_is_left_out() {
        let here: Ingress = serde_json::from_value(json!({
            "metadata": {"annotations": {CLASS: "nginx", "note": "x"}},
            "spec": {"ingressClassName": "nginx", "rules": [{"host": "a.b"}], "tls": [{"hosts": ["a.b"], "secretName": "s"}]},
        }))
        .unwrap();
        let Forged::Make(twin) = Ingresses(Arc::new(Link::example())).forge(&here, None) else { panic!("reflected") };
        let spec = json!({"rules": [{"host": "a.b"}], "tls": [{"hosts": ["a.b"], "secretName": "s"}]});
        assert_eq!(serde_json::to_value(&twin.spec).unwrap(), spec);
        assert_eq!(twin.annotations().keys().collect::<Vec<_>>(), ["note"]);
    }
}
