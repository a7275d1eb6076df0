//! Asking a peer's authentication service: who are you, and: know me from now on.
//!
//! HTTP/1.1 on a connection of its own, five seconds for everything, no redirects, no proxy; answers
//! are short. Our own authentication service speaks to the controller manager in the same way. A pin in the token says which key the service must show. Without one `insecureSkipTLSVerify` of the
//! `ForeignCluster` (on by default: the service makes its own certificate) says whether its certificate is verified.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use liqo_api::ClusterIdentity;
use liqo_core::join_token;
use liqo_kube::certs;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::wire;

/// No conversation with a peer takes longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// No answer is longer.
const LONGEST: usize = 1024 * 1024;
/// What is said when the service shows a key the token does not name.
const ANOTHER_KEY: &str = "the authentication service shows another key than the token names: somebody may be in between, \
                           or the key was changed, then `liqoctl generate peer-command` in that cluster makes a new token";

/// Why a peer gave us nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It said no (401 or 403), in these words.
    Denied(String),
    /// It said something else, or nothing.
    Failed(String),
}

/// What an identity on a peer consists of, besides the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) namespace: String,
    pub(crate) certificate: String,
    pub(crate) api_server_url: String,
    pub(crate) api_server_ca: Option<String>,
}

/// Whose certificate is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Accepted {
    /// One of these authorities (PEM) vouches for it.
    VouchedBy(Vec<u8>),
    /// Certificates that a certificate authority of the system has signed.
    Vouched,
    /// Any.
    Any,
    /// The certificate whose key has this pin.
    Pinned(String),
}

/// Which certificate of a peer's authentication service is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trust(Accepted);

impl Trust {
    /// The pin in the token decides; without a pin, `insecureSkipTLSVerify` decides.
    pub(crate) fn of(token: &str, insecure: bool) -> Self {
        Self(match (join_token::split(token).1, insecure) {
            (Some(pin), _) => Accepted::Pinned(pin.to_owned()),
            (None, true) => Accepted::Any,
            (None, false) => Accepted::Vouched,
        })
    }

    /// Servers for which one of these authorities vouches, in PEM.
    pub(crate) fn authorities(pem: &[u8]) -> Self {
        Self(Accepted::VouchedBy(pem.to_vec()))
    }
}

/// Asks a peer who it is.
pub(crate) async fn who(url: &str, insecure: bool) -> Result<ClusterIdentity, Refusal> {
    let (trust, url) = (Trust::of("", insecure), format!("{}/ids", url.trim_end_matches('/')));
    let (status, body) = talk(&Call::get(&url, &trust)).await?;
    if status != StatusCode::OK {
        return Err(Refusal::Failed(format!("unexpected response: {status}")));
    }
    let ids: wire::Ids = serde_json::from_slice(&body).map_err(|error| unreadable(&error))?;
    Ok(ClusterIdentity::new(ids.cluster_id, ids.cluster_name))
}

/// Asks a peer to sign a certificate and to make room for us.
pub(crate) async fn ask(url: &str, trust: &Trust, request: &wire::Request) -> Result<Grant, Refusal> {
    let url = format!("{}/identity/certificate", url.trim_end_matches('/'));
    let body = serde_json::to_vec(request).expect("a request is JSON");
    let call = Call { method: Method::POST, body: body.into(), ..Call::get(&url, trust) };
    let (status, body) = talk(&call).await.map_err(|refusal| match refusal {
        Refusal::Failed(why) => Refusal::Failed(format!("failed to send identity request: Post \"{url}\": {why}")),
        denied => denied,
    })?;
    match status {
        StatusCode::CREATED | StatusCode::ACCEPTED => grant(&body),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Refusal::Denied(words(&body))),
        other => Err(Refusal::Failed(format!("unexpected response: {other}: {}", words(&body)))),
    }
}

fn unreadable(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::Failed(format!("failed to unmarshal response: {error}"))
}

fn grant(body: &[u8]) -> Result<Grant, Refusal> {
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
    Ok(Grant {
        namespace: answer.namespace,
        certificate: decode("certificate", &answer.certificate)?,
        api_server_url: answer.api_server_url,
        api_server_ca: ca.map(|ca| decode("apiServerCA", ca)).transpose()?,
    })
}

