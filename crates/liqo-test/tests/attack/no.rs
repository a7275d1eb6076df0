//! "No" means no: the rights of a refused cluster, and of a peer that was accepted before and ignores the withdrawal.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use liqo_test::{Cluster, stage::LONG, wait_for};
use serde_json::{Value, json};

use super::{
    after, forger,
    hostile::Peer,
    provider::{guest, object},
    raid::{Raid, names, never, text},
    root::{few, pod, shadow},
};

const ID: &str = "8d4a3c6f-0e90-4f51-9c43-1a0f9e8d7c62";
const NAME: &str = "naples";

/// The withdrawal deadline of rome.
const DEADLINE: Duration = Duration::from_secs(15);
/// Before, the consumer itself may take back what it has.
const EVICTED: Duration = Duration::from_secs(6);
/// A pod of rome in turin.
const LODGER: &str = "apiVersion: v1
kind: Pod
metadata: {name: lodger, namespace: lent}
spec: {nodeSelector: {kubernetes.io/hostname: liqo-turin}, containers: [{name: c, image: 'localhost/busybox:1'}]}
";
/// A budget of the administrator of rome, for one pod of turin.
const BUDGET: &str = "apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: guarded, namespace: THERE}
spec: {minAvailable: 1, selector: {matchLabels: {app: guarded}}}
";

pub(crate) fn story(raid: &Raid) -> Result<()> {
    never_accepted(raid)?;
    accepted_once(raid)
}

/// A cluster with an identity whose request was refused.
fn never_accepted(raid: &Raid) -> Result<()> {
    let rome = raid.rome();
    let peer = guest(raid, ID, NAME)?;
    let known = rome.items(&["foreignclusters"])?;
    let known = known.iter().find(|one| text(one, "/spec/clusterIdentity/clusterID") == ID);
    let known = known.map(|one| text(one, "/metadata/name").to_owned()).unwrap_or_default();
    rome.kubectl(&[
        "patch",
        "foreigncluster",
        &known,
        "--type=merge",
        "-p",
        r#"{"spec":{"incomingPeeringEnabled":"No"}}"#,
    ])?;
    // The role that a moment of `Auto` may have given is gone, too.
    wait_for("the refused cluster has no role of a consumer", LONG, || {
        let bound = rome.items(&["rolebindings", "-n", &peer.tenant])?;
        let has_role = |one: &Value| text(one, "/roleRef/name") == "liqo-remote-peering-incoming";
        Ok((!bound.iter().any(has_role)).then_some(()))
    })?;
    let map = "{desiredMapping: {x: x-naples}}";
    peer.tries(&object(&peer, &raid.home, "virtualkubelet", "NamespaceMap", "refused", map))?.refused("a map");
    let network = "{cluster: {clusterID: HOME, clusterName: rome}, podCIDR: 10.77.0.0/16, externalCIDR: 10.78.0.0/16, \
                   endpointIP: 172.31.255.254, backendType: wireguard, backend_config: {publicKey: \
                   fAtXqFbclsLrEwLCMmP18WQmRtocQDjKtHV8rRnTSW0=, port: '5871'}}"
        .replace("HOME", &raid.home);
    peer.tries(&object(&peer, &raid.home, "net", "NetworkConfig", "refused", &network))?.refused("a network");
    for namespace in ["default", "shop", &raid.milan.offloaded(rome)?] {
        peer.tries(&shadow(&peer, namespace, "refused", &pod(&few(), &json!({}))))?.refused("a pod");
    }
    never("something was made for a refused cluster", || {
        let spaces = rome.items(&["namespaces", "-l", &format!("liqo.io/remote-cluster-id={ID}")])?;
        Ok(names(&[spaces, rome.items(&["tunnelendpoints", "-n", &peer.tenant])?].concat()))
    })?;
    forger::forget(rome, ID, &peer.tenant)
}

