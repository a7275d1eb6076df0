//! Role `controller-manager`: everything that is decided once per cluster.

use std::{sync::Arc, time::Duration};

use liqo_kube::{args::RuntimeArgs, drain::Patience, life::Life, role::Role};

pub use crate::args::ManagerArgs;
use crate::{
    admit,
    door::Policy,
    home::Home,
    memory::Memory,
    offload,
    peering::{self, Settings, issuer::Issuer},
};

/// The lease that says which replica decides; the name is that of Liqo 0.8.3.
const LEASE: &str = "66cf253f.ctrlmgr.liqo.io";

/// API servers reach the webhooks through a Service, whose endpoints change a moment after the signal.
const WEBHOOKS: Patience = Patience { accept: Duration::from_secs(3), finish: Duration::from_secs(10) };

/// Every replica answers webhooks and the authentication service; only one decides.
impl Role for ManagerArgs {
    const NAME: &'static str = "controller-manager";
    const PATIENCE: Patience = WEBHOOKS;

    fn runtime(&self) -> &RuntimeArgs {
        &self.runtime
    }

    async fn run(self, life: Life) -> Result<(), String> {
        let busy = life.busy();
        let home = Home::open(&self.runtime, &self.home, "liqo-controller-manager", true).await?;
        life.count_calls("home", &home.cluster);
        let memory = Memory::watch(&home, !self.disable_internal_network);
        let issuer = Arc::new(Issuer::new(&home, &self.identities, &memory)?);
        let policy = Policy::watch(&home);
        admit::spawn(&home, &self, (&memory, &issuer, &policy), &life)?;
        drop(busy);
        let settings = Settings::read(&self.peering)?;
        if self.enable_leader_election {
            life.lead(&home.cluster, &home.namespace, LEASE, &self.pod_name).await;
        }
        let ledger = memory.ledger(&home, settings.policy);
        peering::spawn(&home, &self, (&memory, ledger.clone(), settings), &issuer, &life);
        offload::spawn(&home, &self, (memory, ledger, policy), &life)
    }
}
