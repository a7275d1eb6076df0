//! Stores that the operator names: moto, an S3 store with a Security Token Service that nobody here wrote, outside of the clusters, over
//! TLS, with its checks of keys and policies on.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{ChildStdout, Stdio},
};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::TryStreamExt;
use liqo_results::{Location, Store};
use liqo_test::{Cluster, assets, run, run::Killed, stage::LONG, wait_for};
use serde_json::{Value, json};

use super::{
    rest::{self, Rest},
    work::{self, NAMESPACE, SYSTEM, Work},
};

/// What the worker leaves: bytes that are no text.
const RESULT: &str = "printf 'a\\r\\n\\377b' > '/output/deep r'";
const BYTES: &[u8] = b"a\r\n\xffb";

/// The store, as long as it lives.
struct Moto {
    _process: Killed,
    _output: BufReader<ChildStdout>,
    directory: PathBuf,
    said: Value,
    ca: String,
}

impl Drop for Moto {
    fn drop(&mut self) {
        // A directory that stays behind is in the directory for temporary files.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Moto {
    /// Starts the store at the address of this host that nodes and pods reach.
    fn start(cluster: &Cluster) -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("liqo-moto-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let node = cluster.node_ip();
        let host = format!("{}.1", node.rsplit_once('.').context("an address of four numbers")?.0);
        let program = run::output(run::command(assets::source().join("testbed/python-tool")).arg("moto"))?;
        let python = PathBuf::from(program.trim()).with_file_name("python3");
        let mut command = run::command(python);
        command.arg(assets::source().join("testbed/moto-store.py")).arg(&host).arg(&directory);
        let log = std::fs::File::create(directory.join("log"))?;
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().context("cannot start moto")?;
        let mut output = BufReader::new(child.stdout.take().context("it has an output")?);
        let process = Killed(child);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let log = || std::fs::read_to_string(directory.join("log")).unwrap_or_default();
        let said = serde_json::from_str(&line).with_context(|| format!("moto said: {}", run::tail(&log(), 20)))?;
        let ca = std::fs::read_to_string(directory.join("ca.pem"))?;
        Ok(Self { _process: process, _output: output, directory, said, ca })
    }

    fn text(&self, field: &str) -> &str {
        self.said[field].as_str().unwrap_or_default()
    }

    /// The spec of a ResultStore.
    fn spec(&self) -> Value {
        json!({"endpoint": self.text("endpoint"), "bucket": self.text("bucket"), "prefix": "team/a", "caBundle": self.ca,
            "secretName": "liqo-moto", "assumeRole": {"roleArn": self.text("role")}})
    }

    /// How many results of a job there are.
    fn objects(&self, uid: &str) -> Result<usize> {
        let files = [
            ("endpoint", self.text("endpoint")),
            ("bucket", self.text("bucket")),
            ("prefix", &format!("team/a/{uid}")),
            ("accessKeyId", self.text("accessKeyId")),
            ("secretAccessKey", self.text("secretAccessKey")),
            ("ca.crt", &self.ca),
        ];
        let files: BTreeMap<_, _> = files.map(|(file, text)| (file.to_owned(), text.to_owned())).into();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store = Store::new(&Location::from_files(&files)?)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { Ok(store.list().try_collect::<Vec<_>>().await?.len()) })
    }
}

fn secret(cluster: &Cluster, name: &str, keys: &Value) -> Result<()> {
    let data = json!({"accessKeyId": keys["accessKeyId"], "secretAccessKey": keys["secretAccessKey"]});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "stringData": data, "metadata": {"name": name, "namespace": SYSTEM}});
    cluster.apply(&secret.to_string()).map(drop)
}

fn store(cluster: &Cluster, name: &str, spec: &Value, more: &Value) -> Result<()> {
    let mut spec = spec.clone();
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    if spec["shareKeys"] == true {
        spec.as_object_mut().context("a spec")?.remove("assumeRole");
    }
    let store = json!({"apiVersion": "jobs.liqo.io/v1alpha1", "kind": "ResultStore",
        "metadata": {"name": name, "namespace": SYSTEM}, "spec": spec});
    cluster.apply(&store.to_string()).map(drop)
}

