//! Join tokens of the cluster we talk to: made for one guest, or for whoever comes first.
//!
//! Writes    Secret `auth-token-once-<digits>`; no other token is replaced.

use std::time::Duration;

use anyhow::{anyhow, bail};
use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};
use liqo_api::{ClusterIdentity, names};
pub(crate) use liqo_core::join_token::For;
use liqo_core::{join_token, naming::cluster_id_error};
use liqo_kube::{Cluster, now};
use ring::rand::SecureRandom;

use crate::{flag, here};

/// How long a token is good, unless something else is said.
pub(crate) const LIFE: &str = "24h";
/// The longest life of a token: a token is for one join, and its Secret is a key to this cluster while it lasts.
const LONGEST_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// The life of a token as a flag says it: from one second to a year.
pub(crate) fn life(text: &str) -> Result<Duration, String> {
    let life = flag::duration(text)?;
    let is_bounded = (Duration::from_secs(1)..=LONGEST_LIFE).contains(&life);
    if is_bounded {
        Ok(life)
    } else {
        Err(format!("a token ends after 1s at the earliest and 8760h at the latest, not {text}"))
    }
}

/// A token that was made.
pub(crate) struct Made {
    pub(crate) token: String,
    /// Until when it is good, and the Secret it lies in; `None` for the token of the cluster.
    pub(crate) secret: Option<(String, String)>,
}

/// Makes a token that is valid for `life`. For a release without such tokens (Liqo 0.8.3) the cluster's own token is returned.
pub(crate) async fn make(
    cluster: &Cluster,
    namespace: &str,
    local: &ClusterIdentity,
    whom: For<'_>,
    life: Duration,
) -> anyhow::Result<Made> {
    if let For::Guest(guest) = whom {
        check(guest, local)?;
    }
    if !here::knows_one_time_tokens(cluster, namespace).await? {
        return Ok(Made { token: here::token(cluster, namespace).await?, secret: None });
    }
    let secret = new_token()?;
    let end = Timestamp::from_second(now().0.as_second().saturating_add(life.as_secs().cast_signed()))?.to_string();
    if let For::Guest(guest) = whom {
        let own = format!("{}-{guest}", names::AUTH_TOKEN_SECRET);
        if cluster.get::<Secret>(namespace, &own).await?.is_some_and(|own| here::token_of(&own).is_none()) {
            bail!("secret {namespace}/{own} has no token, which shuts that cluster out: delete it and try again");
        }
    }
    let name = join_token::secret_name(&secret);
    cluster.create(&join_token::one_time(namespace, whom, &secret, &end)).await?;
    let token = match here::pin(cluster, namespace).await? {
        Some(pin) => join_token::with_pin(&secret, &pin),
        None => secret,
    };
    Ok(Made { token, secret: Some((end, name)) })
}

fn check(guest: &str, local: &ClusterIdentity) -> anyhow::Result<()> {
    if let Some(why) = cluster_id_error(guest) {
        return Err(anyhow!("the cluster ID {guest:?} {why}"));
    }
    if guest == local.cluster_id {
        return Err(anyhow!("{guest} is the ID of this cluster, not of the one that will peer with it"));
    }
    Ok(())
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
    fn a_token_has_128_hex_digits() {
        let token = new_token().unwrap();
        assert!(token.len() == 128 && token.chars().all(|c| c.is_ascii_hexdigit()));
        assert_ne!(token, new_token().unwrap());
    }

    #[test]
    fn a_token_ends_within_a_year() {
        for (text, good) in
            [("1s", true), ("24h", true), ("8760h", true), ("8761h", false), ("9999999h", false), ("0", false)]
        {
            assert_eq!(life(text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn a_guest_is_another_cluster() {
        let local = ClusterIdentity::new("16fbeaec-e4e4-41dc-9eea-170ce95d7dd9", "milan");
        assert!(check("09897b82-7830-483b-b786-9cf90899f809", &local).is_ok());
        for bad in ["", "rome", &local.cluster_id] {
            assert!(check(bad, &local).is_err(), "{bad}");
        }
    }
}
