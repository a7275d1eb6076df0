//! The stores of results, as the controller sees them: each job has a key of its own, manifests are read, results are removed.
//!
//! Keeps true: the results of a job are where its status says, from its turn until it is gone; no other place is looked at.

mod other;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Time};
use kube::{ResourceExt, core::ObjectMeta};
use liqo_api::{
    jobs::{Job, MASTER_KEY, ResultStore, ResultsSummary, STORE_KEY_SECRET, SYSTEM_NAMESPACE},
    meta::annotation,
};
use liqo_kube::{Cluster, Store, now, told::Told};
use liqo_results::{
    Head, Location,
    keys::{self, Access, Scope},
};
use ring::rand::{SecureRandom, SystemRandom};

pub(crate) use self::other::check;
use crate::state::{Stored, short};

/// Seconds after which the key of an active job is replaced by another one; a key is good for one to two such periods. Periods begin
/// at the same time for all jobs, so that the key of a period is the same whoever makes it.
pub(crate) const PERIOD: u64 = keys::LIFE / 2;
/// How long to wait before the master key is looked for again.
const PAUSE: Duration = Duration::from_secs(1);
/// Seconds for which a key that the controller makes for itself is good.
const OWN_KEY: u64 = 300;

/// Where results are kept.
#[derive(Clone, Debug, clap::Args)]
pub struct StoreArgs {
    /// URL of the store, as this process reaches it.
    #[arg(long, default_value = "http://liqo-store:9000", value_name = "URL")]
    pub store_endpoint: String,
    /// URL of the store, as workers reach it from the namespace of the jobs.
    #[arg(long, default_value = "http://liqo-results:9000", value_name = "URL")]
    pub worker_store_endpoint: String,
    /// Region of the store.
    #[arg(long, default_value = "us-east-1")]
    pub store_region: String,
    /// Bucket of all results.
    #[arg(long, default_value = "liqo-jobs")]
    pub store_bucket: String,
    /// Secret with the master key of the embedded store (role liqo-store), from which the keys of jobs are made; made if there
    /// is none.
    #[arg(long, default_value = STORE_KEY_SECRET, value_name = "NAME")]
    pub store_key_secret: String,
    /// Namespace of this process and of the store, with the Secret of the master key.
    #[arg(long, env = "POD_NAMESPACE", default_value = SYSTEM_NAMESPACE, value_name = "NAME")]
    pub own_namespace: String,
}

/// The embedded store, and those that the operator names.
pub struct JobStore {
    cluster: Cluster,
    args: StoreArgs,
    master: Vec<u8>,
    others: Store<ResultStore>,
}

/// Where the results of one job are.
enum Place {
    /// In the embedded store.
    Embedded,
    /// In a store that the operator names.
    Other(Arc<ResultStore>),
    /// In a store of this name, which is not there any more.
    Gone(String),
}

impl JobStore {
    /// Reads the master key, or makes it. A master key in the namespace of the jobs, from before this one had a namespace of its own, is
    /// removed: whoever could read that Secret had the keys of all jobs. The keys of active jobs are replaced next. `seen` is told the
    /// name of each `ResultStore` that changes.
    pub(crate) async fn open(
        cluster: &Cluster,
        jobs: &str,
        args: StoreArgs,
        seen: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let master = master_key(cluster, &args.own_namespace, &args.store_key_secret).await?;
        if jobs != args.own_namespace {
            let removing = |error| StoreError::of("removing the master key from the namespace of the jobs", &error);
            if let Some(old) = cluster.get::<Secret>(jobs, &args.store_key_secret).await.map_err(removing)? {
                cluster.remove(&old).await.map_err(removing)?;
                tracing::info!(namespace = jobs, secret = args.store_key_secret, "removed the old master key");
            }
        }
        Ok(Self::with(cluster, args, master, seen))
    }

    fn with(
        cluster: &Cluster,
        args: StoreArgs,
        master: Vec<u8>,
        seen: impl Fn(String) + Send + Sync + 'static,
    ) -> Self {
        let watch = cluster.watch::<ResultStore>(&args.own_namespace).trim(liqo_kube::strip);
        let others = watch.start(move |store| seen(store.name_any()));
        Self { cluster: cluster.clone(), args, master, others }
    }

    /// Waits until the stores that the operator names are known.
    pub async fn ready(&self) {
        self.others.ready().await;
    }

    /// A store that the operator names.
    pub(crate) fn other(&self, name: &str) -> Option<Arc<ResultStore>> {
        self.others.get(&self.args.own_namespace, name)
    }

    /// All stores that the operator names, by name.
    pub fn others(&self) -> Vec<Arc<ResultStore>> {
        let mut all = self.others.all();
        all.sort_by_key(|store| store.name_any());
        all
    }

