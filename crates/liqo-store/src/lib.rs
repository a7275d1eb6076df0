//! Role `liqo-store`: an S3 server on a directory, for clusters where no other store is configured.
//!
//! Keeps true: nothing is read of a request without a signature ([`guard`]); a key opens its prefix of one bucket and nothing else
//! ([`auth`]); an object is visible whole or not at all, and
//! what was acknowledged is on the disk ([`disk`]); what a client sends is bounded in size and time ([`serve`]). The store knows
//! no Kubernetes and keeps nothing besides objects, unfinished uploads and the names
//! of closed prefixes.

mod auth;
mod body;
mod chunked;
mod disk;
mod guard;
mod s3;
mod serve;

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use liqo_results::{keys::MASTER_BYTES, log};
use s3s::{
    config::{S3Config, StaticConfigProvider},
    service::{S3Service, S3ServiceBuilder},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use self::{auth::Keys, disk::Disk, guard::Guarded, s3::Objects, serve::Server};

/// How long new connections are accepted after SIGTERM: clients learn late that an endpoint is gone.
const ACCEPT: Duration = Duration::from_secs(3);
/// How long requests may take to end afterwards.
const FINISH: Duration = Duration::from_secs(20);
/// Longest document that a request carries, in bytes: the parts of an upload, or 1,000 keys to remove.
const LONGEST_DOCUMENT: usize = 4 * 1024 * 1024;
/// How often uploads that nobody ends are looked for.
const SWEEP: Duration = Duration::from_secs(3600);

/// Flags of the store.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "liqo-store", version, about = "Stores results of jobs: an S3 server on a directory")]
pub struct StoreArgs {
    /// Directory of the objects.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// File with the key that the keys of clients are made from, of 32 bytes or more.
    #[arg(long, value_name = "FILE")]
    pub master_key_file: PathBuf,
    /// Address of the S3 server.
    #[arg(long, default_value = "[::]:9000", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// Name of the one bucket.
    #[arg(long, default_value = "liqo-jobs", value_name = "NAME")]
    pub bucket: String,
    /// Address of `/healthz` and `/readyz`.
    #[arg(long, default_value = "[::]:8081", value_name = "ADDRESS:PORT")]
    pub health_probe_address: SocketAddr,
    /// Verbosity of the log: 0 what changed, 1 to 3 also what was looked at, 4 and more everything.
    #[arg(long = "v", default_value_t = 0, value_name = "LEVEL")]
    pub verbosity: u8,
}

/// Runs the store until SIGTERM.
///
/// # Errors
/// A text that says why it cannot start.
pub async fn run(args: StoreArgs) -> Result<(), String> {
    log::start("liqo-store", args.verbosity);
    let master = fs::read(&args.master_key_file);
    let master = master.map_err(|error| format!("reading {}: {error}", args.master_key_file.display()))?;
    let mut term = signal(SignalKind::terminate()).map_err(|error| format!("waiting for SIGTERM: {error}"))?;
    let (s3, health) = (serve::bind(args.listen).await?, serve::bind(args.health_probe_address).await?);
    let store = Store::open(args.data, &args.bucket, master)?;
    let server = Server::default();
    tracing::info!(listen = %args.listen, bucket = args.bucket, "serving");
    // Not tasks of their own: a panic here ends the process, a panic in a connection ends the connection.
    tokio::select! {
        () = server.clone().serve(s3, Guarded(store.service.clone())) => {}
        () = server.clone().health(health, Arc::clone(&store.disk)) => {}
        () = store.sweep() => {}
        () = async {
            term.recv().await;
            tracing::info!("stopping");
            server.end(ACCEPT, FINISH).await;
        } => {}
    }
    Ok(())
}

/// The store of one directory, without its sockets.
#[derive(Clone)]
pub struct Store {
    disk: Arc<Disk>,
    service: S3Service,
}

impl Store {
    /// Opens a directory; the bucket is made if it is not there.
    ///
    /// # Errors
    /// When the directory cannot be used, the bucket cannot have this name, or the master key is too short.
    pub fn open(data: PathBuf, bucket: &str, master: Vec<u8>) -> Result<Self, String> {
        if master.len() < MASTER_BYTES {
            return Err(format!("the master key has fewer than {MASTER_BYTES} bytes"));
        }
        if !s3s::path::check_bucket_name(bucket) {
            return Err(format!("{bucket:?} is no name of a bucket"));
        }
        let disk = Disk::open(&data, bucket).map_err(|error| format!("using {}: {error}", data.display()))?;
        let disk = Arc::new(disk);
        let keys = Arc::new(Keys::new(master, bucket));
        let mut config = S3Config::default();
        (config.xml_max_body_size, config.form_max_fields_size) = (LONGEST_DOCUMENT, 64 * 1024);
        // There are no forms, see `guard`.
        config.post_object_max_file_size = 1;
        let mut builder = S3ServiceBuilder::new(Objects::new(Arc::clone(&disk)));
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
        builder.set_auth(auth::Authentication(Arc::clone(&keys)));
        builder.set_access(auth::Access(keys, Arc::clone(&disk)));
        Ok(Self { disk, service: builder.build() })
    }

    /// Serves one socket, for as long as the future lives.
    pub async fn serve(self, listener: TcpListener) {
        Server::default().serve(listener, Guarded(self.service)).await;
    }

    /// Removes uploads that nobody ends, again and again.
    async fn sweep(&self) {
        let mut tick = tokio::time::interval(SWEEP);
        loop {
            tick.tick().await;
            let disk = Arc::clone(&self.disk);
            match tokio::task::spawn_blocking(move || disk.sweep()).await {
                Ok(Ok(0)) => {}
                Ok(Ok(uploads)) => tracing::info!(uploads, "removed uploads that nobody ended"),
                Ok(Err(error)) => tracing::warn!(%error, "uploads that nobody ended cannot be removed"),
                Err(error) => tracing::error!(%error, "uploads that nobody ended cannot be removed"),
            }
        }
    }
}
