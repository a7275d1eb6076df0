//! `EndpointSlice` to `ShadowEndpointSlice`: what of a Service runs here, for its clients there.
//!
//! Endpoints on our own virtual node are left out, there they are ordinary pods. Addresses of every family
//! and host names go through as they are.

use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use kube::ResourceExt;
use liqo_api::{
    meta::label,
    virtualkubelet::{EndpointSliceTemplate, ShadowEndpointSlice, ShadowEndpointSliceSpec},
};
use liqo_kube::twin::{Forged, Reflect};

use super::{
    service::is_api_server,
    twin_meta::{SKIPPED, is_skipped, metadata},
};
use crate::link::Link;

/// Whether a Service shall not be reflected; `None` while that is not known yet.
pub(super) type ServiceSkipped = Arc<dyn Fn(&str) -> Option<bool> + Send + Sync>;

#[derive(Clone)]
pub(super) struct EndpointSlices {
    pub(super) link: Arc<Link>,
    pub(super) service_skipped: ServiceSkipped,
}

/// The Service a slice belongs to.
pub(super) fn service_of(slice: &EndpointSlice) -> Option<&str> {
    slice.labels().get(label::SERVICE_NAME).map(String::as_str)
}

impl Reflect for EndpointSlices {
    const NAME: &'static str = "endpoint-slice";
    type Here = EndpointSlice;
    type There = ShadowEndpointSlice;
    type Seen = ShadowEndpointSlice;

    fn forge(&self, here: &EndpointSlice, _there: Option<&ShadowEndpointSlice>) -> Forged<ShadowEndpointSlice> {
        let service = service_of(here).unwrap_or_default();
        if is_api_server(here.namespace().as_deref(), service) {
            return Forged::Nothing(None);
        }
        if is_skipped(here) {
            return Forged::Nothing(Some(SKIPPED.to_owned()));
        }
        match (self.service_skipped)(service) {
            Some(false) => {}
            Some(true) => return Forged::Nothing(Some(SKIPPED.to_owned())),
            None => return Forged::NotYet,
        }
        let mut metadata = metadata(here, &self.link);
        let labels = metadata.labels.get_or_insert_default();
        labels.insert(label::ENDPOINT_SLICE_MANAGED_BY.to_owned(), label::ENDPOINT_SLICE_MANAGER.to_owned());
        let template = template(here, &self.link);
        Forged::Make(Box::new(ShadowEndpointSlice { metadata, spec: ShadowEndpointSliceSpec { template } }))
    }

    fn ours(&self, there: &ShadowEndpointSlice) -> bool {
        self.link.made(there)
    }
}

fn template(here: &EndpointSlice, link: &Link) -> EndpointSliceTemplate {
    let elsewhere = |endpoint: &&Endpoint| endpoint.node_name.as_deref() != Some(&link.node);
    EndpointSliceTemplate {
        endpoints: here.endpoints.iter().flatten().filter(elsewhere).map(|endpoint| twin(endpoint, link)).collect(),
        ports: here.ports.clone().unwrap_or_default(),
        address_type: here.address_type.clone(),
    }
}

fn twin(endpoint: &Endpoint, link: &Link) -> Endpoint {
    let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready);
    let target_ref = endpoint.target_ref.clone().map(|mut target| {
        target.kind = target.kind.map(|kind| format!("Remote{kind}"));
        target
    });
    let hints = endpoint.hints.clone().map(|mut hints| {
        // Our nodes are none of theirs.
        hints.for_nodes = None;
        hints
    });
    Endpoint {
        addresses: endpoint.addresses.clone(),
        conditions: Some(EndpointConditions { ready, ..EndpointConditions::default() }),
        hints,
        hostname: endpoint.hostname.clone(),
        node_name: Some(link.here.cluster_name.clone()),
        target_ref,
        zone: endpoint.zone.clone(),
        deprecated_topology: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slices(skipped: Option<bool>) -> EndpointSlices {
        EndpointSlices { link: Arc::new(Link::example()), service_skipped: Arc::new(move |_| skipped) }
    }

    /// The slice the recorded twin was made from: two pods here, one on the virtual node.
    fn here() -> EndpointSlice {
        let endpoint = |ip: &str, node: &str, pod: &str, uid: &str| {
            json!({
                "addresses": [ip], "conditions": {"ready": true, "serving": true, "terminating": false}, "nodeName": node,
                "targetRef": {"kind": "Pod", "name": pod, "namespace": "demo", "uid": uid},
            })
        };
        serde_json::from_value(json!({
            "metadata": {
                "name": "web-9mskk", "namespace": "demo",
                "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-11-20T23:23:26Z"},
                "labels": {
                    "app": "web", "kubernetes.io/service-name": "web",
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                },
            },
            "addressType": "IPv4",
            "endpoints": [
                endpoint("10.245.0.43", "c1", "web-69bb7bfc6c-j2zfg", "c1c13a53-34d6-4530-8bfa-0ee2c0736526"),
                endpoint("10.244.0.99", "liqo-provider", "web-69bb7bfc6c-267gx", "x"),
                endpoint("10.245.0.44", "c1", "web-69bb7bfc6c-m26kt", "fc7a1ba3-0f69-4766-924e-9fba057acbf2"),
            ],
            "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
        }))
        .unwrap()
    }

    #[test]
    fn the_twin_is_the_recorded_one() {
        let Forged::Make(twin) = slices(Some(false)).forge(&here(), None) else { panic!("reflected") };
        let recorded: Value =
            serde_json::from_str(include_str!("../../tests/recorded/shadow_endpoint_slice.json")).unwrap();
        let twin = serde_json::to_value(&twin).unwrap();
        assert_eq!(twin["spec"], recorded["spec"]);
        for field in ["labels", "annotations"] {
            assert_eq!(twin["metadata"][field], recorded["metadata"][field], "{field}");
        }
    }

    #[test]
    fn the_service_decides_with() {
        assert!(matches!(slices(Some(true)).forge(&here(), None), Forged::Nothing(Some(_))));
        assert_eq!(slices(None).forge(&here(), None), Forged::NotYet);
        let mut own = here();
        own.metadata.namespace = Some("default".into());
        own.labels_mut().insert(label::SERVICE_NAME.into(), "kubernetes".into());
        assert_eq!(slices(Some(false)).forge(&own, None), Forged::Nothing(None));
    }

    #[test]
    fn every_family_of_addresses_goes_through() {
        for (family, address) in [("IPv6", "fd00::7"), ("FQDN", "db.example.org")] {
            let mut slice = here();
            slice.address_type = family.into();
            slice.endpoints.as_mut().unwrap()[0].addresses = vec![address.into()];
            let template = template(&slice, &Link::example());
            assert_eq!(
                (template.address_type.as_str(), template.endpoints[0].addresses[0].as_str()),
                (family, address)
            );
        }
    }
}
