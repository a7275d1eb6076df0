//! Observe, plan, act: what is done next for a job.

mod end;
mod stores;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::{
    api::{
        batch::v1::Job as Batch,
        core::v1::{Pod, Secret},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;
use liqo_api::jobs::{JOB_LABEL, Job, JobStatus, JobTemplate, JobTemplateSpec, Phase, RESULTS_FINALIZER};
use liqo_kube::{Cluster, KubeError, Queue, Store, now};

use self::end::{FAREWELL, ending, expiry, hasten, overdue};
use crate::{
    JobsArgs, brief, endpoints, owned, room,
    state::{self, Seen, Stored},
    store::{self, JobStore, StoreError},
    turn,
    worker::{self, POD_LABEL},
};

/// Objects of one answer of the API server. Annotations of users are large, and are forgotten only when an answer was read.
const PAGE: u32 = 50;
/// When to look again at pods that shall end: their node may be gone.
const END_OF_PODS: Duration = Duration::from_secs(60);
/// How long a job waits before it looks again whether its name is free.
const TAKEN: Duration = Duration::from_secs(10);

/// What may have changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// A job, by name.
    Job(String),
    /// Who has its turn.
    Turns,
    /// How many jobs there may be.
    Room,
    /// Where the embedded store is.
    Endpoints,
    /// A store that the operator names, by name: it is tried.
    Store(String),
    /// A store that the operator names, by name: it has changed.
    StoreChanged(String),
}

/// Why a key was not settled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Kube(#[from] KubeError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Everything the controller knows and can do.
pub(crate) struct World {
    cluster: Cluster,
    store: JobStore,
    args: JobsArgs,
    namespace: String,
    jobs: Store<Job>,
    templates: Store<JobTemplate>,
    batches: Store<Batch>,
    pods: Store<Pod>,
    slices: Store<EndpointSlice>,
    /// Period of the key that this process wrote last for a job, by name, with the UID of the job. A process that knows nothing writes
    /// the key of the period once more, which changes nothing.
    keys: Mutex<HashMap<String, (Option<String>, u64)>>,
    pub(crate) queue: Queue<Key>,
}

/// What to do for a job, in this order.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// Add our finalizer.
    Hold,
    /// Write this status.
    Tell(Box<JobStatus>),
    /// Make the Secret and the `batch/v1` Job.
    Make(Box<JobTemplateSpec>),
    /// Write the key of this period into the Secret.
    Renew,
    /// End the key in the store before its time, and remove the Secret.
    EndKey,
    /// Delete the `batch/v1` Job.
    RemoveBatch(Arc<Batch>),
    /// End a pod within [`FAREWELL`].
    EndPod(Arc<Pod>),
    /// Ask the store what it has, then look again.
    AskStore,
    /// Remove the results from the store.
    RemoveResults,
    /// Take our finalizer away.
    Release,
    /// Delete the job.
    Remove,
    /// Others may have their turn now.
    Turns,
    /// Look again then.
    Wait(Duration),
}

