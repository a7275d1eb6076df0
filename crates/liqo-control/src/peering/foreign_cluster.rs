//! `ForeignCluster`: from the wish for a peer to a tenant namespace, an identity and a request, and how
//! all that stands.
//!
//! One pass looks at everything and decides in [`plan`]; whatever changes anything the plan reads rings
//! for another pass. The status is written by nobody else, and only when it is different.
//!
//! Watches   `ForeignCluster`, `ResourceRequest`, `ResourceOffer`, `TunnelEndpoint`, `Secret`, `Namespace`,
//!           `Service` `liqo-auth`, `Node`.
//! Writes    `ForeignCluster` (identity of the peer, finalizer of the checker, status, what a ban ends); tenant
//!           `Namespace`; `ResourceRequest` originals.
//! Removes   `ResourceRequest` originals; a `ForeignCluster` that nobody asked for and nobody uses; the tenant `Namespace`
//!           of a banned peer; the `Secret` with the token for a peer whose `ForeignCluster` is deleted.

mod check;
mod our_request;
mod plan;
mod record;

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use liqo_api::{
    ClusterIdentity,
    discovery::{ForeignCluster, ForeignClusterStatus, ResourceRequest},
    meta::{annotation, finalizer, label},
    names,
};
use liqo_core::{
    decision, grants,
    naming::{self, dns_label_error},
    peering::token_name,
};
use liqo_kube::{KubeError, now};
use serde_json::{Value, json};

pub(crate) use check::is_nobody;
use check::unprocessable;
use plan::{Authentication, Observed, plan};

use super::{
    auth_client,
    checker::Health,
    condition::{self, Fact, tell},
    identity::{self, Attempts, Outcome},
    tenant::{self, Tenant},
    world::World,
};
use crate::{COMPONENT, ledger::id_of, offload::strip};

/// A peer that has not answered for so long is dead, as far as taking leave of it goes.
const DEAD_AFTER: Duration = Duration::from_secs(10);
/// Pause before a peer that did not say who it is is asked again.
const WHO_AGAIN: Duration = Duration::from_secs(5);
/// Pause before a tenant namespace that could not be used is tried again, should no event come.
const TENANT_AGAIN: Duration = Duration::from_secs(10);

/// Settles one `ForeignCluster`; `attempts`: what was tried to get an identity.
pub(crate) async fn settle(world: &World, attempts: &Attempts, name: String) -> Result<Option<Duration>, KubeError> {
    let Some(one) = world.foreign_clusters.get("", &name) else {
        forget(world, attempts);
        return Ok(None);
    };
    Pass { world, attempts, one: &one }.run().await
}

/// Stops everything about peers that are none any more.
fn forget(world: &World, attempts: &Attempts) {
    let ids: Vec<_> = world.foreign_clusters.all().iter().map(|one| id_of(one).to_owned()).collect();
    world.checker.retain(|peer| ids.iter().any(|id| id == peer));
    attempts.retain(|peer| ids.iter().any(|id| id == peer));
}

/// One look at one `ForeignCluster`.
struct Pass<'a> {
    world: &'a World,
    attempts: &'a Attempts,
    one: &'a Arc<ForeignCluster>,
}

