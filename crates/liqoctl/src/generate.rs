//! `liqoctl generate peer-command`: the command that lets another cluster take resources from this one.
//!
//! Writes    the Secret of a token, see there.

use std::time::Duration;

use anyhow::{Context, ensure};
use liqo_api::ClusterIdentity;
use serde::Serialize;

use crate::{
    clusters::{ConnectionArgs, NamespaceArgs},
    here,
    out::{Format, Out},
    token::{self, For, Made},
};

/// Arguments of `generate`.
#[derive(Clone, Debug, clap::Args)]
#[command(subcommand_value_name = "COMMAND")]
pub(crate) struct GenerateArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Generate the command to execute on another cluster to peer with the current cluster
    ///
    /// The command holds a token, made anew each time: the first cluster that uses it may take resources from this
    /// one, and nobody else afterwards. With --for-cluster-id it is good for that cluster only, which may then also
    /// come with a new key (because it was installed anew, say). A token ends after --expires-in.
    ///
    /// Tokens are Secrets in the namespace of Liqo, to be listed and revoked there:
    ///   kubectl get secrets -n liqo -l liqo.io/one-time-token -o custom-columns="\
    /// NAME:.metadata.name,FOR:.metadata.labels.discovery\.liqo\.io/cluster-id,\
    /// EXPIRES:.metadata.annotations.liqo\.io/token-expires,USED BY:.metadata.annotations.liqo\.io/token-used-by"
    ///   kubectl delete secret -n liqo auth-token-once-0123456789abcdef
    /// A new token replaces none. A token that has ended is listed for a week, so that a refusal can be explained.
    ///
    /// Examples:
    ///   liqoctl generate peer-command
    ///   liqoctl generate peer-command --expires-in 10m --output json
    ///   liqoctl generate peer-command --only-command --for-cluster-id 09897b82-7830-483b-b786-9cf90899f809
    #[command(verbatim_doc_comment)]
    PeerCommand(PeerCommandArgs),
}

#[derive(Clone, Debug, clap::Args)]
struct PeerCommandArgs {
    /// Print only the command, without explanation
    #[arg(long)]
    only_command: bool,
    /// Make a token that only the cluster with this ID can use
    #[arg(long, value_name = "ID")]
    for_cluster_id: Option<String>,
    /// How long the token is good, at most a year (8760h)
    #[arg(long, default_value = token::LIFE, value_parser = token::life, value_name = "DURATION")]
    expires_in: Duration,
    /// Print the parts of the command for programs
    #[arg(short, long, value_enum, value_name = "FORMAT", conflicts_with = "only_command")]
    output: Option<Format>,
    #[command(flatten)]
    liqo: NamespaceArgs,
}

/// The parts of the command.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Invitation {
    #[serde(rename = "clusterID")]
    cluster_id: String,
    cluster_name: String,
    auth_url: String,
    auth_token: String,
    /// Until when the token is good; none for the token of a cluster that knows no others.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    /// Name of the Secret that holds the token; deleting the Secret revokes the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_secret: Option<String>,
    command: String,
}

/// `liqoctl generate …`
pub(crate) async fn run(args: GenerateArgs, connection: &ConnectionArgs, program: &str) -> anyhow::Result<()> {
    let What::PeerCommand(args) = args.what;
    let PeerCommandArgs { only_command, for_cluster_id, expires_in, output, liqo } = args;
    let out = Out::new(only_command || output.is_some());
    let step = (!only_command).then(|| out.step("Retrieving peering information"));
    let whom = for_cluster_id.as_deref().map_or(For::First, For::Guest);
    let invitation = invite(connection, &liqo.namespace, whom, expires_in, program);
    let invitation = invitation.await.context("Failed to retrieve peering information")?;
    if let Some(step) = step {
        step.done("Peering information correctly retrieved");
    }
    if let Some(format) = output {
        return out.value(&invitation, format);
    }
    if !only_command {
        if let Some(end) = &invitation.expires {
            out.info(format!("The token is good for one cluster, until {end}"));
        }
        out.plain(
            "\nExecute this command on a *different* cluster to enable an outgoing peering with the current cluster:\n",
        );
    }
    out.data(&invitation.command)
}

async fn invite(
    connection: &ConnectionArgs,
    namespace: &str,
    whom: For<'_>,
    life: Duration,
    program: &str,
) -> anyhow::Result<Invitation> {
    let cluster = connection.open().await?.cluster;
    let local = here::identity(&cluster, namespace).await?;
    let auth_url = here::auth_url(&cluster, namespace).await?;
    let Made { token, secret } = token::make(&cluster, namespace, &local, whom, life).await?;
    let knows_guests = secret.is_some() || matches!(whom, For::First);
    ensure!(knows_guests, "the release of Liqo in this cluster knows one token for all: leave out --for-cluster-id");
    let (expires, token_secret) = secret.unzip();
    let command = command(program, &local, &auth_url, &token);
    let ClusterIdentity { cluster_id, cluster_name } = local;
    Ok(Invitation { cluster_id, cluster_name, auth_url, auth_token: token, expires, token_secret, command })
}

fn command(program: &str, local: &ClusterIdentity, auth_url: &str, token: &str) -> String {
    let name = if local.cluster_name.is_empty() { &local.cluster_id } else { &local.cluster_name };
    let id = &local.cluster_id;
    format!("{program} peer out-of-band {name} --auth-url {auth_url} --cluster-id {id} --auth-token {token}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_the_documented_one() {
        let local = ClusterIdentity::new("id", "rome");
        let wanted = "liqoctl peer out-of-band rome --auth-url https://a.b --cluster-id id --auth-token t";
        assert_eq!(command("liqoctl", &local, "https://a.b", "t"), wanted);
        let nameless = ClusterIdentity::new("id", "");
        assert!(command("./liqoctl", &nameless, "https://a.b", "t").starts_with("./liqoctl peer out-of-band id "));
    }
}
