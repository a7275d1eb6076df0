//! API servers of peers that answer too much, without end, or not at all: an error of theirs, and nothing more.
#![expect(clippy::unwrap_used, reason = "helpers of tests: whatever fails here fails the test")]

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use liqo_kube::{
    Cluster,
    certs::{self, Shown, Subject},
    metrics::Samples,
    peer::PeerIdentity,
    reach::Reach,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

const DAY: Duration = Duration::from_secs(86400);
const MIB: usize = 1024 * 1024;
const ENDLESS: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";

type Wire = TlsStream<TcpStream>;

/// A server that answers with whatever `answer` writes, given the path that is asked for. It is behind a proxy, because
/// no peer may be on this machine.
async fn there<F>(answer: impl Fn(String, Wire) -> F + Clone + Send + Sync + 'static) -> Cluster
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    certs::install_crypto();
    let authority = certs::authority(&Subject::new("authority", ""), DAY).unwrap();
    let pair = certs::issue(&authority, &Subject::new("server", ""), &["192.0.2.7".to_owned()], DAY).unwrap();
    let shown = Arc::new(Shown::default());
    shown.show(&pair).unwrap();
    let acceptor = TlsAcceptor::from(certs::server_config(shown));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            tokio::spawn(async move {
                head(&mut stream).await?;
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                let mut stream = acceptor.accept(stream).await?;
                let head = head(&mut stream).await?;
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                answer(path, stream).await
            });
        }
    });
    let own = certs::self_signed(&Subject::new("us", "liqo.io"), &[], DAY).unwrap();
    let identity = PeerIdentity {
        api_server_url: "https://192.0.2.7:6443".to_owned(),
        api_server_ca: Some(authority.certificate),
        certificate: own.certificate,
        key: own.key,
        namespace: "liqo-tenant-us".to_owned(),
        proxy_url: Some(format!("http://{proxy}")),
        version: "1".to_owned(),
    };
    Cluster::new(identity.client(&Reach::default()).await.unwrap(), "test").bounded(100, 16 * MIB)
}

async fn head(stream: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Sends spaces as long as the client reads, and counts them.
async fn spaces(mut stream: Wire, sent: Arc<AtomicUsize>) -> std::io::Result<()> {
    stream.write_all(ENDLESS.as_bytes()).await?;
    let chunk = [format!("{:x}\r\n", 64 * 1024).into_bytes(), vec![b' '; 64 * 1024], b"\r\n".to_vec()].concat();
    loop {
        stream.write_all(&chunk).await?;
        stream.flush().await?;
        sent.fetch_add(64 * 1024, Ordering::SeqCst);
    }
}

async fn whole(mut stream: Wire, body: &str) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    stream.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes()).await?;
    stream.shutdown().await
}

/// A page of a list that goes on.
fn page(objects: usize, length: usize) -> String {
    let items: Vec<_> = (0..objects)
        .map(|i| {
            serde_json::json!({"metadata": {"name": format!("a{i}"), "namespace": "a"}, "data": {"x": "y".repeat(length)}})
        })
        .collect();
    let meta = serde_json::json!({"resourceVersion": "1", "continue": "more"});
    serde_json::json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": meta, "items": items}).to_string()
}

/// The result of a future that must end soon.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), work).await.unwrap()
}

#[tokio::test]
async fn health_without_end_is_an_error_at_once() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let there = there(move |_, stream| spaces(stream, Arc::clone(&counted))).await;
    let why = soon(there.alive(Duration::from_secs(5))).await.unwrap_err();
    assert!(why.contains("longer than 65536 bytes"), "{why}");
    assert!(sent.load(Ordering::SeqCst) < 16 * MIB);
}

#[tokio::test]
async fn an_object_without_end_is_an_error() {
    let there = there(|_, stream| spaces(stream, Arc::default())).await;
    let why = soon(there.get::<ConfigMap>("a", "b")).await.unwrap_err();
    let why = std::error::Error::source(&why).unwrap().to_string();
    assert!(why.contains("longer than") || why.contains("no answer"), "{why}");
}

#[tokio::test]
async fn lists_end_where_the_budget_does() {
    for (objects, length) in [(0, 0), (60, 1), (2, 5 * MIB)] {
        let body = Arc::new(page(objects, length));
        let there = there(move |_, stream| {
            let body = Arc::clone(&body);
            async move { whole(stream, &body).await }
        })
        .await;
        let why = soon(there.list::<ConfigMap>("a", "")).await.unwrap_err();
        let why = std::error::Error::source(&why).unwrap().to_string();
        assert!(why.contains("shows more than is kept of it"), "{objects} of {length}: {why}");
    }
}

