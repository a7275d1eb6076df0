//! Runs one reflector over one pair of namespaces.
//!
//! Owns its queue of names: the end of an object here must reach its twin there, also when it came
//! while we were away. Both sides' first lists enqueue every name, so orphans are found without memory.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use kube::Resource;
use tokio::task::JoinHandle;

use super::{Here, Plan, Reflect, There, decide};
use crate::{Cluster, KubeError, Object, Queue, Store, drive};

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
    /// Starts mirroring.
    pub fn start<R: Reflect>(parts: Parts<R>) -> Self {
        Self(tokio::spawn(run(parts)))
    }
}

async fn run<R: Reflect>(parts: Parts<R>) {
    parts.sources.ready().await;
    parts.twins.ready().await;
    if let Some(seen) = &parts.seen {
        seen.ready().await;
    }
    let queue = parts.queue.clone();
    let workers = parts.workers;
    let pair = Pair { parts, told: Mutex::default() };
    drive(R::NAME, queue, workers, |name| pair.settle(name)).await;
}

struct Pair<R: Reflect> {
    parts: Parts<R>,
    /// What the user was last told about a name, so that it is told once.
    told: Mutex<HashMap<String, String>>,
}

impl<R: Reflect> Pair<R> {
    async fn settle(&self, name: String) -> Result<Option<Duration>, KubeError> {
        let outcome = self.try_settle(&name).await;
        if let Some(settled) = &self.parts.settled {
            settled(outcome.is_ok());
        }
        outcome.map(|()| None)
    }

    async fn try_settle(&self, name: &str) -> Result<(), KubeError> {
        let Parts { reflector, here: cluster, namespace_here, namespace_there, sources, twins, seen, .. } =
            &self.parts;
        let name_there = reflector.name_there(name);
        let here = sources.get(namespace_here, name);
        let there = twins.get(namespace_there, &name_there);
        let plan: Plan<R::There> = match seen {
            Some(seen) => {
                let seen = seen.get(namespace_there, &name_there);
                decide(reflector, here.as_deref(), there.as_deref(), seen.as_deref())
            }
            None => decide(reflector, here.as_deref(), there.as_deref(), itself::<R>(there.as_deref())),
        };
        if let (Here::Hold(finalizer), Some(here)) = (&plan.here, &here) {
            cluster.hold(&**here, finalizer).await?;
        }
        self.act_there(name, &name_there, plan.there, here.as_deref(), there.as_deref()).await?;
        let Some(here) = here else {
            self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
            return Ok(());
        };
        match plan.here {
            Here::Keep | Here::Hold(_) => Ok(()),
            Here::Status(status) => cluster.put_status(&*here, &status).await.map(drop).or_else(gone),
            Here::Release(finalizer) => cluster.release(&*here, finalizer).await,
            Here::Delete => cluster.remove_now(&*here).await,
        }
    }

    async fn act_there(
        &self,
        name: &str,
        name_there: &str,
        plan: There<R::There>,
        here: Option<&R::Here>,
        there: Option<&R::There>,
    ) -> Result<(), KubeError> {
        let Parts { there: cluster, namespace_there, peer, .. } = &self.parts;
        match plan {
            There::Keep => Ok(()),
            There::Taken => {
                let text = format!("Error reflecting object to cluster \"{peer}\": remote object already exists");
                self.tell(name, here, "Warning", "FailedReflection", &text);
                Ok(())
            }
            There::Refused(reason) => {
                let text = format!("Reflection to cluster \"{peer}\" disabled {reason}");
                self.tell(name, here, "Normal", "ReflectionDisabled", &text);
                Ok(())
            }
            There::Apply(mut twin) => {
                let meta = twin.meta_mut();
                meta.name = Some(name_there.to_owned());
                meta.namespace = Some(namespace_there.clone());
                let applied = apply(cluster, &*twin).await;
                match &applied {
                    Ok(_) => {
                        let text = format!("Successfully reflected object to cluster \"{peer}\"");
                        self.tell(name, here, "Normal", "SuccessfulReflection", &text);
                    }
                    Err(error) => {
                        let text =
                            format!("Error reflecting object to cluster \"{peer}\": {}", crate::queue::chain(error));
                        self.tell(name, here, "Warning", "FailedReflection", &text);
                    }
                }
                applied
            }
            There::Remove => match there {
                Some(twin) => cluster.remove(twin).await,
                None => Ok(()),
            },
        }
    }

    /// Tells the user what has become of an object, once for each new message.
    fn tell(&self, name: &str, here: Option<&R::Here>, kind: &str, reason: &str, text: &str) {
        let news = {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.insert(name.to_owned(), text.to_owned()).as_deref() != Some(text)
        };
        if let Some(here) = here
            && news
            && !self.parts.component.is_empty()
        {
            let (cluster, here, component) = (self.parts.here.clone(), here.clone(), self.parts.component.clone());
            let (kind, reason, text) = (kind.to_owned(), reason.to_owned(), text.to_owned());
            // Nobody waits for an Event.
            tokio::spawn(async move { cluster.event(&here, &component, &kind, &reason, &text).await });
        }
    }
}

/// Applies a twin. An older peer refuses fields its definitions do not know yet: those are left out.
async fn apply<K: Object>(cluster: &Cluster, twin: &K) -> Result<(), KubeError> {
    let Err(error) = cluster.apply(twin).await else { return Ok(()) };
    match super::unknown::without(twin, &crate::queue::chain(&error)) {
        Some(known) => cluster.apply(&known).await.map(drop),
        None => Err(error),
    }
}

/// The twin as what news come from, where both are the same kind.
fn itself<R: Reflect>(there: Option<&R::There>) -> Option<&R::Seen> {
    there.and_then(|there| (there as &dyn std::any::Any).downcast_ref())
}

/// An object that went away meanwhile, or changed its UID, needs no status.
fn gone(error: KubeError) -> Result<(), KubeError> {
    if error.is_not_found() || error.code() == Some(422) { Ok(()) } else { Err(error) }
}

