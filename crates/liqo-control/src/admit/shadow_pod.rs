//! `ShadowPod`s: a peer makes them only in its own namespaces and, if enforced, within its offer.

use liqo_api::{meta::label, virtualkubelet::ShadowPod};
use serde_json::{Map, Value};

use super::{
    Context, origin_of_namespace,
    quota::Refusal,
    review::{Request, Verdict, label_of},
};

const MISSING: &str = "missing origin Cluster ID label";
const MISMATCH: &str = "shadowpod Cluster ID label mismatch";
/// The typing error is part of the contract.
const CHANGED: &str = "shadopow Cluster ID label is changed";
const FIXED: &str = "only the images, activeDeadlineSeconds and the tolerations of a ShadowPod can be modified";

/// Whether a peer may do what it asks for.
pub(super) async fn validate(context: &Context, asked: &Request) -> Verdict {
    match asked.operation.as_str() {
        "CREATE" => match create(context, asked).await {
            Ok(()) => Verdict::allow(),
            Err(verdict) => verdict,
        },
        "UPDATE" => update(&asked.old_object, &asked.object),
        _ => Verdict::allow(),
    }
}

async fn create(context: &Context, asked: &Request) -> Result<(), Verdict> {
    let origin = origin(&asked.object);
    if origin.is_empty() {
        return Err(Verdict::deny(MISSING));
    }
    let owner = origin_of_namespace(context, &asked.namespace).await;
    if owner.map_err(|why| Verdict::error(400, why))?.as_deref() != Some(origin) {
        return Err(Verdict::deny(MISMATCH));
    }
    let Some(quota) = &context.quota else { return Ok(()) };
    let shadow: ShadowPod = serde_json::from_value(asked.object.clone())
        .map_err(|error| Verdict::error(400, format!("the ShadowPod cannot be read: {error}")))?;
    let pod = shadow.spec.pod.unwrap_or_default();
    let key = (asked.namespace.clone(), asked.name.clone());
    quota.admit(origin, key, &pod, asked.dry_run).await.map_err(|refusal| match refusal {
        Refusal::Denied(why) => Verdict::deny(why),
        Refusal::Unable(why) => Verdict::error(500, why),
    })
}

fn origin(object: &Value) -> &str {
    label_of(object, label::REFLECTION_ORIGIN)
}

fn update(old: &Value, new: &Value) -> Verdict {
    let (was, is) = (origin(old), origin(new));
    if was.is_empty() || is.is_empty() {
        return Verdict::deny(MISSING);
    }
    if was != is {
        return Verdict::deny(CHANGED);
    }
    if fixed(old) != fixed(new) { Verdict::deny(FIXED) } else { Verdict::allow() }
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

    #[test]
    fn the_origin_is_there_and_stays() {
        let pod = || json!({"containers": []});
        for (old, new, wanted) in [
            ("a", "a", Verdict::allow()),
            ("a", "b", Verdict::deny(CHANGED)),
            ("a", "", Verdict::deny(MISSING)),
            ("", "a", Verdict::deny(MISSING)),
        ] {
            assert_eq!(update(&shadow(old, pod()), &shadow(new, pod())), wanted, "{old:?} {new:?}");
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
        new["spec"]["pod"]["tolerations"] = json!([{"key": "k"}]);
        assert_eq!(update(&old, &new), Verdict::allow());
        assert_eq!(update(&old, &shadow("a", pod("web:1", "other"))), Verdict::deny(FIXED));
        let mut host = old.clone();
        host["spec"]["pod"]["hostNetwork"] = json!(true);
        assert_eq!(update(&old, &host), Verdict::deny(FIXED));
    }
}
