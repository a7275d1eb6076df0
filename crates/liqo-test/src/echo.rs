//! Who answers where: an echo that says its name, over TCP and UDP, and the question.
//!
//! An answer is the server's name, the address the question came from and a line feed, then what was sent. So whoever asks
//! knows which of several endpoints answered, under which address it was seen there, and that all octets made both ways.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{netns::Netns, wait_for};

/// Where echoes listen.
pub const PORT: u16 = 7007;
/// A first packet may have to wait for a neighbour, a route or the size of the path.
const PATIENCE: Duration = Duration::from_secs(4);
/// Datagrams get lost: so often the question is asked.
const TRIES: u32 = 4;

/// How a question goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// A connection that carries so many octets there and back.
    Tcp(usize),
    /// One datagram of so many octets, there and back.
    Udp(usize),
}

/// Who answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The name of the echo.
    pub name: String,
    /// The address from which it was asked, as it saw it.
    pub seen: IpAddr,
}

/// Makes an echo called `name` in a namespace; it answers as long as this process lives. Where there are several addresses it has
/// to be told which one is asked for: a datagram is answered from the address that the way back suggests, otherwise.
///
/// # Errors
/// When the port cannot be used.
pub fn serve(place: &Netns, name: &str, at: Ipv4Addr) -> Result<()> {
    let bind = move || -> Result<_> { Ok((TcpListener::bind((at, PORT))?, UdpSocket::bind((at, PORT))?)) };
    let (tcp, udp) = place.run(bind)?.with_context(|| format!("cannot listen for {name}"))?;
    let (one, other) = (name.to_owned(), name.to_owned());
    thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            let name = one.clone();
            thread::spawn(move || converse(stream, &name));
        }
    });
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            let answer = [head(&other, from).as_bytes(), &buffer[..length]].concat();
            let _ = udp.send_to(&answer, from);
        }
    });
    Ok(())
}

fn head(name: &str, from: SocketAddr) -> String {
    format!("{name} {}\n", from.ip())
}

/// Says who it is, then gives back what comes until there is no more.
fn converse(mut stream: TcpStream, name: &str) {
    let Ok(from) = stream.peer_addr() else { return };
    let _ = stream.set_nodelay(true);
    if stream.write_all(head(name, from).as_bytes()).is_err() {
        return;
    }
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// Asks from a namespace.
///
/// # Errors
/// When nobody answers in time, or not what was said.
pub fn ask(place: &Netns, to: SocketAddr, way: Way) -> Result<Answer> {
    place.run(move || ask_here(to, way))?
}

/// Asks from where this thread is.
///
/// # Errors
/// As [`ask`].
pub fn ask_here(to: SocketAddr, way: Way) -> Result<Answer> {
    let answer = match way {
        Way::Tcp(octets) => by_stream(to, octets),
        Way::Udp(octets) => by_datagram(to, octets),
    };
    answer.with_context(|| format!("{to} by {way:?}"))
}

fn by_stream(to: SocketAddr, octets: usize) -> Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let said = payload(octets);
    let mut writer = stream.try_clone()?;
    let sent = said.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&sent)?;
        writer.shutdown(Shutdown::Write)
    });
    let mut heard = Vec::new();
    let read = stream.read_to_end(&mut heard);
    writing.join().expect("writing does not panic").context("cannot say all")?;
    read.with_context(|| format!("heard {} octets", heard.len()))?;
    answer(&heard, &said)
}

fn by_datagram(to: SocketAddr, octets: usize) -> Result<Answer> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE / TRIES))?;
    let (said, mut heard) = (payload(octets), vec![0; 1 << 16]);
    let mut last = None;
    for _ in 0..TRIES {
        // What is too long for the path is refused once, and sent in pieces the next time.
        match socket.send(&said).and_then(|_| socket.recv(&mut heard)) {
            Ok(length) => return answer(&heard[..length], &said),
            Err(error) => last = Some(error),
        }
    }
    Err(last.expect("it was tried").into())
}

