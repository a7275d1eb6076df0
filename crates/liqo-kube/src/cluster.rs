//! One cluster, one writer name, few verbs: the only place that reads or writes an API server.
//!
//! Every call has a deadline, is counted, and says what it was doing when it fails.
#![expect(clippy::disallowed_types, reason = "the one door to API servers")]

mod evict;
mod streams;

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::{
    ClusterResourceScope, NamespaceResourceScope,
    api::{
        certificates::v1::CertificateSigningRequest,
        core::v1::{Event, EventSource, ObjectReference},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Client, Resource, ResourceExt,
    api::{
        ApiResource, DeleteParams, DynamicObject, GetParams, ListParams, ObjectList, ObjectMeta, Patch, PatchParams,
        PostParams, Preconditions, PropagationPolicy, Request,
    },
    core::request,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    budget::{Budget, TooMuch, weight},
    count::Calls,
    now,
    rate::{Limiter, Rate},
    watch::Watch,
};

/// No call may take longer; a peer that does not answer is an error, not a wait.
const DEADLINE: Duration = Duration::from_secs(15);
/// Pause before a webhook that did not answer is given another chance, see [`Cluster::patient`].
const WEBHOOK_PAUSE: Duration = Duration::from_millis(300);
/// Page size of lists: bounds the memory a list needs at its peak.
const PAGE: u32 = 200;
/// Time limit for a whole list with all its pages: a hostile API server may announce a next page for ever.
pub(crate) const LIST_DEADLINE: Duration = Duration::from_secs(300);
/// How often the user is told about one object, and about all objects together, by one process.
const EVENTS: Rate = Rate::new(20, Duration::from_secs(6));
const ALL_EVENTS: Rate = Rate::new(10_000, Duration::from_millis(1));
/// Objects about which the user was told lately.
const OBJECTS_TOLD: usize = 16_384;
/// Longest text of an API server that is passed on, in characters.
const LONGEST_TEXT: usize = 8192;

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
    events: Arc<Limiter<String>>,
}

/// What we were doing when the API server said no, or nothing.
#[derive(Debug, thiserror::Error)]
#[error("{verb} {kind} {name}")]
pub struct KubeError {
    verb: &'static str,
    kind: String,
    name: String,
    source: Cause,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("{}", kube_text(.0))]
    Kube(Box<kube::Error>),
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Deadline,
    #[error("the list did not end within {} s", LIST_DEADLINE.as_secs())]
    Endless,
    #[error(transparent)]
    TooMuch(TooMuch),
}

impl Cause {
    fn of_json(error: serde_json::Error) -> Self {
        Self::Kube(Box::new(kube::Error::SerdeError(error)))
    }
}

/// The API server's own words where there are any: one line, not too long.
fn kube_text(error: &kube::Error) -> String {
    let text = full_text(error);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_TEXT).collect()
}

fn full_text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(cause) = source {
                let cause_text = cause.to_string();
                if !text.contains(&cause_text) {
                    text = format!("{text}: {cause_text}");
                }
                source = cause.source();
            }
            text
        }
    }
}

impl KubeError {
    /// HTTP status code, if the API server answered.
    pub fn code(&self) -> Option<u16> {
        match &self.source {
            Cause::Kube(error) => match error.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            Cause::Deadline | Cause::Endless | Cause::TooMuch(_) => None,
        }
    }

    /// The object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// The object exists already, or has changed meanwhile.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// We may not do that.
    pub fn is_forbidden(&self) -> bool {
        matches!(self.code(), Some(401 | 403))
    }

    /// The test in a JSON patch failed. What is not valid has the same code and says so.
    fn is_failed_test(&self) -> bool {
        self.code() == Some(422) && !self.is_invalid()
    }

    /// The API server finds the object, or the change of it, invalid.
    pub fn is_invalid(&self) -> bool {
        self.code() == Some(422) && self.source.to_string().contains("is invalid")
    }

    /// A webhook the API server had to ask did not answer it; nothing was changed.
    pub fn is_webhook_away(&self) -> bool {
        self.code() == Some(500) && self.source.to_string().contains("failed calling webhook")
    }

