//! The proxy over real sockets, with real TLS inside.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use clap::Parser;
use liqo_kube::certs::{self, Pair, Shown, Subject};
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

use super::{Proxy, ProxyArgs};

/// How an end behaves once TLS stands.
#[derive(Clone, Copy)]
enum Behaviour {
    /// Sends back what it is sent, until the client has ended, and then ends.
    Echo,
    /// Waits for the end of the client and only then speaks.
    AnswerAtTheEnd(&'static str),
}

const LIFE: Duration = Duration::from_secs(3600);

fn pair(name: &str) -> Pair {
    certs::install_crypto();
    certs::self_signed(&Subject::new(name, "test"), &[name.to_owned()], LIFE).unwrap()
}

/// A TLS server on a port of its own.
async fn end(pair: &Pair, behaviour: Behaviour) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shown = Arc::new(Shown::default());
    shown.show(pair).unwrap();
    let acceptor = TlsAcceptor::from(certs::server_config(shown));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await.unwrap();
                match behaviour {
                    Behaviour::Echo => {
                        let (mut from, mut to) = tokio::io::split(stream);
                        let _ = tokio::io::copy(&mut from, &mut to).await;
                        let _ = to.shutdown().await;
                    }
                    Behaviour::AnswerAtTheEnd(words) => {
                        let mut said = Vec::new();
                        stream.read_to_end(&mut said).await.unwrap();
                        stream.write_all(format!("{words} {}", said.len()).as_bytes()).await.unwrap();
                        stream.shutdown().await.unwrap();
                    }
                }
            });
        }
    });
    address
}

struct Bed {
    proxy: Proxy,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

async fn bed(api: SocketAddr, auth: SocketAddr, flags: &str) -> Bed {
    let line = format!(
        "liqo-proxy --api-server-host {} --api-server-port {} --auth-service localhost:{} {flags}",
        api.ip(),
        api.port(),
        auth.port()
    );
    let args = ProxyArgs::parse_from(line.split_whitespace());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = Proxy::new(args);
    let serving = tokio::spawn(proxy.clone().serve(listener));
    Bed { proxy, address, serving }
}

/// An address nobody listens on.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

impl Bed {
    /// Sends one request head and gives the connection with the head of the answer.
    async fn ask(&self, head: &str) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = head_of(&mut stream).await;
        (stream, answer)
    }

    async fn connect(&self, target: &str) -> (TcpStream, String) {
        self.ask(&format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")).await
    }

    /// A refusal: its code and its words.
    async fn refused(&self, head: &str) -> (u16, String) {
        let (mut stream, answer) = self.ask(head).await;
        let length = answer.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (code, format!("{answer}{}", String::from_utf8(body).unwrap()))
    }

    async fn tls(&self, target: &str, pair: &Pair, name: &'static str) -> TlsStream<TcpStream> {
        let (stream, answer) = self.connect(target).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let stream = connector(pair).connect(ServerName::try_from(name).unwrap(), stream);
        stream.await.unwrap()
    }

    fn metric(&self, name: &str) -> i64 {
        let mut samples = liqo_kube::metrics::Samples::default();
        self.proxy.counts.samples(&self.proxy.sources.all(), &mut samples);
        let text = samples.text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse().unwrap()
    }

    /// Waits for the number of open tunnels.
    async fn until_open(&self, wanted: i64) {
        let reached = async {
            while self.metric("liqo_proxy_tunnels_open ") != wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), reached).await.unwrap();
    }
}

async fn head_of(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

fn connector(pair: &Pair) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()).unwrap();
    Arc::new(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()).into()
}

/// Bytes that are not the same everywhere.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(31) >> 3) as u8).collect()
}

#[tokio::test]
async fn tls_goes_through_from_end_to_end_and_nothing_is_lost() {
    let pair = pair("api.rome.example");
    let bed = bed(end(&pair, Behaviour::Echo).await, nobody().await, "").await;
    let stream = bed.tls("172.30.0.12:6443", &pair, "api.rome.example").await;
    let sent = pattern(5_000_000);
    let (mut from, mut to) = tokio::io::split(stream);
    let wanted = sent.clone();
    let writer = tokio::spawn(async move {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
        to
    });
    let mut got = Vec::new();
    from.read_to_end(&mut got).await.unwrap();
    drop(writer.await.unwrap());
    assert!(got == wanted, "{} of {} bytes came back", got.len(), wanted.len());
    bed.until_open(0).await;
    assert!(bed.metric("liqo_proxy_bytes_total{direction=\"to_upstream\"} ") > 5_000_000);
    assert!(bed.metric("liqo_proxy_bytes_total{direction=\"to_client\"} ") > 5_000_000);
    assert_eq!(bed.metric("liqo_proxy_tunnels_total{destination=\"api-server\"} "), 1);
}

