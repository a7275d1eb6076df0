//! Fulfils requests for peerings: selects and reserves at the broker, then writes what `liqoctl peer` writes.
//!
//! Keeps true: what the broker and the provider say is compared with what was asked for before it is written; the name of a reservation
//! follows from the request, so that nothing is reserved twice whenever this process ends; a `ForeignCluster` that somebody else
//! wrote is not removed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use liqo_api::{
    ClusterIdentity,
    discovery::ForeignCluster,
    market::{Mode, PeeringPhase, PeeringRequest, PeeringRequestStatus, Selection, SelectionPolicy},
};
use liqo_core::{
    naming,
    peering::{Plan, id_of, out_of_band::plan, token_secret},
};
use liqo_kube::{Cluster, KubeError, Queue, Store, now, reach::Reach, told::Told};
use liqo_market::wire::NewReservation;
use liqo_market_client::{Broker, Known, No, Rejected, Reserved, Selected};
use serde_json::json;

use crate::{
    accept::asked,
    plan::{FINALIZER, MADE_FOR, Step, is_made_for, next},
    probe,
    reconsider::Memory,
};

/// Pause before the broker is asked again.
const AGAIN: Duration = Duration::from_secs(5);
/// Pause while the invitation is awaited.
const SOON: Duration = Duration::from_secs(1);
/// Providers of one request that did not grant the reservation, before all are tried anew.
const MOST_TRIED: usize = 16;

/// Namespace and name of a request.
pub(crate) type Key = (String, String);

/// Everything the controller works with.
pub(crate) struct Peers {
    pub(crate) cluster: Cluster,
    pub(crate) queue: Queue<Key>,
    namespace: String,
    pub(crate) local: ClusterIdentity,
    pub(crate) broker: Arc<Broker>,
    /// What was found out about providers that others may take the place of.
    pub(crate) memory: Memory,
    /// What was logged about a request.
    pub(crate) told: Told,
    reach: Reach,
    requests: Store<PeeringRequest>,
    policies: Store<SelectionPolicy>,
    foreigns: Store<ForeignCluster>,
}

/// Whether a wish asks how far away providers are.
pub(crate) fn asks_how_far(wish: &Selection) -> bool {
    wish.criteria.max_latency_millis.is_some() || wish.weights.latency > 0
}

pub(crate) fn key(request: &PeeringRequest) -> Key {
    (request.namespace().unwrap_or_default(), request.name_any())
}

impl Peers {
    /// Starts watching. `namespace` is that of Liqo.
    pub(crate) fn start(
        cluster: Cluster,
        (namespace, local): (String, ClusterIdentity),
        broker: Arc<Broker>,
        reach: Reach,
    ) -> Self {
        let queue = Queue::new();
        let (ring, bell) = (queue.clone(), queue.clone());
        let requests = cluster.watch::<PeeringRequest>("").start(move |request| ring.push(key(request)));
        let all = requests.clone();
        let foreigns = cluster.watch::<ForeignCluster>("").start(move |foreign| {
            let is_of = |request: &PeeringRequest| provider(request).is_some_and(|id| id == id_of(foreign));
            all.filter(is_of).iter().for_each(|request| bell.push(key(request)));
        });
        let policies = cluster.watch::<SelectionPolicy>("").start(|_| {});
        let (memory, told) = (Memory::default(), Told::default());
        Self { cluster, queue, namespace, local, broker, memory, told, reach, requests, policies, foreigns }
    }

    pub(crate) async fn ready(&self) {
        self.requests.ready().await;
        self.policies.ready().await;
        self.foreigns.ready().await;
    }

    /// One request.
    pub(crate) fn request(&self, namespace: &str, name: &str) -> Option<Arc<PeeringRequest>> {
        self.requests.get(namespace, name)
    }

    /// The requests of a namespace, by name.
    pub(crate) fn requests(&self, namespace: &str) -> Vec<Arc<PeeringRequest>> {
        let mut all = self.requests.filter(|one| one.namespace().as_deref() == Some(namespace));
        all.sort_by_key(|one| one.name_any());
        all
    }

    fn foreign(&self, id: &str) -> Option<Arc<ForeignCluster>> {
        self.foreigns.filter(|one| id_of(one) == id).into_iter().next()
    }

