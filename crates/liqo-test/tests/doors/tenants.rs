//! The cap on tenants.

use anyhow::{Result, ensure};
use liqo_test::Stage;

/// A namespace that counts as the one of a tenant.
const TAKEN: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: liqo-tenant-taken, labels: \
                     {discovery.liqo.io/tenant-namespace: 'true'}}";

/// While the only place is taken, a cluster with a good token is not let in and is told why; then the cluster gets in by itself.
pub(crate) fn one_cluster_and_no_more(stage: &Stage) -> Result<()> {
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
    rome.apply(TAKEN)?;
    let command = stage.peer_command(rome)?;
    let words: Vec<_> = command.iter().map(String::as_str).chain(["--timeout", "8s"]).collect();
    let said = stage.refused(milan, &words)?;
    ensure!(said.contains("auth.config.maxTenants"), "milan is not told why: {said}");
    let tenants = rome.items(&["namespaces", "-l", "discovery.liqo.io/tenant-namespace=true"])?;
    ensure!(tenants.len() == 1, "rome has {} tenants", tenants.len());
    rome.kubectl(&["delete", "namespace", "liqo-tenant-taken"])?;
    milan.wait_peering("rome", "OutgoingPeering", "Established")
}
