//! The forger at the door: signing requests that mean one thing to the parser that checks them and another to the signer.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use liqo_test::Cluster;
use serde_json::Value;

use super::{
    csr::{Attribute, BMP, Key, TELETEX, UTF8, cn, o, outlives},
    door::{Answer, Door},
    flood, holes,
    hostile::Peer,
    raid::{Raid, names, text},
};

/// No body is read for so long, on a machine that has other things to do.
const SLOWEST: Duration = Duration::from_secs(40);
/// A day.
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);
/// A slow body is waited for a little.
const QUICKEST: Duration = Duration::from_secs(3);
/// An ID that nobody has.
const FORGER: &str = "5a1e0f3c-7b6d-4c2e-9f10-8d7c6b5a4e3f";
/// Clusters that ask at the same time with one token.
const IDS: usize = 20;
/// What every kubeadm cluster has as the administrators' group.
const MASTERS: &str = "kubeadm:cluster-admins";

pub(crate) fn story(raid: &Raid) -> Result<()> {
    let rome = raid.rome();
    let (door, key) = (Door::of(&raid.stage)?, Key::make(&raid.stage.bed.dir().join("forger"))?);
    let before = (kept(raid)?, requests(rome)?);
    for (what, id, request) in forgeries(&key, &raid.milan.id)? {
        let token = Door::token(&raid.stage)?;
        let answer = door.asks(&id, "forger", &token, &request)?;
        let Answer(code, said) = &answer;
        // Not 401: the token was right, and what is wrong is the request.
        if ![400, 403].contains(code) {
            holes::found(format!("{what}: {answer:?}"));
            continue;
        }
        ensure!(!said.contains(&token) && !said.is_empty(), "{what}: {said:?}");
    }
    nobody_else(raid, &door, &key)?;
    many_ids(raid, &door, &key)?;
    only_the_door_is_answered(rome)?;
    noise(raid, &door, &key)?;
    ensure!(kept(raid)? == before.0, "the certificate or a token of the honest peer has changed");
    let new: Vec<_> = requests(rome)?.into_iter().filter(|name| !before.1.contains(name)).collect();
    ensure!(new.is_empty(), "the API server was asked to sign {new:?}");

    // A request without a trick is granted: the refusals above were about the tricks.
    let token = Door::token(&raid.stage)?;
    let honest = key.request(&[&[o(UTF8, "liqo.io")], &[cn(UTF8, FORGER)]], &[])?;
    let answer = door.asks(FORGER, "forger", &token, &honest)?;
    ensure!((200..300).contains(&answer.0), "an honest request: {answer:?}");
    let answer = answer.json()?;
    // A peer of Liqo 0.8.3 never renews: its certificate lives as long as the signer of the cluster says.
    let given = text(&answer, "/certificate");
    ensure!(outlives(given, key.directory(), 30 * DAY)?, "a peer that does not renew is locked out within a month");
    let peer = Peer::with(FORGER, text(&answer, "/namespace"), key.directory(), &answer, &key.pem()?)?;
    for (verb, resource) in [("get", "secrets"), ("create", "pods"), ("create", "rolebindings"), ("list", "nodes")] {
        let said = peer.kubectl().args(["auth", "can-i", verb, resource, "-A"]).output()?;
        ensure!(String::from_utf8_lossy(&said.stdout).trim() == "no", "the peer may {verb} {resource}");
    }
    let mut may = peer.kubectl();
    let may = may.args(["auth", "can-i", "create", "resourcerequests.discovery.liqo.io", "-n", &peer.tenant]);
    ensure!(may.output()?.status.success(), "the peer may not even ask");
    // A second cluster uses a one-time token that another cluster has used.
    let other = "6b2f1a4d-8c7e-4d3f-8a21-9e8d7c6b5f40";
    let request = key.request(&[&[o(UTF8, "liqo.io")], &[cn(UTF8, other)]], &[])?;
    let Answer(code, said) = door.asks(other, "second", &token, &request)?;
    ensure!(code == 401 || code == 403, "a used token: {code} {said}");
    forget(rome, FORGER, &peer.tenant)
}

/// What the authentication service asks the controller manager, nobody else may; the API server passes the question on as
/// anybody's.
fn only_the_door_is_answered(rome: &Cluster) -> Result<()> {
    for path in ["authentication-service", "identity"] {
        let path = format!("/api/v1/namespaces/liqo/services/https:liqo-controller-manager:9443/proxy/internal/{path}");
        let said = rome.kubectl_command().args(["get", "--raw", &path]).output()?;
        let words = String::from_utf8_lossy(&said.stderr).into_owned();
        ensure!(!said.status.success() && said.stdout.is_empty(), "{path} answers anybody");
        // kubectl's words for 401. The API server itself knows the caller.
        ensure!(words.contains("You must be logged in to the server"), "{path}: {words}");
    }
    Ok(())
}

/// The signing requests that Kubernetes knows of.
fn requests(rome: &Cluster) -> Result<Vec<String>> {
    Ok(names(&rome.items(&["certificatesigningrequests"])?))
}

