//! Asking a peer's authentication service: who are you, and: know me from now on.
//!
//! A peer is reached through [`Reach`], which judges addresses and bounds everything. A pin in the token says which key the
//! service must show. Without a pin, `insecureSkipTLSVerify` of the `ForeignCluster` (on by default: the service makes its own
//! certificate) says whether its certificate is verified.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Method, StatusCode};
use liqo_api::ClusterIdentity;
use liqo_core::join_token;
use liqo_kube::{
    reach::{Answer, Ask, Reach, Trust},
    said,
};

use super::wire;

/// Why a peer gave us nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The authentication service of the peer answered 401 or 403; the text names the peer and repeats its words.
    Denied(String),
    /// The authentication service of the peer gave another answer, or none.
    Failed(String),
}

/// What an identity on a peer consists of, besides the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Issued {
    pub(crate) namespace: String,
    pub(crate) certificate: String,
    pub(crate) api_server_url: String,
    pub(crate) api_server_ca: Option<String>,
}

/// Which certificate of a peer's authentication service is accepted: the pin in the token decides; without a pin,
/// `insecureSkipTLSVerify` decides.
pub(crate) fn trust(token: &str, insecure: bool) -> Trust {
    match (join_token::split(token).1, insecure) {
        (Some(pin), _) => Trust::Key(pin.to_owned()),
        (None, true) => Trust::Anybody,
        (None, false) => Trust::System,
    }
}

/// Asks a peer who it is.
pub(crate) async fn who(reach: &Reach, url: &str, insecure: bool) -> Result<ClusterIdentity, Refusal> {
    let (trust, url) = (trust("", insecure), format!("{}/ids", url.trim_end_matches('/')));
    let Answer { status, body } = reach.ask(Ask::get(&url, &trust)).await.map_err(Refusal::Failed)?;
    if status != StatusCode::OK {
        return Err(Refusal::Failed(format!("unexpected response: {status}")));
    }
    let ids: wire::Ids = serde_json::from_slice(&body).map_err(|error| unreadable(&error))?;
    Ok(ClusterIdentity::new(ids.cluster_id, ids.cluster_name))
}

/// Asks the peer `name` to sign a certificate and to make room for us.
pub(crate) async fn ask(
    reach: &Reach,
    name: &str,
    url: &str,
    trust: &Trust,
    request: &wire::Request,
) -> Result<Issued, Refusal> {
    let url = format!("{}/identity/certificate", url.trim_end_matches('/'));
    let body = serde_json::to_vec(request).expect("a request is JSON");
    let asked = Ask { method: Method::POST, body: body.into(), ..Ask::get(&url, trust) };
    let failed = |why| Refusal::Failed(format!("failed to send identity request: Post \"{url}\": {why}"));
    let Answer { status, body } = reach.ask(asked).await.map_err(failed)?;
    match status {
        StatusCode::CREATED | StatusCode::ACCEPTED => issued(&body),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Refusal::Denied(words(name, &body))),
        other => Err(Refusal::Failed(format!("unexpected response: {other}: {}", words(name, &body)))),
    }
}

fn unreadable(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::Failed(format!("failed to unmarshal response: {error}"))
}

fn issued(body: &[u8]) -> Result<Issued, Refusal> {
    let answer: wire::Answer = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    let decode = |name: &str, text: &str| {
        let bytes = STANDARD.decode(text).map_err(|error| unreadable(&format!("{name}: {error}")))?;
        String::from_utf8(bytes).map_err(|error| unreadable(&format!("{name}: {error}")))
    };
    if answer.certificate.is_empty() {
        let why = "the peer gave no certificate; identities of EKS clusters are not supported by this release";
        return Err(Refusal::Failed(why.to_owned()));
    }
    let ca = Some(answer.api_server_ca.as_str()).filter(|ca| !ca.is_empty());
    Ok(Issued {
        namespace: answer.namespace,
        certificate: decode("certificate", &answer.certificate)?,
        api_server_url: answer.api_server_url,
        api_server_ca: ca.map(|ca| decode("apiServerCA", ca)).transpose()?,
    })
}

/// The words of the peer `name`, marked as its claim.
fn words(name: &str, body: &[u8]) -> String {
    said::by(name, &String::from_utf8_lossy(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_liqo_0_8_3_is_understood() {
        let body = br#"{"namespace":"liqo-tenant-a","certificate":"Q0VSVA==","apiServerUrl":"https://a:6443",
            "apiServerCA":"Q0E=","aws":{"accessKeyID":"","secretAccessKey":""}}"#;
        let grant = issued(body).unwrap();
        assert_eq!((grant.certificate.as_str(), grant.api_server_ca.as_deref()), ("CERT", Some("CA")));
        assert!(matches!(super::issued(b"{}"), Err(Refusal::Failed(why)) if why.contains("namespace")));
    }

    #[test]
    fn a_refusal_names_the_cluster_that_said_it() {
        assert_eq!(words("milan", b"no\nway\xff\n"), "cluster \"milan\" says: no way\u{fffd}");
    }

    #[tokio::test]
    async fn a_url_that_leads_nowhere_says_so() {
        for (url, text) in [
            ("https://127.0.0.1:1", "127.0.0.0/8"),
            ("nonsense", "not a URL"),
            ("/a", "no host"),
            ("ftp://a", "https://"),
        ] {
            let Err(Refusal::Failed(why)) = who(&Reach::default(), url, true).await else { panic!("{url}") };
            assert!(why.contains(text), "{url}: {why}");
        }
    }

    #[test]
    fn a_pin_decides_whatever_else_is_said() {
        let pin = "a-_4567890123456789012345678901234567890123";
        for insecure in [true, false] {
            assert_eq!(trust(&format!("token.{pin}"), insecure), Trust::Key(pin.to_owned()));
        }
        assert_eq!(trust("token", true), Trust::Anybody);
        assert_eq!(trust("token", false), Trust::System);
    }

    /// A grant has a certificate; what is told of an answer is one short line.
    #[test]
    fn fuzz_identity_answers() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "identity_answer", |bytes| {
            if let Ok(grant) = issued(bytes) {
                assert!(!grant.certificate.is_empty());
                let _ = liqo_kube::certs::facts(grant.certificate.as_bytes());
            }
            let words = words("milan", bytes);
            assert!(words.chars().count() <= said::LONGEST + 32 && !words.contains(['\n', '\r']), "{words:?}");
        });
    }
}
