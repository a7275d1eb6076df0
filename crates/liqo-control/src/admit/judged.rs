//! The second judge of the door: the API server's own evaluation of the policies that the chart renders (`testbed/kube/judge`).
//! Both evaluate the same table; for each made-up request the verdicts are equal.

mod requests;

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use liqo_core::door::{self, Place};
use liqo_test::{
    assets,
    run::{command, feed, output},
};
use serde_json::{Value, json};

use super::{
    review::Request,
    rules::{Given, Rules},
};

/// Made-up requests for each set of values.
const COUNT: usize = 2500;
/// The only node that the judge lets anybody change.
const OWN: &str = "liqo-milan";

/// Values of the chart: the defaults, and others that open doors.
const VALUES: [&[&str]; 2] = [
    &[],
    &[
        "offloading.namespacesPerPeer=2",
        "peerPolicy.allowedServiceTypes={ClusterIP,NodePort}",
        "peerPolicy.allowedExternalIPs={198.51.100.7}",
        "peerPolicy.ingressHostSuffixes={peer.example}",
        "peerPolicy.ingressClasses={nginx}",
        "peerPolicy.ingressAnnotations={*}",
        "peerPolicy.storageClasses={fast}",
        "peerPolicy.deniedMetadata={example.org/}",
    ],
];

#[test]
fn the_api_server_judges_each_request_as_we_do() {
    assets::ensure().expect("the test bed is installed");
    let ours = Ours::new();
    let mut reasons = BTreeMap::new();
    for values in VALUES {
        let requests = requests::made(COUNT);
        let (settings, theirs) = judged(values, &requests);
        let mut differences = Vec::new();
        let mut passed = 0;
        for (request, refusals) in requests.iter().zip(theirs) {
            passed += usize::from(refusals.is_empty());
            let verdict = ours.decide(request, &settings);
            if verdict.is_ok() != refusals.is_empty() {
                differences.push(format!("we: {verdict:?}; the API server: {refusals:?}: {request}"));
            }
            for refusal in refusals {
                *reasons.entry(refusal.split(": ").take(2).collect::<Vec<_>>().join(": ")).or_insert(0) += 1;
            }
        }
        let (count, first) = (differences.len(), &differences[..differences.len().min(5)]);
        assert!(count == 0, "{count} of {} verdicts differ with {values:?}: {first:#?}", requests.len());
        assert!(passed > COUNT / 20, "{passed} of {COUNT} requests pass with {values:?}: the input is too odd");
    }
    // Every rule had something to refuse, and some requests could not be evaluated.
    let rules = door::rules().map(|rule| format!("liqo-peer-{}", rule.name));
    for name in rules.chain(door::kubelet_rules().map(|rule| format!("liqo-virtual-kubelet-{}", rule.name))) {
        assert!(reasons.contains_key(&format!("{name}: deny")), "{name} refuses nothing: {reasons:?}");
    }
    assert!(reasons.keys().any(|reason| reason.ends_with(": error")), "no expression fails: {reasons:?}");
}

/// Our evaluation.
struct Ours {
    peers: Rules,
    kubelets: Rules,
}

impl Ours {
    fn new() -> Self {
        let read = |place, rules: Vec<_>| Rules::read(place, rules.into_iter()).expect("the rules are CEL");
        Self {
            peers: read(Place::Tenant, door::rules().collect()),
            kubelets: read(Place::Node, door::kubelet_rules().collect()),
        }
    }

    fn decide(&self, request: &Value, settings: &Value) -> Result<(), String> {
        let asked: Request = serde_json::from_value(request.clone()).expect("a request");
        self.peers.judge(&asked, Some(Given { name: "settings", value: settings }))?;
        let Some(node) = self.kubelets.text(&asked, door::NODE)? else { return Ok(()) };
        self.kubelets.judge(&asked, Some(Given { name: door::OWN, value: &json!(node == OWN) }))
    }
}

/// The settings of the chart with these values, and for each request the reasons for which the API server refuses it.
fn judged(values: &[&str], requests: &[Value]) -> (Value, Vec<Vec<String>>) {
    let line = |kind: &str, input: &str| format!("{kind} {}\n", BASE64_STANDARD.encode(input));
    let reviews = requests.iter().map(|request| line("review", &request.to_string()));
    let lines: String = std::iter::once(line("door", &rendered(values))).chain(reviews).collect();
    let answers = feed(&mut command(assets::bin().join("judge")), &lines).expect("the judge answers");
    let mut answers = answers.lines().map(|line| serde_json::from_str(line).expect("an answer is JSON"));
    let door: Value = answers.next().expect("the first answer is about the door");
    let policies = door["policies"].as_array().map_or(0, Vec::len);
    let rules = door::rules().chain(door::kubelet_rules()).count();
    // One more is about the labels of namespaces, which the webhook does not judge.
    assert_eq!(policies, rules + 1, "{door}");
    let reasons = |answer: Value| serde_json::from_value(answer).expect("reasons");
    let reasons: Vec<_> = answers.map(reasons).collect();
    assert_eq!(reasons.len(), requests.len());
    (door["settings"].clone(), reasons)
}

/// The policies as the chart renders them.
fn rendered(values: &[&str]) -> String {
    let mut helm = command("helm");
    helm.args(["template", "liqo", "--namespace=liqo", "--kube-version=1.34.4", "--set=networking.internal=false"]);
    helm.args(["--set=discovery.config.clusterName=rome", "--show-only=templates/peer-policies.yaml"]);
    helm.arg("--show-only=templates/virtual-kubelet-policies.yaml").arg(assets::source().join("deploy/chart"));
    output(helm.args(values.iter().map(|value| format!("--set={value}")))).expect("the chart is rendered")
}
