//! One job as a user writes and watches it, and its results as the store gives them.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{ChildStdout, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::TryStreamExt;
use liqo_results::{
    Location, Store,
    keys::{self, Access, Scope},
};
use liqo_test::{Cluster, run::Killed, stage::LONG, wait_for};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Where jobs are.
pub(crate) const NAMESPACE: &str = "liqo-jobs";
/// Where the controller, the API and the store are.
pub(crate) const SYSTEM: &str = "liqo-jobs-system";

/// Writes every byte value, runs of CRLF and bytes that are no UTF-8, 64 MiB of it, an empty file and a deep one, and prints the
/// digests of all.
pub(crate) const ALL_BYTES: &str = r#"cd /output
for n in $(seq 0 255); do printf "\\$(printf %03o $n)"; done > block
printf 'a\r\n\r\n\r\n\377\376\300\200\355\240\200' >> block
cp block all.bin; n=0; while [ $n -lt 18 ]; do cat all.bin all.bin > next; mv next all.bin; n=$((n+1)); done
mkdir -p 'deep/er/with space'; echo deep > 'deep/er/with space/ünïcode.txt'; : > empty
find . -type f -exec sha256sum {} +"#;

/// A job.
pub(crate) struct Work {
    name: String,
    spec: Value,
}

/// A worker that runs a script.
pub(crate) fn template(script: &str) -> Value {
    json!({"image": "localhost/busybox:1", "command": ["sh", "-c", script], "resources": {"cpu": "50m", "memory": "128Mi"}})
}

/// The same bytes on a provider and at home.
pub(crate) fn bytes() -> [Work; 2] {
    ["Remote", "Local"]
        .map(|placement| Work::new(&format!("bytes-{}", placement.to_lowercase()), ALL_BYTES).placed(placement))
}

/// A worker that leaves a result and fails.
pub(crate) fn fails() -> Work {
    Work::new("fails", "echo partly > /output/partly; exit 3").placed("Remote")
}

/// A job with a result for a link.
pub(crate) fn linked() -> Work {
    Work::new("linked", "printf 'a\\r\\n\\377b' > '/output/deep r'; echo other > /output/other")
}

/// A job with results for a page.
pub(crate) fn seen() -> Work {
    Work::new("seen", "mkdir /output/deep; echo a > '/output/deep/a b'; echo b > /output/b").placed("Remote")
}

/// A worker that does not end by itself, nor when it is asked to.
pub(crate) fn endless() -> Work {
    Work::new("endless", "echo one > /output/one; trap '' TERM; while true; do sleep 1; done").placed("Remote")
}

/// Jobs that stories only look at when the jobs have ended. Each of these stories submits its job again, which changes nothing, so
/// that the story can be told alone.
pub(crate) fn early() -> Vec<Work> {
    [linked(), fails(), seen()].into_iter().chain(bytes()).collect()
}

