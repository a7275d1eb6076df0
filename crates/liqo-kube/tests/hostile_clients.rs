//! Clients that send slowly, or not at all, or much, and an honest one that is answered soon all the same.
#![expect(clippy::unwrap_used, reason = "helpers of tests: whatever fails here fails the test")]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use http::{Request, StatusCode};
use hyper::body::Incoming;
use liqo_kube::{
    drain::Drain,
    server::{self, Limits},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};

const LONGEST: usize = 3 * 1024 * 1024;

async fn echo(request: Request<Incoming>) -> http::Response<server::Reply> {
    match request.uri().path() {
        "/panic" => panic!("as asked"),
        "/slow" => {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            server::text(StatusCode::OK, "late")
        }
        _ => match server::body(request, LONGEST).await {
            Ok(body) => server::text(StatusCode::OK, &format!("{} bytes", body.len())),
            Err(error) => server::text(StatusCode::BAD_REQUEST, &error.to_string()),
        },
    }
}

async fn start(limits: Limits) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        server::serve_within(limits, &Drain::default(), listener, None, |request, _| echo(request)).await;
    });
    address
}

/// A connection from an address of this host.
async fn connect(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

fn post(length: usize, sent: usize) -> Vec<u8> {
    let mut text = format!("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    text.resize(text.len() + sent, b' ');
    text
}

/// Sends bytes and returns the answer, if there is one.
async fn exchange(mut stream: TcpStream, sent: &[u8]) -> Option<String> {
    stream.write_all(sent).await.ok()?;
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).await.ok().filter(|length| *length > 0)?;
    Some(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// An honest request, which must be answered within a second.
async fn honest(from: [u8; 4], to: SocketAddr) {
    let asked = async { exchange(connect(from, to).await, &post(5, 5)).await };
    let answer = tokio::time::timeout(Duration::from_secs(1), asked).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("5 bytes"), "{answer}");
}

#[tokio::test]
async fn stalled_bodies_and_silent_connections_keep_nobody_out() {
    let server = start(Limits { connections: 60, per_source: 20, ..Limits::default() }).await;
    let mut kept = Vec::new();
    for i in 0..200u8 {
        let mut stream = connect([127, 0, 0, 2 + i % 8], server).await;
        if i % 2 == 0 {
            let _ = stream.write_all(&post(LONGEST, 100_000)).await;
        }
        kept.push(stream);
    }
    honest([127, 0, 0, 1], server).await;
    honest([127, 0, 0, 2], server).await;
}

#[tokio::test]
async fn memory_of_bodies_is_bounded_and_the_newest_body_is_read() {
    let server = start(Limits { bodies: 4 * LONGEST, ..Limits::default() }).await;
    let mut kept = Vec::new();
    for _ in 0..10 {
        let mut stream = connect([127, 0, 0, 2], server).await;
        let _ = tokio::time::timeout(Duration::from_millis(200), stream.write_all(&post(LONGEST, LONGEST - 1))).await;
        kept.push(stream);
    }
    let whole = exchange(connect([127, 0, 0, 3], server).await, &post(LONGEST, LONGEST)).await.unwrap();
    assert!(whole.ends_with(&format!("{LONGEST} bytes")), "{whole}");
    honest([127, 0, 0, 1], server).await;
}

#[tokio::test]
async fn a_body_that_stops_or_says_it_is_too_long_is_refused() {
    let server = start(Limits::default()).await;
    let began = Instant::now();
    let long = exchange(connect([127, 0, 0, 1], server).await, &post(LONGEST + 1, 0)).await.unwrap();
    assert!(long.contains("longer than") && began.elapsed() < Duration::from_secs(1), "{long}");
    let stopped = exchange(connect([127, 0, 0, 1], server).await, &post(10, 5)).await.unwrap();
    assert!(stopped.contains("the body stopped") && began.elapsed() < Duration::from_secs(5), "{stopped}");
}

#[tokio::test]
async fn a_client_that_sends_all_of_a_refused_body_reads_the_answer() {
    let server = start(Limits::default()).await;
    for _ in 0..20 {
        let long = post(4 * LONGEST, 4 * LONGEST);
        let refused = exchange(connect([127, 0, 0, 1], server).await, &long).await.unwrap();
        assert!(refused.contains("longer than"), "{refused}");
    }
}

#[tokio::test]
async fn a_request_that_panics_harms_no_other_and_one_without_end_ends() {
    let server = start(Limits { answer: Some(Duration::from_millis(300)), ..Limits::default() }).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes();
    let panicked = exchange(connect([127, 0, 0, 1], server).await, &get("/panic")).await.unwrap();
    assert!(panicked.starts_with("HTTP/1.1 500"), "{panicked}");
    let asked = get("/slow");
    let slow = exchange(connect([127, 0, 0, 1], server).await, &asked);
    assert_eq!(tokio::time::timeout(Duration::from_secs(2), slow).await.unwrap(), None, "it is cut");
    honest([127, 0, 0, 1], server).await;
}
