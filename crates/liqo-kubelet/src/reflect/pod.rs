//! `Pod` to `ShadowPod`, and the status of the pod made from it back.
//!
//! Watches   `Pod` here (all of the node), `ShadowPod` and `Pod` there.
//! Writes    `ShadowPod` there; `Pod` status here, with the first one the label `liqo.io/shadowPod`.
//! Asks      the IPAM, where Liqo connects the networks, for our API server's address there before a pod is sent; where there is
//!           no tunnel, for the pod's address here before that is told. Other news do not wait for it longer than for one question.
//! Removes   `ShadowPod` there; `Pod` here, without grace, when it was to go and nothing is left there.

mod affinity;
mod downward;
mod fields;
mod refusal;
mod spec;
mod status;

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};
use kube::ResourceExt;
use liqo_api::{
    meta::{annotation, label, reason::OFFLOADING_ABORTED},
    virtualkubelet::{ShadowPod, ShadowPodSpec},
};
use liqo_kube::{
    Queue,
    twin::{Back, Farewell, Forged, Reflect},
};
use serde_json::{Value, json};

use self::status::{Addresses, Restarts};
use super::{
    Cx,
    complaint::{self, Complain},
    needs::Needs,
    twin_meta::metadata,
};
use crate::{
    args::DownwardApi,
    link::Link,
    translate::{Answer, View},
};

pub(in crate::reflect) use spec::service_account;
pub(crate) use spec::{API_SERVER_NAMES, ApiServer, ApiSupport};

/// Seconds a pod has to end unless it says so.
const GRACE: i64 = 30;
/// A status for which nobody waits is written together with later changes of the pod within this time.
const PATIENCE: Duration = Duration::from_secs(2);
/// That a new pod is being started goes without saying for so long.
const PATIENCE_AT_START: Duration = Duration::from_secs(10);
/// The mark of a pod that runs in another cluster.
const MARK: (&str, &str) = (label::SHADOW_POD, "true");

/// Pods of one pair of namespaces.
pub(super) struct Pods {
    link: Arc<Link>,
    support: ApiSupport,
    downward_api: DownwardApi,
    /// How addresses of pods there look here; `None` while they are kept to themselves.
    here_view: Option<View>,
    /// How our API server looks there.
    there_view: View,
    complain: Complain<Pod>,
    /// What is not there as it is here.
    incomplete: Complain<Pod>,
    /// What the provider does not make, in its words.
    refused: Complain<Pod>,
    needs: Needs,
    /// Whether everything a pod needs before it can start is there: its tokens.
    provided: Box<dyn Fn(&Pod) -> bool + Send + Sync>,
    /// Whether a pod of that name is still here.
    exists: Box<dyn Fn(&str) -> bool + Send + Sync>,
    restarts: Mutex<HashMap<String, Restarts>>,
}