/// What is known of a job.
struct Known {
    worker: Result<JobTemplateSpec, (&'static str, String)>,
    batch: Option<Arc<Batch>>,
    pods: Vec<Arc<Pod>>,
    /// Period of the key in the Secret, as far as this process knows.
    key: Option<u64>,
    /// Seconds after which the key is replaced.
    period: u64,
    /// Seconds that a job may have its turn.
    longest: i64,
    now: Time,
}

impl Known {
    /// Without the pods whose nodes are gone: nothing will be heard of them, and no turn waits for them.
    fn without_lost(mut self) -> Self {
        self.pods.retain(|pod| !state::is_lost(pod, &self.now));
        self
    }
}

impl World {
    pub(crate) fn start(cluster: Cluster, store: JobStore, args: &JobsArgs, queue: Queue<Key>) -> Self {
        let namespace = args.namespace.clone();
        let news = || queue.clone();
        let (of_jobs, of_templates, of_batches, of_pods) = (news(), news(), news(), news());
        let jobs = cluster.watch::<Job>(&namespace).pages(PAGE).trim(brief::job).start(move |job| {
            of_jobs.push(Key::Job(job.name_any()));
            of_jobs.push(Key::Turns);
        });
        let templates = cluster.watch::<JobTemplate>(&namespace).pages(PAGE).trim(brief::template);
        let templates = templates.start(move |_| of_templates.push(Key::Turns));
        let batches = cluster
            .watch::<Batch>(&namespace)
            .labels(JOB_LABEL)
            .trim(owned::batch)
            .start(move |batch| push(&of_batches, batch, JOB_LABEL));
        let pods = cluster.watch::<Pod>(&namespace).labels(POD_LABEL).pages(PAGE).trim(owned::pod);
        let pods = pods.start(move |pod| push(&of_pods, pod, POD_LABEL));
        let slices = endpoints::watch(&cluster, &args.store.own_namespace, queue.clone());
        queue.push(Key::Room);
        Self {
            cluster,
            store,
            args: args.clone(),
            namespace,
            slices,
            jobs,
            templates,
            batches,
            pods,
            keys: Mutex::default(),
            queue,
        }
    }

    pub(crate) async fn ready(&self) {
        self.jobs.ready().await;
        self.templates.ready().await;
        self.batches.ready().await;
        self.pods.ready().await;
        self.slices.ready().await;
        self.store.ready().await;
        // Also those that were tried before: the next try is not written down.
        self.store.others().iter().for_each(|store| self.queue.push(Key::Store(store.name_any())));
    }

    pub(crate) async fn settle(&self, key: Key) -> Result<Option<Duration>, Failure> {
        match key {
            Key::Turns => self.turns().await.map(|()| None),
            Key::Room => Ok(room::keep(&self.cluster, &self.args).await?),
            Key::Endpoints => Ok(endpoints::copy(&self.cluster, &self.namespace, &self.slices.all()).await?),
            Key::Store(name) => Ok(store::check(&self.store, &name).await?),
            Key::StoreChanged(name) => {
                self.store_changed(&name);
                Ok(None)
            }
            Key::Job(name) => self.job(&name).await,
        }
    }

    /// Gives their turn to as many jobs as there is room for.
    async fn turns(&self) -> Result<(), Failure> {
        // An active job counts, whatever became of the template of the job; a job that ended does not count.
        let counts = |job: &Job| phase(job).is_active() || (!phase(job).is_final() && self.could_start(job).is_ok());
        let jobs = self.jobs.filter(counts);
        for name in turn::next(jobs.iter().map(|job| &**job), self.args.running) {
            let Some(job) = self.jobs.get(&self.namespace, &name) else { continue };
            let Ok(worker) = self.could_start(&job) else { continue };
            // The watch shows the turn to the next look; until then the version of the object refuses a second one.
            let status = state::admitted(&job, worker.result_store, &now());
            self.cluster.put_status_as_seen(&*job, &status).await?;
        }
        Ok(())
    }

    fn worker(&self, job: &Job) -> Result<JobTemplateSpec, (&'static str, String)> {
        worker::resolve(job, |name| self.templates.get(&self.namespace, name))
    }

