//! `liqoctl job results`: lists and downloads what the store has, through a port of this machine that leads to the store.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{Api, ResourceExt};
use liqo_kube::Cluster;
use liqo_results::{Location, Store};
use ring::digest;
use serde::Serialize;
use tokio::{io::copy_bidirectional, net::TcpListener};

use super::Jobs;
use crate::out::{Format, Out};

/// Pods and port of the embedded store.
const STORE: &str = "app.kubernetes.io/name=store,app.kubernetes.io/part-of=liqo";
const PORT: u16 = 9000;
/// Bytes of a file that are read at a time.
const PIECE: usize = 64 * 1024;

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
    let ResultsArgs { name, paths, output_dir, output } = args;
    let out = Out::new(output.is_some());
    let status = jobs.get(&name).await?.status.unwrap_or_default();
    if status.results.is_none() {
        bail!("job {name} has no complete results: it is {:?}", status.phase);
    }
    let (store, _forward) = open(jobs, &name).await?;
    let manifest = store.manifest().await.context("reading the manifest")?.context("the store has no manifest")?;
    let all: Vec<_> = manifest
        .files
        .iter()
        .map(|file| ResultView { path: file.path.to_string(), size: file.size, sha256: file.sha256.to_string() })
        .collect();
    if let Some(unknown) = paths.iter().find(|path| all.iter().all(|one| one.path != **path)) {
        bail!("job {name} has no result {unknown:?}; `liqoctl job results {name}` lists them");
    }
    let chosen: Vec<_> = all.into_iter().filter(|one| paths.is_empty() || paths.contains(&one.path)).collect();
    match (output_dir, output) {
        (Some(directory), _) => download(&store, &chosen, &directory, out).await,
        (None, Some(format)) => out.value(&chosen, format),
        (None, None) => {
            let lines = chosen.iter().map(|one| format!("{}  {:>12}  {}", one.sha256, one.size, one.path));
            out.data(&lines.collect::<Vec<_>>().join("\n"))
        }
    }
}

async fn download(store: &Store, files: &[ResultView], directory: &Path, out: Out) -> anyhow::Result<()> {
    for file in files {
        let step = out.step(format!("{}: 0 of {} bytes", file.path, file.size));
        let path = directory.join(&file.path);
        fetch(store, file, &path, |done| step.say(format!("{}: {done} of {} bytes", file.path, file.size)))
            .await
            .with_context(|| format!("downloading {}", file.path))?;
        step.done(format!("{} ({} bytes, digest compared)", path.display(), file.size));
    }
    Ok(())
}

/// Downloads a file into `<path>.part`, from where an earlier download ended, compares the digest and gives the file its name.
async fn fetch(store: &Store, file: &ResultView, path: &Path, told: impl Fn(u64)) -> anyhow::Result<()> {
    let part = PathBuf::from(format!("{}.part", path.display()));
    fs::create_dir_all(path.parent().context("a path in a directory")?)?;
    let mut local = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&part)?;
    let (mut context, mut done) = (digest::Context::new(&digest::SHA256), 0);
    if local.metadata()?.len() <= file.size {
        done = read_again(&mut local, &mut context)?;
    } else {
        local.set_len(0)?;
    }
    if done < file.size {
        let mut opened = store.open(&file.path, Some(done..file.size)).await?;
        while let Some(piece) = opened.bytes.try_next().await? {
            context.update(&piece);
            local.write_all(&piece)?;
            done += piece.len() as u64;
            told(done);
        }
    }
    let hex: String = context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    if hex != file.sha256 || done != file.size {
        fs::remove_file(&part)?;
        bail!("the digest of what came is {hex}, that of the result {}; run the command again", file.sha256);
    }
    local.sync_all()?;
    fs::rename(&part, path).with_context(|| format!("cannot rename {}", part.display()))
}

/// Adds what a file has to a digest; the file is at its end then. Gives its bytes.
fn read_again(file: &mut File, context: &mut digest::Context) -> anyhow::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    let (mut piece, mut all) = (vec![0; PIECE], 0);
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok(all);
        }
        context.update(piece.get(..read).unwrap_or_default());
        all += read as u64;
    }
}

/// Ends the forwarding when dropped.
struct Forward(tokio::task::JoinHandle<()>);

impl Drop for Forward {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The store with the key in the Secret of the job: who may read the Secret may read the results.
async fn open(jobs: &Jobs, job: &str) -> anyhow::Result<(Store, Forward)> {
    let secret = format!("{job}-results");
    let found: Option<Secret> = jobs.cluster.get(&jobs.namespace, &secret).await.context("reading the key of the results")?;
    let data = found.with_context(|| format!("there is no Secret {secret}"))?.data.unwrap_or_default();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).context("the Secret has something else than text");
    let mut files = BTreeMap::new();
    for (name, value) in data {
        files.insert(name, text(value.0)?);
    }
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("opening a port of this machine")?;
    files.insert("endpoint".to_owned(), format!("http://{}", listener.local_addr()?));
    let store = Store::new(&Location::from_files(&files)?)?;
    let forward = Forward(tokio::spawn(forward(listener, jobs.cluster.clone(), pod(jobs).await?)));
    Ok((store, forward))
}

/// Namespace and name of a pod of the store.
async fn pod(jobs: &Jobs) -> anyhow::Result<(String, String)> {
    let pods = jobs.cluster.list::<Pod>(&jobs.namespace, STORE).await.context("looking for the store")?;
    let running = pods.iter().find(|pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running"));
    let pod = running.context("no pod of the store is running")?;
    ensure!(pod.metadata.deletion_timestamp.is_none(), "the store is being restarted; run the command again");
    Ok((jobs.namespace.clone(), pod.name_any()))
}

async fn forward(listener: TcpListener, cluster: Cluster, (namespace, pod): (String, String)) {
    let pods: Api<Pod> = Api::namespaced(cluster.client().clone(), &namespace);
    while let Ok((mut here, _)) = listener.accept().await {
        let (pods, pod) = (pods.clone(), pod.clone());
        // What fails here closes the connection; whoever asked says what was asked.
        tokio::spawn(async move {
            if let Ok(mut forwarder) = pods.portforward(&pod, &[PORT]).await
                && let Some(mut there) = forwarder.take_stream(PORT)
            {
                let _ = copy_bidirectional(&mut here, &mut there).await;
            }
        });
    }
}
