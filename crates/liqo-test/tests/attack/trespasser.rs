//! The trespasser inside: a tenant of home who may do everything in a namespace of its own, and nothing elsewhere.

use std::{net::TcpListener, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use liqo_test::{
    Cluster,
    netns::Netns,
    run::{feed, output},
};
use serde_json::{Value, json};

use super::{
    holes,
    pod::{ask_ipam, is_answered},
    raid::{MOMENT, Raid, names, never, text},
};

/// The tenant mallory, with all rights in `a` and the right to label that namespace.
const MALLORY: &str = "apiVersion: v1
kind: Namespace
metadata: {name: a}
---
apiVersion: v1
kind: Namespace
metadata: {name: b}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: mallory, namespace: a}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: mallory}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: owner-of-a}
rules: [{apiGroups: [''], resources: [namespaces], resourceNames: [a], verbs: [get, patch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: owner-of-a}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: owner-of-a}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: mallory}]
";

pub(crate) fn story(raid: &Raid) -> Result<()> {
    let rome = raid.rome();
    rome.apply(MALLORY)?;
    let bakery = raid.milan.offloaded(rome)?;
    let baker = rome.items(&["pods", "-n", &bakery])?;
    let baker = text(baker.first().context("milan runs no pod in rome")?, "/metadata/name").to_owned();
    for what in [
        vec!["exec", "-n", &bakery, &baker, "--", "true"],
        vec!["logs", "-n", &bakery, &baker],
        vec!["get", "secrets", "-n", &raid.milan.tenant],
        vec!["get", "shadowpods", "-n", &bakery],
        vec!["label", "namespace", "b", "liqo.io/scheduling-enabled=true"],
        vec!["patch", "foreigncluster", "milan", "--type=merge", "-p", r#"{"spec":{"incomingPeeringEnabled":"No"}}"#],
    ] {
        denied(mallory(rome, &what), &what.join(" "))?;
    }
    let offloading = |namespace: &str| {
        json!({"apiVersion": "offloading.liqo.io/v1beta1", "kind": "NamespaceOffloading",
               "metadata": {"name": "offloading", "namespace": namespace}, "spec": {}})
        .to_string()
    };
    let mut create = rome.kubectl_command();
    create.args(["--as=mallory", "create", "-f", "-"]);
    denied(feed(&mut create, &offloading("b")), "offloading the namespace of somebody else")?;
    for namespace in ["kube-system", "liqo"] {
        let created = feed(rome.kubectl_command().args(["create", "-f", "-"]), &offloading(namespace));
        if created.is_ok() {
            holes::found(format!("{namespace} was offloaded: pods there could not start any more while we are away"));
            rome.kubectl(&["delete", "namespaceoffloading", "-n", namespace, "offloading", "--wait=false"])?;
        }
    }
    identities_are_found_where_they_belong(raid)?;
    namespaces_are_tenants_by_decision(raid)?;
    pods_are_placed_by_the_scheduler(raid)?;
    a_virtual_kubelet_exports_what_it_reflects(raid)?;
    rome.kubectl(&["delete", "namespace", "a", "b", "--wait=false"])?;
    rome.kubectl(&["delete", "clusterrole,clusterrolebinding", "owner-of-a"]).map(drop)
}

fn mallory(rome: &Cluster, args: &[&str]) -> Result<String> {
    output(rome.kubectl_command().arg("--as=mallory").args(args))
}

fn denied(outcome: Result<String>, what: &str) -> Result<()> {
    match outcome {
        Ok(printed) => bail!("mallory was let: {what}: {printed}"),
        Err(error) => {
            let said = format!("{error:#}");
            ensure!(said.contains("orbidden") || said.contains("denied"), "{what}: {said}");
            Ok(())
        }
    }
}

/// A forged identity Secret makes no component connect to the listener that the Secret names.
fn identities_are_found_where_they_belong(raid: &Raid) -> Result<()> {
    let rome = raid.rome();
    let node = rome.node(&rome.first())?;
    let netns = Netns::open(&node.netns_file())?;
    let listener = netns.run(|| TcpListener::bind(("0.0.0.0", 18443)))??;
    listener.set_nonblocking(true)?;
    let secrets = rome.items(&["secrets", "-n", &raid.milan.tenant])?;
    let mut forged = secrets
        .into_iter()
        .find(|one| {
            text(one, "/metadata/name").starts_with("liqo-identity-") && one.pointer("/data/apiServerUrl").is_some()
        })
        .context("rome has no identity in milan")?;
    let url = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, format!("https://{}:18443", node.ip));
    forged["data"]["apiServerUrl"] = json!(url);
    forged["metadata"] = json!({"name": "liqo-identity-forged", "namespace": "a",
        "labels": forged["metadata"]["labels"], "annotations": forged["metadata"]["annotations"]});
    let mut create = rome.kubectl_command();
    feed(create.args(["--as=mallory", "create", "-f", "-"]), &forged.to_string())?;
    let began = Instant::now();
    while began.elapsed() < MOMENT {
        if let Ok((_, from)) = listener.accept() {
            holes::found(format!("{from} came to the address in a Secret of mallory"));
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    Ok(())
}

/// Labels alone make no tenant namespace: the honest peer keeps its own namespace and its networks, and neither that peer nor an
/// account of the labelled namespace gets a right by the labels.
fn namespaces_are_tenants_by_decision(raid: &Raid) -> Result<()> {
    let rome = raid.rome();
    let label = format!("discovery.liqo.io/cluster-id={}", raid.milan.id);
    let labels = ["label", "namespace", "a", &label, "discovery.liqo.io/tenant-namespace=true"];
    denied(mallory(rome, &labels), "labels of a tenant namespace")?;
    let map = ["annotate", "namespace", "a", "liqo.io/managed-by-namespace-map=liqo-tenant-x/milan"];
    denied(mallory(rome, &map), "the annotation of a namespace that a peer asked for")?;
    let before = networks(rome, &raid.milan.tenant)?;
    // An administrator may set the labels, and the labels still make no tenant namespace.
    rome.kubectl(&labels)?;
    let node = rome.node(&rome.first())?;
    rome.kubectl(&["create", "serviceaccount", "virtual-kubelet", "-n", "a"])?;
    let token = rome.kubectl(&["create", "token", "virtual-kubelet", "--audience=liqo-ipam", "-n", "a"])?;
    let said =
        ask_ipam(raid, &node.netns_file(), ("MapEndpointIP", &raid.milan.id, "198.51.100.9"), Some(token.trim()))?;
    if is_answered(&said) {
        holes::found("an account of a labelled namespace has asked the IPAM about milan".to_owned());
    } else {
        ensure!(said.contains("grpc-status: 7"), "an account of a labelled namespace: {said:?}");
    }
    never("a namespace with labels is taken for a tenant's", || {
        let bound = names(&rome.items(&["rolebindings", "-n", "a"])?);
        let bound = bound.into_iter().filter(|name| name != "a/mallory");
        let gone = rome.items(&["namespace", "-l", &label])?;
        let gone = gone.iter().filter(|one| !one["metadata"]["deletionTimestamp"].is_null());
        let standing = ["OutgoingPeering", "IncomingPeering"].map(|aspect| rome.peering("milan", aspect));
        let fallen = standing.into_iter().collect::<Result<Vec<Value>>>()?;
        let fallen = fallen.into_iter().filter(|one| one["status"] != "Established").map(|one| one.to_string());
        let now = networks(rome, &raid.milan.tenant)?;
        let moved = (now != before).then(|| format!("networks of milan: {before} became {now}"));
        Ok(bound.chain(gone.map(|one| text(one, "/metadata/name").to_owned())).chain(fallen).chain(moved).collect())
    })?;
    rome.kubectl(&["delete", "serviceaccount", "virtual-kubelet", "-n", "a"])?;
    let clean = ["label", "namespace", "a", "discovery.liqo.io/cluster-id-", "discovery.liqo.io/tenant-namespace-"];
    rome.kubectl(&clean).map(drop)
}

/// What gateways of a cluster do for the peer of a tenant namespace, and what all its peers have.
fn networks(cluster: &Cluster, tenant: &str) -> Result<Value> {
    let mappings = cluster.items(&["natmappings"])?;
    let storage = cluster.items(&["ipamstorages"])?;
    let tunnels = cluster.items(&["tunnelendpoints", "-n", tenant])?;
    let specs = |all: &[Value]| all.iter().map(|one| one["spec"].clone()).collect::<Vec<_>>();
    let uids: Vec<_> = tunnels.iter().map(|one| one["metadata"]["uid"].clone()).collect();
    ensure!(uids.len() == 1 && !storage.is_empty(), "{tenant} has {uids:?} tunnels");
    Ok(json!([specs(&mappings), specs(&storage), uids]))
}

/// A pod bound by hand to the node of a peer does not run there, and pods with our marks change no offer.
fn pods_are_placed_by_the_scheduler(raid: &Raid) -> Result<()> {
    let rome = raid.rome();
    let offer = || -> Result<Value> {
        let offers = rome.items(&["resourceoffers", "-n", &raid.milan.tenant, "-l", "liqo.io/replication=true"])?;
        Ok(offers.first().map(|one| one["spec"]["resourceQuota"].clone()).unwrap_or_default())
    };
    let before = offer()?;
    let container = json!([{"name": "c", "image": "localhost/busybox:1", "imagePullPolicy": "IfNotPresent",
        "resources": {"requests": {"cpu": "300m"}, "limits": {"cpu": "300m", "memory": "8Mi"}}}]);
    for (name, labels, node) in [
        ("bound", json!({}), "liqo-milan".to_owned()),
        ("shadow", json!({"liqo.io/shadowPod": "true", "virtualkubelet.liqo.io/origin": raid.milan.id}), rome.first()),
    ] {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "a", "labels": labels},
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": container}});
        // The API server stores both pods; what follows looks for their effects.
        feed(rome.kubectl_command().args(["--as=mallory", "create", "-f", "-"]), &pod.to_string())?;
    }
    let milan = raid.stage.cluster("milan");
    never("a pod of a namespace that is not offloaded runs at a peer's", || {
        let pods = names(&milan.items(&["pods", "-A"])?);
        Ok(pods.into_iter().filter(|name| name.ends_with("/bound")).collect())
    })?;
    let now = offer()?;
    ensure!(less(&now, &before), "mallory's labels have raised an offer from {before} to {now}");
    Ok(())
}

/// Whether an offer has not grown: what mallory uses is used.
fn less(now: &Value, before: &Value) -> bool {
    let cpu = |offer: &Value| {
        let text = text(offer, "/hard/cpu").to_owned();
        text.strip_suffix('m')
            .map_or_else(|| text.parse::<u64>().unwrap_or(0) * 1000, |milli| milli.parse().unwrap_or(0))
    };
    cpu(now) <= cpu(before)
}

/// A stolen token of milan's virtual kubelet exports to milan the addresses in slices of namespaces offloaded to milan, and no
/// others: not a node's and not that of a Service, though a slice there names both, not one of a namespace offloaded to turin, not
/// one of mallory's namespace, not an invented one.
fn a_virtual_kubelet_exports_what_it_reflects(raid: &Raid) -> Result<()> {
    let rome = raid.rome();
    let held = [("shop", "198.51.100.7"), ("lent", "198.51.100.8"), ("a", "198.51.100.9")];
    let of_node = rome.node_ip();
    let of_service = rome.json(&["service", "-n", "liqo", "liqo-controller-manager"])?;
    let of_service = text(&of_service, "/spec/clusterIP");
    for (namespace, address) in held {
        let more = if namespace == "shop" { vec![address, &of_node, of_service] } else { vec![address] };
        let endpoints: Vec<_> = more.into_iter().map(|one| json!({"addresses": [one]})).collect();
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "outside", "namespace": namespace}, "addressType": "IPv4",
            "endpoints": endpoints, "ports": [{"name": "web", "port": 80, "protocol": "TCP"}]});
        rome.apply(&slice.to_string())?;
    }
    let account = ["create", "token", "virtual-kubelet", "--audience=liqo-ipam", "-n", &raid.milan.tenant];
    let token = rome.kubectl(&account)?;
    let node = rome.node(&rome.first())?;
    let ask = |method: &str, address: &str| {
        ask_ipam(raid, &node.netns_file(), (method, &raid.milan.id, address), Some(token.trim()))
    };
    let reflected = ask("MapEndpointIP", "198.51.100.7")?;
    ensure!(is_answered(&reflected), "a reflected address is not exported: {reflected:?}");
    for address in ["198.51.100.8", "198.51.100.9", "198.51.100.10", &of_node, of_service] {
        let said = ask("MapEndpointIP", address)?;
        if is_answered(&said) {
            holes::found(format!("a token of milan's virtual kubelet has exported {address}"));
        } else {
            // 7 is PERMISSION_DENIED: the refusal is a decision, not a failure to answer.
            ensure!(said.contains("grpc-status: 7"), "{address}: {said:?}");
        }
    }
    for (namespace, _) in held {
        rome.kubectl(&["delete", "endpointslice", "-n", namespace, "outside", "--wait=false"])?;
    }
    Ok(())
}
