//! `liqoctl job results`: lists and downloads what the store has, through a port of this machine that leads to the store.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use liqo_api::jobs::{MASTER_KEY, STORE_KEY_SECRET, SYSTEM_NAMESPACE};
use liqo_kube::{Cluster, now};
use liqo_results::{
    Download, File, Location, Store,
    keys::{self, Access, Scope},
};
use serde::Serialize;
use tokio::{io::copy_bidirectional, net::TcpListener};

use super::Jobs;
use crate::{
    completion,
    out::{Format, Out},
};

/// Pods and port of the embedded store.
const STORE: &str = "app.kubernetes.io/name=store,app.kubernetes.io/part-of=liqo";
const PORT: u16 = 9000;
/// Region of the embedded store.
const REGION: &str = "us-east-1";
/// Seconds that a download may take.
const KEY_LIFE: u64 = 24 * 3600;
/// Said to users who may read no Secret there.
const NO_KEY: &str = "reading the master key of the store; who may not read it gets results from the API of jobs (Service liqo-jobs-api)";
/// How often progress is shown.
const TICK: Duration = Duration::from_millis(200);

/// Arguments of `job results`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ResultsArgs {
    /// Name of the job
    #[arg(value_name = "JOB")]
    name: String,
    /// Only results whose path is one of these
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// Download the results into this directory
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Namespace of the store (jobs.systemNamespace)
    #[arg(long, default_value = SYSTEM_NAMESPACE, value_name = "NAME", add = clap_complete::ArgValueCompleter::new(completion::namespaces))]
    store_namespace: String,
    /// Print for programs
    #[arg(short, long, value_enum, value_name = "FORMAT", conflicts_with = "output_dir")]
    output: Option<Format>,
}

/// One result.
#[derive(Clone, Debug, Serialize)]
struct ResultView {
    path: String,
    size: u64,
    sha256: String,
}

/// `liqoctl job results`
pub(super) async fn run(jobs: &Jobs, args: ResultsArgs) -> anyhow::Result<()> {
    let ResultsArgs { name, paths, output_dir, store_namespace, output } = args;
    let out = Out::new(output.is_some());
    let status = jobs.get(&name).await?.status.unwrap_or_default();
    if let Some(store) = status.result_store {
        bail!(
            "the results of job {name} are in ResultStore {store}, whose keys liqoctl does not have: get the results from the API of jobs (Service liqo-jobs-api, GET /api/v1/jobs/NAME/results) (Service \
             liqo-jobs-api, GET /api/v1/jobs/{name}/results)"
        );
    }
    let Some(results) = status.results else {
        bail!("job {name} has no complete results: it is {:?}", status.phase);
    };
    let (store, _forward) = open(jobs, &store_namespace, &results.location).await?;
    let manifest = store.manifest().await.context("reading the manifest")?.context("the store has no manifest")?;
    if let Some(unknown) = paths.iter().find(|path| manifest.files.iter().all(|file| *file.path != ***path)) {
        bail!("job {name} has no result {unknown:?}; `liqoctl job results {name}` lists them");
    }
    let is_chosen = |file: &File| paths.is_empty() || paths.iter().any(|path| *path == *file.path);
    let chosen: Vec<_> = manifest.files.into_iter().filter(is_chosen).collect();
    let view =
        |file: &File| ResultView { path: file.path.to_string(), size: file.size, sha256: file.sha256.to_string() };
    match (output_dir, output) {
        (Some(directory), _) => download(store, &chosen, &directory, out).await,
        (None, Some(format)) => out.value(&chosen.iter().map(view).collect::<Vec<_>>(), format),
        (None, None) => {
            let lines = chosen.iter().map(|file| format!("{}  {:>12}  {}", file.sha256, file.size, file.path));
            out.data(&lines.collect::<Vec<_>>().join("\n"))
        }
    }
}

async fn download(store: Store, files: &[File], directory: &Path, out: Out) -> anyhow::Result<()> {
    let all: u64 = files.iter().map(|file| file.size).sum();
    let step = out.step(format!("Downloading {} files", files.len()));
    let download = Download::new(store, directory)?;
    let told = async {
        loop {
            step.say(format!("Downloading {} files: {} of {all} bytes", files.len(), download.bytes()));
            tokio::time::sleep(TICK).await;
        }
    };
    tokio::select! {
        outcome = download.files(files) => outcome.context("what has arrived stays, run the command again")?,
        () = told => {}
    }
    step.done(format!(
        "{} files, {all} bytes in {}; their digests are those of the manifest",
        files.len(),
        directory.display()
    ));
    Ok(())
}

/// Ends the forwarding when dropped.
struct Forward(tokio::task::JoinHandle<()>);

impl Drop for Forward {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The store, with a key that reads the results of one job and is made from the master key: who may read the Secret of the master key
/// may read all results.
async fn open(jobs: &Jobs, namespace: &str, location: &str) -> anyhow::Result<(Store, Forward)> {
    let (bucket, prefix) =
        location.split_once('/').context("the status of the job does not say where the results are")?;
    let found: Option<Secret> = jobs.cluster.get(namespace, STORE_KEY_SECRET).await.context(NO_KEY)?;
    let data = found
        .with_context(|| format!("there is no Secret {STORE_KEY_SECRET} in namespace {namespace}"))?
        .data
        .unwrap_or_default();
    let master = data.get(MASTER_KEY).with_context(|| format!("Secret {STORE_KEY_SECRET} has no {MASTER_KEY}"))?;
    let expires = u64::try_from(now().0.as_second())?.saturating_add(KEY_LIFE);
    let scope = Scope { prefix: prefix.to_owned(), access: Access::ReadOnly, expires };
    let key = keys::issue(&master.0, &scope).context("making a key of the store")?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("opening a port of this machine")?;
    let location = Location {
        endpoint: format!("http://{}", listener.local_addr()?),
        virtual_host: false,
        region: REGION.to_owned(),
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        access_key_id: key.id,
        secret_access_key: key.secret,
        session_token: None,
        ca: None,
    };
    liqo_kube::certs::install_crypto();
    let store = Store::new(&location)?;
    let forward = Forward(tokio::spawn(forward(listener, jobs.cluster.clone(), pod(jobs, namespace).await?)));
    Ok((store, forward))
}

/// Namespace and name of a pod of the store.
async fn pod(jobs: &Jobs, namespace: &str) -> anyhow::Result<(String, String)> {
    let pods = jobs.cluster.list::<Pod>(namespace, STORE).await.context("looking for the store")?;
    let running =
        pods.iter().find(|pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running"));
    let pod = running.context("no pod of the store is running")?;
    ensure!(pod.metadata.deletion_timestamp.is_none(), "the store is being restarted; run the command again");
    Ok((namespace.to_owned(), pod.name_any()))
}

async fn forward(listener: TcpListener, cluster: Cluster, (namespace, pod): (String, String)) {
    while let Ok((mut here, _)) = listener.accept().await {
        let (cluster, namespace, pod) = (cluster.clone(), namespace.clone(), pod.clone());
        // What fails here closes the connection, and the request over it says what was asked.
        tokio::spawn(async move {
            if let Ok(mut there) = cluster.forward((&namespace, &pod), PORT).await {
                let _ = copy_bidirectional(&mut here, &mut there.stream).await;
            }
        });
    }
}
