//! Netlink messages as bytes: headers, attributes, nests (RFC 3549; `linux/netlink.h`).

/// Answer to a request, or the end of it.
pub(crate) const NLMSG_ERROR: u16 = 2;
/// End of a listing.
pub(crate) const NLMSG_DONE: u16 = 3;
/// First number of a protocol's own types.
pub(crate) const NLMSG_MIN_TYPE: u16 = 16;

/// Every request carries it.
pub(crate) const REQUEST: u16 = 0x1;
/// Asks for an answer also when all went well.
pub(crate) const ACK: u16 = 0x4;
/// Asks for a listing.
pub(crate) const DUMP: u16 = 0x300;
/// Set on a listing that changed while it was made.
pub(crate) const DUMP_INTERRUPTED: u16 = 0x10;
/// Replaces what is there.
pub(crate) const REPLACE: u16 = 0x100;
/// Refuses what is there.
pub(crate) const EXCLUSIVE: u16 = 0x200;
/// Makes what is not there.
pub(crate) const CREATE: u16 = 0x400;
/// Adds at the end.
pub(crate) const APPEND: u16 = 0x800;

const NESTED: u16 = 0x8000;
const KIND_MASK: u16 = 0x3fff;
const HEADER: usize = 16;

/// One or more messages in the making.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    first: u32,
    next: u32,
    /// Where the last message begins.
    start: usize,
    /// The message whose answer ends the exchange, if it is not the last.
    answered: Option<u32>,
}

impl Writer {
    /// Messages are numbered from `first`.
    pub(crate) fn new(first: u32) -> Self {
        Self { first, next: first, ..Self::default() }
    }

    /// Appends a message: its fixed part, then whatever `attributes` writes.
    pub(crate) fn message(&mut self, kind: u16, flags: u16, fixed: &[u8], attributes: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.start = start;
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&self.next.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.next = self.next.wrapping_add(1);
        self.bytes.extend_from_slice(fixed);
        self.pad();
        attributes(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// An attribute of these bytes.
    pub(crate) fn put(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// A number as rtnetlink writes it: the machine's byte order.
    pub(crate) fn put_u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_ne_bytes());
    }

    /// A number as netfilter writes it: network byte order.
    pub(crate) fn put_be32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// A string with its final zero.
    pub(crate) fn put_str(&mut self, kind: u16, value: &str) {
        self.put(kind, &[value.as_bytes(), &[0]].concat());
    }

    /// An attribute that holds attributes.
    pub(crate) fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        inner(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// Bytes without a header of their own, as a nested fixed part.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    /// Asks for an answer to the last message so far; it ends the exchange although messages follow.
    pub(crate) fn acknowledge(&mut self) {
        let at = self.start + 6;
        if let Some(flags) = u16_at(&self.bytes, at) {
            self.bytes[at..at + 2].copy_from_slice(&(flags | ACK).to_ne_bytes());
            self.answered = Some(self.next.wrapping_sub(1));
        }
    }

    /// Number of the first message.
    pub(crate) fn first(&self) -> u32 {
        self.first
    }

    /// Number of the last message.
    pub(crate) fn last(&self) -> u32 {
        self.next.wrapping_sub(1)
    }

    /// Number of the message whose answer ends the exchange.
    pub(crate) fn answered(&self) -> u32 {
        self.answered.unwrap_or(self.last())
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Zeroes up to the next multiple of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// A message as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// Who asked for the change that is told; zero: the kernel itself.
    pub(crate) port: u32,
    /// Fixed part and attributes.
    pub(crate) body: &'a [u8],
}

/// The messages of one datagram. What is cut off or lies about its length ends the walk.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        if length < HEADER || length > bytes.len() {
            return None;
        }
        let message = Message {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: u32_at(bytes, 8)?,
            port: u32_at(bytes, 12)?,
            body: &bytes[HEADER..length],
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes after a fixed part of `fixed` bytes: number and value.
pub(crate) fn attributes(body: &[u8], fixed: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(fixed.next_multiple_of(4)..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        if length < 4 || length > rest.len() {
            return None;
        }
        let attribute = (u16_at(rest, 2)? & KIND_MASK, &rest[4..length]);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(attribute)
    })
}

/// The first attribute of this number in a nest.
pub(crate) fn find(nest: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(nest, 0).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A string without its final zero.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// Two bytes in the machine's order.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Four bytes in the machine's order.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Four bytes in network order.
pub(crate) fn be32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{Writer, attributes, be32_at, find, messages, text, u16_at, u32_at};

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::new(7);
        writer.message(16, 0, &[1, 2, 3, 4], |w| {
            w.put_str(3, "eth0");
            w.nest(18, |w| w.put_u32(1, 9));
        });
        writer.message(17, 0, &[], |_| ());
        let found: Vec<_> = messages(writer.bytes()).collect();
        assert_eq!((found.len(), found[0].sequence, found[1].sequence, writer.last()), (2, 7, 8, 8));
        let read: Vec<_> = attributes(found[0].body, 4).collect();
        assert_eq!(text(read[0].1), "eth0");
        assert_eq!(find(read[1].1, 1), Some(&9u32.to_ne_bytes()[..]));
    }

    #[test]
    fn garbage_ends_the_walk_without_a_panic() {
        let mut writer = Writer::new(1);
        writer.message(16, 0, &[0; 4], |w| w.nest(1, |w| w.put(2, b"abc")));
        let whole = writer.bytes().to_vec();
        for cut in 0..whole.len() {
            assert_eq!(messages(&whole[..cut]).count(), 0);
        }
        for at in 0..whole.len() {
            for value in [0, 1, 3, 0x7f, 0xff] {
                let mut bad = whole.clone();
                bad[at] = value;
                for message in messages(&bad) {
                    for (_, value) in attributes(message.body, 4) {
                        attributes(value, 0).for_each(drop);
                    }
                }
            }
        }
    }

    #[test]
    fn fuzz_replies() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "reply", |bytes| {
            for message in messages(bytes) {
                for (_, value) in attributes(message.body, 12) {
                    let _ = (text(value), find(value, 1), u16_at(value, 0), u32_at(value, 0), be32_at(value, 0));
                }
            }
        });
    }
}
