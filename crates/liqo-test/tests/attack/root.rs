//! The root pod: pods that would be masters of the nodes they run on.

use std::{thread, time::Duration};

use anyhow::{Result, bail, ensure};
use liqo_test::{Cluster, run::feed, stage::LONG, wait_for};
use serde_json::{Value, json};

use super::{
    hostile::Peer,
    raid::{Raid, names, never, text},
};

/// The manifest of a ShadowPod; `pod` is its spec.
pub(crate) fn shadow(peer: &Peer, namespace: &str, name: &str, pod: &Value) -> String {
    annotated(peer, namespace, name, pod, &json!({}))
}

fn annotated(peer: &Peer, namespace: &str, name: &str, pod: &Value, annotations: &Value) -> String {
    let labels = json!({"virtualkubelet.liqo.io/origin": peer.id, "app": name.trim_end_matches('-')});
    // A name that ends in a dash is a beginning.
    let key = if name.ends_with('-') { "generateName" } else { "name" };
    json!({
        "apiVersion": "virtualkubelet.liqo.io/v1alpha1", "kind": "ShadowPod",
        "metadata": {key: name, "namespace": namespace, "labels": labels, "annotations": annotations},
        "spec": {"pod": pod},
    })
    .to_string()
}

/// A pod's spec like any, with some of its fields replaced.
pub(crate) fn pod(limits: &Value, more: &Value) -> Value {
    let mut pod = json!({
        "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
        "containers": [{
            "name": "c", "image": "localhost/busybox:1", "imagePullPolicy": "IfNotPresent", "command": ["sleep", "9999"],
            "resources": {"limits": limits},
        }],
    });
    merge(&mut pod, more);
    pod
}

/// Fields of the first container are merged into it; all other fields are merged into the pod.
fn merge(pod: &mut Value, more: &Value) {
    for (key, value) in more.as_object().into_iter().flatten() {
        match key.strip_prefix("container.") {
            Some(field) => pod["containers"][0][field] = value.clone(),
            None => pod[key] = value.clone(),
        }
    }
}

pub(crate) fn few() -> Value {
    json!({"cpu": "5m", "memory": "8Mi"})
}