    fn place(&self, job: &Job) -> Place {
        let Some(name) = job.status.as_ref().and_then(|status| status.result_store.clone()) else {
            return Place::Embedded;
        };
        self.other(&name).map_or(Place::Gone(name), Place::Other)
    }

    /// Seconds after which the key of an active job is replaced by another one.
    pub(crate) fn period_of(&self, job: &Job) -> u64 {
        let Place::Other(store) = self.place(job) else { return PERIOD };
        store.spec.assume_role.as_ref().map_or(PERIOD, |role| u64::from(role.session_seconds / 2).max(1))
    }

    /// Seconds after its end at which a job goes with its results, where the job does not say.
    pub(crate) fn retention_of(&self, job: &Job) -> Option<i64> {
        let Place::Other(store) = self.place(job) else { return None };
        store.spec.retention_seconds
    }

    /// The place of a job's results with the key of this period for its mover: what goes into the job's Secret.
    pub(crate) async fn files(&self, job: &Job, period: u64) -> Result<BTreeMap<String, String>, StoreError> {
        match self.place(job) {
            Place::Embedded => embedded_files(&self.args, &self.master, job, period),
            Place::Other(store) => {
                self.answers(job)?;
                Ok(self.lent(&store, job).await?.files())
            }
            Place::Gone(name) => Err(gone(&name)),
        }
    }

    /// The place of the results of a job, with keys of this process.
    async fn location(&self, job: &Job, access: Access) -> Result<Location, StoreError> {
        match self.place(job) {
            Place::Embedded => embedded(&self.args, &self.master, job, access, seconds(&now()).saturating_add(OWN_KEY)),
            Place::Other(store) => self.own(&store, &job.uid().unwrap_or_default()).await,
            Place::Gone(name) => Err(gone(&name)),
        }
    }

    /// The store with a key of this process that reads the results of one job.
    ///
    /// # Errors
    /// When the flags of the store make no sense, or the store is one that the operator has named and that cannot be used.
    pub async fn reading(&self, job: &Job) -> Result<liqo_results::Store, StoreError> {
        self.open_for(job, Access::ReadOnly).await
    }