/// What must not change: the honest peer's certificate and token.
fn kept(raid: &Raid) -> Result<Vec<Value>> {
    let rome = raid.rome();
    let certificate = rome.json(&["secret", "-n", &raid.milan.tenant, "liqo-remote-certificate"])?;
    let tokens =
        rome.items(&["secrets", "-n", "liqo", "-l", &format!("discovery.liqo.io/cluster-id={}", raid.milan.id)])?;
    let tokens: Vec<_> = tokens.iter().map(|token| token["data"].clone()).collect();
    Ok(vec![certificate["data"].clone(), tokens.into()])
}

/// The forged requests: a description, the claimed ID and the request.
fn forgeries(key: &Key, victim: &str) -> Result<Vec<(&'static str, String, String)>> {
    let (liqo, me) = (|| vec![o(UTF8, "liqo.io")], |id: &str| vec![cn(UTF8, id)]);
    let manager = "system:kube-controller-manager";
    let request = |subject: &[Vec<Attribute>], alternative: &[&str]| {
        key.request(&subject.iter().map(Vec::as_slice).collect::<Vec<_>>(), alternative)
    };
    let good = request(&[liqo(), me(FORGER)], &[])?;
    let evil = request(&[vec![o(UTF8, MASTERS)], me("somebody")], &[])?;
    let begin = "-----BEGIN CERTIFICATE REQUEST-----";
    let hidden = |blank: char| format!("{}{evil}", good.replacen(begin, &format!("{begin}{blank}"), 1));
    let as_forger = [
        ("two common names", request(&[liqo(), me(FORGER), me(manager)], &[])?),
        ("a second common name of another kind", request(&[liqo(), me(FORGER), vec![cn(BMP, manager)]], &[])?),
        ("a group as TeletexString", request(&[liqo(), vec![o(TELETEX, MASTERS)], me(FORGER)], &[])?),
        ("a group as BMPString", request(&[liqo(), vec![o(BMP, MASTERS)], me(FORGER)], &[])?),
        ("two groups in one name", request(&[vec![o(UTF8, "liqo.io"), o(UTF8, MASTERS)], me(FORGER)], &[])?),
        ("no group but the masters", request(&[vec![o(UTF8, "system:masters")], me(FORGER)], &[])?),
        ("another name beside the subject", request(&[liqo(), me(FORGER)], &["kubernetes.default.svc"])?),
        ("two blocks", format!("{good}{evil}")),
        ("a block hidden by a form feed", hidden('\u{c}')),
        ("a block hidden by a tab", hidden('\t')),
        ("no request", "nonsense".to_owned()),
    ];
    let mut all: Vec<_> = as_forger.into_iter().map(|(what, text)| (what, FORGER.to_owned(), text)).collect();
    // IDs that are names of other users, and the ID of a peer that has another key.
    for (what, id) in [("the ID of an administrator", "kubernetes-admin"), ("the ID of a robot", "jenkins")] {
        all.push((what, id.to_owned(), request(&[liqo(), me(id)], &[])?));
    }
    all.push(("the ID of the honest peer", victim.to_owned(), request(&[liqo(), me(victim)], &[])?));
    Ok(all)
}

/// Wrong tokens, also after a right one was used, and bodies that are too large.
fn nobody_else(raid: &Raid, door: &Door, key: &Key) -> Result<()> {
    let request = key.request(&[&[o(UTF8, "liqo.io")], &[cn(UTF8, FORGER)]], &[])?;
    for wrong in ["", "0123456789abcdef0123456789abcdef"] {
        let Answer(code, said) = door.asks(FORGER, "forger", wrong, &request)?;
        ensure!(code == 401 || code == 403, "a wrong token: {code} {said}");
        ensure!(wrong.is_empty() || !said.contains(wrong), "a token is repeated: {said}");
    }
    // The server reads no such body: whether curl still hears the answer depends on who is quicker.
    match door.posts(&format!("{{\"cluster\": \"{}\"}}", "x".repeat(1 << 20))) {
        Ok(Answer(code, said)) => ensure!([400, 413].contains(&code), "a body of a mebibyte: {code} {said}"),
        Err(error) => ensure!(format!("{error:#}").contains("curl: (55)"), "a body of a mebibyte: {error:#}"),
    }
    // The cluster's own token lets no caller act for a peer that exists.
    let turin = raid.hostile_cluster();
    let known =
        turin.items(&["secrets", "-n", "liqo", "-l", &format!("discovery.liqo.io/cluster-id={}", raid.home)])?;
    let token = known.iter().map(|one| text(one, "/data/token")).find(|token| !token.is_empty());
    let token = token.context("turin was given no token by rome")?;
    let token = String::from_utf8(base64::Engine::decode(&base64::prelude::BASE64_STANDARD, token)?)?;
    let victim = key.request(&[&[o(UTF8, "liqo.io")], &[cn(UTF8, &raid.milan.id)]], &[])?;
    let Answer(code, said) = door.asks(&raid.milan.id, "milan", &token, &victim)?;
    ensure!(code == 401 || code == 403, "the hostile peer's token for the honest peer's ID: {code} {said}");
    Ok(())
}

