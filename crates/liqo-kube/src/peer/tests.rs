use std::time::Duration;

use http::Uri;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;
use crate::certs::Subject;

/// The keys of a Secret that are read.
const READ: [&str; 6] = [PRIVATE_KEY, CERTIFICATE, API_SERVER_URL, API_SERVER_CA, NAMESPACE, PROXY_URL];

/// The data of a Secret from lines of a key, a space and a value; `KEY` and `CERTIFICATE` stand for a pair that was made just now.
fn data(bytes: &[u8], pair: &certs::Pair) -> BTreeMap<String, ByteString> {
    let value = |text: &str| text.replace("CERTIFICATE", &pair.certificate).replace("KEY", &pair.key);
    let text = String::from_utf8_lossy(bytes);
    let lines = text.split('\n').filter_map(|line| line.split_once(' '));
    lines.map(|(key, text)| (key.to_owned(), ByteString(value(text).into_bytes()))).collect()
}

fn secret(data: BTreeMap<String, ByteString>) -> Secret {
    let metadata = ObjectMeta { resource_version: Some("1".to_owned()), ..ObjectMeta::default() };
    Secret { data: Some(data), metadata, ..Secret::default() }
}

/// An identity is made of six keys of its Secret. Its client speaks TLS, and without a proxy its URL leads where a peer may be.
#[test]
fn fuzz_identities() {
    certs::install_crypto();
    let pair = certs::self_signed(&Subject::new("rome", "liqo.io"), &[], Duration::from_secs(60)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let reach = Reach::default();
    liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "identity", |bytes| {
        let data = data(bytes, &pair);
        let identity = PeerIdentity::from_secret(&secret(data.clone()));
        let read = data.into_iter().filter(|(key, _)| READ.contains(&key.as_str())).collect();
        assert!(identity == PeerIdentity::from_secret(&secret(read)), "a seventh key counts");
        let Some(identity) = identity else { return };
        let _ = identity.issued();
        let Ok(_) = runtime.block_on(identity.way(&reach)) else { return };
        let url: Uri = identity.api_server_url.parse().expect("the URL of a client");
        assert_eq!(url.scheme_str(), Some("https"), "{url}");
        assert!(identity.proxy_url.is_some() || reach.check_host(url.host().unwrap()).is_ok(), "{url}");
    });
}

#[test]
fn an_identity_is_used_with_a_pair_that_fits_and_a_url_of_https() {
    certs::install_crypto();
    let pair = certs::self_signed(&Subject::new("rome", "liqo.io"), &[], Duration::from_secs(60)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let file = |name: &str| {
        let path = format!("{}/corpus/identity/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    for (name, wanted) in [
        ("recorded", None),
        ("name", None),
        ("proxy", None),
        ("proxy-https", None),
        ("files", None),
        ("chain", None),
        ("proxy-socks", Some("must begin with http:// or https://")),
        ("clear", Some("must begin with https://")),
        ("proxy-clear", Some("must begin with https://")),
        ("loopback", Some("127.0.0.0/8")),
        ("mapped", Some("169.254.0.0/16")),
        ("translated", Some("127.0.0.0/8")),
        ("user", Some("127.0.0.0/8")),
    ] {
        let identity = PeerIdentity::from_secret(&secret(data(&file(name), &pair))).unwrap();
        let refused = runtime.block_on(identity.way(&Reach::default())).err();
        let is_so = match wanted {
            None => refused.is_none(),
            Some(words) => refused.as_ref().is_some_and(|why| why.contains(words)),
        };
        assert!(is_so, "{name}: {refused:?}, not {wanted:?}");
    }
}
