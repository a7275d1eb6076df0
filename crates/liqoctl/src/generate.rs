//! `liqoctl generate peer-command`: the command that lets another cluster take resources from this one.
//!
//! Writes    Secret `auth-token-<cluster ID>`, only with --for-cluster-id.

use std::collections::BTreeMap;

use anyhow::{Context, anyhow};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::api::ObjectMeta;
use liqo_api::{ClusterIdentity, meta::label, names};
use liqo_core::naming::dns_label_error;
use liqo_kube::Cluster;
use ring::rand::SecureRandom;
use serde::Serialize;

use crate::{
    clusters::{ConnectionArgs, NamespaceArgs},
    here,
    out::{Format, Out},
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
    /// The command holds a token: whoever has it may take resources from this cluster. With --for-cluster-id
    /// the token is good for that cluster only, and that cluster accepts no other one.
    ///
    /// Examples:
    ///   liqoctl generate peer-command
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
    command: String,
}

/// `liqoctl generate …`
pub(crate) async fn run(args: GenerateArgs, connection: &ConnectionArgs, program: &str) -> anyhow::Result<()> {
    let What::PeerCommand(args) = args.what;
    let PeerCommandArgs { only_command, for_cluster_id, output, liqo } = args;
    let out = Out::new(only_command || output.is_some());
    let step = (!only_command).then(|| out.step("Retrieving peering information"));
    let invitation = invite(connection, &liqo.namespace, for_cluster_id.as_deref(), program);
    let invitation = invitation.await.context("Failed to retrieve peering information")?;
    if let Some(step) = step {
        step.done("Peering information correctly retrieved");
    }
    if let Some(format) = output {
        return out.value(&invitation, format);
    }
    if !only_command {
        out.plain(
            "\nExecute this command on a *different* cluster to enable an outgoing peering with the current cluster:\n",
        );
    }
    out.data(&invitation.command)
}

async fn invite(
    connection: &ConnectionArgs,
    namespace: &str,
    guest: Option<&str>,
    program: &str,
) -> anyhow::Result<Invitation> {
    let cluster = connection.open().await?.cluster;
    let local = here::identity(&cluster, namespace).await?;
    let token = match guest {
        Some(guest) => token_for(&cluster, namespace, guest, &local).await?,
        None => here::token(&cluster, namespace).await?,
    };
    let auth_url = here::auth_url(&cluster, namespace).await?;
    let command = command(program, &local, &auth_url, &token);
    let ClusterIdentity { cluster_id, cluster_name } = local;
    Ok(Invitation { cluster_id, cluster_name, auth_url, auth_token: token, command })
}

fn command(program: &str, local: &ClusterIdentity, auth_url: &str, token: &str) -> String {
    let name = if local.cluster_name.is_empty() { &local.cluster_id } else { &local.cluster_name };
    let id = &local.cluster_id;
    format!("{program} peer out-of-band {name} --auth-url {auth_url} --cluster-id {id} --auth-token {token}")
}

/// The token of one cluster; made when it is asked for the first time.
async fn token_for(cluster: &Cluster, namespace: &str, guest: &str, local: &ClusterIdentity) -> anyhow::Result<String> {
    if let Some(why) = dns_label_error(guest) {
        return Err(anyhow!("the cluster ID {guest:?} {why}"));
    }
    if guest == local.cluster_id {
        return Err(anyhow!("{guest} is the ID of this cluster, not of the one that will peer with it"));
    }
    let name = format!("{}-{guest}", names::AUTH_TOKEN_SECRET);
    loop {
        let found: Option<Secret> = cluster.get(namespace, &name).await?;
        if let Some(secret) = found {
            let token = here::token_of(&secret);
            return token.with_context(|| format!("secret {namespace}/{name} has no token: delete it and try again"));
        }
        match cluster.create(&guest_secret(namespace, &name, guest, &new_token()?)).await {
            Err(error) if !error.is_conflict() => return Err(error.into()),
            // Read it again, also after our own write: what is stored counts.
            _ => {}
        }
    }
}

fn guest_secret(namespace: &str, name: &str, guest: &str, token: &str) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some([(label::CLUSTER_ID.to_owned(), guest.to_owned())].into()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(names::TOKEN_KEY.to_owned(), ByteString(token.as_bytes().to_vec()))])),
        ..Secret::default()
    }
}

/// 64 random bytes, as 128 hex digits.
fn new_token() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 64];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow!("this machine gives no random numbers"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
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

    #[test]
    fn a_token_has_128_hex_digits() {
        let token = new_token().unwrap();
        assert!(token.len() == 128 && token.chars().all(|c| c.is_ascii_hexdigit()));
        assert_ne!(token, new_token().unwrap());
    }
}
