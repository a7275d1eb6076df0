//! Outgoing calls: those to addresses that other clusters choose, and that of the authentication service to the controller
//! manager.
//!
//! Keeps true: a URL that a peer gives never leads to this node, this Pod, the metadata service of a cloud or, with
//! [`Reach::outside`], an address of this cluster. A name is resolved once, and the connection goes to an address that was checked. No redirect is followed, no proxy of the
//! environment is used, and every answer is bounded in size and time.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::certs;

mod own;

pub use own::Own;

/// Time limit of a whole call to a peer.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer, bytes.
const LONGEST: usize = 1024 * 1024;
/// What is said when a server shows another key than expected.
pub const ANOTHER_KEY: &str = "the server shows another key than the token names: somebody may be in between, or the key was \
                               changed, then `liqoctl generate peer-command` in that cluster makes a new token";

/// Addresses that cannot belong to another cluster: of this host, link-local, multicast, and of cloud metadata services.
const NEVER: [&str; 14] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "100.100.100.200/32",
    "168.63.129.16/32",
    "192.0.0.192/32",
    "::/128",
    "::1/128",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
    "fd00:ec2::/64",
];

/// Which addresses may be reached.
#[derive(Clone, Debug)]
pub struct Reach {
    never: Vec<IpNet>,
    own: Option<Arc<Own>>,
}

impl Default for Reach {
    /// Public and private addresses, without those that cannot belong to another cluster.
    fn default() -> Self {
        Self { never: NEVER.iter().map(|range| range.parse().expect("a range")).collect(), own: None }
    }
}

impl Reach {
    /// Every address: only for URLs that the administrator of this cluster has written.
    pub fn anywhere() -> Self {
        Self { never: Vec::new(), own: None }
    }

    /// Public and private addresses outside of this cluster, without those that cannot belong to another cluster.
    pub fn outside(own: Arc<Own>) -> Self {
        Self { own: Some(own), ..Self::default() }
    }

    /// Whether an address may be reached.
    ///
    /// # Errors
    /// A text that names the address and the range that forbids the address.
    pub fn check(&self, address: IpAddr) -> Result<(), String> {
        let plain = plain(address);
        if let Some(range) = self.never.iter().find(|range| range.contains(&plain)) {
            return Err(format!("address {address} is in {range}, where no other cluster can be"));
        }
        match self.own.as_ref().and_then(|own| own.what(plain)) {
            Some(what) => Err(format!(
                "address {address} is of this cluster ({what}); networks where peers are all the same belong in the value \
                 networking.peersWithin"
            )),
            None => Ok(()),
        }
    }

    /// Whether a host (a name, or an address in text) can be asked for; the addresses of names are checked once they are
    /// known.
    ///
    /// # Errors
    /// See [`Self::check`].
    pub fn check_host(&self, host: &str) -> Result<(), String> {
        bare(host).parse().map_or(Ok(()), |address| self.check(address))
    }

    /// The permitted addresses of a host; at least one.
    ///
    /// # Errors
    /// A text: the name is not known, or none of its addresses may be reached.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        let known = tokio::net::lookup_host((bare(host), port)).await;
        let known = known.map_err(|error| format!("resolving {host}: {error}"))?;
        let mut why = format!("{host} has no address");
        let mut permitted = Vec::new();
        for address in known {
            match self.check(address.ip()) {
                Ok(()) => permitted.push(address),
                Err(refused) => why = format!("{host} may not be reached: {refused}"),
            }
        }
        if permitted.is_empty() { Err(why) } else { Ok(permitted) }
    }

    /// Asks an HTTPS server. Nothing is sent before its certificate is found right.
    ///
    /// # Errors
    /// A text that names the failed step and its reason.
    pub async fn ask(&self, ask: Ask<'_>) -> Result<Answer, String> {
        let patience = ask.patience;
        match tokio::time::timeout(patience, self.exchange(ask)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {} s", patience.as_secs())),
        }
    }

    async fn exchange(&self, ask: Ask<'_>) -> Result<Answer, String> {
        let uri = checked(ask.url)?;
        let host = uri.host().unwrap_or_default();
        let stream = self.connect(host, uri.port_u16().unwrap_or(443)).await?;
        let stream = handshake(stream, host, ask.trust).await?;
        let mut request = Request::builder()
            .method(ask.method)
            .uri(uri.path_and_query().map_or("/", |path| path.as_str()))
            .header(header::HOST, uri.authority().map_or("", |authority| authority.as_str()))
            .header(header::CONTENT_TYPE, "text/plain")
            .header(header::CONNECTION, "close");
        if let Some(token) = ask.bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(ask.body)).map_err(|error| format!("preparing the request: {error}"))?;
        send(stream, request, ask.longest).await
    }

    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, String> {
        let mut why = String::new();
        for address in self.resolve(host, port).await? {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => why = format!("connecting to {address}: {error}"),
            }
        }
        Err(why)
    }
}

