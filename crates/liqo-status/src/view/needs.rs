//! What needs somebody: sentences with cause and remedy.

use crate::model::{Level, Namespace, Need, Peer, Pod};

/// Pods named one by one; more are summed up.
const MOST_PODS: usize = 5;

/// Pure: what needs somebody among the things a caller sees, worst first. Nothing that only takes its time.
pub(super) fn needs(peers: &[Peer], namespaces: &[Namespace], pods: &[Pod]) -> Vec<Need> {
    let peers = peers.iter().filter(|one| one.level != Level::Good).map(|one| Need {
        level: one.level,
        subject: one.name.clone(),
        text: sentence(&one.state, &one.reason),
        command: format!("liqoctl status peer {} --verbose", one.name),
    });
    let namespaces = namespaces.iter().filter(|one| one.level == Level::Bad || one.phase == "NoClusterSelected");
    let namespaces = namespaces.map(|one| Need {
        level: one.level,
        subject: one.name.clone(),
        text: sentence(&one.phase, &one.reason),
        command: format!("kubectl describe namespaceoffloading offloading --namespace {}", one.name),
    });
    let bad: Vec<_> = pods.iter().filter(|one| one.level == Level::Bad).collect();
    let rest = bad.len().saturating_sub(MOST_PODS);
    let named = bad.iter().take(MOST_PODS).map(|one| Need {
        level: one.level,
        subject: one.key(),
        text: sentence(&one.phase, &one.reason),
        command: format!("kubectl describe pod {} --namespace {}", one.name, one.namespace),
    });
    let summed = (rest > 0).then(|| Need {
        level: Level::Bad,
        subject: format!("{rest} more pods"),
        text: "Failed or unknown.".to_owned(),
        command: "kubectl get pods --all-namespaces --selector liqo.io/shadowPod=true".to_owned(),
    });
    let mut all: Vec<_> = peers.chain(namespaces).chain(named).chain(summed).collect();
    all.sort_by_key(|need| std::cmp::Reverse(need.level));
    all
}

fn sentence(state: &str, reason: &str) -> String {
    if reason.is_empty() { format!("{state}.") } else { format!("{state}: {}.", reason.trim_end_matches('.')) }
}