impl Pods {
    /// Pods of the namespace `namespace`. Those whose addresses become known are named in `queue`.
    pub(super) fn new(
        cx: &Cx,
        (namespace, queue): (&str, &Queue<String>),
        needs: Needs,
        provided: impl Fn(&Pod) -> bool + Send + Sync + 'static,
        exists: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Self {
        let scope = format!("pods/{namespace}");
        Self {
            link: Arc::clone(&cx.link),
            support: cx.support.clone(),
            downward_api: cx.downward_api,
            here_view: (!cx.addresses.are_hidden()).then(|| cx.addresses.pods(&scope, queue)),
            there_view: cx.addresses.endpoints(&scope, queue),
            complain: complaint::by_event(&cx.home, "Pod", complaint::FAILED),
            incomplete: complaint::by_event(&cx.home, "Pod", complaint::INCOMPLETE),
            refused: complaint::by_event(&cx.home, "Pod", refusal::REFUSED),
            needs,
            provided: Box::new(provided),
            exists: Box::new(exists),
            restarts: Mutex::default(),
        }
    }

    fn restarts(&self, here: &Pod, there: &Pod) -> Restarts {
        let mut known = self.restarts.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() == known.capacity() {
            known.retain(|name, _| (self.exists)(name));
        }
        let name = here.name_any();
        let restarts = status::restarts(known.get(&name), here, there);
        known.insert(name, restarts.clone());
        restarts
    }
}

/// What the user must know of a pod that is not there as it is here. What was left out when the twin was made is told
/// then, and not again after each restart.
fn lacks(here: &Pod, twin: Option<&PodSpec>, refused: impl Fn(&Pod) -> Vec<String>) -> Option<String> {
    let none = PodSpec::default();
    let spec = here.spec.as_ref().unwrap_or(&none);
    let mut all = match twin {
        None => fields::left_out(spec).into_iter().collect(),
        Some(twin) => fields::unheeded(spec, twin),
    };
    let waits = here.status.as_ref().and_then(|status| status.phase.as_deref()).is_none_or(|phase| phase == "Pending");
    if waits {
        all.extend(refused(here));
    }
    (!all.is_empty()).then(|| all.join("; "))
}

/// The address of our API server that pods there need translated, if any.
fn api_server(support: &ApiSupport) -> Option<IpAddr> {
    match support {
        ApiSupport::Tokens(server) => server.alias.as_ref()?.parse().ok(),
        ApiSupport::Disabled => None,
    }
}

/// What pods there are told about our API server; `None` while its address there is not known.
fn support_there(support: &ApiSupport, answer: impl Fn(IpAddr) -> Answer) -> Option<ApiSupport> {
    let mut support = support.clone();
    if let Some(ip) = api_server(&support)
        && let ApiSupport::Tokens(server) = &mut support
    {
        let Answer::Known(there) = answer(ip) else { return None };
        server.alias = Some(there.to_string());
    }
    Some(support)
}

/// Whether the pod was given up earlier, because its namespace was not offloaded then.
fn is_aborted(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    status.is_some_and(|status| {
        status.phase.as_deref() == Some("Failed") && status.reason.as_deref() == Some(OFFLOADING_ABORTED)
    })
}

/// Whether the mark of offloaded pods is there.
fn is_marked(pod: &Pod) -> bool {
    pod.labels().get(MARK.0).is_some_and(|value| value == MARK.1)
}

impl Reflect for Pods {
    const NAME: &'static str = "pod";
    type Here = Pod;
    type There = ShadowPod;
    type Seen = Pod;
    const RECORD: Option<&'static str> = Some(annotation::ORIGINAL_UID);
    const FAREWELL: Farewell = Farewell::Delete;

    fn fits(&self, here: &Pod, there: &ShadowPod) -> bool {
        there.spec.pod.as_ref().is_none_or(|spec| fields::fits(here, spec))
    }

    fn last_words(&self, here: &Pod, _there: &ShadowPod, seen: Option<&Pod>) -> Option<Value> {
        seen.filter(|seen| seen.metadata.deletion_timestamp.is_none())?;
        let seconds = shorter_grace(here)?.to_string();
        Some(json!({"metadata": {"annotations": {annotation::GRACE_SECONDS: seconds}}}))
    }

    fn shares_status(&self, here: &Pod) -> bool {
        here.spec.as_ref().is_some_and(|spec| spec.readiness_gates.as_ref().is_some_and(|gates| !gates.is_empty()))
    }

    fn mark(&self, here: &Pod) -> Option<(&'static str, &'static str)> {
        (!is_marked(here)).then_some(MARK)
    }

    fn look(&self, name: &str, here: Option<&Pod>, there: Option<&ShadowPod>, seen: Option<&Pod>) {
        let lacks = here.filter(|here| here.metadata.deletion_timestamp.is_none()).and_then(|here| {
            let twin = there.and_then(|there| there.spec.pod.as_ref());
            let peer = &self.link.there.cluster_name;
            Some((here, format!("In cluster \"{peer}\": {}", lacks(here, twin, |pod| self.needs.refused(pod))?)))
        });
        (self.incomplete)(name, lacks);
        let words = here.and_then(|here| Some((here, refusal::words(&self.link.there.cluster_name, there)?)));
        (self.refused)(name, words);
        let seen = here.and(seen).and_then(|seen| seen.status.as_ref());
        if let Some(view) = &self.here_view {
            let all = seen.map(status::addresses).unwrap_or_default();
            view.set(name, all.into_iter().filter_map(|ip| ip.parse().ok()).collect());
        }
        // As long as the pod is here the one there may use it.
        let api_server = here.and(api_server(&self.support));
        self.there_view.set(name, BTreeSet::from_iter(api_server));
        let refusal = api_server.and_then(|ip| Some((ip, self.there_view.wishes()?.lasting_refusal(ip)?)));
        let complaint = here.zip(refusal).map(|(here, (ip, why))| {
            let peer = &self.link.there.cluster_name;
            (here, format!("Pod waits: no address for the API server {ip} in cluster \"{peer}\": {why}"))
        });
        (self.complain)(name, complaint);
    }