    async fn job(&self, name: &str) -> Result<Option<Duration>, Failure> {
        let Some(job) = self.jobs.get(&self.namespace, name) else {
            self.keys().remove(name);
            self.queue.push(Key::Turns);
            return Ok(None);
        };
        if phase(&job).is_final() && job.metadata.deletion_timestamp.is_none() {
            // Nothing is looked for: what was made for the job has ended with it.
            return self.act(&job, expiry(&job, self.store.retention_of(&job), &now())).await;
        }
        let batch = self.batches.get(&self.namespace, name).filter(|batch| owned::is_batch_of(batch, &job));
        let is_named = |pod: &Pod| pod.labels().get(POD_LABEL).is_some_and(|of| of == name);
        let known = Known {
            worker: if phase(&job).is_active() { self.worker(&job) } else { self.could_start(&job) },
            pods: self.pods.filter(|pod| is_named(pod) && owned::is_pod_of(pod, &job, batch.as_deref())),
            batch,
            key: self.keys().get(name).filter(|(uid, _)| *uid == job.uid()).map(|(_, period)| *period),
            period: self.store.period_of(&job),
            longest: self.args.longest_turn,
            now: now(),
        };
        let known = known.without_lost();
        let mut steps = plan(&job, &known, Stored::NotAsked);
        if steps.contains(&Step::AskStore) {
            steps = plan(&job, &known, self.ask_store(&job).await?);
        }
        self.act(&job, steps).await
    }

    /// What the store has of a job's results. A store of the operator that does not answer holds the turn of the job until its end only.
    async fn ask_store(&self, job: &Job) -> Result<Stored, Failure> {
        let status = job.status.clone().unwrap_or_default();
        let is_over = state::left_of_turn(&status, self.args.longest_turn, &now()) <= 0;
        match self.store.stored(job).await {
            Err(error) if is_over && self.store.is_elsewhere(job) => Ok(Stored::Unusable(error.to_string())),
            stored => Ok(stored?),
        }
    }

    async fn act(&self, job: &Job, steps: Vec<Step>) -> Result<Option<Duration>, Failure> {
        let mut again = None;
        for step in steps {
            match step {
                Step::Hold => drop(self.cluster.hold(job, RESULTS_FINALIZER).await?),
                Step::Tell(status) => drop(self.cluster.put_status_as_seen(job, &*status).await?),
                Step::Make(worker) => again = self.make(job, &worker).await?,
                Step::Renew => self.renew(job).await?,
                Step::EndKey => self.end_key(job).await?,
                Step::RemoveBatch(batch) => self.cluster.remove(&*batch).await?,
                Step::EndPod(pod) => self.cluster.remove_in(&*pod, FAREWELL).await?,
                Step::RemoveResults => self.store.remove(job).await?,
                Step::Release => self.cluster.release(job, RESULTS_FINALIZER).await?,
                Step::Remove => self.cluster.remove(job).await?,
                Step::Turns => self.queue.push(Key::Turns),
                Step::Wait(pause) => again = Some(pause),
                // The second plan knows what the store has.
                Step::AskStore => {}
            }
        }
        Ok(again)
    }

    /// Makes the Secret first: the pod needs it. A `batch/v1` Job of somebody else that has the name is left alone: the job waits until
    /// that one is gone, and says so.
    async fn make(&self, job: &Job, worker: &JobTemplateSpec) -> Result<Option<Duration>, Failure> {
        self.renew(job).await?;
        match self.cluster.create(&worker::forge(job, worker, &self.args)).await {
            Ok(_) => return Ok(None),
            Err(error) if !error.is_conflict() => return Err(error.into()),
            Err(_) => {}
        }
        // What is ours was made by an earlier try, or by the process before; the watch has not shown it yet.
        let there = self.cluster.get::<Batch>(&self.namespace, &job.name_any()).await?;
        if there.is_some_and(|there| !owned::is_batch_of(&there, job)) {
            let status = owned::taken(job);
            if job.status.as_ref() != Some(&status) {
                self.cluster.put_status_as_seen(job, &status).await?;
            }
        }
        Ok(Some(TAKEN))
    }

    /// Writes the key of this period into the Secret of the job.
    async fn renew(&self, job: &Job) -> Result<(), Failure> {
        let period = store::period(store::seconds(&now()), self.store.period_of(job));
        self.cluster.apply::<Secret>(&worker::location(job, self.store.files(job, period).await?)).await?;
        self.keys().insert(job.name_any(), (job.uid(), period));
        Ok(())
    }

