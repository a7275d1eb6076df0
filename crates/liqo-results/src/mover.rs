//! Role `liqo-mover`: moves the data of a job between its volume and the store, beside the worker.
//!
//! `liqo-mover fetch` runs before the worker and downloads its inputs.
//!
//! `liqo-mover store` runs as a native side-car. Kubernetes ends side-cars when the worker has ended, and says so with SIGTERM:
//! that signal is the beginning of the work here, and no later signal ends it.
//!
//! Keeps true: the manifest is stored last, so a manifest means a complete set, and the process ends with success only when the
//! manifest is stored. What was sent once and is unchanged is not sent again, also after the process was killed. Memory holds
//! a few parts, whatever the size of the files.

mod fetch;
mod part;
mod progress;
mod record;
mod send;
mod tree;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

pub use self::fetch::FetchArgs;
use self::{
    progress::Progress,
    record::Record,
    send::Sender,
    tree::{Census, Left, Tree},
};
use crate::{BadLocation, Location, Manifest, Store, StoreError, log};

/// First and longest pause before another try.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How often progress is logged, and recorded in the store.
const PROGRESS: Duration = Duration::from_secs(10);
const RECORD: Duration = Duration::from_secs(2);
/// Longest reason in the termination message, which Kubernetes cuts after 4,096 bytes.
const LONGEST_REASON: usize = 1_000;

/// Flags of the mover.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "liqo-mover", version, about = "Moves the data of a job between its volume and an S3 store")]
pub struct MoverArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Verbosity of the log: 0 what changed, 1 to 3 also what was looked at, 4 and more everything.
    #[arg(long = "v", global = true, default_value_t = 0, value_name = "LEVEL")]
    pub verbosity: u8,
}

/// What a mover does.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Waits until the worker has ended (SIGTERM), then stores the results.
    Store(StoreArgs),
    /// Downloads inputs, then ends.
    Fetch(FetchArgs),
}

/// Flags of `liqo-mover store`.
#[derive(Clone, Debug, clap::Args)]
pub struct StoreArgs {
    /// Directory of the results.
    #[arg(long, value_name = "DIR")]
    pub results: PathBuf,
    /// Directory of the location, as a Secret is mounted. It is read again before each try: credentials may be renewed.
    #[arg(long, value_name = "DIR")]
    pub location: PathBuf,
    /// Identifier of the job, for the manifest.
    #[arg(long, value_name = "ID")]
    pub job: String,
    /// Most bytes of all results. Files over the limit are not stored, and named in the manifest.
    #[arg(long, value_name = "BYTES")]
    pub max_size: Option<u64>,
    /// Bytes of a part of an upload. Parts of very large files are larger, because an upload has at most 10,000 parts.
    #[arg(long, default_value_t = part::SMALLEST, value_parser = clap::value_parser!(u64).range(part::SMALLEST..=part::LARGEST), value_name = "BYTES")]
    pub part_size: u64,
    /// File for the summary, which Kubernetes shows as message of the container that ended.
    #[arg(long, default_value = "/dev/termination-log", value_name = "FILE")]
    pub termination_log: PathBuf,
    /// Begins at once, for jobs that have ended already.
    #[arg(long)]
    pub now: bool,
}

