//! The glutton: with enforcement, a peer gets at most its offer, whatever the peer writes and however fast.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use liqo_test::{stage::LONG, wait_for};
use serde_json::{Value, json};

use super::{
    crowd, flood,
    hostile::{Outcome, Peer},
    raid::{Raid, text},
    restless,
    root::{few, pod, shadow},
};

/// Namespaces of one peer.
const NAMESPACES: usize = 16;
/// Pods that are created at the same time by several threads, each with a third of the offer.
const AT_ONCE: usize = 12;

pub(crate) fn story(raid: &Raid) -> Result<()> {
    let (rome, peer) = (raid.rome(), &raid.turin);
    let there = peer.offloaded(rome)?;
    let offered = offered(raid, peer)?;
    for (what, pod) in gluttons(offered) {
        peer.tries(&shadow(peer, &there, what, &pod))?.refused(what);
    }
    all_at_once(raid, &there, offered)?;
    honest_pods_are_admitted(raid)?;
    let clean = ["delete", "shadowpods", "-n", &there, "--all", "--wait=false"];
    peer.runs(&clean)?.done("its own pods")?;
    pods_that_end_slowly(raid, &there, offered)?;
    many_namespaces(raid)?;
    many_maps(raid)?;
    map_beyond_measure(raid)?;
    restless::requests(raid)?;
    crowd::of_requests(raid)?;
    wait_for("the pods end", LONG, || Ok(rome.items(&["pods", "-n", &there])?.is_empty().then_some(())))?;
    many_objects(raid, &there)?;
    crowd::of_long_objects(raid, &there)?;
    restless::logs(raid)
}

/// CPU that rome offers to a peer, in millicores.
pub(crate) fn offered(raid: &Raid, peer: &Peer) -> Result<u64> {
    let selector = format!("liqo.io/replication=true,liqo.io/remoteID={}", peer.id);
    let offers = raid.rome().items(&["resourceoffers", "-n", &peer.tenant, "-l", &selector])?;
    let offer = offers.first().context("rome offers the peer nothing")?;
    let cpu = millicores(text(offer, "/spec/resourceQuota/hard/cpu"))?;
    ensure!(cpu > 30, "rome offers {cpu}m");
    Ok(cpu)
}

fn millicores(text: &str) -> Result<u64> {
    let parsed = match text.strip_suffix('m') {
        Some(milli) => milli.parse().ok(),
        None => text.parse::<u64>().ok().map(|whole| whole * 1000),
    };
    parsed.with_context(|| format!("{text:?} is no amount of processors"))
}

/// Amounts that are negative, zero, unreadable or larger than the offer.
fn gluttons(offered: u64) -> Vec<(&'static str, Value)> {
    let limits = |cpu: &str, memory: &str| pod(&json!({"cpu": cpu, "memory": memory}), &json!({}));
    let mut unlimited = pod(&few(), &json!({}));
    unlimited["containers"][0]["resources"] = json!({"requests": {"cpu": "1m"}});
    let smaller = json!({"resources": {"limits": {"cpu": "1m", "memory": "1Mi"}}});
    let many = json!({"cpu": format!("{}m", 2 * offered), "memory": "8Mi"});
    vec![
        ("more", limits(&format!("{}m", 2 * offered), "8Mi")),
        ("negative", limits("-1000", "-1000Gi")),
        ("nothing", limits("0", "0")),
        ("unreadable", limits("5m", "1e19")),
        ("overhead", pod(&many, &json!({"overhead": {"cpu": "-1000"}}))),
        ("smaller-pod", pod(&many, &smaller)),
        ("unlimited", unlimited),
    ]
}

/// Many pods with generated names at the same moment: the pods that run use no more than the offer together.
fn all_at_once(raid: &Raid, there: &str, offered: u64) -> Result<()> {
    let (rome, peer) = (raid.rome(), &raid.turin);
    let third = json!({"cpu": format!("{}m", offered / 3), "memory": "8Mi"});
    let manifest = shadow(peer, there, "third-", &pod(&third, &json!({})));
    let outcomes = thread::scope(|scope| {
        let tries: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(|| peer.tries(&manifest))).collect();
        tries.into_iter().map(|one| one.join().expect("a try does not panic")).collect::<Result<Vec<_>>>()
    })?;
    let admitted = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Done(_))).count();
    ensure!((1..=3).contains(&admitted), "{admitted} of {AT_ONCE} thirds were admitted: {outcomes:?}");
    let shadows = rome.items(&["shadowpods", "-n", there])?;
    let cpu = |one: &Value| millicores(text(one, "/spec/pod/containers/0/resources/limits/cpu"));
    let all = shadows.iter().map(cpu).sum::<Result<u64>>()?;
    ensure!(all <= offered, "{all}m of {offered}m are taken");
    Ok(())
}