/// What a peer says, on one line of bearable length.
fn words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(512).collect();
    text.trim().to_owned()
}

/// What is asked of whom.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a str,
    pub(crate) trust: &'a Trust,
    pub(crate) body: Bytes,
    /// The token of our ServiceAccount, for the controller manager; nobody else is shown one.
    pub(crate) bearer: Option<&'a str>,
    /// How long everything may take.
    pub(crate) patience: Duration,
}

impl<'a> Call<'a> {
    /// GET, without a token.
    pub(crate) fn get(url: &'a str, trust: &'a Trust) -> Self {
        Self { method: Method::GET, url, trust, body: Bytes::new(), bearer: None, patience: PATIENCE }
    }
}

/// Status and body of the answer.
///
/// # Errors
/// [`Refusal::Failed`]: there is no answer that could be read.
pub(crate) async fn talk(call: &Call<'_>) -> Result<(StatusCode, Bytes), Refusal> {
    let outcome = tokio::time::timeout(call.patience, exchange(call)).await;
    match outcome {
        Ok(answer) => answer.map_err(Refusal::Failed),
        Err(_) => Err(Refusal::Failed(format!("no answer within {} s", call.patience.as_secs()))),
    }
}

async fn exchange(call: &Call<'_>) -> Result<(StatusCode, Bytes), String> {
    let Call { url, trust, .. } = call;
    let uri: Uri = url.parse().map_err(|error| format!("{url:?} is not a URL: {error}"))?;
    let host = uri.host().ok_or_else(|| format!("{url:?} has no host"))?.to_owned();
    let plain = match uri.scheme_str() {
        Some("https") => false,
        Some("http") => true,
        _ => return Err(format!("{url:?} must begin with https://")),
    };
    let port = uri.port_u16().unwrap_or(if plain { 80 } else { 443 });
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let stream = TcpStream::connect((bare.as_str(), port)).await.map_err(|error| format!("connecting: {error}"))?;
    let _ = stream.set_nodelay(true);
    let request = request(call, &uri)?;
    if plain && matches!(trust, Trust(Accepted::Pinned(_))) {
        return Err(
            "the token names the key of the authentication service, so its URL must begin with https://".to_owned()
        );
    }
    if plain {
        return send(stream, request).await;
    }
    let name = ServerName::try_from(bare).map_err(|error| format!("{host:?} is no host name: {error}"))?;
    let connector = tokio_rustls::TlsConnector::from(tls(trust)?);
    let stream = connector.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
    send(stream, request).await
}

fn request(call: &Call<'_>, uri: &Uri) -> Result<Request<Full<Bytes>>, String> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::builder()
        .method(call.method.clone())
        .uri(path)
        .header(header::HOST, authority)
        .header(header::CONTENT_TYPE, "text/plain")
        .header(header::CONNECTION, "close");
    if let Some(token) = call.bearer {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    request.body(Full::new(call.body.clone())).map_err(|error| format!("preparing the request: {error}"))
}

async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| format!("HTTP: {error}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let driver = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(failed)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), LONGEST).collect().await;
    driver.abort();
    Ok((status, body.map_err(|error| format!("reading the answer: {error}"))?.to_bytes()))
}

fn tls(Trust(accepted): &Trust) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("preparing TLS: {error}"))?;
    let of_key = |pin| {
        let verifier = Arc::new(OfKey { provider, pin });
        builder.clone().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
    };
    let mut config = match accepted {
        Accepted::Pinned(pin) => of_key(Some(pin.clone())),
        Accepted::Any => of_key(None),
        Accepted::VouchedBy(pem) => builder.with_root_certificates(certs::roots(pem)?).with_no_client_auth(),
        Accepted::Vouched => builder.with_root_certificates(system_roots()?).with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        return Err("no system certificates to verify the peer with: set insecureSkipTLSVerify".to_owned());
    }
    Ok(roots)
}