    /// Does the next step for a request.
    pub(crate) async fn settle(&self, (namespace, name): Key) -> Result<Option<Duration>, KubeError> {
        let Some(request) = self.requests.get(&namespace, &name) else {
            self.memory.forget(&(namespace, name));
            return Ok(None);
        };
        let foreign = provider(&request).and_then(|id| self.foreign(id));
        match next(&request, foreign.as_deref(), now().0.as_second()) {
            Step::Hold => self.cluster.hold(&*request, FINALIZER).await.map(|_| None),
            Step::Select => self.select(&request).await,
            Step::Accept => self.accept(&request).await,
            Step::Renew => self.renew(&request).await,
            Step::Tell(status) => self.tell(&request, *status).await,
            Step::Rest(seconds) => self.reconsider(&request, Duration::from_secs(seconds)).await,
            Step::Wait => Ok(None),
            Step::Disable => self.disable(foreign.as_deref()).await,
            Step::Forget => self.forget(&request, foreign.as_deref()).await,
            Step::Release => self.release(&request).await,
        }
    }

    pub(crate) async fn tell(
        &self,
        request: &PeeringRequest,
        status: PeeringRequestStatus,
    ) -> Result<Option<Duration>, KubeError> {
        if request.status.as_ref() != Some(&status) {
            self.cluster.put_status(request, &status).await?;
        }
        Ok(None)
    }

    /// Says why nothing goes on, and looks again after a pause.
    async fn say(&self, request: &PeeringRequest, why: String, pause: Duration) -> Result<Option<Duration>, KubeError> {
        let status = PeeringRequestStatus { message: Some(why), ..request.status.clone().unwrap_or_default() };
        self.tell(request, status).await?;
        Ok(Some(pause))
    }

    async fn select(&self, request: &PeeringRequest) -> Result<Option<Duration>, KubeError> {
        let before = request.status.clone().unwrap_or_default();
        let reserved = match self.choose(request, &before).await {
            Ok(provider) => self.reserve(request, &before, &provider).await,
            Err(why) => return self.say(request, why, AGAIN).await,
        };
        match reserved {
            Ok((name, reserved)) => {
                let status = PeeringRequestStatus {
                    phase: PeeringPhase::Reserved,
                    message: None,
                    provider: Some(reserved.provider.clone()),
                    reservation: Some(name),
                    held_until: until(&reserved),
                    ..before
                };
                self.tell(request, status).await
            }
            Err((Some(provider), why)) => {
                let mut tried = before.tried.clone();
                tried.push(provider);
                if tried.len() > MOST_TRIED {
                    tried.clear();
                }
                self.tell(request, PeeringRequestStatus { tried, message: Some(why), ..before }).await?;
                Ok(Some(SOON))
            }
            Err((None, why)) => self.say(request, why, AGAIN).await,
        }
    }

    /// What a request asks for, by its policy if it names one.
    pub(crate) fn wish(&self, request: &PeeringRequest) -> Result<Selection, String> {
        let selection = request.spec.selection.clone();
        let Some(name) = &request.spec.policy else { return Ok(selection) };
        let namespace = request.namespace().unwrap_or_default();
        let policy = self.policies.get(&namespace, name);
        let policy = policy.ok_or_else(|| format!("there is no SelectionPolicy {name:?} in namespace {namespace}"))?;
        if policy.spec.placement.mode != Mode::Single {
            return Err(format!("a peering is with one provider, and SelectionPolicy {name:?} places on several"));
        }
        Ok(policy.spec.of(selection.request, selection.largest_pod))
    }

    /// What this cluster knows of providers when it asks for them.
    pub(crate) async fn known(&self, wish: &Selection) -> Result<Known, No> {
        let measured = match asks_how_far(wish) {
            true => probe::measure(&self.reach, self.broker.providers().await?).await,
            false => BTreeMap::new(),
        };
        Ok(Known { measured, consumer: self.local.cluster_id.clone(), ..Known::default() })
    }

