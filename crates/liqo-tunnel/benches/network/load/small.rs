//! 64-byte datagrams at a rate, in batches of 32 with one system call each.

#![expect(unsafe_code, reason = "sendmmsg and recvmmsg, of which musl has no true form")]

use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{SMALL, Wire};

const BATCH: usize = 32;
const PORT: u16 = 7009;

/// Sends at `rate` packets per second, or as fast as can be, and tells how many were sent and how many arrived.
pub(super) fn run(wire: &Wire, target: IpAddr, rate: Option<f64>, time: Duration) -> (u64, u64) {
    let server = wire.sides[1].run(|| UdpSocket::bind((target, PORT)).unwrap());
    server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    enlarge(&server);
    let done = Arc::new(AtomicBool::new(false));
    let finished = done.clone();
    let receiver = std::thread::spawn(move || {
        let mut received = 0;
        loop {
            match batch(&server, libc::SYS_recvmmsg, libc::MSG_WAITFORONE) {
                0 if finished.load(Ordering::Relaxed) => return received,
                count => received += count,
            }
        }
    });
    let client = wire.sides[0].run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    client.connect((target, PORT)).unwrap();
    let (begun, mut sent) = (Instant::now(), 0);
    while begun.elapsed() < time {
        sent += batch(&client, libc::SYS_sendmmsg, 0);
        let Some(rate) = rate else { continue };
        let due = Duration::from_secs_f64(sent as f64 / rate);
        if let Some(early) = due.checked_sub(begun.elapsed()).filter(|early| *early > Duration::from_micros(20)) {
            std::thread::sleep(early);
        }
    }
    // What is on the way may still arrive.
    std::thread::sleep(Duration::from_millis(50));
    done.store(true, Ordering::Relaxed);
    (sent, receiver.join().unwrap())
}

fn enlarge(socket: &UdpSocket) {
    let size: libc::c_int = 7 << 20;
    // SAFETY: points to an int of that length.
    unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, (&raw const size).cast(), 4)
    };
}

/// One call; how many packets it moved.
fn batch(socket: &UdpSocket, call: libc::c_long, flags: libc::c_int) -> u64 {
    let mut bytes = [[7u8; SMALL]; BATCH];
    let mut pieces: [libc::iovec; BATCH] =
        std::array::from_fn(|i| libc::iovec { iov_base: bytes[i].as_mut_ptr().cast(), iov_len: SMALL });
    // SAFETY: all zeros is a valid header; the padding of musl's form must be zero, because the kernel's lengths are wider.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    for (header, piece) in headers.iter_mut().zip(&mut pieces) {
        header.msg_hdr.msg_iov = piece;
        header.msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: every header points to one live piece, every piece to 64 live bytes.
    let moved = unsafe {
        libc::syscall(
            call,
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            BATCH,
            flags,
            std::ptr::null_mut::<libc::timespec>(),
        )
    };
    u64::try_from(moved).unwrap_or(0)
}
