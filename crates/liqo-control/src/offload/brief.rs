//! Objects of peers as watches keep them: small objects whole, of large ones the part that is compared with other objects.
//!
//! Keeps true: an object in memory takes a few kilobytes, however large the peer made it. Who acts on an object that is kept in
//! part reads the object again, see [`whole`].

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1::{Container, PodSpec, ResourceRequirements},
    discovery::v1::{Endpoint, EndpointSlice},
};
use kube::ResourceExt;
use liqo_api::{
    meta::label,
    virtualkubelet::{ShadowEndpointSlice, ShadowPod},
};
use liqo_core::resources;
use liqo_kube::{Cluster, KubeError, Object, strip};
use serde::Serialize;

use super::{allowance, guest};

/// Annotation in memory of an object that is kept in part. An object that has the annotation in the API server is read once more
/// than needed.
const BRIEF: &str = "liqo.io/brief";
/// Largest object that is kept whole: bytes of its JSON, and objects in it.
const BYTES: usize = 8 * 1024;
const OBJECTS: usize = 96;
/// Most containers and volumes of a pod, and endpoints of a slice, that are kept: each takes about a kilobyte.
const CONTAINERS: usize = 8;
const VOLUMES: usize = 16;
const ENDPOINTS: usize = 8;

/// Keeps of a large `ShadowPod` what counts for the offer to its peer.
pub(crate) fn shadow_pod(shadow: &mut ShadowPod) {
    strip(shadow);
    let pod = shadow.spec.pod.as_ref();
    let lists = pod.map(|pod| {
        let ephemeral = pod.ephemeral_containers.as_ref().map_or(0, Vec::len);
        (guest::containers(pod).count() + ephemeral, pod.volumes.as_ref().map_or(0, Vec::len))
    });
    let is_small = lists.is_none_or(|(containers, volumes)| containers <= CONTAINERS && volumes <= VOLUMES);
    if is_small && is_light(shadow) {
        return;
    }
    shadow.spec.pod = pod.map(as_demand);
    abridge(shadow);
}

/// A pod with one container that uses what the whole pod uses.
fn as_demand(pod: &PodSpec) -> PodSpec {
    let mut all = allowance::demand(pod);
    all.remove(allowance::PODS);
    let resources = ResourceRequirements { limits: Some(resources::write(&all)), ..ResourceRequirements::default() };
    let containers = vec![Container { resources: Some(resources), ..Container::default() }];
    PodSpec { containers, restart_policy: pod.restart_policy.clone(), ..PodSpec::default() }
}

/// Keeps of a large `ShadowEndpointSlice` whose it is.
pub(super) fn shadow_slice(shadow: &mut ShadowEndpointSlice) {
    strip(shadow);
    if fits(&shadow.spec.template.endpoints) && is_light(shadow) {
        return;
    }
    shadow.spec = Default::default();
    abridge(shadow);
}

/// Keeps of a large `EndpointSlice` that it is there.
pub(super) fn slice(slice: &mut EndpointSlice) {
    if fits(slice.endpoints.as_deref().unwrap_or_default()) && is_light(slice) {
        return;
    }
    (slice.endpoints, slice.ports, slice.metadata.managed_fields) = (None, None, None);
    abridge(slice);
}

/// The whole object; `None`: the object is gone, or another one has its name.
///
/// # Errors
/// When the API server does not answer.
pub(super) async fn whole<K: Object>(cluster: &Cluster, known: Arc<K>) -> Result<Option<Arc<K>>, KubeError> {
    if !is_brief(&*known) {
        return Ok(Some(known));
    }
    let found = cluster.get::<K>(&known.namespace().unwrap_or_default(), &known.name_any()).await?;
    Ok(same(&*known, found).map(Arc::new))
}

/// The object in the API server of which memory holds a part; one with the name alone is another object.
fn same<K: Object>(known: &K, found: Option<K>) -> Option<K> {
    found.filter(|found| found.uid() == known.uid())
}

/// Whether an object in memory is a part of the object in the API server.
fn is_brief<K: Object>(known: &K) -> bool {
    known.annotations().contains_key(BRIEF)
}

fn abridge<K: Object>(object: &mut K) {
    object.meta_mut().annotations = Some(BTreeMap::from([(BRIEF.to_owned(), String::new())]));
    object.labels_mut().retain(|key, _| [label::REFLECTION_ORIGIN, label::MANAGED_BY].contains(&key.as_str()));
}

fn fits(endpoints: &[Endpoint]) -> bool {
    endpoints.iter().map(|one| one.addresses.len().max(1)).sum::<usize>() <= ENDPOINTS
}

fn is_light(object: &impl Serialize) -> bool {
    let Weight { bytes, objects } = Weight::of(object);
    bytes <= BYTES && objects <= OBJECTS
}