/// A pod counts while it ends, although its `ShadowPod` is gone; its successor of the same name takes its place, and when it
/// has ended there is room again.
fn pods_that_end_slowly(raid: &Raid, there: &str, offered: u64) -> Result<()> {
    let (rome, peer) = (raid.rome(), &raid.turin);
    let sized = |cpu: u64, grace: u64| {
        let limits = json!({"cpu": format!("{cpu}m"), "memory": "8Mi"});
        pod(&limits, &json!({"terminationGracePeriodSeconds": grace}))
    };
    // The command ignores SIGTERM. The next pod is larger than a node: whether it is admitted is the question.
    let (slow, next) = (sized(offered / 3, 8), sized(offered * 5 / 6, 0));
    let lives = |name: &str| -> Result<Option<Value>> {
        let pods = rome.items(&["pods", "-n", there])?;
        Ok(pods.into_iter().find(|one| text(one, "/metadata/name") == name))
    };
    wait_for("the slow pod is admitted", LONG, || {
        Ok((!peer.tries(&shadow(peer, there, "slow", &slow))?.is_refused()).then_some(()))
    })?;
    wait_for("the slow pod runs", LONG, || {
        Ok(lives("slow")?.filter(|one| text(one, "/status/phase") == "Running").map(drop))
    })?;
    peer.runs(&["delete", "shadowpod", "-n", there, "slow"])?.done("the ShadowPod is deleted")?;
    wait_for("the slow pod is being deleted", LONG, || {
        Ok(lives("slow")?.filter(|one| !text(one, "/metadata/deletionTimestamp").is_empty()).map(drop))
    })?;
    peer.tries(&shadow(peer, there, "next", &next))?.refused("room that a pod still uses");
    ensure!(lives("slow")?.is_some(), "the slow pod has ended before the attack");
    peer.tries(&shadow(peer, there, "slow", &sized(offered / 3, 0)))?.done("the successor takes the place")?;
    peer.runs(&["delete", "shadowpod", "-n", there, "slow"])?.done("the successor goes")?;
    wait_for("there is room again", LONG, || {
        let admitted = !peer.tries(&shadow(peer, there, "next", &next))?.is_refused();
        if admitted { Ok(Some(())) } else { bail!("refused; the slow pod: {:?}", lives("slow")?.is_some()) }
    })?;
    peer.runs(&["delete", "shadowpod", "-n", there, "next"])?.done("the last one goes").map(drop)
}

/// Meanwhile the honest peer's pods are admitted as fast as an API server answers, and a second more at most.
fn honest_pods_are_admitted(raid: &Raid) -> Result<()> {
    let milan = &raid.milan;
    let there = milan.offloaded(raid.rome())?;
    for number in 0..3 {
        let began = Instant::now();
        milan.runs(&["get", "shadowpods", "-n", &there])?.done("the honest peer looks")?;
        let look = began.elapsed();
        let name = format!("roll-{number}");
        let began = Instant::now();
        milan.tries(&shadow(milan, &there, &name, &pod(&few(), &json!({}))))?.done("an honest pod")?;
        let took = began.elapsed().saturating_sub(look);
        ensure!(took < Duration::from_secs(1), "an honest pod was admitted after {took:?}");
        milan.runs(&["delete", "shadowpod", "-n", &there, &name, "--wait=false"])?.done("an honest pod goes")?;
    }
    Ok(())
}

/// A map with a thousand namespaces, and with names that are somebody's.
fn many_namespaces(raid: &Raid) -> Result<()> {
    let (rome, peer) = (raid.rome(), &raid.turin);
    let selector = format!("liqo.io/originID={}", peer.id);
    let maps = rome.items(&["namespacemaps", "-n", &peer.tenant, "-l", &selector])?;
    let map = maps.first().context("turin has no map in rome")?;
    let name = text(map, "/metadata/name");
    let (key, value) =
        map["spec"]["desiredMapping"].as_object().and_then(|all| all.iter().next()).context("an empty map")?;
    let suffix = value.as_str().and_then(|value| value.strip_prefix(key.as_str())).unwrap_or_default().to_owned();
    let mut mapping = serde_json::Map::from_iter([(key.clone(), value.clone())]);
    mapping.extend((0..1000).map(|n| (format!("n{n}"), json!(format!("n{n}{suffix}")))));
    let own = || namespaces_of(raid);
    let tried = peer.patches(&peer.tenant, &["namespacemap", name], &json!({"spec": {"desiredMapping": mapping}}))?;
    super::raid::never("namespaces beyond the most", || {
        let count = own()?;
        Ok(if count > NAMESPACES { vec![format!("{count} namespaces")] } else { Vec::new() })
    })?;
    for taken in ["cert-manager", "istio-system", "gatekeeper-system", "kube-node-lease-2", "shop"] {
        let mapping = json!({"spec": {"desiredMapping": {key: value, "taken": taken}}});
        let _ = peer.patches(&peer.tenant, &["namespacemap", name], &mapping)?;
    }
    super::raid::never("namespaces with names of others", || {
        let all = rome.items(&["namespaces"])?;
        let names = ["cert-manager", "istio-system", "gatekeeper-system", "kube-node-lease-2"];
        Ok(all
            .iter()
            .map(|one| text(one, "/metadata/name"))
            .filter(|name| names.contains(name))
            .map(str::to_owned)
            .collect())
    })?;
    // The end state equals the start: all admitted pods are deleted.
    if matches!(tried, Outcome::Done(_)) {
        let back = json!([{"op": "replace", "path": "/spec/desiredMapping", "value": {key: value}}]).to_string();
        rome.kubectl(&["patch", "namespacemap", "-n", &peer.tenant, name, "--type=json", "-p", &back])?;
        wait_for("the namespaces of the map go", LONG, || {
            let count = own()?;
            if count == 1 { Ok(Some(())) } else { bail!("{count} namespaces") }
        })?;
    }
    Ok(())
}

