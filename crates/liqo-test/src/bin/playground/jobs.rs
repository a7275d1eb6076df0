//! `./quickstart jobs`, step by step: switch the service of jobs on, run a job in the other cluster, compare the digest of its result.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use liqo_test::{Product, out};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    demo,
    place::{Own, Place, Site, until},
    steps::{Log, Steps},
};

/// All steps, with the two of the script and those of a peering.
const STEPS: usize = 10;
const NAMESPACE: &str = "liqo-jobs";
/// Where the controller, the API and the store are.
const SYSTEM: &str = "liqo-jobs-system";
/// The result of the example: every byte value in order, so many times.
const REPEATS: usize = 1 << 12;
/// The worker of the example: writes `REPEATS` times 256 bytes.
const WORKER: &str = "echo \"I am $(hostname), and write every byte value\"; cd /output; \
    for n in $(seq 0 255); do printf \"\\\\$(printf %03o $n)\"; done > bytes; \
    for n in $(seq 12); do cat bytes bytes > next; mv next bytes; done; \
    echo \"the digest is $(sha256sum bytes)\"";

/// What the user shall see of the job.
struct Seen {
    table: String,
    pods: String,
    log: String,
    results: String,
    file: PathBuf,
    digest: String,
}

pub(crate) fn up(own: Own, done: usize, path: &std::path::Path) -> Result<()> {
    let began = Instant::now();
    let mut steps = Steps::new("./quickstart jobs", done, STEPS, path)?;
    let place = Place::choose(own);
    let product = Product::build().context("the product is not built; ./quickstart does that")?;
    let sites = demo::peered(&mut steps, &place, &product)?;
    let [rome, _] = &sites;
    steps.step("Switch jobs on in rome", |log| switch_on(&place, &product, rome, log))?;
    steps.step("Offload the namespace of the jobs", |log| {
        log.run(product.liqoctl_command(&rome.kubeconfig).args(["offload", "namespace", NAMESPACE])).map(drop)
    })?;
    let name = steps.step("Run a job in milan", |log| submit(&place, &product, rome, log))?;
    let seen = steps.step("Fetch its result and compare it", |log| fetch(&product, rome, &name, log))?;
    out::note("");
    out::say(&farewell(&place, &product, rome, &name, &seen));
    out::note(&format!("\nAll of it took {:.0} s.", began.elapsed().as_secs_f64()));
    Ok(())
}

/// Installs the release again with jobs: `liqoctl` keeps its other values.
fn switch_on(place: &Place, product: &Product, rome: &Site, log: &mut Log) -> Result<()> {
    let classes: Value =
        serde_json::from_str(&log.run(&mut rome.kubectl(&["get", "storageclasses", "-o", "json"]))?)?;
    let default = "storageclass.kubernetes.io/is-default-class";
    let mut classes = classes["items"].as_array().into_iter().flatten();
    let keeps = classes.any(|class| class["metadata"]["annotations"][default] == "true");
    let values = format!("jobs.enabled=true,jobs.store.persistence.enabled={keeps}");
    log.write(&demo::install_one(place, product, rome, &["--set", &values])?);
    for role in ["liqo-store", "liqo-jobs", "liqo-jobs-api"] {
        log.run(&mut rome.kubectl(&["-n", SYSTEM, "rollout", "status", "deployment", role, "--timeout=120s"]))?;
    }
    Ok(())
}

fn submit(place: &Place, product: &Product, rome: &Site, log: &mut Log) -> Result<String> {
    let mut job = product.liqoctl_command(&rome.kubeconfig);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let name = format!("bytes-{now}");
    job.args(["job", "run", "--name", &name, "--image", &place.web_image(), "--placement", "Remote"]);
    log.run(job.args(["--wait", "--timeout", "3m", "--", "sh", "-c", WORKER]))?;
    let mut job = product.liqoctl_command(&rome.kubeconfig);
    let job: Value = serde_json::from_str(&log.run(job.args(["job", "get", &name, "-o", "json"]))?)
        .context("liqoctl job get printed no JSON")?;
    let node = &job["status"]["node"];
    ensure!(node == "liqo-milan", "the worker ran on {node}, not in milan");
    Ok(name)
}

fn fetch(product: &Product, rome: &Site, name: &str, log: &mut Log) -> Result<Seen> {
    let mut liqoctl = |args: &[&str]| log.run(product.liqoctl_command(&rome.kubeconfig).arg("job").args(args));
    let (table, said, results) = (liqoctl(&["list"])?, liqoctl(&["logs", name])?, liqoctl(&["results", name])?);
    let directory = std::env::temp_dir().join(format!("liqo-{name}"));
    let _ = fs::remove_dir_all(&directory);
    liqoctl(&["results", name, "--output-dir", &directory.display().to_string()])?;
    let file = directory.join("bytes");
    let came = Sha256::digest(fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?);
    let every: Vec<u8> = (0..=u8::MAX).collect();
    let digest = hex(&came);
    ensure!(digest == hex(&Sha256::digest(every.repeat(REPEATS))), "the result is not what the worker wrote: {digest}");
    let selector = format!("batch.kubernetes.io/job-name={name}");
    let pods = ["-n", NAMESPACE, "get", "pods", "-o", "wide", "-l", &selector];
    let pods = until("the pod of the job", Duration::from_secs(10), || rome.kubectl(&pods))?;
    Ok(Seen { table, pods, log: said, results, file, digest })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn farewell(place: &Place, product: &Product, rome: &Site, name: &str, seen: &Seen) -> String {
    let indent = |text: &str| format!("  {}", text.trim_end().replace('\n', "\n  "));
    format!(
        "A job of rome that ran in milan (liqoctl job list):\n{table}\n\n\
         Its pod (kubectl -n {NAMESPACE} get pods -o wide):\n{pods}\n\n\
         What its worker said (liqoctl job logs {name}):\n{log}\n\n\
         What it left (liqoctl job results {name}):\n{results}\n\
         The same here, byte for byte: {file}\n  SHA-256 {digest}, as it must be\n\n\
         Try next:\n  \
         export KUBECONFIG={rome}\n  \
         {liqoctl} job run --image {image} --wait -- sh -c 'date > /output/when'\n  \
         {liqoctl} job rerun {name} --wait\n  \
         kubectl -n {NAMESPACE} get ljob                    # jobs are objects like others: kubectl explain ljob.spec\n  \
         kubectl -n {NAMESPACE} create serviceaccount me\n  \
         kubectl -n {NAMESPACE} create rolebinding me --clusterrole=edit --serviceaccount={NAMESPACE}:me\n  \
         kubectl -n {NAMESPACE} create token me             # to log in with, at https://localhost:8444, while this runs:\n  \
         kubectl -n {SYSTEM} port-forward service/liqo-jobs-api 8444:443\n  \
         ./quickstart down                                  # leaves nothing",
        table = indent(&seen.table),
        pods = indent(&seen.pods),
        log = indent(&seen.log),
        results = indent(&seen.results),
        file = seen.file.display(),
        digest = seen.digest,
        rome = rome.kubeconfig.display(),
        liqoctl = product.liqoctl_path().display(),
        image = place.web_image(),
    )
}