    /// The best provider that was not tried before.
    async fn choose(&self, request: &PeeringRequest, before: &PeeringRequestStatus) -> Result<String, String> {
        let mut wish = self.wish(request)?;
        wish.criteria.exclude.extend(before.tried.iter().cloned());
        wish.criteria.exclude.push(self.local.cluster_id.clone());
        let told = |no: No| no.to_string();
        let known = self.known(&wish).await.map_err(told)?;
        let selected: Selected = self.broker.select(&wish, &known).await.map_err(told)?;
        let first = selected.selected.first().map(|choice| choice.cluster_id.clone());
        let first = first.ok_or_else(|| nobody(&selected))?;
        let is_foreign = naming::cluster_id_error(&first).is_none() && !wish.criteria.exclude.contains(&first);
        if is_foreign { Ok(first) } else { Err(format!("the broker chose {first:?}, which nobody asked for")) }
    }

    /// Reserves at a provider. A failure names the provider if another one is to be tried.
    async fn reserve(
        &self,
        request: &PeeringRequest,
        before: &PeeringRequestStatus,
        provider: &str,
    ) -> Result<(String, Reserved), (Option<String>, String)> {
        let name = reservation_name(request, before.tried.len());
        let new = NewReservation {
            name: name.clone(),
            provider: provider.to_owned(),
            consumer: self.local.cluster_id.clone(),
            resources: request.spec.selection.request.clone(),
            ttl_seconds: request.spec.lease_seconds,
        };
        let reserved = match self.broker.reserve(&new).await {
            // Refused, or reserved before this process began, at a provider that was the best one then.
            Err(no) if no.is(StatusCode::CONFLICT) => match self.broker.reservation(&name).await {
                Ok(known) => Ok(known),
                Err(_) => return Err((Some(provider.to_owned()), no.to_string())),
            },
            asked => asked,
        };
        match reserved {
            Ok(reserved) if reserved.phase == "Granted" => Ok((name, reserved)),
            Ok(reserved) => Err((None, format!("the reservation {name} is {}", reserved.phase))),
            Err(no) => Err((None, no.to_string())),
        }
    }

    async fn accept(&self, request: &PeeringRequest) -> Result<Option<Duration>, KubeError> {
        let before = request.status.clone().unwrap_or_default();
        let (Some(id), Some(reservation)) = (before.provider.clone(), before.reservation.clone()) else {
            return Ok(None);
        };
        let invitation = match self.broker.invitation(&reservation).await {
            Ok(Some(invitation)) => invitation,
            Ok(None) => return Ok(Some(SOON)),
            Err(no) if no.is(StatusCode::CONFLICT) => {
                // The provider does not want this cluster, or the time is over.
                self.broker.release(&reservation).await.unwrap_or_else(|no| tracing::debug!(%no, "not released"));
                let mut tried = before.tried.clone();
                tried.push(id);
                let status =
                    PeeringRequestStatus { message: Some(no.to_string()), tried, ..PeeringRequestStatus::default() };
                return self.tell(request, status).await.map(|_| Some(SOON));
            }
            Err(no) => return self.say(request, no.to_string(), AGAIN).await,
        };
        let known: Vec<_> = self.foreigns.all().iter().map(|one| (**one).clone()).collect();
        let asked = asked(&id, &invitation, &known);
        match asked.and_then(|ask| Ok((plan(&ask, &self.local, &known)?, ask))) {
            Err(why) => self.say(request, why, AGAIN).await,
            Ok((Plan::Wait(name), _)) => {
                self.say(request, format!("an earlier peering with {name} is being taken down"), SOON).await
            }
            Ok((wish, ask)) => {
                self.cluster.apply(&token_secret(&ask.token, &id, &self.namespace)).await?;
                let foreign = self.write(request, wish).await?;
                let (phase, foreign_cluster) = (PeeringPhase::Peering, Some(foreign.name_any()));
                self.tell(request, PeeringRequestStatus { phase, message: None, foreign_cluster, ..before }).await
            }
        }
    }

    /// Writes the `ForeignCluster`; a new one says for which request it was made.
    async fn write(&self, request: &PeeringRequest, wish: Plan) -> Result<ForeignCluster, KubeError> {
        match wish {
            Plan::Create(mut foreign) => {
                let made_for = request.uid().unwrap_or_default();
                foreign.annotations_mut().insert(MADE_FOR.to_owned(), made_for);
                self.cluster.create(&*foreign).await
            }
            Plan::Update(foreign, patch) => self.cluster.merge(&*foreign, patch).await,
            Plan::Wait(_) => unreachable!("who waits writes nothing"),
        }
    }

