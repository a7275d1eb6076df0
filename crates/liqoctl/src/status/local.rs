//! What peers are told about this cluster.

use std::collections::BTreeMap;

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use liqo_api::{ClusterIdentity, net::IpamStorage};
use liqo_kube::Cluster;
use serde::Serialize;

use crate::{
    here,
    in_band::{
        gateway::{self, Reachability},
        side::STORAGE_LABEL,
    },
    status::frame::Section,
    uninstall::absent,
};

/// This cluster, as its peers see it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Local {
    #[serde(rename = "clusterID")]
    cluster_id: String,
    cluster_name: String,
    cluster_labels: BTreeMap<String, String>,
    network: Network,
    /// URL, or why there is none; nothing where Liqo connects no networks.
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
    /// URL, or why there is none.
    authentication: String,
    api_server: String,
}

/// The networks of this cluster.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Network {
    /// They are connected by other means than Liqo, or not at all.
    Other(&'static str),
    /// Liqo connects them with those of peers.
    Ours(Ranges),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Ranges {
    #[serde(rename = "podCIDR")]
    pods: String,
    #[serde(rename = "serviceCIDR")]
    services: String,
    #[serde(rename = "externalCIDR")]
    external: String,
    reserved_subnets: Vec<String>,
    /// Which pods of this cluster peers reach.
    security_mode: String,
}

/// Reads what the components were started with.
pub(crate) async fn observe(cluster: &Cluster, namespace: &str, kubeconfig: &str) -> anyhow::Result<Local> {
    let ClusterIdentity { cluster_id, cluster_name } = here::identity(cluster, namespace).await?;
    let manager: Option<Deployment> = cluster.get(namespace, "liqo-controller-manager").await?;
    let auth: Option<Deployment> = cluster.get(namespace, "liqo-auth").await?;
    let labels = manager.as_ref().and_then(|one| argument(one, "--cluster-labels")).unwrap_or_default();
    // Releases before told it the authentication service.
    let mut told = [&manager, &auth].into_iter().flatten();
    let advertised = told.find_map(|one| argument(one, "--advertise-api-server-address"));
    let advertised = advertised.map(|url| if url.contains("://") { url } else { format!("https://{url}") });
    let (network, gateway) = if here::connects_networks(cluster, namespace).await? {
        let storages: Vec<IpamStorage> = cluster.list("", STORAGE_LABEL).await.or_else(absent)?;
        let service: Option<Service> = cluster.get(namespace, gateway::SERVICE).await?;
        let deployed: Option<Deployment> = cluster.get(namespace, gateway::SERVICE).await?;
        (ranges(&storages, deployed.as_ref()), Some(gateway_url(service.as_ref())))
    } else {
        (Network::Other("External"), None)
    };
    Ok(Local {
        cluster_id,
        cluster_name,
        cluster_labels: crate::flag::pairs(&labels).unwrap_or_default(),
        network,
        gateway,
        authentication: here::auth_url(cluster, namespace)
            .await
            .unwrap_or_else(|why| format!("not available: {why:#}")),
        api_server: advertised.unwrap_or_else(|| kubeconfig.trim_end_matches('/').to_owned()),
    })
}

fn ranges(storages: &[IpamStorage], gateway: Option<&Deployment>) -> Network {
    let Some(spec) = storages.first().map(|one| one.spec.clone()) else {
        return Network::Other("the ranges are not known yet: is liqo-network-manager running?");
    };
    Network::Ours(Ranges {
        pods: spec.pod_cidr,
        services: spec.service_cidr,
        external: spec.external_cidr,
        reserved_subnets: spec.reserved_subnets,
        security_mode: gateway
            .and_then(|gateway| argument(gateway, "--gateway.security-mode"))
            .unwrap_or_else(|| "FullPodToPod".to_owned()),
    })
}

fn gateway_url(service: Option<&Service>) -> String {
    match gateway::endpoint(service) {
        Ok((_, _, Reachability::Closed(why))) | Err(why) => format!("not available: {why}"),
        Ok((address, port, _)) if address.contains(':') => format!("udp://[{address}]:{port}"),
        Ok((address, port, _)) => format!("udp://{address}:{port}"),
    }
}

/// The value of an argument of the first container.
fn argument(deployment: &Deployment, flag: &str) -> Option<String> {
    let container = deployment.spec.template.spec.as_ref()?.containers.first()?;
    let prefix = format!("{flag}=");
    container.args.as_ref()?.iter().find_map(|word| word.strip_prefix(&prefix)).map(str::to_owned)
}

impl Local {
    /// The text of the box.
    pub(crate) fn text(&self) -> String {
        let mut identity = Section::new("Cluster identity");
        identity.entry("Cluster ID", &self.cluster_id).entry("Cluster name", &self.cluster_name);
        if !self.cluster_labels.is_empty() {
            let mut labels = Section::new("Cluster labels");
            for (key, value) in &self.cluster_labels {
                labels.entry(key, value);
            }
            identity.section(labels);
        }
        let mut network = Section::new("Network");
        match &self.network {
            Network::Other(status) => drop(network.entry("Status", *status)),
            Network::Ours(Ranges { pods, services, external, reserved_subnets, security_mode }) => {
                network.entry("Pod CIDR", pods).entry("Service CIDR", services).entry("External CIDR", external);
                network.entry("Security mode", security_mode);
                if !reserved_subnets.is_empty() {
                    let mut reserved = Section::new("Reserved Subnets");
                    for subnet in reserved_subnets {
                        reserved.line(format!("- {subnet}"));
                    }
                    network.section(reserved);
                }
            }
        }
        let mut endpoints = Section::new("Endpoints");
        if let Some(gateway) = &self.gateway {
            endpoints.entry("Network gateway", gateway);
        }
        endpoints.entry("Authentication", &self.authentication).entry("Kubernetes API server", &self.api_server);
        let mut all = Section::new("");
        all.section(identity).section(network).section(endpoints);
        all.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(network: Network, gateway: Option<&str>) -> Local {
        Local {
            cluster_id: "id".into(),
            cluster_name: "rome".into(),
            cluster_labels: [("liqo.io/provider".to_owned(), "kind".to_owned())].into(),
            network,
            gateway: gateway.map(str::to_owned),
            authentication: "https://a.b:1".into(),
            api_server: "https://a.b:6443".into(),
        }
    }

    #[test]
    fn the_box_is_the_documented_one() {
        let wanted = "Cluster identity\n    Cluster ID:   id\n    Cluster name: rome\n    Cluster labels\n        liqo.io/provider: kind\n\
            Network\n    Status: External\nEndpoints\n    Authentication:        https://a.b:1\n    Kubernetes API server: https://a.b:6443\n";
        let local = local(Network::Other("External"), None);
        assert_eq!(local.text(), wanted);
        assert_eq!(serde_json::to_value(&local).unwrap()["network"], "External");
    }

    #[test]
    fn networks_that_liqo_connects_are_shown() {
        let mut storage = IpamStorage::default();
        storage.spec.pod_cidr = "10.244.0.0/16".into();
        storage.spec.service_cidr = "10.96.0.0/16".into();
        storage.spec.external_cidr = "10.97.0.0/16".into();
        storage.spec.reserved_subnets = vec!["192.168.0.0/24".into()];
        let local = local(ranges(&[storage], None), Some("udp://1.2.3.4:5871"));
        let wanted = "Network\n    Pod CIDR:      10.244.0.0/16\n    Service CIDR:  10.96.0.0/16\n    External CIDR: 10.97.0.0/16\n    \
            Security mode: FullPodToPod\n    Reserved Subnets\n        - 192.168.0.0/24\nEndpoints\n    Network gateway:       udp://1.2.3.4:5871\n";
        assert!(local.text().contains(wanted), "{}", local.text());
        assert_eq!(serde_json::to_value(&local).unwrap()["network"]["externalCIDR"], "10.97.0.0/16");
        let mode = "IntraClusterTrafficSegregation";
        let gateway = serde_json::json!({"spec": {"selector": {}, "template": {"spec": {"containers": [
            {"name": "gateway", "args": ["--gateway.mtu=0", format!("--gateway.security-mode={mode}")]}]}}}});
        let gateway = serde_json::from_value(gateway).unwrap();
        let segregated = super::tests::local(ranges(&[IpamStorage::default()], Some(&gateway)), None);
        assert!(segregated.text().contains(&format!("Security mode: {mode}\n")), "{}", segregated.text());
    }

    #[test]
    fn a_gateway_that_cannot_be_reached_says_why() {
        let service = serde_json::json!({"metadata": {"annotations": {"net.liqo.io/gatewayNodeIP": "10.0.0.1"}},
            "spec": {"type": "ClusterIP", "ports": [{"port": 5871, "protocol": "UDP"}]}});
        let service: Service = serde_json::from_value(service).unwrap();
        assert_eq!(gateway_url(Some(&service)), "not available: service liqo-gateway is of type ClusterIP");
        assert!(gateway_url(None).starts_with("not available: service liqo-gateway does not exist"));
    }
}
