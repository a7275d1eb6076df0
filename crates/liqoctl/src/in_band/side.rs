//! One of the two clusters: how it is reached, and what it says of itself.

use anyhow::{Context, anyhow, bail};
use k8s_openapi::api::core::v1::{Secret, Service};
use liqo_api::{ClusterIdentity, names, net::IpamStorage};
use liqo_core::peering::{Gateway, in_band::Address};
use liqo_kube::Cluster;

use super::gateway::{self, Reachability};
use crate::{
    flag, here,
    out::Out,
    token::{self, For},
};

/// Label of the one IpamStorage of a cluster.
pub(crate) const STORAGE_LABEL: &str = "net.liqo.io/ipamstorage=true";
/// The Service of the proxy.
const PROXY_SERVICE: &str = "liqo-proxy";

/// One of the two clusters.
pub(crate) struct Side {
    pub(crate) cluster: Cluster,
    /// Where Liqo lives there.
    pub(crate) namespace: String,
    /// Lines about it.
    pub(crate) out: Out,
    pub(crate) identity: ClusterIdentity,
}

/// Everything the other side must know.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) pod_cidr: String,
    pub(crate) external_cidr: String,
    pub(crate) gateway: Gateway,
    pub(crate) reach: Reachability,
    pub(crate) auth: Address,
    pub(crate) proxy: Address,
}

impl Side {
    /// Asks the cluster who it is.
    pub(crate) async fn meet(cluster: Cluster, namespace: String, out: Out) -> anyhow::Result<Self> {
        let step = out.step("Retrieving cluster identity");
        let identity = here::identity(&cluster, &namespace).await?;
        if identity.cluster_name.is_empty() {
            bail!("cluster {} has no name: Liqo is still starting, see `liqoctl status`", identity.cluster_id);
        }
        step.done("cluster identity correctly retrieved");
        Ok(Self { cluster, namespace, out, identity })
    }

    /// Asks for everything else; each thing that is missing is an error that says so.
    pub(crate) async fn facts(&self) -> anyhow::Result<Facts> {
        let Self { cluster, namespace, out, .. } = self;
        let step = out.step("Retrieving network configuration");
        if !here::connects_networks(cluster, namespace).await? {
            bail!("cluster network is not managed by Liqo, cannot perform in-band peering");
        }
        let storages: Vec<IpamStorage> = cluster.list("", STORAGE_LABEL).await?;
        let (pod_cidr, external_cidr) = ranges(&storages).map_err(|why| anyhow!(why))?;
        step.done("network configuration correctly retrieved");

        let step = out.step("Retrieving wireGuard configuration");
        let service: Option<Service> = cluster.get(namespace, gateway::SERVICE).await?;
        let keys: Vec<Secret> = cluster.list(namespace, gateway::KEY_LABEL).await?;
        let (gateway, reach) = gateway::gateway(service.as_ref(), &keys).map_err(|why| anyhow!(why))?;
        match warning(&gateway.address, &reach) {
            None => step.done("wireGuard configuration correctly retrieved"),
            Some(warning) => step.warn(format!("wireGuard configuration correctly retrieved: {warning}")),
        }

        let step = out.step("Retrieving authentication endpoint");
        let auth = self.service(names::AUTH_SERVICE, "https").await?;
        step.done("authentication endpoint correctly retrieved");

        let step = out.step("Retrieving proxy endpoint");
        let proxy = self.service(PROXY_SERVICE, "http").await?;
        step.done("proxy endpoint correctly retrieved");
        Ok(Facts { pod_cidr, external_cidr, gateway, reach, auth, proxy })
    }

    /// A new token for `peer` only.
    pub(crate) async fn token(&self, peer: &ClusterIdentity) -> anyhow::Result<String> {
        let step = self.out.step("Retrieving authentication token");
        let life = flag::duration(token::LIFE).map_err(|why| anyhow!(why))?;
        let whom = For::Guest(&peer.cluster_id);
        let made = token::make(&self.cluster, &self.namespace, &self.identity, whom, life).await?;
        step.done("authentication token correctly retrieved");
        Ok(made.token)
    }

