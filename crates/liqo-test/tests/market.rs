//! A market on real clusters: two providers advertise at a broker, a customer selects with reasons, reserves, and is peered on demand.

mod market {
    mod choice;
    pub(crate) mod place;
}

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use liqo_api::role::Runs;
use liqo_test::{Suite, metrics, stage::LONG, wait_for};
use serde_json::{Value, json};

use market::place::{MILAN, Market, NAMESPACE, ROME, Site, TURIN, raise};

static SUITE: Suite<Market> = Suite::new("market", raise);

const RESERVATIONS: &str = "/api/v1/namespaces/rome/reservations";

/// Both providers, once both were heard of.
fn providers(customer: &Site) -> Result<Vec<Value>> {
    wait_for("both providers are in the catalogue", LONG, || {
        let all = customer.get("/api/v1/providers?fresh=true")?.with(200)?;
        let items = all["items"].as_array().cloned().unwrap_or_default();
        let is_offering = |one: &Value| one["free"]["cpu"].is_string() && one["free"]["cpu"] != "0";
        Ok((items.len() == 2 && items.iter().all(is_offering)).then_some(items))
    })
}

fn reservation(name: &str, provider: &str, cpu: &str) -> Value {
    json!({"name": name, "provider": provider, "consumer": ROME, "resources": {"cpu": cpu}, "ttlSeconds": 300})
}

/// Providers are in the catalogue with what they say of themselves, filtered and in pages, and only for those who may see it.
#[test]
fn providers_are_in_the_catalogue() -> Result<()> {
    SUITE.tell(|market| {
        let Market { customer, provider, .. } = market;
        let all = providers(customer)?;
        let ids: Vec<_> = all.iter().map(|one| one["clusterID"].as_str().unwrap_or_default()).collect();
        ensure!(ids == [MILAN, TURIN], "{all:?}");
        ensure!(all[1]["region"] == "south" && all[1]["labels"]["tier"] == "gold", "{}", all[1]);
        ensure!(all[1]["largestAllocation"]["cpu"].is_string() && all[1]["ageSeconds"].is_u64(), "{}", all[1]);
        let count = |query: &str| -> Result<usize> {
            let page = customer.get(&format!("/api/v1/providers?{query}"))?.with(200)?;
            Ok(page["items"].as_array().map_or(0, Vec::len))
        };
        ensure!(count("region=south")? == 1 && count("region=east")? == 0 && count("labels=tier%3Dgold")? == 2);
        let first = customer.get("/api/v1/providers?limit=1")?.with(200)?;
        let next = first["next"].as_str().context("no next page")?;
        let second = customer.get(&format!("/api/v1/providers?limit=1&after={next}"))?.with(200)?;
        ensure!(second["items"][0]["clusterID"] == TURIN && second["next"].is_null(), "{second}");
        ensure!(customer.get("/api/v1/providers?fresh=perhaps")?.code == 400);
        ensure!(provider.get("/api/v1/providers")?.code == 403, "a provider that may not see the catalogue sees it");
        ensure!(Site { token: "nonsense".to_owned(), ..customer.clone() }.get("/api/clusters")?.code == 401);
        let clusters = customer.get("/api/clusters")?.with(200)?;
        ensure!(
            clusters.as_array().is_some_and(|all| all.iter().all(|one| one["kind"] == "ForeignCluster")),
            "{clusters}"
        );
        ensure!(!clusters.to_string().contains("foreignAuthUrl"), "addresses are shown: {clusters}");
        Ok(())
    })
}

/// Heartbeats go on, and nothing is written.
#[test]
fn a_heartbeat_that_says_nothing_new_writes_nothing() -> Result<()> {
    SUITE.tell(|market| {
        providers(&market.customer)?;
        let milan = market.stage.cluster("milan");
        let profile = || milan.json(&["providerprofile", TURIN]);
        wait_for("a profile stays as it is through three heartbeats", LONG, || {
            let before = profile()?;
            thread::sleep(Duration::from_secs(7));
            let (after, seen) = (profile()?, market.customer.get(&format!("/api/v1/providers/{TURIN}"))?.with(200)?);
            ensure!(seen["ageSeconds"].as_u64().is_some_and(|age| age < 6), "no heartbeat came: {seen}");
            // The offer may just have changed with the pods of turin.
            Ok((before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]).then_some(()))
        })
    })
}

