//! Pings every peer through its tunnel and answers theirs.
//!
//! One socket in the tunnel's namespace. Where an answer comes from tells whose it is, not what it says: the
//! source address was allowed to nobody but that peer by WireGuard.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery};
use tokio::{net::UdpSocket, sync::Notify};

use super::{
    message::{Kind, LONGEST, Message},
    path::{Answer, Path, Report},
};
use crate::layout::PING_PORT;

/// Links of Liqo 0.8.3 carry no larger packets behind the tunnel, whatever the tunnel does.
const LIMIT_OF_OTHERS: u16 = 1340;
/// Longest pause between two looks at the paths.
const LOOK: Duration = Duration::from_millis(250);

/// A peer to be pinged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Its cluster ID.
    pub(crate) id: String,
    /// The tunnel's address in that cluster, as we see it.
    pub(crate) address: IpAddr,
    /// The largest packet worth trying.
    pub(crate) ceiling: u16,
}

struct Watched {
    target: Target,
    path: Path,
    /// Whether answers to probes come in full size: the peer is one of ours. Unknown before the first.
    echoes: Option<bool>,
}

/// The paths to all peers. Copies share them.
#[derive(Clone)]
pub(crate) struct Checks(Arc<Inner>);

struct Inner {
    watched: Mutex<HashMap<IpAddr, Watched>>,
    targets_changed: Notify,
    /// Rung when a path has died, has come back or has another size.
    bell: Arc<Notify>,
}

impl Checks {
    /// No peers yet. `bell` is rung when there is something to tell.
    pub(crate) fn new(bell: Arc<Notify>) -> Self {
        Self(Arc::new(Inner { watched: Mutex::default(), targets_changed: Notify::new(), bell }))
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<IpAddr, Watched>> {
        self.0.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Exactly these peers are pinged from now on; what is known of those that stay is kept.
    pub(crate) fn set(&self, targets: Vec<Target>) {
        let mut watched = self.watched();
        let mut old = std::mem::take(&mut *watched);
        let now = Instant::now();
        for target in targets {
            let kept = old.remove(&target.address).filter(|kept| kept.target == target);
            let path = Path::new(target.ceiling, now);
            let fresh = || Watched { target: target.clone(), path, echoes: None };
            watched.insert(target.address, kept.unwrap_or_else(fresh));
        }
        drop(watched);
        self.0.targets_changed.notify_one();
    }

    /// What is known, by cluster ID.
    pub(crate) fn reports(&self) -> HashMap<String, Report> {
        self.watched().values().map(|watched| (watched.target.id.clone(), watched.path.report())).collect()
    }

    /// Pings and answers for ever on a socket made by [`socket`].
    pub(crate) async fn run(self, socket: UdpSocket) {
        let mut datagram = vec![0; LONGEST];
        loop {
            let wake = self.ping(&socket);
            tokio::select! {
                received = socket.recv_from(&mut datagram) => {
                    if let Ok((length, from)) = received {
                        self.read(&socket, &datagram[..length], from);
                    }
                }
                () = tokio::time::sleep_until(wake.into()) => {}
                () = self.0.targets_changed.notified() => {}
            }
        }
    }

    /// Sends what is due and says when to look again.
    fn ping(&self, socket: &UdpSocket) -> Instant {
        let now = Instant::now();
        let mut wake = now + LOOK;
        let mut changed = false;
        for (address, watched) in &mut *self.watched() {
            if watched.path.died(now) {
                tracing::warn!(peer = watched.target.id, "no answer through the tunnel any longer");
                changed = true;
            }
            for due in watched.path.due(now) {
                let (cluster_id, stamp) = (watched.target.id.clone(), stamp(due.number));
                let message = Message { cluster_id, kind: Kind::Ping, stamp, echo: due.size > 0 };
                // A full queue or a missing route is a lost ping, no more.
                let _ = socket.try_send_to(&message.encode(due.size), SocketAddr::new(*address, PING_PORT));
            }
            wake = wake.min(watched.path.wake(now));
        }
        if changed {
            self.0.bell.notify_one();
        }
        wake.max(now + Duration::from_millis(1))
    }

    fn read(&self, socket: &UdpSocket, datagram: &[u8], from: SocketAddr) {
        let Some(message) = Message::decode(datagram) else { return };
        if message.kind == Kind::Ping {
            if let Some(answer) = message.answer(datagram) {
                let _ = socket.try_send_to(&answer, from);
            }
            return;
        }
        let now = Instant::now();
        let mut all = self.watched();
        let Some(watched) = all.get_mut(&from.ip()) else { return };
        let Some(number) = number(&message.stamp) else { return };
        let before = watched.path.report();
        let answer = watched.path.answered(number, now);
        if answer == Answer::Probe && watched.echoes.is_none() {
            watched.echoes = Some(message.echo);
            if !message.echo {
                watched.path.limit(watched.target.ceiling.min(LIMIT_OF_OTHERS), now);
            }
        }
        let is_back = answer == Answer::Ping { back: true };
        if is_back {
            tracing::info!(peer = watched.target.id, "the peer answers through the tunnel");
        }
        if is_back || watched.path.report().mtu != before.mtu {
            self.0.bell.notify_one();
        }
    }
}

/// A time stamp with the number of the ping in place of its nanoseconds.
fn stamp(number: u64) -> String {
    let now = Timestamp::now();
    let nanosecond = i32::try_from(number % 1_000_000_000).unwrap_or_default();
    Timestamp::new(now.as_second(), nanosecond).unwrap_or(now).to_string()
}

/// The number in a time stamp. 0.8.3 reads and writes it anew: the text may differ, the time does not.
fn number(stamp: &str) -> Option<u64> {
    u64::try_from(stamp.parse::<Timestamp>().ok()?.subsec_nanosecond()).ok()
}

/// The socket of the connection check; call it in the tunnel's namespace.
///
/// # Errors
/// What the kernel said.
pub(crate) fn socket() -> io::Result<std::net::UdpSocket> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PING_PORT))?;
    // Probes go out whole, whatever is believed of the path: that is what they find out.
    sockopt::set_ip_mtu_discover(socket.as_fd(), Ipv4PathMtuDiscovery::PROBE)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_survives_being_written_by_others() {
        for one in [1, 7, 120_000, 999_999_999] {
            assert_eq!(number(&stamp(one)), Some(one));
        }
        assert_eq!(number("2026-11-20T23:27:15.00012Z"), Some(120_000));
        assert_eq!(number("yesterday"), None);
    }
}