/// Why a try ended without a manifest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error("no location: {0}")]
    Location(#[from] BadLocation),
    #[error("reading the results: {0}")]
    Results(#[source] std::io::Error),
    #[error("{}", .0.chain())]
    Store(#[from] StoreError),
}

impl From<object_store::Error> for Failed {
    fn from(error: object_store::Error) -> Self {
        Self::Store(error.into())
    }
}

/// How it went, in the termination log.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    job: &'a str,
    /// Whether the manifest is stored.
    stored: bool,
    complete: bool,
    files: usize,
    bytes: u64,
    seconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// Runs the mover.
///
/// # Errors
/// A text that says why it cannot begin, or why inputs cannot be had. Results are not given up: Kubernetes ends the process
/// when the time of the pod is over.
pub async fn run(args: MoverArgs) -> Result<(), String> {
    log::start("liqo-mover", args.verbosity);
    match args.command {
        Command::Store(args) => store(args).await,
        Command::Fetch(args) => fetch::run(args).await,
    }
}

async fn store(args: StoreArgs) -> Result<(), String> {
    let mut term = signal(SignalKind::terminate()).map_err(|error| format!("waiting for SIGTERM: {error}"))?;
    if let Err(error) = Location::read(&args.location) {
        tracing::warn!(%error, "the location cannot be read yet");
    }
    if !args.now {
        tracing::info!(results = %args.results.display(), "waiting until the worker has ended");
        term.recv().await;
    }
    let began = Instant::now();
    tracing::info!("storing results");
    let (mut record, mut pause) = (Record::default(), PAUSES.0);
    // `term` lives on, so that a second SIGTERM changes nothing.
    loop {
        match attempt(&args, &mut record).await {
            Ok(manifest) => {
                tracing::info!(
                    files = manifest.files.len(),
                    bytes = manifest.total,
                    complete = manifest.complete,
                    "stored"
                );
                tell(&args, began, Ok(&manifest));
                return Ok(());
            }
            Err(failed) => {
                tracing::warn!(error = %failed, seconds = pause.as_secs(), "results are not stored yet, trying again");
                tell(&args, began, Err(&failed));
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Writes the termination log.
fn tell(args: &StoreArgs, began: Instant, outcome: Result<&Manifest, &Failed>) {
    let seconds = began.elapsed().as_secs();
    let text = |reason: String| reason.chars().take(LONGEST_REASON).collect::<String>();
    let reason = match outcome {
        Ok(manifest) => manifest.reason.clone().map(text),
        Err(failed) => Some(text(failed.to_string())),
    };
    let (job, reason) = (args.job.as_str(), reason.as_deref());
    let summary = match outcome {
        Ok(Manifest { complete, files, total, .. }) => {
            Summary { job, stored: true, complete: *complete, files: files.len(), bytes: *total, seconds, reason }
        }
        Err(_) => Summary { job, stored: false, complete: false, files: 0, bytes: 0, seconds, reason },
    };
    write(&args.termination_log, &summary);
}

fn write(file: &Path, summary: &impl Serialize) {
    let line = serde_json::to_string(summary).expect("a summary is JSON");
    if let Err(error) = fs::write(file, line) {
        tracing::warn!(%error, file = %file.display(), "the summary cannot be written");
    }
}

/// Stores everything that is not stored yet, then the manifest.
async fn attempt(args: &StoreArgs, record: &mut Record) -> Result<Manifest, Failed> {
    let store = Store::new(&Location::read(&args.location)?)?;
    let tree = Tree::open(&args.results).map_err(Failed::Results)?;
    let Census { files, mut left } = tree.census().map_err(Failed::Results)?;
    let files = fit(files, args.max_size, &mut left);
    record.recall(&store).await?;
    let progress = Progress::new(&files);
    tracing::info!(files = files.len(), bytes = progress.bytes(), skipped = left.named.len(), "looked at the results");
    // A manifest of an earlier try would promise what is about to change.
    store.remove_manifest().await?;
    let sender = Sender::new(&store, tree, args.part_size, &files);
    let stored = sender.send(files, record, &progress, &mut left).await?;
    let mut manifest = Manifest::new(&args.job, stored, reason(&left));
    (manifest.skipped, manifest.more_skipped) = (left.named, left.more);
    store.put_manifest(&manifest, args.part_size.try_into().unwrap_or(usize::MAX)).await?;
    if let Err(error) = record.forget(&store).await {
        tracing::warn!(error = %error.chain(), "the record of the upload stays in the store");
    }
    Ok(manifest)
}

/// The files that fit below the limit, in order; the others are lost.
fn fit(files: Vec<tree::Found>, max_size: Option<u64>, left: &mut Left) -> Vec<tree::Found> {
    let Some(max_size) = max_size else { return files };
    let mut total = 0_u64;
    let fits = |found: &tree::Found| match total.checked_add(found.size).filter(|sum| *sum <= max_size) {
        Some(sum) => {
            total = sum;
            true
        }
        None => {
            left.lost(found.path.to_string(), &format!("the results are larger than {max_size} bytes"));
            false
        }
    };
    let mut files = files;
    files.retain(fits);
    files
}

/// Why the set is not complete.
fn reason(left: &Left) -> Option<String> {
    let why = left.why.as_deref()?;
    Some(match left.lost {
        1 => format!("1 result is not stored: {why}"),
        lost => format!("{lost} results are not stored, the first because: {why}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, size: u64) -> tree::Found {
        tree::Found { path: path.into(), size }
    }

    #[test]
    fn the_limit_reports_and_does_not_cut() {
        let files = vec![found("a", 4), found("b", 7), found("c", 6), found("d", 0)];
        let kept = |max| {
            let mut left = Left::default();
            let kept = fit(files.clone(), max, &mut left);
            (kept.iter().map(|found| found.path.to_string()).collect::<String>(), reason(&left))
        };
        assert_eq!(kept(None), ("abcd".into(), None));
        assert_eq!(kept(Some(17)), ("abcd".into(), None));
        let one = "1 result is not stored: the results are larger than 10 bytes";
        assert_eq!(kept(Some(10)), ("acd".into(), Some(one.into())));
        let most = "3 results are not stored, the first because: the results are larger than 0 bytes";
        assert_eq!(kept(Some(0)), ("d".into(), Some(most.into())));
    }

    #[test]
    fn flags_are_those_of_the_side_car() {
        use clap::Parser;
        let parse = |more: &[&str]| {
            let all = ["liqo-mover", "store", "--results", "/r", "--location", "/l", "--job", "j"];
            MoverArgs::try_parse_from(all.iter().chain(more))
        };
        let Command::Store(args) = parse(&[]).unwrap().command else { panic!("another command") };
        assert_eq!(
            (args.part_size, args.termination_log.as_path()),
            (part::SMALLEST, Path::new("/dev/termination-log"))
        );
        assert!(parse(&["--part-size", "1024"]).is_err() && parse(&["--max-size", "1"]).is_ok());
    }
}