/// What a provider says of itself is followed; what makes no sense changes nothing.
#[test]
fn what_a_provider_says_is_followed() -> Result<()> {
    SUITE.tell(|market| {
        let Market { customer, provider, .. } = market;
        providers(customer)?;
        let path = format!("/api/v1/providers/{TURIN}");
        let heartbeat = format!("{path}/heartbeat");
        for (odd, code) in [
            (json!({"offered": {"cpu": "-1"}}), 400),
            (json!({"offered": {}, "surprise": 1}), 400),
            (json!({"offered": {}, "declared": {"region": "x".repeat(64)}}), 422),
        ] {
            let answer = provider.post(&heartbeat, &odd)?;
            ensure!(answer.code == code, "{odd}: {answer:?}");
        }
        let other = json!({"declared": {"clusterName": "turin", "region": "west"}, "offered": {"cpu": "1234"}});
        ensure!(provider.post(&heartbeat, &other)?.with(200)?["intervalSeconds"] == 2);
        let regions = |region: &str| {
            wait_for(&format!("turin is in the {region}"), LONG, || {
                let found = customer.get(&path)?.with(200)?;
                Ok((found["region"] == region && (found["offered"]["cpu"] == "1234") == (region == "west"))
                    .then_some(()))
            })
        };
        // The agent of turin says again how things are.
        regions("south")
    })
}

/// Every provider is chosen or left out with its reasons.
#[test]
fn a_selection_says_why() -> Result<()> {
    SUITE.tell(|market| {
        let customer = &market.customer;
        providers(customer)?;
        let select = |selection: &Value, measured: &Value| -> Result<Value> {
            customer.post("/api/v1/selections", &json!({"selection": selection, "measured": measured}))?.with(200)
        };
        let ids = |outcome: &Value| -> Vec<String> {
            let all = outcome["selected"].as_array().cloned().unwrap_or_default();
            all.iter().map(|one| one["clusterID"].as_str().unwrap_or_default().to_owned()).collect()
        };
        let cheap = select(&json!({"request": {"cpu": "100m"}, "weights": {"price": 1}}), &json!({}))?;
        ensure!(ids(&cheap) == [TURIN, MILAN] && cheap["selected"][0]["price"] == "0.003 EUR", "{cheap}");
        let north = json!({"request": {"cpu": "100m"}, "criteria": {"regions": ["north"]}});
        let outcome = select(&north, &json!({}))?;
        let reason = &outcome["rejected"][0]["reasons"][0];
        ensure!(ids(&outcome) == [MILAN] && outcome["rejected"][0]["clusterID"] == TURIN, "{outcome}");
        ensure!(
            reason["code"] == "NotInRegion" && reason["required"] == "north" && reason["actual"] == "south",
            "{reason}"
        );
        let near = json!({"request": {"cpu": "100m"}, "criteria": {"maxLatencyMillis": 20}});
        let outcome = select(&near, &json!({MILAN: 5}))?;
        ensure!(ids(&outcome) == [MILAN] && outcome["rejected"][0]["reasons"][0]["code"] == "Missing", "{outcome}");
        let outcome = select(&json!({"request": {"cpu": "100k"}}), &json!({}))?;
        ensure!(
            ids(&outcome).is_empty() && outcome["rejected"].as_array().is_some_and(|all| all.len() == 2),
            "{outcome}"
        );
        ensure!(customer.post("/api/v1/selections", &json!({"selection": {"request": {"cpu": "-1"}}}))?.code == 400);
        Ok(())
    })
}

