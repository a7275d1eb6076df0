//! The market: off by default; the broker reads no Secret, and the agent lists none.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{MARKET, args, chart::helm::names, error, with};

#[test]
fn a_market_brings_these_objects() {
    let (off, on) = (names(&with(&[])), names(&with(&[MARKET])));
    let added: BTreeSet<_> = on.difference(&off).map(String::as_str).collect();
    let wanted = "ClusterRole/liqo-broker ClusterRoleBinding/liqo-broker Deployment/liqo-broker NetworkPolicy/liqo-broker
        RoleBinding/liqo-broker-client-authorities Service/liqo-broker ServiceAccount/liqo-broker
        ClusterRole/liqo-market-catalog ClusterRole/liqo-market-customer
        ValidatingAdmissionPolicy/liqo-market-consumer ValidatingAdmissionPolicyBinding/liqo-market-consumer
        ClusterRole/liqo-agent ClusterRoleBinding/liqo-agent Deployment/liqo-agent NetworkPolicy/liqo-agent Role/liqo-agent
        RoleBinding/liqo-agent RoleBinding/liqo-agent-client-authorities Service/liqo-agent ServiceAccount/liqo-agent";
    assert_eq!(added, wanted.split_whitespace().collect());
}

/// A power over Secrets: name of the role, names of the Secrets, verbs.
fn secrets(objects: &Value) -> Vec<(Value, Value)> {
    let rules = objects["rules"].as_array().expect("rules");
    let of_secrets = rules.iter().filter(|rule| rule["resources"] == json!(["secrets"]));
    of_secrets.map(|rule| (rule["resourceNames"].clone(), rule["verbs"].clone())).collect()
}

#[test]
fn no_role_of_the_market_reads_secrets_of_others() {
    let objects = with(&[MARKET]);
    assert!(secrets(&objects["ClusterRole/liqo-broker"]).is_empty());
    assert!(secrets(&objects["ClusterRole/liqo-agent"]).is_empty());
    let wanted =
        [(Value::Null, json!(["create", "patch", "delete"])), (json!(["liqo-auth-certificate"]), json!(["get"]))];
    assert_eq!(secrets(&objects["Role/liqo-agent"]), wanted);
    let customer = objects["ClusterRole/liqo-market-customer"]["rules"].to_string();
    assert!(!customer.contains("providerprofiles"), "ledgers name other customers: {customer}");
}

#[test]
fn flags_are_those_of_the_values() {
    let broker = with(&["--set=market.enabled=true,market.heartbeatSeconds=5,market.tlsSecretName=mine"]);
    let wanted = ["--cluster-name=rome", "--heartbeat=5", "--tls-directory=/etc/liqo/tls"];
    assert_eq!(args(&broker, "liqo-broker"), wanted);
    let ranges = "--own-networks=10.244.0.0/16,10.96.0.0/12";
    assert_eq!(args(&with(&[MARKET]), "liqo-agent"), ["--broker-url=https://b.example", ranges]);
    let provide = "--set=agent.provide.enabled=true,agent.provide.region=eu,agent.provide.prices.cpu=0.03EUR,\
        agent.provide.labels.tier=gold,agent.provide.carbon=0,agent.provide.probe=a.b:1,agent.broker.namespace=rome";
    let wanted = [
        "--broker-url=https://b.example",
        "--broker-namespace=rome",
        ranges,
        "--provide",
        "--share=30",
        "--region=eu",
        "--labels=tier=gold",
        "--prices=cpu=0.03EUR",
        "--carbon=0",
        "--probe=a.b:1",
    ];
    assert_eq!(args(&with(&[MARKET, provide]), "liqo-agent"), wanted);
}

#[test]
fn an_agent_without_a_broker_is_refused() {
    assert!(error(&["--set=agent.enabled=true"]).contains("agent.broker"));
    assert!(error(&["--set=agent.enabled=true,agent.broker.secretName=x"]).contains("agent.broker.url"));
    assert!(error(&[MARKET, "--set=agent.broker.url=http://b.example"]).contains("agent"));
}

#[test]
fn only_the_broker_is_open_to_other_clusters() {
    let rule = |name: &str, more: &[&str]| {
        let objects = with(&[&[MARKET], more].concat());
        objects[&format!("NetworkPolicy/{name}")]["spec"]["ingress"][1].clone()
    };
    assert_eq!(rule("liqo-broker", &[])["from"], Value::Null);
    assert_eq!(rule("liqo-agent", &[])["from"], json!([{"podSelector": {}}]));
    let limited = rule("liqo-broker", &["--set-json=market.clientsFrom=[{\"ipBlock\":{\"cidr\":\"10.0.0.0/8\"}}]"]);
    assert_eq!(limited["from"].as_array().map(Vec::len), Some(2));
}