/// What is asked of whom.
pub struct Ask<'a> {
    /// GET or POST.
    pub method: Method,
    /// An HTTPS URL without a user.
    pub url: &'a str,
    /// Which servers are accepted.
    pub trust: &'a Trust,
    /// Body; may be empty.
    pub body: Bytes,
    /// A token of a ServiceAccount of this cluster, for a server of this cluster; nobody else is shown one.
    pub bearer: Option<&'a str>,
    /// Time limit of the whole call.
    pub patience: Duration,
    /// Bytes of the answer; a longer one is an error.
    pub longest: usize,
}

impl<'a> Ask<'a> {
    /// GET, without a token, within [`PATIENCE`].
    pub fn get(url: &'a str, trust: &'a Trust) -> Self {
        Self { method: Method::GET, url, trust, body: Bytes::new(), bearer: None, patience: PATIENCE, longest: LONGEST }
    }
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status; redirects are not followed.
    pub status: StatusCode,
    /// The whole body.
    pub body: Bytes,
}

/// Which servers are accepted. Each proves that it has the key of the certificate it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Servers with any certificate.
    Anybody,
    /// Servers whose certificate the system's authorities have issued for the host.
    System,
    /// Servers whose certificate these authorities (PEM) have issued for the host.
    Authorities(Vec<u8>),
    /// The server whose key has this pin, see [`certs::pin`].
    Key(String),
}

/// An HTTPS URL with a host and without a user.
///
/// # Errors
/// A text that names the wrong part of the URL.
fn checked(url: &str) -> Result<Uri, String> {
    let uri: Uri = url.parse().map_err(|error| format!("{url:?} is not a URL: {error}"))?;
    let authority = uri.authority().ok_or_else(|| format!("{url:?} has no host"))?;
    if uri.scheme_str() != Some("https") {
        return Err(format!("{url:?} must begin with https://"));
    }
    if authority.as_str().contains('@') {
        return Err(format!("{url:?} has a user"));
    }
    Ok(uri)
}

/// An address without the brackets URLs put around those of IPv6.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// The address a packet would go to: an IPv6 address may embed an IPv4 address.
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address else { return address };
    let carries = |prefix: Ipv6Addr| six.octets()[..12] == prefix.octets()[..12];
    let translated = carries(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0));
    let compatible = carries(Ipv6Addr::UNSPECIFIED) && six != Ipv6Addr::UNSPECIFIED && six != Ipv6Addr::LOCALHOST;
    match six.to_ipv4_mapped() {
        Some(four) => four.into(),
        None if translated || compatible => {
            let [.., a, b, c, d] = six.octets();
            [a, b, c, d].into()
        }
        None => address,
    }
}

async fn handshake(stream: TcpStream, host: &str, trust: &Trust) -> Result<TlsStream<TcpStream>, String> {
    let name = ServerName::try_from(bare(host).to_owned());
    let name = name.map_err(|error| format!("{host:?} is no host name: {error}"))?;
    let connector = tokio_rustls::TlsConnector::from(tls(trust)?);
    connector.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))
}

async fn send(stream: TlsStream<TcpStream>, request: Request<Full<Bytes>>, longest: usize) -> Result<Answer, String> {
    let failed = |error: hyper::Error| format!("HTTP: {error}");
    let mut http = hyper::client::conn::http1::Builder::new();
    http.max_buf_size(64 * 1024);
    let (mut sender, connection) = http.handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // Ends when the caller stops waiting for the answer.
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(failed)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), longest).collect().await;
        let body = body.map_err(|error| format!("reading the answer: {error}"))?.to_bytes();
        Ok(Answer { status, body })
    };
    let driver = async {
        let _ = connection.await;
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        outcome = exchange => outcome,
        never = driver => match never {},
    }
}

fn tls(trust: &Trust) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("preparing TLS: {error}"))?;
    let of_key = |pin| {
        let verifier = Arc::new(OfKey { provider, pin });
        builder.clone().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
    };
    let mut config = match trust {
        Trust::Key(pin) => of_key(Some(pin.clone())),
        Trust::Anybody => of_key(None),
        Trust::Authorities(pem) => builder.with_root_certificates(certs::roots(pem)?).with_no_client_auth(),
        Trust::System => builder.with_root_certificates(system_roots()?).with_no_client_auth(),
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
mod tests;
