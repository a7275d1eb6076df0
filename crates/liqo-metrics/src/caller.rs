//! Who asks: the API server of this cluster, in the name of a user.
//!
//! Keeps true: a name in a header counts only on a connection whose client certificate is that of the API server as a front proxy.
//! The API server passes on what the user has a right to; a peer may ask about itself only, whatever its rights are.

use http::HeaderMap;
use k8s_openapi::api::core::v1::ConfigMap;
use liqo_core::door;
use liqo_kube::{certs, server::Peer};

const USER: &str = "x-remote-user";
const GROUP: &str = "x-remote-group";
/// Which front proxies count, in the `ConfigMap` of the API server; an empty list: all whose certificate is good.
const ALLOWED: &str = "requestheader-allowed-names";

/// Whether somebody may be told about a peer; otherwise why not.
///
/// # Errors
/// A text for the caller.
pub(crate) fn check(
    peer: &Peer,
    headers: &HeaderMap,
    authentication: Option<&ConfigMap>,
    about: &str,
) -> Result<(), &'static str> {
    let certificate = peer.certificate.as_ref().and_then(|one| certs::facts_der(one).ok());
    let name = certificate.map(|facts| facts.subject.common_name);
    let proxy = name.filter(|name| is_allowed(name, authentication));
    if proxy.is_none() {
        return Err("only the API server of this cluster is answered: ask through it");
    }
    let all = |key: &str| headers.get_all(key).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>();
    let user = all(USER).first().copied().unwrap_or_default();
    match all(GROUP).contains(&door::GROUP) && user != about {
        true => Err("a peer is told about its own pods only"),
        false => Ok(()),
    }
}

fn is_allowed(name: &str, authentication: Option<&ConfigMap>) -> bool {
    let listed = authentication.and_then(|map| map.data.as_ref()?.get(ALLOWED));
    let names: Option<Vec<String>> = listed.and_then(|text| serde_json::from_str(text).ok());
    names.is_some_and(|names| names.is_empty() || names.iter().any(|one| one == name))
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use liqo_kube::certs::Subject;
    use serde_json::json;

    use super::*;

    fn caller(common_name: Option<&str>) -> Peer {
        certs::install_crypto();
        let certificate = common_name.map(|name| {
            let pair = certs::self_signed(&Subject::new(name, "x"), &[], Duration::from_secs(60)).unwrap();
            let body: String = pair.certificate.lines().filter(|line| !line.starts_with('-')).collect();
            base64(&body).into()
        });
        Peer { address: SocketAddr::from(([10, 0, 0, 1], 1)), certificate }
    }

    fn base64(text: &str) -> Vec<u8> {
        k8s_openapi::serde_json::from_value::<k8s_openapi::ByteString>(json!(text)).unwrap().0
    }

    #[test]
    fn the_api_server_is_believed_and_a_peer_learns_of_itself() {
        let map: ConfigMap = serde_json::from_value(json!({"data": {ALLOWED: "[\"front-proxy-client\"]"}})).unwrap();
        let any: ConfigMap = serde_json::from_value(json!({"data": {ALLOWED: "[]"}})).unwrap();
        let proxy = Some("front-proxy-client");
        for (name, map, user, group, permitted) in [
            (proxy, Some(&map), "rome", "liqo.io", true),
            (proxy, Some(&map), "turin", "liqo.io", false),
            (proxy, Some(&map), "", "liqo.io", false),
            (proxy, Some(&map), "admin", "system:masters", true),
            (proxy, Some(&any), "rome", "liqo.io", true),
            (Some("rome"), Some(&map), "rome", "liqo.io", false),
            (None, Some(&map), "rome", "liqo.io", false),
            (proxy, None, "rome", "liqo.io", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(USER, user.parse().unwrap());
            headers.append(GROUP, "system:authenticated".parse().unwrap());
            headers.append(GROUP, group.parse().unwrap());
            let outcome = check(&caller(name), &headers, map, "rome");
            assert_eq!(outcome.is_ok(), permitted, "{name:?} {user} {group}: {outcome:?}");
        }
    }
}
