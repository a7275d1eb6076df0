//! Made-up requests: recorded ones and some like them, changed in a few places.

use std::{fs, path::Path};

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    strategy::ValueTree,
    test_runner::TestRunner,
};
use serde_json::{Value, json};

/// The peer and the cluster of the recorded requests, and another peer.
const PEER: &str = "09897b82-7830-483b-b786-9cf90899f809";
const HOME: &str = "16fbeaec-e4e4-41dc-9eea-170ce95d7dd9";
const OTHER: &str = "5b0a4f8e-3c1b-4f59-8d0c-6a7d0f2f1b11";
const KUBELET: &str = "system:serviceaccount:liqo-tenant-milan-ca6261:virtual-kubelet";

/// Places that rules look at, the keys separated by `|`.
const PLACES: &[&str] = &[
    "metadata|labels|liqo.io/originID",
    "metadata|labels|liqo.io/remoteID",
    "metadata|labels|liqo.io/replicated",
    "metadata|labels|liqo.io/replication",
    "metadata|labels|liqo.io/remote-cluster-id",
    "metadata|labels|liqo.io/managed-by",
    "metadata|labels|discovery.liqo.io/cluster-id",
    "metadata|labels|auth.liqo.io/any",
    "metadata|labels|virtualkubelet.liqo.io/origin",
    "metadata|labels|endpointslice.kubernetes.io/managed-by",
    "metadata|labels|kubed.appscode.com/sync",
    "metadata|labels",
    "metadata|annotations|liqo.io/end-at-once",
    "metadata|annotations|kubectl.kubernetes.io/any",
    "metadata|annotations|nginx.ingress.kubernetes.io/any",
    "metadata|annotations|reflector.v1.k8s.emberstack.com/any",
    "metadata|annotations|pv.kubernetes.io/bind-completed",
    "metadata|annotations|virtualkubelet.liqo.io/original-uid",
    "metadata|annotations",
    "metadata|finalizers",
    "metadata|ownerReferences",
    "metadata",
    "spec",
    "spec|type",
    "spec|externalIPs",
    "spec|loadBalancerIP",
    "spec|defaultBackend",
    "spec|ingressClassName",
    "spec|rules|0|host",
    "spec|rules",
    "spec|tls",
    "spec|template|addressType",
    "spec|template|endpoints|0|addresses",
    "spec|template|endpoints|0|addresses|0",
    "spec|template|endpoints",
    "spec|template",
    "spec|volumeName",
    "spec|selector",
    "spec|dataSource",
    "spec|dataSourceRef",
    "spec|storageClassName",
    "spec|clusterIdentity|clusterID",
    "spec|clusterIdentity",
    "spec|authUrl",
    "spec|clusterId",
    "spec|labels",
    "spec|storageClasses",
    "spec|desiredMapping|demo",
    "spec|desiredMapping|other",
    "spec|desiredMapping",
    "spec|cluster|clusterID",
    "spec|cluster",
    "spec|podCIDR",
    "spec|backend_config",
    "spec|backend_config|publicKey",
    "spec|nodeName",
    "type",
];

/// Keys whose values are objects, and keys of lists of objects: the API server decodes nothing else there, and evaluates no rule then.
const OBJECTS: &[&str] = &["metadata", "spec", "template", "clusterIdentity", "cluster", "targetRef", "conditions"];
const LISTS: &[&str] = &["rules", "tls", "endpoints"];

/// Words that mean something to a rule.
const WORDS: &[&str] = &[
    PEER,
    HOME,
    OTHER,
    "",
    "true",
    "false",
    "True",
    "*",
    "ClusterIP",
    "NodePort",
    "ExternalName",
    "198.51.100.7",
    "peer.example",
    "a.peer.example",
    "evilpeer.example",
    ".peer.example",
    "nginx",
    "fast",
    "slow",
    "IPv4",
    "FQDN",
    "10.1.2.3",
    "127.0.0.1",
    "169.254.169.254",
    "::1",
    "fe80::1",
    "FEA0::1",
    "kubernetes.io/service-account-token",
    "bootstrap.kubernetes.io/token",
    "Opaque",
    "demo-consumer-ed03b8",
    "Demo",
    "-demo",
    "demo\n",
    "endpointslice.reflection.liqo.io",
    "kubernetes.io/pvc-protection",
    "liqo-milan",
    "worker",
];

/// Words at places where a rule refuses them, which arbitrary changes meet too seldom.
const POINTED: &[(&str, &str)] = &[
    ("type", "kubernetes.io/service-account-token"),
    ("type", "bootstrap.kubernetes.io/token"),
    ("spec|desiredMapping|other", "Demo"),
    ("spec|clusterId", OTHER),
    ("spec|clusterIdentity|clusterID", OTHER),
    ("spec|template|endpoints|0|addresses|0", "169.254.169.254"),
    ("metadata|labels|virtualkubelet.liqo.io/origin", OTHER),
];

