//! Whether what is known of a cluster fits the cluster.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;

use crate::flag::Cidr;

const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "0.0.0.0"];

/// The address peers are told: what was given, or what the kubeconfig says unless that is local.
pub(crate) fn api_server(given: &str, kubeconfig: &str, defaulted: bool, checked: bool) -> Result<String, String> {
    let kubeconfig = kubeconfig.trim_end_matches('/');
    if given.is_empty() {
        let usable = defaulted && !is_local(kubeconfig);
        return Ok(if usable { kubeconfig.to_owned() } else { String::new() });
    }
    if is_local(given) {
        return Err("cannot use localhost as API Server address".to_owned());
    }
    if checked && authority(given) != authority(kubeconfig) {
        return Err(format!(
            "the retrieved API server URL ({given:?}) does not match the kubeconfig one ({kubeconfig:?}). \
             If correct, skip with --disable-api-server-sanity-check"
        ));
    }
    Ok(given.to_owned())
}

/// Host and port of a URL whose scheme may be left out.
fn authority(url: &str) -> (&str, u16) {
    let rest = url.trim_start_matches("https://").split('/').next().unwrap_or_default();
    match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().unwrap_or(443)),
        _ => (rest, 443),
    }
}

fn is_local(url: &str) -> bool {
    LOCAL.contains(&authority(url).0)
}

/// Every running pod that has an address of its own has it from this range.
pub(crate) fn pods(pods: &[Pod], range: Cidr) -> Result<(), String> {
    for pod in pods {
        let of_the_host = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or_default();
        let Some(status) =
            pod.status.as_ref().filter(|status| status.phase.as_deref() == Some("Running") && !of_the_host)
        else {
            continue;
        };
        let address = status.pod_ip.as_ref().and_then(|ip| ip.parse::<IpAddr>().ok());
        if let Some(address) = address.filter(|address| !range.contains(*address)) {
            return Err(format!("pod {:?} does not match the provided Pod CIDR (IP: {address})", full_name(pod)));
        }
    }
    Ok(())
}

/// Every service that has an address has it from this range.
pub(crate) fn services(services: &[Service], range: Cidr) -> Result<(), String> {
    for service in services {
        let address =
            service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_ref()).and_then(|ip| ip.parse::<IpAddr>().ok());
        if let Some(address) = address.filter(|address| !range.contains(*address)) {
            return Err(format!(
                "service {:?} does not match the provided Service CIDR (IP: {address})",
                full_name(service)
            ));
        }
    }
    Ok(())
}

fn full_name(object: &impl ResourceExt) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::flag::cidr;

    #[test]
    fn a_local_address_is_told_to_nobody() {
        let kube = "https://172.30.0.11:6443/";
        assert_eq!(api_server("", kube, true, true).as_deref(), Ok("https://172.30.0.11:6443"));
        assert_eq!(api_server("", kube, false, true).as_deref(), Ok(""));
        assert_eq!(api_server("", "https://127.0.0.1:6443/", true, true).as_deref(), Ok(""));
        assert_eq!(
            api_server("https://localhost:6443", kube, true, false).unwrap_err(),
            "cannot use localhost as API Server address"
        );
    }

    #[test]
    fn a_given_address_must_be_the_one_we_use() {
        let kube = "https://172.30.0.11:443";
        assert!(api_server("172.30.0.11", kube, true, true).is_ok());
        assert!(
            api_server("https://rome.it", kube, true, true).unwrap_err().contains("does not match the kubeconfig one")
        );
        assert_eq!(api_server("https://rome.it", kube, true, false).as_deref(), Ok("https://rome.it"));
    }

    #[test]
    fn a_pod_outside_of_the_range_is_named() {
        let pod = |ip: &str, host: bool, phase: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "demo"},
                "spec": {"containers": [], "hostNetwork": host}, "status": {"podIP": ip, "phase": phase}}))
            .unwrap()
        };
        let range = cidr("10.244.0.0/16").unwrap();
        let fine = [
            pod("10.244.0.7", false, "Running"),
            pod("172.30.0.11", true, "Running"),
            pod("1.1.1.1", false, "Succeeded"),
        ];
        assert_eq!(pods(&fine, range), Ok(()));
        let told = pods(&[pod("10.1.0.7", false, "Running")], range).unwrap_err();
        assert_eq!(told, "pod \"demo/web\" does not match the provided Pod CIDR (IP: 10.1.0.7)");
    }

    #[test]
    fn a_service_without_address_fits_everywhere() {
        let service = |ip: &str| -> Service {
            serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "demo"}, "spec": {"clusterIP": ip}}))
                .unwrap()
        };
        let range = cidr("10.96.0.0/16").unwrap();
        assert_eq!(services(&[service("None"), service("10.96.0.1")], range), Ok(()));
        assert!(services(&[service("10.97.0.1")], range).is_err());
    }
}
