//! An API server that answers what no honest one does: each connection gets the next lie.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use liqo_test::netns::Netns;
use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::ring};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// The longest that one lie goes on.
const LONGEST: Duration = Duration::from_secs(20);
/// Objects that a list claims to have.
const OBJECTS: usize = 1_000_000;
/// Objects of one page.
const PAGE: usize = 500;

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// A body that does not end.
    Endless,
    /// Lists are empty, and the first line of a watch does not end.
    EndlessLine,
    /// Each page of a list has no object, and a next page.
    EndlessList,
    /// A list of a million objects.
    Million,
    /// One object with a label of 4 MB, a status of 1 MB and times in the year 9999.
    Huge,
    /// No, with a wide space in the text.
    Refusal,
    /// It is elsewhere: at the address where clouds keep their secrets.
    Elsewhere,
    /// One byte a second.
    Slow,
    /// The handshake does not begin.
    Silent,
}

/// Every lie.
pub(crate) const LIES: [Lie; 9] = [
    Lie::Endless,
    Lie::EndlessLine,
    Lie::EndlessList,
    Lie::Million,
    Lie::Huge,
    Lie::Refusal,
    Lie::Elsewhere,
    Lie::Slow,
    Lie::Silent,
];

/// The only event of a watch whose version is too old.
const EXPIRED: &str = "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\
    \"status\":\"Failure\",\"message\":\"too old resource version\",\"reason\":\"Expired\",\"code\":410}}\n";

/// The address where clouds keep their secrets.
pub(crate) const METADATA: &str = "169.254.169.254";

/// A server that lies, until it is dropped.
pub(crate) struct Liar {
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<Result<()>>>,
}

struct Shared {
    over: AtomicBool,
    turn: AtomicUsize,
    told: Mutex<Vec<Lie>>,
    tls: Arc<ServerConfig>,
}

impl Liar {
    /// Listens at `port` in a network namespace, with the certificate of the API server that it stands for.
    pub(crate) fn listen(netns: &Path, port: u16, pki: &Path) -> Result<Self> {
        let chain = CertificateDer::pem_file_iter(pki.join("apiserver.crt"))?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(pki.join("apiserver.key"))?;
        let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        let shared = Arc::new(Shared {
            over: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
            told: Mutex::default(),
            tls: Arc::new(tls),
        });
        let netns = Netns::open(netns)?;
        let listener = netns.run(move || TcpListener::bind(("0.0.0.0", port)))?.context("the liar cannot listen")?;
        listener.set_nonblocking(true)?;
        let this = Arc::clone(&shared);
        let accepting = thread::spawn(move || accept(&listener, &this));
        Ok(Self { shared, accepting: Some(accepting) })
    }

    /// The lies that nobody has heard yet.
    pub(crate) fn untold(&self) -> Vec<Lie> {
        self.shared.untold()
    }
}

impl Shared {
    fn untold(&self) -> Vec<Lie> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        LIES.into_iter().filter(|lie| !told.contains(lie)).collect()
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) -> Result<()> {
    while !shared.over.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                let (shared, lie) =
                    (Arc::clone(shared), LIES[shared.turn.fetch_add(1, Ordering::Relaxed) % LIES.len()]);
                // That the other side has had enough is no error.
                thread::spawn(move || drop(answer(stream, lie, &shared)));
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(20)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

type Stream = StreamOwned<ServerConnection, TcpStream>;

fn answer(stream: TcpStream, lie: Lie, shared: &Shared) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    let until = Instant::now() + LONGEST;
    let goes_on = || !shared.over.load(Ordering::Relaxed) && Instant::now() < until;
    if lie == Lie::Silent {
        shared.told.lock().unwrap_or_else(PoisonError::into_inner).push(lie);
        while goes_on() {
            thread::sleep(Duration::from_millis(100));
        }
        return Ok(());
    }
    let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&shared.tls))?, stream);
    let asked = Asked::read(&mut stream)?;
    // A lie that nobody has heard yet goes first, if the request can be answered with it.
    let untold = shared.untold().into_iter().find(|lie| asked.hears(*lie));
    let lie = untold.unwrap_or(lie);
    if asked.hears(lie) {
        shared.told.lock().unwrap_or_else(PoisonError::into_inner).push(lie);
    }
    asked.answer(lie, &mut stream, &goes_on)?;
    stream.conn.send_close_notify();
    stream.flush().context("the other side is gone")
}

/// A request, as far as a lie depends on it.
struct Asked {
    is_read: bool,
    is_watch: bool,
    is_health: bool,
    page: usize,
}

