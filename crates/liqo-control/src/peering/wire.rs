//! What goes over the wire between an authentication service and its clients: the JSON of Liqo 0.8.3.

use base64::{Engine, engine::general_purpose::STANDARD};
use liqo_api::ClusterIdentity;
use liqo_kube::certs::{self, SigningRequest};
use serde::{Deserialize, Serialize};

/// Answer of `GET /ids`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ids {
    /// With a small `d`, unlike everywhere else.
    #[serde(rename = "clusterId")]
    pub(crate) cluster_id: String,
    #[serde(rename = "clusterName", default)]
    pub(crate) cluster_name: String,
}

/// Body of `POST /identity/certificate`. It holds tokens, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Request {
    /// Who asks.
    pub(crate) cluster: ClusterIdentity,
    /// What the asker wants to hear when it is asked back.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) origin_cluster_token: String,
    /// What the asked one wants to hear.
    #[serde(default)]
    pub(crate) destination_cluster_token: String,
    /// Base64 of a PKCS#10 request in PEM.
    pub(crate) certificate_signing_request: String,
    /// The caller renews its certificate in time, so a short-lived certificate suffices. Liqo 0.8.3 does not know this field
    /// and ignores it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) renews: bool,
    /// Base64 of a signature over [`renewal`] by the key of the certificate given before. Not of Liqo 0.8.3, which
    /// ignores it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) proof: String,
}

/// Signature of the old key that authorises a new key: over the signing request in DER and the purpose.
pub(crate) fn renewal(request: &[u8]) -> Vec<u8> {
    [b"liqo.io identity renewal\n", request].concat()
}

/// The word of an old key (PEM), however old its certificate, for the key of a new request (PEM).
pub(crate) fn proof(old_key: &str, request: &str) -> Option<String> {
    let request = SigningRequest::read(request).ok()?;
    certs::sign(old_key, &renewal(request.der())).ok().map(|signature| STANDARD.encode(signature))
}

/// Answer of `POST /identity/certificate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer {
    /// The namespace dedicated to the asker.
    pub(crate) namespace: String,
    /// Base64 of the certificate in PEM.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) certificate: String,
    /// Where the API server is.
    #[serde(default)]
    pub(crate) api_server_url: String,
    /// Base64 of its authority in PEM; left out when every system trusts it.
    #[serde(default, rename = "apiServerCA", skip_serializing_if = "String::is_empty")]
    pub(crate) api_server_ca: String,
}

/// What an authentication service is told by the controller manager. It holds a key, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Facts {
    /// Who this cluster is.
    pub(crate) cluster: ClusterIdentity,
    /// What to show; absent when the service is to show a certificate of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shown: Option<ShownPair>,
    /// The certificates of peers, in PEM: a caller that proves one of these keys is no stranger.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) peers: Vec<String>,
}

/// A certificate and its key, in PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShownPair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// What the controller manager says to a request the authentication service has passed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Verdict {
    Granted(Answer),
    /// An HTTP status from 400 on, and words for the peer's administrator.
    Refused {
        status: u16,
        why: String,
    },
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_json_is_that_of_liqo_0_8_3() {
        let request = Request {
            cluster: ClusterIdentity::new("1", "rome"),
            origin_cluster_token: String::new(),
            destination_cluster_token: String::new(),
            certificate_signing_request: "Q1NS".to_owned(),
            renews: false,
            proof: String::new(),
        };
        let cluster = json!({"clusterID": "1", "clusterName": "rome"});
        let body = json!({"cluster": cluster, "destinationClusterToken": "", "certificateSigningRequest": "Q1NS"});
        assert_eq!(serde_json::to_value(&request).unwrap(), body);
        let ids = Ids { cluster_id: "1".to_owned(), cluster_name: "rome".to_owned() };
        assert_eq!(serde_json::to_value(&ids).unwrap(), json!({"clusterId": "1", "clusterName": "rome"}));
        let answer = Answer {
            namespace: "n".to_owned(),
            certificate: "c".to_owned(),
            api_server_url: "u".to_owned(),
            api_server_ca: "a".to_owned(),
        };
        let body = json!({"namespace": "n", "certificate": "c", "apiServerUrl": "u", "apiServerCA": "a"});
        assert_eq!(serde_json::to_value(&answer).unwrap(), body);
    }
}
