//! `EndpointSlice` to `ShadowEndpointSlice`: what of a Service runs here, for its clients there.
//!
//! Endpoints on our own virtual node are left out, there they are ordinary pods. Where Liqo connects the networks,
//! addresses are those the peer must use; only IPv4 is carried then, slices of IPv6 are refused. Host names, and
//! addresses on networks that something else connects, go through as they are.
//!
//! Keeps true: an endpoint that goes, or is no longer ready, is told at once, whether the IPAM answers or not. While
//! it does not, an endpoint keeps the address its twin shows; a new one waits. An address is wanted from the IPAM
//! as long as the slice has it or the twin shows it.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use kube::ResourceExt;
use liqo_api::{
    meta::{annotation, label},
    virtualkubelet::{EndpointSliceTemplate, ShadowEndpointSlice, ShadowEndpointSliceSpec},
};
use liqo_kube::twin::{Forged, Reflect};

use super::{
    complaint::Complain,
    service::is_api_server,
    twin_meta::{SKIPPED, is_skipped, metadata},
};
use crate::{
    link::Link,
    translate::{Answer, View},
};

/// Told where endpoints have addresses the tunnel does not carry.
const ONLY_IPV4: &str = "for IPv6 endpoints: the network between the clusters carries IPv4 only";

/// When Kubernetes last changed the endpoints of a slice, in an annotation.
const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Whether a Service shall not be reflected; `None` while that is not known yet.
pub(super) type ServiceSkipped = Arc<dyn Fn(&str) -> Option<bool> + Send + Sync>;

#[derive(Clone)]
pub(super) struct EndpointSlices {
    pub(super) link: Arc<Link>,
    pub(super) service_skipped: ServiceSkipped,
    /// How addresses look there.
    pub(super) view: Arc<View>,
    pub(super) complain: Complain<EndpointSlice>,
}

/// The Service a slice belongs to.
pub(super) fn service_of(slice: &EndpointSlice) -> Option<&str> {
    slice.labels().get(label::SERVICE_NAME).map(String::as_str)
}

/// Whether an endpoint of a slice has this address.
pub(super) fn has_address(slice: &EndpointSlice, ip: IpAddr) -> bool {
    let addresses = slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses);
    addresses.into_iter().any(|address| address.parse() == Ok(ip))
}

/// Whether a slice shall have a twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Reflected,
    /// It shall not, for a reason the user should know.
    Refused(&'static str),
    /// It shall not, and nobody wonders.
    Ignored,
    Unknown,
}

impl EndpointSlices {
    fn verdict(&self, here: &EndpointSlice) -> Verdict {
        let service = service_of(here).unwrap_or_default();
        if is_api_server(here.namespace().as_deref(), service) {
            return Verdict::Ignored;
        }
        if is_skipped(here) {
            return Verdict::Refused(SKIPPED);
        }
        match (self.service_skipped)(service) {
            Some(false) if self.view.wishes().is_some() && here.address_type == "IPv6" => Verdict::Refused(ONLY_IPV4),
            Some(false) => Verdict::Reflected,
            Some(true) => Verdict::Refused(SKIPPED),
            None => Verdict::Unknown,
        }
    }

    /// Endpoints that do not run there.
    fn endpoints<'a>(&'a self, here: &'a EndpointSlice) -> impl Iterator<Item = &'a Endpoint> {
        here.endpoints.iter().flatten().filter(|endpoint| endpoint.node_name.as_deref() != Some(&self.link.node))
    }
}

