//! Asking kubelets for their metrics.
//!
//! Keeps true: the token that is shown to kubelets is that of this role, which may read metrics of nodes and nothing of what runs on
//! them; answers are bounded in bytes and time.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use http::StatusCode;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use kube::ResourceExt;
use liqo_kube::reach::{Answer, Ask, Reach, Trust};

/// Port of a kubelet that does not say its own.
const PORT: i32 = 10250;
/// Time limit of one answer; a node that has died answers nothing.
const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of one answer.
const LONGEST: usize = 16 * 1024 * 1024;

/// How kubelets are asked.
pub(crate) struct Kubelets {
    pub(crate) trust: Trust,
    /// The token of the `ServiceAccount`, which Kubernetes renews.
    pub(crate) token_file: PathBuf,
}

impl Kubelets {
    /// What the kubelet of a node answers at a path, within `left` and [`PATIENCE`].
    ///
    /// # Errors
    /// A text that names the node and says what failed.
    pub(crate) async fn ask(&self, node: &Node, path: &str, left: Duration) -> Result<String, String> {
        let named = |why: String| format!("node {}: {why}", node.name_any());
        let url = url(node, path).ok_or_else(|| named("it has no address".to_owned()))?;
        let token = tokio::fs::read_to_string(&self.token_file).await;
        let token = token.map_err(|error| format!("reading {}: {error}", self.token_file.display()))?;
        let ask = Ask {
            bearer: Some(token.trim()),
            patience: PATIENCE.min(left),
            longest: LONGEST,
            ..Ask::get(&url, &self.trust)
        };
        let Answer { status, body } = Reach::anywhere().ask(ask).await.map_err(named)?;
        match status {
            StatusCode::OK => String::from_utf8(body.into()).map_err(|_| named("its page is no text".to_owned())),
            other => Err(named(format!("the kubelet answers {other}"))),
        }
    }
}

/// Where a path of the kubelet of a node is.
fn url(node: &Node, path: &str) -> Option<String> {
    let status = node.status.as_ref()?;
    let addresses = status.addresses.as_deref().unwrap_or_default();
    let host = &addresses.iter().find(|one| one.type_ == "InternalIP")?.address;
    let endpoint = status.daemon_endpoints.as_ref().and_then(|all| all.kubelet_endpoint.as_ref());
    let port = endpoint.map_or(PORT, |endpoint| endpoint.port);
    match host.parse().ok()? {
        IpAddr::V4(host) => Some(format!("https://{host}:{port}/{path}")),
        IpAddr::V6(host) => Some(format!("https://[{host}]:{port}/{path}")),
    }
}

/// Of nodes, name and address of their kubelet matter.
pub(crate) fn trim(node: &mut Node) {
    liqo_kube::strip(node);
    node.metadata.annotations = None;
    node.spec = None;
    if let Some(status) = node.status.take() {
        let NodeStatus { addresses, daemon_endpoints, .. } = status;
        node.status = Some(NodeStatus { addresses, daemon_endpoints, ..NodeStatus::default() });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn kubelets_are_asked_at_the_address_of_their_node() {
        let url = |status: Value| {
            let mut node: Node = serde_json::from_value(json!({"status": status})).unwrap();
            trim(&mut node);
            url(&node, "metrics/resource")
        };
        let addresses = |ip: &str| json!([{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": ip}]);
        for (status, wanted) in [
            (json!({"addresses": addresses("10.0.0.1")}), Some("https://10.0.0.1:10250/metrics/resource")),
            (
                json!({"addresses": addresses("fd00::1"), "daemonEndpoints": {"kubeletEndpoint": {"Port": 10251}}}),
                Some("https://[fd00::1]:10251/metrics/resource"),
            ),
            (json!({"addresses": addresses("n.example.org")}), None),
            (json!({}), None),
        ] {
            assert_eq!(url(status.clone()).as_deref(), wanted, "{status}");
        }
    }
}