/// Lengths at places where a rule adds up the length of texts: below and above the limit of the defaults.
const HEAVY: &[(&str, usize)] = &[
    ("metadata|annotations|kubectl.kubernetes.io/any", 16_000),
    ("metadata|annotations|kubectl.kubernetes.io/any", 17_000),
    ("data|any", 262_000),
    ("data|any", 263_000),
];

#[derive(Clone, Debug)]
enum Change {
    /// A value at a place that a rule looks at.
    Set(&'static str, Value),
    /// A value in place of something that is there.
    Replace(Index, Value),
    /// Something that is there goes.
    Remove(Index),
}

/// Requests, the same at each call.
pub(super) fn made(count: usize) -> Vec<Value> {
    let (mut runner, strategy) = (TestRunner::deterministic(), requests());
    (0..count).map(|_| strategy.new_tree(&mut runner).expect("no request is refused").current()).collect()
}

fn requests() -> impl Strategy<Value = Value> {
    let operation = select(vec!["CREATE", "UPDATE", "UPDATE", "DELETE"]);
    let user = prop_oneof![8 => Just(None), 1 => select(users()).prop_map(Some)];
    let space = prop_oneof![4 => Just(None), 1 => select(vec!["kube-node-lease", "demo", ""]).prop_map(Some)];
    let changes = || prop_oneof![1 => Just(Vec::new()), 4 => vec(change(), 1..4)];
    (select(recorded()), operation, changes(), changes(), user, space).prop_map(request)
}

type Parts = (Value, &'static str, Vec<Change>, Vec<Change>, Option<(&'static str, Value)>, Option<&'static str>);

/// The recorded request with another operation, changed objects, and perhaps another user and namespace.
fn request((mut request, operation, new, old, user, space): Parts) -> Value {
    let original = request["object"].take();
    let changed = |changes: Vec<Change>| {
        let mut object = original.clone();
        changes.into_iter().for_each(|change| apply(&mut object, change));
        object
    };
    request["operation"] = json!(operation);
    request["object"] = if operation == "DELETE" { Value::Null } else { changed(new) };
    request["oldObject"] = if operation == "CREATE" { Value::Null } else { changed(old) };
    if let Some((name, groups)) = user {
        request["userInfo"] = json!({"username": name, "groups": groups});
    }
    if let Some(space) = space {
        request["namespace"] = json!(space);
    }
    request
}

fn users() -> Vec<(&'static str, Value)> {
    vec![
        (OTHER, json!(["liqo.io"])),
        ("admin", json!(["system:masters"])),
        ("admin", json!(["xliqo.io", "liqo.io.x"])),
        (PEER, json!([])),
        ("system:serviceaccount:liqo-tenant-:virtual-kubelet", json!(["system:authenticated"])),
        ("system:serviceaccount:demo:virtual-kubelet", json!(["system:authenticated"])),
        (KUBELET, json!(["liqo.io"])),
    ]
}

/// The corpus of writes of peers, a claim, and what virtual kubelets write.
fn recorded() -> Vec<Value> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/write_of_peer");
    let mut paths: Vec<_> =
        fs::read_dir(directory).expect("a corpus").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let mut all: Vec<Value> =
        paths.iter().filter_map(|path| serde_json::from_slice(&fs::read(path).expect("a file")).ok()).collect();
    all.retain(|request| request["object"].is_object());
    let resources = json!({"requests": {"storage": "1Gi"}});
    let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": resources, "storageClassName": "fast"});
    let labels = json!({"virtualkubelet.liqo.io/origin": PEER});
    let claim = json!({"metadata": {"name": "x", "labels": labels}, "spec": spec});
    all.push(asked(("", "persistentvolumeclaims", ""), "x", (PEER, "liqo.io"), claim));
    let pod = json!({"metadata": {"name": "x"}, "spec": {"nodeName": "liqo-milan"}});
    for (resource, part, name, object) in [
        (("", "nodes"), "", "liqo-milan", json!({"metadata": {"name": "liqo-milan"}})),
        (("", "nodes"), "", "stranger", json!({"metadata": {"name": "stranger"}})),
        (("coordination.k8s.io", "leases"), "", "liqo-milan", json!({"metadata": {"name": "liqo-milan"}})),
        (("", "pods"), "", "x", pod.clone()),
        (("", "pods"), "status", "x", pod),
    ] {
        all.push(asked((resource.0, resource.1, part), name, (KUBELET, "system:serviceaccounts"), object));
    }
    // The judge wants a version of each kind.
    for request in &mut all {
        request["kind"] = json!({"group": request["resource"]["group"], "version": "v1", "kind": "Any"});
    }
    all
}

