//! The store of results, as the controller sees it: it gives every job a key of its own, reads manifests, removes results.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Time};
use kube::{ResourceExt, core::ObjectMeta};
use liqo_api::jobs::{Job, JobTemplateSpec, ResultsSummary};
use liqo_kube::{Cluster, now};
use liqo_results::{
    Location, Manifest,
    keys::{self, Access, Scope},
};
use ring::rand::{SecureRandom, SystemRandom};

use crate::state::Stored;

/// Seconds for which the key of a job is good beyond the longest time its workers may take, or at all where they may take for
/// ever.
const KEY_AFTER: u64 = 7 * 24 * 3600;
/// Key of the master key in its Secret.
const MASTER_KEY: &str = "master-key";
/// How long to wait before the master key is looked for again.
const PAUSE: Duration = Duration::from_secs(1);
/// Seconds for which a key that the controller makes for itself is good.
const OWN_KEY: u64 = 300;

/// Where results are kept.
#[derive(Clone, Debug, clap::Args)]
pub struct StoreArgs {
    /// URL of the store, as workers and this controller reach it.
    #[arg(long, default_value = "http://liqo-store:9000", value_name = "URL")]
    pub store_endpoint: String,
    /// Region of the store.
    #[arg(long, default_value = "us-east-1")]
    pub store_region: String,
    /// Bucket of all results.
    #[arg(long, default_value = "liqo-jobs")]
    pub store_bucket: String,
    /// Secret with the master key of the embedded store (role liqo-store), from which the keys of jobs are made; made if there
    /// is none.
    #[arg(long, default_value = "liqo-store-key", value_name = "NAME")]
    pub store_key_secret: String,
}

/// The store.
pub struct JobStore {
    args: StoreArgs,
    master: Vec<u8>,
}

impl JobStore {
    /// Reads the master key, or makes it.
    pub(crate) async fn open(cluster: &Cluster, namespace: &str, args: StoreArgs) -> Result<Self, StoreError> {
        let master = master_key(cluster, namespace, &args.store_key_secret).await?;
        Ok(Self { args, master })
    }

    /// The place of a job's results with a key for its mover: what goes into the job's Secret.
    pub(crate) fn files(
        &self,
        job: &Job,
        worker: &JobTemplateSpec,
        now: u64,
    ) -> Result<BTreeMap<String, String>, StoreError> {
        let attempts = u64::try_from(worker.retries).unwrap_or_default().saturating_add(1);
        let longest = u64::try_from(worker.timeout_seconds).unwrap_or_default().saturating_mul(attempts);
        let expires = now.saturating_add(longest).saturating_add(KEY_AFTER);
        Ok(self.location(job, Access::ReadWrite, expires)?.files())
    }

    fn location(&self, job: &Job, access: Access, expires: u64) -> Result<Location, StoreError> {
        let prefix = job.uid().unwrap_or_default();
        let scope = Scope { prefix: prefix.clone(), access, expires };
        let key =
            keys::issue(&self.master, &scope).map_err(|error| StoreError::of("making a key of the store", &error))?;
        Ok(Location {
            endpoint: self.args.store_endpoint.clone(),
            region: self.args.store_region.clone(),
            bucket: self.args.store_bucket.clone(),
            prefix,
            access_key_id: key.id,
            secret_access_key: key.secret,
            session_token: None,
            ca: None,
        })
    }

    /// The store with a key that reads the results of one job, and ends soon.
    ///
    /// # Errors
    /// When the flags of the store make no sense.
    pub fn reading(&self, job: &Job) -> Result<liqo_results::Store, StoreError> {
        self.open_for(job, Access::ReadOnly)
    }

