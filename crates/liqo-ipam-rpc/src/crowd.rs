//! Connections, as many as there may be: some for each address, and some more for all.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Connections from one address at a time: all virtual kubelets of a node may seem to have one.
const OF_ADDRESS: usize = 64;
/// Connections at a time.
const ALL: usize = 1024;

/// Counts the connections of each source. Clones share the counts.
#[derive(Clone, Default)]
pub(crate) struct Crowd(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl Crowd {
    /// The connection with its seat; `None`, and the connection is closed, when there are too many.
    pub(crate) fn admit(&self, stream: TcpStream) -> Option<Seated> {
        let address = stream.peer_addr().ok()?.ip();
        let seat = self.seat(address)?;
        Some(Seated { stream, _seat: seat })
    }

    fn seat(&self, address: IpAddr) -> Option<Seat> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here = counts.get(&address).copied().unwrap_or_default();
        if here >= OF_ADDRESS || counts.values().sum::<usize>() >= ALL {
            return None;
        }
        counts.insert(address, here + 1);
        Some(Seat { crowd: self.clone(), address })
    }
}

struct Seat {
    crowd: Crowd,
    address: IpAddr,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
        }
        counts.retain(|_, count| *count > 0);
    }
}

/// A connection that frees its seat when it ends.
pub(crate) struct Seated {
    stream: TcpStream,
    _seat: Seat,
}

impl Connected for Seated {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Seated {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
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

    #[test]
    fn one_address_cannot_take_all_seats_and_seats_come_back() {
        let crowd = Crowd::default();
        let address = |last: usize| IpAddr::from([10, 0, 0, u8::try_from(last).unwrap()]);
        let mut seats: Vec<_> = (0..OF_ADDRESS).map(|_| crowd.seat(address(1)).unwrap()).collect();
        assert!(crowd.seat(address(1)).is_none());
        for other in 2..=ALL / OF_ADDRESS {
            seats.extend((0..OF_ADDRESS).map(|_| crowd.seat(address(other)).unwrap()));
        }
        assert!(crowd.seat(address(99)).is_none(), "all are taken");
        seats.truncate(1);
        assert!(crowd.seat(address(99)).is_some());
        drop(seats);
        assert!(crowd.0.lock().unwrap().is_empty());
    }
}
