//! The uninvited provider: a cluster that may only ask for resources acts as if rome had asked it for resources.

use anyhow::{Result, bail, ensure};
use liqo_test::{stage::LONG, wait_for};
use serde_json::{Value, json};

use super::{
    csr::{Key, UTF8, cn, o, outlives},
    door::Door,
    forger,
    hostile::Peer,
    raid::{Raid, names, never, text},
};

const ID: &str = "7c3f2b5e-9d8f-4e40-8b32-0f9e8d7c6b51";
const NAME: &str = "palermo";
/// ID and name of a cluster that comes after a provider has said that its node is a control plane.
const LATER: (&str, &str) = ("7c3f2b5e-9d8f-4e40-8b32-0f9e8d7c6b52", "bari");

/// A cluster that has an identity in rome and has sent its ResourceRequest, as every consumer does.
pub(crate) fn guest(raid: &Raid, id: &str, name: &str) -> Result<Peer> {
    let (door, key) = (Door::of(&raid.stage)?, Key::make(&raid.stage.bed.dir().join(name))?);
    let request = key.request(&[&[o(UTF8, "liqo.io")], &[cn(UTF8, id)]], &[])?;
    let answer = door.asks(id, name, &Door::token(&raid.stage)?, &request)?;
    ensure!((200..300).contains(&answer.0), "{answer:?}");
    let answer = answer.json()?;
    let peer = Peer::with(id, text(&answer, "/namespace"), key.directory(), &answer, &key.pem()?)?;
    let asked = peer.tries(&object(&peer, &raid.home, "discovery", "ResourceRequest", name, &request_of(id, name)))?;
    asked.done("the request that everybody sends")?;
    wait_for(&format!("{name} is known"), LONG, || {
        let known = raid.rome().items(&["foreignclusters"])?;
        Ok(known.iter().any(|one| text(one, "/spec/clusterIdentity/clusterID") == id).then_some(()))
    })?;
    Ok(peer)
}

/// The spec of a request in the name of a cluster that nobody can reach.
fn request_of(id: &str, name: &str) -> String {
    format!("{{clusterIdentity: {{clusterID: {id}, clusterName: {name}}}, authUrl: 'https://172.31.255.254:9'}}")
}

/// A copy of an object of the peer, as the peer's replicator makes it.
pub(crate) fn object(peer: &Peer, home: &str, group: &str, kind: &str, name: &str, spec: &str) -> String {
    let origin = format!("liqo.io/originID: {}, liqo.io/remoteID: {home}", peer.id);
    labelled(
        peer,
        &format!("{origin}, liqo.io/replicated: 'true', liqo.io/replication: 'false'"),
        (group, kind),
        name,
        spec,
    )
}

/// An object in the peer's tenant namespace with any labels.
fn labelled(peer: &Peer, labels: &str, (group, kind): (&str, &str), name: &str, spec: &str) -> String {
    format!(
        "apiVersion: {group}.liqo.io/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {}, labels: {{{labels}}}}}\n\
         spec: {spec}\n",
        peer.tenant
    )
}

pub(crate) fn story(raid: &Raid) -> Result<()> {
    let rome = raid.rome();
    let peer = guest(raid, ID, NAME)?;
    let original = format!("liqo.io/remoteID: {ID}, liqo.io/replication: 'true'");
    let (request, offer) = (("discovery", "ResourceRequest"), ("sharing", "ResourceOffer"));
    // As rome would have made them. Of two, one was taken away at once; of six, three stood.
    for number in 1..=6 {
        let fake = labelled(&peer, &original, request, &format!("fake-{number}"), &request_of(&raid.home, "rome"));
        peer.tries(&fake)?.refused("a request in the name of rome");
    }
    let resources = "resourceQuota: {hard: {cpu: '1000', memory: 1000Gi, pods: '1000'}}";
    let labels = "labels: {node-role.kubernetes.io/control-plane: '', node-restriction.kubernetes.io/team: red}";
    for (what, name, spec) in [
        ("an offer that nobody asked for", NAME, format!("{{clusterId: {ID}, {resources}, {labels}}}")),
        ("an offer in the name of the honest peer", "milan", format!("{{clusterId: {}, {resources}}}", raid.milan.id)),
    ] {
        peer.tries(&object(&peer, &raid.home, offer.0, offer.1, name, &spec))?.refused(what);
    }
    let in_anothers_name = labelled(
        &peer,
        &format!("liqo.io/originID: {}, liqo.io/remoteID: {}, liqo.io/replicated: 'true'", raid.milan.id, raid.home),
        request,
        "forged",
        &request_of(&raid.milan.id, "milan"),
    );
    peer.tries(&in_anothers_name)?.refused("a request in the name of the honest peer");
    let mine = ["resourcerequest", NAME];
    for (what, patch) in [
        ("a finalizer of its own", json!({"metadata": {"finalizers": ["palermo.example/never"]}})),
        ("the mark of an original", json!({"metadata": {"labels": {"liqo.io/replication": "true"}}})),
    ] {
        peer.patches(&peer.tenant, &mine, &patch)?.refused(what);
    }
    never("something was made for a provider", || {
        let selector = "app.kubernetes.io/part-of=liqo";
        let made = [
            rome.items(&["deployments,serviceaccounts", "-n", &peer.tenant, "-l", selector])?,
            rome.items(&["resourceoffers", "-n", &peer.tenant, "-l", &format!("liqo.io/originID={ID}")])?,
            rome.items(&["nodes", "-l", &format!("liqo.io/remote-cluster-id={ID}")])?,
        ]
        .concat();
        let bound = rome.items(&["rolebindings", "-n", &peer.tenant])?;
        let bound = bound.into_iter().filter(|one| text(one, "/roleRef/name") == "liqo-remote-peering-outgoing");
        Ok(names(&made.into_iter().chain(bound).collect::<Vec<_>>()))
    })?;
    nodes_of_providers_have_no_roles(raid)?;
    forger::forget(rome, ID, &peer.tenant)
}

