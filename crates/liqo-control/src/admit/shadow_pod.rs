//! `ShadowPod`s: a peer creates `ShadowPod`s only in its own namespaces, only of pods that the guest profile allows and, with
//! enforcement, within the offer to the peer.

use std::{net::IpAddr, sync::Arc};

use liqo_api::{meta::label, virtualkubelet::ShadowPod};
use serde_json::{Map, Value};

use super::{
    Context, origin_of_namespace,
    quota::{Asked, Refusal},
    review::{Request, Verdict, label_of, text},
};
use crate::offload::guest::{self, GuestArgs};

const MISSING: &str = "missing origin Cluster ID label";
const MISMATCH: &str = "shadowpod Cluster ID label mismatch";
/// The typing error is part of the contract.
const CHANGED: &str = "shadopow Cluster ID label is changed";
const FIXED: &str = "only the images, activeDeadlineSeconds and the tolerations of a ShadowPod can be modified";

/// Whether a peer may do what it asks for.
pub(super) async fn validate(context: &Arc<Context>, asked: Request, source: IpAddr) -> Verdict {
    let outcome = match asked.operation.as_str() {
        "CREATE" => create(context, asked, source).await,
        "UPDATE" => {
            let profile = Profile::of(context);
            context.turns.run(source, move || update(&profile, &asked.old_object, &asked.object)).await
        }
        _ => Ok(()),
    };
    outcome.err().unwrap_or_else(Verdict::allow)
}

async fn create(context: &Context, asked: Request, source: IpAddr) -> Result<(), Verdict> {
    let origin = origin(&asked.object).to_owned();
    if origin.is_empty() {
        return Err(Verdict::deny(MISSING));
    }
    let owner = origin_of_namespace(context, &asked.namespace, source).await;
    if owner.map_err(|why| Verdict::error(400, why))?.as_ref() != Some(&origin) {
        return Err(Verdict::deny(MISMATCH));
    }
    let profile = Profile::of(context);
    let wanted = context.turns.run(source, move || wanted(&profile, origin, asked)).await?;
    let Some(quota) = &context.quota else { return Ok(()) };
    quota.admit(wanted, &context.turns, source).await.map_err(|refusal| match refusal {
        Refusal::Denied(why) => Verdict::deny(why),
        Refusal::Unable(why) => Verdict::error(500, why),
    })
}

/// The settings that the guest profile depends on.
#[derive(Default)]
struct Profile {
    guests: GuestArgs,
    door: Option<Value>,
}

impl Profile {
    fn of(context: &Context) -> Self {
        Self { guests: context.guests.clone(), door: context.policy.settings() }
    }

    fn violations(&self, shadow: &ShadowPod) -> Vec<String> {
        let pod = shadow.spec.pod.clone().unwrap_or_default();
        guest::violations(&self.guests, self.door.as_ref(), &shadow.metadata, &pod)
    }
}

/// The pod that is asked for, if the guest profile allows such a pod.
fn wanted(profile: &Profile, origin: String, asked: Request) -> Result<Asked, Verdict> {
    let shadow = read(&asked.object)?;
    let refused = profile.violations(&shadow);
    if !refused.is_empty() {
        return Err(Verdict::deny(guest::text(&refused)));
    }
    let uid = Some(text(&asked.object, "/metadata/uid")).filter(|uid| !uid.is_empty());
    Ok(Asked {
        uid: uid.unwrap_or(&asked.uid).to_owned(),
        origin,
        name: text(&asked.object, "/metadata/name").to_owned(),
        user: asked.user_info,
        namespace: asked.namespace,
        pod: shadow.spec.pod.unwrap_or_default(),
        dry_run: asked.dry_run,
    })
}

fn origin(object: &Value) -> &str {
    label_of(object, label::REFLECTION_ORIGIN)
}

fn read(object: &Value) -> Result<ShadowPod, Verdict> {
    serde_json::from_value(object.clone())
        .map_err(|error| Verdict::error(400, format!("the ShadowPod cannot be read: {error}")))
}

fn update(profile: &Profile, old: &Value, new: &Value) -> Result<(), Verdict> {
    let (was, is) = (origin(old), origin(new));
    if was.is_empty() || is.is_empty() {
        return Err(Verdict::deny(MISSING));
    }
    if was != is {
        return Err(Verdict::deny(CHANGED));
    }
    if fixed(old) != fixed(new) {
        return Err(Verdict::deny(FIXED));
    }
    // A `ShadowPod` from before this version stays changeable, as long as the change adds nothing that the profile refuses.
    let before = profile.violations(&read(old)?);
    let added: Vec<_> = profile.violations(&read(new)?).into_iter().filter(|one| !before.contains(one)).collect();
    if added.is_empty() { Ok(()) } else { Err(Verdict::deny(guest::text(&added))) }
}

