//! The server binary: chooses a role by the name it is called by, or by its first argument.
//!
//! Holds no logic. The names are those of the programs of Liqo 0.8.3, so that the chart's commands and
//! everything that looks at them stay as they are; `liqo-status`, and the roles of jobs, are new.

use std::{ffi::OsString, future::Future, path::Path, process::ExitCode};

use clap::Parser;
use liqo_api::role::{ROLES, Role};
use liqo_control::{manager, peering::auth, replicate};
use liqo_fabric::{gateway, manager as network, proxy, route};
use liqo_kube::role::live;
use liqo_results::mover;

fn main() -> ExitCode {
    let mut args: Vec<_> = std::env::args_os().collect();
    let called = |arg: Option<&OsString>| {
        arg.and_then(|arg| Path::new(arg).file_name()?.to_str().map(str::to_owned)).unwrap_or_default()
    };
    let mut program = called(args.first());
    if Role::called(&program).is_none() && args.len() > 1 {
        args.remove(0);
        program = called(args.first());
    }
    match run(&program, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => failed(&why),
    }
}

/// The entry of each role.
fn run(program: &str, args: Vec<OsString>) -> Result<(), String> {
    match program {
        "liqo-controller-manager" => live::<manager::ManagerArgs>(args),
        "crd-replicator" => live::<replicate::ReplicatorArgs>(args),
        "auth-service" => live::<auth::AuthArgs>(args),
        "virtual-kubelet" => live::<liqo_kubelet::KubeletArgs>(args),
        "liqo-network-manager" => live::<network::ManagerArgs>(args),
        "liqo-gateway" => live::<gateway::GatewayArgs>(args),
        "liqo-route" => live::<route::RouteArgs>(args),
        "liqo-proxy" => live::<proxy::ProxyArgs>(args),
        "liqo-jobs" => live::<liqo_jobs::JobsArgs>(args),
        "liqo-jobs-api" => live::<liqo_jobs_api::ApiArgs>(args),
        "liqo-status" => live::<liqo_status::StatusArgs>(args),
        "liqo-mover" => {
            liqo_kube::role::end_on_panic();
            alone(mover::run(mover::MoverArgs::parse_from(args)))
        }
        // In the store, nothing but connections are tasks of their own, and one of them must not end the others.
        "liqo-store" => alone(liqo_store::run(liqo_store::StoreArgs::parse_from(args))),
        _ => Err(format!(
            "call me as, or with the first argument, one of: {}",
            ROLES.map(|role| role.program).join(", ")
        )),
    }
}

/// A role that knows no Kubernetes lives without the frame of the others.
fn alone(role: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    liqo_kube::certs::install_crypto();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(role)
}

#[expect(clippy::print_stderr, reason = "a process that cannot start has no log yet")]
fn failed(why: &str) -> ExitCode {
    eprintln!("liqo: {why}");
    ExitCode::FAILURE
}
