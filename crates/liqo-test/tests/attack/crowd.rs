//! Many and long objects: in the tenant namespace, and as long as the door lets them be.

use anyhow::{Context, Result, bail, ensure};
use liqo_test::{stage::LONG, wait_for};
use serde_json::{Value, json};

use super::{
    flood,
    provider::object,
    raid::{Raid, text},
    root::pod,
};

/// Objects of each kind in a tenant namespace.
const EXCHANGED: usize = 16;
/// Annotations of an object of a peer, and a specification of a pod, have as many bytes in all.
const ANNOTATIONS: usize = 16 * 1024;
const SPECIFICATION: usize = 64 * 1024;
/// Endpoints of a slice of a peer.
const ENDPOINTS: usize = 1000;

/// A peer fills its tenant namespace with requests: the API server stops it, rome tells about a few of them, and annotations that
/// are longer than those of any copy are refused.
pub(crate) fn of_requests(raid: &Raid) -> Result<()> {
    let (rome, peer) = (raid.rome(), &raid.turin);
    let kind = "count/resourcerequests.discovery.liqo.io";
    wait_for("Kubernetes counts requests", LONG, || {
        let quota = rome.json(&["resourcequota", "-n", &peer.tenant, "liqo-exchange"])?;
        if quota["status"]["used"][kind].is_null() { bail!("{quota}") } else { Ok(Some(())) }
    })?;
    let request = |number: usize| {
        let spec =
            format!("{{clusterIdentity: {{clusterID: {}, clusterName: No_Name}}, authUrl: 'https://a.b'}}", peer.id);
        object(peer, &raid.home, "discovery", "ResourceRequest", &format!("crowd-{number}"), &spec)
    };
    let there = rome.items(&["resourcerequests", "-n", &peer.tenant])?.len();
    for number in there..EXCHANGED {
        peer.tries(&request(number))?.done("a request within the limit")?;
    }
    peer.tries(&request(EXCHANGED))?.refused("a request beyond the limit");
    let name = format!("crowd-{there}");
    let long = json!({"metadata": {"annotations": {"a": "x".repeat(3_000)}}});
    peer.patches(&peer.tenant, &["resourcerequest", &name], &long)?.refused("long annotations of a copy");
    let told = || -> Result<usize> {
        let events = rome.items(&["events", "-n", &peer.tenant, "--field-selector", "reason=RequestIgnored"])?;
        let about = |one: &Value| text(one, "/involvedObject/name").starts_with("crowd-");
        Ok(events.iter().filter(|one| about(one)).count())
    };
    wait_for("rome tells about the requests", LONG, || Ok((told()? > 0).then_some(())))?;
    super::raid::never("an Event about each request", || {
        let count = told()?;
        Ok(if count > EXCHANGED / 2 { vec![format!("{count} Events")] } else { Vec::new() })
    })?;
    for number in there..EXCHANGED {
        peer.runs(&["delete", "resourcerequest", "-n", &peer.tenant, &format!("crowd-{number}")])?
            .done("its own request")?;
    }
    Ok(())
}