/// A peer with pods in rome ignores the withdrawal and keeps its pods.
fn accepted_once(raid: &Raid) -> Result<()> {
    let (rome, peer) = (raid.rome(), &raid.turin);
    let there = peer.offloaded(rome)?;
    peer.tries(&shadow(peer, &there, "clinging", &pod(&few(), &json!({}))))?.done("a pod like any")?;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "clinging", "namespace": there,
        "labels": {"virtualkubelet.liqo.io/origin": peer.id}}, "stringData": {"a": "b"}});
    peer.tries(&secret.to_string())?.done("a Secret like any")?;
    peer.tries(&shadow(peer, &there, "guarded", &pod(&few(), &json!({}))))?.done("a pod that a budget protects")?;
    rome.apply(&BUDGET.replace("THERE", &there))?;
    wait_for("its pods run", LONG, || {
        let pods = rome.items(&["pods", "-n", &there, "--field-selector", "status.phase=Running"])?;
        let runs = |name: &str| pods.iter().any(|one| text(one, "/metadata/name") == name);
        Ok((runs("clinging") && runs("guarded")).then_some(()))
    })?;
    // Objects may be older than the rule that forbids finalizers.
    for kind in ["shadowpod", "secret"] {
        let patch = r#"{"metadata":{"finalizers":["turin.example/never"]}}"#;
        rome.kubectl(&["patch", kind, "-n", &there, "clinging", "--type=merge", "-p", patch])?;
    }
    let refused = Instant::now();
    rome.kubectl(&[
        "patch",
        "foreigncluster",
        "turin",
        "--type=merge",
        "-p",
        r#"{"spec":{"incomingPeeringEnabled":"No"}}"#,
    ])?;
    let gone = |name: &str| -> Result<bool> {
        Ok(!rome.items(&["pods", "-n", &there])?.iter().any(|one| text(one, "/metadata/name") == name))
    };
    wait_for("the pod that no budget protects is evicted", LONG, || Ok(gone("clinging")?.then_some(())))?;
    ensure!(refused.elapsed() > EVICTED, "a pod was evicted in the time that is the consumer's own");
    // Half of the deadline is left to look: on a machine that is too slow for that nothing follows.
    let taken = gone("guarded")?;
    let in_time = refused.elapsed() + Duration::from_secs(1) < DEADLINE;
    ensure!(!taken || !in_time, "a pod was taken before the deadline though a budget protects it");
    wait_for("nothing of the refused peer is left in rome", LONG, || {
        let left = left(rome, peer, &there)?;
        if left.is_empty() { Ok(Some(())) } else { bail!("{left:?}") }
    })?;
    ensure!(
        refused.elapsed() + Duration::from_secs(1) > DEADLINE,
        "all ended after {:?}, before the deadline",
        refused.elapsed()
    );
    let maps = format!("{{desiredMapping: {{raid: {there}}}}}");
    let map = object(peer, &raid.home, "virtualkubelet", "NamespaceMap", "again", &maps);
    peer.tries(&map)?.refused("a map after all was taken back");
    peer.tries(&shadow(peer, &there, "again", &pod(&few(), &json!({}))))?.refused("a pod after all was taken back");
    ended(raid)
}

/// Pods, the namespace, and rights that give more than asking.
fn left(rome: &Cluster, peer: &Peer, there: &str) -> Result<Vec<String>> {
    let spaces = rome.items(&["namespaces", "-l", &format!("liqo.io/remote-cluster-id={}", peer.id)])?;
    let pods = rome.items(&["pods", "-n", there])?;
    let bound = rome.items(&["rolebindings", "-n", &peer.tenant])?;
    let bound = bound.into_iter().filter(|one| text(one, "/roleRef/name") == "liqo-remote-peering-incoming");
    Ok(names(&spaces.into_iter().chain(pods).chain(bound).collect::<Vec<_>>()))
}