    fn forge(&self, here: &Pod, there: Option<&ShadowPod>) -> Forged<ShadowPod> {
        if is_aborted(here) {
            return Forged::Nothing(None);
        }
        let is = there.and_then(|there| there.spec.pod.as_ref());
        if is.is_none() && !(self.provided)(here) {
            return Forged::NotYet;
        }
        let none = PodSpec::default();
        let spec = here.spec.as_ref().unwrap_or(&none);
        let pod = match is {
            Some(is) => spec::refresh(is, spec),
            None => {
                let support = support_there(&self.support, |ip| self.there_view.answer(ip));
                let Some(support) = support else { return Forged::NotYet };
                let mut spec = PodSpec {
                    affinity: affinity::forge(here),
                    ..spec::forge(&here.name_any(), spec, &self.link.here.cluster_id, &support)
                };
                if self.downward_api == DownwardApi::Home {
                    downward::tell_home(&mut spec, here);
                }
                spec
            }
        };
        let mut metadata = metadata(here, &self.link);
        metadata.labels.get_or_insert_default().remove(MARK.0);
        if let Some((key, value)) = downward::annotations(&pod, here) {
            metadata.annotations.get_or_insert_default().insert(key, value);
        }
        if let Some(gates) = status::gates_told(here) {
            metadata.annotations.get_or_insert_default().insert(annotation::READINESS_GATES.to_owned(), gates);
        }
        Forged::Make(Box::new(ShadowPod { metadata, spec: ShadowPodSpec { pod: Some(pod) }, status: None }))
    }

    fn ours(&self, there: &ShadowPod) -> bool {
        self.link.made(there)
    }

    fn ours_seen(&self, seen: &Pod) -> bool {
        self.link.made(seen)
    }

    fn refused(&self, here: &Pod, why: &str) -> Option<Value> {
        refusal::status(here, Some(why)).as_ref().map(value)
    }

    fn back(&self, here: &Pod, twin: Option<&ShadowPod>, seen: Option<&Pod>) -> Back {
        let Some((seen, there)) = seen.and_then(|seen| Some((seen, seen.status.as_ref()?))) else {
            let words = refusal::words(&self.link.there.cluster_name, twin);
            let status = twin.and_then(|_| refusal::status(here, words.as_deref()));
            return status.map_or(Back::Nothing, |status| Back::Status(value(&status)));
        };
        // The pod here was given up, or has ended: a last word from there does not bring it back.
        if is_aborted(here) || status::is_past(here, seen) {
            return Back::Nothing;
        }
        let pod_ips = match &self.here_view {
            None => Some(Vec::new()),
            Some(view) => status::pod_ips(here, there, |ip| view.answer(ip)),
        };
        // The answer brings us back in a moment, with all news in one.
        let Some(pod_ips) = pod_ips else { return Back::Nothing };
        let addresses = Addresses { node_ip: &self.link.node_ip, pod_ips };
        let mut status = status::forge(here, there, addresses, &self.restarts(here, seen));
        if has_unheeded(here, twin) {
            // Nobody has acted on this generation.
            status.observed_generation = here.status.as_ref().and_then(|status| status.observed_generation);
        }
        let status = value(&status);
        if is_marked(here) && here.status.as_ref().map(value).as_ref() == Some(&status) {
            Back::Nothing
        } else if here.metadata.deletion_timestamp.is_none() && here.status.as_ref().is_some_and(|is| alike(is, there))
        {
            Back::Soon(status, if status::is_starting(there) { PATIENCE_AT_START } else { PATIENCE })
        } else {
            Back::Status(status)
        }
    }
}

/// Whether two statuses say the same to those who wait for a pod: whether it serves, and whether it has ended.
fn alike(one: &PodStatus, other: &PodStatus) -> bool {
    let ready = |status: &PodStatus| {
        let mut conditions = status.conditions.iter().flatten();
        conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    let ended = |status: &PodStatus| status.phase.clone().filter(|phase| phase == "Succeeded" || phase == "Failed");
    ready(one) == ready(other) && ended(one) == ended(other)
}

/// Whether the pod here was changed in a way its twin does not follow.
fn has_unheeded(here: &Pod, twin: Option<&ShadowPod>) -> bool {
    let twin = twin.and_then(|twin| twin.spec.pod.as_ref());
    here.spec.as_ref().zip(twin).is_some_and(|(here, twin)| !fields::unheeded(here, twin).is_empty())
}

/// The seconds a pod that is being deleted has to end, where the caller gave it fewer than the pod asks for.
fn shorter_grace(here: &Pod) -> Option<i64> {
    let own = here.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(GRACE);
    here.metadata.deletion_grace_period_seconds.filter(|seconds| *seconds < own)
}

fn value(status: &PodStatus) -> Value {
    serde_json::to_value(status).expect("a status is JSON")
}

#[cfg(test)]
mod tests;