    async fn end_key(&self, job: &Job) -> Result<(), Failure> {
        self.store.close(job).await?;
        let secret: Secret = worker::location(job, BTreeMap::new());
        self.cluster.remove(&secret).await?;
        self.keys().remove(&job.name_any());
        Ok(())
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<String, (Option<String>, u64)>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn phase(job: &Job) -> Phase {
    job.status.as_ref().map(|status| status.phase).unwrap_or_default()
}

/// `label` names the job that the object belongs to.
fn push<K: kube::Resource>(queue: &Queue<Key>, object: &K, label: &str) {
    if let Some(job) = object.labels().get(label) {
        queue.push(Key::Job(job.clone()));
    }
}

/// What is done next for a job, given what the store has of it.
fn plan(job: &Job, known: &Known, stored: Stored) -> Vec<Step> {
    let status = job.status.clone().unwrap_or_default();
    let is_held = job.finalizers().iter().any(|one| one == RESULTS_FINALIZER);
    if job.metadata.deletion_timestamp.is_some() {
        let mut steps = ending(known);
        if steps.is_empty() && is_held {
            steps.extend([Step::RemoveResults, Step::Release, Step::Turns]);
        }
        return steps;
    }
    if status.phase.is_final() {
        return expiry(job, None, &known.now);
    }
    if job.spec.cancel {
        let mut steps = ending(known);
        if steps.is_empty() {
            // A job that never had its turn has no key.
            steps.extend(status.phase.is_active().then_some(Step::EndKey));
            steps.push(Step::Tell(Box::new(state::cancelled(job, &known.now))));
            steps.push(Step::Turns);
        }
        return steps;
    }
    if !status.phase.is_active() {
        let waiting = state::waiting(job, known.worker.clone().err());
        return tell(&status, waiting).into_iter().chain([Step::Turns]).collect();
    }
    let left = state::left_of_turn(&status, known.longest, &known.now);
    if left <= 0 {
        return overdue(job, known, &stored);
    }
    let mut steps = if is_held { vec![] } else { vec![Step::Hold] };
    let Some(batch) = &known.batch else {
        match &known.worker {
            Ok(worker) if is_held => steps.push(Step::Make(Box::new(worker.clone()))),
            // Our finalizer first; it brings us back here.
            Ok(_) => {}
            Err(why) => {
                steps.push(Step::Tell(Box::new(state::given_back(job, why.clone(), &known.now))));
                steps.push(Step::Turns);
            }
        }
        return steps;
    };
    if state::is_failing(batch) {
        steps.extend(hasten(&known.pods, &known.now));
    }
    if state::end(batch, !known.pods.is_empty()).is_some() && stored == Stored::NotAsked {
        steps.push(Step::AskStore);
    }
    let pods: Vec<&Pod> = known.pods.iter().map(|pod| &**pod).collect();
    let next = state::of(job, &Seen { batch: Some(batch), pods: &pods, stored, now: known.now.clone() });
    if next.phase.is_final() {
        steps.push(Step::EndKey);
        steps.extend(tell(&status, next));
        steps.push(Step::Turns);
    } else {
        steps.extend(tell(&status, next));
        steps.extend(key(known, Duration::from_secs(u64::try_from(left).unwrap_or_default())).into_iter().flatten());
    }
    steps
}

/// What is done for the key of a job that is active, now and when the period ends, or the turn.
fn key(known: &Known, turn: Duration) -> [Option<Step>; 2] {
    let now = store::seconds(&known.now);
    let is_due = known.key != Some(store::period(now, known.period));
    let soon = if known.pods.iter().any(|pod| pod.metadata.deletion_timestamp.is_some()) { END_OF_PODS } else { turn };
    [is_due.then_some(Step::Renew), Some(Step::Wait(store::left_of_period(now, known.period).min(turn).min(soon)))]
}

fn tell(old: &JobStatus, new: JobStatus) -> Option<Step> {
    (*old != new).then(|| Step::Tell(Box::new(new)))
}

#[cfg(test)]
#[path = "settle_tests.rs"]
mod tests;