/// A map that is too large for the API server to read, and a large map that the API server reads: neither is stored.
fn map_beyond_measure(raid: &Raid) -> Result<()> {
    let (rome, peer) = (raid.rome(), &raid.turin);
    let labels = json!({"liqo.io/originID": peer.id, "liqo.io/remoteID": raid.home, "liqo.io/replicated": "true"});
    let path = format!("/apis/virtualkubelet.liqo.io/v1alpha1/namespaces/{}/namespacemaps", peer.tenant);
    for (entries, code) in [(100_000, 413), (20_000, 403)] {
        let mapping = (0..entries).map(|number| (format!("entry-{number}"), json!(format!("entry-{number}-turin"))));
        let map = json!({
            "apiVersion": "virtualkubelet.liqo.io/v1alpha1", "kind": "NamespaceMap",
            "metadata": {"name": "vast", "namespace": peer.tenant, "labels": labels},
            "spec": {"desiredMapping": mapping.collect::<serde_json::Map<_, _>>()},
        });
        let file = raid.stage.bed.dir().join("vast-map");
        let answers =
            flood::post(|| peer.curl(), &format!("{}{path}", rome.api_server()), 1, (&file, &map.to_string()))?;
        ensure!(answers == flood::Answers::from([(code, 1)]), "a map with {entries} entries: {answers:?}");
    }
    Ok(())
}

/// Namespaces in rome that were made for turin.
fn namespaces_of(raid: &Raid) -> Result<usize> {
    let selector = format!("liqo.io/remote-cluster-id={}", raid.turin.id);
    Ok(raid.rome().items(&["namespaces", "-l", &selector])?.len())
}

/// A second map, with as many namespaces as a peer may have: both maps together get no more.
fn many_maps(raid: &Raid) -> Result<()> {
    let (rome, peer) = (raid.rome(), &raid.turin);
    let selector = format!("liqo.io/originID={}", peer.id);
    let maps = rome.items(&["namespacemaps", "-n", &peer.tenant, "-l", &selector])?;
    let first = maps.first().context("turin has no map in rome")?;
    let (labels, wishes) =
        (&first["metadata"]["labels"], first["spec"]["desiredMapping"].as_object().map_or(0, |all| all.len()));
    let mapping = (0..NAMESPACES).map(|number| (format!("more-{number}"), json!(format!("more-{number}-turin"))));
    let second = json!({
        "apiVersion": "virtualkubelet.liqo.io/v1alpha1", "kind": "NamespaceMap",
        "metadata": {"name": "second", "namespace": peer.tenant, "labels": labels},
        "spec": {"desiredMapping": mapping.collect::<serde_json::Map<_, _>>()},
    });
    peer.tries(&second.to_string())?.done("a second map")?;
    wait_for("the second map gets what the first one leaves", LONG, || {
        let map = rome.json(&["namespacemap", "-n", &peer.tenant, "second"])?;
        let phases =
            map["status"]["currentMapping"].as_object().into_iter().flatten().map(|(_, one)| text(one, "/phase"));
        let (given, refused): (Vec<_>, Vec<_>) = phases.partition(|phase| *phase == "Accepted");
        let count = (given.len(), refused.len());
        if count == (NAMESPACES - wishes, wishes) {
            Ok(Some(()))
        } else {
            bail!("{count:?} namespaces are given and refused")
        }
    })?;
    super::raid::never("namespaces beyond the most", || {
        let count = namespaces_of(raid)?;
        Ok(if count > NAMESPACES { vec![format!("{count} namespaces")] } else { Vec::new() })
    })?;
    let events = rome.items(&["events", "-n", &peer.tenant, "--field-selector", "involvedObject.name=second"])?;
    let is_told = events.iter().any(|one| text(one, "/message").contains("offloading.namespacesPerPeer"));
    ensure!(is_told, "no Event says why a namespace is refused: {events:?}");
    peer.runs(&["delete", "namespacemap", "-n", &peer.tenant, "second", "--wait=false"])?.done("its own map")?;
    wait_for("the namespaces of the second map go", LONG, || {
        let count = namespaces_of(raid)?;
        if count == 1 { Ok(Some(())) } else { bail!("{count} namespaces") }
    })
}

