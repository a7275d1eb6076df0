//! Made-up reviews: a pod of a guest acts as the API server, and asks rome's webhooks in the name of the honest peer.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use liqo_test::{
    run::{feed, inside_of},
    stage::LONG,
    wait_for,
};
use serde_json::{Value, json};

use super::{
    flood::{self, Answers},
    glutton::offered,
    pod::address,
    raid::{Raid, text},
    root::{pod, shadow},
};

/// Reviews of one kind and one go.
const COUNT: usize = 200;
/// An honest request is answered in this time: the life of a reservation, and a busy machine.
const PROMPT: Duration = Duration::from_secs(5);

/// The forged pods would take most of what is offered to milan; milan's own pod needs half of the offer. `netns` is that of the
/// guest's pod.
pub(crate) fn story(raid: &Raid, netns: &Path) -> Result<()> {
    let (rome, milan) = (raid.rome(), &raid.milan);
    let webhooks = format!("https://{}:9443", address(rome, "liqo", "liqo-controller-manager")?);
    let (bakery, offered) = (milan.offloaded(rome)?, offered(raid, milan)?);
    let over = AtomicBool::new(false);
    let told = thread::scope(|scope| {
        let forgers = ["/validate/shadowpods", "/validate/peer", "/mutate/pod"].map(|path| {
            let (url, over) = (format!("{webhooks}{path}"), &over);
            let file = raid.stage.bed.dir().join(format!("review-of{}", path.replace('/', "-")));
            let review = review(raid, &bakery, offered * 2 / 3);
            scope.spawn(move || -> Result<usize> {
                let mut answered = 0;
                let curl = || {
                    let mut curl = inside_of(netns, "curl");
                    curl.arg("-k");
                    curl
                };
                while !over.load(Ordering::Relaxed) {
                    let answers: Answers = flood::post(curl, &url, COUNT, (&file, &review))?;
                    answered += answers.get(&200).copied().unwrap_or_default();
                }
                Ok(answered)
            })
        });
        let told = honest(raid, &bakery, offered / 2);
        over.store(true, Ordering::Relaxed);
        let answered = forgers.map(|one| one.join().expect("forging does not panic"));
        told.and_then(|()| answered.into_iter().collect::<Result<Vec<_>>>())
    })?;
    ensure!(told.iter().all(|answered| *answered > 0), "not every kind of review was answered: {told:?}");
    Ok(())
}

/// A review as the API server would send one for a pod of milan.
fn review(raid: &Raid, namespace: &str, cpu: u64) -> String {
    let milan = &raid.milan;
    let limits = json!({"cpu": format!("{cpu}m"), "memory": "8Mi"});
    let mut object: Value =
        serde_json::from_str(&shadow(milan, namespace, "forged", &pod(&limits, &json!({})))).expect("a manifest");
    object["metadata"]["uid"] = json!("forged");
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "forged", "operation": "CREATE", "namespace": namespace, "name": "forged", "object": object,
        "resource": {"group": "virtualkubelet.liqo.io", "version": "v1alpha1", "resource": "shadowpods"},
        "userInfo": {"username": milan.id, "groups": ["liqo.io", "system:authenticated"]},
    }})
    .to_string()
}

/// Meanwhile milan's pods are admitted, and pods of rome.
fn honest(raid: &Raid, bakery: &str, cpu: u64) -> Result<()> {
    let (rome, milan) = (raid.rome(), &raid.milan);
    // The flood has begun, and its reviews have left what they leave.
    thread::sleep(Duration::from_secs(1));
    let plain = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "asked", "namespace": "shop"},
        "spec": {"containers": [{"name": "c", "image": "localhost/busybox:1"}]}});
    let limits = json!({"cpu": format!("{cpu}m"), "memory": "8Mi"});
    for number in 0..3 {
        let name = format!("half-{number}");
        let began = Instant::now();
        milan.tries(&shadow(milan, bakery, &name, &pod(&limits, &json!({}))))?.done("half of the offer")?;
        let admitted = began.elapsed();
        let mut create = rome.kubectl_command();
        feed(create.args(["create", "--dry-run=server", "-f", "-"]), &plain.to_string()).context("a pod of rome")?;
        let asked = began.elapsed() - admitted;
        ensure!(admitted < PROMPT && asked < PROMPT, "admitted after {admitted:?}, and a pod of rome after {asked:?}");
        milan.runs(&["delete", "shadowpod", "-n", bakery, &name, "--wait=false"])?.done("its own pod")?;
        wait_for("milan's pod is gone", LONG, || {
            let left = rome.items(&["shadowpods", "-n", bakery])?;
            Ok((!left.iter().any(|one| text(one, "/metadata/name") == name)).then_some(()))
        })?;
    }
    Ok(())
}
