//! Clients made from identities. With a proxy everything goes through the proxy, requests and upgraded connections, and TLS goes
//! through from end to end: the server has no address of its own that could be reached, only the proxy knows the way. A client
//! takes a renewed identity while it is in use.
#![expect(clippy::unwrap_used, reason = "helpers of tests: whatever fails here fails the test")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::{body::Frame, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use kube::{Client, client::Body};
use liqo_kube::{
    Cluster,
    certs::{self, Pair, Shown, Subject},
    peer::{PeerClient, PeerIdentity, Renewal},
    reach::Reach,
    server::{self, BodyError, Reply},
};
use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

/// No test network has it (RFC 5737).
const UNREACHABLE: &str = "192.0.2.7";
const DAY: Duration = Duration::from_secs(86400);
/// How long a test waits.
const SOON: Duration = Duration::from_secs(10);

async fn answer(mut request: Request<hyper::body::Incoming>, peer: server::Peer) -> Response<Reply> {
    match request.uri().path() {
        "/livez" => return server::text(StatusCode::OK, "ok"),
        "/who" => {
            let shown = peer.certificate.map(|shown| certs::facts_der(&shown).unwrap().subject.common_name);
            return server::text(StatusCode::OK, &shown.unwrap_or_default());
        }
        path if path.starts_with("/api/") => return Response::new(endless()),
        _ => {}
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let stream = upgrade.await.unwrap();
        let (mut from, mut to) = tokio::io::split(TokioIo::new(stream));
        tokio::io::copy(&mut from, &mut to).await
    });
    let mut response = Response::new(server::full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, "Upgrade".parse().unwrap());
    response.headers_mut().insert(header::UPGRADE, "echo".parse().unwrap());
    response
}

/// A line again and again.
fn endless() -> Reply {
    let lines = stream::repeat(()).then(|()| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok::<_, BodyError>(Frame::data(Bytes::from_static(b"line\n")))
    });
    StreamBody::new(lines).boxed_unsync()
}

/// A server behind a name only its certificate knows, which asks for certificates of its authority; its address and that
/// authority.
async fn start_server() -> (SocketAddr, Pair) {
    let authority = certs::authority(&Subject::new("authority", ""), DAY).unwrap();
    let pair = certs::issue(&authority, &Subject::new("server", ""), &[UNREACHABLE.to_owned()], DAY).unwrap();
    let shown = Arc::new(Shown::default());
    shown.show(&pair).unwrap();
    let tls = certs::server_config_with_clients(shown, &authority.certificate).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server::serve(listener, Some(tls), answer));
    (address, authority)
}

/// The certificate of a client of this name.
fn client_certificate(authority: &Pair, name: &str) -> Pair {
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key).unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    Pair { certificate: params.signed_by(&key, &issuer).unwrap().pem(), key: key.serialize_pem() }
}

/// A proxy that brings everybody to `server`, and tells whom they asked for.
async fn start_proxy(server: SocketAddr) -> (SocketAddr, UnboundedReceiver<String>) {
    let (told, asked) = unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(connect(stream, server, told.clone()));
        }
    });
    (address, asked)
}

