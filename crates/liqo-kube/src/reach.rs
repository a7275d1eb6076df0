//! Outgoing calls to addresses that other clusters choose.
//!
//! Keeps true: a URL that a peer gives never leads to this node, this Pod or the metadata service of a cloud. A name is
//! resolved once, and the connection goes to an address that was checked. No redirect is followed, no proxy of the
//! environment is used, and every answer is bounded in size and time.

use std::{
    convert::Infallible,
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
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
use x509_parser::prelude::{FromDer, X509Certificate};

/// Time limit of a whole call.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer, bytes.
const LONGEST: usize = 256 * 1024;

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
pub struct Reach(Vec<IpNet>);

impl Default for Reach {
    /// Public and private addresses, without those that cannot belong to another cluster.
    fn default() -> Self {
        Self(NEVER.iter().map(|range| range.parse().expect("a range")).collect())
    }
}

impl Reach {
    /// Every address: only for URLs that the administrator of this cluster has written.
    pub fn anywhere() -> Self {
        Self(Vec::new())
    }

    /// Forbids these ranges, too, like those of nodes, Services and Pods.
    #[must_use]
    pub fn except(mut self, ranges: impl IntoIterator<Item = IpNet>) -> Self {
        self.0.extend(ranges);
        self
    }

    /// Whether an address may be reached.
    ///
    /// # Errors
    /// A text that names the address and the range that forbids the address.
    pub fn check(&self, address: IpAddr) -> Result<(), String> {
        let plain = plain(address);
        match self.0.iter().find(|range| range.contains(&plain)) {
            Some(range) => Err(format!("address {address} is in {range}, where no other cluster can be")),
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

    /// Asks an HTTPS server, within [`PATIENCE`]. Nothing is sent before its key is found right.
    ///
    /// # Errors
    /// A text that names the failed step and its reason.
    pub async fn ask(&self, ask: Ask<'_>) -> Result<Answer, String> {
        match tokio::time::timeout(PATIENCE, self.exchange(ask)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }

    async fn exchange(&self, ask: Ask<'_>) -> Result<Answer, String> {
        let (host, port) = place(ask.url)?;
        let stream = self.connect(&host, port).await?;
        let (stream, key) = handshake(stream, &host, ask.trust).await?;
        let authority = if port == 443 { host } else { format!("{host}:{port}") };
        let request = Request::builder()
            .method(ask.method)
            .uri(ask.path)
            .header(header::HOST, authority)
            .header(header::CONTENT_TYPE, "text/plain")
            .header(header::CONNECTION, "close")
            .body(Full::new(Bytes::from(ask.body)))
            .map_err(|error| format!("preparing the request: {error}"))?;
        let (status, body) = send(stream, request).await?;
        Ok(Answer { status, body, key })
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

/// What is asked.
pub struct Ask<'a> {
    /// GET or POST.
    pub method: Method,
    /// `https://HOST` or `https://HOST:PORT`, nothing else.
    pub url: &'a str,
    /// Path, with its leading slash; chosen by this cluster, never by the peer.
    pub path: &'a str,
    /// Body; may be empty.
    pub body: Vec<u8>,
    /// Which servers are accepted.
    pub trust: &'a Trust,
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status; redirects are not followed.
    pub status: StatusCode,
    /// The whole body.
    pub body: Bytes,
    /// The key the server has proved to have.
    pub key: Pin,
}

/// Which servers are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Servers that prove that they have the key of the certificate they show, whoever issued the certificate.
    Anybody,
    /// Servers whose certificate the system's authorities have issued for the host.
    System,
    /// The server with this key.
    Key(Pin),
}

/// The SHA-256 of a public key (SubjectPublicKeyInfo, DER). In text `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin([u8; 32]);

impl Pin {
    /// The pin of the key in a certificate.
    ///
    /// # Errors
    /// A text, when that is no certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, read) =
            X509Certificate::from_der(certificate).map_err(|error| format!("reading a certificate: {error}"))?;
        let digest = ring::digest::digest(&ring::digest::SHA256, read.public_key().raw);
        Ok(Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes")))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Pin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} must be sha256: and 64 hexadecimal digits");
        let digits = text.trim().strip_prefix("sha256:").ok_or_else(wrong)?.as_bytes();
        if digits.len() != 64 {
            return Err(wrong());
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let mut pin = [0; 32];
        for (byte, pair) in pin.iter_mut().zip(digits.chunks_exact(2)) {
            let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else { return Err(wrong()) };
            *byte = high << 4 | low;
        }
        Ok(Self(pin))
    }
}

/// Host and port of a URL without user, path or query.
///
/// # Errors
/// A text that names the wrong part of the URL.
pub fn place(url: &str) -> Result<(String, u16), String> {
    let wrong = |what: &str| format!("{url:?} must be https://HOST or https://HOST:PORT: {what}");
    let uri: Uri = url.parse().map_err(|error| wrong(&format!("it is not a URL ({error})")))?;
    if uri.scheme_str() != Some("https") {
        return Err(wrong("it does not begin with https://"));
    }
    let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
    if authority.as_str().contains('@') {
        return Err(wrong("it has a user"));
    }
    if uri.path() != "/" || uri.query().is_some() {
        return Err(wrong("it has a path"));
    }
    Ok((authority.host().to_owned(), authority.port_u16().unwrap_or(443)))
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

async fn handshake(stream: TcpStream, host: &str, trust: &Trust) -> Result<(TlsStream<TcpStream>, Pin), String> {
    let name = ServerName::try_from(bare(host).to_owned());
    let name = name.map_err(|error| format!("{host:?} is no host name: {error}"))?;
    let connector = tokio_rustls::TlsConnector::from(tls(trust)?);
    let stream = connector.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let key = Pin::of(shown.ok_or("TLS: no certificate was shown")?)?;
    match trust {
        Trust::Key(expected) if *expected != key => Err(format!(
            "the server at {host} has another key than expected ({key}, not {expected}): somebody is between, or its \
             key was changed"
        )),
        _ => Ok((stream, key)),
    }
}

async fn send(stream: TlsStream<TcpStream>, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), String> {
    let failed = |error: hyper::Error| format!("HTTP: {error}");
    let mut http = hyper::client::conn::http1::Builder::new();
    http.max_buf_size(64 * 1024);
    let (mut sender, connection) = http.handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // Ends when the caller stops waiting for the answer.
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(failed)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        Ok((status, body.map_err(|error| format!("reading the answer: {error}"))?.to_bytes()))
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
    let mut config = if *trust == Trust::System {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        let (usable, _) = roots.add_parsable_certificates(found.certs);
        if usable == 0 {
            return Err("no system certificates to verify the peer with: set insecureSkipTLSVerify".to_owned());
        }
        builder.with_root_certificates(roots).with_no_client_auth()
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))).with_no_client_auth()
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Accepts every certificate, and checks that the server has the key of its certificate.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
