//! The kinds of volumes that pods of peers may have.
//!
//! Keeps true: a kind passes because a list names the kind, so a kind that this build does not know never passes; the contents
//! of a volume come from the pod, from objects in its namespace, or from a claim that the peer could have created itself.
//! Volumes of other kinds are mounted by the node, from the network of the node, past NetworkPolicies and the gateway.

use k8s_openapi::api::core::v1::{PersistentVolumeClaimTemplate, PodSpec, Volume};
use liqo_api::meta::label;
use serde::Serialize;
use serde_json::{Value, json};

use super::{GuestArgs, quoted};
use crate::admit::peer::could_create;

/// Kinds that every pod of a peer may have.
const KINDS: [&str; 6] = ["configMap", "downwardAPI", "emptyDir", "persistentVolumeClaim", "projected", "secret"];
/// The kind that brings a claim along. The claim is created by a controller of this cluster, not by the peer.
const EPHEMERAL: &str = "ephemeral";
/// Kinds of sources that a `projected` volume may have. The others are credentials and authorities of this cluster.
const SOURCES: [&str; 3] = ["configMap", "downwardAPI", "secret"];

/// Refuses volumes of a pod of `peer`. `door`: the settings that loosen what peers may write.
pub(super) fn check(args: &GuestArgs, door: Option<&Value>, (peer, pod): (&str, &PodSpec), all: &mut Vec<String>) {
    let given = |kind: &str| args.guest_privileged || args.guest_volumes.iter().any(|one| one == kind);
    for volume in pod.volumes.iter().flatten() {
        let name = quoted(&volume.name);
        let kinds = kinds(volume);
        if kinds.is_empty() {
            all.push(format!("volume {name}: of no kind that this version of Liqo knows"));
        }
        for kind in kinds.iter().filter(|kind| !KINDS.contains(&kind.as_str()) && *kind != EPHEMERAL && !given(kind)) {
            all.push(format!("volume {name}: {kind} is not in offloading.guests.volumes of this cluster"));
        }
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            let is_plain =
                |kinds: &[String]| !kinds.is_empty() && kinds.iter().all(|one| SOURCES.contains(&one.as_str()));
            let kinds = fields(source);
            if !is_plain(&kinds) {
                let kinds = kinds.join(", ");
                all.push(format!("volume {name}: projected {kinds}: tokens and authorities are not for pods of peers"));
            }
        }
        if let Some(ephemeral) = &volume.ephemeral
            && let Err(why) = claim(door, peer, ephemeral.volume_claim_template.as_ref())
        {
            all.push(format!("volume {name}: the claim: {why}"));
        }
    }
}

/// The kinds of a volume, one if the volume is valid.
fn kinds(volume: &Volume) -> Vec<String> {
    fields(volume).into_iter().filter(|field| field != "name").collect()
}

/// The names of the fields that are set.
fn fields(one: &impl Serialize) -> Vec<String> {
    match serde_json::to_value(one) {
        Ok(Value::Object(fields)) => fields.into_iter().map(|(name, _)| name).collect(),
        _ => Vec::new(),
    }
}

/// Whether the peer could have created the claim itself: the claim is judged by the rules of the door.
///
/// # Errors
/// The reason of the refusal.
fn claim(door: Option<&Value>, peer: &str, template: Option<&PersistentVolumeClaimTemplate>) -> Result<(), String> {
    let template = template.ok_or("there is no volumeClaimTemplate")?;
    let mut object = json!({"metadata": template.metadata, "spec": template.spec});
    let metadata = &mut object["metadata"];
    if metadata.is_null() {
        *metadata = json!({});
    }
    let labels = &mut metadata["labels"];
    if labels.is_null() {
        *labels = json!({});
    }
    // A virtual kubelet labels what it creates; the controller that creates the claim does not.
    if let Some(labels) = labels.as_object_mut() {
        labels.entry(label::REFLECTION_ORIGIN).or_insert_with(|| json!(peer));
    }
    could_create(peer, "persistentvolumeclaims", object, door)?;
    // At the door a claim has its class by now, at least the default class of this cluster.
    let classes = door.and_then(|door| door["storageClasses"].as_str()).unwrap_or_default();
    if template.spec.storage_class_name.is_none() && classes.split(' ').all(|class| class != "*") {
        return Err("it names no storage class, and only those in peerPolicy.storageClasses are for peers".to_owned());
    }
    Ok(())
}