/// Unknown clusters ask for identities at the same time, with one token that is valid for one cluster: one cluster gets an identity,
/// and there are fewer Events than clusters.
fn many_ids(raid: &Raid, door: &Door, key: &Key) -> Result<()> {
    let rome = raid.rome();
    let events = || -> Result<usize> {
        let all = rome.items(&["events", "-n", "liqo"])?;
        let counted = all.iter().map(|one| one["count"].as_u64().unwrap_or(1));
        Ok(usize::try_from(counted.sum::<u64>())?)
    };
    let (token, before) = (Door::token(&raid.stage)?, events()?);
    let ids: Vec<_> = (0..IDS).map(|number| format!("5a1e0f3c-7b6d-4c2e-9f10-{number:012x}")).collect();
    let request = |id: &String| key.request(&[&[o(UTF8, "liqo.io")], &[cn(UTF8, id)]], &[]);
    let requests = ids.iter().map(request).collect::<Result<Vec<_>>>()?;
    let answers = thread::scope(|scope| {
        let token = &token;
        let asks = ids
            .iter()
            .zip(&requests)
            .map(|(id, request)| scope.spawn(move || door.asks(id, "one-of-many", token, request)));
        let asks: Vec<_> = asks.collect();
        asks.into_iter().map(|one| one.join().expect("asking does not panic")).collect::<Result<Vec<_>>>()
    })?;
    let let_in: Vec<_> = ids.iter().zip(&answers).filter(|(_, answer)| (200..300).contains(&answer.0)).collect();
    let refused = answers.iter().filter(|Answer(code, _)| [401, 403, 429].contains(code)).count();
    ensure!(let_in.len() == 1 && refused == IDS - 1, "{IDS} clusters with one token: {answers:?}");
    let tenants = rome.items(&["namespaces", "-l", "discovery.liqo.io/tenant-namespace=true"])?;
    let of_them = |one: &Value| ids.iter().any(|id| one["metadata"]["labels"]["discovery.liqo.io/cluster-id"] == **id);
    let made = names(&tenants.into_iter().filter(of_them).collect::<Vec<_>>());
    ensure!(made.len() == 1, "{IDS} clusters with one token have {made:?}");
    let told = events()?.saturating_sub(before);
    ensure!(told <= IDS / 2, "{told} Events about {IDS} clusters");
    let (id, answer) = let_in[0];
    forget(rome, id, text(&answer.json()?, "/namespace"))
}

/// Ten thousand wrong tokens, and meanwhile a body that comes one byte a second: most of the first are not even looked at, and
/// the second is not waited for.
fn noise(raid: &Raid, door: &Door, key: &Key) -> Result<()> {
    let request = key.request(&[&[o(UTF8, "liqo.io")], &[cn(UTF8, FORGER)]], &[])?;
    let file = raid.stage.bed.dir().join("wrong-token");
    let turin = raid.hostile_cluster().node(&raid.hostile_cluster().first())?;
    let (answers, slow) = thread::scope(|scope| {
        let slow = scope.spawn(|| door.dawdles());
        let body = Door::body(FORGER, "forger", "0123456789abcdef0123456789abcdef", &request);
        // From turin's own address: what the limiter then thinks of that is turin's.
        let curl = || {
            let mut curl = flood::curl_in(&turin.netns);
            curl.arg("-k");
            curl
        };
        let answers = flood::post(curl, &door.url(), 10_000, (&file, &body));
        (answers, slow.join().expect("dawdling does not panic"))
    });
    let answers = answers?;
    let count = |code| answers.get(&code).copied().unwrap_or_default();
    // 503: on a busy machine the controller manager does not answer the authentication service in time.
    ensure!([401, 403, 429, 503].map(count).iter().sum::<usize>() == 10_000, "wrong tokens: {answers:?}");
    ensure!(count(503) < 100, "the controller manager did not answer the authentication service: {answers:?}");
    ensure!(count(429) > 5_000, "most wrong tokens were looked at: {answers:?}");
    let slow = slow?;
    ensure!(slow > QUICKEST, "the server was not reached, or did not wait for a body at all: {slow:?}");
    ensure!(slow < SLOWEST, "a body of one byte a second was read for {slow:?}");
    Ok(())
}

/// Takes away what an invented cluster left.
pub(crate) fn forget(rome: &Cluster, id: &str, tenant: &str) -> Result<()> {
    let selector = format!("discovery.liqo.io/cluster-id={id}");
    rome.kubectl(&["delete", "foreignclusters", "-l", &selector, "--wait=false", "--ignore-not-found"])?;
    rome.kubectl(&["delete", "namespace", tenant, "--wait=false", "--ignore-not-found"]).map(drop)
}
