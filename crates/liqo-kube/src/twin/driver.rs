//! Runs one reflector over one pair of namespaces.
//!
//! Owns its queue of names: the end of an object here must reach its twin there, also when it came
//! while we were away. Both sides' first lists enqueue every name, so orphans are found without memory.

mod asked;

use std::{
    collections::{HashMap, hash_map::Entry},
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kube::{Resource, ResourceExt};
use serde_json::Value;
use tokio::task::JoinHandle;

use self::asked::first;
use super::{
    Here, Plan, Reflect, There, decide,
    send::{apply, fingerprint},
};
use crate::{Cluster, KubeError, Queue, Store, drive, guard::supervised, refusals, said, told::Told};

/// So long a watch may take to show what we wrote; meanwhile the same is not written again.
const LAG: Duration = Duration::from_secs(2);

/// So long a watch may take to show that something is gone; then it is asked for.
const DOUBT: Duration = Duration::from_secs(5);

/// What a mirror needs. The stores may be shared with others; whoever fills them pushes the names (as
/// they are *here*) of changed objects into the queue.
pub struct Parts<R: Reflect> {
    /// How the twins look.
    pub reflector: R,
    /// The cluster of the sources.
    pub here: Cluster,
    /// The cluster of the twins.
    pub there: Cluster,
    /// Namespace of the sources.
    pub namespace_here: String,
    /// Namespace of the twins.
    pub namespace_there: String,
    /// Sources.
    pub sources: Store<R::Here>,
    /// Twins; must keep the managed fields, see [`super::differs`].
    pub twins: Store<R::There>,
    /// What news come from; `None` when that is the twin itself.
    pub seen: Option<Store<R::Seen>>,
    /// Names to look at.
    pub queue: Queue<String>,
    /// Names handled at the same time.
    pub workers: usize,
    /// Component under which the user is told, in Events on the source.
    pub component: String,
    /// How the other cluster is called in what the user is told.
    pub peer: String,
    /// Called after every settled name, with whether it went well.
    pub settled: Option<Box<dyn Fn(bool) + Send + Sync>>,
}

/// A running mirror; dropping it stops it and leaves both sides as they are.
pub struct Mirror(JoinHandle<()>);

impl Drop for Mirror {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Mirror {
    /// Starts mirroring. A panic in the work for one peer ends nobody else's; mirroring begins again.
    pub fn start<R: Reflect>(parts: Parts<R>) -> Self {
        Self(tokio::spawn(async move { supervised(R::NAME, &parts.peer, || run(&parts)).await }))
    }
}

async fn run<R: Reflect>(parts: &Parts<R>) {
    parts.sources.ready().await;
    let (twins, seen) = (parts.twins.clone(), parts.seen.clone());
    let mut shown = pin!(async move {
        twins.ready().await;
        if let Some(seen) = seen {
            seen.ready().await;
        }
    });
    // A peer that has said farewell shows us nothing any more: then what waits here for its end is asked for by name.
    let in_time = tokio::time::timeout(DOUBT, &mut shown).await.is_ok();
    let (queue, sources, namespace) = (parts.queue.clone(), parts.sources.clone(), parts.namespace_here.clone());
    let late = async {
        if !in_time {
            shown.await;
            let all = sources.filter(|here| here.namespace().unwrap_or_default() == namespace);
            all.iter().for_each(|here| queue.push(here.name_any()));
        }
    };
    let workers = parts.workers;
    let pair = Pair {
        parts,
        told: Told::default(),
        sent: Mutex::default(),
        fading: Mutex::default(),
        held: Mutex::default(),
        made: Mutex::default(),
        last_words: Mutex::default(),
    };
    tokio::join!(late, drive(R::NAME, queue.clone(), workers, |name| pair.settle(name)));
}

struct Pair<'a, R: Reflect> {
    parts: &'a Parts<R>,
    /// What the user was last told about a name, so that it is told once.
    told: Told,
    /// What was applied last for a name and when, until the watch shows it.
    sent: Mutex<HashMap<String, (u64, Instant)>>,
    /// Which object of the other cluster should be gone soon, for a name, and since when (or when it was last asked for), until the
    /// watch shows that it is. Of one that no watch shows no UID is known.
    fading: Mutex<HashMap<String, (Option<String>, Instant)>>,
    /// Since when news of a name are held back.
    held: Mutex<HashMap<String, Instant>>,
    /// UID of the source a twin was made for, until the watch shows the twin.
    made: Mutex<HashMap<String, Option<String>>>,
    /// Since when a twin that is to go knows how.
    last_words: Mutex<HashMap<String, Instant>>,
}

impl<R: Reflect> Pair<'_, R> {
    async fn settle(&self, name: String) -> Result<Option<Duration>, KubeError> {
        let outcome = self.try_settle(&name).await;
        if let Some(settled) = &self.parts.settled {
            settled(outcome.is_ok());
        }
        outcome
    }

    async fn try_settle(&self, name: &str) -> Result<Option<Duration>, KubeError> {
        let Parts { reflector, here: cluster, namespace_here, namespace_there, sources, twins, seen, .. } = self.parts;
        let name_there = reflector.name_there(name);
        let here = sources.get(namespace_here, name);
        let (there, other) = if twins.is_ready() && seen.as_ref().is_none_or(Store::is_ready) {
            let there = twins.get(namespace_there, &name_there);
            let other = seen.as_ref().and_then(|seen| seen.get(namespace_there, &name_there));
            let there = self.unshown(name, &name_there, here.as_deref(), there).await?;
            self.still(name, there, other).await?
        } else if here.as_ref().is_some_and(|here| here.meta().deletion_timestamp.is_some()) {
            let since = lock(&self.fading).entry(name.to_owned()).or_insert_with(|| (None, Instant::now())).1;
            if since.elapsed() < DOUBT {
                return Ok(Some(DOUBT));
            }
            let other = if seen.is_some() { self.fetch(&name_there).await? } else { None };
            (self.fetch(&name_there).await?, other)
        } else {
            return Ok(None);
        };
        let seen = if seen.is_some() { other.as_deref() } else { itself::<R>(there.as_deref()) };
        reflector.look(name, here.as_deref(), there.as_deref(), seen);
        let plan: Plan<R::There> = decide(reflector, here.as_deref(), there.as_deref(), seen);
        if let (Here::Hold(finalizer), Some(here)) = (&plan.here, &here) {
            cluster.hold(&**here, finalizer).await?;
        }
        let again = match plan.there {
            There::Apply(twin) => self.apply(name, name_there, twin, here.as_deref(), there.as_deref()).await?,
            other => {
                lock(&self.sent).remove(name);
                self.act_there(name, other, here.as_deref(), there.as_deref(), seen).await?
            }
        };
        let Some(here) = here else {
            self.told.forget(name);
            lock(&self.held).remove(name);
            lock(&self.last_words).remove(name);
            if there.is_none() && seen.is_none() {
                lock(&self.made).remove(name);
            }
            return Ok(again);
        };
        let news = match plan.here {
            Here::Soon(status, within) => match self.hold_back(name, within) {
                Some(left) => return Ok(Some(again.map_or(left, |again| again.min(left)))),
                None => Here::Status(status),
            },
            other => other,
        };
        lock(&self.held).remove(name);
        match news {
            Here::Keep | Here::Hold(_) | Here::Soon(..) => {}
            Here::Status(status) => match self.put_status(&here, &status).await {
                // Not every change there is a change the API server allows here; the next one may be.
                Err(error) if error.is_invalid() => {
                    let text = format!(
                        "The state in cluster \"{}\" cannot be shown here: {}",
                        self.parts.peer,
                        crate::drive::chain(&error)
                    );
                    tracing::debug!(name, "{text}");
                    self.tell(name, Some(&here), "Warning", "StatusRefused", &text);
                }
                outcome => drop(outcome?),
            },
            Here::Release(finalizer) => cluster.release(&*here, finalizer).await?,
            Here::Delete => cluster.remove_now(&*here).await?,
        }
        Ok(again)
    }

    async fn put_status(&self, here: &R::Here, status: &Value) -> Result<Option<R::Here>, KubeError> {
        let Parts { reflector, here: cluster, .. } = self.parts;
        match (reflector.mark(here), reflector.shares_status(here)) {
            (Some(mark), as_seen) => cluster.put_status_marked(here, status, mark, as_seen).await,
            (None, true) => cluster.put_status_as_seen(here, status).await,
            (None, false) => cluster.put_status(here, status).await,
        }
    }

    /// How long news of a name are to be held back still; `None`: no longer. Each answer names the pause, because an earlier turn
    /// for another reason takes the place of the turn that an earlier answer asked for.
    fn hold_back(&self, name: &str, within: Duration) -> Option<Duration> {
        let since = *lock(&self.held).entry(name.to_owned()).or_insert_with(Instant::now);
        within.checked_sub(since.elapsed()).filter(|left| !left.is_zero())
    }

    /// Makes the twin look as forged. What was just sent is not sent again before the watch had time to show
    /// it; whether it did is looked at later.
    async fn apply(
        &self,
        name: &str,
        name_there: String,
        mut twin: Box<R::There>,
        here: Option<&R::Here>,
        there: Option<&R::There>,
    ) -> Result<Option<Duration>, KubeError> {
        let Parts { there: cluster, namespace_there, peer, .. } = self.parts;
        let meta = twin.meta_mut();
        // A change that was stuck on a cut wire and arrives late must not make a twin anew that is gone by then.
        meta.uid = there.and_then(|there| there.meta().uid.clone());
        meta.name = Some(name_there);
        meta.namespace = Some(namespace_there.clone());
        let fingerprint = fingerprint(&*twin);
        let last = lock(&self.sent).get(name).copied();
        if last.is_some_and(|(sent, when)| sent == fingerprint && when.elapsed() < LAG) {
            return Ok(Some(LAG));
        }
        if there.is_none() {
            // Before it is sent: the answer may be lost.
            lock(&self.made).insert(name.to_owned(), here.and_then(|here| here.meta().uid.clone()));
        }
        match apply(cluster, &*twin, there).await {
            Ok(()) => {
                lock(&self.sent).insert(name.to_owned(), (fingerprint, Instant::now()));
                let text = format!("Successfully reflected object to cluster \"{peer}\"");
                self.tell(name, here, "Normal", "SuccessfulReflection", &text);
                Ok(None)
            }
            Err(error) => {
                self.failed(name, here, &error).await;
                Err(error)
            }
        }
    }

    /// Tells why a twin was not made or changed; what the API server there refuses is told in its words.
    async fn failed(&self, name: &str, here: Option<&R::Here>, error: &KubeError) {
        let Parts { reflector, peer, .. } = self.parts;
        let is_answered = error.code().is_some();
        if is_answered {
            // It was refused: nothing was made.
            lock(&self.made).remove(name);
        }
        let why = crate::drive::chain(error);
        let why = if is_answered { said::by(peer, &why) } else { why };
        let text = format!("Error reflecting object to cluster \"{peer}\": {why}");
        self.tell(name, here, "Warning", "FailedReflection", &text);
        if let Some(code) = error.code() {
            refusals::count("mirror", refusals::reason_of(code));
        }
        let is_refused = matches!(error.code(), Some(400 | 403 | 422));
        if let Some(here) = here.filter(|_| is_refused)
            && let Some(status) = reflector.refused(here, &why)
            && let Err(error) = self.put_status(here, &status).await
        {
            tracing::debug!(name, error = &error as &dyn std::error::Error, "refusal not shown in the status");
        }
    }

    async fn act_there(
        &self,
        name: &str,
        plan: There<R::There>,
        here: Option<&R::Here>,
        there: Option<&R::There>,
        seen: Option<&R::Seen>,
    ) -> Result<Option<Duration>, KubeError> {
        let Parts { there: cluster, peer, .. } = self.parts;
        match plan {
            There::Keep | There::Apply(_) => {}
            There::Taken => {
                let text = format!("Error reflecting object to cluster \"{peer}\": remote object already exists");
                self.tell(name, here, "Warning", "FailedReflection", &text);
            }
            There::Refused(reason) => {
                let text = format!("Reflection to cluster \"{peer}\" disabled {reason}");
                self.tell(name, here, "Normal", "ReflectionDisabled", &text);
            }
            There::Tell(mut words) => {
                let Some(twin) = there else { return Ok(None) };
                words["metadata"]["uid"] = twin.meta().uid.clone().into();
                match self.told_last(name) {
                    None => return cluster.merge(twin, words).await.map(|_| Some(LAG)),
                    Some(since) if since.elapsed() < LAG => return Ok(Some(LAG)),
                    Some(_) => cluster.remove(twin).await?,
                }
                self.fades(name, there, seen);
            }
            There::Remove => {
                let Some(twin) = there else { return Ok(None) };
                let is_known = lock(&self.fading).contains_key(name);
                match cluster.remove(twin).await {
                    // What a peer has taken back itself, it lets us remove no more. One that is still there is refused for another reason.
                    Err(error) if is_known || error.code() != Some(403) => return Err(error),
                    _ => self.fades(name, there, seen),
                }
            }
            There::Wait => self.fades(name, there, seen),
        }
        // Until it is seen to be gone.
        Ok(lock(&self.fading).contains_key(name).then_some(DOUBT))
    }

    /// Since when a twin has been told its last words; `None` when it was not, which is remembered.
    fn told_last(&self, name: &str) -> Option<Instant> {
        match lock(&self.last_words).entry(name.to_owned()) {
            Entry::Occupied(since) => Some(*since.get()),
            Entry::Vacant(place) => {
                place.insert(Instant::now());
                None
            }
        }
    }

    fn fades(&self, name: &str, there: Option<&R::There>, seen: Option<&R::Seen>) {
        lock(&self.last_words).remove(name);
        lock(&self.fading).entry(name.to_owned()).or_insert_with(|| (first(there, seen), Instant::now()));
    }

    /// Tells the user what has become of an object, once for each new message.
    fn tell(&self, name: &str, here: Option<&R::Here>, kind: &str, reason: &str, text: &str) {
        let news = self.told.is_news(name, "", text);
        if let Some(here) = here
            && news
            && !self.parts.component.is_empty()
        {
            let (cluster, here, component) = (self.parts.here.clone(), here.clone(), self.parts.component.clone());
            let (kind, reason, text) = (kind.to_owned(), reason.to_owned(), text.to_owned());
            let (told, name) = (self.told.clone(), name.to_owned());
            // Nobody waits for an Event.
            tokio::spawn(async move {
                told.write((&cluster, &component), &here, (&name, ""), (&kind, &reason), &text).await
            });
        }
    }
}

/// The twin as what news come from, where both are the same kind.
fn itself<R: Reflect>(there: Option<&R::There>) -> Option<&R::Seen> {
    there.and_then(|there| (there as &dyn std::any::Any).downcast_ref())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
