//! The broker of this cluster: what its agent was told.

use anyhow::{Context, anyhow, bail};
use k8s_openapi::{
    ByteString,
    api::{apps::v1::Deployment, core::v1::Secret},
};
use liqo_kube::Cluster;
use liqo_market_client::{Access, Broker};

use crate::here;

/// The Deployment that is told where the broker is.
const AGENT: &str = "liqo-agent";
/// The volume with the token and the authority.
const VOLUME: &str = "broker";
const HOW: &str = "take part in a market with `liqoctl install … --set agent.enabled=true,agent.broker.url=https://HOST,\
    agent.broker.secretName=NAME`";

/// This cluster, and the broker that it asks.
pub(super) struct Site {
    pub(super) cluster: Cluster,
    pub(super) broker: Broker,
    /// Cluster ID.
    pub(super) id: String,
}

/// What an agent was told about the broker.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    url: String,
    /// Namespace of the reservations at the broker; empty: none.
    namespace: String,
    secret: String,
}

impl Site {
    /// Reads what the agent was told.
    pub(super) async fn open(cluster: Cluster, namespace: &str) -> anyhow::Result<Self> {
        let id = here::identity(&cluster, namespace).await?.cluster_id;
        let agent: Option<Deployment> = cluster.get(namespace, AGENT).await.context("looking for the agent")?;
        let agent = agent.with_context(|| format!("this cluster has no agent: {HOW}"))?;
        let told = told(&agent).with_context(|| format!("the agent of this cluster names no broker: {HOW}"))?;
        let secret = cluster.get::<Secret>(namespace, &told.secret).await;
        let secret =
            secret.context("reading the token for the broker, which the administrators of this cluster may")?;
        let access = access(secret.and_then(|secret| secret.data), &told.secret)?;
        let broker = Broker::new(&told.url, access, told.namespace).map_err(|why| anyhow!(why))?;
        Ok(Self { cluster, broker, id })
    }
}

fn told(agent: &Deployment) -> Option<Told> {
    let pod = agent.spec.template.spec.as_ref()?;
    let value = |flag: &str| here::words(agent).find_map(|word| word.strip_prefix(flag)).map(str::to_owned);
    let volume = pod.volumes.iter().flatten().find(|volume| volume.name == VOLUME)?;
    Some(Told {
        url: value("--broker-url=")?,
        namespace: value("--broker-namespace=").unwrap_or_default(),
        secret: volume.secret.as_ref()?.secret_name.clone()?,
    })
}

fn access(data: Option<std::collections::BTreeMap<String, ByteString>>, name: &str) -> anyhow::Result<Access> {
    let mut data = data.unwrap_or_default();
    let (Some(token), Some(authority)) = (data.remove("token"), data.remove("ca.crt")) else {
        bail!("the Secret {name} must have the keys token and ca.crt: the operator of the broker gives both");
    };
    let token = String::from_utf8(token.0).with_context(|| format!("the token in the Secret {name} is no text"))?;
    Ok(Access::Given(token, authority.0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_agent_says_where_the_broker_is() {
        let agent = |args: &[&str]| -> Deployment {
            serde_json::from_value(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": AGENT},
                "spec": {"selector": {}, "template": {"spec": {
                    "containers": [{"name": "agent", "args": args}],
                    "volumes": [{"name": "tls"}, {"name": "broker", "secret": {"secretName": "access"}}]}}}}))
            .unwrap()
        };
        let all = agent(&["--broker-url=https://b:1", "--broker-namespace=rome", "--provide"]);
        let wanted = Told { url: "https://b:1".into(), namespace: "rome".into(), secret: "access".into() };
        assert_eq!(told(&all), Some(wanted));
        assert_eq!(told(&agent(&["--broker-url=https://b"])).unwrap().namespace, "");
        assert_eq!(told(&agent(&["--provide"])), None);
    }

    #[test]
    fn a_secret_without_a_key_says_which_keys_there_must_be() {
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        let half = [("token".to_owned(), bytes("t"))].into();
        let error = format!("{:#}", access(Some(half), "access").err().unwrap());
        assert!(error.contains("token and ca.crt"), "{error}");
        let both = [("token".to_owned(), bytes("t")), ("ca.crt".to_owned(), bytes("c"))].into();
        assert!(matches!(access(Some(both), "access").unwrap(), Access::Given(token, _) if token == "t"));
    }
}
