//! The one memory of addresses: a [`Plan`] in the `IpamStorage` of this cluster, changed by as many replicas as there are.
//!
//! Watches   `IpamStorage`.
//! Writes    `IpamStorage`: makes it, replaces its whole spec.
//! Removes   nothing.

use liqo_api::net::{IpamStorage, IpamStorageSpec};
use liqo_ipam::{Loaded, Plan};
use liqo_kube::ledger::{self, Kept};

/// The ledger of addresses.
pub(crate) type Ledger = ledger::Ledger<Addresses>;

/// How addresses are kept. A storage made by Liqo 0.8.3 has another name, and is found by the label.
pub(crate) struct Addresses;

impl Kept for Addresses {
    type Value = Plan;
    type Object = IpamStorage;
    type Spec = IpamStorageSpec;

    const NAME: &'static str = "address-storage";
    const LABEL: &'static str = "net.liqo.io/ipamstorage=true";

    fn blank() -> IpamStorage {
        let mut new = IpamStorage::new("ipamstorage", IpamStorageSpec::default());
        let label = Self::LABEL.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        new.metadata.labels = label.map(|label| [label].into());
        new
    }

    fn spec(object: &IpamStorage) -> &IpamStorageSpec {
        &object.spec
    }

    fn load(spec: &IpamStorageSpec) -> Plan {
        let Loaded { plan, left_out } = Plan::load(spec);
        for what in left_out {
            tracing::warn!(what, "not understood in the address storage, left out");
        }
        plan
    }

    fn store(plan: &Plan) -> IpamStorageSpec {
        plan.store()
    }
}

/// Whether a plan says which networks are ours; it does not while the storage is new, or after it was deleted.
pub(crate) fn is_configured(plan: &Plan) -> bool {
    plan.own().is_ok()
}