    async fn renew(&self, request: &PeeringRequest) -> Result<Option<Duration>, KubeError> {
        let before = request.status.clone().unwrap_or_default();
        let (Some(name), Some(provider)) = (before.reservation.clone(), before.provider.clone()) else {
            return Ok(None);
        };
        let lease = request.spec.lease_seconds;
        let renewed = match self.broker.renew(&name, lease).await {
            Ok(_) => self.broker.reservation(&name).await,
            Err(no) => Err(no),
        };
        let lost = |no: &No| no.is(StatusCode::NOT_FOUND) || no.is(StatusCode::CONFLICT);
        let held = match renewed {
            // Its time was over: the resources may still be free.
            Err(no) if lost(&no) => {
                self.broker.release(&name).await.unwrap_or_else(|no| tracing::debug!(%no, "not released"));
                let new = NewReservation {
                    name: name.clone(),
                    provider,
                    consumer: self.local.cluster_id.clone(),
                    resources: request.spec.selection.request.clone(),
                    ttl_seconds: lease,
                };
                self.broker.reserve(&new).await
            }
            renewed => renewed,
        };
        match held.map(|held| until(&held)) {
            Ok(Some(end)) if Some(&end) != before.held_until.as_ref() => {
                self.tell(request, PeeringRequestStatus { held_until: Some(end), message: None, ..before }).await
            }
            // The broker has not looked at the new end yet.
            Ok(_) => Ok(Some(SOON)),
            // Somebody else has them: the peering ends, and another provider is chosen.
            Err(no) if no.is(StatusCode::CONFLICT) => {
                self.memory.forget(&key(request));
                let (message, tried) = (Some(format!("the resources are not held any longer: {no}")), before.tried);
                let provider = before.provider;
                let status = PeeringRequestStatus { message, provider, tried, ..PeeringRequestStatus::default() };
                self.tell(request, status).await
            }
            Err(no) => self.say(request, format!("the reservation is not renewed: {no}"), AGAIN).await,
        }
    }

    async fn disable(&self, foreign: Option<&ForeignCluster>) -> Result<Option<Duration>, KubeError> {
        let Some(foreign) = foreign else { return Ok(None) };
        self.cluster.merge(foreign, json!({"spec": {"outgoingPeeringEnabled": "No"}})).await.map(|_| None)
    }

    async fn forget(
        &self,
        request: &PeeringRequest,
        foreign: Option<&ForeignCluster>,
    ) -> Result<Option<Duration>, KubeError> {
        let Some(foreign) = foreign.filter(|one| is_made_for(one, request)) else { return Ok(Some(SOON)) };
        self.cluster.remove(&token_secret("", id_of(foreign), &self.namespace)).await?;
        self.cluster.remove(foreign).await.map(|()| Some(SOON))
    }

    async fn release(&self, request: &PeeringRequest) -> Result<Option<Duration>, KubeError> {
        if let Some(name) = request.status.as_ref().and_then(|status| status.reservation.clone())
            && let Err(no) = self.broker.release(&name).await
        {
            return self.say(request, format!("the reservation {name} is not released yet: {no}"), AGAIN).await;
        }
        self.cluster.release(request, FINALIZER).await.map(|()| None)
    }
}

fn provider(request: &PeeringRequest) -> Option<&String> {
    request.status.as_ref()?.provider.as_ref()
}

/// The name of the reservation for a request, after so many providers were tried.
fn reservation_name(request: &PeeringRequest, tried: usize) -> String {
    format!("peering-{}-{tried}", request.uid().unwrap_or_default())
}

fn until(reserved: &Reserved) -> Option<Time> {
    reserved.expires_at.as_ref()?.parse().ok().map(Time)
}

/// Why there is no provider, in one sentence.
fn nobody(selected: &Selected) -> String {
    let why = |one: &Rejected| {
        let reasons: Vec<_> = one.reasons.iter().map(|why| format!("{} {}", why.criterion, why.code)).collect();
        format!("{}: {}", one.cluster_id, reasons.join(", "))
    };
    match selected.rejected.is_empty() {
        true => "no provider offers anything".to_owned(),
        false => {
            let all: Vec<_> = selected.rejected.iter().take(8).map(why).collect();
            format!("no provider fits: {}", all.join("; ")).chars().take(1024).collect()
        }
    }
}
