//! A peer that has left: rights, objects and addresses of the peer are gone, and a cluster that comes with the same ID inherits nothing.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use liqo_test::{
    run::{self, write},
    stage::LONG,
    wait_for,
};

use super::{
    csr::{Key, UTF8, cn, o},
    door::{Answer, Door},
    forger,
    hostile::Peer,
    raid::{Raid, names, text},
};

/// Kinds that are reflected for a peer.
const REFLECTED: &str = "services,configmaps,secrets,persistentvolumeclaims,pods,endpointslices,ingresses,shadowpods,\
                         shadowendpointslices";

/// A token of the virtual kubelet for turin, while turin is a peer, in a file for curl.
pub(crate) fn account(raid: &Raid) -> Result<PathBuf> {
    let rome = raid.rome();
    let token = rome.kubectl(&["create", "token", "virtual-kubelet", "-n", &raid.turin.tenant])?;
    let file = raid.stage.bed.dir().join("token-of-a-virtual-kubelet");
    write(&file, format!("Authorization: Bearer {}", token.trim()))?;
    ensure!(asks_as(raid, &file)? == "200", "the token of a virtual kubelet is no good while its peer is there");
    ensure!(addresses(raid)?.contains(&raid.turin.id), "the addresses of turin are unknown");
    Ok(file)
}

/// No object was left that was reflected for turin, and no address is kept for it.
pub(crate) fn nothing_of_it_is_known(raid: &Raid) -> Result<()> {
    let (rome, id) = (raid.rome(), &raid.turin.id);
    let reflected = rome.items(&[REFLECTED, "-A", "-l", &format!("virtualkubelet.liqo.io/origin={id}")])?;
    ensure!(reflected.is_empty(), "{:?} are left of turin", names(&reflected));
    wait_for("no address is kept for turin", LONG, || Ok((!addresses(raid)?.contains(id)).then_some(())))
}

/// What rome's IPAM knows: networks and exported addresses by the ID of the peer.
fn addresses(raid: &Raid) -> Result<String> {
    let all = raid.rome().items(&["ipamstorages,natmappings", "-A"])?;
    Ok(all.iter().map(|one| one["spec"].to_string()).collect())
}

/// The identity of the virtual kubelet went with the peer.
pub(crate) fn the_account_is_nobody(raid: &Raid, file: &std::path::Path) -> Result<()> {
    // An API server remembers for some seconds that a token was good.
    wait_for("the token of a virtual kubelet whose peer has left is refused", LONG, || {
        let code = asks_as(raid, file)?;
        if code == "401" { Ok(Some(())) } else { bail!("{code}") }
    })
}

/// The code with which rome's API server answers a bearer of a token.
fn asks_as(raid: &Raid, file: &std::path::Path) -> Result<String> {
    let rome = raid.rome();
    let mut curl = run::command("curl");
    curl.args(["-s", "--noproxy", "*", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"]);
    curl.arg(rome.credentials().join("ca")).arg("-H").arg(format!("@{}", file.display()));
    run::output(curl.arg(format!("{}/api/v1/nodes/liqo-milan", rome.api_server())))
}

/// While the ID is banned, no key opens the door with it.
pub(crate) fn the_id_is_banned(raid: &Raid) -> Result<()> {
    let Answer(code, said) = asks_with_the_id(raid, &another_key(raid)?)?;
    ensure!(code == 401 || code == 403, "a banned ID with another key: {code} {said}");
    Ok(())
}

/// Once turin is forgotten, a cluster with another key may have the ID, and gets what every stranger gets.
pub(crate) fn the_id_inherits_nothing(raid: &Raid) -> Result<()> {
    let (rome, id) = (raid.rome(), &raid.turin.id);
    // One key for all tries: an answer may be lost, and then the ID belongs to the key that asked.
    let key = another_key(raid)?;
    let answer = wait_for("the ID is free", LONG, || {
        let answer = asks_with_the_id(raid, &key)?;
        if (200..300).contains(&answer.0) { Ok(Some(answer)) } else { bail!("{answer:?}") }
    })?;
    let answer = answer.json()?;
    let peer = Peer::with(id, text(&answer, "/namespace"), key.directory(), &answer, &key.pem()?)?;
    for what in [
        vec!["get", "secrets", "-A"],
        vec!["get", "shadowpods", "-A"],
        vec!["get", "namespacemaps", "-n", &peer.tenant],
        vec!["get", "networkconfigs", "-n", &peer.tenant],
    ] {
        peer.runs(&what)?.refused(&format!("the heir of an ID: {what:?}"));
    }
    let given = rome.items(&["namespaces", "-l", &format!("liqo.io/remote-cluster-id={id}")])?;
    let kept = rome.items(&["resourceoffers,namespacemaps,networkconfigs,tunnelendpoints", "-n", &peer.tenant])?;
    let kept = names(&[given, kept].concat());
    ensure!(kept.is_empty(), "the heir of an ID has {kept:?}");
    forger::forget(rome, id, &peer.tenant)
}

/// A key that is not turin's.
fn another_key(raid: &Raid) -> Result<Key> {
    Key::make(&raid.stage.bed.dir().join("heir"))
}

/// Asks for an identity with turin's ID.
fn asks_with_the_id(raid: &Raid, key: &Key) -> Result<Answer> {
    let (door, id) = (Door::of(&raid.stage)?, &raid.turin.id);
    let request = key.request(&[&[o(UTF8, "liqo.io")], &[cn(UTF8, id)]], &[])?;
    door.asks(id, "turin", &Door::token(&raid.stage)?, &request)
}