/// An object that a peer can create many times.
struct Kind {
    /// Path of its API group and version, and its resource.
    path: (&'static str, &'static str),
    /// How the quota names it.
    resource: &'static str,
    /// How many are tried.
    tries: usize,
    object: Value,
}

/// The kinds that turin floods rome with.
fn kinds() -> [Kind; 4] {
    let core = |resource, tries, object| Kind { path: ("api/v1", resource), resource, tries, object };
    let shadow = |kind, resource, tries, spec: Value| {
        let object = json!({"apiVersion": "virtualkubelet.liqo.io/v1alpha1", "kind": kind, "spec": spec});
        let path = if kind == "ShadowPod" { "shadowpods" } else { "shadowendpointslices" };
        Kind { path: ("apis/virtualkubelet.liqo.io/v1alpha1", path), resource, tries, object }
    };
    let nowhere = json!({"nodeSelector": {"turin.example/nowhere": "true"}});
    let slice = json!({"template": {"addressType": "IPv4", "endpoints": [], "ports": []}});
    let service = json!({"ports": [{"port": 80}], "clusterIP": "None"});
    [
        core("secrets", 450, json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"a": "b"}})),
        core("services", 450, json!({"apiVersion": "v1", "kind": "Service", "spec": service})),
        shadow(
            "ShadowPod",
            "count/shadowpods.virtualkubelet.liqo.io",
            2100,
            json!({"pod": pod(&json!({"cpu": "1m", "memory": "1Mi"}), &nowhere)}),
        ),
        shadow("ShadowEndpointSlice", "count/shadowendpointslices.virtualkubelet.liqo.io", 1200, slice),
    ]
}

/// Many objects of a kind at the same time: the API server creates no more than the quota of the namespace allows.
fn many_objects(raid: &Raid, there: &str) -> Result<()> {
    let (rome, peer) = (raid.rome(), &raid.turin);
    let quota = wait_for("Kubernetes counts objects of every kind", LONG, || {
        let quota = rome.json(&["resourcequota", "-n", there, "liqo-objects"])?;
        let uncounted: Vec<_> =
            kinds().iter().map(|kind| kind.resource).filter(|kind| quota["status"]["used"][kind].is_null()).collect();
        if uncounted.is_empty() { Ok(Some(quota)) } else { bail!("{uncounted:?}") }
    })?;
    let most = |kind: &str| -> Result<usize> {
        let text = quota["spec"]["hard"][kind].as_str().unwrap_or_default();
        // Kubernetes writes 2000 as 2k.
        let (digits, factor) = text.strip_suffix('k').map_or((text, 1), |thousands| (thousands, 1000));
        Ok(factor * digits.parse::<usize>().with_context(|| format!("{kind} is limited to {text:?}"))?)
    };
    let flood = |kind: Kind| -> Result<()> {
        let Kind { path: (group, resource), resource: counted, tries, mut object } = kind;
        let labels = json!({"virtualkubelet.liqo.io/origin": peer.id, "flood": "yes",
            "endpointslice.kubernetes.io/managed-by": "endpointslice.reflection.liqo.io"});
        object["metadata"] = json!({"generateName": "flood-", "namespace": there, "labels": labels});
        let path = format!("/{group}/namespaces/{there}/{resource}");
        let file = raid.stage.bed.dir().join(format!("flood-of-{resource}"));
        let url = format!("{}{path}", rome.api_server());
        let answers = flood::post(|| peer.curl(), &url, tries, (&file, &object.to_string()))?;
        let (made, refused) =
            (answers.get(&201).copied().unwrap_or_default(), answers.get(&403).copied().unwrap_or_default());
        // Kubernetes counts anew from its cache now and then, so that a few of many at the same time may be too many.
        let most = most(counted)?;
        ensure!(
            (1..=most + most / 20).contains(&made) && made + refused == tries,
            "{resource}: {answers:?}, and {most} are allowed"
        );
        flood::recede(rome, &path, "yes")
    };
    let outcomes: Vec<Result<()>> = thread::scope(|scope| {
        let flood = &flood;
        let floods = kinds().map(|kind| scope.spawn(move || flood(kind)));
        floods.into_iter().map(|one| one.join().expect("a flood does not panic")).collect()
    });
    outcomes.into_iter().collect()
}
