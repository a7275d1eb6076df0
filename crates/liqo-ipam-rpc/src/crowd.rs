//! Connections, as many as there may be: some for each address, and some more for all. A connection keeps its seat by a call that
//! was admitted; connections without one give way to others, and end after [`PATIENCE`].

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Notify,
};
use tonic::transport::server::Connected;

/// Connections from one address at a time: all virtual kubelets of a node may seem to have one.
const OF_ADDRESS: usize = 64;
/// Connections at a time.
const ALL: usize = 1024;
/// A connection over which no call was admitted for so long is closed.
const PATIENCE: Duration = Duration::from_secs(10);

/// The seats of all connections. Clones share the seats.
#[derive(Clone, Default)]
pub(crate) struct Crowd(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Number of the next connection: the smaller the number, the longer a connection has been there.
    next: u64,
    taken: HashMap<u64, Taken>,
}

struct Taken {
    source: IpAddr,
    /// Whether a call over this connection was admitted.
    known: bool,
    cut: Arc<Notify>,
}

impl Crowd {
    /// The connection with its seat; `None`, and the connection is closed, when no seat can be had.
    pub(crate) fn admit(&self, stream: TcpStream) -> Option<Seated> {
        let seat = Arc::new(self.seat(stream.peer_addr().ok()?.ip().to_canonical())?);
        let end = Box::pin(Seat::end(Arc::clone(&seat.cut), Arc::downgrade(&seat)));
        Some(Seated { stream, seat, end: Some(end) })
    }

    /// A seat for a connection from `source`. Where all seats are taken, the oldest connection without an admitted call gives way:
    /// of `source` where `source` has its share, else of the address that has most seats.
    fn seat(&self, source: IpAddr) -> Option<Seat> {
        let mut state = self.state();
        if state.taken.values().filter(|taken| taken.source == source).count() >= OF_ADDRESS {
            state.cut_oldest(source)?;
        } else if state.taken.len() >= ALL {
            let loudest = state.loudest()?;
            state.cut_oldest(loudest)?;
        }
        let (id, cut) = (state.next, Arc::new(Notify::new()));
        state.next += 1;
        state.taken.insert(id, Taken { source, known: false, cut: Arc::clone(&cut) });
        drop(state);
        Some(Seat { crowd: self.clone(), id, source, cut })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn cut_oldest(&mut self, source: IpAddr) -> Option<()> {
        let strangers = self.taken.iter().filter(|(_, taken)| taken.source == source && !taken.known);
        let oldest = *strangers.min_by_key(|(id, _)| **id)?.0;
        self.taken.remove(&oldest)?.cut.notify_one();
        Some(())
    }

    /// The address with most seats, among those with a connection that may be cut.
    fn loudest(&self) -> Option<IpAddr> {
        let mut counts: HashMap<IpAddr, (usize, bool)> = HashMap::new();
        for taken in self.taken.values() {
            let (count, strange) = counts.entry(taken.source).or_default();
            *count += 1;
            *strange |= !taken.known;
        }
        let strange = counts.into_iter().filter(|(_, (_, strange))| *strange);
        strange.max_by_key(|(_, (count, _))| *count).map(|(source, _)| source)
    }
}

/// The seat of one connection, free again when the connection ends.
pub(crate) struct Seat {
    crowd: Crowd,
    id: u64,
    source: IpAddr,
    cut: Arc<Notify>,
}

impl Seat {
    /// Where the connection comes from.
    pub(crate) fn source(&self) -> IpAddr {
        self.source
    }

    /// A call over this connection was admitted: the connection keeps its seat.
    pub(crate) fn keep(&self) {
        if let Some(taken) = self.crowd.state().taken.get_mut(&self.id) {
            taken.known = true;
        }
    }

    fn is_known(&self) -> bool {
        self.crowd.state().taken.get(&self.id).is_some_and(|taken| taken.known)
    }

    /// Returns when the connection has lost its seat, or had its time.
    async fn end(cut: Arc<Notify>, seat: std::sync::Weak<Self>) {
        let lost = cut.notified();
        tokio::pin!(lost);
        tokio::select! {
            () = &mut lost => {}
            () = tokio::time::sleep(PATIENCE) => {
                if seat.upgrade().is_some_and(|seat| seat.is_known()) {
                    lost.await;
                }
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.crowd.state().taken.remove(&self.id);
    }
}

/// A connection with its seat.
pub(crate) struct Seated {
    stream: TcpStream,
    seat: Arc<Seat>,
    /// `None` once the connection must end.
    end: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Connected for Seated {
    type ConnectInfo = Arc<Seat>;

    fn connect_info(&self) -> Arc<Seat> {
        Arc::clone(&self.seat)
    }
}

impl AsyncRead for Seated {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.end.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready()) {
            self.end = None;
        }
        if self.end.is_none() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Seated {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: usize) -> IpAddr {
        IpAddr::from([10, 0, 0, u8::try_from(last).unwrap()])
    }

    fn has(seat: &Seat) -> bool {
        seat.crowd.state().taken.contains_key(&seat.id)
    }

    #[test]
    fn who_was_admitted_keeps_the_seat_and_who_was_not_gives_way() {
        let crowd = Crowd::default();
        let seats: Vec<_> = (0..OF_ADDRESS).map(|_| crowd.seat(ip(1)).unwrap()).collect();
        seats[0].keep();
        let late = crowd.seat(ip(1)).unwrap();
        assert_eq!((has(&seats[0]), has(&seats[1]), has(&seats[2])), (true, false, true));
        seats[2..].iter().chain([&late]).for_each(Seat::keep);
        assert!(crowd.seat(ip(1)).is_none(), "all calls of this address were admitted");
        assert!(crowd.seat(ip(2)).is_some());
    }

    #[test]
    fn silent_connections_of_many_addresses_leave_a_seat_for_others() {
        let crowd = Crowd::default();
        let loud = || (1..=ALL / OF_ADDRESS).flat_map(|one| std::iter::repeat_n(ip(one), OF_ADDRESS));
        let seats: Vec<_> = loud().map(|source| crowd.seat(source).unwrap()).collect();
        let honest = crowd.seat(ip(99)).unwrap();
        assert!(seats.iter().filter(|seat| !has(seat)).count() == 1 && has(&honest));
        honest.keep();
        let again: Vec<_> = loud().filter_map(|source| crowd.seat(source)).collect();
        assert!(has(&honest) && crowd.state().taken.len() == ALL);
        drop((seats, again, honest));
        assert!(crowd.state().taken.is_empty());
    }
}
