//! Client and server, over real connections.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "wire/front.rs"]
mod front;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, LazyLock},
    time::Duration,
};

use liqo_front::grpc::{Caller, Credentials, Grpc, Identity, Status, Who};
use liqo_ipam_rpc::{Answers, Call, Ipam, IpamClient, Refusal, Subject, files};
use liqo_kube::{access::User, drain::Drain};
use rustls::ServerConfig;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::Barrier,
};

/// Calls that a client sends before the client knows the server's limit (RFC 9113, section 6.5.2).
const AT_ONCE: u8 = 100;
/// Where calls about cluster `together` wait for each other.
static TOGETHER: LazyLock<Barrier> = LazyLock::new(|| Barrier::new(AT_ONCE.into()));

/// Adds one to the last octet for peer `known`, knows nobody else.
struct PlusOne;

fn plus_one(cluster_id: &str, ip: IpAddr) -> Result<IpAddr, Refusal> {
    match (cluster_id, ip) {
        ("known", IpAddr::V4(ip)) => Ok(IpAddr::from((u32::from(ip) + 1).to_be_bytes())),
        ("secret", ip) => Ok(ip),
        ("later", _) => Err(Refusal::NotYet("cluster later has not told its networks yet".to_owned())),
        _ => Err(Refusal::Unknown(format!("cluster {cluster_id} is unknown"))),
    }
}

impl Identity for PlusOne {
    /// The token is the name of a user; who shows the token `nobody` is not known.
    async fn identify(&self, shown: Credentials<'_>) -> Result<Who, Status> {
        assert!(shown.peer.address.ip().is_loopback(), "where the caller is, is known");
        match shown.token {
            Some("nobody") => Err(Status::unauthenticated("show another token")),
            token => Ok(Who::User(User { name: token.unwrap_or_default().to_owned(), ..User::default() })),
        }
    }
}

impl Ipam for PlusOne {
    type Caller = Caller;

    async fn admit(&self, caller: &Caller, subject: Subject<'_>) -> Result<(), Refusal> {
        let Who::User(user) = &caller.who else { panic!("no port is forwarded here") };
        match (subject.cluster_id, user.name.as_str()) {
            (Some("export"), _) => return Err(Refusal::Forbidden(format!("export of {:?}", subject.exported))),
            (Some("secret"), "") => return Err(Refusal::Unauthenticated("show a token".to_owned())),
            (Some("secret"), "right") => {}
            (Some("secret"), _) => return Err(Refusal::Forbidden("not that one".to_owned())),
            _ => {}
        }
        caller.keep();
        Ok(())
    }

    async fn map_endpoint_ip(&self, cluster_id: &str, ip: IpAddr) -> Result<IpAddr, Refusal> {
        match cluster_id {
            "slow" => std::future::pending().await,
            "together" => {
                TOGETHER.wait().await;
                return Ok(ip);
            }
            _ => {}
        }
        plus_one(cluster_id, ip)
    }
    async fn unmap_endpoint_ip(&self, cluster_id: &str, ip: IpAddr) -> Result<(), Refusal> {
        plus_one(cluster_id, ip).map(drop)
    }
    async fn home_pod_ip(&self, cluster_id: &str, ip: IpAddr) -> Result<IpAddr, Refusal> {
        plus_one(cluster_id, ip)
    }
    async fn belongs_to_pod_cidr(&self, ip: IpAddr) -> Result<bool, Refusal> {
        Ok(ip == IpAddr::from([10, 0, 0, 1]))
    }
}

async fn serve(listener: TcpListener, tls: Option<Arc<ServerConfig>>, drain: Drain) {
    let (service, identity) = (Answers::new(Arc::new(PlusOne)), Arc::new(PlusOne));
    Grpc::new(service, files(), identity).expect("the description is valid").serve(listener, tls, drain).await;
}

async fn started() -> SocketAddr {
    started_with(None, Drain::default()).await
}