/// Hundreds of the longest objects that the door allows; longer ones are refused.
pub(crate) fn of_long_objects(raid: &Raid, there: &str) -> Result<()> {
    let (rome, peer) = (raid.rome(), &raid.turin);
    for (kind, resource, count, specification) in [
        ("ShadowPod", "shadowpods", 300, long_pod as fn(usize) -> Value),
        ("ShadowEndpointSlice", "shadowendpointslices", 200, long_slice),
    ] {
        let labels = json!({"virtualkubelet.liqo.io/origin": peer.id, "flood": "long",
            "endpointslice.kubernetes.io/managed-by": "endpointslice.reflection.liqo.io"});
        let of = |more: usize, annotations: usize| {
            let annotations = json!({"note": "x".repeat(annotations - "note".len())});
            let metadata =
                json!({"generateName": "long-", "namespace": there, "labels": labels, "annotations": annotations});
            let api = "virtualkubelet.liqo.io/v1alpha1";
            json!({"apiVersion": api, "kind": kind, "metadata": metadata, "spec": specification(more)}).to_string()
        };
        peer.tries(&of(0, ANNOTATIONS + 1))?.refused(&format!("{kind} with longer annotations"));
        peer.tries(&of(1, ANNOTATIONS))?.refused(&format!("{kind} with a longer specification"));
        let path = format!("/apis/virtualkubelet.liqo.io/v1alpha1/namespaces/{there}/{resource}");
        let file = raid.stage.bed.dir().join(format!("long-{resource}"));
        let url = format!("{}{path}", rome.api_server());
        let answers = flood::post(|| peer.curl(), &url, count, (&file, &of(0, ANNOTATIONS)))?;
        let made = answers.get(&201).copied().unwrap_or_default();
        ensure!(made == count, "{kind}: {answers:?} of {count}");
        flood::recede(rome, &path, "long")?;
        wait_for("the long objects go", LONG, || {
            let left = rome.items(&[resource, "-n", there, "-l", "flood=long"])?.len();
            if left == 0 { Ok(Some(())) } else { bail!("{left} are left") }
        })?;
    }
    Ok(())
}

/// The specification of a pod with as many bytes as the guest profile allows, and `more`.
fn long_pod(more: usize) -> Value {
    let mut pod =
        pod(&json!({"cpu": "1m", "memory": "1Mi"}), &json!({"nodeSelector": {"turin.example/nowhere": "true"}}));
    pod["containers"][0]["env"] = json!([{"name": "LONG", "value": ""}]);
    let rest = SPECIFICATION - pod.to_string().len();
    pod["containers"][0]["env"][0]["value"] = json!("x".repeat(rest + more));
    json!({ "pod": pod })
}

/// A slice with the most endpoints, and `more`.
fn long_slice(more: usize) -> Value {
    let target = json!({"kind": "RemotePod", "namespace": "demo", "name": "p".repeat(100), "uid": "u".repeat(36)});
    let endpoint = json!({"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "nodeName": "n".repeat(50), "targetRef": target});
    json!({"template": {"addressType": "IPv4", "endpoints": vec![endpoint; ENDPOINTS + more], "ports": []}})
}

/// What an introduced peer says of itself leads to nothing of rome.
pub(crate) fn of_own_addresses(raid: &Raid) -> Result<()> {
    let rome = raid.rome();
    let node = rome.json(&["node", &rome.first()])?;
    let node = text(&node, "/status/addresses/0/address").to_owned();
    let service = rome.json(&["service", "-n", "default", "kubernetes"])?;
    let service = text(&service, "/spec/clusterIP").to_owned();
    for (name, url, address) in [
        ("inside-a-node", format!("https://{node}:10250"), &node),
        ("inside-a-service", format!("https://{service}"), &service),
    ] {
        let spec = json!({"foreignAuthUrl": url, "outgoingPeeringEnabled": "Yes", "insecureSkipTLSVerify": true});
        let api = "discovery.liqo.io/v1alpha1";
        rome.apply(
            &json!({"apiVersion": api, "kind": "ForeignCluster", "metadata": {"name": name}, "spec": spec}).to_string(),
        )?;
        let found = wait_for("rome does not call itself", LONG, || {
            let log = rome.kubectl(&["logs", "-n", "liqo", "deployment/liqo-controller-manager", "--tail=500"])?;
            let mut lines = log.lines().filter(|line| line.contains(name) && line.contains(address.as_str()));
            Ok(lines.next_back().filter(|line| line.contains("is of this cluster")).map(str::to_owned))
        });
        rome.kubectl(&["delete", "foreigncluster", name])?;
        found.with_context(|| format!("{url} was asked"))?;
    }
    Ok(())
}
