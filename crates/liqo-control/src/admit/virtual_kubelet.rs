//! What virtual kubelets may write, where the cluster has no `ValidatingAdmissionPolicy`: the same rules, see [`door`].
//!
//! A policy asks the authorizer whether the virtual kubelet may change a node; here the API server is asked, and answers are good
//! for some seconds.
//!
//! Keeps true: a request that no rule is about, or that no virtual kubelet made, passes; a rule that cannot be evaluated
//! refuses, as does a rule while the API server does not answer.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use liqo_core::door::{self, Place};
use liqo_kube::{
    Cluster,
    access::{Act, Reviews, User},
};
use serde_json::json;

use super::{
    Context,
    review::{Request, Verdict},
    rules::{Given, Rules},
};

/// The rules for virtual kubelets, and who answers whose a node is.
pub(super) struct Nodes {
    rules: OnceLock<Result<Rules, String>>,
    reviews: Reviews,
}

impl Nodes {
    pub(super) fn new(cluster: &Cluster) -> Self {
        Self { rules: OnceLock::new(), reviews: Reviews::new(cluster.clone()) }
    }

    fn rules(&self) -> Result<&Rules, Verdict> {
        let rules = self.rules.get_or_init(|| Rules::read(Place::Node, door::kubelet_rules()));
        rules.as_ref().map_err(|why| Verdict::error(500, why.clone()))
    }

    /// Whether the user may change this node.
    async fn is_own(&self, asked: &Request, node: &str) -> Result<bool, Verdict> {
        let user =
            User { name: asked.user_info.username.clone(), groups: asked.user_info.groups.clone(), ..User::default() };
        let act = Act { verb: "update", resource: "nodes", name: node.to_owned(), ..Act::default() };
        let answer = self.reviews.allows(&user, &act).await;
        answer.map_err(|error| Verdict::error(500, format!("whose node {node:?} is cannot be found out: {error}")))
    }
}

/// Whether the rules let a virtual kubelet do what the virtual kubelet asks for.
pub(super) async fn validate(context: &Arc<Context>, asked: Request, source: IpAddr) -> Verdict {
    let asked = Arc::new(asked);
    let (at, request) = (Arc::clone(context), Arc::clone(&asked));
    let node = context.turns.run(source, move || node(at.nodes.rules()?, &request)).await;
    let own = match node {
        Ok(None) => return Verdict::allow(),
        Ok(Some(node)) if node.is_empty() => Ok(false),
        Ok(Some(node)) => {
            let _turn = context.questions.take(source).await;
            context.nodes.is_own(&asked, &node).await
        }
        Err(refusal) => Err(refusal),
    };
    let own = match own {
        Ok(own) => own,
        Err(refusal) => return refusal,
    };
    let at = Arc::clone(context);
    let judged = context.turns.run(source, move || judge(at.nodes.rules()?, &asked, own)).await;
    judged.err().unwrap_or_else(Verdict::allow)
}

/// The name of the node that a request is about; `None`: the request is not judged.
fn node(rules: &Rules, asked: &Request) -> Result<Option<String>, Verdict> {
    rules.text(asked, door::NODE).map_err(|why| refusal(asked, &why))
}

fn judge(rules: &Rules, asked: &Request, own: bool) -> Result<(), Verdict> {
    let given = Given { name: door::OWN, value: &json!(own) };
    rules.judge(asked, Some(given)).map_err(|why| refusal(asked, &why))
}