async fn started_with(tls: Option<Arc<ServerConfig>>, drain: Drain) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address to listen on");
    let address = listener.local_addr().expect("a bound socket has an address");
    tokio::spawn(serve(listener, tls, drain));
    address
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[tokio::test]
async fn a_hundred_calls_of_a_new_connection_are_answered_at_the_same_time() {
    let client = IpamClient::new(&started().await.to_string()).unwrap();
    let calls = (0..AT_ONCE).map(|last| {
        let (client, ip) = (client.clone(), IpAddr::from([10, 0, 0, last]));
        async move { assert_eq!(client.map_endpoint_ip("together", ip).await.unwrap(), ip) }
    });
    futures::future::join_all(calls).await;
}

#[tokio::test]
async fn four_calls_are_answered() {
    let address = started().await;
    let client = IpamClient::new(&address.to_string()).unwrap();
    assert_eq!(client.map_endpoint_ip("known", ip("10.0.0.1")).await.unwrap(), ip("10.0.0.2"));
    client.unmap_endpoint_ip("known", ip("10.0.0.1")).await.unwrap();
    assert_eq!(client.home_pod_ip("known", ip("10.0.0.7")).await.unwrap(), ip("10.0.0.8"));
    assert!(client.belongs_to_pod_cidr(ip("10.0.0.1")).await.unwrap());
    assert!(!client.belongs_to_pod_cidr(ip("fd00::1")).await.unwrap());
}

#[tokio::test]
async fn an_error_tells_the_call_the_argument_and_the_reason() {
    let address = started().await;
    let client = IpamClient::new(&address.to_string()).unwrap();
    let error = client.map_endpoint_ip("nobody", ip("10.0.0.1")).await.unwrap_err();
    assert_eq!(error.to_string(), "MapEndpointIP of address 10.0.0.1 for cluster nobody: cluster nobody is unknown");
    assert_eq!((error.call(), error.is_unreachable(), error.is_invalid()), (Call::MapEndpointIp, false, false));
    let error = client.home_pod_ip("", ip("10.0.0.1")).await.unwrap_err();
    assert!(error.is_invalid() && error.message() == "the cluster ID is empty", "{error}");
}

#[tokio::test]
async fn only_a_mapping_exports_an_address() {
    let address = started().await;
    let client = IpamClient::new(&address.to_string()).unwrap();
    let mapped = client.map_endpoint_ip("export", ip("10.0.0.1")).await.unwrap_err();
    assert_eq!(mapped.message(), "export of Some(10.0.0.1)");
    let unmapped = client.unmap_endpoint_ip("export", ip("10.0.0.1")).await.unwrap_err();
    let home = client.home_pod_ip("export", ip("10.0.0.1")).await.unwrap_err();
    assert_eq!((unmapped.message(), home.message()), ("export of None", "export of None"));
}

#[tokio::test]
async fn a_token_is_read_at_each_call() {
    let address = started().await;
    let file = std::env::temp_dir().join(format!("liqo-ipam-token-{}", address.port()));
    let client = IpamClient::new(&address.to_string()).unwrap().with_token(&file);
    let asked = || async { client.map_endpoint_ip("secret", ip("10.0.0.1")).await.map_err(|error| error.to_string()) };
    assert!(asked().await.unwrap_err().ends_with("show a token"), "there is no file yet");
    std::fs::write(&file, "wrong\n").unwrap();
    assert!(asked().await.unwrap_err().ends_with("not that one"));
    std::fs::write(&file, "right\n").unwrap();
    assert_eq!(asked().await, Ok(ip("10.0.0.1")));
    std::fs::remove_file(&file).unwrap();
}

#[tokio::test]
async fn long_questions_are_not_read() {
    let address = started().await;
    let client = IpamClient::new(&address.to_string()).unwrap();
    let error = client.map_endpoint_ip(&"x".repeat(65 * 1024), ip("10.0.0.1")).await.unwrap_err();
    assert!(error.message().contains("limit"), "{}", error.message());
}