async fn connect(mut client: TcpStream, server: SocketAddr, told: UnboundedSender<String>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let line = String::from_utf8(head).unwrap().lines().next().unwrap().to_owned();
    told.send(line).unwrap();
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let mut server = TcpStream::connect(server).await.unwrap();
    // Whoever goes first ends it.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

/// An identity called `first`, whom the proxy was asked for, and the authority of the server.
async fn identity() -> (PeerIdentity, UnboundedReceiver<String>, Pair) {
    certs::install_crypto();
    let (server, authority) = start_server().await;
    let (proxy, asked) = start_proxy(server).await;
    let own = client_certificate(&authority, "first");
    let identity = PeerIdentity {
        api_server_url: format!("https://{UNREACHABLE}:6443"),
        api_server_ca: Some(authority.certificate.clone()),
        certificate: own.certificate,
        key: own.key,
        namespace: "liqo-tenant-us".to_owned(),
        proxy_url: Some(format!("http://{proxy}")),
        version: "1".to_owned(),
    };
    (identity, asked, authority)
}

async fn get(client: &Client, path: &str) -> Response<Body> {
    let answer = client.send(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    answer
}

/// Whose certificate a new request shows.
async fn who(client: &Client) -> String {
    let name = get(client, "/who").await.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(name.to_vec()).unwrap()
}

/// An upgraded connection that says what it is sent.
async fn upgraded(client: &Client) -> TokioIo<Upgraded> {
    let request = Request::get("/exec").header(header::CONNECTION, "Upgrade").header(header::UPGRADE, "echo");
    let mut response = client.send(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap())
}

async fn echoes(stream: &mut TokioIo<Upgraded>) {
    stream.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
}

#[tokio::test]
async fn requests_go_through_the_proxy() {
    let (identity, mut asked, _) = identity().await;
    let there = Cluster::new(identity.client(&Reach::default()).await.unwrap(), "test");
    there.alive(SOON).await.unwrap();
    assert_eq!(asked.recv().await.unwrap(), format!("CONNECT {UNREACHABLE}:6443 HTTP/1.1"));
}

#[tokio::test]
async fn upgraded_connections_go_through_the_proxy() {
    let (identity, mut asked, _) = identity().await;
    echoes(&mut upgraded(&identity.client(&Reach::default()).await.unwrap()).await).await;
    assert_eq!(asked.recv().await.unwrap(), format!("CONNECT {UNREACHABLE}:6443 HTTP/1.1"));
}

#[tokio::test]
async fn a_proxy_that_is_no_url_is_named() {
    let (identity, ..) = identity().await;
    let broken = PeerIdentity { proxy_url: Some("http://no proxy".to_owned()), ..identity };
    let Err(why) = broken.client(&Reach::default()).await else { panic!("it cannot be used") };
    assert!(why.contains("proxyURL \"http://no proxy\""), "{why}");
}

#[tokio::test]
async fn a_client_takes_a_renewed_identity_while_it_is_in_use() {
    let (first, _asked, authority) = identity().await;
    let mut peer = PeerClient::open(first.clone(), &Reach::default()).await.unwrap();
    let client = peer.client();
    assert_eq!(who(&client).await, "first");
    let mut shell = upgraded(&client).await;
    let mut log = get(&client, "/api/v1/namespaces/a/pods/b/log?follow=true").await.into_body();
    let watch = get(&client, "/api/v1/pods?watch=true").await.into_body();
    let Pair { certificate, key } = client_certificate(&authority, "second");
    let second = PeerIdentity { certificate, key, version: "2".to_owned(), ..first };
    assert_eq!(peer.renew(&second).await, Ok(Renewal::Taken));
    assert_eq!(who(&client).await, "second");
    assert_eq!(who(&peer.client()).await, "second");
    tokio::time::timeout(SOON, watch.collect()).await.expect("the watch ends").expect("in order");
    echoes(&mut shell).await;
    for _ in 0..3 {
        log.frame().await.expect("the log goes on").unwrap();
    }
}

#[tokio::test]
async fn an_identity_that_cannot_take_over_changes_nothing() {
    let (first, _asked, _) = identity().await;
    let mut peer = PeerClient::open(first.clone(), &Reach::default()).await.unwrap();
    let client = peer.client();
    let mut watch = get(&client, "/api/v1/pods?watch=true").await.into_body();
    let renewed = |change: fn(&mut PeerIdentity)| {
        let mut identity = first.clone();
        change(&mut identity);
        identity
    };
    for (identity, outcome) in [
        (renewed(|one| one.version = "2".to_owned()), Ok(Renewal::Known)),
        (renewed(|one| one.api_server_url = "https://192.0.2.8:6443".to_owned()), Ok(Renewal::Elsewhere)),
        (renewed(|one| one.api_server_ca = None), Ok(Renewal::Elsewhere)),
        (renewed(|one| one.namespace = "liqo-tenant-other".to_owned()), Ok(Renewal::Elsewhere)),
        (renewed(|one| one.certificate = "none".to_owned()), Err(())),
        (renewed(|one| one.proxy_url = Some("http://no proxy".to_owned())), Err(())),
    ] {
        assert_eq!(peer.renew(&identity).await.map_err(drop), outcome);
        assert_eq!(who(&client).await, "first");
    }
    watch.frame().await.expect("the watch goes on").unwrap();
}