/// Two dozen ask for more than half at once: one gets it, also by the ledger. What is released is free again.
#[test]
fn the_last_unit_is_promised_once() -> Result<()> {
    SUITE.tell(|market| {
        let (customer, milan) = (&market.customer, market.stage.cluster("milan"));
        providers(customer)?;
        let free = || -> Result<u64> {
            let found = customer.get(&format!("/api/v1/providers/{MILAN}"))?.with(200)?;
            let text = found["free"]["cpu"].as_str().unwrap_or_default().to_owned();
            let millis = text.strip_suffix('m').map_or_else(|| text.parse().map(|cpus: u64| cpus * 1000), str::parse);
            millis.with_context(|| format!("{text:?} of CPU"))
        };
        let more_than_half = format!("{}m", free()? * 2 / 3);
        let answers: Vec<_> = thread::scope(|scope| {
            let ask = |number: usize| {
                let body = reservation(&format!("race-{number}"), MILAN, &more_than_half);
                scope.spawn(move || customer.post(RESERVATIONS, &body))
            };
            let all: Vec<_> = (0..24).map(ask).collect();
            all.into_iter().map(|one| one.join().expect("no panic")).collect::<Result<_>>()
        })?;
        let codes: Vec<_> = answers.iter().map(|answer| answer.code).collect();
        ensure!(codes.iter().filter(|code| **code == 201).count() == 1, "{codes:?}");
        let refused = answers.iter().find(|answer| answer.code != 201).context("a refusal")?;
        ensure!(refused.code == 409 && refused.text.contains("NotEnough"), "{refused:?}");
        let grants = || -> Result<Vec<Value>> {
            let profile = milan.json(&["providerprofile", MILAN])?;
            Ok(profile["status"]["grants"].as_array().cloned().unwrap_or_default())
        };
        let held = grants()?;
        ensure!(held.len() == 1 && held[0]["resources"]["cpu"].is_string(), "{held:?}");
        let name = held[0]["name"].as_str().context("a name")?.to_owned();
        let cpu = more_than_half.clone();
        let again = customer.post(RESERVATIONS, &reservation(&name, MILAN, &cpu))?;
        ensure!(again.code == 200, "a repeated request: {again:?}");
        let other = customer.post(RESERVATIONS, &reservation(&name, MILAN, "1m"))?;
        ensure!(other.code == 409, "another request with the name: {other:?}");
        let renewed = customer.post(&format!("{RESERVATIONS}/{name}/renew"), &json!({"ttlSeconds": 3600}))?;
        renewed.with(202)?;
        ensure!(customer.delete(&format!("{RESERVATIONS}/{name}"))?.code == 202);
        wait_for("what was released is free", LONG, || Ok(grants()?.is_empty().then_some(())))?;
        customer
            .post(
                RESERVATIONS,
                &json!({"name": "short", "provider": MILAN, "consumer": ROME,
            "resources": {"cpu": cpu}, "ttlSeconds": 3}),
            )?
            .with(201)?;
        wait_for("a reservation ends with its time", LONG, || {
            let found = customer.get(&format!("{RESERVATIONS}/short"))?.with(200)?;
            Ok((found["phase"] == "Expired").then_some(()))
        })?;
        ensure!(grants()?.is_empty(), "an expired reservation holds resources");
        ensure!(customer.delete(&format!("{RESERVATIONS}/short"))?.code == 202);
        Ok(())
    })
}