/// Writes a job with this spec.
pub(crate) fn apply(cluster: &Cluster, name: &str, spec: &Value) -> Result<()> {
    let job = json!({"apiVersion": "jobs.liqo.io/v1alpha1", "kind": "Job",
        "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec});
    cluster.apply(&job.to_string()).map(drop)
}

impl Work {
    pub(crate) fn new(name: &str, script: &str) -> Self {
        Self { name: name.to_owned(), spec: json!({"template": template(script)}) }
    }

    pub(crate) fn placed(mut self, placement: &str) -> Self {
        self.spec["placement"] = json!(placement);
        self
    }

    /// With its results in a store that the operator names.
    pub(crate) fn in_store(mut self, store: &str) -> Self {
        self.spec["resultStore"] = json!(store);
        self
    }

    pub(crate) fn submit(&self, cluster: &Cluster) -> Result<()> {
        apply(cluster, &self.name, &self.spec)
    }

    pub(crate) fn cancel(&self, cluster: &Cluster) -> Result<()> {
        cluster.kubectl(&[
            "patch",
            "-n",
            NAMESPACE,
            "ljob",
            &self.name,
            "--type=merge",
            "-p",
            r#"{"spec":{"cancel":true}}"#,
        ])?;
        Ok(())
    }

    fn read(&self, cluster: &Cluster) -> Result<Value> {
        cluster.json(&["ljob", "-n", NAMESPACE, &self.name])
    }

    fn until(&self, cluster: &Cluster, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
        let waited = wait_for(&format!("job {} {what}", self.name), LONG, || {
            let job = self.read(cluster)?;
            Ok(is(&job["status"]).then_some(job))
        });
        waited.with_context(|| format!("the job stands so: {:?}", self.read(cluster).map(|job| job["status"].clone())))
    }

    /// The job, once it has ended.
    pub(crate) fn ended(&self, cluster: &Cluster) -> Result<Value> {
        self.until(cluster, "ends", |status| !status["finishedAt"].is_null())
    }

    pub(crate) fn phase(&self, cluster: &Cluster, phase: &str) -> Result<Value> {
        self.until(cluster, &format!("is {phase}"), |status| status["phase"] == phase)
    }

    pub(crate) fn reason(&self, cluster: &Cluster, reason: &str) -> Result<Value> {
        self.until(cluster, &format!("says {reason}"), |status| status["reason"] == reason)
    }
}

/// The name of the job with this UID.
pub(crate) fn by_uid(cluster: &Cluster, uid: &str) -> Result<String> {
    let all = cluster.items(&["ljob", "-n", NAMESPACE])?;
    let found =
        all.iter().find(|job| job["metadata"]["uid"] == uid).with_context(|| format!("no job has the UID {uid}"))?;
    Ok(found["metadata"]["name"].as_str().unwrap_or_default().to_owned())
}

/// Removes the jobs that this user has submitted.
pub(crate) fn remove_jobs_of(cluster: &Cluster, user: &str) -> Result<()> {
    let all = cluster.items(&["ljob", "-n", NAMESPACE])?;
    let is_of = |job: &&Value| job["metadata"]["annotations"]["jobs.liqo.io/submitter"] == user;
    let names: Vec<_> = all.iter().filter(is_of).filter_map(|job| job["metadata"]["name"].as_str()).collect();
    if names.is_empty() {
        return Ok(());
    }
    cluster.kubectl(&[&["delete", "-n", NAMESPACE, "ljob", "--wait=true"], &names[..]].concat()).map(drop)
}

/// Names of the Secrets that a provider has in the namespace made for the jobs.
pub(crate) fn secrets_of_provider(provider: &Cluster) -> Result<Vec<String>> {
    let all = provider.items(&["namespaces", "-l", "liqo.io/remote-cluster-id"])?;
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let namespace = all.iter().map(name).find(|name| name.starts_with(NAMESPACE)).context("no namespace for jobs")?;
    Ok(provider.items(&["secrets", "-n", &namespace])?.iter().map(name).collect())
}

/// A port of this machine that leads to a port in the namespace of the jobs; closed when dropped.
pub(crate) struct Forward {
    _process: Killed,
    /// kubectl ends when its output is closed.
    _output: BufReader<ChildStdout>,
    pub(crate) port: u16,
}

impl Forward {
    pub(crate) fn to(cluster: &Cluster, target: &str, port: u16) -> Result<Self> {
        let mut command = cluster.kubectl_command();
        command.args(["port-forward", "--address=127.0.0.1", "-n", SYSTEM, target, &format!(":{port}")]);
        let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start kubectl port-forward")?;
        let (mut output, mut line) = (BufReader::new(child.stdout.take().context("it has an output")?), String::new());
        output.read_line(&mut line)?;
        // "Forwarding from 127.0.0.1:41234 -> 9000"
        let port = line.split_once(':').and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        Ok(Self {
            _process: Killed(child),
            _output: output,
            port: port.with_context(|| format!("kubectl said {line:?}"))?,
        })
    }
}

/// Where the results of a job are, with a key made from the master key: that of the mover goes with the end of the job.
pub(crate) struct Place(BTreeMap<String, String>);

impl Place {
    /// The place of a job that exists.
    pub(crate) fn of(cluster: &Cluster, job: &str) -> Result<Self> {
        let text = |object: &Value, pointer: &str| -> Result<String> {
            Ok(object.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no {pointer}"))?.to_owned())
        };
        let prefix = text(&cluster.json(&["ljob", "-n", NAMESPACE, job])?, "/metadata/uid")?;
        let secret = cluster.json(&["secret", "-n", SYSTEM, "liqo-store-key"])?;
        let master = STANDARD.decode(text(&secret, "/data/master-key")?)?;
        let expires = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 600;
        let key = keys::issue(&master, &Scope { prefix: prefix.clone(), access: Access::ReadOnly, expires })?;
        let files =
            [("bucket", "liqo-jobs"), ("prefix", &prefix), ("accessKeyId", &key.id), ("secretAccessKey", &key.secret)];
        Ok(Self(files.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect()))
    }

    fn with_store<T>(&self, cluster: &Cluster, act: impl AsyncFnOnce(Store) -> Result<T>) -> Result<T> {
        let forward = Forward::to(cluster, "service/liqo-store", 9000)?;
        let mut files = self.0.clone();
        files.insert("endpoint".to_owned(), format!("http://127.0.0.1:{}", forward.port));
        // The first story of the process installs the provider; for the others it is there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store = Store::new(&Location::from_files(&files)?)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(act(store))
    }

    /// Number of results in the store.
    pub(crate) fn objects(&self, cluster: &Cluster) -> Result<usize> {
        self.with_store(cluster, async |store| Ok(store.list().try_collect::<Vec<_>>().await?.len()))
    }
}

/// Compares what the store gives with its manifest, and that with the digests the worker printed.
pub(crate) fn compare(cluster: &Cluster, job: &Value) -> Result<()> {
    let text = |pointer: &str| job.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let log = cluster.kubectl(&["logs", "-n", NAMESPACE, text("/status/pod"), "-c", "worker"])?;
    let said: BTreeMap<String, String> = log
        .lines()
        .filter_map(|line| line.split_once("  ./").map(|(digest, path)| (path.to_owned(), digest.to_owned())))
        .collect();
    ensure!(said.len() == 4, "the worker printed {log:?}");
    let stored = Place::of(cluster, text("/metadata/name"))?.with_store(cluster, async |store| {
        let manifest = store.manifest().await?.context("there is no manifest")?;
        let mut stored = BTreeMap::new();
        for file in &manifest.files {
            let opened = store.open(&file.path, None).await?;
            let digest = opened
                .bytes
                .map_err(|error| anyhow!(error))
                .try_fold(Sha256::new(), async |digest, piece| Ok(digest.chain_update(&piece)));
            let hex: String = digest.await?.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            ensure!(hex == file.sha256.to_string(), "{} is not what the manifest says", file.path);
            stored.insert(file.path.to_string(), hex);
        }
        Ok(stored)
    })?;
    ensure!(stored == said, "the store has {stored:?}, the worker wrote {said:?}");
    ensure!(job["status"]["results"]["files"] == said.len(), "{}", job["status"]);
    Ok(())
}
