//! Which gateway is the active one.
//!
//! Who holds the lease is active. The others watch the lease and, over UDP, the holder itself: a holder that
//! answered and has fallen silent is replaced within a second, sooner if its node says that nobody is there, one that never
//! answered (a firewall between the nodes) when its lease has run out. An active gateway steps down only when it sees another name in the lease: an active
//! gateway without the API server stays active until another gateway holds the lease.
//!
//! Watches: the Lease `1d5hml1.gateway.net.liqo.io`, gateway Pods. Writes: that Lease.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use liqo_api::names::GATEWAY_LEASE;
use liqo_kube::{
    Cluster, Store,
    lease::{self, Stillness},
};
use tokio::{
    net::UdpSocket,
    sync::{Notify, watch},
    time::{Instant, timeout},
};

use super::heartbeat::{self, Secrets};
use crate::layout::HEARTBEAT_PORT;

/// Pause between two questions to the holder.
const BEAT: Duration = Duration::from_millis(200);
/// A holder that has answered before and is silent for so long is gone.
const SILENT: Duration = Duration::from_millis(850);
/// Consecutive ICMP port-unreachable messages (RFC 792) after which a gateway counts as gone.
const REFUSED: u32 = 2;
/// Answers count up to this many questions late.
const LATE: u64 = 3;
/// Pause between renewals while there is no other gateway.
const ALONE: Duration = Duration::from_secs(10);

/// How the lease is held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// A lease that has not moved for so long is free.
    pub(crate) duration: Duration,
    /// Pause between renewals.
    pub(crate) retry: Duration,
}

/// What is known of a holder that is not us.
#[derive(Clone, Copy, Debug, Default)]
struct Evidence {
    /// For how long the lease has not moved, by our clock.
    unmoved: Duration,
    /// For how long the holder has been silent; none if it never answered.
    silent: Option<Duration>,
    /// How often its node has said since then that nobody is there.
    refused: u32,
}

/// What is to be done about the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    Create,
    Take,
    Renew,
    Wait,
}

fn plan(lease: Option<&Lease>, me: &str, evidence: Evidence, renew_due: bool, terms: Terms) -> Move {
    let Some(lease) = lease else { return Move::Create };
    let holder = lease::holder(Some(lease));
    if holder == me {
        return if renew_due { Move::Renew } else { Move::Wait };
    }
    let fell_silent = evidence.silent.is_some_and(|silent| silent >= SILENT || evidence.refused >= REFUSED);
    // A holder that answers but cannot reach the API server serves better than nobody knows whom.
    let has_run_out = evidence.silent.is_none() && evidence.unmoved >= terms.duration;
    if holder.is_empty() || fell_silent || has_run_out { Move::Take } else { Move::Wait }
}

/// This candidate.
pub(crate) struct Candidate {
    pub(crate) cluster: Cluster,
    pub(crate) namespace: String,
    /// Name of the own pod.
    pub(crate) me: String,
    pub(crate) terms: Terms,
    /// The gateway pods.
    pub(crate) pods: Store<Pod>,
    /// The tag by which the gateways of one cluster recognise each other.
    pub(crate) secrets: watch::Receiver<Secrets>,
    /// The process is ending: the lease, given back, must not be taken once more.
    pub(crate) leaving: watch::Receiver<bool>,
}

