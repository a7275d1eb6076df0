//! Role `controller-manager`: everything that is decided once per cluster.

use std::{sync::Arc, time::Duration};

use liqo_kube::{drain::Patience, lease, life::Life};

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

/// Runs the controller manager until SIGTERM. Every replica answers webhooks and the authentication service; only one
/// decides.
///
/// # Errors
/// A text that says why it could not start.
pub async fn run(args: ManagerArgs) -> Result<(), String> {
    let life = Life::start("controller-manager", &args.runtime).await?;
    let home = Home::open(&args.runtime, &args.home, "liqo-controller-manager").await?;
    let calls = Arc::clone(home.cluster.calls());
    life.metrics(move || calls.text("home"));
    let issuer = Arc::new(Issuer::new(&home, &args.identities)?);
    let policy = Policy::watch(&home);
    let memory = Memory::watch(&home, !args.disable_internal_network);
    admit::spawn(&home, &args, (&memory, &issuer, &policy), &life)?;
    tokio::select! {
        () = life.until_signal() => {}
        outcome = decide(&home, &args, (memory, &issuer, policy), &life) => return outcome,
    }
    // Controllers go on until the webhooks have ended: the next leader takes over from one that is gone.
    life.drained(WEBHOOKS).await;
    if args.enable_leader_election {
        lease::release(&home.cluster, &home.namespace, LEASE, &args.pod_name).await;
    }
    Ok(())
}

async fn decide(
    home: &Home,
    args: &ManagerArgs,
    (memory, issuer, policy): (Memory, &Issuer, Policy),
    life: &Life,
) -> Result<(), String> {
    let settings = Settings::read(&args.peering)?;
    if args.enable_leader_election {
        lease::lead(&home.cluster, life, &home.namespace, LEASE, &args.pod_name).await;
    }
    let ledger = memory.ledger(home, settings.policy);
    peering::spawn(home, args, (&memory, ledger.clone(), settings), issuer, life);
    offload::spawn(home, args, (memory, ledger, policy), life)?;
    std::future::pending().await
}