#[tokio::test]
async fn the_authentication_service_is_reached_by_name_and_by_address() {
    let (api, auth) = (pair("api"), pair("liqo-auth"));
    let auth_end = end(&auth, Behaviour::AnswerAtTheEnd("auth")).await;
    let bed = bed(end(&api, Behaviour::AnswerAtTheEnd("api")).await, auth_end, "").await;
    for (target, pair, name, wanted) in [
        (format!("localhost:{}", auth_end.port()), &auth, "liqo-auth", "auth 2"),
        (format!("127.0.0.1:{}", auth_end.port()), &auth, "liqo-auth", "auth 2"),
        ("127.0.0.1:6443".to_owned(), &api, "api", "api 2"),
    ] {
        let mut stream = bed.tls(&target, pair, name).await;
        stream.write_all(b"hi").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, wanted, "{target}");
    }
    assert_eq!(bed.metric("liqo_proxy_tunnels_total{destination=\"auth-service\"} "), 2);
}

#[tokio::test]
async fn what_is_sent_before_the_answer_is_not_lost() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bed = bed(listener.local_addr().unwrap(), nobody().await, "").await;
    let mut client = TcpStream::connect(bed.address).await.unwrap();
    client.write_all(b"CONNECT a.b:443 HTTP/1.1\r\nHost: a.b:443\r\n\r\nearly words").await.unwrap();
    let (mut upstream, _) = listener.accept().await.unwrap();
    let mut got = [0; 11];
    upstream.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"early words");
}

#[tokio::test]
async fn an_end_that_is_closed_is_closed_in_that_direction_only() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bed = bed(listener.local_addr().unwrap(), nobody().await, "--half-closed-timeout 1").await;
    let (mut client, _) = bed.connect("a.b:443").await;
    let (mut upstream, _) = listener.accept().await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(upstream.read(&mut [0; 8]).await.unwrap(), 0, "the end of the client is told");
    upstream.write_all(b"still here").await.unwrap();
    let mut got = [0; 10];
    client.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"still here");
    // Now silence: the rest is closed, too.
    assert_eq!(client.read(&mut [0; 8]).await.unwrap_or(0), 0);
    bed.until_open(0).await;
}

#[tokio::test]
async fn silence_ends_a_tunnel() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bed = bed(listener.local_addr().unwrap(), nobody().await, "--idle-timeout 1").await;
    let (mut client, _) = bed.connect("a.b:443").await;
    let (_upstream, _) = listener.accept().await.unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(5), client.read_u8()).await;
    assert!(closed.expect("closed after two idle limits at the latest").is_err());
    bed.until_open(0).await;
}

#[tokio::test]
async fn everything_else_is_refused_in_a_sentence() {
    let bed = bed(nobody().await, nobody().await, "").await;
    for (head, code, told) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 405, "CONNECT only"),
        ("GET http://kubernetes.default.svc/ HTTP/1.1\r\nHost: x\r\n\r\n", 405, "CONNECT only"),
        ("CONNECT a.b HTTP/1.1\r\nHost: a.b\r\n\r\n", 400, "HOST:PORT"),
        ("CONNECT web.demo.svc:80 HTTP/1.1\r\nHost: x\r\n\r\n", 403, "service demo/web cannot be reached"),
        ("CONNECT a.b:443 HTTP/1.1\r\nHost: x\r\n\r\n", 502, "connecting to the API server at 127.0.0.1"),
    ] {
        let (found, words) = bed.refused(head).await;
        assert_eq!(found, code, "{head}: {words}");
        assert!(words.contains(told), "{head}: {words}");
    }
    assert_eq!(bed.metric("liqo_proxy_refused_total{reason=\"method\"} "), 2);
    assert_eq!(bed.metric("liqo_proxy_refused_total{reason=\"unreachable\"} "), 1);
    let (_, words) = bed.refused("GET /config_dump HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(words.to_lowercase().contains("\r\nallow: connect\r\n"), "{words}");
}