/// The broker is killed: what was promised holds, nothing is promised twice, and what was in memory comes again.
#[test]
fn a_broker_that_is_killed_loses_nothing() -> Result<()> {
    SUITE.tell(|market| {
        let (customer, milan) = (&market.customer, market.stage.cluster("milan"));
        providers(customer)?;
        customer.post(RESERVATIONS, &reservation("survivor", TURIN, "1"))?.with(201)?;
        let invited = |what: &str| {
            wait_for(what, LONG, || {
                let answer = customer.get(&format!("{RESERVATIONS}/survivor/invitation"))?;
                ensure!(answer.code == 200, "{answer:?}");
                Ok(Some(answer.json()?))
            })
        };
        let first = invited("the provider invites")?;
        ensure!(first["clusterName"] == "turin" && first["authURL"].is_string(), "{first}");
        let grants = || -> Result<Value> { Ok(milan.json(&["providerprofile", TURIN])?["status"]["grants"].clone()) };
        let held = grants()?;
        let pods =
            ["delete", "pods", "-n", "liqo", "-l", "app.kubernetes.io/name=broker", "--force", "--grace-period=0"];
        milan.kubectl(&pods)?;
        milan.rolled_out("liqo", "liqo-broker")?;
        wait_for("the broker answers again", LONG, || {
            Ok((customer.get("/api/v1/providers")?.code == 200).then_some(()))
        })?;
        providers(customer)?;
        // A broker that ends may still answer for a moment.
        wait_for("the provider invites once more, with a token that was kept nowhere", LONG, || {
            let again = invited("the provider invites once more")?;
            Ok((again["token"] != first["token"]).then_some(()))
        })?;
        ensure!(grants()? == held && held.as_array().is_some_and(|all| all.len() == 1), "{held}");
        let found = customer.get(&format!("{RESERVATIONS}/survivor"))?.with(200)?;
        ensure!(found["phase"] == "Granted", "{found}");
        ensure!(customer.delete(&format!("{RESERVATIONS}/survivor"))?.code == 202);
        wait_for("the promise is gone", LONG, || Ok(grants()?.is_null().then_some(())))
    })
}

/// Nobody speaks as another provider, or reserves for another consumer, by the broker or without it.
#[test]
fn nobody_acts_for_another_cluster() -> Result<()> {
    SUITE.tell(|market| {
        let Market { customer, provider, stage, .. } = market;
        let beat = json!({"offered": {"cpu": "1000"}});
        for id in [MILAN, ROME] {
            let answer = provider.post(&format!("/api/v1/providers/{id}/heartbeat"), &beat)?;
            ensure!(answer.code == 403, "turin speaks as {id}: {answer:?}");
        }
        let mut other = reservation("other", MILAN, "1m");
        other["consumer"] = json!(TURIN);
        let answer = customer.post(RESERVATIONS, &other)?;
        ensure!(answer.code == 403 && answer.text.contains("consumers"), "{answer:?}");
        ensure!(provider.post(RESERVATIONS, &reservation("not-mine", MILAN, "1m"))?.code == 403);
        let object = json!({"apiVersion": "market.liqo.io/v1alpha1", "kind": "Reservation",
            "metadata": {"name": "without-broker", "namespace": NAMESPACE},
            "spec": {"provider": MILAN, "consumer": TURIN, "resources": {"cpu": "1m"}, "until": "2030-01-01T00:00:00Z"}});
        let mut kubectl = stage.cluster("milan").kubectl_command();
        kubectl.args(["create", "-f", "-", "--as=system:serviceaccount:rome:rome"]);
        let refused = liqo_test::run::feed(&mut kubectl, &object.to_string());
        let refused = format!("{:#}", refused.expect_err("a reservation for another consumer"));
        ensure!(refused.contains("you may not reserve for this consumer"), "{refused}");
        let milan = stage.cluster("milan");
        let odd = json!({"apiVersion": "market.liqo.io/v1alpha1", "kind": "ProviderProfile",
            "metadata": {"name": "a"}, "spec": {"clusterID": "b"}});
        let refused = format!("{:#}", milan.apply(&odd.to_string()).expect_err("a profile of another name"));
        ensure!(refused.contains("is the cluster ID of the provider"), "{refused}");
        Ok(())
    })
}

