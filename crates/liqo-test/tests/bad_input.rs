//! Bad input: each with a clear error, and nothing changed.

use anyhow::{Result, ensure};
use liqo_test::{Cluster, Stage, Suite, run, stage::LONG, wait_for};

/// Two clusters with the product, not peered.
static SUITE: Suite<Stage> = Suite::new("badinput", || Stage::ready("badinput", &["rome", "milan"]));

/// What a refused command must not touch.
fn footprint(cluster: &Cluster) -> Result<Vec<String>> {
    let kinds = "foreignclusters,resourcerequests,namespaceoffloadings,namespacemaps,namespaces,secrets";
    let all = cluster.items(&[kinds, "-A"])?;
    let mut names: Vec<_> = all
        .iter()
        .map(|one| format!("{} {}/{}", one["kind"], one["metadata"]["namespace"], one["metadata"]["name"]))
        .collect();
    names.sort();
    Ok(names)
}

/// Makes the consumer forget the identities it was given: with one, neither token nor URL matter any more.
fn strangers(stage: &Stage) -> Result<()> {
    // Both: an ID belongs to the key that had it first, as long as the provider knows that key.
    for cluster in ["rome", "milan"] {
        stage.cluster(cluster).kubectl(&["delete", "namespaces", "-l", "discovery.liqo.io/tenant-namespace=true"])?;
    }
    Ok(())
}

/// `peer out-of-band` with one value replaced.
fn peer_with(stage: &Stage, changes: &[(&str, &str)]) -> Result<String> {
    peer_within("20s", stage, changes)
}

/// The same, with another patience.
fn peer_within(patience: &str, stage: &Stage, changes: &[(&str, &str)]) -> Result<String> {
    let mut words = stage.peer_command(stage.cluster("milan"))?;
    for (flag, value) in changes {
        let place = words.iter().position(|word| word == flag).map_or(2, |place| place + 1);
        words[place] = (*value).to_owned();
    }
    let words: Vec<_> = words.iter().map(String::as_str).chain(["--timeout", patience]).collect();
    stage.refused(stage.cluster("rome"), &words)
}

#[test]
fn what_cannot_be_right_is_refused_before_anything_is_written() -> Result<()> {
    SUITE.tell(|stage| {
        let rome = stage.cluster("rome");
        // Making a command makes a token.
        let own_id = stage.peer_value(rome, "--cluster-id")?;
        let before = footprint(rome)?;
        for (changes, expected) in [
            (vec![("--auth-url", "http://10.0.0.1:1234")], "https"),
            (vec![("--auth-url", "not a url")], "not a url"),
            (vec![("--auth-token", "")], "token"),
            (vec![("--cluster-id", own_id.as_str())], "same"),
            (vec![("--cluster-id", "Not_A_Label")], "Not_A_Label"),
            (vec![("out-of-band", "Not_A_Name")], "Not_A_Name"),
        ] {
            let said = peer_with(stage, &changes)?;
            ensure!(said.contains(expected), "{changes:?} gave {said}");
            ensure!(footprint(rome)? == before, "{changes:?} changed something");
        }
        Ok(())
    })
}

#[test]
fn a_wrong_token_is_denied_and_named_so() -> Result<()> {
    SUITE.tell(|stage| {
        let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
        strangers(stage)?;
        let said = peer_with(stage, &[("--auth-token", "0123456789abcdef")])?;
        ensure!(said.to_lowercase().contains("token"), "{said}");
        ensure!(!said.contains("0123456789abcdef"), "the token is echoed");
        ensure!(rome.peering("milan", "AuthenticationStatus")?["status"] == "Denied");
        ensure!(milan.items(&["foreignclusters"])?.is_empty(), "the provider took notice of a stranger");
        // A token that was valid until it was revoked.
        let old = stage.peer_value(milan, "--auth-token")?;
        milan.kubectl(&["delete", "secret", "-n", "liqo", "-l", "liqo.io/one-time-token=true"])?;
        let said = peer_with(stage, &[("--auth-token", old.as_str())])?;
        ensure!(said.to_lowercase().contains("token") && !said.contains(&old), "{said}");
        // The right token afterwards is noticed at once.
        stage.peer(rome, milan)?;
        // A refused token does not stay in the place of the right one.
        let secret = format!("remote-token-{}", stage.peer_value(milan, "--cluster-id")?);
        let token = || Ok::<_, anyhow::Error>(rome.json(&["secret", "-n", "liqo", &secret])?["data"].clone());
        let right = token()?;
        stage.liqoctl(rome, &["unpeer", "milan"])?;
        // Without the tokens in milan, rome cannot come back by itself before the command runs.
        for tokens in ["liqo.io/one-time-token", "discovery.liqo.io/cluster-id"] {
            milan.kubectl(&["delete", "secret", "-n", "liqo", "-l", tokens])?;
        }
        strangers(stage)?;
        let said = peer_with(stage, &[("--auth-token", "0123456789abcdef")])?;
        ensure!(said.contains("stored again") && token()? == right, "a refused token stays stored: {said}");
        stage.unpeer(rome, "milan").map(drop)
    })
}

#[test]
fn an_unreachable_provider_is_told() -> Result<()> {
    SUITE.tell(|stage| {
        strangers(stage)?;
        let said = peer_within("15s", stage, &[("--auth-url", "https://172.31.255.254:9")])?;
        ensure!(said.contains("172.31.255.254"), "{said}");
        let rome = stage.cluster("rome");
        stage.liqoctl(rome, &["unpeer", "out-of-band", "milan"])?;
        ensure!(rome.items(&["foreignclusters"])?.is_empty());
        Ok(())
    })
}