    /// The API server could not be reached.
    pub fn is_unreachable(&self) -> bool {
        self.code().is_none()
    }
}

impl Cluster {
    /// A cluster reached through `client`, written to under the name `writer`.
    pub fn new(client: Client, writer: &'static str) -> Self {
        let events = Arc::new(Limiter::new(EVENTS, ALL_EVENTS, OBJECTS_TOLD));
        let (calls, budget) = Default::default();
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

    /// Something that keeps all `K` of a namespace (empty: of all namespaces) in memory.
    pub fn watch<K: Object>(&self, namespace: &str) -> Watch<K> {
        let (client, kind) = (self.client.clone(), ApiResource::erase::<K>(&()));
        let api = match space::<K>(namespace) {
            Some(namespace) => kube::Api::<DynamicObject>::namespaced_with(client, namespace, &kind),
            None => kube::Api::all_with(client, &kind),
        };
        Watch::new(api, kind.kind, Arc::clone(&self.calls), Arc::clone(&self.budget))
    }

    /// The object, if it exists.
    pub async fn get<K: Object>(&self, namespace: &str, name: &str) -> Result<Option<K>, KubeError> {
        let request = path::<K>(namespace).get(name, &GetParams::default());
        match self.ask::<K, K>("get", name, request).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All objects of a namespace (empty: of all namespaces) that match a label selector (empty: any).
    pub async fn list<K: Object>(&self, namespace: &str, labels: &str) -> Result<Vec<K>, KubeError> {
        let mut params = ListParams::default().limit(PAGE);
        if !labels.is_empty() {
            params = params.labels(labels);
        }
        let began = tokio::time::Instant::now();
        let (mut all, mut rooms, kind) = (Vec::new(), Vec::new(), K::kind(&()));
        let failed = |cause| failure("list", &kind, namespace, cause);
        loop {
            let request = path::<K>(namespace).list(&params).map_err(kube::Error::BuildRequest);
            let page = self.answer("list", &kind, namespace, request).await?;
            // Each page counts as one more object, because a hostile API server may send empty pages for ever.
            let items = page.get("items").and_then(Value::as_array).into_iter().flatten();
            for bytes in items.map(weight).chain([0]) {
                rooms.push(self.budget.room(bytes).map_err(|error| failed(Cause::TooMuch(error)))?);
            }
            let page: ObjectList<K> = serde_json::from_value(page).map_err(|error| failed(Cause::of_json(error)))?;
            all.extend(page.items);
            if began.elapsed() > LIST_DEADLINE {
                return Err(failed(Cause::Endless));
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(all),
            }
        }
    }

    /// Creates the object; an existing one is a conflict.
    pub async fn create<K: Object>(&self, object: &K) -> Result<K, KubeError> {
        let params = PostParams { field_manager: Some(self.writer.to_owned()), ..PostParams::default() };
        let request = path_of(object).create(&params, body(object));
        self.ask::<K, K>("create", &name_of(object), request).await
    }

    /// Creates the object by server-side apply, because RBAC can hold a right to apply, unlike the right to create, to one name:
    /// the verbs `create` and `patch` with that name. Processes that may come first at the same time differ by `maker`, a field
    /// manager: for the later one the object with other content is a conflict.
    pub async fn create_by_name<K: Object>(&self, object: &K, maker: &str) -> Result<K, KubeError> {
        let mut body = serde_json::to_value(object).expect("an object is JSON");
        prune(&mut body);
        body["apiVersion"] = K::api_version(&()).into();
        body["kind"] = K::kind(&()).into();
        let params = PatchParams::apply(maker);
        let request = path_of(object).patch(&object.name_any(), &params, &Patch::Apply(body));
        self.ask::<K, K>("create", &name_of(object), request).await
    }

    /// Whether the API server, with all it asks, would let us create the object; nothing is created.
    pub async fn try_create<K: Object>(&self, object: &K) -> Result<(), KubeError> {
        let params = PostParams { dry_run: true, field_manager: Some(self.writer.to_owned()) };
        let request = path_of(object).create(&params, body(object));
        self.ask::<K, serde::de::IgnoredAny>("create", &name_of(object), request).await.map(drop)
    }

    /// Creates something under an object, like a token or an eviction; gives what it has become.
    pub async fn create_under<K: Object, S: Resource<DynamicType = ()> + Serialize + DeserializeOwned>(
        &self,
        namespace: &str,
        name: &str,
        subresource: &str,
        new: &S,
    ) -> Result<S, KubeError> {
        let params = PostParams::default();
        let request = path::<K>(namespace).create_subresource(subresource, name, &params, body(new));
        self.ask::<S, S>("create", name, request).await
    }

    /// Server-side apply of the fields in `object`: fields we applied earlier and left out now are removed.
    ///
    /// With a UID in it, exactly that object is changed; a conflict when it is gone or another one.
    pub async fn apply<K: Object>(&self, object: &K) -> Result<K, KubeError> {
        let mut body = serde_json::to_value(object).expect("an object is JSON");
        prune(&mut body);
        self.apply_value(&object.namespace().unwrap_or_default(), &object.name_any(), body).await
    }

    /// Server-side apply of a body that need not be a whole `K`.
    pub async fn apply_value<K: Object>(&self, namespace: &str, name: &str, mut body: Value) -> Result<K, KubeError> {
        body["apiVersion"] = K::api_version(&()).into();
        body["kind"] = K::kind(&()).into();
        let request = path::<K>(namespace).patch(name, &PatchParams::apply(self.writer).force(), &Patch::Apply(body));
        self.ask::<K, K>("apply", name, request).await
    }

    /// JSON merge patch (RFC 7386) of an object; put `metadata.resourceVersion` in to be safe from races.
    pub async fn merge<K: Object>(&self, object: &K, patch: Value) -> Result<K, KubeError> {
        let request = path_of(object).patch(&object.name_any(), &self.as_writer(), &Patch::Merge(patch));
        self.ask::<K, K>("patch", &name_of(object), request).await
    }

    /// Adds `owner` to the owner references of exactly this object, as it was seen; see [`owners_with`]. `None`: `owner` is
    /// there.
    pub async fn own<K: Object>(&self, object: &K, owner: OwnerReference) -> Result<Option<K>, KubeError> {
        let Some(owners) = owners_with(object, owner) else { return Ok(None) };
        let (uid, version) = (object.uid(), object.resource_version());
        let patch = json!({"metadata": {"ownerReferences": owners, "uid": uid, "resourceVersion": version}});
        self.merge(object, patch).await.map(Some)
    }

    /// Makes `status` the whole status of exactly this object (its UID is checked). Nothing happens, and nothing is
    /// given back, when that object is gone, or another one has its name.
    pub async fn put_status<K: Object>(
        &self,
        object: &K,
        status: &(impl Serialize + Sync),
    ) -> Result<Option<K>, KubeError> {
        self.patch_status(object, status, None).await
    }

    /// [`Cluster::put_status`] where the status has another writer, too: nothing happens, and nothing is given back, when
    /// the object is no longer as it was seen.
    pub async fn put_status_as_seen<K: Object>(
        &self,
        object: &K,
        status: &(impl Serialize + Sync),
    ) -> Result<Option<K>, KubeError> {
        self.patch_status(object, status, object.resource_version()).await
    }

    /// Sets conditions of exactly this object's status, by their type; conditions of other types stay. Nothing happens when
    /// that object is gone, or another one has its name.
    pub async fn set_conditions<K: Object>(&self, object: &K, conditions: &[Value]) -> Result<(), KubeError> {
        let body = json!({"metadata": {"uid": object.uid()}, "status": {"conditions": conditions}});
        let patch = Patch::<Value>::Strategic(body);
        let request = path_of(object).patch_subresource("status", &object.name_any(), &self.as_writer(), &patch);
        match self.ask::<K, serde::de::IgnoredAny>("set-conditions", &name_of(object), request).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }

    async fn patch_status<K: Object>(
        &self,
        object: &K,
        status: &(impl Serialize + Sync),
        version: Option<String>,
    ) -> Result<Option<K>, KubeError> {
        let status = serde_json::to_value(status).expect("a status is JSON");
        let patch = Patch::<Value>::Json(status_patch(object.uid(), version, status));
        let request = path_of(object).patch_subresource("status", &object.name_any(), &self.as_writer(), &patch);
        match self.ask::<K, K>("put-status", &name_of(object), request).await {
            Err(error) if error.is_not_found() || error.is_failed_test() => Ok(None),
            outcome => outcome.map(Some),
        }
    }

    /// Adds a finalizer to the object as we know it; a changed object is a conflict.
    pub async fn hold<K: Object>(&self, object: &K, finalizer: &str) -> Result<K, KubeError> {
        let mut all = object.finalizers().to_vec();
        all.push(finalizer.to_owned());
        self.set_finalizers(object, &all).await
    }

    /// Removes a finalizer from the object as we know it; an object already gone is a success.
    pub async fn release<K: Object>(&self, object: &K, finalizer: &str) -> Result<(), KubeError> {
        let all: Vec<_> = object.finalizers().iter().filter(|one| *one != finalizer).cloned().collect();
        match self.set_finalizers(object, &all).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    async fn set_finalizers<K: Object>(&self, object: &K, all: &[String]) -> Result<K, KubeError> {
        let meta = json!({"finalizers": all, "resourceVersion": object.resource_version(), "uid": object.uid()});
        self.merge(object, json!({ "metadata": meta })).await
    }

    /// Deletes exactly this object (its UID is checked, if known); already gone is a success.
    pub async fn remove<K: Object>(&self, object: &K) -> Result<(), KubeError> {
        self.remove_within(object, None).await
    }

    /// Deletes exactly this object and gives it that many seconds to end, fewer than it has itself; already gone is a success.
    pub async fn remove_in<K: Object>(&self, object: &K, seconds: u32) -> Result<(), KubeError> {
        self.remove_within(object, Some(seconds)).await
    }

    /// Deletes exactly this object at once, without grace; already gone is a success.
    pub async fn remove_now<K: Object>(&self, object: &K) -> Result<(), KubeError> {
        self.remove_within(object, Some(0)).await
    }

    async fn remove_within<K: Object>(&self, object: &K, grace: Option<u32>) -> Result<(), KubeError> {
        let preconditions = object.uid().map(|uid| Preconditions { uid: Some(uid), resource_version: None });
        let params = DeleteParams {
            grace_period_seconds: grace,
            preconditions,
            // Without a word about it, jobs of the group batch/v1 would leave their pods behind.
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        // The answer is the object, if it stays for a while, or a status: both say the same to us.
        let request = path_of(object).delete(&object.name_any(), &params);
        match self.ask::<K, serde::de::IgnoredAny>("delete", &name_of(object), request).await {
            // A UID that does not match means: the one we meant is gone.
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }

    /// Approves a signing request, for a reason others can read.
    pub async fn approve(
        &self,
        request: &CertificateSigningRequest,
        reason: &str,
        message: &str,
    ) -> Result<CertificateSigningRequest, KubeError> {
        let name = request.name_any();
        let condition = json!({
            "type": "Approved", "status": "True", "reason": reason, "message": message, "lastUpdateTime": now(),
        });
        let meta = json!({"resourceVersion": request.resource_version(), "uid": request.uid()});
        let patch = Patch::Merge(json!({"metadata": meta, "status": {"conditions": [condition]}}));
        let request = path_of(request).patch_subresource("approval", &name, &self.as_writer(), &patch);
        self.ask::<CertificateSigningRequest, _>("approve", &name, request).await
    }

    /// Tells the user about `object`: an Event in its namespace. Call it on transitions only. Each object gets at most 20 Events
    /// at once, then 10 a minute; `false` says that this Event was left out for that reason.
    pub async fn event<K: Object>(&self, object: &K, component: &str, kind: &str, reason: &str, message: &str) -> bool {
        let namespace = object.namespace().unwrap_or_else(|| "default".to_owned());
        if self.events.take(format!("{} {}", K::kind(&()), name_of(object))).is_err() {
            tracing::debug!(kind = %K::kind(&()), object = name_of(object), reason, "event not recorded: too many of this object");
            return false;
        }
        let time = now();
        let event = Event {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}.", object.name_any())),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            involved_object: reference(object),
            type_: Some(kind.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message.chars().take(1024).collect()),
            source: Some(EventSource { component: Some(component.to_owned()), host: None }),
            first_timestamp: Some(time.clone()),
            last_timestamp: Some(time),
            count: Some(1),
            ..Event::default()
        };
        let outcome = self.create(&event).await;
        if let Err(error) = &outcome {
            tracing::debug!(error = error as &dyn std::error::Error, "event not recorded");
        }
        outcome.is_ok()
    }

    /// Whether the API server answers, within `limit`.
    pub async fn alive(&self, limit: Duration) -> Result<(), String> {
        let request = http::Request::get("/livez").body(Vec::new()).expect("a valid request");
        match tokio::time::timeout(limit, self.client.request_text(request)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(kube_text(&error)),
            Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
        }
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

fn failure(verb: &'static str, kind: &str, name: &str, source: Cause) -> KubeError {
    KubeError { verb, kind: kind.to_owned(), name: name.to_owned(), source }
}

/// What an API server is sent: objects of k8s-openapi say themselves of which kind they are, others not.
fn body<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Vec<u8> {
    let mut value = serde_json::to_value(object).expect("an object is JSON");
    value["apiVersion"] = K::api_version(&()).into();
    value["kind"] = K::kind(&()).into();
    value.to_string().into_bytes()
}

fn status_patch(uid: Option<String>, version: Option<String>, status: Value) -> json_patch::Patch {
    let mut patch = vec![json!({"op": "test", "path": "/metadata/uid", "value": uid})];
    patch.extend(version.map(|version| json!({"op": "test", "path": "/metadata/resourceVersion", "value": version})));
    patch.push(json!({"op": "add", "path": "/status", "value": status}));
    serde_json::from_value(patch.into()).expect("a JSON patch")
}

/// `namespace/name`, or the prefix of a name still to be generated.
fn name_of<K: Object>(object: &K) -> String {
    let name = object.meta().name.clone().or_else(|| object.meta().generate_name.clone()).unwrap_or_default();
    object.namespace().map_or(name.clone(), |namespace| format!("{namespace}/{name}"))
}

/// What server-side apply must not be told, and nulls.
fn prune(body: &mut Value) {
    if let Some(object) = body.as_object_mut() {
        object.remove("status");
    }
    if let Some(meta) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        for key in ["managedFields", "resourceVersion", "creationTimestamp", "generation", "selfLink"] {
            meta.remove(key);
        }
    }
}

/// A reference to `object`, as Events carry it.
pub fn reference<K: Object>(object: &K) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: object.meta().name.clone(),
        namespace: object.namespace(),
        uid: object.uid(),
        resource_version: object.resource_version(),
        field_path: None,
    }
}

/// The owner references of `object` when `owner` is one of them. Other owners stay, except an earlier owner of the same kind
/// and name: that one is gone. `None`: `owner` is there.
pub fn owners_with<K: Object>(object: &K, owner: OwnerReference) -> Option<Vec<OwnerReference>> {
    let before = object.owner_references();
    if before.contains(&owner) {
        return None;
    }
    let is_other = |one: &&OwnerReference| (&one.kind, &one.name) != (&owner.kind, &owner.name);
    let mut owners: Vec<_> = before.iter().filter(is_other).cloned().collect();
    owners.push(owner);
    Some(owners)
}

/// An owner reference to `object`: the controlling one (it blocks deletion), or a plain one.
pub fn owner_reference<K: Object>(object: &K, controller: bool) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        controller: controller.then_some(true),
        block_owner_deletion: controller.then_some(true),
    }
}
