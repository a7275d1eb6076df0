//! The arguments of a virtual kubelet.

use kube::ResourceExt;
use liqo_api::{
    ClusterIdentity, names,
    sharing::{ResourceOffer, StorageType},
};
use liqo_kube::args::ReachArgs;

use crate::args::KubeletArgs;

/// The arguments, in the order Liqo 0.8.3 writes them.
pub(super) fn of(
    (own, networks): (&ClusterIdentity, &ReachArgs),
    args: &KubeletArgs,
    offer: &ResourceOffer,
    peer: &ClusterIdentity,
    node: &str,
) -> Vec<String> {
    let mut all = vec![
        format!("--foreign-cluster-id={}", peer.cluster_id),
        format!("--foreign-cluster-name={}", peer.cluster_name),
        format!("--nodename={node}"),
        "--node-ip=$(POD_IP)".to_owned(),
        format!("--tenant-namespace={}", offer.namespace().unwrap_or_default()),
        format!("--home-cluster-id={}", own.cluster_id),
        format!("--home-cluster-name={}", own.cluster_name),
    ];
    if !args.kubelet_ipam_server.is_empty() {
        all.push(format!("--ipam-server={}", args.kubelet_ipam_server));
    }
    for (flag, networks) in [
        ("own-networks", &networks.own_networks),
        ("peers-within", &networks.peers_within),
        ("peer-networks", &args.kubelet_peer_networks),
    ] {
        if !networks.is_empty() {
            let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
            all.push(format!("--{flag}={}", networks.join(",")));
        }
    }
    if let Some(class) = storage_class(&offer.spec.storage_classes) {
        all.push("--enable-storage".to_owned());
        if args.virtual_storage_class_name != names::VIRTUAL_STORAGE_CLASS {
            all.push(format!("--virtual-storage-class-name={}", args.virtual_storage_class_name));
        }
        all.push(format!("--remote-real-storage-class-name={class}"));
    }
    for (flag, pairs) in
        [("node-extra-annotations", &args.node_extra_annotations), ("node-extra-labels", &args.node_extra_labels)]
    {
        if !pairs.is_empty() {
            let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
            all.push(format!("--{flag}={}", pairs.join(",")));
        }
    }
    all.extend(args.kubelet_extra_args.iter().filter(|arg| !arg.is_empty()).cloned());
    all.push(format!("--metrics-enabled={}", args.kubelet_metrics_enabled));
    if args.kubelet_metrics_enabled {
        all.push(format!("--metrics-address={}", args.kubelet_metrics_address));
    }
    all
}

/// The class marked as default, else the first one.
fn storage_class(classes: &[StorageType]) -> Option<&str> {
    let class = classes.iter().find(|class| class.default).or(classes.first());
    class.map(|class| class.storage_class_name.as_str())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use liqo_api::sharing::ResourceOfferSpec;

    use super::*;
    use crate::args::ManagerArgs;

    fn offer(classes: &[(&str, bool)]) -> ResourceOffer {
        let storage_classes = classes
            .iter()
            .map(|(name, default)| StorageType { storage_class_name: (*name).to_owned(), default: *default })
            .collect();
        let mut offer =
            ResourceOffer::new("provider", ResourceOfferSpec { storage_classes, ..ResourceOfferSpec::default() });
        offer.metadata.namespace = Some("liqo-tenant-provider-ca6261".to_owned());
        offer
    }

    const CONSUMER: &str = "09897b82-7830-483b-b786-9cf90899f809";
    const PROVIDER: &str = "16fbeaec-e4e4-41dc-9eea-170ce95d7dd9";

    #[test]
    fn arguments_are_those_recorded_from_a_real_cluster() {
        let args = ManagerArgs::parse_from([
            "liqo-controller-manager",
            "--cluster-name=consumer",
            "--kubelet-ipam-server=liqo-network-manager.liqo:6000",
            "--kubelet-extra-args=--enable-apiserver-support=true",
        ]);
        let args = args.kubelets;
        let (own, peer) = (ClusterIdentity::new(CONSUMER, "consumer"), ClusterIdentity::new(PROVIDER, "provider"));
        let arguments = of((&own, &ReachArgs::default()), &args, &offer(&[("liqo", false)]), &peer, "liqo-provider");
        let recorded = [
            "--foreign-cluster-id=16fbeaec-e4e4-41dc-9eea-170ce95d7dd9",
            "--foreign-cluster-name=provider",
            "--nodename=liqo-provider",
            "--node-ip=$(POD_IP)",
            "--tenant-namespace=liqo-tenant-provider-ca6261",
            "--home-cluster-id=09897b82-7830-483b-b786-9cf90899f809",
            "--home-cluster-name=consumer",
            "--ipam-server=liqo-network-manager.liqo:6000",
            "--enable-storage",
            "--remote-real-storage-class-name=liqo",
            "--enable-apiserver-support=true",
            "--metrics-enabled=false",
        ];
        assert_eq!(arguments, recorded);
    }

    #[test]
    fn the_default_storage_class_comes_before_the_first() {
        for (classes, wanted) in
            [(&[][..], None), (&[("a", false), ("b", false)], Some("a")), (&[("a", false), ("b", true)], Some("b"))]
        {
            assert_eq!(storage_class(&offer(classes).spec.storage_classes), wanted);
        }
    }
}
