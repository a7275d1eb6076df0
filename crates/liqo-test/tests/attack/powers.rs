//! What whoever takes over a gateway or the network manager can write: both answer strangers, and roles alone would let both
//! change more than they do. All writes are dry runs.

use anyhow::{Result, bail};
use liqo_test::{Cluster, run::output};

use super::pod::named;

/// What comes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The request is admitted.
    Done,
    /// No role gives the right.
    NoRight,
    /// A role gives the right, and a policy for components refuses.
    Refused,
}

use End::{Done, NoRight, Refused};

pub(crate) fn are_small(rome: &Cluster) -> Result<()> {
    let (gateway, manager) = (named(rome, "liqo", "liqo-gateway")?, named(rome, "liqo", "liqo-controller-manager")?);
    let image = r#"{"spec":{"containers":[{"name":"controller-manager","image":"stranger"}]}}"#;
    let part = r#"{"metadata":{"labels":{"app.kubernetes.io/name":"controller-manager"}}}"#;
    let patch = |kind: &'static str, name: &str, patch: &str| {
        let words = ["patch", kind, name, "-n", "liqo", "--type=strategic", "-p", patch];
        words.map(str::to_owned).to_vec()
    };
    let merge =
        |patch: &str| ["patch", "foreigncluster", "turin", "--type=merge", "-p", patch].map(str::to_owned).to_vec();
    let lease = |name: &str| patch("lease", name, r#"{"spec":{"holderIdentity":"stranger"}}"#);
    for (account, args, end) in [
        ("liqo-gateway", patch("pod", &gateway, r#"{"metadata":{"labels":{"net.liqo.io/gateway":"standby"}}}"#), Done),
        ("liqo-gateway", patch("pod", &manager, image), Refused),
        ("liqo-gateway", patch("pod", &gateway, part), Refused),
        ("liqo-gateway", patch("pod", &gateway, r#"{"metadata":{"annotations":{"a":"b"}}}"#), Refused),
        (
            "liqo-gateway",
            patch(
                "service",
                "liqo-gateway",
                r#"{"metadata":{"annotations":{"net.liqo.io/gatewayNodeIP":"192.0.2.1"}}}"#,
            ),
            Done,
        ),
        ("liqo-gateway", patch("service", "liqo-gateway", r#"{"spec":{"selector":{"a":"b"}}}"#), Refused),
        ("liqo-gateway", patch("service", "liqo-auth", r#"{"metadata":{"annotations":{"a":"b"}}}"#), NoRight),
        (
            "liqo-gateway",
            ["create", "secret", "generic", "auth-token-once-x", "-n", "liqo"].map(str::to_owned).to_vec(),
            NoRight,
        ),
        ("liqo-gateway", lease("1d5hml1.gateway.net.liqo.io"), Done),
        ("liqo-gateway", lease("66cf253f.ctrlmgr.liqo.io"), NoRight),
        ("liqo-network-manager", lease("66cf253f.ctrlmgr.liqo.io"), NoRight),
        ("liqo-network-manager", merge(r#"{"metadata":{"annotations":{"net.liqo.io/problem":"x"}}}"#), Done),
        ("liqo-network-manager", merge(r#"{"spec":{"incomingPeeringEnabled":"Yes"}}"#), Refused),
        (
            "liqo-network-manager",
            merge(r#"{"metadata":{"annotations":{"liqo.io/tenant-condition":null,"a":"b"}}}"#),
            Refused,
        ),
        ("liqo-network-manager", merge(r#"{"metadata":{"labels":{"a":"b"}}}"#), Refused),
    ] {
        let user = format!("--as=system:serviceaccount:liqo:{account}");
        let outcome = output(rome.kubectl_command().args(&args).args([&user, "--dry-run=server"]));
        let said = outcome.as_ref().err().map(|error| format!("{error:#}")).unwrap_or_default();
        let is_so = match end {
            Done => outcome.is_ok(),
            NoRight => said.contains("cannot"),
            Refused => said.contains("a component of the networks changes the"),
        };
        if !is_so {
            bail!("as {account}, {args:?}: {outcome:?}, not {end:?}");
        }
    }
    Ok(())
}
