//! From the interface to the peers: read what the kernel hands over, cut it, seal it, send it in batches.
//!
//! Everything that is there is taken before anything is sent, up to one buffer full; then one call sends it. Datagrams of one peer
//! and one size go as one message (`UDP_SEGMENT`).

use std::io::{self, Read};
use std::sync::Arc;

use super::link::{Link, OVERHEAD, SMALLEST};
use super::packet::destination;
use super::split::{TAIL, VNET, split};
use super::table::{Reader, Table};
use super::{Shared, Wire};
use crate::sys::{Endpoint, Outgoing};

/// The largest frame the kernel hands over, with its header.
const FRAME: usize = VNET + 65_535;
/// Bytes that are sent in one go.
const BUFFER: usize = 448 << 10;
/// Room a frame can need: its packets, each a little longer, from a kernel that cuts as finely as 536 bytes.
const RESERVE: usize = FRAME + (FRAME / 536 + 2) * (OVERHEAD + TAIL) + SMALLEST;
/// What one message may hold: `UDP_MAX_SEGMENTS` of older kernels, and what fits a UDP datagram.
const SEGMENTS: usize = 64;
const MESSAGE: usize = 65_000;

/// The state of the thread.
pub(crate) struct Outbound {
    shared: Arc<Shared>,
    reader: Reader,
    frame: Box<[u8]>,
    batch: Batch,
    mtu: usize,
}

/// Sealed messages that wait to be sent.
struct Batch {
    buffer: Box<[u8]>,
    used: usize,
    messages: Vec<Outgoing>,
}

impl Outbound {
    pub(crate) fn new(shared: Arc<Shared>, mtu: usize) -> Self {
        Self {
            reader: Reader::new(&shared.board),
            shared,
            frame: vec![0; FRAME + TAIL].into_boxed_slice(),
            batch: Batch {
                buffer: vec![0; BUFFER].into_boxed_slice(),
                used: 0,
                messages: Vec::with_capacity(BUFFER / SMALLEST),
            },
            mtu,
        }
    }

    /// Until the tunnel ends.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        while !self.shared.is_stopping() {
            let frames = self.drain()?;
            self.batch.send(&self.shared.wire);
            // After more than one frame there are probably more by now; after one or none, sleep.
            if frames < 2 {
                self.shared.wait_for_frames()?;
            }
        }
        Ok(())
    }

    /// Seals all that is there, as far as there is room. Tells how many frames there were.
    fn drain(&mut self) -> io::Result<usize> {
        let table = self.reader.refresh(&self.shared.board);
        let mut frames = 0;
        while self.batch.used + RESERVE <= BUFFER {
            let room = self.frame.len() - TAIL;
            match (&self.shared.tun.file).read(&mut self.frame[..room]) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                Ok(length) => self.seal(&table, length),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            frames += 1;
        }
        Ok(frames)
    }

    fn seal(&mut self, table: &Table, length: usize) {
        let Some(to) = self.frame.get(VNET..length).and_then(destination) else { return };
        let Some(link) = table.by_destination(to) else { return };
        let mut state = link.lock();
        let Some(endpoint) = state.endpoint() else { return };
        let ready = state.can_seal();
        // A frame that contradicts itself is dropped, as is one that was cut short.
        let _ = split(&mut self.frame, length, self.mtu, |packet| {
            self.batch.put(packet.len() + OVERHEAD, |buffer| {
                if ready {
                    return Some((state.seal(packet, buffer)?, endpoint));
                }
                let length = state.wait(packet, buffer)?;
                Some((length, state.destination(&buffer[..length])?))
            });
        });
    }
}

impl Batch {
    /// Appends what `write` writes for somebody, if there is room for `need` bytes.
    fn put(&mut self, need: usize, write: impl FnOnce(&mut [u8]) -> Option<(usize, Endpoint)>) {
        let Some(room) = self.buffer.get_mut(self.used..).filter(|room| room.len() >= need.max(SMALLEST)) else {
            return;
        };
        let Some((length, endpoint)) = write(room) else { return };
        let start = self.used;
        self.used += length;
        if let Some(last) = self.messages.last_mut() {
            let whole = last.length % last.size == 0;
            let few = last.length / last.size < SEGMENTS && last.length + length <= MESSAGE;
            if whole && few && length <= last.size && last.endpoint == endpoint {
                last.length += length;
                return;
            }
        }
        self.messages.push(Outgoing { start, length, size: length, endpoint });
    }

    fn send(&mut self, wire: &Wire) {
        wire.send(&self.buffer, &self.messages);
        self.messages.clear();
        self.used = 0;
    }
}

/// Writes one message for `link` and sends it at once: handshakes, keepalives.
pub(crate) fn send_now(
    wire: &Wire,
    link: &Link,
    scratch: &mut [u8],
    write: impl FnOnce(&mut super::link::State, &mut [u8]) -> Option<usize>,
) -> bool {
    let message = {
        let mut state = link.lock();
        let length = state.endpoint().and_then(|_| write(&mut state, scratch));
        length.and_then(|length| Some((state.destination(&scratch[..length])?, length)))
    };
    let Some((endpoint, length)) = message else { return false };
    wire.send(scratch, &[Outgoing { start: 0, length, size: length, endpoint }]);
    true
}