/// Accepts a certificate whose key has the pin, or any certificate without a pin; in both cases the server must prove that it
/// has the key.
#[derive(Debug)]
struct OfKey {
    provider: Arc<CryptoProvider>,
    pin: Option<String>,
}

impl ServerCertVerifier for OfKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let shown = certs::pin_der(end_entity);
        match &self.pin {
            Some(pin) if shown.as_ref().is_ok_and(|shown| shown == pin) => Ok(ServerCertVerified::assertion()),
            Some(_) => Err(TlsError::General(ANOTHER_KEY.to_owned())),
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_liqo_0_8_3_is_understood() {
        let body = br#"{"namespace":"liqo-tenant-a","certificate":"Q0VSVA==","apiServerUrl":"https://a:6443",
            "apiServerCA":"Q0E=","aws":{"accessKeyID":"","secretAccessKey":""}}"#;
        let grant = grant(body).unwrap();
        assert_eq!((grant.certificate.as_str(), grant.api_server_ca.as_deref()), ("CERT", Some("CA")));
        assert!(matches!(super::grant(b"{}"), Err(Refusal::Failed(why)) if why.contains("namespace")));
    }

    #[test]
    fn a_long_answer_becomes_one_short_line() {
        assert_eq!(words(b"no\nway\n"), "no way");
        assert_eq!(words(&[b'x'; 2000]).len(), 512);
    }

    #[tokio::test]
    async fn a_url_that_leads_nowhere_says_so() {
        for (url, text) in [
            ("https://127.0.0.1:1", "connecting"),
            ("nonsense", "not a URL"),
            ("/a", "no host"),
            ("ftp://a", "https://"),
        ] {
            let Err(Refusal::Failed(why)) = who(url, true).await else { panic!("{url}") };
            assert!(why.contains(text), "{url}: {why}");
        }
    }

    #[test]
    fn a_pin_decides_whatever_else_is_said() {
        let pin = "a-_4567890123456789012345678901234567890123";
        for insecure in [true, false] {
            let pinned = Trust(Accepted::Pinned(pin.to_owned()));
            assert_eq!(Trust::of(&format!("token.{pin}"), insecure), pinned);
        }
        assert_eq!(Trust::of("token", true), Trust(Accepted::Any));
        assert_eq!(Trust::of("token", false), Trust(Accepted::Vouched));
    }

    #[tokio::test]
    async fn only_the_key_the_token_names_is_spoken_to() {
        use liqo_kube::{
            certs::{Shown, Subject},
            server,
        };
        certs::install_crypto();
        let pair = certs::self_signed(&Subject::new("liqo-auth", "liqo.io"), &[], Duration::from_secs(600)).unwrap();
        let shown = Arc::new(Shown::default());
        shown.show(&pair).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/ids", listener.local_addr().unwrap());
        tokio::spawn(server::serve(listener, Some(certs::server_config(shown)), |_, _| async {
            server::text(StatusCode::OK, "hello")
        }));
        let right = format!("token.{}", certs::pin(pair.certificate.as_bytes()).unwrap());
        let wrong = "token.a-_4567890123456789012345678901234567890123";
        for insecure in [true, false] {
            let (status, _) = talk(&Call::get(&url, &Trust::of(&right, insecure))).await.unwrap();
            assert_eq!(status, StatusCode::OK);
            let refused = talk(&Call::get(&url, &Trust::of(wrong, insecure))).await;
            let Err(Refusal::Failed(why)) = refused else { panic!("{refused:?}") };
            assert!(why.contains(ANOTHER_KEY), "{why}");
        }
        let plain = url.replace("https", "http");
        assert!(talk(&Call::get(&plain, &Trust::of(&right, true))).await.is_err());
    }

    /// A grant has a certificate; what is told of an answer is one short line.
    #[test]
    fn fuzz_identity_answers() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "identity_answer", |bytes| {
            if let Ok(grant) = grant(bytes) {
                assert!(!grant.certificate.is_empty());
                let _ = liqo_kube::certs::facts(grant.certificate.as_bytes());
            }
            let words = words(bytes);
            assert!(words.chars().count() <= 512 && !words.contains(['\n', '\r']), "{words:?}");
        });
    }
}
