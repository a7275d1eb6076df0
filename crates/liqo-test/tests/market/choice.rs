//! Choices: policies, several providers, reasons on the command line, and a provider that gives way.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use liqo_test::{stage::LONG, wait_for};
use serde_json::{Value, json};

use super::place::{MILAN, Market, TURIN};
use crate::{RESERVATIONS, SUITE, providers};

/// Policies in rome.
const POLICIES: &str = "
apiVersion: v1
kind: List
items:
- apiVersion: market.liqo.io/v1alpha1
  kind: SelectionPolicy
  metadata: {name: north, namespace: default}
  spec: {criteria: {regions: [north]}}
- apiVersion: market.liqo.io/v1alpha1
  kind: SelectionPolicy
  metadata: {name: wide, namespace: default}
  spec: {placement: {mode: Spread, parts: 2, minRegions: 2}, weights: {price: 1}}
- apiVersion: market.liqo.io/v1alpha1
  kind: SelectionPolicy
  metadata: {name: cheap, namespace: default}
  spec: {criteria: {maxAgeSeconds: 10}, weights: {price: 1}}
";

fn refusal<T: std::fmt::Debug>(result: Result<T>) -> String {
    format!("{:#}", result.expect_err("a refusal"))
}

/// Policies that make no sense are refused with what to do instead.
#[test]
fn a_policy_that_makes_no_sense_is_refused() -> Result<()> {
    SUITE.tell(|market| {
        let rome = market.stage.cluster("rome");
        let policy = |spec: Value| {
            let policy = json!({"apiVersion": "market.liqo.io/v1alpha1", "kind": "SelectionPolicy",
                "metadata": {"name": "odd", "namespace": "default"}, "spec": spec});
            refusal(rome.apply(&policy.to_string()))
        };
        for (spec, words) in [
            (json!({"placement": {"parts": 2}}), "for the modes Pack and Spread"),
            (json!({"placement": {"mode": "Pack", "minRegions": 2}}), "minRegions is for the mode Spread"),
            (json!({"placement": {"mode": "Spread", "minRegions": 5}}), "not more than maxProviders"),
            (json!({"criteria": {"minUptime": {"ratio": "1.5"}}}), "spec.criteria.minUptime.ratio"),
            (json!({"weights": {"uptime": 101}}), "spec.weights.uptime"),
        ] {
            let refused = policy(spec.clone());
            ensure!(refused.contains(words), "{spec}: {refused}");
        }
        let request = json!({"apiVersion": "market.liqo.io/v1alpha1", "kind": "PeeringRequest",
            "metadata": {"name": "odd", "namespace": "default"},
            "spec": {"policy": "cheap", "selection": {"request": {"cpu": "1"}, "weights": {"price": 1}}}});
        let refused = refusal(rome.apply(&request.to_string()));
        ensure!(refused.contains("with a policy the selection says request and largestPod only"), "{refused}");
        Ok(())
    })
}

/// Who watches the catalogue is told every provider, then what changes; only who may see the catalogue watches.
#[test]
fn the_catalogue_is_watched() -> Result<()> {
    SUITE.tell(|market| {
        let Market { stage, customer, provider, .. } = market;
        providers(customer)?;
        ensure!(provider.get("/api/v1/events")?.code == 403, "a provider that may not see the catalogue watches it");
        let milan = stage.cluster("milan");
        let cordon = |is_cordoned: bool| {
            let patch = json!({"spec": {"cordoned": is_cordoned}}).to_string();
            milan.kubectl(&["patch", "providerprofile", TURIN, "--type=merge", "-p", &patch])
        };
        let (seen, cordoned) = thread::scope(|scope| {
            let watching = scope.spawn(|| customer.follow("/api/v1/events?region=south", 8));
            thread::sleep(Duration::from_secs(3));
            let cordoned = cordon(true);
            (watching.join().expect("no panic"), cordoned)
        });
        cordon(false)?;
        cordoned?;
        let seen = seen?;
        let told: Vec<Value> = seen
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        ensure!(told.iter().all(|one| one["clusterID"] == TURIN), "another region is told: {seen}");
        ensure!(told.first().is_some_and(|one| one["cordoned"] == false), "{seen}");
        ensure!(told.last().is_some_and(|one| one["cordoned"] == true), "{seen}");
        Ok(())
    })
}