fn asked(of: (&str, &str, &str), name: &str, (user, group): (&str, &str), object: Value) -> Value {
    let (api, resource, part) = of;
    json!({
        "uid": "u", "namespace": "kube-node-lease", "name": name, "object": object, "subResource": part,
        "resource": {"group": api, "version": "v1", "resource": resource},
        "userInfo": {"username": user, "groups": [group, "system:authenticated"]},
    })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (select(PLACES), value()).prop_map(|(place, value)| Change::Set(place, value)),
        2 => select(POINTED).prop_map(|(place, word)| Change::Set(place, json!(word))),
        1 => select(HEAVY).prop_map(|(place, length)| Change::Set(place, json!("a".repeat(length)))),
        2 => (any::<Index>(), value()).prop_map(|(place, value)| Change::Replace(place, value)),
        2 => any::<Index>().prop_map(Change::Remove),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let text = || prop_oneof![6 => select(WORDS).prop_map(str::to_owned), 1 => "\\PC{0,12}", 1 => long()];
    let entry = (select(PLACES).prop_map(|place| place.rsplit('|').next().unwrap_or(place).to_owned()), text());
    let odd = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e9..1e9).prop_map(Value::from),
        vec(any::<i8>(), 0..3).prop_map(Value::from),
        Just(json!({})),
        Just(json!([[]])),
    ];
    prop_oneof![
        10 => text().prop_map(Value::from),
        4 => vec(text(), 0..4).prop_map(Value::from),
        2 => vec(entry, 0..4).prop_map(|all| all.into_iter().map(|(key, value)| (key, json!(value))).collect()),
        3 => odd,
    ]
}

/// Texts about as long as a rule allows, in letters of one and of several bytes.
fn long() -> impl Strategy<Value = String> {
    let letter = select(vec!["a", "é", "💡", "İ"]);
    let length = select(vec![15_usize, 16, 17, 63, 64, 65, 253, 254, 1024, 1025, 2048, 2049, 40_000]);
    (letter, length).prop_map(|(letter, length)| letter.repeat(length))
}

fn apply(object: &mut Value, change: Change) {
    let places = |object: &Value| {
        let mut all = Vec::new();
        collect(object, String::new(), &mut all);
        all
    };
    match change {
        Change::Set(place, value) => set(object, place, value),
        Change::Replace(which, value) => {
            let all = places(object);
            if let Some(place) = (!all.is_empty()).then(|| which.get(&all)) {
                set(object, place, value);
            }
        }
        Change::Remove(which) => {
            let all = places(object);
            if let Some(place) = (!all.is_empty()).then(|| which.get(&all)) {
                remove(object, place);
            }
        }
    }
}

/// All places of a value, the keys separated by `|`.
fn collect(value: &Value, place: String, all: &mut Vec<String>) {
    let mut below = |key: String, value: &Value| {
        let place = if place.is_empty() { key } else { format!("{place}|{key}") };
        all.push(place.clone());
        collect(value, place, all);
    };
    match value {
        Value::Object(entries) => entries.iter().for_each(|(key, value)| below(key.clone(), value)),
        Value::Array(items) => items.iter().enumerate().for_each(|(number, value)| below(number.to_string(), value)),
        _ => {}
    }
}

/// Makes what is missing on the way.
fn set(object: &mut Value, place: &str, value: Value) {
    let value = decodable(place, value);
    let mut at = object;
    for key in place.split('|') {
        let index = key.parse::<usize>().ok();
        at = match (at, index) {
            (Value::Array(items), Some(index)) => {
                items.resize(items.len().max(index + 1), Value::Null);
                &mut items[index]
            }
            (Value::Object(entries), _) => entries.entry(key).or_insert(Value::Null),
            (other, _) => {
                *other = json!({key: null});
                &mut other[key]
            }
        };
    }
    *at = value;
}

/// The value, or an empty one where the API server takes no such value.
fn decodable(place: &str, value: Value) -> Value {
    let mut keys = place.rsplit('|');
    let (last, parent) = (keys.next().unwrap_or_default(), keys.next().unwrap_or_default());
    let is_item = LISTS.contains(&parent) && last.parse::<usize>().is_ok();
    if LISTS.contains(&last) {
        return if value.as_array().is_some_and(|all| all.iter().all(Value::is_object)) { value } else { json!([]) };
    }
    if (OBJECTS.contains(&last) || is_item) && !value.is_object() { json!({}) } else { value }
}

fn remove(object: &mut Value, place: &str) {
    let (parents, last) = place.rsplit_once('|').unwrap_or(("", place));
    let pointer = |place: &str| {
        place
            .split('|')
            .filter(|key| !key.is_empty())
            .map(|key| format!("/{}", key.replace('~', "~0").replace('/', "~1")))
            .collect::<String>()
    };
    match object.pointer_mut(&pointer(parents)) {
        Some(Value::Object(entries)) => drop(entries.remove(last)),
        Some(Value::Array(items)) => {
            let index = last.parse::<usize>().ok();
            if let Some(index) = index.filter(|index| *index < items.len()) {
                items.remove(index);
            }
        }
        _ => {}
    }
}