/// Pods that a guest must not be, each with a name.
fn masters(rome: &Cluster) -> Vec<(&'static str, Value)> {
    let root = json!([{"name": "h", "hostPath": {"path": "/"}}]);
    let share = json!([{"name": "h", "nfs": {"server": "10.0.0.1", "path": "/"}}]);
    // The claim would be created by a controller of rome, which no rule for peers is about.
    let claim = json!({"accessModes": ["ReadWriteOnce"], "volumeName": "pv-of-another", "storageClassName": "",
        "resources": {"requests": {"storage": "1Mi"}}});
    let another = json!([{"name": "h", "ephemeral": {"volumeClaimTemplate": {"spec": claim}}}]);
    let token = json!([{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]);
    vec![
        ("privileged", json!({"container.securityContext": {"privileged": true}})),
        ("capability", json!({"container.securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}})),
        ("path", json!({"volumes": root, "container.volumeMounts": [{"name": "h", "mountPath": "/h"}]})),
        ("share", json!({"volumes": share, "container.volumeMounts": [{"name": "h", "mountPath": "/h"}]})),
        ("claim", json!({"volumes": another, "container.volumeMounts": [{"name": "h", "mountPath": "/h"}]})),
        ("processes", json!({"hostPID": true})),
        ("network", json!({"hostNetwork": true})),
        ("ipc", json!({"hostIPC": true})),
        ("port", json!({"container.ports": [{"containerPort": 80, "hostPort": 16443}]})),
        ("probe", json!({"container.livenessProbe": {"httpGet": {"port": 10248, "host": "127.0.0.1"}}})),
        ("hook", json!({"container.lifecycle": {"postStart": {"tcpSocket": {"port": 10248, "host": "127.0.0.1"}}}})),
        ("node", json!({"nodeName": rome.first()})),
        ("priority", json!({"priorityClassName": "system-node-critical"})),
        ("everywhere", json!({"tolerations": [{"operator": "Exists"}]})),
        ("account", json!({"serviceAccountName": "deployer"})),
        ("token", json!({"volumes": token})),
        ("scheduler", json!({"schedulerName": "mine"})),
        ("sysctl", json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}})),
    ]
}

pub(crate) fn story(raid: &Raid) -> Result<()> {
    let (rome, peer) = (raid.rome(), &raid.turin);
    let there = peer.offloaded(rome)?;
    // An ordinary pod runs, so the refusals below are about the refused fields.
    peer.tries(&shadow(peer, &there, "plain", &pod(&few(), &json!({}))))?.done("a pod like any")?;
    wait_for("a pod like any runs", LONG, || {
        Ok((rome.json(&["pod", "-n", &there, "plain"])?["status"]["phase"] == "Running").then_some(()))
    })?;
    for (what, more) in masters(rome) {
        peer.tries(&shadow(peer, &there, what, &pod(&few(), &more)))?.refused(what);
    }
    for key in ["k8s.v1.cni.cncf.io/networks", "container.apparmor.security.beta.kubernetes.io/c"] {
        let manifest = annotated(peer, &there, "annotated", &pod(&few(), &json!({})), &json!({key: "unconfined"}));
        peer.tries(&manifest)?.refused(key);
    }
    for (what, patch) in changes(raid) {
        peer.patches(&there, &["shadowpod", "plain"], &patch)?.refused(what);
    }
    // One Event for all refusals of a webhook: many would be noise of the peer's making.
    wait_for("rome tells that a webhook refused requests of turin", LONG, || {
        let about = "reason=RequestRefused,involvedObject.kind=ForeignCluster,involvedObject.name=turin";
        let events = rome.items(&["events", "-A", "--field-selector", about])?;
        let told = events.iter().map(|one| one["count"].as_u64().unwrap_or(1)).sum::<u64>();
        ensure!(told <= WEBHOOKS, "{told} Events about refusals: {events:?}");
        Ok(events.iter().any(|one| text(one, "/message").contains("/validate/")).then_some(()))
    })?;
    no_webhook(raid, &there)?;
    only_plain_runs(rome, &there)?;
    peer.runs(&["delete", "shadowpod", "-n", &there, "plain", "--wait=false"])?.done("its own pod")?;
    wait_for("the pod ends with its shadow", LONG, || Ok(rome.items(&["pods", "-n", &there])?.is_empty().then_some(())))
}

/// The webhooks that refuse requests of peers, each of which causes an Event now and then.
const WEBHOOKS: u64 = 4;

/// The effects of a pod that was admitted.
fn changes(raid: &Raid) -> Vec<(&'static str, Value)> {
    let containers = |command: &str| pod(&few(), &json!({"container.command": [command]}))["containers"].clone();
    vec![
        ("the origin is changed", json!({"metadata": {"labels": {"virtualkubelet.liqo.io/origin": raid.milan.id}}})),
        ("the command is changed", json!({"spec": {"pod": {"containers": containers("reboot")}}})),
        ("tolerations are added", json!({"spec": {"pod": {"tolerations": [{"operator": "Exists"}]}}})),
        ("a finalizer is added", json!({"metadata": {"finalizers": ["turin.example/never"]}})),
        ("marks of ours are added", json!({"metadata": {"labels": {"liqo.io/shadowPod": "true"}}})),
    ]
}

/// Those that Pod Security of level `baseline` lets pass: only the rules of Liqo refuse them.
const LATE: [&str; 8] = ["node", "priority", "everywhere", "account", "token", "scheduler", "share", "claim"];

/// While the webhooks are away, a refused `ShadowPod` can be stored; no pod is made of it.
fn no_webhook(raid: &Raid, there: &str) -> Result<()> {
    let (rome, peer) = (raid.rome(), &raid.turin);
    let mut kept = rome.json(&["validatingwebhookconfiguration", "liqo-webhook"])?;
    for field in ["resourceVersion", "uid", "creationTimestamp", "managedFields", "generation"] {
        kept["metadata"].as_object_mut().and_then(|metadata| metadata.remove(field));
    }
    rome.kubectl(&["delete", "validatingwebhookconfiguration", "liqo-webhook"])?;
    let away = || -> Result<()> {
        // The API server takes a second to forget a webhook.
        thread::sleep(Duration::from_secs(1));
        let late: Vec<_> = masters(rome).into_iter().filter(|(what, _)| LATE.contains(what)).collect();
        for (what, more) in &late {
            let stored = || -> Result<Option<()>> {
                let tried = peer.tries(&shadow(peer, there, &format!("late-{what}"), &pod(&few(), more)))?;
                Ok((!tried.is_refused()).then_some(()))
            };
            wait_for(&format!("late-{what} is stored without the webhook"), LONG, stored)?;
        }
        never("pods that were to be refused", || masters_in(rome, there))?;
        wait_for("each refusal is an Event", LONG, || {
            let events = rome.items(&["events", "-n", there, "--field-selector", "reason=Refused"])?;
            let about = |what: &str| {
                events.iter().any(|one| text(one, "/involvedObject/name").strip_prefix("late-") == Some(what))
            };
            let silent: Vec<_> = late.iter().map(|(what, _)| *what).filter(|what| !about(what)).collect();
            if silent.is_empty() { Ok(Some(())) } else { bail!("nobody was told of {silent:?}") }
        })
    };
    let outcome = away();
    let mut create = rome.kubectl_command();
    feed(create.args(["create", "-f", "-"]), &kept.to_string())?;
    outcome?;
    wait_for("the webhooks are asked again", LONG, || {
        let again = shadow(peer, there, "again-", &pod(&few(), &json!({"hostPID": true})));
        Ok(peer.tries(&again)?.is_refused().then_some(()))
    })?;
    peer.runs(&["delete", "shadowpods", "-n", there, "--wait=false", "--field-selector=metadata.name!=plain"])?
        .done("its own pods")
        .map(drop)
}

/// The pods other than the ordinary one.
fn masters_in(rome: &Cluster, there: &str) -> Result<Vec<String>> {
    let pods = rome.items(&["pods", "-n", there])?;
    Ok(names(&pods).into_iter().filter(|name| !name.ends_with("/plain")).collect())
}

fn only_plain_runs(rome: &Cluster, there: &str) -> Result<()> {
    let others = masters_in(rome, there)?;
    ensure!(others.is_empty(), "{others:?}");
    let plain = rome.json(&["pod", "-n", there, "plain"])?;
    let container = &plain["spec"]["containers"][0];
    ensure!(container["command"] == json!(["sleep", "9999"]), "the pod runs another command: {container}");
    ensure!(text(&plain, "/metadata/labels/liqo.io~1managed-by") == "shadowpod", "{plain}");
    let of_all = json!([{"operator": "Exists"}]);
    ensure!(plain["spec"]["tolerations"] != of_all, "the pod tolerates everything");
    Ok(())
}