/// The command line lists providers, says why, and reserves on several providers or on none.
#[test]
fn the_command_line_selects_reserves_and_releases() -> Result<()> {
    SUITE.tell(|market| {
        let Market { stage, customer, .. } = market;
        let rome = stage.cluster("rome");
        providers(customer)?;
        rome.apply(POLICIES)?;
        let run = |words: &[&str]| stage.liqoctl(rome, &[&["market"], words].concat());
        let json =
            |words: &[&str]| -> Result<Value> { Ok(serde_json::from_str(&run(&[words, &["-o", "json"]].concat())?)?) };

        let table = run(&["list"])?;
        ensure!(table.lines().count() == 3 && table.contains("turin") && !table.contains("UPTIME"), "{table}");
        ensure!(run(&["list", "-o", "wide"])?.contains("UPTIME 24H"), "the wide table is not wide");
        ensure!(run(&["list", "--region", "south", "--label", "tier=gold", "-o", "yaml"])?.contains(TURIN));

        let why = run(&["select", "--request", "cpu=100m", "--policy", "north", "--explain"])?;
        let line = why.lines().find(|line| line.starts_with(TURIN)).unwrap_or_default();
        ensure!(line.split_whitespace().eq([TURIN, "turin", "regions", "NotInRegion", "north", "south"]), "{why}");
        let nobody = refusal(run(&["select", "--request", "cpu=100k"]));
        ensure!(nobody.contains("request.cpu NotEnough (2)") && nobody.contains("--explain"), "{nobody}");
        let wide = json(&["select", "--request", "cpu=200m", "--policy", "default/wide"])?;
        let placed = wide["placement"].as_array().cloned().unwrap_or_default();
        ensure!(placed.len() == 2 && placed.iter().all(|one| one["resources"]["cpu"] == "100m"), "{wide}");
        ensure!(refusal(run(&["select", "--request", "cpu=1", "--policy", "none"])).contains("kubectl get lsp"));

        run(&["reserve", "wide", "--request", "cpu=200m", "--policy", "wide", "--ttl", "5m"])?;
        let held = json(&["list", "--reservations"])?;
        let names: Vec<_> = held.as_array().into_iter().flatten().map(|one| one["name"].clone()).collect();
        ensure!(names == ["wide-0", "wide-1"], "{held}");
        let at = |id: &str| held.as_array().into_iter().flatten().any(|one| one["provider"] == id);
        ensure!(at(MILAN) && at(TURIN), "{held}");
        let refused = refusal(run(&["reserve", "more", "--request", "cpu=100k", "--provider", MILAN]));
        ensure!(refused.contains("NotEnough"), "{refused}");
        ensure!(refusal(run(&["release", "wide-9"])).contains("--reservations"));
        run(&["release", "wide-0", "wide-1"])?;
        wait_for("nothing is held", LONG, || {
            let left = customer.get(RESERVATIONS)?.with(200)?;
            Ok(left["items"].as_array().is_some_and(Vec::is_empty).then_some(()))
        })
    })
}

/// A provider that is not heard of any longer gives way, by the policy of the request, and its outage is counted.
#[test]
fn a_provider_that_is_lost_gives_way() -> Result<()> {
    SUITE.tell(|market| {
        let Market { stage, customer, agent, .. } = market;
        let (rome, milan, turin) = (stage.cluster("rome"), stage.cluster("milan"), stage.cluster("turin"));
        providers(customer)?;
        rome.apply(POLICIES)?;
        let peerings = "/api/v1/namespaces/default/peerings";
        let wish = json!({"name": "moves", "policy": "cheap", "reconsider": "Failing",
            "selection": {"request": {"cpu": "100m"}}});
        agent.post(peerings, &wish)?.with(202)?;
        let peered = |id: &str| {
            wait_for("rome is peered", LONG, || {
                let now = agent.get(&format!("{peerings}/moves"))?.with(200)?;
                ensure!(now["phase"] == "Peered" && now["provider"] == id, "{now}");
                Ok(Some(()))
            })
        };
        peered(TURIN)?;
        let scale =
            |count: &str| turin.kubectl(&["scale", "deployment", "-n", "liqo", "liqo-agent", "--replicas", count]);
        scale("0")?;
        peered(MILAN)?;
        ensure!(rome.items(&["foreignclusters"])?.len() == 1, "the old peering is still there");
        let held = customer.get(RESERVATIONS)?.with(200)?;
        ensure!(
            held["items"].as_array().is_some_and(|all| all.len() == 1),
            "the old reservation is still there: {held}"
        );
        let outages = || -> Result<Value> { Ok(milan.json(&["providerprofile", TURIN])?["status"]["outages"].clone()) };
        let last = |all: &Value| all.as_array().and_then(|all| all.last().cloned()).unwrap_or_default();
        let out = outages()?;
        ensure!(last(&out)["from"].is_string() && last(&out)["until"].is_null(), "{out}");
        scale("1")?;
        wait_for("the outage ends", LONG, || Ok(last(&outages()?)["until"].is_string().then_some(())))?;
        agent.delete(&format!("{peerings}/moves"))?;
        wait_for("nothing of the peering is left", LONG, || {
            let gone = agent.get(&format!("{peerings}/moves"))?.code == 404;
            Ok((gone && rome.items(&["foreignclusters"])?.is_empty()).then_some(()))
        })
    })
}