/// The whole way: a wish at the agent of rome, a provider chosen and reserved at the broker, the peering, a pod there, and back.
#[test]
fn a_customer_is_peered_on_demand_with_the_provider_that_fits() -> Result<()> {
    SUITE.tell(|market| {
        let Market { stage, customer, agent, .. } = market;
        let (rome, turin) = (stage.cluster("rome"), stage.cluster("turin"));
        providers(customer)?;
        let peerings = "/api/v1/namespaces/default/peerings";
        let wish = json!({"name": "south", "leaseSeconds": 600, "selection": {"request": {"cpu": "100m", "memory": "64Mi"},
            "criteria": {"regions": ["south"], "maxPrice": {"amount": "1", "currency": "EUR"}, "maxLatencyMillis": 5000},
            "weights": {"price": 1, "latency": 1}}});
        ensure!(agent.post(peerings, &wish)?.with(202)?["name"] == "south");
        ensure!(agent.post(peerings, &wish)?.code == 202, "a repeated request");
        wait_for("rome is peered with turin", LONG, || {
            let now = agent.get(&format!("{peerings}/south"))?.with(200)?;
            ensure!(now["phase"] == "Peered", "{now}");
            Ok(Some(ensure_turin(&now)?))
        })?;
        let held = customer.get(RESERVATIONS)?.with(200)?;
        ensure!(held["items"].as_array().is_some_and(|all| all.len() == 1 && all[0]["phase"] == "Granted"), "{held}");
        ensure!(rome.items(&["foreignclusters"])?.len() == 1, "rome is peered with more than it asked for");

        stage.offload(rome, "demo", &["--pod-offloading-strategy", "Remote"])?;
        rome.web("demo", "web", 1, "")?;
        rome.rolled_out("demo", "web")?;
        ensure!(rome.pods("demo", "app=web")?.iter().all(|(_, node)| node == "liqo-turin"));
        let there = turin.items(&["pods", "-A", "-l", "app=web"])?;
        ensure!(there.len() == 1, "{there:?}");
        rome.kubectl(&["delete", "deployment", "-n", "demo", "web"])?;
        wait_for("the pod is gone", LONG, || Ok(rome.pods("demo", "app=web")?.is_empty().then_some(())))?;
        stage.liqoctl(rome, &["unoffload", "namespace", "demo"])?;

        ensure!(agent.delete(&format!("{peerings}/south"))?.code == 202);
        wait_for("nothing of the peering is left", LONG, || {
            let gone = agent.get(&format!("{peerings}/south"))?.code == 404;
            Ok((gone && rome.items(&["foreignclusters"])?.is_empty()).then_some(()))
        })?;
        let left = customer.get(RESERVATIONS)?.with(200)?;
        ensure!(left["items"].as_array().is_some_and(Vec::is_empty), "{left}");
        let tokens = rome.items(&["secrets", "-n", "liqo", "-l", "discovery.liqo.io/auth-token"])?;
        ensure!(tokens.iter().all(|one| one["metadata"]["name"] != format!("remote-token-{TURIN}")), "a token is left");
        Ok(())
    })
}

fn ensure_turin(peering: &Value) -> Result<()> {
    ensure!(peering["provider"] == TURIN && peering["foreignCluster"] == "turin", "{peering}");
    ensure!(peering["heldUntil"].is_string() && peering["message"] == "", "{peering}");
    Ok(())
}

#[test]
fn the_roles_of_the_market_serve_the_metrics_of_the_guide() -> Result<()> {
    SUITE.tell(|market| {
        let is_here = |runs| matches!(runs, Runs::Broker | Runs::Agent);
        metrics::are_those_of_the_guide(market.stage.cluster("milan"), is_here)
    })
}

/// A wish that nobody fulfils says why, and ends without a trace.
#[test]
fn a_wish_that_nobody_fulfils_says_why() -> Result<()> {
    SUITE.tell(|market| {
        let Market { customer, agent, .. } = market;
        providers(customer)?;
        let peerings = "/api/v1/namespaces/default/peerings";
        let wish =
            json!({"name": "nowhere", "selection": {"request": {"cpu": "1"}, "criteria": {"regions": ["moon"]}}});
        agent.post(peerings, &wish)?.with(202)?;
        wait_for("the request says why", LONG, || {
            let now = agent.get(&format!("{peerings}/nowhere"))?.with(200)?;
            let message = now["message"].as_str().unwrap_or_default();
            Ok(message.contains("regions NotInRegion").then_some(()))
        })?;
        ensure!(agent.delete(&format!("{peerings}/nowhere"))?.code == 202);
        wait_for("the request is gone", LONG, || {
            Ok((agent.get(&format!("{peerings}/nowhere"))?.code == 404).then_some(()))
        })
    })
}