    /// The stores, once the controller of jobs has made the master key of the embedded one.
    pub async fn wait(cluster: &Cluster, args: StoreArgs) -> Self {
        let told = Told::default();
        loop {
            match read_key(cluster, &args.own_namespace, &args.store_key_secret).await {
                Ok(Some(master)) => return Self::with(cluster, args, master, |_| {}),
                outcome => {
                    let why = outcome
                        .err()
                        .map_or_else(|| "there is no master key yet".to_owned(), |error| error.to_string());
                    if told.is_news("", "", &why) {
                        tracing::info!(
                            secret = args.store_key_secret,
                            reason = why,
                            "waiting for the master key of the store"
                        );
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn open_for(&self, job: &Job, access: Access) -> Result<liqo_results::Store, StoreError> {
        let location = self.location(job, access).await?;
        liqo_results::Store::new(&location).map_err(|error| StoreError::of("opening the store", &error))
    }

    /// Ends the key of a job's mover before its time: from then on nobody but this controller writes below the prefix of the job.
    pub(crate) async fn close(&self, job: &Job) -> Result<(), StoreError> {
        // Stores of others know no keys of ours: their keys end by themselves.
        let Place::Embedded = self.place(job) else { return Ok(()) };
        let closed = self.open_for(job, Access::Manage).await?.close().await;
        closed.map_err(|error| StoreError::of("ending the key of a job", &error))
    }

    /// Whether the results of a job are in a store that the operator names.
    pub(crate) fn is_elsewhere(&self, job: &Job) -> bool {
        !matches!(self.place(job), Place::Embedded)
    }

    /// A store that was away when it was tried last is not asked for each of its jobs: the jobs of other stores would wait for the
    /// time limits of this one.
    fn answers(&self, job: &Job) -> Result<(), StoreError> {
        let Place::Other(store) = self.place(job) else { return Ok(()) };
        store.fit().map_err(|why| StoreError { doing: "asking a ResultStore that is not ready", why })
    }

    /// What the store has of a job's results. In the embedded store the key of the mover ends first, so that what is judged stays as it is.
    pub(crate) async fn stored(&self, job: &Job) -> Result<Stored, StoreError> {
        if let Place::Gone(name) = self.place(job) {
            return Ok(Stored::Unusable(gone(&name).to_string()));
        }
        self.answers(job)?;
        self.close(job).await?;
        let location = self.location(job, Access::ReadOnly).await?;
        let place = format!("{}/{}", location.bucket, location.prefix);
        match self.open_for(job, Access::ReadOnly).await?.scan((), |(), _| {}).await {
            Ok(found) => Ok(found.map_or(Stored::Nothing, |(head, ())| Stored::Complete(summary(head, place)))),
            // No later look finds another one, since the key of the mover has ended.
            Err(error @ liqo_results::StoreError::Manifest(_)) => Ok(Stored::Unusable(error.chain())),
            Err(error) => Err(StoreError::of("reading the manifest of the results", &error)),
        }
    }

    /// Removes all results of a job, and what its mover began to upload. Results in a store that the operator has taken away stay there.
    pub(crate) async fn remove(&self, job: &Job) -> Result<(), StoreError> {
        if let Place::Gone(name) = self.place(job) {
            tracing::warn!(
                job = job.name_any(),
                store = name,
                "the ResultStore is gone: results of the job stay there"
            );
            return Ok(());
        }
        self.answers(job)?;
        self.close(job).await?;
        let removed = self.open_for(job, Access::Manage).await?.delete_all().await;
        removed.map(drop).map_err(|error| StoreError::of("removing the results of a job", &error))
    }
}

fn gone(name: &str) -> StoreError {
    StoreError { doing: "finding the store", why: format!("there is no ResultStore {name:?} any more") }
}

/// The place of a job's results in the embedded store with the key of this period for its mover.
fn embedded_files(
    args: &StoreArgs,
    master: &[u8],
    job: &Job,
    period: u64,
) -> Result<BTreeMap<String, String>, StoreError> {
    let ends = period.saturating_add(2).saturating_mul(PERIOD);
    let location = embedded(args, master, job, Access::ReadWrite, ends)?;
    Ok(Location { endpoint: args.worker_store_endpoint.clone(), ..location }.files())
}

/// The place of a job's results in the embedded store.
fn embedded(args: &StoreArgs, master: &[u8], job: &Job, access: Access, expires: u64) -> Result<Location, StoreError> {
    let prefix = job.uid().unwrap_or_default();
    let scope = Scope { prefix: prefix.clone(), access, expires };
    let key = keys::issue(master, &scope).map_err(|error| StoreError::of("making a key of the store", &error))?;
    Ok(Location {
        endpoint: args.store_endpoint.clone(),
        virtual_host: false,
        region: args.store_region.clone(),
        bucket: args.store_bucket.clone(),
        prefix,
        access_key_id: key.id,
        secret_access_key: key.secret,
        session_token: None,
        ca: None,
    })
}

/// The period of keys at `now` (seconds since 1970), where periods have so many seconds.
pub(crate) fn period(now: u64, length: u64) -> u64 {
    now / length
}

/// How long the period of `now` (seconds since 1970) lasts from then on.
pub(crate) fn left_of_period(now: u64, length: u64) -> Duration {
    Duration::from_secs(length - now % length)
}

/// Seconds since 1970.
pub(crate) fn seconds(time: &Time) -> u64 {
    u64::try_from(time.0.as_second()).unwrap_or_default()
}

fn summary(head: Head, location: String) -> ResultsSummary {
    ResultsSummary {
        files: i64::try_from(head.files).unwrap_or(i64::MAX),
        bytes: i64::try_from(head.total).unwrap_or(i64::MAX),
        location,
        incomplete: head.reason.map(|reason| short(&reason)),
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
        // Whoever has this key has the keys of all jobs: it leaves this cluster with no offloading.
        let annotations = BTreeMap::from([(annotation::SKIP_REFLECTION.to_owned(), "true".to_owned())]);
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        };
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

#[cfg(test)]
mod tests {
    use liqo_api::jobs::JobSpec;

    use super::*;

    fn args() -> StoreArgs {
        use clap::Parser;
        #[derive(clap::Parser)]
        struct Only {
            #[command(flatten)]
            store: StoreArgs,
        }
        Only::parse_from(["test"]).store
    }

    #[test]
    fn a_key_is_good_for_one_to_two_periods_whatever_the_worker_may_take() {
        let master = vec![7; keys::MASTER_BYTES];
        let mut job = Job::new("j", JobSpec::default());
        job.metadata.uid = Some("6f1c0b52-0d7e-4a52-9a44-3d4b58d1a6d9".to_owned());
        for now in [1_800_000_000, 1_800_000_000 + PERIOD / 3, 1_800_000_000 + PERIOD - 1] {
            let files = embedded_files(&args(), &master, &job, period(now, PERIOD)).unwrap();
            let (scope, _) = keys::judge(&master, &files["accessKeyId"], now).unwrap();
            let good = scope.expires - now;
            assert!(good > PERIOD && good <= keys::LIFE, "{good}");
            let next = now + left_of_period(now, PERIOD).as_secs();
            let last = (period(next, PERIOD), left_of_period(next, PERIOD).as_secs());
            assert_eq!(last, (period(now, PERIOD) + 1, PERIOD));
            assert!(keys::judge(&master, &files["accessKeyId"], next).is_ok(), "it is good when it is replaced");
        }
    }
}