    /// The store, once the controller of jobs has made its master key.
    pub async fn wait(cluster: &Cluster, namespace: &str, args: StoreArgs) -> Self {
        let mut told = String::new();
        loop {
            match read_key(cluster, namespace, &args.store_key_secret).await {
                Ok(Some(master)) => return Self { args, master },
                outcome => {
                    let why = outcome
                        .err()
                        .map_or_else(|| "there is no master key yet".to_owned(), |error| error.to_string());
                    if why != told {
                        tracing::info!(
                            secret = args.store_key_secret,
                            reason = why,
                            "waiting for the master key of the store"
                        );
                        told = why;
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn open_for(&self, job: &Job, access: Access) -> Result<liqo_results::Store, StoreError> {
        let location = self.location(job, access, seconds(&now()).saturating_add(OWN_KEY))?;
        liqo_results::Store::new(&location).map_err(|error| StoreError::of("opening the store", &error))
    }

    /// What the store has of a job's results.
    pub(crate) async fn stored(&self, job: &Job) -> Result<Stored, StoreError> {
        let found = self.open_for(job, Access::ReadOnly)?.manifest().await;
        let found = found.map_err(|error| StoreError::of("reading the manifest of the results", &error))?;
        let location = format!("{}/{}", self.args.store_bucket, job.uid().unwrap_or_default());
        Ok(found.map_or(Stored::Nothing, |manifest| Stored::Complete(summary(&manifest, location))))
    }

    /// Removes all results of a job.
    pub(crate) async fn remove(&self, job: &Job) -> Result<(), StoreError> {
        let removed = self.open_for(job, Access::ReadWrite)?.delete_all().await;
        removed.map(drop).map_err(|error| StoreError::of("removing the results of a job", &error))
    }
}

/// Seconds since 1970.
pub(crate) fn seconds(time: &Time) -> u64 {
    u64::try_from(time.0.as_second()).unwrap_or_default()
}

fn summary(manifest: &Manifest, location: String) -> ResultsSummary {
    let skipped = || manifest.skipped.first().map(|one| format!("{} was left out: {}", one.path, one.reason));
    ResultsSummary {
        files: i64::try_from(manifest.files.len()).unwrap_or(i64::MAX),
        bytes: i64::try_from(manifest.total).unwrap_or(i64::MAX),
        location,
        incomplete: (!manifest.complete).then(|| manifest.reason.clone().or_else(skipped).unwrap_or_default()),
    }
}

/// The master key; whoever comes first makes it, and it is never changed afterwards.
async fn master_key(cluster: &Cluster, namespace: &str, name: &str) -> Result<Vec<u8>, StoreError> {
    loop {
        if let Some(key) = read_key(cluster, namespace, name).await? {
            return Ok(key);
        }
        let mut key = vec![0; keys::MASTER_BYTES];
        let random = SystemRandom::new().fill(&mut key);
        random.map_err(|error| StoreError::of("making the master key of the store", &error))?;
        let metadata =
            ObjectMeta { name: Some(name.to_owned()), namespace: Some(namespace.to_owned()), ..ObjectMeta::default() };
        let data = BTreeMap::from([(MASTER_KEY.to_owned(), ByteString(key))]);
        let secret = Secret { metadata, data: Some(data), immutable: Some(true), ..Secret::default() };
        match cluster.create(&secret).await {
            Err(error) if !error.is_conflict() => {
                return Err(StoreError::of("making the master key of the store", &error));
            }
            // Read again, also after our own write: what is stored counts.
            _ => {}
        }
    }
}

async fn read_key(cluster: &Cluster, namespace: &str, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    const DOING: &str = "reading the master key of the store";
    let found = cluster.get::<Secret>(namespace, name).await.map_err(|error| StoreError::of(DOING, &error))?;
    let Some(secret) = found else { return Ok(None) };
    let key = secret.data.unwrap_or_default().remove(MASTER_KEY).map(|key| key.0).unwrap_or_default();
    let why = || format!("Secret {name} has no key {MASTER_KEY:?} of {} bytes", keys::MASTER_BYTES);
    if key.len() < keys::MASTER_BYTES { Err(StoreError { doing: DOING, why: why() }) } else { Ok(Some(key)) }
}

/// What was being done when the store said no, or nothing.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {why}")]
pub struct StoreError {
    doing: &'static str,
    why: String,
}

impl StoreError {
    fn of(doing: &'static str, error: &dyn std::error::Error) -> Self {
        let causes = std::iter::successors(Some(error), |error| error.source());
        Self { doing, why: causes.map(ToString::to_string).collect::<Vec<_>>().join(": ") }
    }
}
