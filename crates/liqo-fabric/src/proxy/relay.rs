//! Bytes between two sockets, both ways at once.
//!
//! Sockets are read when they have something, into one buffer that all tunnels of a thread share; only what the
//! other side does not take at once is kept for it. So a thousand tunnels that only wait cost no buffers.

use std::{
    cell::RefCell,
    io::{self, ErrorKind},
    net::Shutdown,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use socket2::SockRef;
use tokio::{net::TcpStream, task::consume_budget};

use super::count::Counts;

/// What one read takes at most, and so what a tunnel keeps at most in each direction.
const CHUNK: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into_boxed_slice());
}

/// How long nothing may happen. A tunnel ends between one and two times that long after its last byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// While both directions are open.
    pub(super) idle: Duration,
    /// Once one of them is closed.
    pub(super) half_closed: Duration,
}

/// Why a tunnel ended.
#[derive(Debug)]
pub(super) enum End {
    /// Both sides had said all they had to say.
    Finished,
    /// Nothing flowed for too long.
    Silent,
    /// A socket failed.
    Broken(io::Error),
}

/// Passes bytes until the tunnel has ended; `early` is what the client has sent already.
pub(super) async fn relay(
    client: &TcpStream,
    upstream: &TcpStream,
    early: &[u8],
    limits: Limits,
    counts: &Counts,
) -> End {
    let moved = AtomicU64::new(0);
    let tally = |bytes: usize| moved.fetch_add(bytes as u64, Relaxed);
    let mut out = pin!(pump(client, upstream, early, |bytes| {
        tally(bytes);
        counts.sent(bytes);
    }));
    let mut back = pin!(pump(upstream, client, &[], |bytes| {
        tally(bytes);
        counts.received(bytes);
    }));
    let (first, out_is_done) = tokio::select! {
        end = &mut out => (end, true),
        end = &mut back => (end, false),
        () = silence(&moved, limits.idle) => return End::Silent,
    };
    if let Err(error) = first {
        return End::Broken(error);
    }
    let rest = async { if out_is_done { back.await } else { out.await } };
    tokio::select! {
        end = rest => end.map_or_else(End::Broken, |()| End::Finished),
        () = silence(&moved, limits.half_closed) => End::Silent,
    }
}

/// Returns when nothing has moved for `limit`.
async fn silence(moved: &AtomicU64, limit: Duration) {
    loop {
        let before = moved.load(Relaxed);
        tokio::time::sleep(limit).await;
        if moved.load(Relaxed) == before {
            return;
        }
    }
}

/// Passes bytes in one direction until `from` ends, then tells `to` that there will be no more.
async fn pump(from: &TcpStream, to: &TcpStream, early: &[u8], tally: impl Fn(usize)) -> io::Result<()> {
    write_all(to, early).await?;
    tally(early.len());
    loop {
        // One tunnel that always has something must not keep the others waiting.
        consume_budget().await;
        from.readable().await?;
        match BUFFER.with_borrow_mut(|buffer| pass(from, to, buffer)) {
            Ok(Passed::All(bytes)) => tally(bytes),
            Ok(Passed::Some(bytes, rest)) => {
                write_all(to, &rest).await?;
                tally(bytes + rest.len());
            }
            Ok(Passed::End) => return SockRef::from(to).shutdown(Shutdown::Write),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// What became of one read.
enum Passed {
    /// So many bytes were read and written.
    All(usize),
    /// So many were written; these were not taken yet.
    Some(usize, Vec<u8>),
    /// There will be no more.
    End,
}

/// Reads once and writes as much of it as is taken without waiting.
fn pass(from: &TcpStream, to: &TcpStream, buffer: &mut [u8]) -> io::Result<Passed> {
    let read = from.try_read(buffer)?;
    let mut written = 0;
    while written < read {
        match to.try_write(&buffer[written..read]) {
            Ok(bytes) => written += bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Ok(Passed::Some(written, buffer[written..read].to_vec()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(if read == 0 { Passed::End } else { Passed::All(read) })
}

async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