/// Waits until the condition of a store has this status and reason.
fn stands(cluster: &Cluster, name: &str, status: &str, reason: &str) -> Result<()> {
    let condition =
        || -> Result<Value> { Ok(cluster.json(&["lrs", "-n", SYSTEM, name])?["status"]["conditions"][0].clone()) };
    let waited = wait_for(&format!("ResultStore {name} says {reason}"), LONG, || {
        let now = condition()?;
        Ok((now["status"] == status && now["reason"] == reason).then_some(()))
    });
    waited.with_context(|| format!("the store stands so: {:?}", condition()))
}

/// What cannot work says why, each with its own reason.
fn unfit(rome: &Cluster, moto: &Moto) -> Result<()> {
    secret(rome, "liqo-moto-weak", &moto.said["weak"])?;
    let wrong = json!({"accessKeyId": moto.said["accessKeyId"], "secretAccessKey": "x".repeat(40)});
    secret(rome, "liqo-moto-wrong", &wrong)?;
    let all = [
        ("unfit-bucket", json!({"bucket": "nobody-made-this"}), "BucketNotFound"),
        ("unfit-keys", json!({"secretName": "liqo-moto-wrong"}), "CredentialsRefused"),
        ("unfit-weak", json!({"secretName": "liqo-moto-weak", "shareKeys": true}), "AccessDenied"),
        ("unfit-secret", json!({"secretName": "liqo-moto-nobody"}), "SecretUnusable"),
        ("unfit-trust", json!({"caBundle": null}), "Unusable"),
        ("unfit-role", json!({"assumeRole": {"roleArn": "arn:aws:iam::123456789012:role/nobody"}}), "RoleUnusable"),
        ("unfit-away", json!({"endpoint": "http://127.0.0.1:9"}), "Unreachable"),
    ];
    for (name, more, _) in &all {
        store(rome, name, &moto.spec(), more)?;
    }
    for (name, _, reason) in &all {
        stands(rome, name, "False", reason)?;
    }
    // The Secret is right now: nobody has to say so.
    secret(rome, "liqo-moto-wrong", &moto.said)
}

/// What makes no sense is refused with a sentence.
fn refused(rome: &Cluster, moto: &Moto) -> Result<()> {
    let spec = moto.spec();
    for (more, words) in [
        (json!({"assumeRole": null}), "say how movers get keys"),
        (json!({"endpoint": "ftp://x"}), "spec.endpoint"),
        (json!({"endpoint": "http://169.254.169.254/latest"}), "spec.endpoint"),
        (json!({"prefix": "../a"}), "spec.prefix"),
        (json!({"bucket": "A"}), "spec.bucket"),
        (json!({"assumeRole": {"roleArn": "arn:aws:iam::1:role/x", "sessionSeconds": 60}}), "sessionSeconds"),
    ] {
        let refused = store(rome, "no-sense", &spec, &more).expect_err("a store that makes no sense");
        ensure!(format!("{refused:#}").contains(words), "{more}: {refused:#}");
    }
    let moved = store(rome, "moto", &spec, &json!({"bucket": "another"})).expect_err("results are left behind");
    ensure!(format!("{moved:#}").contains("make another ResultStore"), "{moved:#}");
    let editor = format!("--as={}", rest::account("editor"));
    for verb in ["get", "create"] {
        let answer = rome.kubectl(&["auth", "can-i", verb, "resultstores", "-n", SYSTEM, &editor]);
        ensure!(answer.is_err(), "who submits jobs may {verb} stores: {answer:?}");
    }
    Ok(())
}

