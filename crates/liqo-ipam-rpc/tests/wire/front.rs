//! What the front adds to the service: health, description, TLS, and what is refused.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use liqo_ipam_rpc::{BelongsRequest, BelongsResponse, IpamClient, files};
use liqo_kube::{
    certs::{self, Pair, Shown, Subject},
    drain::{Drain, Patience},
};
use tokio::net::TcpStream;
use tonic::{
    Code, Request,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::{ip, started, started_with};

async fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

async fn health(client: &mut HealthClient<Channel>, service: &str) -> Result<ServingStatus, Code> {
    let checked = client.check(HealthCheckRequest { service: service.to_owned() }).await;
    checked.map(|answer| answer.into_inner().status()).map_err(|status| status.code())
}

#[tokio::test]
async fn the_health_is_told_to_everybody_at_a_bounded_rate() {
    let address = started().await;
    let mut client = HealthClient::new(channel(address).await);
    assert_eq!(health(&mut client, "").await, Ok(ServingStatus::Serving));
    assert_eq!(health(&mut client, "ipam").await, Ok(ServingStatus::Serving));
    assert_eq!(health(&mut client, "other").await, Err(Code::NotFound));
    assert_eq!(health(&mut client, &"x".repeat(5000)).await, Err(Code::OutOfRange), "long questions are not read");
    let mut last = Ok(ServingStatus::Serving);
    for _ in 0..200 {
        last = health(&mut client, "").await;
    }
    assert_eq!(last, Err(Code::ResourceExhausted));
    let caller = IpamClient::new(&address.to_string()).unwrap();
    assert!(caller.belongs_to_pod_cidr(ip("10.0.0.1")).await.unwrap(), "a caller of the same source is answered");
}

#[tokio::test]
async fn whoever_watches_the_health_hears_that_the_server_ends() {
    let drain = Drain::default();
    let address = started_with(None, drain.clone()).await;
    let mut client = HealthClient::new(channel(address).await);
    let watched = client.watch(HealthCheckRequest { service: "ipam".to_owned() }).await.unwrap();
    let mut watched = watched.into_inner();
    assert_eq!(watched.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let ending = drain.end(Patience { accept: Duration::ZERO, finish: Duration::from_secs(5) });
    let (next, ()) = tokio::join!(async { watched.next().await.unwrap().unwrap().status() }, async {
        tokio::time::timeout(Duration::from_millis(500), ending).await.unwrap_err();
    });
    assert_eq!(next, ServingStatus::NotServing);
    assert!(TcpStream::connect(address).await.is_err(), "nobody else is accepted");
}

/// A client that sets no time limit of its own.
#[tokio::test]
async fn the_server_keeps_the_time_limit_of_a_call() {
    let address = started().await;
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    // One message, not compressed, of 16 bytes: cluster "slow" (field 1) and address "10.0.0.1" (field 2).
    let message = Bytes::from_static(b"\0\0\0\0\x10\x0a\x04slow\x12\x0810.0.0.1");
    let request = http::Request::post(format!("http://{address}/ipam/MapEndpointIP"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "100m")
        .body(Full::new(message))
        .unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(10), sender.send_request(request)).await;
    let answer = answer.expect("the server answers in time").unwrap();
    assert_eq!(answer.headers()["grpc-status"].to_str().unwrap(), (Code::DeadlineExceeded as i32).to_string());
}

/// Health and refused calls keep no place: somebody who is not known holds none for long.
#[tokio::test]
async fn a_connection_without_an_admitted_call_ends() {
    let address = started().await;
    let admitted = IpamClient::new(&address.to_string()).unwrap();
    assert!(admitted.belongs_to_pod_cidr(ip("10.0.0.1")).await.unwrap());
    let mut client = HealthClient::new(channel(address).await);
    let watched = client.watch(HealthCheckRequest { service: "ipam".to_owned() }).await.unwrap();
    let mut watched = watched.into_inner();
    assert_eq!(watched.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let end = tokio::time::timeout(Duration::from_secs(20), watched.next()).await;
    assert!(!matches!(end.expect("the connection ends"), Some(Ok(_))), "nothing has changed");
    assert!(admitted.belongs_to_pod_cidr(ip("10.0.0.1")).await.unwrap(), "a caller that was admitted goes on");
}

#[tokio::test]
async fn known_callers_are_told_what_can_be_asked() {
    let address = started().await;
    let mut client = ServerReflectionClient::new(channel(address).await);
    let questions = |token: &str| {
        let ask = |what: MessageRequest| ServerReflectionRequest { message_request: Some(what), ..Default::default() };
        let all = [
            ask(MessageRequest::ListServices(String::new())),
            ask(MessageRequest::FileContainingSymbol("ipam.MapEndpointIP".to_owned())),
        ];
        let mut request = Request::new(futures::stream::iter(all));
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    };
    let refused = client.server_reflection_info(questions("nobody")).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, "show another token"));
    let mut answers = client.server_reflection_info(questions("somebody")).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.next().await.unwrap().unwrap().message_response
    else {
        panic!("no list")
    };
    let names: BTreeSet<_> = list.service.into_iter().map(|service| service.name).collect();
    assert_eq!(
        names.iter().map(String::as_str).collect::<Vec<_>>(),
        ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "ipam"]
    );
    let Some(MessageResponse::FileDescriptorResponse(found)) = answers.next().await.unwrap().unwrap().message_response
    else {
        panic!("no file")
    };
    let wanted = prost::Message::encode_to_vec(&files().file[0]);
    assert_eq!(found.file_descriptor_proto, [wanted]);
}

