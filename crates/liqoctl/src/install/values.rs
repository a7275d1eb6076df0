//! The values of the chart, from what is known of the cluster and what the user sets.

use serde_json::{Value, json};

use crate::install::{parameters::Parameters, set};

/// Pure: the values; later layers win: generic, provider and Service types, `--set`.
pub(crate) fn forge(parameters: &Parameters, sets: &[String]) -> Result<Value, String> {
    let mut all = generic(parameters);
    if let Some(kind) = &parameters.service_type {
        merge(&mut all, json!({"auth": {"service": {"type": kind}}, "gateway": {"service": {"type": kind}}}), "")?;
    }
    override_with(&mut all, set::all(sets)?);
    Ok(all)
}

fn generic(parameters: &Parameters) -> Value {
    let Parameters {
        tag,
        api_server,
        cluster_name,
        cluster_labels,
        ranges,
        reserved_subnets,
        sharing_percentage,
        replicas,
        metrics,
        telemetry,
        service_type: _,
    } = parameters;
    let reserved: Vec<_> = reserved_subnets.iter().map(ToString::to_string).collect();
    let mut values = json!({
        "apiServer": {"address": api_server},
        "discovery": {"config": {"clusterName": cluster_name, "clusterLabels": cluster_labels}},
        "controllerManager": {"replicas": replicas, "config": {"resourceSharingPercentage": sharing_percentage}},
        "networkManager": {"config": {
            "podCIDR": ranges.pods.to_string(),
            "serviceCIDR": ranges.services.to_string(),
            "reservedSubnets": reserved,
        }},
        "gateway": {"replicas": replicas, "metrics": {"enabled": metrics, "serviceMonitor": {"enabled": metrics}}},
        "virtualKubelet": {"metrics": {"enabled": metrics, "podMonitor": {"enabled": metrics}}},
        "telemetry": {"enable": telemetry},
    });
    if !tag.is_empty() {
        values["tag"] = tag.as_str().into();
    }
    values
}

/// Merges `from` into `into`: maps by key, lists one after the other, a value of the same type replaces.
fn merge(into: &mut Value, from: Value, key: &str) -> Result<(), String> {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                match into.get_mut(&key) {
                    Some(old) => merge(old, value, &key)?,
                    None => _ = into.insert(key, value),
                }
            }
        }
        (Value::Array(into), Value::Array(from)) => into.extend(from),
        (into, from) if same_type(into, &from) => *into = from,
        (into, from) => {
            return Err(format!("the two maps have different types for the same key {key:?}: {into} and {from}"));
        }
    }
    Ok(())
}

fn same_type(a: &Value, b: &Value) -> bool {
    a.is_null() || b.is_null() || std::mem::discriminant(a) == std::mem::discriminant(b)
}

/// What the user sets wins whatever its type; null takes the value away, so that the chart's default holds.
fn override_with(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                match into.get_mut(&key) {
                    Some(old) if old.is_object() && value.is_object() => override_with(old, value),
                    _ => _ = into.insert(key, value),
                }
            }
        }
        (into, from) => *into = from,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{flag::cidr, install::provider::Ranges};

    fn parameters() -> Parameters {
        Parameters {
            tag: String::new(),
            api_server: "https://172.30.0.11:6443".into(),
            cluster_name: "rome".into(),
            cluster_labels: [("liqo.io/provider".to_owned(), "kubeadm".to_owned())].into(),
            ranges: Ranges { pods: cidr("10.244.0.0/16").unwrap(), services: cidr("10.96.0.0/16").unwrap() },
            reserved_subnets: vec![cidr("10.0.0.0/24").unwrap()],
            sharing_percentage: 90,
            replicas: 1,
            metrics: false,
            telemetry: true,
            service_type: None,
        }
    }

    #[test]
    fn the_generic_values_are_the_documented_ones() {
        let wanted = json!({
            "apiServer": {"address": "https://172.30.0.11:6443"},
            "controllerManager": {"config": {"resourceSharingPercentage": 90}, "replicas": 1},
            "discovery": {"config": {"clusterLabels": {"liqo.io/provider": "kubeadm"}, "clusterName": "rome"}},
            "gateway": {"metrics": {"enabled": false, "serviceMonitor": {"enabled": false}}, "replicas": 1},
            "networkManager": {"config": {"podCIDR": "10.244.0.0/16", "reservedSubnets": ["10.0.0.0/24"], "serviceCIDR": "10.96.0.0/16"}},
            "telemetry": {"enable": true},
            "virtualKubelet": {"metrics": {"enabled": false, "podMonitor": {"enabled": false}}},
        });
        assert_eq!(forge(&parameters(), &[]).unwrap(), wanted);
    }

    #[test]
    fn a_service_type_is_only_set_when_there_is_one() {
        let with = forge(&Parameters { service_type: Some("NodePort".into()), ..parameters() }, &[]).unwrap();
        assert_eq!(
            (&with["auth"]["service"]["type"], &with["gateway"]["service"]["type"]),
            (&json!("NodePort"), &json!("NodePort"))
        );
        assert_eq!(forge(&parameters(), &[]).unwrap().pointer("/auth"), None);
    }

    #[test]
    fn the_user_has_the_last_word() {
        let sets = ["networking.internal=false,tag=dev".to_owned(), "discovery.config.clusterName=milan".to_owned()];
        let forged = forge(&parameters(), &sets).unwrap();
        assert_eq!(forged["networking"]["internal"], json!(false));
        assert_eq!((&forged["tag"], &forged["discovery"]["config"]["clusterName"]), (&json!("dev"), &json!("milan")));
    }

    #[test]
    fn lists_are_joined_and_types_kept() {
        let mut into = json!({"a": [1], "b": {"c": "x"}});
        merge(&mut into, json!({"a": [2], "b": {"d": 1}}), "").unwrap();
        assert_eq!(into, json!({"a": [1, 2], "b": {"c": "x", "d": 1}}));
        assert!(
            merge(&mut into, json!({"b": "text"}), "")
                .unwrap_err()
                .starts_with("the two maps have different types for the same key \"b\"")
        );
    }
}