impl Candidate {
    /// Takes part for ever; `active` always tells the current standing.
    pub(crate) async fn run(self, active: watch::Sender<bool>) {
        let news = Arc::new(Notify::new());
        let bell = Arc::clone(&news);
        let lease = self.cluster.watch::<Lease>(&self.namespace).fields(&format!("metadata.name={GATEWAY_LEASE}"));
        let lease = lease.start(move |_| bell.notify_one());
        lease.ready().await;
        let mut rival = Rival::new(self.secrets.clone());
        let mut renewed: Option<Instant> = None;
        loop {
            let seen = lease.get(&self.namespace, GATEWAY_LEASE);
            let holder = lease::holder(seen.as_deref()).to_owned();
            let is_mine = holder == self.me;
            active.send_if_modified(|active| std::mem::replace(active, is_mine) != is_mine);
            let evidence = rival.judge(seen.as_deref(), &holder);
            let period = if self.pods.all().len() > 1 { self.terms.retry } else { ALONE };
            let renew_due = renewed.is_none_or(|renewed| renewed.elapsed() >= period);
            let step = plan(seen.as_deref(), &self.me, evidence, renew_due, self.terms);
            if *self.leaving.borrow() {
                return std::future::pending().await;
            }
            if step != Move::Wait {
                let lease = (self.namespace.as_str(), GATEWAY_LEASE);
                match lease::hold(&self.cluster, lease, seen.as_deref(), &self.me, self.terms.duration).await {
                    Ok(()) => {
                        renewed = Some(Instant::now());
                        tracing::debug!(?step, "lease written");
                    }
                    Err(error) if error.is_conflict() => tracing::debug!("another gateway was quicker"),
                    Err(error) => tracing::warn!(error = %error, "lease not written, will be tried again"),
                }
                // What the watch says counts, also after our own write.
                let _ = timeout(self.terms.retry.min(Duration::from_secs(1)), news.notified()).await;
            } else if is_mine {
                let _ = timeout(period.min(self.terms.retry), news.notified()).await;
            } else {
                let address = self.pods.get(&self.namespace, &holder).as_deref().and_then(address_of);
                tokio::select! {
                    () = news.notified() => {}
                    () = rival.ask(address) => {}
                }
            }
        }
    }
}

/// The address of a gateway: that of its node, as it is now. (That of a pod on its node's network may be an earlier one.)
pub(crate) fn address_of(pod: &Pod) -> Option<IpAddr> {
    pod.status.as_ref()?.host_ip.as_deref()?.parse().ok()
}

/// What was seen of the holder, by our own clock.
struct Rival {
    holder: String,
    lease: Stillness,
    heard: Option<Instant>,
    refused: u32,
    wire: Option<(IpAddr, UdpSocket)>,
    secrets: watch::Receiver<Secrets>,
    number: u64,
}

impl Rival {
    fn new(secrets: watch::Receiver<Secrets>) -> Self {
        let (holder, lease) = (String::new(), Stillness::default());
        Self { holder, lease, heard: None, refused: 0, wire: None, secrets, number: heartbeat::beginning() }
    }

    fn judge(&mut self, lease: Option<&Lease>, holder: &str) -> Evidence {
        if self.holder != holder {
            (self.holder, self.heard, self.refused, self.wire) = (holder.to_owned(), None, 0, None);
        }
        Evidence {
            unmoved: self.lease.of(lease),
            silent: self.heard.map(|heard| heard.elapsed()),
            refused: self.refused,
        }
    }

    /// Asks the holder once whether it is there, and waits for one beat.
    async fn ask(&mut self, address: Option<IpAddr>) {
        let begun = Instant::now();
        if let Some(address) = address
            && let Err(error) = self.question(address).await
        {
            self.refused += u32::from(error.kind() == ErrorKind::ConnectionRefused);
            tracing::trace!(error = %error, "the active gateway cannot be asked");
        }
        tokio::time::sleep_until(begun + BEAT).await;
    }

    async fn question(&mut self, address: IpAddr) -> std::io::Result<()> {
        if self.wire.as_ref().is_none_or(|(old, _)| *old != address) {
            let any: IpAddr = if address.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
            let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
            socket.connect(SocketAddr::new(address, HEARTBEAT_PORT)).await?;
            self.wire = Some((address, socket));
        }
        let Some((_, socket)) = &self.wire else { return Ok(()) };
        self.number = self.number.wrapping_add(1);
        let secrets = self.secrets.borrow().clone();
        // Before the key is known only the lease tells.
        let Some(question) = secrets.question(self.number, address, std::time::Instant::now()) else { return Ok(()) };
        let mut refused = socket.send(&question).await;
        // Any host can claim that an address is unreachable, but only a gateway can answer. So an answer counts whatever errors
        // came before the answer.
        let wait = async {
            let mut answer = [0; heartbeat::LENGTH + 1];
            loop {
                match socket.recv(&mut answer).await {
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => refused = Err(error),
                    Err(error) => return Err(error),
                    Ok(length) => {
                        let number = secrets.read(&answer[..length], address, std::time::Instant::now());
                        // Between nodes that are far apart an answer comes after the next question was asked.
                        if number.is_some_and(|number| self.number.wrapping_sub(number) <= LATE) {
                            return Ok(());
                        }
                    }
                }
            }
        };
        match timeout(BEAT, wait).await {
            Ok(outcome) => {
                outcome?;
                (self.heard, self.refused) = (Some(Instant::now()), 0);
                Ok(())
            }
            Err(_) => refused.map(|_| ()),
        }
    }
}

