//! The values of the chart, from what is known of the cluster and what the user sets.

use serde_json::{Value, json};

use crate::install::{CommonArgs, parameters::Parameters, set};

/// Layers of values that come from the user.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layers<'a> {
    /// The values of the release that is there.
    pub(crate) earlier: Option<Value>,
    /// What this command was told by flags other than `--set`: see [`given`].
    pub(crate) given: Value,
    /// The arguments of `--set`.
    pub(crate) sets: &'a [String],
}

/// Values for the chart.
#[derive(Clone, Debug)]
pub(crate) struct Forged {
    pub(crate) values: Value,
    /// The values of the earlier release that a first installation would not have, as `key=value`.
    pub(crate) kept: Vec<String>,
}

/// Pure: the values; later layers win: generic, provider and Service types, the release that is there, flags, `--set`.
pub(crate) fn forge(parameters: &Parameters, layers: Layers<'_>) -> Result<Forged, String> {
    let mut all = generic(parameters);
    if let Some(kind) = &parameters.service_type {
        merge(&mut all, json!({"auth": {"service": {"type": kind}}, "gateway": {"service": {"type": kind}}}), "")?;
    }
    let sets = set::all(layers.sets)?;
    let mut fresh = all.clone();
    if let Some(earlier) = layers.earlier.filter(Value::is_object) {
        override_with(&mut all, earlier);
    }
    for values in [&mut all, &mut fresh] {
        if layers.given.is_object() {
            override_with(values, layers.given.clone());
        }
        override_with(values, sets.clone());
    }
    let mut kept = Vec::new();
    differences(&all, Some(&fresh), "", &mut kept);
    Ok(Forged { values: all, kept })
}

/// The values that flags name. A flag that was left out names none, so that its default does not replace an earlier value.
pub(crate) fn given(args: &CommonArgs, ranges_are_typed: bool, parameters: &Parameters) -> Value {
    let reserved: Vec<_> = args.reserved_subnets.iter().map(ToString::to_string).collect();
    let mut all = json!({});
    let layers = [
        (!args.version.is_empty(), json!({"tag": args.version})),
        (!args.cluster_name.is_empty(), json!({"discovery": {"config": {"clusterName": args.cluster_name}}})),
        (!args.cluster_labels.is_empty(), json!({"discovery": {"config": {"clusterLabels": args.cluster_labels}}})),
        (
            args.sharing_percentage.is_some(),
            json!({"controllerManager": {"config": {"resourceSharingPercentage": args.sharing_percentage}}}),
        ),
        (args.enable_ha, json!({"controllerManager": {"replicas": 2}, "gateway": {"replicas": 2}})),
        (!args.reserved_subnets.is_empty(), json!({"networkManager": {"config": {"reservedSubnets": reserved}}})),
        (
            args.enable_metrics,
            json!({"gateway": {"metrics": {"enabled": true, "serviceMonitor": {"enabled": true}}},
                   "virtualKubelet": {"metrics": {"enabled": true, "podMonitor": {"enabled": true}}}}),
        ),
        (args.disable_telemetry, json!({"telemetry": {"enable": false}})),
        (
            !args.service_type.is_empty(),
            json!({"auth": {"service": {"type": args.service_type}}, "gateway": {"service": {"type": args.service_type}}}),
        ),
        (
            ranges_are_typed,
            json!({"networkManager": {"config": {
                "podCIDR": parameters.ranges.pods.to_string(), "serviceCIDR": parameters.ranges.services.to_string()}}}),
        ),
    ];
    for (_, layer) in layers.into_iter().filter(|(is_given, _)| *is_given) {
        override_with(&mut all, layer);
    }
    all
}

/// Adds the leaves of `all` that `other` has not, or has with another value.
fn differences(all: &Value, other: Option<&Value>, key: &str, found: &mut Vec<String>) {
    match all {
        Value::Object(map) if !map.is_empty() => {
            for (name, value) in map {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                differences(value, other.and_then(|other| other.get(name)), &key, found);
            }
        }
        leaf if other != Some(leaf) => {
            let text = leaf.as_str().map_or_else(|| leaf.to_string(), str::to_owned);
            found.push(format!("{key}={text}"));
        }
        _ => {}
    }
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

    /// The values of a first installation.
    fn fresh(parameters: &Parameters, sets: &[String]) -> Value {
        let forged = forge(parameters, Layers { sets, ..Layers::default() }).unwrap();
        assert!(forged.kept.is_empty(), "{:?}", forged.kept);
        forged.values
    }

    #[test]
    fn earlier_values_are_kept_unless_given_again() {
        let earlier = || {
            let sets = ["image=localhost/liqo,networking.securityMode=IntraClusterTrafficSegregation".to_owned()];
            let strict = ["discovery.config.incomingPeeringEnabled=false,offloading.podSecurity=restricted".to_owned()];
            let node_port =
                Parameters { service_type: Some("NodePort".into()), sharing_percentage: 50, ..parameters() };
            fresh(&node_port, &[sets, strict].concat())
        };
        let again = |line: &str, sets: &[String]| {
            let given = given(&crate::install::tests::common(line), false, &parameters());
            forge(&parameters(), Layers { earlier: Some(earlier()), given, sets }).unwrap()
        };
        let same = again("", &[]);
        assert_eq!(same.values, earlier());
        assert_eq!(
            same.kept,
            [
                "auth.service.type=NodePort",
                "controllerManager.config.resourceSharingPercentage=50",
                "discovery.config.incomingPeeringEnabled=false",
                "gateway.service.type=NodePort",
                "image=localhost/liqo",
                "networking.securityMode=IntraClusterTrafficSegregation",
                "offloading.podSecurity=restricted",
            ]
        );
        let changed = again("--sharing-percentage 70 --service-type LoadBalancer", &["image=other".to_owned()]);
        let at = |pointer: &str| changed.values.pointer(pointer).cloned().unwrap_or_default();
        assert_eq!(at("/controllerManager/config/resourceSharingPercentage"), json!(70));
        assert_eq!(
            (at("/auth/service/type"), at("/gateway/service/type")),
            (json!("LoadBalancer"), json!("LoadBalancer"))
        );
        assert_eq!((at("/image"), at("/offloading/podSecurity")), (json!("other"), json!("restricted")));
        assert!(!changed.kept.iter().any(|kept| kept.contains("image") || kept.contains("service.type")));
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
        assert_eq!(fresh(&parameters(), &[]), wanted);
    }

    #[test]
    fn a_service_type_is_only_set_when_there_is_one() {
        let with = fresh(&Parameters { service_type: Some("NodePort".into()), ..parameters() }, &[]);
        assert_eq!(
            (&with["auth"]["service"]["type"], &with["gateway"]["service"]["type"]),
            (&json!("NodePort"), &json!("NodePort"))
        );
        assert_eq!(fresh(&parameters(), &[]).pointer("/auth"), None);
    }

    #[test]
    fn the_user_has_the_last_word() {
        let sets = ["networking.internal=false,tag=dev".to_owned(), "discovery.config.clusterName=milan".to_owned()];
        let forged = fresh(&parameters(), &sets);
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
