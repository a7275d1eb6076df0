//! `liqo-mover fetch`: inputs, before the worker begins.
//!
//! Keeps true: the worker begins only when every input is there with the bytes that its list says.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
    time::Instant,
};

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::{PAUSES, write};
use crate::{
    BadLocation, Download, DownloadError, Location, Manifest, Store, StoreError,
    manifest::{BadManifest, LONGEST},
};

/// Flags of `liqo-mover fetch`.
#[derive(Clone, Debug, clap::Args)]
pub struct FetchArgs {
    /// Directory of the location where the inputs are. It is read again before each try.
    #[arg(long, value_name = "DIR")]
    pub location: PathBuf,
    /// List of the inputs, a manifest as JSON. Without it, the manifest at the location: the results of another job.
    #[arg(long, value_name = "FILE")]
    pub inputs: Option<PathBuf>,
    /// Directory for the inputs.
    #[arg(long, value_name = "DIR")]
    pub into: PathBuf,
    /// Most bytes of all inputs; with more, none is downloaded.
    #[arg(long, value_name = "BYTES")]
    pub max_size: Option<u64>,
    /// File for the summary.
    #[arg(long, default_value = "/dev/termination-log", value_name = "FILE")]
    pub termination_log: PathBuf,
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("no location: {0}")]
    Location(#[from] BadLocation),
    #[error("reading the list of inputs: {0}")]
    List(#[from] io::Error),
    #[error("the list of inputs: {0}")]
    Manifest(#[from] BadManifest),
    #[error("there is no manifest at the location")]
    NoManifest,
    #[error("the results that should be inputs are not complete: {0}")]
    Incomplete(String),
    #[error("the inputs have {0} bytes, more than allowed")]
    Large(u64),
    #[error("{}", .0.chain())]
    Store(#[from] StoreError),
    #[error("{}", .0.chain())]
    Download(#[from] DownloadError),
}

impl Failed {
    /// Whether another try may end otherwise: the store can come back, and credentials can be renewed.
    fn may_pass(&self) -> bool {
        use StoreError::{NotFound, Refused, Store as Broken};
        match self {
            Self::Location(_) | Self::NoManifest => true,
            Self::Store(error) | Self::Download(DownloadError::Store(_, error)) => {
                matches!(error, NotFound(_) | Refused(..) | Broken(_))
            }
            _ => false,
        }
    }
}

#[derive(Debug, Serialize)]
struct Summary {
    fetched: bool,
    files: usize,
    bytes: u64,
    seconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Downloads inputs until all are there.
///
/// # Errors
/// A text that says why they cannot be had, or that the pod ends.
pub(super) async fn run(args: FetchArgs) -> Result<(), String> {
    let mut term = signal(SignalKind::terminate()).map_err(|error| format!("waiting for SIGTERM: {error}"))?;
    tokio::select! {
        ended = until_there(&args) => ended,
        _ = term.recv() => Err("the pod ends".into()),
    }
}

async fn until_there(args: &FetchArgs) -> Result<(), String> {
    let (began, mut pause) = (Instant::now(), PAUSES.0);
    loop {
        let outcome = attempt(args).await;
        let seconds = began.elapsed().as_secs();
        match outcome {
            Ok(Manifest { files, total: bytes, .. }) => {
                tracing::info!(files = files.len(), bytes, "all inputs are there");
                let files = files.len();
                write(&args.termination_log, &Summary { fetched: true, files, bytes, seconds, reason: None });
                return Ok(());
            }
            Err(failed) => {
                let reason = Some(failed.to_string());
                write(&args.termination_log, &Summary { fetched: false, files: 0, bytes: 0, seconds, reason });
                if !failed.may_pass() {
                    return Err(failed.to_string());
                }
                tracing::warn!(error = %failed, seconds = pause.as_secs(), "inputs are not there yet, trying again");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

async fn attempt(args: &FetchArgs) -> Result<Manifest, Failed> {
    let store = Store::new(&Location::read(&args.location)?)?;
    let manifest = match &args.inputs {
        Some(list) => {
            let mut bytes = Vec::new();
            let limit = u64::try_from(LONGEST).unwrap_or(u64::MAX).saturating_add(1);
            File::open(list)?.take(limit).read_to_end(&mut bytes)?;
            Manifest::read(&bytes)?
        }
        None => store.manifest().await?.ok_or(Failed::NoManifest)?,
    };
    if let Some(reason) = manifest.reason {
        return Err(Failed::Incomplete(reason));
    }
    if args.max_size.is_some_and(|most| manifest.total > most) {
        return Err(Failed::Large(manifest.total));
    }
    Download::new(store, &args.into)?.files(&manifest.files).await?;
    Ok(manifest)
}