#[tokio::test]
async fn a_call_has_a_deadline() {
    let address = started().await;
    let client = IpamClient::new(&address.to_string()).unwrap().with_deadline(Duration::from_millis(100));
    let error = client.map_endpoint_ip("slow", ip("10.0.0.1")).await.unwrap_err();
    assert!(error.is_unreachable(), "{error}");
    assert!(client.belongs_to_pod_cidr(ip("10.0.0.1")).await.unwrap(), "others are answered on the same connection");
}

#[tokio::test]
async fn a_server_that_comes_later_or_again_is_found() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let client = IpamClient::new(&address).unwrap();
    let away = client.belongs_to_pod_cidr(ip("10.0.0.1")).await.unwrap_err();
    assert!(away.is_unreachable() && away.to_string().contains("refused"), "{away}");
    for _ in 0..2 {
        // A runtime of its own: ending it ends the connections, as the end of a process does.
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let (bound, is_bound) = tokio::sync::oneshot::channel();
        let at = address.clone();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind(&at).await.unwrap();
                bound.send(()).unwrap();
                let until = tokio::task::spawn_blocking(move || stopped.recv());
                tokio::select! {
                    () = serve(listener, None, Drain::default()) => {}
                    _ = until => {}
                }
            });
        });
        is_bound.await.unwrap();
        assert!(answered(&client).await);
        stop.send(()).unwrap();
        tokio::task::spawn_blocking(|| server.join().unwrap()).await.unwrap();
    }
}

/// The end of the old connection may be noticed by the very call that needs it: at most one call fails.
async fn answered(client: &IpamClient) -> bool {
    match client.belongs_to_pod_cidr(ip("10.0.0.1")).await {
        Ok(answer) => answer,
        Err(_) => client.belongs_to_pod_cidr(ip("10.0.0.1")).await.expect("the second call works"),
    }
}

#[tokio::test]
async fn an_open_stream_is_enough() {
    let address = started().await;
    let client = IpamClient::over(TcpStream::connect(address).await.unwrap());
    assert_eq!(client.map_endpoint_ip("known", ip("10.0.0.1")).await.unwrap(), ip("10.0.0.2"));
    let (ours, theirs) = tokio::io::duplex(1024);
    drop(theirs);
    let dead = IpamClient::over(ours).belongs_to_pod_cidr(ip("10.0.0.1")).await.unwrap_err();
    assert!(dead.is_unreachable(), "{dead}");
}

/// Connections that one address may have at a time.
const OF_ADDRESS: usize = 64;

#[tokio::test]
async fn silent_connections_give_way_and_do_not_cut_off_who_was_admitted() {
    let address = started().await;
    // This client cannot connect again.
    let known = IpamClient::over(TcpStream::connect(address).await.unwrap());
    assert!(known.belongs_to_pod_cidr(ip("10.0.0.1")).await.unwrap());
    let mut silent = Vec::new();
    for _ in 0..2 * OF_ADDRESS {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    // The first ones were closed for the last ones, one for one, but for the seat of the client.
    let (first, last) = silent.split_at_mut(OF_ADDRESS + 1);
    for stream in first {
        assert_eq!(ended(stream).await, Ok(true), "a connection that is too many stays open");
    }
    // A few of them: in ten seconds all are closed for their silence.
    for stream in last.iter_mut().step_by(16) {
        assert!(ended(stream).await.is_err(), "a connection with a seat was closed");
    }
    assert!(known.belongs_to_pod_cidr(ip("10.0.0.1")).await.unwrap());
    let late = IpamClient::over(TcpStream::connect(address).await.unwrap());
    assert!(late.belongs_to_pod_cidr(ip("10.0.0.1")).await.unwrap());
}

/// Whether the server ends a connection; an error: not within a moment.
async fn ended(stream: &mut TcpStream) -> Result<bool, tokio::time::error::Elapsed> {
    let mut bytes = [0; 1024];
    tokio::time::timeout(Duration::from_millis(200), async {
        // A server of HTTP/2 says something of itself first.
        loop {
            match stream.read(&mut bytes).await {
                Ok(0) | Err(_) => return true,
                Ok(_) => {}
            }
        }
    })
    .await
}