impl Pass<'_> {
    async fn run(&self) -> Result<Option<Duration>, KubeError> {
        let one = self.one.as_ref();
        if one.metadata.deletion_timestamp.is_none() && !self.is_identified() {
            return self.identify().await;
        }
        let peer = one.spec.cluster_identity.clone().unwrap_or_default();
        let (all, here) = (self.world.foreign_clusters.all(), &self.world.home.identity);
        let leaving = one.metadata.deletion_timestamp.is_some();
        if leaving {
            if !is_nobody(one, &all, here) {
                self.forget_token(&peer).await?;
            }
            self.let_go().await?;
        }
        if !leaving && decision::is_banned(one) && !is_nobody(one, &all, here) {
            return self.banish(&peer).await;
        }
        if leaving && !is_nobody(one, &all, here) {
            // How the withdrawal goes on depends on whether the peer still answers.
            if let Some(identity) = identity::held(self.world, &peer.cluster_id) {
                self.world.checker.watch(&peer.cluster_id, &identity);
            }
            return self.act(&peer, self.tenant_known(&peer), Authentication::Leaving, None).await;
        }
        if let Some(fact) = unprocessable(one, &all, here) {
            self.tell(&[fact], None, None).await?;
            return Ok(None);
        }
        let namespace = match self.tenant(&peer).await? {
            Tenant::Ready(namespace) => namespace,
            Tenant::Refused(why) => {
                let facts = [condition::processable(), condition::no_identity(&why)];
                self.tell(&facts, None, None).await?;
                return Ok(Some(TENANT_AGAIN));
            }
        };
        self.unrecord(&namespace).await?;
        let unanswered = self.is_unanswered(&namespace, &peer.cluster_id);
        let outcome = identity::ensure((self.world, self.attempts), one, &peer, &namespace, unanswered).await?;
        self.check_health(&peer, &outcome).await?;
        let again = Some(outcome.again);
        let authentication = match (outcome.identity, outcome.refusal) {
            (Some(identity), _) => Authentication::Known(identity.namespace),
            (None, failure) => Authentication::Unknown(failure),
        };
        self.act(&peer, Some(namespace), authentication, again).await
    }

    /// Ends everything between this cluster and a banned peer, last the tenant namespace. Whether the peer answers does not
    /// matter: it is not probed any more.
    async fn banish(&self, peer: &ClusterIdentity) -> Result<Option<Duration>, KubeError> {
        self.let_go().await?;
        self.world.checker.retain(|known| known != peer.cluster_id);
        let again = self.act(peer, self.tenant_known(peer), Authentication::Leaving, None).await?;
        let mut ending = None;
        for tenant in self.world.tenants(&peer.cluster_id) {
            let (cluster, name) = (&self.world.home.cluster, tenant.name_any());
            self.record(&tenant).await?;
            if tenant.metadata.deletion_timestamp.is_some() {
                ending = strip::tenant(cluster, &tenant).await?;
            } else if !self.world.is_in_use(&name, &peer.cluster_id) {
                tracing::info!(peer = peer.cluster_id, namespace = name, "tenant namespace of a banned peer ends");
                cluster.remove(&*tenant).await?;
            }
        }
        Ok(again.into_iter().chain(ending).min())
    }

    /// Records what is certified for a banned peer in a tenant namespace, which goes with the ban.
    async fn record(&self, tenant: &Namespace) -> Result<(), KubeError> {
        let secret = self.world.secrets.get(&tenant.name_any(), names::REMOTE_CERTIFICATE_SECRET);
        let certificate = secret.as_deref().and_then(record::certificate);
        match record::before_the_end(&self.one.metadata, &tenant.metadata, certificate.as_deref()) {
            Some(annotations) => self.annotate(annotations).await,
            None => Ok(()),
        }
    }

    /// Removes what was recorded of the time before a ban, once a certificate is stored again.
    async fn unrecord(&self, namespace: &str) -> Result<(), KubeError> {
        let is_recorded = self.one.annotations().contains_key(annotation::LAST_CERTIFICATE);
        let secret = self.world.secrets.get(namespace, names::REMOTE_CERTIFICATE_SECRET);
        match secret.as_deref().and_then(record::certificate).filter(|_| is_recorded) {
            Some(_) => self.annotate(json!({annotation::LAST_CERTIFICATE: null})).await,
            None => Ok(()),
        }
    }

    async fn annotate(&self, annotations: Value) -> Result<(), KubeError> {
        let patch = json!({"metadata": {"uid": self.one.uid(), "annotations": annotations}});
        self.world.home.cluster.merge(self.one.as_ref(), patch).await.map(drop)
    }

    fn is_identified(&self) -> bool {
        let identity = self.one.spec.cluster_identity.as_ref();
        identity.is_some_and(|identity| !identity.cluster_id.is_empty() && !identity.cluster_name.is_empty())
    }

    /// Asks the peer who it is.
    async fn identify(&self) -> Result<Option<Duration>, KubeError> {
        let spec = &self.one.spec;
        let known = spec.cluster_identity.clone().unwrap_or_default();
        let insecure = spec.insecure_skip_tls_verify.unwrap_or(true);
        let found = match auth_client::who(&self.world.home.reach, &spec.foreign_auth_url, insecure).await {
            Ok(found) => found,
            Err(refusal) => {
                tracing::warn!(object = self.one.name_any(), reason = ?refusal, "the peer did not say who it is");
                self.tell(&[condition::auth_not_reachable()], None, None).await?;
                return Ok(Some(WHO_AGAIN));
            }
        };
        let pick = |known: String, found: String| if known.is_empty() { found } else { known };
        let id = pick(known.cluster_id, found.cluster_id);
        let name = pick(known.cluster_name, found.cluster_name);
        if let Some(why) = dns_label_error(&id).or_else(|| dns_label_error(&name)) {
            tracing::warn!(object = self.one.name_any(), reason = why, "the peer says it is nobody");
            self.tell(&[condition::auth_not_reachable()], None, None).await?;
            return Ok(Some(WHO_AGAIN));
        }
        let patch = json!({
            "metadata": {"labels": {label::CLUSTER_ID: id}, "resourceVersion": self.one.resource_version()},
            "spec": {"clusterIdentity": {"clusterID": id, "clusterName": name}},
        });
        self.world.home.cluster.merge(self.one.as_ref(), patch).await?;
        Ok(None)
    }

    /// The finalizer of the checker holds nothing here: the probe ends with the object.
    async fn let_go(&self) -> Result<(), KubeError> {
        if self.one.finalizers().iter().any(|held| held == finalizer::API_SERVER_CHECKER) {
            self.world.home.cluster.release(self.one.as_ref(), finalizer::API_SERVER_CHECKER).await?;
        }
        Ok(())
    }

    /// Removes the token for a peer whose `ForeignCluster` is deleted. Once only, while the finalizer of the checker is there: a
    /// token that comes later is for the next peering.
    async fn forget_token(&self, peer: &ClusterIdentity) -> Result<(), KubeError> {
        let is_first = self.one.finalizers().iter().any(|held| held == finalizer::API_SERVER_CHECKER);
        let token = self.world.secrets.get(&self.world.home.namespace, &token_name(&peer.cluster_id));
        match token.filter(|_| is_first) {
            Some(token) => self.world.home.cluster.remove(&*token).await,
            None => Ok(()),
        }
    }

    /// Tells once that a request of the peer waits for a person.
    async fn ask_for_approval(&self, facts: &[Fact]) {
        let default = self.world.policy.accept_by_default;
        if let Some(fact) = facts.iter().find(|fact| condition::waits_for_approval(self.one, default, fact)) {
            let about = (&self.world.home.cluster, COMPONENT);
            self.world.told.warn(about, self.one.as_ref(), "", "ApprovalNeeded", &fact.message).await;
        }
    }

    fn tenant_known(&self, peer: &ClusterIdentity) -> Option<String> {
        self.world.ledger.tenant(&peer.cluster_id)
    }

    async fn tenant(&self, peer: &ClusterIdentity) -> Result<Tenant, KubeError> {
        let known = self.world.tenants(&peer.cluster_id);
        let claimed = |one: &Namespace| naming::claimed_tenant_of(one) == Some(&peer.cluster_id);
        for one in self.world.namespaces.filter(claimed) {
            if known.iter().all(|known| known.name_any() != one.name_any()) {
                let why = "the namespace carries the labels of a tenant namespace, but it is not the one of that peer: \
                           the labels are ignored";
                self.world
                    .told
                    .warn((&self.world.home.cluster, COMPONENT), &*one, "", "TenantNamespaceIgnored", why)
                    .await;
            }
        }
        let known: Vec<_> = known.iter().map(|one| one.as_ref().clone()).collect();
        tenant::ensure(&self.world.home.cluster, &known, peer).await
    }

    /// Whether the peer has made no offer for a request of ours that stands.
    fn is_unanswered(&self, tenant: &str, id: &str) -> bool {
        let stands = |one: &ResourceRequest| {
            one.metadata.deletion_timestamp.is_none() && one.spec.withdrawal_timestamp.is_none()
        };
        self.world.our_request(tenant, id).is_some_and(|one| stands(&one))
            && self.world.their_offer(tenant, id).is_none()
    }

    /// Has the API server of a peer whose identity we have probed, and shows that by the finalizer.
    async fn check_health(&self, peer: &ClusterIdentity, outcome: &Outcome) -> Result<(), KubeError> {
        let old = || identity::held(self.world, &peer.cluster_id);
        let Some(identity) = outcome.identity.clone().or_else(old) else { return Ok(()) };
        self.world.checker.watch(&peer.cluster_id, &identity);
        let held = self.one.finalizers().iter().any(|held| held == finalizer::API_SERVER_CHECKER);
        match (self.world.checker.is_on(), held) {
            (true, false) => {
                self.world.home.cluster.hold(self.one.as_ref(), finalizer::API_SERVER_CHECKER).await.map(drop)
            }
            (false, true) => self.let_go().await,
            _ => Ok(()),
        }
    }

    async fn act(
        &self,
        peer: &ClusterIdentity,
        namespace: Option<String>,
        authentication: Authentication,
        again: Option<Duration>,
    ) -> Result<Option<Duration>, KubeError> {
        let remote = match &authentication {
            Authentication::Known(remote) => Some(remote.clone()),
            _ => None,
        };
        let (id, inside) = (&peer.cluster_id, namespace.as_deref());
        let tenant = inside.unwrap_or_default();
        self.clear_false_requests(tenant).await?;
        let request = self.world.our_request(tenant, id);
        let network = self.network(peer, tenant);
        let grants::Grants { provider: grant, consumer } = self.world.grants(id);
        let plan = plan(&Observed {
            foreign_cluster: self.one,
            namespace: tenant,
            auto_join: self.world.policy.auto_join,
            accept_by_default: self.world.policy.accept_by_default,
            authentication,
            network,
            health: self.world.checker.health(id),
            request: request.as_deref(),
            offer_here: self.world.their_offer(tenant, id).as_deref(),
            their_request: self.world.their_request(tenant, id).as_deref(),
            our_offer: self.world.our_offer(tenant, id).as_deref(),
            desired: self.desired(),
            overdue: !grant.is_in_force(),
            taken_back: !consumer.is_in_force(),
            now: now(),
        });
        self.step(&plan, peer, inside, request.as_deref()).await?;
        self.tell(&plan.facts, namespace, remote).await?;
        self.ask_for_approval(&plan.facts).await;
        if plan.superfluous {
            tracing::info!(object = self.one.name_any(), "nobody uses this peer any more, removing it");
            self.world.home.cluster.remove(self.one.as_ref()).await?;
        }
        let at = now().0.as_second();
        let ends_in = grant.ends_in(at).filter(|_| request.is_some());
        Ok(again.into_iter().chain(plan.again).chain(ends_in).chain(consumer.ends_in(at)).min())
    }

    fn network(&self, peer: &ClusterIdentity, namespace: &str) -> Option<Fact> {
        let Some(tunnels) = &self.world.tunnels else { return Some(condition::network_external()) };
        // A TunnelEndpoint that is being deleted says nothing about the next peering.
        let found = tunnels.filter(|one| {
            one.metadata.deletion_timestamp.is_none()
                && one.labels().get(label::TUNNEL_CLUSTER_ID) == Some(&peer.cluster_id)
        });
        let problem = self.one.annotations().get(annotation::NETWORK_PROBLEM).map(String::as_str);
        condition::network(namespace, found.first().map(AsRef::as_ref), problem)
    }

    /// Writes the status, if anything in it is new.
    async fn tell(&self, facts: &[Fact], local: Option<String>, remote: Option<String>) -> Result<(), KubeError> {
        let old = self.one.status.clone().unwrap_or_default();
        let mut new = ForeignClusterStatus { tenant_namespace: old.tenant_namespace.clone(), ..old.clone() };
        let time = now();
        for fact in facts {
            tell(&mut new.peering_conditions, fact, &time);
        }
        new.tenant_namespace.local = local.or(new.tenant_namespace.local);
        new.tenant_namespace.remote = remote.or(new.tenant_namespace.remote);
        if new == old {
            return Ok(());
        }
        self.world.home.cluster.put_status(self.one.as_ref(), &new).await.map(drop)
    }
}

/// Whether a peer that has this health has been silent for too long; else when that will be.
pub(crate) fn is_dead(health: Option<Health>) -> (bool, Option<Duration>) {
    match health {
        Some(Health { ready: false, since }) => {
            let silent = since.elapsed();
            (silent >= DEAD_AFTER, DEAD_AFTER.checked_sub(silent))
        }
        _ => (false, None),
    }
}
