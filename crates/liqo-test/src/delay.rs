//! Delay on a leg, for kernels without `sch_netem`: a program carries the frames and lets each one wait.
//!
//! While a leg is delayed it is not in its bridge, `br0` in most cases. It has a bridge of its own with a TAP device, another TAP device
//! is in `br0` for it, and a daemon moves frames between the two. A TAP device takes frames whole, with their checksums
//! computed, so what arrives late is what was sent.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::fd::AsFd,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::ioctl::{Setter, ioctl};

use crate::{cluster::Node, process::Daemon, reaper, record::Record, run::ip};

/// `_IOW('T', 202, int)`: attach to a TUN or TAP device.
const TUNSETIFF: rustix::ioctl::Opcode = 0x4004_54ca;
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
/// The longest frame; offloading is off on a TAP device, so this is generous.
const FRAME: usize = 1 << 16;
/// Frames that may wait in one direction before more are lost, as on a real wire.
const QUEUE: usize = 4096;

/// The device that stands for a leg in its bridge while the leg is delayed.
pub(crate) fn stand_in(leg: &str) -> String {
    leg.replace("leg", "far")
}

/// Delays the frames of a node's leg in each direction by so much; 0 puts the leg back into the bridge.
pub(crate) fn set(record: &Record, node: &Node, milliseconds: u32) -> Result<()> {
    let (wan, leg, home) = (record.wan(), node.leg(), node.bridge());
    let (near, far, bridge) = (leg.replace("leg", "near"), stand_in(&leg), leg.replace("leg", "dly"));
    let daemon = Daemon::of(&node.dir, "delay");
    if daemon.alive() {
        daemon.kill()?;
        ip(&wan, &format!("link set dev {leg} master {home}"))?;
        for device in [&near, &far, &bridge] {
            ip(&wan, &format!("link del {device}"))?;
        }
    }
    if milliseconds == 0 {
        return Ok(());
    }
    ip(&wan, &format!("link add {bridge} type bridge"))?;
    for (device, master) in [(&near, bridge.as_str()), (&far, home.as_str())] {
        ip(&wan, &format!("tuntap add dev {device} mode tap"))?;
        ip(&wan, &format!("link set dev {device} txqueuelen {QUEUE} master {master} up"))?;
    }
    ip(&wan, &format!("link set dev {bridge} up"))?;
    ip(&wan, &format!("link set dev {leg} master {bridge}"))?;
    let program = reaper::program()?.display().to_string();
    let words = vec![program, "carry".into(), near, far, milliseconds.to_string()];
    Daemon::spawn(&node.dir, &wan, "delay", words).map(drop)
}

/// The daemon's life: frames of each device come out of the other one, late.
pub fn carry(one: &str, other: &str, delay: Duration) -> Result<()> {
    let (one, other) = (attach(one)?, attach(other)?);
    thread::scope(|scope| {
        let there = scope.spawn(|| one_way(&one, &other, delay));
        let back = scope.spawn(|| one_way(&other, &one, delay));
        there.join().expect("carrying does not panic")?;
        back.join().expect("carrying does not panic")
    })
}

fn one_way(mut from: &File, to: &File, delay: Duration) -> Result<()> {
    let (sender, receiver) = mpsc::sync_channel::<(Instant, Vec<u8>)>(QUEUE);
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut to = to;
            for (due, frame) in receiver {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                // A device that is down loses the frame, as a wire would.
                let _ = to.write_all(&frame);
            }
        });
        let mut buffer = vec![0; FRAME];
        loop {
            let length = from.read(&mut buffer).context("cannot read a frame")?;
            // A full queue loses the frame.
            let _ = sender.try_send((Instant::now() + delay, buffer[..length].to_vec()));
        }
    })
}

#[expect(unsafe_code, reason = "attaching to a TAP device is an ioctl that rustix has no safe name for")]
fn attach(name: &str) -> Result<File> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").context("cannot open /dev/net/tun")?;
    // struct ifreq: 16 octets of name, then a union of which the first 16 bits are the flags.
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&(IFF_TAP | IFF_NO_PI).to_ne_bytes());
    // SAFETY: TUNSETIFF reads a struct ifreq, 40 octets on this architecture, and keeps no pointer to it.
    unsafe { ioctl(file.as_fd(), Setter::<TUNSETIFF, [u8; 40]>::new(request)) }
        .with_context(|| format!("cannot attach to {name}"))?;
    Ok(file)
}
