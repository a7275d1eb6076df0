//! What is sent through: TCP, small packets at a rate, and one packet there and back.

#![expect(clippy::disallowed_methods, reason = "runs iperf3")]

mod small;

use std::net::{IpAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::bed::Netns;
use crate::engine::{Kind, MTU, NAMES, Tunnel, wait};
use crate::machine::{Clock, Used};

pub(crate) const OUTER: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
pub(crate) const INNER: [&str; 2] = ["10.9.0.1", "10.9.0.2"];
/// Bytes of a small packet.
const SMALL: usize = 64;

/// Two namespaces with a wire between them.
pub(crate) struct Wire {
    pub(crate) sides: [Netns; 2],
    target: IpAddr,
}

/// Bits per second, and what they cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flow {
    pub(crate) gbits: f64,
    /// Processor seconds of everything of ours, senders and receivers included, per Gbit.
    pub(crate) cost: f64,
    pub(crate) foreign: f64,
}

/// Packets per second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Small {
    /// The highest rate that loses less than one in a hundred.
    pub(crate) lossless: f64,
    /// Delivered when everything is sent that can be sent.
    pub(crate) flood: f64,
    pub(crate) foreign: f64,
}

/// Microseconds there and back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trip {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) foreign: f64,
}

impl Wire {
    pub(crate) fn new() -> Self {
        let sides = [Netns::new(), Netns::new()];
        sides[0].join("wire", &sides[1], "wire");
        for (side, address) in sides.iter().zip(OUTER) {
            side.ip(&format!("address add {address}/24 dev wire"));
            side.ip("link set dev wire up");
        }
        Self { sides, target: OUTER[1].parse().unwrap() }
    }

    /// Gives the tunnel's interfaces their addresses.
    pub(crate) fn address_tunnel(&self) {
        for ((side, address), name) in self.sides.iter().zip(INNER).zip(NAMES) {
            side.ip(&format!("address add {address}/24 dev {name}"));
            side.ip(&format!("link set dev {name} mtu {MTU} up"));
        }
    }

    /// From now on all load goes through the tunnel, or past it.
    pub(crate) fn go_through(&mut self, kind: Kind) {
        let through = if kind == Kind::Raw { OUTER } else { INNER };
        self.target = through[1].parse().unwrap();
    }

    pub(crate) fn wait_until_open(&self) {
        let server = self.sides[1].run(|| UdpSocket::bind((self.target, 7007)).unwrap());
        server.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let client = self.sides[0].run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        wait(|| {
            let _ = client.send_to(b"?", (self.target, 7007));
            server.recv(&mut [0; 8]).is_ok()
        });
    }

    /// iperf3 for `time` with so many streams.
    pub(crate) fn tcp(&self, streams: u32, time: Duration, tunnel: &Tunnel) -> Flow {
        let pids = tunnel.pids();
        let mut server = self.sides[1].run(|| {
            Command::new("iperf3")
                .args(["-s", "-1", "-p", "5201"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        });
        std::thread::sleep(Duration::from_millis(300));
        let clock = Clock::now(&pids);
        let output = self.sides[0].run(|| {
            let arguments = format!("-c {} -p 5201 -t {} -P {streams} -J", self.target, time.as_secs());
            Command::new("iperf3").args(arguments.split(' ')).output().unwrap()
        });
        server.wait().unwrap();
        let used: Used = clock.since(&pids);
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let sum = &told["end"]["sum_received"];
        let bits = sum["bits_per_second"].as_f64().unwrap_or(0.0);
        let bytes = sum["bytes"].as_f64().unwrap_or(0.0);
        assert!(bytes > 0.0, "iperf3: {}", String::from_utf8_lossy(&output.stdout));
        Flow { gbits: bits / 1e9, cost: used.own / (bytes * 8.0 / 1e9), foreign: used.foreign }
    }

    pub(crate) fn small(&self, tunnel: &Tunnel) -> Small {
        let pids = tunnel.pids();
        let clock = Clock::now(&pids);
        let (mut low, mut high) = (10_000.0, 800_000.0);
        for _ in 0..7 {
            let rate = (low + high) / 2.0;
            let (sent, received) = small::run(self, self.target, Some(rate), Duration::from_millis(1000));
            // A sender that cannot keep the rate has not offered it.
            let offered = sent as f64 >= rate * 0.97;
            if offered && received as f64 >= sent as f64 * 0.99 { low = rate } else { high = rate }
        }
        let (_, received) = small::run(self, self.target, None, Duration::from_secs(1));
        Small { lossless: low, flood: received as f64, foreign: clock.since(&pids).foreign }
    }

    pub(crate) fn round_trip(&self, time: Duration, tunnel: &Tunnel) -> Trip {
        let pids = tunnel.pids();
        let server = self.sides[1].run(|| UdpSocket::bind((self.target, 7008)).unwrap());
        server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let finished = done.clone();
        let echo = std::thread::spawn(move || {
            let mut buffer = [0; 128];
            while !finished.load(Ordering::Relaxed) {
                if let Ok((length, sender)) = server.recv_from(&mut buffer) {
                    let _ = server.send_to(&buffer[..length], sender);
                }
            }
        });
        let client = self.sides[0].run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        client.connect((self.target, 7008)).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let (clock, begun) = (Clock::now(&pids), Instant::now());
        let mut trips = Vec::with_capacity(1 << 17);
        while begun.elapsed() < time {
            let sent = Instant::now();
            let _ = client.send(&[7; SMALL]);
            if client.recv(&mut [0; 128]).is_ok() {
                trips.push(sent.elapsed().as_secs_f64() * 1e6);
            }
        }
        done.store(true, Ordering::Relaxed);
        echo.join().unwrap();
        trips.sort_by(f64::total_cmp);
        let at = |share: f64| trips[((trips.len() - 1) as f64 * share) as usize];
        Trip { p50: at(0.5), p99: at(0.99), foreign: clock.since(&pids).foreign }
    }
}