/// The administrator ends everything at once; the certificate, which is valid for longer, opens nothing.
fn ended(raid: &Raid) -> Result<()> {
    let (rome, peer) = (raid.rome(), &raid.turin);
    // Objects may be older than the rule that forbids finalizers.
    let held = r#"{"metadata":{"finalizers":["turin.example/never"]}}"#;
    let theirs = format!("liqo.io/originID={}", peer.id);
    for one in rome.items(&["resourcerequests", "-n", &peer.tenant, "-l", &theirs])? {
        let name = text(&one, "/metadata/name");
        rome.kubectl(&["patch", "resourcerequest", "-n", &peer.tenant, name, "--type=merge", "-p", held])?;
    }
    // A pod on turin's node, which turin runs for nobody: it does not hold the node.
    rome.apply(LODGER)?;
    wait_for("the lodger is on turin's node", LONG, || {
        Ok((rome.json(&["pod", "-n", "lent", "lodger"])?["spec"]["nodeName"] == "liqo-turin").then_some(()))
    })?;
    let account = after::account(raid)?;
    let began = Instant::now();
    raid.stage.liqoctl(rome, &["evict", "tenant", "turin", "--timeout", "60s"])?;
    ensure!(began.elapsed().as_secs() < 60, "ending everything took {:?}", began.elapsed());
    for what in [
        vec!["get", "resourcerequests", "-n", &peer.tenant],
        vec!["get", "networkconfigs", "-n", &peer.tenant],
        vec!["get", "shadowpods", "-A"],
    ] {
        peer.runs(&what)?.refused("the old certificate");
    }
    let left = provider_left(rome, peer)?;
    ensure!(left.is_empty(), "{left:?} are left of turin");
    // The ban outlives the wish to delete what keeps it.
    let said = rome.kubectl(&["delete", "foreigncluster", "turin", "--wait=false"]);
    let said = said.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(said.contains("liqoctl uncordon tenant turin"), "the ban could be deleted: {said:?}");
    after::nothing_of_it_is_known(raid)?;
    after::the_account_is_nobody(raid, &account)?;
    after::the_id_is_banned(raid)?;
    banned_by_id(raid)?;
    rome.kubectl(&["delete", "foreigncluster", "turin", "--timeout=60s"])?;
    after::the_id_inherits_nothing(raid)
}

/// A second `ForeignCluster` of the banned ID, with another name, gives nothing; and a ban on either of them bans the cluster.
fn banned_by_id(raid: &Raid) -> Result<()> {
    let (rome, peer) = (raid.rome(), &raid.turin);
    let auth = rome.json(&["foreigncluster", "turin"])?;
    let spec = json!({"clusterIdentity": {"clusterID": peer.id, "clusterName": "again"}, "peeringType": "OutOfBand",
        "foreignAuthUrl": text(&auth, "/spec/foreignAuthUrl"), "incomingPeeringEnabled": "Yes",
        "outgoingPeeringEnabled": "Yes", "insecureSkipTLSVerify": true});
    let twin = json!({"apiVersion": "discovery.liqo.io/v1alpha1", "kind": "ForeignCluster",
        "metadata": {"name": "again"}, "spec": spec});
    rome.apply(&twin.to_string())?;
    let given = || -> Result<Vec<String>> {
        let tenants = rome.items(&["namespaces", "-l", &format!("discovery.liqo.io/cluster-id={}", peer.id)])?;
        let mine = |one: &Value| one["subjects"][0]["name"] == peer.id.as_str();
        let bindings = rome.items(&["rolebindings", "-A"])?.into_iter().filter(mine);
        Ok(names(&tenants.into_iter().chain(bindings).collect::<Vec<_>>()))
    };
    never("a second ForeignCluster gives something to a banned cluster", given)?;
    raid.stage.liqoctl(rome, &["evict", "tenant", "again", "--timeout", "30s"])?;
    raid.stage.liqoctl(rome, &["uncordon", "tenant", "turin"])?;
    let wants = |word: &str| -> Result<()> {
        let patch = json!({"spec": {"incomingPeeringEnabled": word, "outgoingPeeringEnabled": word}}).to_string();
        rome.kubectl(&["patch", "foreigncluster", "turin", "--type=merge", "-p", &patch]).map(drop)
    };
    wants("Yes")?;
    never("the older ForeignCluster gives something to a banned cluster", given)?;
    wants("No")?;
    raid.stage.liqoctl(rome, &["uncordon", "tenant", "again"])?;
    rome.kubectl(&["delete", "foreigncluster", "again", "--timeout=60s"]).map(drop)
}

/// What stands in rome because turin was its provider, and the namespace that the two shared.
fn provider_left(rome: &Cluster, peer: &Peer) -> Result<Vec<String>> {
    let id = &peer.id;
    let nodes = rome.items(&["nodes", "-l", &format!("liqo.io/remote-cluster-id={id}")])?;
    let shared = rome.items(&["namespaces", "-l", &format!("discovery.liqo.io/cluster-id={id}")])?;
    let kinds = "deployments,resourceoffers,resourcerequests,tunnelendpoints,networkconfigs,namespacemaps,secrets";
    Ok(names(&[nodes, shared, rome.items(&[kinds, "-n", &peer.tenant])?].concat()))
}
