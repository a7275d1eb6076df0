//! What follows from an offer that came from a peer. All pure.

use kube::ResourceExt;
use liqo_api::{
    meta::finalizer,
    sharing::{OfferPhase, ResourceOffer, ResourceOfferStatus, VirtualKubeletStatus},
};

/// Everything the decision depends on.
pub(super) struct Seen<'a> {
    pub(super) offer: &'a ResourceOffer,
    /// A request of ours exists, and stands or may still be taken back.
    pub(super) requested: bool,
    /// A request of ours stands, to a peer that makes sense.
    pub(super) wanted: bool,
    /// The Deployment of the virtual kubelet exists.
    pub(super) has_kubelet: bool,
    /// Offers are accepted without a person.
    pub(super) accept: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Course {
    /// Nothing.
    Rest,
    /// Only write the status.
    Tell(ResourceOfferStatus),
    /// Run a virtual kubelet.
    Run,
    /// Wait until the virtual kubelet has drained its node; it does so when the offer is withdrawn or removed.
    Drain { remove: bool },
    /// Take the virtual kubelet away.
    Clear,
}

/// Decides.
pub(super) fn plan(seen: &Seen<'_>) -> Course {
    let offer = seen.offer;
    let status = offer.status.clone().unwrap_or_default();
    let leaving = offer.metadata.deletion_timestamp.is_some() || offer.spec.withdrawal_timestamp.is_some();
    let phase = match status.phase {
        OfferPhase::Pending if seen.accept => OfferPhase::Accepted,
        OfferPhase::Pending => OfferPhase::ManualActionRequired,
        other => other,
    };
    if !leaving && seen.wanted && phase == OfferPhase::Accepted {
        return Course::Run;
    }
    let holds = |finalizer: &str| offer.finalizers().iter().any(|held| held == finalizer);
    if holds(finalizer::NODE) {
        // Nothing else would ever make the kubelet drain: nobody withdraws what nobody has asked for.
        let remove = !leaving && (!seen.requested || status.phase == OfferPhase::Refused);
        return Course::Drain { remove };
    }
    let runs = status.virtual_kubelet_status != VirtualKubeletStatus::None;
    if seen.has_kubelet || runs || holds(finalizer::VIRTUAL_KUBELET) {
        return Course::Clear;
    }
    let asks = ResourceOfferStatus { phase, virtual_kubelet_status: VirtualKubeletStatus::None };
    if !leaving && seen.wanted && offer.status.as_ref() != Some(&asks) {
        return Course::Tell(asks);
    }
    Course::Rest
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn offer(status: Value, finalizers: &[&str], withdrawn: bool, deleting: bool) -> ResourceOffer {
        let time = |set: bool| if set { json!("2026-01-01T00:00:00Z") } else { Value::Null };
        serde_json::from_value(json!({
            "metadata": {"name": "milan", "finalizers": finalizers, "deletionTimestamp": time(deleting)},
            "spec": {"clusterId": "16fbeaec", "withdrawalTimestamp": time(withdrawn)},
            "status": status,
        }))
        .unwrap()
    }

    fn status(phase: &str, kubelet: &str) -> Value {
        json!({"phase": phase, "virtualKubeletStatus": kubelet})
    }

    const NODE: &str = "liqo.io/node";
    const KUBELET: &str = "liqo.io/virtualkubelet";

    #[test]
    fn an_accepted_offer_runs_and_a_withdrawn_one_goes_after_its_node() {
        let pending = || offer(Value::Null, &[], false, false);
        let running = |withdrawn, deleting| offer(status("Accepted", "Created"), &[KUBELET, NODE], withdrawn, deleting);
        let drained = || offer(status("Accepted", "Created"), &[KUBELET], true, false);
        let seen = |offer: &ResourceOffer, requested, wanted, has_kubelet| {
            plan(&Seen { offer, requested, wanted, has_kubelet, accept: true })
        };
        assert_eq!(seen(&pending(), true, true, false), Course::Run);
        assert_eq!(seen(&running(false, false), true, true, true), Course::Run);
        assert_eq!(seen(&running(false, false), true, false, true), Course::Drain { remove: false });
        assert_eq!(seen(&running(true, false), true, false, true), Course::Drain { remove: false });
        assert_eq!(seen(&drained(), true, false, true), Course::Clear);
        assert_eq!(seen(&offer(status("Accepted", "None"), &[], true, false), true, false, false), Course::Rest);
        // Orphans.
        assert_eq!(seen(&pending(), false, false, false), Course::Rest);
        assert_eq!(seen(&running(false, false), false, false, true), Course::Drain { remove: true });
        assert_eq!(seen(&running(false, true), false, false, true), Course::Drain { remove: false });
        assert_eq!(seen(&offer(status("Accepted", "Created"), &[], false, false), false, false, false), Course::Clear);
    }

    #[test]
    fn a_person_may_decide() {
        let decide = |offer: &ResourceOffer| {
            plan(&Seen { offer, requested: true, wanted: true, has_kubelet: false, accept: false })
        };
        let asks = ResourceOfferStatus { phase: OfferPhase::ManualActionRequired, ..ResourceOfferStatus::default() };
        assert_eq!(decide(&offer(Value::Null, &[], false, false)), Course::Tell(asks));
        assert_eq!(decide(&offer(status("ManualActionRequired", "None"), &[], false, false)), Course::Rest);
        assert_eq!(decide(&offer(status("Accepted", "None"), &[], false, false)), Course::Run);
        assert_eq!(decide(&offer(status("Refused", "None"), &[], false, false)), Course::Rest);
        let refused = offer(status("Refused", "Created"), &[KUBELET, NODE], false, false);
        assert_eq!(decide(&refused), Course::Drain { remove: true });
    }
}
