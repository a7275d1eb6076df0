//! Whether the honest peer is served during an attack: all the time a pod of rome asks a pod in milan, and a pod in milan asks
//! the pod that milan runs in rome. Both ways lead through the tunnel.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use liqo_test::{
    Cluster,
    run::{inside_of, output},
};

use super::raid::{Raid, text};

/// The longest time without an answer. A question without one takes 5 s, and the machine has other things to do.
const GAP: Duration = Duration::from_secs(10);
/// Pause between two questions.
const PAUSE: Duration = Duration::from_secs(1);

/// Who asks whom.
struct Way {
    from: PathBuf,
    url: String,
}

/// Asks both ways until `over`.
///
/// # Errors
/// When there was no answer for longer than [`GAP`].
pub(crate) fn throughout(raid: &Raid, over: &AtomicBool) -> Result<()> {
    let (rome, milan) = (raid.rome(), raid.stage.cluster("milan"));
    let service = rome.json(&["service", "-n", "shop", "web"])?;
    let baker = milan.items(&["pods", "-n", "bakery", "-l", "app=baker"])?;
    let baker = text(baker.first().context("milan has no baker")?, "/status/podIP").to_owned();
    let ways = [
        Way {
            from: network(rome, &["-n", "shop"], "app=client")?,
            url: format!("http://{}", text(&service, "/spec/clusterIP")),
        },
        Way { from: network(milan, &["-A"], "app=web")?, url: format!("http://{baker}:8080") },
    ];
    let gaps = thread::scope(|scope| {
        let asking = ways.each_ref().map(|way| scope.spawn(|| longest_gap(way, over)));
        asking.map(|one| one.join().expect("asking does not panic"))
    });
    ensure!(gaps[0] < GAP, "no pod in milan has answered rome for {:?}", gaps[0]);
    ensure!(gaps[1] < GAP, "no pod in rome has answered milan for {:?}", gaps[1]);
    Ok(())
}

/// The network of the first pod with a label.
fn network(cluster: &Cluster, namespace: &[&str], selector: &str) -> Result<PathBuf> {
    let pods = cluster.items(&[&["pods", "-l", selector], namespace].concat())?;
    let pod = pods.first().with_context(|| format!("{} has no pod {selector}", cluster.name()))?;
    let process = cluster.container_process(text(pod, "/metadata/namespace"), text(pod, "/metadata/name"), "web")?;
    Ok(Path::new("/proc").join(process.pid.to_string()).join("ns/net"))
}

/// The longest time between two answers.
fn longest_gap(way: &Way, over: &AtomicBool) -> Duration {
    let (mut answered, mut longest) = (Instant::now(), Duration::ZERO);
    while !over.load(Ordering::Relaxed) {
        let mut curl = inside_of(&way.from, "curl");
        curl.args(["-s", "-f", "-m", "5", "-o", "/dev/null", "--noproxy", "*", &way.url]);
        let is_answered = output(&mut curl).is_ok();
        longest = longest.max(answered.elapsed());
        if is_answered {
            answered = Instant::now();
        }
        thread::sleep(PAUSE);
    }
    longest
}
