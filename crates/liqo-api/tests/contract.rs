//! The definitions are those of Liqo 0.8.3, as written down from its documentation and recordings
//! (not generated from our types): names, columns, and every field with its type, whether it is required,
//! its words and its default.

mod contract {
    pub(crate) mod table;
}

use std::collections::BTreeMap;

use contract::table::{Column, Kind, TABLE};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

/// The generated definitions by kind.
fn generated() -> BTreeMap<String, CustomResourceDefinition> {
    liqo_api::crds::liqo().into_iter().map(|crd| (crd.spec.names.kind.clone(), crd)).collect()
}

#[test]
fn there_are_exactly_these_kinds() {
    let generated = generated();
    let ours: Vec<&str> = generated.keys().map(String::as_str).collect();
    let mut wanted: Vec<&str> = TABLE.iter().map(|kind| kind.kind).collect();
    wanted.sort_unstable();
    assert_eq!(ours, wanted);
}

#[test]
fn names_scopes_and_versions() {
    let generated = generated();
    for Kind { kind, group, plural, short, namespaced, category, .. } in TABLE {
        let crd = &generated[*kind];
        let names = &crd.spec.names;
        assert_eq!(crd.metadata.name.as_deref(), Some(&*format!("{plural}.{group}")));
        assert_eq!((crd.spec.group.as_str(), names.plural.as_str()), (*group, *plural), "{kind}");
        assert_eq!(names.singular.as_deref(), Some(&*kind.to_lowercase()), "{kind}");
        assert_eq!(names.short_names.clone().unwrap_or_default(), *short, "{kind}");
        assert_eq!(names.categories.clone().unwrap_or_default(), *category, "{kind}");
        assert_eq!(crd.spec.scope, if *namespaced { "Namespaced" } else { "Cluster" }, "{kind}");
        assert_eq!(crd.metadata.labels, None, "{kind}");
        let versions: Vec<_> = crd.spec.versions.iter().map(|v| (v.name.as_str(), v.served, v.storage)).collect();
        let wanted: &[_] = match *kind {
            "NamespaceOffloading" => &[("v1alpha1", true, true), ("v1beta1", true, false)],
            _ => &[("v1alpha1", true, true)],
        };
        assert_eq!(versions, wanted, "{kind}");
    }
}

#[test]
fn every_version_of_a_kind_says_the_same() {
    for crd in generated().values() {
        for version in &crd.spec.versions {
            assert_eq!(version.schema, crd.spec.versions[0].schema);
            assert_eq!(version.additional_printer_columns, crd.spec.versions[0].additional_printer_columns);
            assert_eq!(version.subresources, crd.spec.versions[0].subresources);
        }
    }
}

#[test]
fn columns_and_subresources() {
    let generated = generated();
    for Kind { kind, columns, status, .. } in TABLE {
        let version = &generated[*kind].spec.versions[0];
        let ours: Vec<Column<'_>> = version
            .additional_printer_columns
            .iter()
            .flatten()
            .map(|c| (c.name.as_str(), c.json_path.as_str(), c.type_.as_str(), c.priority.unwrap_or_default()))
            .collect();
        assert_eq!(ours, *columns, "{kind}");
        let subresources = serde_json::to_value(&version.subresources).expect("JSON");
        assert_eq!(subresources, if *status { json!({"status": {}}) } else { Value::Null }, "{kind}");
    }
}

#[test]
fn fields() {
    let generated = generated();
    for Kind { kind, fields, foreign, .. } in TABLE {
        let mut ours = BTreeMap::new();
        flatten(&schema(&generated[*kind]), "", false, &mut ours);
        let within = |path: &str| foreign.iter().any(|root| path.starts_with(&format!("{root}.")));
        for line in fields.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (path, wanted) = line.split_once(' ').expect("a path and what it is");
            let found = ours.remove(path).unwrap_or_else(|| panic!("{kind} has no {path}"));
            assert_eq!(found, wanted.trim(), "{kind} {path}");
        }
        ours.retain(|path, _| !within(path));
        assert_eq!(ours, BTreeMap::new(), "{kind} has fields Liqo 0.8.3 does not know");
    }
}