impl Reflect for EndpointSlices {
    const NAME: &'static str = "endpoint-slice";
    type Here = EndpointSlice;
    type There = ShadowEndpointSlice;
    type Seen = ShadowEndpointSlice;
    const RECORD: Option<&'static str> = Some(annotation::ORIGINAL_UID);
    const IMMUTABLE: &'static [&'static str] = &["/spec/template/addressType"];

    fn look(
        &self,
        name: &str,
        here: Option<&EndpointSlice>,
        there: Option<&ShadowEndpointSlice>,
        _seen: Option<&ShadowEndpointSlice>,
    ) {
        let Some(wishes) = self.view.wishes() else { return };
        let verdict = here.map_or(Verdict::Ignored, |here| self.verdict(here));
        let wanted: BTreeSet<_> = match (here, verdict) {
            (Some(here), Verdict::Reflected) => self.endpoints(here).flat_map(addresses).collect(),
            (_, Verdict::Unknown) => return,
            _ => BTreeSet::new(),
        };
        let shown: BTreeSet<_> =
            there.iter().flat_map(|twin| &twin.spec.template.endpoints).flat_map(addresses).collect();
        let is_shown = |ip: &IpAddr| matches!(wishes.answer(*ip), Answer::Known(there) if shown.contains(&there));
        let still = wishes.of(name).into_iter().filter(is_shown);
        let refusal = wanted.iter().find_map(|ip| Some((*ip, wishes.lasting_refusal(*ip)?)));
        wishes.set(name, wanted.iter().copied().chain(still).collect());
        let complaint = here.zip(refusal).map(|(here, (ip, why))| {
            let peer = &self.link.there.cluster_name;
            (here, format!("Endpoint left out for cluster \"{peer}\": no address for {ip} there: {why}"))
        });
        (self.complain)(name, complaint);
    }

    fn forge(&self, here: &EndpointSlice, there: Option<&ShadowEndpointSlice>) -> Forged<ShadowEndpointSlice> {
        match self.verdict(here) {
            Verdict::Reflected => {}
            Verdict::Refused(why) => return Forged::Nothing(Some(why.to_owned())),
            Verdict::Ignored => return Forged::Nothing(None),
            Verdict::Unknown => return Forged::NotYet,
        }
        let shown = there.map(|there| there.spec.template.endpoints.as_slice()).unwrap_or_default();
        let twins = self.endpoints(here).map(|endpoint| twin(endpoint, &self.link, shown, |ip| self.view.answer(ip)));
        let Some(endpoints) = twins.collect::<Option<Vec<_>>>() else { return Forged::NotYet };
        let template = EndpointSliceTemplate {
            endpoints: endpoints.into_iter().flatten().collect(),
            ports: here.ports.clone().unwrap_or_default(),
            address_type: here.address_type.clone(),
        };
        let mut metadata = metadata(here, &self.link);
        let labels = metadata.labels.get_or_insert_default();
        labels.insert(label::ENDPOINT_SLICE_MANAGED_BY.to_owned(), label::ENDPOINT_SLICE_MANAGER.to_owned());
        // Endpoints that run there come and go without any change of the twin: then no time has come either.
        if let Some(there) = there.filter(|there| there.spec.template == template)
            && let Some(annotations) = &mut metadata.annotations
        {
            annotations.remove(LAST_CHANGE);
            annotations.extend(there.annotations().get(LAST_CHANGE).map(|time| (LAST_CHANGE.to_owned(), time.clone())));
        }
        Forged::Make(Box::new(ShadowEndpointSlice { metadata, spec: ShadowEndpointSliceSpec { template } }))
    }

    fn ours(&self, there: &ShadowEndpointSlice) -> bool {
        self.link.made(there)
    }
}

/// The addresses of an endpoint; its host names are none.
fn addresses(endpoint: &Endpoint) -> impl Iterator<Item = IpAddr> {
    endpoint.addresses.iter().filter_map(|address| address.parse().ok())
}

/// An endpoint for the peer: `Some(None)` for an endpoint without a usable address, `None` while the IPAM is asked about an
/// address. `shown` are the endpoints of the twin.
fn twin(
    endpoint: &Endpoint,
    link: &Link,
    shown: &[Endpoint],
    answer: impl Fn(IpAddr) -> Answer,
) -> Option<Option<Endpoint>> {
    let target_ref = endpoint.target_ref.clone().map(|mut target| {
        target.kind = target.kind.map(|kind| format!("Remote{kind}"));
        target
    });
    let mut addresses = Vec::new();
    for address in &endpoint.addresses {
        match address.parse::<IpAddr>().map(&answer) {
            Err(_) => addresses.push(address.clone()),
            Ok(Answer::Known(there)) => addresses.push(there.to_string()),
            Ok(Answer::Asking) => return None,
            Ok(Answer::Failed) => {}
        }
    }
    if addresses.is_empty() {
        let same = |shown: &&Endpoint| target_ref.is_some() && shown.target_ref == target_ref;
        addresses = shown.iter().find(same).map(|shown| shown.addresses.clone()).unwrap_or_default();
    }
    if addresses.is_empty() {
        return Some(None);
    }
    let hints = endpoint.hints.clone().map(|mut hints| {
        // Our nodes are none of theirs.
        hints.for_nodes = None;
        hints
    });
    Some(Some(Endpoint {
        addresses,
        conditions: Some(conditions(endpoint)),
        hints,
        hostname: endpoint.hostname.clone(),
        node_name: Some(link.here.cluster_name.clone()),
        target_ref,
        zone: endpoint.zone.clone(),
        deprecated_topology: None,
    }))
}

/// The conditions `ready` and `serving` of an endpoint. `serving` is left out where it equals `ready`, as Liqo 0.8.3 always
/// leaves it out: Kubernetes then takes `ready` for `serving`.
fn conditions(endpoint: &Endpoint) -> EndpointConditions {
    let all = endpoint.conditions.clone().unwrap_or_default();
    let says_more =
        all.terminating == Some(true) || all.serving.is_some_and(|serving| serving != all.ready.unwrap_or(true));
    if says_more { all } else { EndpointConditions { ready: all.ready, ..EndpointConditions::default() } }
}

#[cfg(test)]
mod tests;