#[test]
fn namespaces_that_cannot_be_offloaded_are_refused() -> Result<()> {
    SUITE.tell(|stage| {
        let rome = stage.cluster("rome");
        let before = footprint(rome)?;
        for (args, expected) in [
            (vec!["no-such-namespace"], "no-such-namespace"),
            (vec!["kube-system"], "kube-system"),
            (vec!["liqo"], "liqo"),
            (vec!["default", "--pod-offloading-strategy", "Everywhere"], "Everywhere"),
            (vec!["default", "--namespace-mapping-strategy", "Whatever"], "Whatever"),
            (vec!["default", "--selector", "a in"], "a in"),
        ] {
            let said = stage.refused(rome, &[&["offload", "namespace"][..], &args].concat())?;
            ensure!(said.contains(expected), "{args:?} gave {said}");
            ensure!(footprint(rome)? == before, "{args:?} changed something");
        }
        Ok(())
    })
}

#[test]
fn the_api_refuses_what_makes_no_sense() -> Result<()> {
    SUITE.tell(|stage| {
        let rome = stage.cluster("rome");
        rome.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: odd}")?;
        let offloading = |name: &str, spec: &str| {
            let head = "apiVersion: offloading.liqo.io/v1alpha1\nkind: NamespaceOffloading\n";
            rome.apply(&format!("{head}metadata: {{name: {name}, namespace: odd}}\nspec: {spec}"))
        };
        refused(offloading("second", "{}"), "NamespaceOffloading name must match offloading")?;
        refused(offloading("offloading", "{podOffloadingStrategy: Everywhere}"), "Everywhere")?;
        offloading(
            "offloading",
            "{namespaceMappingStrategy: EnforceSameName, clusterSelector: {nodeSelectorTerms: [{matchExpressions: [{key: nobody, operator: Exists}]}]}}",
        )?;
        refused(offloading("offloading", "{namespaceMappingStrategy: DefaultName}"), "cannot be modified")?;
        wait_for("a selector that matches nothing is told", LONG, || {
            let now = rome.json(&["nsof", "-n", "odd", "offloading"])?;
            Ok((now["status"]["offloadingPhase"] == "NoClusterSelected").then_some(()))
        })?;
        rome.kubectl(&["delete", "namespace", "odd"])?;
        let bad = "apiVersion: discovery.liqo.io/v1alpha1\nkind: ForeignCluster\nmetadata: {name: x}\nspec: {foreignAuthUrl: 'http://a.b'}";
        refused(rome.apply(bad), "foreignAuthUrl")
    })
}

#[test]
fn a_wrong_kubeconfig_is_explained() -> Result<()> {
    SUITE.tell(|stage| {
        let missing = ["--kubeconfig", "/no/such/file", "status"];
        let said = stage.refused(stage.cluster("rome"), &missing)?;
        ensure!(said.contains("/no/such/file"), "{said}");
        let said = stage.refused(stage.cluster("rome"), &["--context", "nowhere", "status"])?;
        ensure!(said.contains("nowhere"), "{said}");
        Ok(())
    })
}

/// A request must have been refused with these words.
fn refused(outcome: Result<String>, expected: &str) -> Result<()> {
    let error = outcome.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(error.contains(expected), "{expected:?} is not in {error:?}");
    Ok(())
}

/// A peer may not write a request in the name of somebody else; and one that is stored from before that rule has no effect.
#[test]
fn a_peer_cannot_speak_for_another() -> Result<()> {
    SUITE.tell(|stage| {
        let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
        stage.peer(rome, milan)?;
        let tenant = milan.items(&["namespaces", "-l", "discovery.liqo.io/tenant-namespace=true"])?;
        let tenant = tenant[0]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let own = stage.peer_value(rome, "--cluster-id")?;
        let forged = format!(
            "apiVersion: discovery.liqo.io/v1alpha1
kind: ResourceRequest
metadata: {{name: forged, namespace: {tenant}, labels: {{liqo.io/replicated: 'true', liqo.io/originID: stranger}}}}
spec: {{clusterIdentity: {{clusterID: stranger, clusterName: stranger}}, authUrl: 'https://stranger.example:443'}}
"
        );
        let mut as_peer = milan.kubectl_command();
        as_peer.args(["--as", &own, "--as-group=liqo.io", "--as-group=system:authenticated", "create", "-f", "-"]);
        refused(run::feed(&mut as_peer, &forged), "orbidden")?;
        milan.apply(&forged)?;
        // The provider goes on serving the real peer, and makes nothing for the stranger.
        stage.unpeer(rome, "milan")?;
        stage.peer(rome, milan)?;
        let strangers = milan.items(&["foreignclusters"])?;
        ensure!(strangers.iter().all(|one| one["spec"]["clusterIdentity"]["clusterID"] != "stranger"), "{strangers:?}");
        let offers = milan.items(&["resourceoffers", "-n", &tenant])?;
        ensure!(offers.len() == 1, "{} offers", offers.len());
        milan.kubectl(&["delete", "resourcerequest", "-n", &tenant, "forged"])?;
        stage.unpeer(rome, "milan").map(drop)
    })
}