    /// The addresses a peer was given others for: proxy and authentication service, as far as they exist.
    pub(crate) async fn shown(&self) -> anyhow::Result<Vec<(&'static str, Address)>> {
        let mut all = Vec::new();
        for (what, name, port) in [("proxy", PROXY_SERVICE, "http"), ("auth", names::AUTH_SERVICE, "https")] {
            if self.cluster.get::<Service>(&self.namespace, name).await?.is_some() {
                all.push((what, self.service(name, port).await?));
            }
        }
        Ok(all)
    }

    async fn service(&self, name: &str, port: &str) -> anyhow::Result<Address> {
        let service: Option<Service> = self.cluster.get(&self.namespace, name).await?;
        let service = service.with_context(|| format!("service {}/{name} does not exist", self.namespace))?;
        address(&service, port).map_err(|why| anyhow!("service {}/{name} {why}", self.namespace))
    }
}

/// Pod network and external network, as the address management keeps them.
fn ranges(storages: &[IpamStorage]) -> Result<(String, String), String> {
    let known = storages.iter().map(|one| (&one.spec.pod_cidr, &one.spec.external_cidr));
    let mut known = known.filter(|(pods, external)| !pods.is_empty() && !external.is_empty());
    match (known.next(), known.next()) {
        (Some((pods, external)), None) => Ok((pods.clone(), external.clone())),
        (None, _) => {
            Err("the address management has not chosen its ranges yet: is liqo-network-manager running?".into())
        }
        (Some(_), Some(_)) => Err(format!("there is more than one IpamStorage with label {STORAGE_LABEL}")),
    }
}

/// What may keep a peer from beginning the conversation.
fn warning(address: &str, reach: &Reachability) -> Option<String> {
    match reach {
        Reachability::Open => None,
        Reachability::Private => Some(format!("endpoint IP {address:?} seems to be private.")),
        Reachability::Closed(why) => {
            Some(format!("{why}, so it cannot be reached from outside and has to begin itself."))
        }
    }
}

/// The address and the port of that name (or the only one) of a Service.
fn address(service: &Service, name: &str) -> Result<Address, String> {
    let spec = service.spec.clone().unwrap_or_default();
    let ip = spec.cluster_ip.unwrap_or_default();
    let ip = ip.parse().map_err(|_| format!("has no cluster IP ({ip:?})"))?;
    let ports = spec.ports.unwrap_or_default();
    let port = ports.iter().find(|port| port.name.as_deref() == Some(name)).or(match ports.as_slice() {
        [only] => Some(only),
        _ => None,
    });
    let port = port.and_then(|port| u16::try_from(port.port).ok());
    Ok(Address { ip, port: port.ok_or_else(|| format!("has no port {name:?}"))? })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn ranges_come_from_the_one_storage() {
        let storage = |pods: &str, external: &str| {
            let mut one = IpamStorage::default();
            (one.spec.pod_cidr, one.spec.external_cidr) = (pods.into(), external.into());
            one
        };
        let good = storage("10.244.0.0/16", "10.97.0.0/16");
        assert_eq!(ranges(std::slice::from_ref(&good)), Ok(("10.244.0.0/16".into(), "10.97.0.0/16".into())));
        assert!(ranges(&[]).unwrap_err().contains("liqo-network-manager"));
        assert!(ranges(&[storage("10.244.0.0/16", "")]).unwrap_err().contains("not chosen"));
        assert!(ranges(&[good.clone(), good]).unwrap_err().contains("more than one"));
    }

    #[test]
    fn a_service_has_an_address_and_a_port() {
        let service = |ip: &str, ports: Value| -> Service {
            serde_json::from_value(json!({"spec": {"clusterIP": ip, "ports": ports}})).unwrap()
        };
        let two = json!([{"name": "x", "port": 1}, {"name": "https", "port": 443}]);
        assert_eq!(address(&service("10.96.0.9", two.clone()), "https").unwrap().port, 443);
        assert!(address(&service("10.96.0.9", two), "http").unwrap_err().contains("no port \"http\""));
        assert_eq!(address(&service("10.96.0.9", json!([{"port": 8118}])), "http").unwrap().port, 8118);
        assert!(address(&service("None", json!([{"port": 8118}])), "http").unwrap_err().contains("no cluster IP"));
    }

    #[test]
    fn warnings_are_those_of_the_documentation() {
        assert_eq!(warning("10.0.0.1", &Reachability::Open), None);
        assert_eq!(
            warning("10.0.0.1", &Reachability::Private).unwrap(),
            "endpoint IP \"10.0.0.1\" seems to be private."
        );
    }
}