/// An offer of less than nothing: the node has no such amount, and says that it has no room.
fn less_than_nothing(raid: &Raid, offer: &str) -> Result<()> {
    let (rome, peer) = (raid.rome(), &raid.turin);
    let honest = rome.json(&["resourceoffer", "-n", &peer.tenant, offer])?["spec"]["resourceQuota"]["hard"].take();
    let offers = |hard: &Value| {
        peer.patches(&peer.tenant, &["resourceoffer", offer], &json!({"spec": {"resourceQuota": {"hard": hard}}}))
    };
    let is_ready = |node: &Value| {
        let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
        conditions.filter(|one| one["type"] == "Ready").any(|one| one["status"] == "True")
    };
    let negative = json!({"cpu": "-1000", "memory": "-1Gi", "pods": "-5"});
    offers(&negative)?.done("an offer of less than nothing")?;
    let told = wait_for("the node of turin has no room", LONG, || {
        let node = rome.json(&["node", "liqo-turin"])?;
        if is_ready(&node) { bail!("{}", node["status"]["allocatable"]) } else { Ok(Some(node)) }
    });
    offers(&honest)?.done("an offer as before")?;
    let told = told?["status"].take();
    for amounts in ["capacity", "allocatable"] {
        let amounts = told[amounts].as_object().into_iter().flatten();
        let less: Vec<_> =
            amounts.filter(|(_, amount)| amount.as_str().is_some_and(|text| text.starts_with('-'))).collect();
        ensure!(less.is_empty(), "the node of turin has {less:?}");
    }
    wait_for("the node of turin has room again", LONG, || {
        Ok(is_ready(&rome.json(&["node", "liqo-turin"])?).then_some(()))
    })
}

/// What a provider that was asked says of itself makes no control plane of its node, and does not lead new peers astray.
fn nodes_of_providers_have_no_roles(raid: &Raid) -> Result<()> {
    let (rome, turin) = (raid.rome(), raid.hostile_cluster());
    let tenant = super::raid::tenant(turin, &raid.home)?;
    // Turin's controllers are stopped, so the test changes turin's offer in rome, where its replicator would write the change.
    let offers = turin.items(&["resourceoffers", "-n", &tenant, "-l", "liqo.io/replication=true"])?;
    ensure!(!offers.is_empty(), "turin offers nothing");
    let labels = json!({"spec": {"labels": {"node-role.kubernetes.io/control-plane": "", "tier": "gold"}}});
    raid.turin
        .patches(&raid.turin.tenant, &["resourceoffer", text(&offers[0], "/metadata/name")], &labels)?
        .done("a provider changes its own offer")?;
    let ends = json!({"metadata": {"annotations": {"liqo.io/end-at-once": "true"}}});
    raid.turin
        .patches(&raid.turin.tenant, &["resourceoffer", text(&offers[0], "/metadata/name")], &ends)?
        .refused("a provider decides that the pods on its node get no time to end");
    // A harmless label arrives, the role does not.
    wait_for("the label of the offer", LONG, || {
        Ok((rome.json(&["node", "liqo-turin"])?["metadata"]["labels"]["tier"] == "gold").then_some(()))
    })?;
    less_than_nothing(raid, text(&offers[0], "/metadata/name"))?;
    let node = rome.json(&["node", "liqo-turin"])?;
    let role = &node["metadata"]["labels"]["node-role.kubernetes.io/control-plane"];
    ensure!(role.is_null(), "the node of a provider is called a control plane: {node}");
    // A node that is called a control plane would be taken for the API server's, when a new peer asks where that is.
    let door = Door::of(&raid.stage)?;
    let key = Key::make(&raid.stage.bed.dir().join(LATER.1))?;
    let request = key.request(&[&[o(UTF8, "liqo.io")], &[cn(UTF8, LATER.0)]], &[])?;
    let mut asked: Value = serde_json::from_str(&Door::body(LATER.0, LATER.1, &Door::token(&raid.stage)?, &request))?;
    asked["renews"] = json!(true);
    let answer = door.posts(&asked.to_string())?.json()?;
    let given = text(&answer, "/certificate");
    ensure!(
        !outlives(given, key.directory(), 8 * forger::DAY)?,
        "a peer that renews was given a long-lived certificate"
    );
    let told = text(&answer, "/apiServerUrl");
    ensure!(told == format!("https://{}:6443", rome.node_ip()), "a new peer is led to {told:?}");
    forger::forget(rome, LATER.0, text(&answer, "/namespace"))
}