/// Answers the other gateways for ever, at the current address of this gateway.
///
/// # Errors
/// When the port cannot be used.
pub(crate) async fn answer(
    mut address: watch::Receiver<IpAddr>,
    secrets: watch::Receiver<Secrets>,
) -> std::io::Result<()> {
    loop {
        let now = *address.borrow_and_update();
        let changed = match UdpSocket::bind(SocketAddr::new(now, HEARTBEAT_PORT)).await {
            Ok(socket) => tokio::select! {
                changed = address.changed() => changed,
                () = give_back(&socket, now, &secrets) => Ok(()),
            },
            // The node has another one by now, of which the API server will tell.
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => address.changed().await,
            Err(error) => return Err(error),
        };
        if changed.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn give_back(socket: &UdpSocket, me: IpAddr, secrets: &watch::Receiver<Secrets>) {
    let mut question = [0; heartbeat::LENGTH + 1];
    loop {
        // Errors of earlier answers (a gateway that has gone) come here; they mean nothing.
        let Ok((length, from)) = socket.recv_from(&mut question).await else { continue };
        let answer = secrets.borrow().answer(&question[..length], me, std::time::Instant::now());
        if let Some(answer) = answer {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::LeaseSpec;

    use super::*;

    const TERMS: Terms = Terms { duration: Duration::from_secs(7), retry: Duration::from_secs(2) };

    fn held_by(holder: &str) -> Lease {
        let spec = LeaseSpec { holder_identity: Some(holder.into()), ..LeaseSpec::default() };
        Lease { spec: Some(spec), ..Lease::default() }
    }

    #[test]
    fn a_lease_is_taken_only_from_the_gone() {
        let ms = Duration::from_millis;
        let cases = [
            ("", ms(0), None, 0, Move::Take),
            ("b", ms(0), None, 0, Move::Wait),
            ("b", ms(0), None, 9, Move::Wait),
            ("b", ms(6900), None, 0, Move::Wait),
            ("b", ms(7000), None, 0, Move::Take),
            ("b", ms(9000), Some(ms(100)), 0, Move::Wait),
            ("b", ms(0), Some(ms(800)), 0, Move::Wait),
            ("b", ms(0), Some(ms(900)), 0, Move::Take),
            ("b", ms(0), Some(ms(250)), 1, Move::Wait),
            ("b", ms(0), Some(ms(450)), 2, Move::Take),
        ];
        for (holder, unmoved, silent, refused, wanted) in cases {
            let evidence = Evidence { unmoved, silent, refused };
            assert_eq!(plan(Some(&held_by(holder)), "a", evidence, true, TERMS), wanted, "{holder} {evidence:?}");
        }
        assert_eq!(plan(None, "a", Evidence::default(), false, TERMS), Move::Create);
    }

    #[test]
    fn a_holder_renews_when_it_is_due() {
        let evidence = Evidence { unmoved: Duration::from_secs(60), ..Evidence::default() };
        assert_eq!(plan(Some(&held_by("a")), "a", evidence, true, TERMS), Move::Renew);
        assert_eq!(plan(Some(&held_by("a")), "a", evidence, false, TERMS), Move::Wait);
    }

    fn known() -> watch::Sender<Secrets> {
        let mut secrets = Secrets::default();
        secrets.follow(&liqo_tunnel::PrivateKey::generate().unwrap(), std::time::Instant::now());
        watch::Sender::new(secrets)
    }

    #[tokio::test]
    async fn an_answer_is_heard_and_its_end_too() {
        let address = IpAddr::from([127, 0, 0, 1]);
        // An address of documentation: none of this machine.
        let (told, tells) = watch::channel(IpAddr::from([192, 0, 2, 1]));
        let secrets = known();
        let gateway = tokio::spawn(answer(tells, secrets.subscribe()));
        told.send_replace(address);
        let mut rival = Rival::new(secrets.subscribe());
        rival.judge(None, "b");
        while rival.heard.is_none() {
            rival.ask(Some(address)).await;
        }
        gateway.abort();
        let _ = gateway.await;
        let heard = rival.heard;
        for _ in 0..REFUSED {
            rival.ask(Some(address)).await;
        }
        assert_eq!(rival.heard, heard);
        assert_eq!(rival.judge(None, "b").refused, REFUSED, "the machine says that nobody is there");
    }
}