/// The keys of the mover on the provider are temporary and not those of the operator.
fn lent(milan: &Cluster, moto: &Moto, job: &str) -> Result<()> {
    let name = format!("liqo-results-{job}");
    let all = milan.items(&["secrets", "-A"])?;
    let found = all.iter().find(|one| one["metadata"]["name"] == name.as_str()).context("the provider has no key")?;
    let text = |key: &str| -> Result<String> {
        let coded = found["data"][key].as_str().with_context(|| format!("no {key} for the mover"))?;
        Ok(String::from_utf8(STANDARD.decode(coded)?)?)
    };
    ensure!(!text("sessionToken")?.is_empty() && text("accessKeyId")? != moto.text("accessKeyId"));
    ensure!(text("secretAccessKey")? != moto.text("secretAccessKey"), "the keys of the operator left");
    let is_ours = |one: &Value| one["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("liqo-moto"));
    ensure!(!all.iter().any(is_ours), "the Secret of the operator left");
    Ok(())
}

pub(crate) fn tell(rome: &Cluster, milan: &Cluster) -> Result<()> {
    let moto = Moto::start(rome)?;
    secret(rome, "liqo-moto", &moto.said)?;
    let early = Work::new("store-unknown", "true").in_store("later");
    early.submit(rome)?;
    store(rome, "moto", &moto.spec(), &json!({}))?;
    store(rome, "moto-shared", &moto.spec(), &json!({"shareKeys": true, "retentionSeconds": 1}))?;
    stands(rome, "moto", "True", "Reachable")?;
    stands(rome, "moto-shared", "True", "Reachable")?;
    early.reason(rome, "ResultStoreNotFound")?;

    // On the provider with temporary keys, by the template; at home with the keys of the Secret, for a second.
    let mut worker = work::template(&format!("{RESULT}; sleep 8"));
    worker["resultStore"] = json!("moto");
    let template = json!({"apiVersion": "jobs.liqo.io/v1alpha1", "kind": "JobTemplate",
        "metadata": {"name": "moto", "namespace": NAMESPACE}, "spec": worker});
    rome.apply(&template.to_string())?;
    work::apply(rome, "store-there", &json!({"templateName": "moto", "placement": "Remote"}))?;
    let (there, here) =
        (Work::new("store-there", ""), Work::new("store-here", RESULT).placed("Local").in_store("moto-shared"));
    here.submit(rome)?;
    there.phase(rome, "Running")?;
    lent(milan, &moto, "store-there")?;
    unfit(rome, &moto)?;
    refused(rome, &moto)?;

    let editor = Rest::of(rome, "editor")?;
    let listed = editor.get("/api/v1/stores?limit=1", &[])?.json()?;
    ensure!(listed["items"] == json!([{"name": "moto", "ready": true, "reason": "Reachable"}]), "{listed}");

    let job = there.ended(rome)?;
    let status = &job["status"];
    ensure!(status["phase"] == "Succeeded" && status["resultStore"] == "moto", "{status}");
    let uid = job["metadata"]["uid"].as_str().unwrap_or_default();
    let location = format!("{}/team/a/{uid}", moto.text("bucket"));
    ensure!(status["results"]["location"] == location.as_str() && moto.objects(uid)? == 1, "{status}");
    let path = "/api/v1/jobs/store-there/results/deep%20r";
    let (whole, part) = (editor.get(path, &[])?, editor.get(path, &["-r", "1-3"])?);
    ensure!(whole.code == 200 && whole.body == BYTES, "{whole:?}");
    ensure!(part.code == 206 && part.body == b"\r\n\xff", "{part:?}");
    rome.kubectl(&["delete", "-n", NAMESPACE, "ljob", "store-there"])?;
    ensure!(moto.objects(uid)? == 0, "a deleted job left results behind");

    wait_for("the job is gone with the time of its store", LONG, || {
        let jobs = rome.items(&["ljob", "-n", NAMESPACE])?;
        Ok((!jobs.iter().any(|job| job["metadata"]["name"] == "store-here")).then_some(()))
    })?;
    // Jobs wait until their store is there and fit.
    store(rome, "later", &moto.spec(), &json!({"secretName": "liqo-moto-later"}))?;
    early.reason(rome, "ResultStoreNotReady")?;
    early.cancel(rome)?;
    stands(rome, "unfit-keys", "True", "Reachable")?;
    rome.kubectl(&["delete", "lrs", "-n", SYSTEM, "--all"]).map(drop)
}
