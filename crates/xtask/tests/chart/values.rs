//! Every value of the chart that decides about trust is tried: another value must change the rendered objects. A value without an
//! effect fails here, and so does a new value that is in no table of this file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::{Value, json};

use super::helm::{path, template};

/// Sections of the values that decide who may do what here.
const SECTIONS: [&str; 9] = [
    "auth.config",
    "controllerManager.config",
    "discovery.config",
    "networking",
    "networkManager.config",
    "networkPolicies",
    "offloading",
    "peerPolicy",
    "webhook",
];
/// Maps that are one value.
const WHOLE: [&str; 2] = ["discovery.config.clusterLabels", "offloading.guests.objects"];

/// The name of a value, a setting other than the default, and text that is rendered with this setting only.
const TRIED: [(&str, &str, &str); 50] = [
    ("auth.config.enableAuthentication", "false", "--enable-authentication=false"),
    ("auth.config.acceptClusterToken", "false", "--accept-cluster-token=false"),
    ("auth.config.pinCertificate", "false", "--pin-certificate=false"),
    ("auth.config.identityLifetime", "25h", "--identity-lifetime=25h"),
    ("auth.config.maxTenants", "77", "--max-tenants=77"),
    ("auth.config.addressOverride", "auth.example.org", "liqo.io/override-address: auth.example.org"),
    ("auth.config.portOverride", "30443", "liqo.io/override-port: \"30443\""),
    ("controllerManager.config.resourceSharingPercentage", "31", "--resource-sharing-percentage=31"),
    ("controllerManager.config.enableResourceEnforcement", "true", "--enable-resource-enforcement"),
    ("controllerManager.config.enableNodeFailureController", "true", "--enable-node-failure-controller"),
    ("controllerManager.config.offerUpdateThresholdPercentage", "7", "--offer-update-threshold-percentage=7"),
    (
        "controllerManager.config.resourcePluginAddress",
        "plugin.example:6000",
        "--resource-plugin-address=plugin.example:6000",
    ),
    ("controllerManager.config.withdrawalDeadline", "77s", "--withdrawal-deadline=77s"),
    ("discovery.config.clusterName", "naples", "--cluster-name=naples"),
    (
        "discovery.config.clusterIDOverride",
        "5a1e0f3c-7b6d-4c2e-9f10-8d7c6b5a4e3f",
        "5a1e0f3c-7b6d-4c2e-9f10-8d7c6b5a4e3f",
    ),
    ("discovery.config.clusterLabels.region", "eu", "--cluster-labels=region=eu"),
    ("discovery.config.autojoin", "false", "--auto-join-discovered-clusters=false"),
    ("discovery.config.incomingPeeringEnabled", "false", "--enable-incoming-peering=false"),
    ("networking.reflectIPs", "false", "--disable-ip-reflection"),
    ("networking.peersWithin", "{10.96.7.0/24}", "--peers-within=10.96.7.0/24"),
    (
        "networking.securityMode",
        "IntraClusterTrafficSegregation",
        "--gateway.security-mode=IntraClusterTrafficSegregation",
    ),
    ("networkManager.config.podCIDR", "10.7.0.0/16", "--manager.pod-cidr=10.7.0.0/16"),
    ("networkManager.config.serviceCIDR", "10.8.0.0/16", "--manager.service-cidr=10.8.0.0/16"),
    ("networkManager.config.reservedSubnets", "{192.0.2.0/24}", "--manager.reserved-pools=192.0.2.0/24"),
    ("networkManager.config.additionalPools", "{100.64.0.0/10}", "--manager.additional-pools=100.64.0.0/10"),
    ("networkManager.config.acceptPublicRanges", "true", "--manager.accept-public-ranges"),
    ("networkPolicies.metricsFrom[0].ipBlock.cidr", "198.51.100.0/25", "cidr: 198.51.100.0/25"),
    ("networkPolicies.webhooksFrom[0].ipBlock.cidr", "198.51.100.128/25", "cidr: 198.51.100.128/25"),
    ("offloading.reservedNamespaces", "{held-*}", "--reserved-namespaces=held-*"),
    ("offloading.freeNames", "{lab-*}", "--free-names=lab-*"),
    ("offloading.namespacesPerPeer", "9", "--namespaces-per-peer=9"),
    ("offloading.podSecurity", "restricted", "--pod-security=restricted"),
    ("offloading.guests.tolerations", "{gpu}", "--guest-tolerations=gpu"),
    ("offloading.guests.priorityClasses", "{batch}", "--guest-priority-classes=batch"),
    ("offloading.guests.runtimeClasses", "{sandbox}", "--guest-runtime-classes=sandbox"),
    ("offloading.guests.runtimeClass", "gvisor", "--guest-runtime-class=gvisor"),
    ("offloading.guests.annotations", "{net.example/}", "--guest-annotations=net.example/"),
    ("offloading.guests.volumes", "{nfs}", "--guest-volumes=nfs"),
    ("offloading.guests.privileged", "true", "--guest-privileged"),
    ("offloading.guests.objects.pods", "5", ",pods=5,"),
    ("offloading.guests.networks", "{10.9.0.0/16}", "--guest-networks=10.9.0.0/16"),
    ("peerPolicy.allowedServiceTypes", "{ClusterIP,ExternalName}", "ClusterIP ExternalName"),
    ("peerPolicy.allowedExternalIPs", "{203.0.113.7}", "203.0.113.7"),
    ("peerPolicy.ingressHostSuffixes", "{peers.example}", "peers.example"),
    ("peerPolicy.ingressClasses", "{internet-facing}", "internet-facing"),
    ("peerPolicy.ingressAnnotations", "{nginx.example/}", "nginx.example/"),
    ("peerPolicy.storageClasses", "{fast}", "fast"),
    ("peerPolicy.largestObject", "1234", "1234"),
    ("peerPolicy.deniedMetadata", "{copier.example/}", "copier.example/"),
    ("webhook.port", "9555", "--webhook-port=9555"),
];

