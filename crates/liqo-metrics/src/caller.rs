//! Who asks: the API server of this cluster, in the name of a user.
//!
//! Keeps true: a name in a header counts only on a connection whose client certificate is that of the API server as a front proxy.
//! The API server passes on what the user has a right to; a peer may ask about itself only, whatever its rights are.

use http::HeaderMap;
use k8s_openapi::api::core::v1::ConfigMap;
use liqo_core::door;
use liqo_kube::{certs, server::Peer};

/// Which front proxies count, in the `ConfigMap` of the API server; an empty list: all whose certificate is good.
const ALLOWED: &str = "requestheader-allowed-names";
/// In which headers the API server names the user and the groups, in the same `ConfigMap`.
const USER: &str = "requestheader-username-headers";
const GROUP: &str = "requestheader-group-headers";

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
    let names = list(authentication, ALLOWED);
    let is_allowed = |name: String| names.as_ref().is_some_and(|names| names.is_empty() || names.contains(&name));
    if !name.is_some_and(is_allowed) {
        return Err("only the API server of this cluster is answered: ask through it");
    }
    let said = |key: &str| {
        let names = list(authentication, key).unwrap_or_default();
        let values = names.iter().flat_map(|name| headers.get_all(name)).filter_map(|value| value.to_str().ok());
        values.map(str::to_owned).collect::<Vec<_>>()
    };
    let user = said(USER).into_iter().next().filter(|user| !user.is_empty());
    let user = user.ok_or("the API server of this cluster does not say who asks")?;
    match said(GROUP).iter().any(|group| group == door::GROUP) && user != about {
        true => Err("a peer is told about its own pods only"),
        false => Ok(()),
    }
}

/// A list in the `ConfigMap`; `None` where the list is not there.
fn list(authentication: Option<&ConfigMap>, key: &str) -> Option<Vec<String>> {
    serde_json::from_str(authentication?.data.as_ref()?.get(key)?).ok()
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
        let map = |allowed: &str| -> ConfigMap {
            let data = json!({ALLOWED: allowed, USER: "[\"X-Remote-User\"]", GROUP: "[\"X-Remote-Group\"]"});
            serde_json::from_value(json!({"data": data})).unwrap()
        };
        let (map, any) = (map("[\"front-proxy-client\"]"), map("[]"));
        let silent: ConfigMap = serde_json::from_value(json!({"data": {ALLOWED: "[]"}})).unwrap();
        let proxy = Some("front-proxy-client");
        for (name, map, user, group, permitted) in [
            (proxy, Some(&map), "rome", "liqo.io", true),
            (proxy, Some(&map), "turin", "liqo.io", false),
            (proxy, Some(&map), "", "liqo.io", false),
            (proxy, Some(&map), "", "system:masters", false),
            (proxy, Some(&silent), "rome", "liqo.io", false),
            (proxy, Some(&map), "admin", "system:masters", true),
            (proxy, Some(&any), "rome", "liqo.io", true),
            (Some("rome"), Some(&map), "rome", "liqo.io", false),
            (None, Some(&map), "rome", "liqo.io", false),
            (proxy, None, "rome", "liqo.io", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-remote-user", user.parse().unwrap());
            headers.append("x-remote-group", "system:authenticated".parse().unwrap());
            headers.append("x-remote-group", group.parse().unwrap());
            let outcome = check(&caller(name), &headers, map, "rome");
            assert_eq!(outcome.is_ok(), permitted, "{name:?} {user} {group}: {outcome:?}");
        }
    }
}
