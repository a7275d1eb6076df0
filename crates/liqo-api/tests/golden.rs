//! Objects of real Liqo 0.8.3 clusters pass through our types without losing or gaining a field.
//!
//! The recordings are in `golden/`, as they were taken (values of secrets and managed fields are not in them).

use std::{collections::BTreeMap, fs, path::Path};

use liqo_api::{discovery, net, offloading, sharing, virtualkubelet};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Every recorded object, with the file it is from.
fn recorded() -> Vec<(String, Value)> {
    let golden = Path::new("tests/golden");
    let mut objects = Vec::new();
    for side in ["consumer", "provider"] {
        for entry in fs::read_dir(golden.join(side)).expect("recordings") {
            let path = entry.expect("a file").path();
            let text = fs::read_to_string(&path).expect("text");
            let file = format!("{side}/{}", path.file_name().unwrap_or_default().to_string_lossy());
            let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap_or_else(|e| panic!("{file}: {e}"));
            objects.extend(documents.into_iter().map(|document| (file.clone(), document)));
        }
    }
    objects
}

fn through<K: DeserializeOwned + Serialize>(object: &Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(serde_json::from_value::<K>(object.clone())?)
}

fn through_its_kind(object: &Value) -> Result<Value, serde_json::Error> {
    match object["kind"].as_str().expect("a kind") {
        "ForeignCluster" => through::<discovery::ForeignCluster>(object),
        "ResourceRequest" => through::<discovery::ResourceRequest>(object),
        "IpamStorage" => through::<net::IpamStorage>(object),
        "NatMapping" => through::<net::NatMapping>(object),
        "NetworkConfig" => through::<net::NetworkConfig>(object),
        "TunnelEndpoint" => through::<net::TunnelEndpoint>(object),
        "NamespaceOffloading" => through::<offloading::NamespaceOffloading>(object),
        "ResourceOffer" => through::<sharing::ResourceOffer>(object),
        "NamespaceMap" => through::<virtualkubelet::NamespaceMap>(object),
        "ShadowPod" => through::<virtualkubelet::ShadowPod>(object),
        "ShadowEndpointSlice" => through::<virtualkubelet::ShadowEndpointSlice>(object),
        other => panic!("no type for {other}"),
    }
}

#[test]
fn recorded_objects_survive_our_types() {
    for (file, object) in recorded() {
        let name = &object["metadata"]["name"];
        let ours = through_its_kind(&object).unwrap_or_else(|e| panic!("{file} {name}: {e}"));
        assert_eq!(flat(&ours), flat(&object), "{file} {name}");
    }
}

#[test]
fn every_kind_was_recorded() {
    let mut kinds: Vec<String> = recorded().iter().filter_map(|(_, o)| o["kind"].as_str().map(str::to_owned)).collect();
    kinds.sort();
    kinds.dedup();
    assert_eq!(kinds.len(), liqo_api::crds::liqo().len(), "{kinds:?}");
}

/// Path to leaf: a difference then names the field.
fn flat(value: &Value) -> BTreeMap<String, Value> {
    fn walk(value: &Value, path: &str, leaves: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                map.iter().for_each(|(key, inner)| walk(inner, &format!("{path}.{key}"), leaves));
            }
            Value::Array(items) if !items.is_empty() => {
                items.iter().enumerate().for_each(|(i, inner)| walk(inner, &format!("{path}[{i}]"), leaves));
            }
            leaf => _ = leaves.insert(path.to_owned(), leaf.clone()),
        }
    }
    let mut leaves = BTreeMap::new();
    walk(value, "", &mut leaves);
    leaves
}