#[tokio::test]
async fn calls_that_nobody_describes_are_refused_before_anybody_is_asked_who_calls() {
    let address = started().await;
    let mut grpc = tonic::client::Grpc::new(channel(address).await);
    for path in ["/ipam/Other", "/other/MapEndpointIP", "/grpc.reflection.v1alpha.ServerReflection/X"] {
        grpc.ready().await.unwrap();
        let mut request = Request::new(BelongsRequest { ip: "10.0.0.1".to_owned() });
        request.metadata_mut().insert("authorization", "Bearer nobody".parse().unwrap());
        let codec = tonic_prost::ProstCodec::<_, BelongsResponse>::default();
        let refused = grpc.unary(request, path.parse().unwrap(), codec).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{path}");
    }
}

/// A client over TLS that trusts this certificate only.
async fn secured(address: SocketAddr, trusted: &Pair) -> std::io::Result<IpamClient> {
    let roots = certs::roots(trusted.certificate.as_bytes()).unwrap();
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let stream = TcpStream::connect(address).await?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    Ok(IpamClient::over(stream))
}

#[tokio::test]
async fn a_certificate_is_replaced_while_the_server_runs() {
    certs::install_crypto();
    let pair = || {
        let subject = Subject { common_name: "ipam".to_owned(), ..Subject::default() };
        certs::self_signed(&subject, &["localhost".to_owned()], Duration::from_secs(600)).unwrap()
    };
    let (first, second, shown) = (pair(), pair(), Arc::new(Shown::default()));
    shown.show(&first).unwrap();
    let address = started_with(Some(certs::server_config(Arc::clone(&shown))), Drain::default()).await;
    let before = secured(address, &first).await.unwrap();
    assert!(before.belongs_to_pod_cidr(ip("10.0.0.1")).await.unwrap());
    shown.show(&second).unwrap();
    let after = secured(address, &second).await.unwrap();
    assert!(after.belongs_to_pod_cidr(ip("10.0.0.1")).await.unwrap());
    assert!(secured(address, &first).await.is_err(), "the old certificate is shown no more");
    assert!(before.belongs_to_pod_cidr(ip("10.0.0.1")).await.unwrap(), "open connections go on");
    let plain = IpamClient::new(&address.to_string()).unwrap().with_deadline(Duration::from_secs(1));
    assert!(plain.belongs_to_pod_cidr(ip("10.0.0.1")).await.unwrap_err().is_unreachable());
}