/// The size of an object.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weight {
    /// Bytes of its JSON.
    pub(super) bytes: usize,
    /// Objects in its JSON; braces in texts count, too.
    objects: usize,
}

impl Weight {
    pub(super) fn of(object: &impl Serialize) -> Self {
        let mut weight = Self::default();
        // No writing fails, and every object is JSON.
        let _ = serde_json::to_writer(&mut weight, object);
        weight
    }
}

impl Write for Weight {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes += bytes.len();
        self.objects += bytes.iter().filter(|byte| **byte == b'{').count();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn shadow(pod: Value) -> ShadowPod {
        let labels = json!({"virtualkubelet.liqo.io/origin": "id", "app": "web"});
        let metadata = json!({"name": "web", "namespace": "demo-x", "labels": labels, "annotations": {"a": "b"}});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"pod": pod}, "status": {"phase": "Running"}}))
            .unwrap()
    }

    fn container(name: usize) -> Value {
        json!({"name": name.to_string(), "resources": {"limits": {"cpu": "10m", "memory": "1Mi"}}})
    }

    #[test]
    fn what_counts_stays_the_same_however_large_a_pod_is() {
        let containers = |count: usize| (0..count).map(container).collect::<Value>();
        let long = json!({"name": "c", "command": ["x".repeat(BYTES)], "resources": {"limits": {"cpu": "5"}}});
        for (what, pod, is_whole) in [
            ("recorded", json!({"containers": containers(2), "volumes": [{"name": "v", "emptyDir": {}}]}), true),
            ("long", json!({"containers": [long], "initContainers": containers(1)}), false),
            ("many containers", json!({"containers": containers(1000)}), false),
            ("many volumes", json!({"containers": [], "volumes": vec![json!({"name": "v"}); 17]}), false),
            ("many objects", json!({"containers": [], "tolerations": vec![json!({}); 97]}), false),
        ] {
            let (shadow, mut kept) = (shadow(pod.clone()), shadow(pod));
            shadow_pod(&mut kept);
            assert_eq!(kept == shadow, is_whole, "{what}");
            assert_eq!(kept.annotations().contains_key(BRIEF), !is_whole, "{what}");
            assert_eq!(allowance::demand_of(&kept), allowance::demand_of(&shadow), "{what}");
            assert_eq!(allowance::counts(&kept, "id"), allowance::counts(&shadow, "id"), "{what}");
            assert!(Weight::of(&kept).bytes < BYTES + 1024, "{what}: {kept:?}");
        }
    }

    #[test]
    fn the_whole_of_an_object_is_read_of_no_other() {
        let long = json!({"containers": [{"name": "c", "command": ["x".repeat(BYTES)]}]});
        let of = |uid: &str, pod: &Value| {
            let mut shadow = shadow(pod.clone());
            shadow.metadata.uid = Some(uid.to_owned());
            shadow
        };
        let short = json!({"containers": [container(1)]});
        let kept = |pod: &Value| {
            let mut kept = of("first", pod);
            shadow_pod(&mut kept);
            kept
        };
        assert!(is_brief(&kept(&long)) && !is_brief(&kept(&short)));
        for (what, found, wanted) in [
            ("as it was", Some(of("first", &long)), Some(of("first", &long))),
            ("changed since", Some(of("first", &short)), Some(of("first", &short))),
            ("made anew", Some(of("second", &long)), None),
            ("gone", None, None),
        ] {
            assert_eq!(same(&kept(&long), found), wanted, "{what}");
        }
    }

    #[test]
    fn slices_of_many_endpoints_are_kept_in_part() {
        for (endpoints, addresses, is_whole) in
            [(0, 0, true), (8, 1, true), (9, 1, false), (1, 9, false), (1000, 1, false)]
        {
            let one = json!({"addresses": vec!["10.0.0.1"; addresses], "nodeName": "n"});
            let endpoints = vec![one; endpoints];
            let metadata = json!({"name": "web", "labels": {"virtualkubelet.liqo.io/origin": "id", "app": "web"}});
            let of = |metadata: &Value| -> ShadowEndpointSlice {
                let template = json!({"addressType": "IPv4", "endpoints": endpoints, "ports": []});
                serde_json::from_value(json!({"metadata": metadata, "spec": {"template": template}})).unwrap()
            };
            let (shadow, mut kept) = (of(&metadata), of(&metadata));
            shadow_slice(&mut kept);
            assert_eq!(
                (kept == shadow, kept.labels().get(label::REFLECTION_ORIGIN)),
                (is_whole, shadow.labels().get(label::REFLECTION_ORIGIN))
            );
            let mut made: EndpointSlice = serde_json::from_value(
                json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": []}),
            )
            .unwrap();
            slice(&mut made);
            assert_eq!(made.annotations().contains_key(BRIEF), !is_whole);
            assert!(Weight::of(&made).bytes < 1024 && Weight::of(&kept).bytes < 1024);
        }
    }
}