/// Octets that differ, so that a lost or doubled piece is noticed.
fn payload(octets: usize) -> Vec<u8> {
    (0..octets).map(|place| u8::try_from(place % 251).expect("less than 251")).collect()
}

fn answer(heard: &[u8], said: &[u8]) -> Result<Answer> {
    let end = heard.iter().position(|octet| *octet == b'\n').context("an answer without a name")?;
    let (name, seen) = std::str::from_utf8(&heard[..end])?.split_once(' ').context("an answer without an address")?;
    let echo = &heard[end + 1..];
    ensure!(echo == said, "{} octets were said, {} came back, not the same", said.len(), echo.len());
    Ok(Answer { name: name.to_owned(), seen: seen.parse()? })
}

/// A connection that is used all the time, to see what a fault does to it.
#[derive(Debug)]
pub struct Conversation {
    answered: Arc<AtomicU64>,
    stop: std::sync::mpsc::Sender<()>,
    thread: thread::JoinHandle<Result<Result<Duration>>>,
}

impl Conversation {
    /// Opens it: from then on 16 octets go there and back every 10 ms.
    ///
    /// # Errors
    /// When the namespace is gone.
    pub fn open(place: &Netns, to: SocketAddr) -> Result<Self> {
        let (stop, stopped) = std::sync::mpsc::channel();
        let answered = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&answered);
        let thread = place.spawn(move || talk(to, &stopped, &count))?;
        Ok(Self { answered, stop, thread })
    }

    /// Waits until so many more answers have come.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    pub fn goes_on(&self, answers: u64, limit: Duration) -> Result<()> {
        let wanted = self.answered.load(Ordering::Relaxed) + answers;
        wait_for(&format!("{answers} more answers"), limit, || {
            Ok((self.answered.load(Ordering::Relaxed) >= wanted).then_some(()))
        })
    }

    /// Ends it and gives the longest time it had to wait for an answer.
    ///
    /// # Errors
    /// When the connection broke, or an answer did not come within three minutes.
    ///
    /// # Panics
    /// When talking did.
    pub fn end(self) -> Result<Duration> {
        let _ = self.stop.send(());
        self.thread.join().expect("talking does not panic")?
    }
}

fn talk(to: SocketAddr, stopped: &std::sync::mpsc::Receiver<()>, answered: &AtomicU64) -> Result<Duration> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("cannot reach {to}"))?;
    stream.set_nodelay(true)?;
    // After a minute without an answer TCP asks again, then only after two.
    stream.set_read_timeout(Some(Duration::from_secs(180)))?;
    // The name comes first.
    let mut octet = [0];
    while octet[0] != b'\n' {
        stream.read_exact(&mut octet).context("no name")?;
    }
    let mut longest = Duration::ZERO;
    let mut number = 0_u128;
    while stopped.recv_timeout(Duration::from_millis(10)).is_err() {
        let (began, said, mut heard) = (Instant::now(), number.to_be_bytes(), [0; 16]);
        stream.write_all(&said).context("the connection broke")?;
        stream.read_exact(&mut heard).context("the connection broke")?;
        if heard != said {
            bail!("another answer than the one expected");
        }
        longest = longest.max(began.elapsed());
        number += 1;
        answered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_says_who_it_is_and_what_was_said() {
        let here = Netns::of(crate::process::Process::me()).unwrap();
        serve(&here, "me", Ipv4Addr::LOCALHOST).unwrap();
        let to = SocketAddr::from(([127, 0, 0, 1], PORT));
        let me = Answer { name: "me".into(), seen: to.ip() };
        for way in [Way::Tcp(0), Way::Tcp(1 << 20), Way::Udp(1), Way::Udp(9000)] {
            assert_eq!(ask(&here, to, way).unwrap(), me, "{way:?}");
        }
        let talk = Conversation::open(&here, to).unwrap();
        talk.goes_on(3, Duration::from_secs(1)).unwrap();
        assert!(talk.end().unwrap() < Duration::from_secs(1));
        assert!(ask(&here, SocketAddr::from(([127, 0, 0, 1], PORT + 1)), Way::Tcp(1)).is_err());
    }
}