#[tokio::test]
async fn there_are_never_more_tunnels_than_allowed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bed = bed(listener.local_addr().unwrap(), nobody().await, "--max-tunnels 2").await;
    let (first, _) = bed.connect("a.b:443").await;
    let (_second, _) = bed.connect("a.b:443").await;
    let (code, words) = bed.refused("CONNECT a.b:443 HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(code == 503 && words.contains("2 tunnels are in use"), "{words}");
    // Both sides leave: there is room again.
    let (upstream, _) = listener.accept().await.unwrap();
    drop((first, upstream));
    bed.until_open(1).await;
    assert!(bed.connect("a.b:443").await.1.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn one_network_cannot_take_the_tunnels_of_all() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bed = bed(listener.local_addr().unwrap(), nobody().await, "--max-tunnels-per-source 1").await;
    let ask = async |address: [u8; 4]| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((address, 0))).unwrap();
        let mut stream = socket.connect(bed.address).await.unwrap();
        stream.write_all(b"CONNECT a.b:443 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let head = head_of(&mut stream).await;
        (stream, head.split(' ').nth(1).unwrap_or_default().to_owned())
    };
    let (first, code) = ask([127, 0, 0, 1]).await;
    assert_eq!(code, "200");
    assert_eq!(ask([127, 0, 9, 9]).await.1, "429", "of the same network");
    assert_eq!(ask([127, 1, 0, 1]).await.1, "200", "of another one");
    assert_eq!(bed.metric("liqo_proxy_source_tunnels_open{source=\"127.0.0.0/16\"} "), 1);
    assert_eq!(bed.metric("liqo_proxy_refused_total{reason=\"source\"} "), 1);
    let (upstream, _) = listener.accept().await.unwrap();
    drop((first, upstream));
    bed.until_open(1).await;
    assert_eq!(ask([127, 0, 0, 1]).await.1, "200", "there is room again");
}

/// Random requests: a valid head, mostly with one defect.
fn heads() -> impl Strategy<Value = Vec<u8>> {
    let host = prop_oneof!["[a-z0-9.:-]{0,40}", "\\PC{0,20}", Just("liqo-auth.liqo.svc:443".to_owned())];
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (prop::sample::select(vec!["CONNECT", "GET", "PRI", "connect"]), host, damage, any::<bool>()).prop_map(
        |(method, host, damage, ends)| {
            let end = if ends { "\r\n\r\n" } else { "" };
            let mut head = format!("{method} {host} HTTP/1.1\r\nHost: {host}{end}").into_bytes();
            for (at, byte) in damage {
                let at = at.index(head.len());
                head[at] = byte;
            }
            head
        },
    )
}

proptest! {
    /// No server listens at either target, so every request is refused and the connection ends.
    #[test]
    fn fuzz_heads_are_refused_or_lead_to_an_end(heads in prop::collection::vec(heads(), 1..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bed = bed(nobody().await, nobody().await, "").await;
            for head in heads {
                let mut stream = TcpStream::connect(bed.address).await.unwrap();
                stream.write_all(&head).await.unwrap();
                if !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    stream.shutdown().await.unwrap();
                }
                let mut answer = [0; 64];
                let end = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut answer)).await;
                assert!(end.is_ok(), "left open: {}", head.escape_ascii());
                assert!(!answer.starts_with(b"HTTP/1.1 2"), "let in: {}", head.escape_ascii());
            }
            bed.until_open(0).await;
        });
    }
}

#[tokio::test]
async fn stopping_waits_for_tunnels_but_not_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bed = bed(listener.local_addr().unwrap(), nobody().await, "").await;
    let (mut client, _) = bed.connect("a.b:443").await;
    let (upstream, _) = listener.accept().await.unwrap();
    bed.serving.abort();
    assert!(!bed.proxy.ended(Duration::from_millis(100)).await, "the tunnel is still in use");
    assert!(TcpStream::connect(bed.address).await.is_err(), "nobody new is let in");
    client.write_all(b"bye").await.unwrap();
    drop((client, upstream));
    assert!(bed.proxy.ended(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn garbage_harms_nobody() {
    let pair = pair("api");
    let bed = bed(end(&pair, Behaviour::AnswerAtTheEnd("api")).await, nobody().await, "").await;
    for garbage in [
        &b"\0\x01\x02\xff\r\n\r\n"[..],
        b"CONNECT\r\n\r\n",
        b"CONNECT a.b:443 HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(bed.address).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "left open: {garbage:?}");
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{garbage:?}");
    }
    let mut stream = bed.tls("a.b:443", &pair, "api").await;
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "api 0");
}
