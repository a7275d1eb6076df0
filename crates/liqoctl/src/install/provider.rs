//! Kinds of clusters, and how each tells its ranges of addresses.

use anyhow::{Context, anyhow, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use liqo_kube::Cluster;
use serde::Deserialize;

use crate::flag::{self, Cidr};

const POD_CIDR: &str = "172.16.0.0/16";
const SERVICE_CIDR: &str = "10.96.0.0/12";
const KUBE_SYSTEM: &str = "kube-system";
/// The ConfigMap in which kubeadm keeps what a cluster was made with.
const KUBEADM_CONFIG: &str = "kubeadm-config";
const CLUSTER_CONFIGURATION: &str = "ClusterConfiguration";
const ASK: &str = "the ranges of pods and services are not known: name them with `liqoctl install --pod-cidr CIDR \
    --service-cidr CIDR`, without a provider";

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
    /// The ranges of pods and services are read from the pod of the kube-controller-manager or, where it runs
    /// outside of the cluster, from the ConfigMap kubeadm-config.
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
            None => observed(cluster).await,
        }
    }
}

/// The ranges that the servers of the cluster were started with, or that kubeadm wrote down.
async fn observed(cluster: &Cluster) -> anyhow::Result<Ranges> {
    let selector = "component=kube-controller-manager,tier=control-plane";
    let pods: Vec<Pod> = cluster.list(KUBE_SYSTEM, selector).await?;
    if let Some(manager) = pods.first() {
        return ranges_of(manager);
    }
    let written: Option<ConfigMap> = cluster.get(KUBE_SYSTEM, KUBEADM_CONFIG).await?;
    ranges_written(written.as_ref()).context(ASK)
}

/// Pure: the ranges in the command line of the kube-controller-manager.
fn ranges_of(manager: &Pod) -> anyhow::Result<Ranges> {
    let containers = manager.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let [container] = containers else { bail!("unexpected amount of containers in kube-controller-manager") };
    let words: Vec<_> = [&container.command, &container.args].into_iter().flatten().flatten().collect();
    let value = |flag: &str, default: &str| {
        let prefix = format!("{flag}=");
        let found = words.iter().find_map(|word| word.strip_prefix(&prefix)).unwrap_or(default);
        first(found).map_err(|why| anyhow!("{flag} of kube-controller-manager: {why}"))
    };
    Ok(Ranges {
        pods: value("--cluster-cidr", POD_CIDR)?,
        services: value("--service-cluster-ip-range", SERVICE_CIDR)?,
    })
}

/// The first range of a list. Clusters with two families list both: Liqo speaks the first.
fn first(ranges: &str) -> Result<Cidr, String> {
    flag::cidr(ranges.split(',').next().unwrap_or_default())
}

/// What kubeadm writes down of a cluster, as far as it is about ranges.
#[derive(Deserialize)]
struct ClusterConfiguration {
    networking: Networking,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Networking {
    pod_subnet: String,
    service_subnet: String,
}

/// Pure: the ranges in the ConfigMap of kubeadm. What kubeadm was not told is not there: kubeadm gives pods no range of its own.
fn ranges_written(map: Option<&ConfigMap>) -> anyhow::Result<Ranges> {
    let map =
        map.context("there is no pod of the kube-controller-manager and no ConfigMap kube-system/kubeadm-config")?;
    let text = map.data.as_ref().and_then(|data| data.get(CLUSTER_CONFIGURATION));
    let text = text.context("the ConfigMap kube-system/kubeadm-config has no ClusterConfiguration")?;
    let read: ClusterConfiguration = serde_saphyr::from_str(text)
        .context("the ClusterConfiguration in kube-system/kubeadm-config cannot be read")?;
    let range = |field: &str, text: &str| {
        first(text).map_err(|why| anyhow!("networking.{field} in the ConfigMap kube-system/kubeadm-config: {why}"))
    };
    let Networking { pod_subnet, service_subnet } = read.networking;
    Ok(Ranges { pods: range("podSubnet", &pod_subnet)?, services: range("serviceSubnet", &service_subnet)? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    type Found = Result<(String, String), String>;

    fn found(ranges: anyhow::Result<Ranges>) -> Found {
        let ranges = ranges.map_err(|error| error.to_string())?;
        Ok((ranges.pods.to_string(), ranges.services.to_string()))
    }

    fn ranges(containers: serde_json::Value) -> Found {
        found(ranges_of(&serde_json::from_value(json!({"spec": {"containers": containers}})).unwrap()))
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
        assert_eq!(ranges(json!([])).unwrap_err(), "unexpected amount of containers in kube-controller-manager");
    }

    #[test]
    fn where_it_is_no_pod_kubeadm_has_written_them_down() {
        let written = |text: &str| -> Found {
            let map: ConfigMap = serde_json::from_value(json!({"data": {"ClusterConfiguration": text}})).unwrap();
            found(ranges_written(Some(&map)))
        };
        let both = "apiServer: {}\nnetworking:\n  dnsDomain: cluster.local\n  podSubnet: 10.244.0.0/16,fd00::/56\n  \
            serviceSubnet: 10.96.0.0/12\nkind: ClusterConfiguration\n";
        assert_eq!(written(both), Ok(("10.244.0.0/16".into(), "10.96.0.0/12".into())));
        for (text, why) in [
            ("networking: {serviceSubnet: 10.96.0.0/12}", "networking.podSubnet"),
            ("networking: {podSubnet: 10.244.0.0/16}", "networking.serviceSubnet"),
            ("networking: {podSubnet: x, serviceSubnet: 10.96.0.0/12}", "networking.podSubnet"),
            ("kind: ClusterConfiguration", "cannot be read"),
            ("- a", "cannot be read"),
        ] {
            let told = written(text).unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
        }
        assert!(found(ranges_written(Some(&ConfigMap::default()))).unwrap_err().contains("no ClusterConfiguration"));
        assert!(found(ranges_written(None)).unwrap_err().contains("no ConfigMap kube-system/kubeadm-config"));
    }
}