/// A missing `spec` is an empty one; kinds for which that would be invalid say so (see the head of `crds`).
#[test]
fn an_object_without_spec_is_readable_or_refused() {
    for (kind, crd) in generated() {
        let schema = schema(&crd);
        let spec = &schema["properties"]["spec"];
        let required = schema["required"] == json!(["spec"]);
        assert_eq!(required, kind == "NamespaceOffloading" || spec.get("required").is_some(), "{kind}");
        assert_ne!(required, spec["default"] == json!({}), "{kind}");
    }
}

/// `kubectl explain` has something to say about everything that is ours.
#[test]
fn everything_is_described() {
    for Kind { kind, foreign, .. } in TABLE {
        let schema = schema(&generated()[*kind]);
        assert!(schema["description"].as_str().is_some_and(|text| text.starts_with(kind)), "{kind}");
        let mut bare = Vec::new();
        undescribed(&schema, "", &mut bare);
        bare.retain(|path| !foreign.iter().any(|root| path.starts_with(&format!("{root}."))));
        assert_eq!(bare, Vec::<String>::new(), "{kind}");
    }
}

/// `kubectl apply` keeps the definition in an annotation of at most 256 KiB.
#[test]
fn definitions_can_be_applied() {
    for (kind, crd) in generated() {
        let size = serde_json::to_string(&crd).expect("JSON").len();
        assert!(size < 200 * 1024, "{kind}: {size} bytes");
    }
}

#[test]
fn nothing_is_nullable() {
    for (kind, crd) in generated() {
        assert!(!schema(&crd).to_string().contains("nullable"), "{kind}");
    }
}

fn schema(crd: &CustomResourceDefinition) -> Value {
    let version = serde_json::to_value(&crd.spec.versions[0]).expect("JSON");
    version["schema"]["openAPIV3Schema"].clone()
}

/// Path of every field to its line in the words of the table.
fn flatten(node: &Value, path: &str, required: bool, lines: &mut BTreeMap<String, String>) {
    if !path.is_empty() {
        lines.insert(path.to_owned(), line(node, required));
    }
    for (name, property) in node["properties"].as_object().into_iter().flatten() {
        let required = node["required"].as_array().is_some_and(|names| names.contains(&json!(name)));
        flatten(property, &join(path, name), required, lines);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = node.get(key) {
            flatten(inner, &join(path, "*"), false, lines);
        }
    }
}

fn undescribed(node: &Value, path: &str, bare: &mut Vec<String>) {
    for (name, property) in node["properties"].as_object().into_iter().flatten() {
        let path = join(path, name);
        if property["description"].as_str().unwrap_or_default().is_empty() {
            bare.push(path.clone());
        }
        undescribed(property, &path, bare);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = node.get(key) {
            undescribed(inner, &join(path, "*"), bare);
        }
    }
}

fn line(node: &Value, required: bool) -> String {
    let mut words = vec![match (node["type"].as_str(), node.get("additionalProperties")) {
        (Some("object"), Some(_)) => "map".to_owned(),
        (Some(name), _) => name.to_owned(),
        (None, _) if node["x-kubernetes-int-or-string"] == json!(true) => "int-or-string".to_owned(),
        (None, _) => "any".to_owned(),
    }];
    if required {
        words.push("required".to_owned());
    }
    for key in ["format", "default", "x-kubernetes-list-type", "x-kubernetes-map-type"] {
        if let Some(value) = node.get(key) {
            words.push(format!("{key}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
        }
    }
    if let Some(minimum) = node["minimum"].as_f64() {
        words.push(format!("minimum={minimum}"));
    }
    if let Some(names) = node["enum"].as_array() {
        let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
        words.push(format!("enum={}", names.join("|")));
    }
    if let Some(pattern) = node["pattern"].as_str() {
        words.push(format!("pattern={pattern}"));
    }
    words.join(" ")
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