#[tokio::test]
async fn a_watch_of_too_many_objects_is_refused_and_counted() {
    let there = there(|_, stream| async move { whole(stream, &page(150, 1)).await }).await;
    let store = there.watch::<ConfigMap>("a").start(|_| {});
    soon(async {
        let text = || {
            let mut samples = Samples::default();
            there.calls().samples("x", &mut samples);
            samples.text()
        };
        while !text().contains("liqo_api_answers_refused_total{cluster=\"x\",kind=\"ConfigMap\"} 1") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(!store.is_ready() && store.all().is_empty());
}

#[tokio::test]
async fn a_line_of_a_watch_that_never_ends_is_not_read_to_its_end() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let (ended, mut is_ended) = tokio::sync::mpsc::unbounded_channel();
    let there = there(move |path, stream| {
        let (counted, ended) = (Arc::clone(&counted), ended.clone());
        async move {
            if !path.contains("watch=true") {
                return whole(stream, &page(1, 1).replace("more", "")).await;
            }
            let outcome = spaces(stream, counted).await;
            let _ = ended.send(());
            outcome
        }
    })
    .await;
    let store = there.watch::<ConfigMap>("a").start(|_| {});
    soon(store.ready()).await;
    soon(is_ended.recv()).await;
    assert!(sent.load(Ordering::SeqCst) < 64 * MIB);
    assert_eq!(store.all().len(), 1, "what was known stays");
}

#[tokio::test]
async fn heads_without_end_and_redirects_are_errors() {
    let long = there(|_, mut stream| async move {
        stream.write_all(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(MIB)).as_bytes()).await?;
        stream.flush().await
    });
    assert!(soon(long.await.get::<ConfigMap>("a", "b")).await.is_err());
    let (asked, mut paths) = tokio::sync::mpsc::unbounded_channel();
    let elsewhere = there(move |path, mut stream| {
        asked.send(path).unwrap();
        async move {
            let to = "Location: https://192.0.2.7:6443/elsewhere\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(format!("HTTP/1.1 302 Found\r\n{to}").as_bytes()).await
        }
    });
    assert!(soon(elsewhere.await.get::<ConfigMap>("a", "b")).await.is_err());
    assert!(!std::iter::from_fn(|| paths.try_recv().ok()).any(|path| path.contains("elsewhere")));
}

#[tokio::test]
async fn an_api_server_is_not_on_this_machine() {
    certs::install_crypto();
    let own = certs::self_signed(&Subject::new("us", "liqo.io"), &[], DAY).unwrap();
    for (url, why) in [
        ("https://127.0.0.1:6443", "127.0.0.0/8"),
        ("https://[::1]:6443", "::1"),
        ("https://169.254.169.254", "169.254.0.0/16"),
        ("http://10.0.0.1", "https://"),
    ] {
        let identity = PeerIdentity {
            api_server_url: url.to_owned(),
            api_server_ca: None,
            certificate: own.certificate.clone(),
            key: own.key.clone(),
            namespace: "a".to_owned(),
            proxy_url: None,
            version: "1".to_owned(),
        };
        let Err(refused) = identity.client(&Reach::default()).await else { panic!("{url} was accepted") };
        assert!(refused.contains(why), "{url}: {refused}");
    }
    let url = "https://localhost:6443".to_owned();
    let identity = PeerIdentity {
        api_server_url: url,
        api_server_ca: None,
        certificate: own.certificate,
        key: own.key,
        namespace: "a".to_owned(),
        proxy_url: None,
        version: "1".to_owned(),
    };
    let there = Cluster::new(identity.client(&Reach::default()).await.unwrap(), "test");
    let why = soon(there.alive(Duration::from_secs(5))).await.unwrap_err();
    assert!(why.contains("may not be reached"), "{why}");
}

#[tokio::test]
async fn slow_evictions_wait_for_few_others() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (asked, highest) = (Arc::clone(&now), Arc::clone(&most));
    let there = there(move |path, mut stream| {
        let (asked, highest) = (Arc::clone(&asked), Arc::clone(&highest));
        async move {
            assert!(path.contains("/eviction"), "{path}");
            // What is not read would reset the connection.
            assert!(stream.read(&mut [0; 4096]).await? > 0);
            highest.fetch_max(asked.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(200)).await;
            asked.fetch_sub(1, Ordering::SeqCst);
            whole(stream, "{}").await
        }
    })
    .await;
    let pod = |number: usize| {
        let metadata = serde_json::json!({"name": format!("web-{number}"), "namespace": "demo"});
        Arc::new(serde_json::from_value::<Pod>(serde_json::json!({ "metadata": metadata })).unwrap())
    };
    let outcomes = soon(there.evict_all((0..24).map(pod).collect())).await;
    assert!(outcomes.iter().all(|(_, outcome)| matches!(outcome, Ok(true))), "{outcomes:?}");
    assert_eq!((outcomes.len(), now.load(Ordering::SeqCst)), (24, 0));
    let most = most.load(Ordering::SeqCst);
    assert!((2..=8).contains(&most), "{most} at the same time");
}
