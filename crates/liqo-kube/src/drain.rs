//! The orderly end of a process that serves others.
//!
//! Keeps true: a client sees no refused connection and no cut answer because a process is replaced. Clients that reach
//! the process through a Service learn late that its endpoint is gone, so the servers answer for a while after the
//! signal. Then they accept no connection, close idle ones, and requests and streams under way get time to end.

use std::time::Duration;

use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// What the servers of one process have in common when the process ends. Copies are the same.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    closing: CancellationToken,
    work: TaskTracker,
}

/// How long an ending process serves on.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long new connections are accepted after the signal.
    pub accept: Duration,
    /// How long requests and streams may take to end afterwards.
    pub finish: Duration,
}

impl Patience {
    /// The process ends at once: it serves nobody.
    pub const NONE: Self = Self { accept: Duration::ZERO, finish: Duration::ZERO };
}

/// A request or a stream that is under way. Requests carry one as an extension; who takes over an upgraded connection
/// keeps a copy as long as bytes flow.
#[derive(Clone)]
pub struct Hold {
    _token: TaskTrackerToken,
}

impl Drain {
    /// Work that must end before the process does.
    pub fn hold(&self) -> Hold {
        Hold { _token: self.work.token() }
    }

    /// Returns when servers must accept no more connections.
    pub async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Whether servers must accept no more connections.
    pub fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// Serves on for `patience.accept`, then returns as soon as everything held has ended, or after `patience.finish`.
    pub async fn end(&self, patience: Patience) {
        tokio::time::sleep(patience.accept).await;
        self.closing.cancel();
        self.work.close();
        if tokio::time::timeout(patience.finish, self.work.wait()).await.is_err() {
            tracing::info!(cut = self.work.len(), "requests and streams that did not end are cut");
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        time::{Instant, sleep, timeout},
    };

    use super::*;
    use crate::server::{self, Limits};

    const SLOW: Duration = Duration::from_millis(300);
    const SHORT: Patience = Patience { accept: SLOW, finish: Duration::from_secs(5) };

    async fn asks(stream: &mut TcpStream) -> String {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 4096];
        let length = stream.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }

    #[tokio::test]
    async fn requests_are_answered_until_the_end_and_no_connection_is_accepted_then() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let drain = Drain::default();
        let serving = drain.clone();
        let server = tokio::spawn(async move {
            let slow = |_, _| async {
                sleep(SLOW).await;
                server::text(StatusCode::OK, "done")
            };
            server::serve_within(Limits::default(), &serving, listener, None, slow).await;
        });
        let mut idle = TcpStream::connect(address).await.unwrap();
        let began = Instant::now();
        let ending = tokio::spawn(async move { drain.end(SHORT).await });
        sleep(SLOW / 2).await;
        // After the signal, before connections are refused; the answer comes after that.
        let mut late = TcpStream::connect(address).await.unwrap();
        let answer = timeout(SLOW * 10, asks(&mut late)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("done"), "{answer}");
        timeout(SLOW * 10, ending).await.unwrap().unwrap();
        assert!(began.elapsed() >= SHORT.accept && began.elapsed() < SHORT.finish, "{:?}", began.elapsed());
        timeout(SLOW * 10, server).await.unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err());
        assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0, "idle connections are closed");
    }

    #[tokio::test]
    async fn streams_have_their_time_and_not_more() {
        let short = Patience { accept: Duration::ZERO, finish: SLOW };
        let (drain, began) = (Drain::default(), Instant::now());
        let stream = drain.hold();
        drain.end(short).await;
        assert!(began.elapsed() >= SLOW, "a stream that does not end");
        let (drain, began) = (Drain::default(), Instant::now());
        drop(stream);
        drop(drain.hold());
        drain.end(SHORT).await;
        assert!(began.elapsed() < SHORT.finish, "nothing is under way");
    }
}
