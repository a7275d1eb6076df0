//! One cluster, one writer name, few verbs: the only place that reads or writes an API server.
//!
//! Every call has a deadline, is counted, and says what it was doing when it fails.

mod error;
mod event;
mod evict;
mod owners;
mod read;
mod remove;
mod status;
mod streams;
mod write;

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::{
    Client, Resource, ResourceExt,
    api::{PatchParams, Request},
    core::request,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use self::error::{Cause, failure};
pub use self::{
    error::KubeError,
    event::reference,
    owners::{owner_reference, owners_with},
};
use crate::{budget::Budget, count::Calls, events::Events};

/// No call may take longer; a peer that does not answer is an error, not a wait.
const DEADLINE: Duration = Duration::from_secs(15);
/// Pause before a webhook that did not answer is given another chance, see [`Cluster::patient`].
const WEBHOOK_PAUSE: Duration = Duration::from_millis(300);
/// Time limit for a whole list with all its pages: a hostile API server may announce a next page for ever.
pub(crate) const LIST_DEADLINE: Duration = Duration::from_secs(300);

/// Whether the kinds of a scope live in namespaces.
pub trait Scope {
    /// They do.
    const NAMESPACED: bool;
}

impl Scope for NamespaceResourceScope {
    const NAMESPACED: bool = true;
}

impl Scope for ClusterResourceScope {
    const NAMESPACED: bool = false;
}

/// A kind we can read and write.
pub trait Object:
    Resource<DynamicType = (), Scope: Scope> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
}

impl<K> Object for K where
    K: Resource<DynamicType = (), Scope: Scope> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
}

/// The namespace for the path of a request: none for a kind without namespaces, and none (empty) for all namespaces.
fn space<K: Object>(namespace: &str) -> Option<&str> {
    (K::Scope::NAMESPACED && !namespace.is_empty()).then_some(namespace)
}

/// Where a kind is asked for; what the answer says is up to the caller.
fn path<K: Object>(namespace: &str) -> Request {
    Request::new(K::url_path(&(), space::<K>(namespace)))
}

fn path_of<K: Object>(object: &K) -> Request {
    path::<K>(&object.namespace().unwrap_or_default())
}

/// A connection to one API server, and the name under which we write there.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    writer: &'static str,
    calls: Arc<Calls>,
    patience: Duration,
    budget: Arc<Budget>,
    events: Arc<Events>,
}

impl Cluster {
    /// A cluster reached through `client`, written to under the name `writer`.
    pub fn new(client: Client, writer: &'static str) -> Self {
        let (calls, budget, events) = Default::default();
        Self { client, writer, calls, patience: Duration::ZERO, budget, events }
    }

    /// The same cluster, of which no more is kept in memory, by watches and lists together, than so many objects and
    /// bytes. What is more is an error of that cluster, and is asked for again later.
    #[must_use]
    pub fn bounded(self, objects: usize, bytes: usize) -> Self {
        Self { budget: Arc::new(Budget::new(objects, bytes)), ..self }
    }

    /// The same cluster, written to under another name.
    pub fn writing_as(&self, writer: &'static str) -> Self {
        Self { writer, ..self.clone() }
    }

    /// The same cluster for somebody who waits: while a webhook is away, because it has just been installed or is
    /// being restarted, a call is tried again for so long. The API server has changed nothing then.
    #[must_use]
    pub fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The client itself, for what is no object: streams, health, versions.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Number of calls made so far, by verb and kind, for `/metrics`.
    pub fn calls(&self) -> &Arc<Calls> {
        &self.calls
    }

    /// Any call that is none of the verbs above: counted, bounded, its answer read as a `T`.
    pub async fn ask<K: Resource<DynamicType = ()>, T: DeserializeOwned>(
        &self,
        verb: &'static str,
        name: &str,
        request: Result<http::Request<Vec<u8>>, request::Error>,
    ) -> Result<T, KubeError> {
        let (kind, request) = (K::kind(&()), request.map_err(kube::Error::BuildRequest));
        let answer = self.answer(verb, &kind, name, request).await?;
        serde_json::from_value(answer).map_err(|error| failure(verb, &kind, name, Cause::of_json(error)))
    }

    /// The same for every kind, so that it is compiled once; so are the readers of kinds, which read values only.
    fn answer<'a>(
        &'a self,
        verb: &'static str,
        kind: &'a str,
        name: &'a str,
        request: Result<http::Request<Vec<u8>>, kube::Error>,
    ) -> BoxFuture<'a, Result<Value, KubeError>> {
        let answered = async move {
            let request = request.map_err(|error| failure(verb, kind, name, Cause::Kube(Box::new(error))))?;
            let began = tokio::time::Instant::now();
            loop {
                self.calls.add(verb, kind);
                let cause = match tokio::time::timeout(DEADLINE, self.client.request(request.clone())).await {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(error)) => Cause::Kube(Box::new(error)),
                    Err(_) => Cause::Deadline,
                };
                let error = failure(verb, kind, name, cause);
                if !error.is_webhook_away() || began.elapsed() >= self.patience {
                    return Err(error);
                }
                tokio::time::sleep(WEBHOOK_PAUSE).await;
            }
        };
        answered.boxed()
    }

    fn as_writer(&self) -> PatchParams {
        PatchParams { field_manager: Some(self.writer.to_owned()), ..PatchParams::default() }
    }
}

/// What an API server is sent: objects of k8s-openapi say themselves of which kind they are, others not.
fn body<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Vec<u8> {
    let mut value = serde_json::to_value(object).expect("an object is JSON");
    value["apiVersion"] = K::api_version(&()).into();
    value["kind"] = K::kind(&()).into();
    value.to_string().into_bytes()
}

/// `namespace/name`, or the prefix of a name still to be generated.
fn name_of<K: Object>(object: &K) -> String {
    let name = object.meta().name.clone().or_else(|| object.meta().generate_name.clone()).unwrap_or_default();
    object.namespace().map_or(name.clone(), |namespace| format!("{namespace}/{name}"))
}
