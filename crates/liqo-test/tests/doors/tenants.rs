//! Who is let in as a tenant, and for how long.

use anyhow::{Result, bail, ensure};
use liqo_test::{Cluster, Stage, stage::LONG, wait_for};
use serde_json::Value;

/// A namespace that counts as the one of a tenant.
const TAKEN: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: liqo-tenant-taken, labels: \
                     {discovery.liqo.io/tenant-namespace: 'true'}}";

/// While the only place is taken, a cluster with a good token is not let in and is told why; then the cluster gets in by itself.
pub(crate) fn one_cluster_and_no_more(stage: &Stage) -> Result<()> {
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
    rome.apply(TAKEN)?;
    let command = stage.peer_command(rome)?;
    let words: Vec<_> = command.iter().map(String::as_str).chain(["--timeout", "8s"]).collect();
    let said = stage.refused(milan, &words)?;
    ensure!(said.contains("auth.config.maxTenants"), "milan is not told why: {said}");
    let tenants = rome.items(&["namespaces", "-l", "discovery.liqo.io/tenant-namespace=true"])?;
    ensure!(tenants.len() == 1, "rome has {} tenants", tenants.len());
    rome.kubectl(&["delete", "namespace", "liqo-tenant-taken"])?;
    milan.wait_peering("rome", "AuthenticationStatus", "Established")
}

/// With `discovery.config.incomingPeeringEnabled=false` milan has an identity and gets nothing, until a person in rome says yes to milan.
pub(crate) fn a_person_accepts_what_is_asked(stage: &Stage) -> Result<()> {
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
    wait_for("rome waits for a person", LONG, || {
        let told = rome.peering("milan", "IncomingPeering")?;
        let asks = told["message"].as_str().is_some_and(|text| text.contains("incomingPeeringEnabled"));
        if told["status"] == "Pending" && asks { Ok(Some(())) } else { bail!("{told}") }
    })?;
    wait_for("an Event asks for the approval", LONG, || {
        let events = rome.items(&["events", "-n", "default", "--field-selector", "reason=ApprovalNeeded"])?;
        let is_about =
            |one: &Value| one["involvedObject"]["name"] == "milan" && one["involvedObject"]["kind"] == "ForeignCluster";
        Ok(events.iter().any(is_about).then_some(()))
    })?;
    let offers = rome.items(&["resourceoffers", "-A"])?;
    let bound = rome.items(&["rolebindings", "-A"])?;
    let consumes = bound.iter().filter(|one| one["roleRef"]["name"] == "liqo-remote-peering-incoming").count();
    ensure!(offers.is_empty() && consumes == 0, "milan was offered {offers:?} and has {consumes} roles of a consumer");
    let yes = r#"{"spec":{"incomingPeeringEnabled":"Yes"}}"#;
    rome.kubectl(&["patch", "foreigncluster", "milan", "--type=merge", "-p", yes])?;
    milan.wait_peering("rome", "OutgoingPeering", "Established")
}

/// With `auth.config.acceptClusterToken=false` the Secret `auth-token` lets no cluster in. (With the default it does, see the story
/// of the upgrade.)
pub(crate) fn the_token_of_the_cluster_opens_nothing(stage: &Stage) -> Result<()> {
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
    let command = stage.peer_command_of_cluster(rome)?;
    let words: Vec<_> = command.iter().map(String::as_str).chain(["--timeout", "8s"]).collect();
    let said = stage.refused(milan, &words)?;
    ensure!(said.contains("token"), "milan is not told why: {said}");
    let told = milan.peering("rome", "AuthenticationStatus")?;
    ensure!(told["status"] == "Denied", "milan was let in with the token of the cluster: {told}");
    ensure!(
        rome.items(&["namespaces", "-l", "discovery.liqo.io/tenant-namespace=true"])?.is_empty(),
        "rome has a tenant"
    );
    Ok(())
}

/// With `auth.config.identityLifetime=15m` the certificate of milan ends in a quarter of an hour at most. (With the default it lasts for
/// days, see the story of the upgrade.)
pub(crate) fn identities_are_short(milan: &Cluster) -> Result<()> {
    let left = milan.identity_ends_in()?;
    ensure!((60..=15 * 60).contains(&left), "the certificate of milan ends in {left} s");
    Ok(())
}
