//! Invalid values: each is refused with the reason.

use super::helm::names;
use crate::{error, with, without_fabric};

#[test]
fn wrong_values_are_explained() {
    for (set, wanted) in [
        (
            "networkManager.externalIPAM.enabled=true",
            "The address of the external IPAM (.Values.networkManager.externalIPAM.url) must be set",
        ),
        ("discovery.config.clusterName=", "The cluster name (.Values.discovery.config.clusterName) must be set"),
        ("discovery.config.clusterName=A_b", "may only contain lowercase letters, numbers and hyphens"),
        ("discovery.config.clusterIDOverride=Rome", "Provided cluster ID must be a valid UUID"),
        ("nameOverride=other", "nameOverride must be empty"),
        (
            "virtualKubelet.extra.resources.requests.gpu=1",
            r#"Unsupported resource type "gpu" for virtual kubelet containers' requests"#,
        ),
        ("auth.service.type=Ingress", "'ClusterIP', 'NodePort', 'LoadBalancer'"),
        ("webhook.failurePolicy=Maybe", "'Fail', 'Ignore'"),
        ("pullPolicy=Sometimes", "/pullPolicy"),
        ("controllerManager.config.resourceSharingPercentage=101", "maximum: got 101, want 100"),
        ("controllerManager.replicas=two", "/controllerManager/replicas"),
        ("auth.config.portOverride=https", "/auth/config/portOverride"),
        ("auth.tls=1", "/auth/tls"),
        ("status.enabled=yes", "/status/enabled"),
        ("auth.config.identityLifetime=1m", "/auth/config/identityLifetime"),
        ("auth.config.identityLifetime=599s", "/auth/config/identityLifetime"),
        ("common.tolerations=Exists", "/common/tolerations"),
        ("networkManager.config.podCIDR=", "networkManager.config.podCIDR must be set"),
        ("networkManager.config.serviceCIDR=", "networkManager.config.serviceCIDR must be set"),
        ("networkManager.config.podCIDR=10.0.0.0", "/networkManager/config/podCIDR"),
        ("networkManager.config.podCIDR=10.0.256.0/24", "/networkManager/config/podCIDR"),
        ("networkManager.config.serviceCIDR=10.0.0.0/33", "/networkManager/config/serviceCIDR"),
        ("networkManager.config.reservedSubnets={10.0.0.0/x}", "/networkManager/config/reservedSubnets/0"),
        ("networkManager.config.additionalPools={::/8}", "/networkManager/config/additionalPools/0"),
        ("networkConfig.mtu=100", "/networkConfig/mtu"),
        ("gateway.config.wireguardImplementation=go", "'kernel', 'userspace'"),
        ("gateway.pod.resources.requests.cpu=fast", "/gateway/pod/resources/requests/cpu"),
        ("auth.pod.resources.limits.memory=64MiB", "/auth/pod/resources/limits/memory"),
    ] {
        let error = error(&["--set", set]);
        assert!(error.contains(wanted), "{set}: {error}");
    }
}

/// Values of sections that Liqo 0.8.3 does not have: a misspelt name would leave the safer or the wider default in force.
#[test]
fn names_that_the_chart_does_not_know_are_refused() {
    for (set, place) in [
        ("peerPolicy.allowedServiceType={ClusterIP}", "'/peerPolicy'"),
        ("offloading.podsecurity=restricted", "'/offloading'"),
        ("offloading.guests.runtimeclass=gvisor", "'/offloading/guests'"),
        ("networkPolicies.enable=true", "'/networkPolicies'"),
    ] {
        let error = error(&["--set", set]);
        let wanted = format!("at {place}: additional properties");
        assert!(error.contains(&wanted), "{set}: {error}");
    }
}

#[test]
fn ranges_that_cannot_be_are_explained() {
    let (pods, services) = ("networkManager.config.podCIDR", "networkManager.config.serviceCIDR");
    let (reserved, pools) = ("networkManager.config.reservedSubnets", "networkManager.config.additionalPools");
    let always = "the pools that are always there";
    for (set, wanted) in [
        (
            format!("{pods}=10.244.0.1/16"),
            format!("10.244.0.1/16 ({pods}) is not a network: there are bits of an address after its first 16"),
        ),
        (format!("{pods}=10.0.0.0/8"), format!("10.96.0.0/12 ({services}) shares addresses with 10.0.0.0/8 ({pods})")),
        (
            format!("{reserved}={{192.0.2.0/24,10.244.7.0/24}}"),
            format!("10.244.7.0/24 ({reserved}) shares addresses with 10.244.0.0/16 ({pods})"),
        ),
        (
            format!("{reserved}={{192.0.2.0/24,192.0.2.128/32}}"),
            format!("192.0.2.128/32 ({reserved}) shares addresses with 192.0.2.0/24 ({reserved})"),
        ),
        (
            format!("{pools}={{100.64.0.0/10,172.20.0.0/16}}"),
            format!("172.20.0.0/16 ({pools}) shares addresses with 172.16.0.0/12 ({always})"),
        ),
        (format!("{pools}={{0.0.0.0/0}}"), format!("0.0.0.0/0 ({pools}) shares addresses with 10.0.0.0/8 ({always})")),
    ] {
        let error = error(&["--set", &set]);
        assert!(error.contains(&wanted), "{set}: {error}");
    }
    // Without the fabric the ranges are not used, so any range is tolerated.
    without_fabric(&["--set", &format!("{pods}=10.0.0.0/8,{services}=10.0.0.0/8")]);
}

#[test]
fn unknown_values_are_tolerated() {
    assert_eq!(names(&with(&["--set=some.day=1,auth.config.other=x"])), names(&with(&[])));
}
