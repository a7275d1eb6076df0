//! Somebody who has a one-time token of milan, and takes the ID of rome after a ban that is lifted.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use liqo_test::{
    Cluster, Stage,
    process::Process,
    run::{command, feed, output},
};
use rustix::process::Signal;
use serde_json::json;

use super::held::{Answer, held, text};

/// In this time the controllers of milan would have given the ID of rome its roles again.
const SOON: Duration = Duration::from_secs(3);

/// The ID of rome still belongs to the key that had the ID before the ban, also when rome has not come again; and the certificate of
/// that time has no rights before rome has asked for another one.
pub(crate) fn is_refused(stage: &Stage, id: &str) -> Result<()> {
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
    let away = Frozen::controllers(rome)?;
    accepts(milan, "Yes")?;
    thread::sleep(SOON);
    let bound = milan.kubectl(&["get", "rolebindings", "-A", "-o", "json"])?;
    ensure!(!bound.contains(id), "roles are given to an ID without a certified key: {bound}");
    let answer = held(rome)?.asks(stage, "/apis/discovery.liqo.io/v1alpha1/namespaces/TENANT/resourcerequests")?;
    ensure!(answer == Answer::Forbidden, "the certificate of the time before the ban is answered: {answer:?}");
    let (code, said) = asks(stage, id)?;
    ensure!(
        code == 403 && said.contains("belongs to another key"),
        "the ID of rome is given to another key: {code} {said}"
    );
    drop(away);
    // Without a decision of a user, the ForeignCluster may go when rome asks for nothing any more.
    accepts(milan, "Auto")
}

fn accepts(milan: &Cluster, incoming: &str) -> Result<()> {
    let patch = json!({"spec": {"incomingPeeringEnabled": incoming}}).to_string();
    milan.kubectl(&["patch", "foreigncluster", "rome", "--type=merge", "-p", &patch]).map(drop)
}

/// The frozen controller manager of rome. Dropping this value lets the process go on, with its memory as before.
struct Frozen(Process);

impl Frozen {
    fn controllers(rome: &Cluster) -> Result<Self> {
        let selector = "app.kubernetes.io/name=controller-manager";
        let pods = rome.items(&["pods", "-n", "liqo", "-l", selector])?;
        let pod = pods.first().context("rome has no controller manager")?;
        let process = rome.container_process("liqo", text(pod, "/metadata/name"), "controller-manager")?;
        process.signal(Signal::STOP);
        Ok(Self(process))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.0.signal(Signal::CONT);
    }
}

/// Asks milan for an identity of this ID with a new key and a token for anybody; the status and the words of the answer.
fn asks(stage: &Stage, id: &str) -> Result<(u16, String)> {
    let milan = stage.cluster("milan");
    let [url, token] = ["--auth-url", "--auth-token"].map(|flag| stage.peer_value(milan, flag));
    let directory = stage.bed.dir().join("impostor");
    std::fs::create_dir_all(&directory)?;
    let key = directory.join("key.pem");
    output(command("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&key))?;
    let mut request = command("openssl");
    request.args(["req", "-new", "-subj", &format!("/O=liqo.io/CN={id}"), "-key"]).arg(&key);
    let body = json!({
        "cluster": {"clusterID": id, "clusterName": "rome"}, "originClusterToken": "", "destinationClusterToken": token?,
        "certificateSigningRequest": BASE64_STANDARD.encode(output(&mut request)?),
    });
    let mut curl = command("curl");
    curl.args(["-k", "-s", "-S", "--noproxy", "*", "--max-time", "15", "-w", "\n%{http_code}"]);
    curl.args(["-H", "Content-Type: application/json", "--data-binary", "@-"]);
    let printed = feed(curl.arg(format!("{}/identity/certificate", url?)), &body.to_string())?;
    let (said, code) = printed.rsplit_once('\n').context("curl prints the status last")?;
    Ok((code.parse()?, said.to_owned()))
}
