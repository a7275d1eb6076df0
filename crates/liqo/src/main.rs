//! The server binary: chooses a role by the name it is called by, or by its first argument.
//!
//! Holds no logic. The names are those of the programs of Liqo 0.8.3, so that the chart's commands and
//! everything that looks at them stay as they are; `liqo-status`, and the roles of jobs, are new.

use std::{future::Future, path::Path, process::ExitCode};

use clap::Parser;
use liqo_control::{manager, peering::auth, replicate};
use liqo_fabric::{gateway, manager as network, proxy, route};
use liqo_jobs as jobs;
use liqo_jobs_api as jobs_api;
use liqo_kubelet as kubelet;
use liqo_results::mover;
use liqo_status as status;
use liqo_store as store;

/// The roles, as they are called.
const ROLES: [&str; 13] = [
    "liqo-controller-manager",
    "crd-replicator",
    "auth-service",
    "virtual-kubelet",
    "liqo-network-manager",
    "liqo-gateway",
    "liqo-route",
    "liqo-proxy",
    "liqo-jobs",
    "liqo-jobs-api",
    "liqo-mover",
    "liqo-store",
    "liqo-status",
];

fn main() -> ExitCode {
    let mut args: Vec<_> = std::env::args_os().collect();
    let called = |arg: Option<&std::ffi::OsString>| {
        arg.and_then(|arg| Path::new(arg).file_name()?.to_str().map(str::to_owned)).unwrap_or_default()
    };
    let mut role = called(args.first());
    if !ROLES.contains(&role.as_str()) && args.len() > 1 {
        args.remove(0);
        role = called(args.first());
    }
    // In the store, nothing but connections are tasks of their own, and one of them must not end the others.
    if role != "liqo-store" {
        end_on_panic();
    }
    liqo_kube::certs::install_crypto();
    match role.as_str() {
        "liqo-controller-manager" => live(manager::run(manager::ManagerArgs::parse_from(args))),
        "crd-replicator" => live(replicate::run(replicate::ReplicatorArgs::parse_from(args))),
        "auth-service" => live(auth::run(auth::AuthArgs::parse_from(args))),
        "virtual-kubelet" => live(kubelet::run(kubelet::KubeletArgs::parse_from(args))),
        "liqo-network-manager" => live(network::run(network::ManagerArgs::parse_from(args))),
        "liqo-gateway" => live(gateway::run(gateway::GatewayArgs::parse_from(args))),
        "liqo-route" => live(route::run(route::RouteArgs::parse_from(args))),
        "liqo-proxy" => live(proxy::run(proxy::ProxyArgs::parse_from(args))),
        "liqo-jobs" => live(jobs::run(jobs::JobsArgs::parse_from(args))),
        "liqo-jobs-api" => live(jobs_api::run(jobs_api::ApiArgs::parse_from(args))),
        "liqo-status" => live(status::run(status::StatusArgs::parse_from(args))),
        "liqo-mover" => live(mover::run(mover::MoverArgs::parse_from(args))),
        "liqo-store" => live(store::run(store::StoreArgs::parse_from(args))),
        _ => failed(&format!("call me as, or with the first argument, one of: {}", ROLES.join(", "))),
    }
}

/// A task that panicked must not leave the rest half alive: the process ends and is started again. Work for one key, peer
/// or request is guarded instead, because what one peer sends must not end the work for all.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        if !liqo_kube::guard::is_guarded() {
            std::process::abort();
        }
    }));
}

/// One thread is enough for each role, and keeps it small.
fn live(role: impl Future<Output = Result<(), String>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(|error| error.to_string()).and_then(|runtime| runtime.block_on(role)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => failed(&why),
    }
}

#[expect(clippy::print_stderr, reason = "a process that cannot start has no log yet")]
fn failed(why: &str) -> ExitCode {
    eprintln!("liqo: {why}");
    ExitCode::FAILURE
}
