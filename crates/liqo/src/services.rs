//! The server binary of the services that stand on the platform.
//!
//! Holds no logic. A binary of its own, so that the processes of the platform do not load the code of services.

use std::{future::Future, process::ExitCode};

use clap::Parser;
use liqo_api::role::SERVICES;
use liqo_kube::role::live;
use liqo_results::mover;

fn main() -> ExitCode {
    liqo::start(SERVICES, |program, args| {
        Some(match program {
            "liqo-jobs" => live::<liqo_jobs::JobsArgs>(args),
            "liqo-jobs-api" => live::<liqo_jobs_api::ApiArgs>(args),
            "liqo-broker" => live::<liqo_broker::BrokerArgs>(args),
            "liqo-agent" => live::<liqo_agent::AgentArgs>(args),
            "liqo-status" => live::<liqo_status::StatusArgs>(args),
            "liqo-mover" => {
                liqo_kube::role::end_on_panic();
                alone(mover::run(mover::MoverArgs::parse_from(args)))
            }
            // In the store, nothing but connections are tasks of their own, and one of them must not end the others.
            "liqo-store" => alone(liqo_store::run(liqo_store::StoreArgs::parse_from(args))),
            _ => return None,
        })
    })
}

/// A role that knows no Kubernetes lives without the frame of the others.
fn alone(role: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    liqo_kube::certs::install_crypto();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(role)
}
