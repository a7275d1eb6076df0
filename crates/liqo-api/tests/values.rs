//! What the recordings do not contain but peers may send.

use liqo_api::{discovery::ForeignClusterSpec, sharing::ResourceOfferSpec};
use serde_json::json;

#[test]
fn a_number_is_a_quantity() {
    let spec: ResourceOfferSpec =
        serde_json::from_value(json!({"clusterId": "x", "resourceQuota": {"hard": {"cpu": 2}}})).expect("readable");
    let hard = spec.resource_quota.and_then(|quota| quota.hard).expect("a quota");
    assert_eq!(hard["cpu"].0, "2");
}

#[test]
fn verification_is_skipped_unless_said_otherwise() {
    let read = |value| serde_json::from_value::<ForeignClusterSpec>(value).expect("readable");
    let url = "https://10.0.0.1:8443";
    assert_eq!(read(json!({"foreignAuthUrl": url})).insecure_skip_tls_verify, Some(true));
    let strict = read(json!({"foreignAuthUrl": url, "insecureSkipTLSVerify": false}));
    assert_eq!(strict.insecure_skip_tls_verify, Some(false));
    let unsaid = ForeignClusterSpec { foreign_auth_url: url.to_owned(), ..ForeignClusterSpec::default() };
    assert_eq!(serde_json::to_value(unsaid).expect("JSON").get("insecureSkipTLSVerify"), None);
}