impl Asked {
    fn read(stream: &mut Stream) -> Result<Self> {
        let mut head = String::new();
        let mut reader = BufReader::new(stream);
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                break;
            }
        }
        let line = head.lines().next().unwrap_or_default();
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        std::io::copy(&mut reader.take(length.unwrap_or(0)), &mut std::io::sink())?;
        let page = line.split_once("continue=").map(|(_, rest)| rest.split(['&', ' ']).next().unwrap_or_default());
        Ok(Self {
            is_read: line.starts_with("GET "),
            is_watch: line.contains("watch=true") || line.contains("watch=1"),
            is_health: ["/livez", "/readyz", "/healthz", "/version"].iter().any(|path| line.contains(path)),
            page: page.and_then(|page| page.parse().ok()).unwrap_or_default(),
        })
    }

    /// Whether [`Asked::answer`] really tells the lie to this request.
    fn hears(&self, lie: Lie) -> bool {
        match lie {
            Lie::Silent => false,
            Lie::Endless => true,
            _ if self.is_health => false,
            Lie::EndlessLine => self.is_watch,
            Lie::EndlessList | Lie::Million | Lie::Huge => self.is_read && !self.is_watch,
            Lie::Refusal | Lie::Elsewhere | Lie::Slow => true,
        }
    }

    fn answer(&self, lie: Lie, stream: &mut Stream, goes_on: &dyn Fn() -> bool) -> Result<()> {
        let list = |more: &str, items: &str| {
            format!(
                "{{\"apiVersion\":\"v1\",\"kind\":\"List\",\"metadata\":{{\"resourceVersion\":\"1\",\"continue\":\"{more}\"}},\
                 \"items\":[{items}]}}"
            )
        };
        match lie {
            // What says how a server is never ends.
            _ if self.is_health => endless(stream, "", goes_on),
            Lie::Endless | Lie::Silent => endless(stream, "{\"a\":\"", goes_on),
            Lie::EndlessLine if self.is_watch => endless(stream, "{\"type\":\"ADDED\",\"object\":{\"a\":\"", goes_on),
            Lie::Elsewhere => {
                let place = format!("Location: http://{METADATA}/latest/meta-data/\r\n");
                whole(stream, "302 Found", &place, "")
            }
            Lie::Slow => {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n")?;
                while goes_on() {
                    stream.write_all(b" ")?;
                    stream.flush()?;
                    thread::sleep(Duration::from_secs(1));
                }
                Ok(())
            }
            _ if !self.is_read || lie == Lie::Refusal => {
                let text = "a\u{2003}.spec.x: field not declared in schema";
                let status = format!(
                    "{{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{{}},\"status\":\"Failure\",\"message\":\"{text}\",\
                     \"reason\":\"Invalid\",\"code\":422}}"
                );
                whole(stream, "422 Unprocessable Entity", "", &status)
            }
            Lie::EndlessList => whole(stream, "200 OK", "", &list(&(self.page + 1).to_string(), "")),
            Lie::Million if !self.is_watch => {
                let numbers = self.page * PAGE..(self.page + 1) * PAGE;
                let more = if numbers.end < OBJECTS { (self.page + 1).to_string() } else { String::new() };
                let items: Vec<_> = numbers.map(|number| object(&format!("o{number}"), "x", "x")).collect();
                whole(stream, "200 OK", "", &list(&more, &items.join(",")))
            }
            Lie::Huge if !self.is_watch => {
                let item = object("huge", &"l".repeat(4 << 20), &"s".repeat(1 << 20));
                whole(stream, "200 OK", "", &list("", &item))
            }
            // These are told in a list: a watch that has expired makes the other side list again.
            _ if self.is_watch => whole(stream, "200 OK", "", EXPIRED),
            _ => whole(stream, "200 OK", "", &list("", "")),
        }
    }
}

/// An object that any kind may be.
fn object(name: &str, label: &str, status: &str) -> String {
    let time = "9999-12-31T23:59:59Z";
    format!(
        "{{\"metadata\":{{\"name\":\"{name}\",\"uid\":\"{name}\",\"resourceVersion\":\"1\",\"creationTimestamp\":\"{time}\",\
         \"deletionTimestamp\":\"{time}\",\"labels\":{{\"l\":\"{label}\"}}}},\"spec\":{{\"desiredMapping\":{{}}}},\
         \"status\":{{\"currentMapping\":{{\"{status}\":{{\"remoteNamespace\":\"{status}\"}}}},\"offerState\":\"{status}\"}}}}"
    )
}

fn whole(stream: &mut Stream, status: &str, more: &str, body: &str) -> Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{more}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes()).context("the other side is gone")
}

/// A body that begins like this and does not end.
fn endless(stream: &mut Stream, begins: &str, goes_on: &dyn Fn() -> bool) -> Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    let filler = "x".repeat(64 << 10);
    for part in std::iter::once(begins).filter(|begins| !begins.is_empty()).chain(std::iter::repeat(filler.as_str())) {
        if !goes_on() {
            break;
        }
        stream.write_all(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes())?;
    }
    Ok(())
}
