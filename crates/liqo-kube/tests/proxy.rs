//! An identity with a proxy: everything goes through it, requests and upgraded connections, and TLS goes through
//! from end to end. The server has no address of its own that could be reached: only the proxy knows the way.
#![expect(clippy::unwrap_used, reason = "helpers of tests: whatever fails here fails the test")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use kube::client::Body;
use liqo_kube::{
    Cluster,
    certs::{self, Shown, Subject},
    peer::PeerIdentity,
    server::{self, Reply},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

/// No test network has it (RFC 5737).
const UNREACHABLE: &str = "192.0.2.7";
const DAY: Duration = Duration::from_secs(86400);

async fn answer(mut request: Request<hyper::body::Incoming>) -> Response<Reply> {
    if request.uri().path() == "/livez" {
        return server::text(StatusCode::OK, "ok");
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

/// A server behind a name only its certificate knows; its address and its authority.
async fn start_server() -> (SocketAddr, String) {
    let authority = certs::authority(&Subject::new("authority", ""), DAY).unwrap();
    let pair = certs::issue(&authority, &Subject::new("server", ""), &[UNREACHABLE.to_owned()], DAY).unwrap();
    let shown = Arc::new(Shown::default());
    shown.show(&pair).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server::serve(listener, Some(certs::server_config(shown)), |request, _| answer(request)));
    (address, authority.certificate)
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

async fn identity() -> (PeerIdentity, UnboundedReceiver<String>) {
    certs::install_crypto();
    let (server, authority) = start_server().await;
    let (proxy, asked) = start_proxy(server).await;
    let own = certs::self_signed(&Subject::new("us", "liqo.io"), &[], DAY).unwrap();
    let identity = PeerIdentity {
        api_server_url: format!("https://{UNREACHABLE}:6443"),
        api_server_ca: Some(authority),
        certificate: own.certificate,
        key: own.key,
        namespace: "liqo-tenant-us".to_owned(),
        proxy_url: Some(format!("http://{proxy}")),
        version: "1".to_owned(),
    };
    (identity, asked)
}

#[tokio::test]
async fn requests_go_through_the_proxy() {
    let (identity, mut asked) = identity().await;
    let there = Cluster::new(identity.client().await.unwrap(), "test");
    there.alive(Duration::from_secs(10)).await.unwrap();
    assert_eq!(asked.recv().await.unwrap(), format!("CONNECT {UNREACHABLE}:6443 HTTP/1.1"));
}

#[tokio::test]
async fn upgraded_connections_go_through_the_proxy() {
    let (identity, mut asked) = identity().await;
    let client = identity.client().await.unwrap();
    let request = Request::get("/exec").header(header::CONNECTION, "Upgrade").header(header::UPGRADE, "echo");
    let mut response = client.send(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    stream.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
    assert_eq!(asked.recv().await.unwrap(), format!("CONNECT {UNREACHABLE}:6443 HTTP/1.1"));
}

#[tokio::test]
async fn a_proxy_that_is_no_url_is_named() {
    let (identity, _asked) = identity().await;
    let broken = PeerIdentity { proxy_url: Some("http://no proxy".to_owned()), ..identity };
    let Err(why) = broken.client().await else { panic!("it cannot be used") };
    assert!(why.contains("proxyURL \"http://no proxy\""), "{why}");
}
