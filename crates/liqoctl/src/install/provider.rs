//! Kinds of clusters, and how each tells its ranges of addresses.

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Pod;
use liqo_kube::Cluster;

use crate::flag::{self, Cidr};

const POD_CIDR: &str = "172.16.0.0/16";
const SERVICE_CIDR: &str = "10.96.0.0/12";

/// What must be said of a cluster of no particular kind.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct GenericArgs {
    /// The Kubernetes API server URL, given to peers (defaults to the one of the kubeconfig)
    #[arg(long, default_value = "", hide_default_value = true, value_name = "URL")]
    api_server_url: String,
    /// The Pod CIDR of the cluster
    #[arg(long, required = true, value_parser = flag::cidr, value_name = "CIDR")]
    pod_cidr: Option<Cidr>,
    /// The Service CIDR of the cluster
    #[arg(long, required = true, value_parser = flag::cidr, value_name = "CIDR")]
    service_cidr: Option<Cidr>,
}

/// Clusters whose kind is known.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Named {
    /// Install Liqo in a cluster made by kubeadm
    ///
    /// The ranges of pods and services are read from the kube-controller-manager.
    ///
    /// Example:
    ///   liqoctl install kubeadm --cluster-name rome
    #[command(verbatim_doc_comment)]
    Kubeadm,
    /// Install Liqo in a kind cluster
    ///
    /// As kubeadm; peers connect to node ports.
    ///
    /// Example:
    ///   liqoctl install kind --cluster-name rome
    #[command(verbatim_doc_comment)]
    Kind,
    /// Install Liqo in a k3s cluster
    ///
    /// Peers connect to node ports.
    ///
    /// Example:
    ///   liqoctl install k3s --cluster-name rome --api-server-url https://192.0.2.1:6443
    #[command(verbatim_doc_comment)]
    K3s {
        /// The Kubernetes API server URL, given to peers (defaults to the one of the kubeconfig)
        #[arg(long, default_value = "", hide_default_value = true, value_name = "URL")]
        api_server_url: String,
        /// The Pod CIDR of the cluster
        #[arg(long, default_value = "10.42.0.0/16", value_parser = flag::cidr, value_name = "CIDR")]
        pod_cidr: Cidr,
        /// The Service CIDR of the cluster
        #[arg(long, default_value = "10.43.0.0/16", value_parser = flag::cidr, value_name = "CIDR")]
        service_cidr: Cidr,
    },
}

/// A kind of cluster, and what makes it different.
#[derive(Clone, Debug)]
pub(crate) struct Provider {
    /// Value of the label liqo.io/provider.
    pub(crate) name: Option<&'static str>,
    pub(crate) api_server_url: String,
    /// An address that was not given is taken from the kubeconfig.
    pub(crate) default_api_server: bool,
    /// The address must be the one of the kubeconfig.
    pub(crate) check_api_server: bool,
    /// Type of the Services peers connect to, unless the user says it.
    pub(crate) service_type: Option<&'static str>,
    ranges: Option<Ranges>,
}

/// The addresses of pods and services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ranges {
    pub(crate) pods: Cidr,
    pub(crate) services: Cidr,
}

impl Provider {
    /// From what was typed.
    pub(crate) fn new(named: Option<Named>, generic: GenericArgs) -> anyhow::Result<Self> {
        let plain = Self {
            name: None,
            api_server_url: String::new(),
            default_api_server: true,
            check_api_server: true,
            service_type: None,
            ranges: None,
        };
        Ok(match named {
            None => {
                let GenericArgs { api_server_url, pod_cidr, service_cidr } = generic;
                let (Some(pods), Some(services)) = (pod_cidr, service_cidr) else {
                    bail!("--pod-cidr and --service-cidr are needed")
                };
                Self { api_server_url, ranges: Some(Ranges { pods, services }), ..plain }
            }
            Some(Named::Kubeadm) => Self { name: Some("kubeadm"), ..plain },
            Some(Named::Kind) => Self {
                name: Some("kind"),
                default_api_server: false,
                check_api_server: false,
                service_type: Some("NodePort"),
                ..plain
            },
            Some(Named::K3s { api_server_url, pod_cidr, service_cidr }) => Self {
                name: Some("k3s"),
                api_server_url,
                check_api_server: false,
                service_type: Some("NodePort"),
                ranges: Some(Ranges { pods: pod_cidr, services: service_cidr }),
                ..plain
            },
        })
    }

    /// Whether the ranges were typed, as no provider is named.
    pub(crate) fn ranges_are_typed(&self) -> bool {
        self.name.is_none()
    }

    /// The ranges that were given, or those the cluster itself knows.
    pub(crate) async fn observe(&self, cluster: &Cluster) -> anyhow::Result<Ranges> {
        match self.ranges {
            Some(ranges) => Ok(ranges),
            None => {
                let selector = "component=kube-controller-manager,tier=control-plane";
                let pods: Vec<Pod> = cluster.list("kube-system", selector).await?;
                ranges_of(pods.first())
            }
        }
    }
}

/// Pure: the ranges in the command line of the kube-controller-manager.
fn ranges_of(manager: Option<&Pod>) -> anyhow::Result<Ranges> {
    let manager = manager.context("kube-controller-manager not found")?;
    let containers = manager.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let [container] = containers else { bail!("unexpected amount of containers in kube-controller-manager") };
    let words: Vec<_> = [&container.command, &container.args].into_iter().flatten().flatten().collect();
    let value = |flag: &str, default: &str| {
        let prefix = format!("{flag}=");
        let found = words.iter().find_map(|word| word.strip_prefix(&prefix)).unwrap_or(default);
        // Clusters with two families list both: Liqo speaks the first.
        let first = found.split(',').next().unwrap_or_default();
        flag::cidr(first).map_err(|why| anyhow::anyhow!("{flag} of kube-controller-manager: {why}"))
    };
    Ok(Ranges {
        pods: value("--cluster-cidr", POD_CIDR)?,
        services: value("--service-cluster-ip-range", SERVICE_CIDR)?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ranges(containers: serde_json::Value) -> Result<(String, String), String> {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": containers}})).unwrap();
        ranges_of(Some(&pod))
            .map(|found| (found.pods.to_string(), found.services.to_string()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_controller_manager_knows_the_ranges() {
        let command = [
            "kube-controller-manager",
            "--cluster-cidr=10.244.0.0/16,fd00::/56",
            "--service-cluster-ip-range=10.96.0.0/16",
        ];
        assert_eq!(
            ranges(json!([{"name": "x", "command": command}])),
            Ok(("10.244.0.0/16".into(), "10.96.0.0/16".into()))
        );
        assert_eq!(ranges(json!([{"name": "x"}])), Ok((POD_CIDR.into(), SERVICE_CIDR.into())));
    }

    #[test]
    fn what_is_missing_is_said() {
        assert_eq!(ranges_of(None).unwrap_err().to_string(), "kube-controller-manager not found");
        assert_eq!(ranges(json!([])).unwrap_err(), "unexpected amount of containers in kube-controller-manager");
    }
}