/// A value, and why it is not in [`TRIED`].
const OTHERS: [(&str, &str); 9] = [
    ("discovery.config.enableAdvertisement", "without effect: there is no LAN discovery"),
    ("discovery.config.enableDiscovery", "without effect: there is no LAN discovery"),
    ("discovery.config.ttl", "without effect: there is no LAN discovery"),
    ("networking.internal", "takes objects away: roles.rs, installations_have_the_roles_that_they_ask_for"),
    ("networkPolicies.enabled", "takes objects away: guard.rs, policies_follow_the_values"),
    (
        "peerPolicy.protectNamespaceLabels",
        "takes a policy away: peers.rs, labels_of_tenant_namespaces_are_protected_unless_switched_off",
    ),
    ("webhook.failurePolicy", "not of all webhooks: peers.rs"),
    ("webhook.clientCA", "of several lines: guard.rs, the_webhooks_are_closed_to_others_by_values"),
    ("webhook.patch.image", "without effect: the controller manager makes the certificates"),
];

#[test]
fn every_value_of_trust_is_in_a_table() {
    let text = fs::read_to_string(path().join("values.yaml")).expect("the chart has values");
    let values: Value = serde_saphyr::from_str(&text).expect("YAML");
    let mut known = BTreeSet::new();
    for section in SECTIONS {
        let value = section.split('.').fold(&values, |at, key| &at[key]);
        assert!(value.is_object(), "there is no section {section}");
        leaves(section, value, &mut known);
    }
    let tried = TRIED.iter().map(|(name, ..)| (*name).split('[').next().unwrap_or_default());
    let whole = |name: &str| WHOLE.into_iter().find(|whole| name.starts_with(whole)).unwrap_or(name).to_owned();
    let listed: Vec<_> = tried.chain(OTHERS.iter().map(|(name, _)| *name)).map(whole).collect();
    assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), known);
    assert_eq!(listed.len(), known.len(), "a value is listed twice");
}

fn leaves(name: &str, value: &Value, all: &mut BTreeSet<String>) {
    match value.as_object().filter(|_| !WHOLE.contains(&name)) {
        Some(parts) => parts.iter().for_each(|(key, part)| leaves(&format!("{name}.{key}"), part, all)),
        None => drop(all.insert(name.to_owned())),
    }
}

#[test]
fn a_value_of_trust_changes_what_is_rendered() {
    let (changed, plain) = (rendered(&TRIED.map(|(name, value, _)| (name, value))), rendered(&[]));
    for (name, value, text) in TRIED {
        assert!(changed.contains(text), "{name}={value}: {text:?} is not rendered");
        assert!(!plain.contains(text), "{name}: {text:?} is rendered by default, too");
        let others = TRIED.iter().filter(|(other, ..)| *other != name);
        let other = others.map(|(_, _, text)| text).find(|other| other.contains(text));
        assert_eq!(other, None, "{name}: {text:?} is rendered because of another value, too");
    }
}

/// Rules read each value of `peerPolicy` where they are evaluated: in each policy, and in the ConfigMap that webhooks read.
#[test]
fn every_setting_of_peers_reaches_the_policies_and_the_webhooks() {
    let changed: BTreeMap<_, _> = TRIED.iter().map(|(name, value, text)| (*name, (*value, *text))).collect();
    let objects = super::helm::rendered(
        &arguments(&TRIED.map(|(name, value, _)| (name, value))).iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let data = &objects[&format!("ConfigMap/{}", liqo_core::door::POLICY)]["data"];
    let settings: Vec<Value> = objects
        .values()
        .filter_map(|object| object["spec"]["variables"].as_array()?.iter().find(|one| one["name"] == "settings"))
        .map(|one| serde_json::from_str(one["expression"].as_str().expect("CEL")).expect("JSON is CEL"))
        .collect();
    assert_eq!(settings.len(), liqo_core::door::rules().filter(|rule| rule.settings).count());
    for (key, default) in liqo_core::door::SETTINGS {
        let (section, text) = match changed.get(&*format!("peerPolicy.{key}")) {
            Some((_, text)) => ("peerPolicy", *text),
            None => ("offloading", changed[&*format!("offloading.{key}")].0),
        };
        assert_ne!(text, *default, "{section}.{key}");
        for at in settings.iter().chain([data]) {
            assert_eq!(at[key], json!(text), "{section}.{key}");
        }
    }
}

fn rendered(values: &[(&str, &str)]) -> String {
    let arguments = arguments(values);
    template(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).unwrap_or_else(|error| panic!("{error}"))
}

/// Arguments of helm: the values that every installation needs, then `values`.
fn arguments(values: &[(&str, &str)]) -> Vec<String> {
    let base = ["discovery.config.clusterName=rome", "networkManager.config.podCIDR=10.244.0.0/16"];
    let base = base.into_iter().chain(["networkManager.config.serviceCIDR=10.96.0.0/12"]).map(str::to_owned);
    let values = values.iter().map(|(name, value)| format!("{name}={value}"));
    base.chain(values).map(|value| format!("--set={value}")).collect()
}