fn refusal(asked: &Request, why: &str) -> Verdict {
    Verdict::deny(Place::Node.refusal(&asked.user_info.username, why))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const KUBELET: &str = "system:serviceaccount:liqo-tenant-milan-ca6261:virtual-kubelet";
    /// The node that the virtual kubelet may change.
    const OWN: &str = "liqo-milan";

    /// A request about an object with this namespace and name.
    fn asked(operation: &str, resource: &str, (namespace, name): (&str, &str), old: Value) -> Request {
        let (resource, part) = resource.split_once('/').unwrap_or((resource, ""));
        let group = if resource == "leases" { "coordination.k8s.io" } else { "" };
        serde_json::from_value(json!({
            "uid": "u", "operation": operation, "namespace": namespace, "name": name, "object": null, "oldObject": old,
            "resource": {"group": group, "version": "v1", "resource": resource}, "subResource": part,
            "userInfo": {"username": KUBELET, "groups": ["system:serviceaccounts", "system:authenticated"]},
        }))
        .unwrap()
    }

    /// The whole decision, where the API server says that a virtual kubelet may change its own node and no other.
    fn decide(asked: &Request) -> Result<(), Verdict> {
        let rules = Rules::read(Place::Node, door::kubelet_rules()).unwrap();
        match node(&rules, asked)? {
            None => Ok(()),
            Some(node) => judge(&rules, asked, node == OWN),
        }
    }

    #[test]
    fn a_virtual_kubelet_writes_what_is_of_its_node() {
        let on = |node: &str| json!({"metadata": {"name": "a"}, "spec": {"nodeName": node}});
        let pending = json!({"metadata": {"name": "a"}, "spec": {}});
        let (home, other, pod) = ("kube-node-lease", "kube-system", ("demo", "a"));
        let whose = "its own node";
        for (request, refused) in [
            (asked("CREATE", "nodes", ("", OWN), Value::Null), None),
            (asked("CREATE", "nodes", ("", "stranger"), Value::Null), Some(whose)),
            (asked("CREATE", "nodes", ("", ""), Value::Null), Some(whose)),
            (asked("UPDATE", "nodes", ("", "stranger"), json!({})), None),
            (asked("CREATE", "leases", (home, OWN), Value::Null), None),
            (asked("UPDATE", "leases", (home, OWN), json!({})), None),
            (asked("CREATE", "leases", (home, "stranger"), Value::Null), Some(whose)),
            (asked("DELETE", "leases", (home, "stranger"), json!({})), Some(whose)),
            (asked("CREATE", "leases", (home, ""), Value::Null), Some(whose)),
            (asked("CREATE", "leases", (other, OWN), Value::Null), Some("kube-node-lease only")),
            (asked("UPDATE", "leases", (other, OWN), json!({})), Some("kube-node-lease only")),
            (asked("UPDATE", "pods", pod, on(OWN)), None),
            (asked("DELETE", "pods", pod, on(OWN)), None),
            (asked("UPDATE", "pods/status", pod, on(OWN)), None),
            (asked("UPDATE", "pods", pod, on("worker")), Some(whose)),
            (asked("DELETE", "pods", pod, on("worker")), Some(whose)),
            (asked("UPDATE", "pods/status", pod, on("worker")), Some(whose)),
            (asked("DELETE", "pods", pod, pending), Some(whose)),
            (asked("DELETE", "pods", pod, json!({})), Some("lacks what the rule must look at")),
            (asked("CREATE", "pods/eviction", pod, Value::Null), None),
        ] {
            match (decide(&request), refused) {
                (Ok(()), None) => {}
                (Err(Verdict::Deny { code: 403, message }), Some(words)) => {
                    assert!(message.starts_with(KUBELET) && message.contains(words), "{message}: {request:?}");
                }
                (verdict, _) => panic!("{verdict:?}: {request:?}"),
            }
        }
    }

    #[test]
    fn only_virtual_kubelets_are_judged() {
        let mut request = asked("CREATE", "nodes", ("", "stranger"), Value::Null);
        for user in [
            "system:node:worker",
            "system:serviceaccount:liqo:liqo-controller-manager",
            "system:serviceaccount:liqo-tenant-a:other",
            "system:serviceaccount:demo:virtual-kubelet",
        ] {
            user.clone_into(&mut request.user_info.username);
            assert_eq!(decide(&request), Ok(()), "{user}");
        }
    }
}
