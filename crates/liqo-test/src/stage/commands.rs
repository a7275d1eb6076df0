//! The commands for peering that a provider hands to a consumer.

use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};

use super::Stage;
use crate::Cluster;

impl Stage {
    /// The arguments of the command that peers with `provider`.
    ///
    /// # Errors
    /// When it cannot be generated.
    pub fn peer_command(&self, provider: &Cluster) -> Result<Vec<String>> {
        self.peer_command_with(provider, &[])
    }

    /// The arguments of `liqoctl` for peering with `provider`, after the key of `consumer` has changed.
    ///
    /// # Errors
    /// When it cannot be generated.
    pub fn peer_command_anew(&self, provider: &Cluster, consumer: &Cluster) -> Result<Vec<String>> {
        let id = self.peer_value(consumer, "--cluster-id")?;
        self.peer_command_with(provider, &["--for-cluster-id", &id])
    }

    /// The arguments of the command that peers with `provider` by the one token of the cluster, as Liqo 0.8.3 generates it.
    ///
    /// # Errors
    /// When the command cannot be generated, or the cluster has no token.
    pub fn peer_command_of_cluster(&self, provider: &Cluster) -> Result<Vec<String>> {
        let secret = provider.json(&["secret", "-n", "liqo", "auth-token"])?;
        let token = BASE64_STANDARD.decode(secret["data"]["token"].as_str().context("no token")?)?;
        let mut words = self.peer_command(provider)?;
        let place = words.iter().position(|word| word == "--auth-token").context("no --auth-token")?;
        *words.get_mut(place + 1).context("no token")? = String::from_utf8(token)?;
        Ok(words)
    }

    fn peer_command_with(&self, provider: &Cluster, more: &[&str]) -> Result<Vec<String>> {
        let printed = self.liqoctl(provider, &[&["generate", "peer-command", "--only-command"][..], more].concat())?;
        let words: Vec<_> = printed.split_whitespace().map(str::to_owned).collect();
        ensure!(words.get(1).is_some_and(|word| word == "peer"), "not a command: {printed}");
        Ok(words[1..].to_vec())
    }

    /// One value of the command that peers with `provider`, by its flag.
    ///
    /// # Errors
    /// When the command has no such flag.
    pub fn peer_value(&self, provider: &Cluster, flag: &str) -> Result<String> {
        let words = self.peer_command(provider)?;
        let place = words.iter().position(|word| word == flag).with_context(|| format!("no {flag}"))?;
        words.get(place + 1).cloned().with_context(|| format!("no value of {flag}"))
    }
}