/// What of a specification cannot change.
fn fixed(object: &Value) -> Value {
    let mut pod = object.pointer("/spec/pod").cloned().unwrap_or_default();
    if let Some(pod) = pod.as_object_mut() {
        pod.remove("activeDeadlineSeconds");
        pod.remove("tolerations");
        for list in ["containers", "initContainers"] {
            let all = pod.get_mut(list).and_then(Value::as_array_mut);
            let objects = all.into_iter().flatten().filter_map(Value::as_object_mut);
            objects.for_each(|container: &mut Map<_, _>| drop(container.remove("image")));
        }
    }
    pod
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shadow(origin: &str, pod: Value) -> Value {
        let labels = if origin.is_empty() { json!({}) } else { json!({"virtualkubelet.liqo.io/origin": origin}) };
        json!({"metadata": {"labels": labels}, "spec": {"pod": pod}})
    }

    fn updated(old: &Value, new: &Value) -> Result<(), Verdict> {
        update(&Profile::default(), old, new)
    }

    #[test]
    fn the_origin_is_there_and_stays() {
        let pod = || json!({"containers": []});
        for (old, new, wanted) in [
            ("a", "a", Ok(())),
            ("a", "b", Err(Verdict::deny(CHANGED))),
            ("a", "", Err(Verdict::deny(MISSING))),
            ("", "a", Err(Verdict::deny(MISSING))),
        ] {
            assert_eq!(updated(&shadow(old, pod()), &shadow(new, pod())), wanted, "{old:?} {new:?}");
        }
    }

    #[test]
    fn only_what_kubernetes_lets_change_in_a_pod_may_change() {
        let pod = |image: &str, command: &str| {
            json!({
                "containers": [{"name": "c", "image": image, "command": [command]}],
                "initContainers": [{"name": "i", "image": image}],
            })
        };
        let old = shadow("a", pod("web:1", "run"));
        let mut new = shadow("a", pod("web:2", "run"));
        new["spec"]["pod"]["activeDeadlineSeconds"] = json!(60);
        new["spec"]["pod"]["tolerations"] = json!([
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 9},
        ]);
        assert_eq!(updated(&old, &new), Ok(()));
        assert_eq!(updated(&old, &shadow("a", pod("web:1", "other"))), Err(Verdict::deny(FIXED)));
        let mut host = old.clone();
        host["spec"]["pod"]["hostNetwork"] = json!(true);
        assert_eq!(updated(&old, &host), Err(Verdict::deny(FIXED)));
    }

    #[test]
    fn what_is_refused_at_creation_is_not_brought_in_later() {
        let old = shadow("a", json!({"containers": []}));
        for (pointer, value, words) in [
            (
                "spec",
                json!({"pod": {"containers": [], "tolerations": [{"operator": "Exists"}]}}),
                "toleration of every",
            ),
            ("annotations", json!({"k8s.v1.cni.cncf.io/networks": "host"}), "annotation"),
            ("labels", json!({"virtualkubelet.liqo.io/origin": "a", "liqo.io/shadowPod": "true"}), "label"),
        ] {
            let mut new = old.clone();
            let place = if pointer == "spec" { &mut new["spec"] } else { &mut new["metadata"][pointer] };
            *place = value;
            let Err(Verdict::Deny { message, .. }) = updated(&old, &new) else { panic!("{pointer}") };
            assert!(message.contains(words), "{message}");
            let mut renamed = new.clone();
            renamed["metadata"]["finalizers"] = json!([]);
            assert_eq!(updated(&new, &renamed), Ok(()), "what was there before can still be changed and let go");
        }
    }

    /// A refusal of what a peer writes is one sentence of bounded length; an update that changes nothing is refused nothing new.
    #[test]
    fn fuzz_shadow_pods() {
        let profile = Profile::default();
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "shadow_pod", |bytes| {
            let Ok(object) = serde_json::from_slice::<Value>(bytes) else { return };
            let Ok(shadow) = read(&object) else { return };
            assert!(guest::text(&profile.violations(&shadow)).len() < 16 * 1024);
            if !origin(&object).is_empty() {
                assert_eq!(update(&profile, &object, &object), Ok(()));
            }
        });
    }
}
