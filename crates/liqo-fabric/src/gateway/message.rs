//! The messages of the connection check: JSON, as Liqo 0.8.3 sends them, and as long as one likes.
//!
//! The receiver of a `PING` sends it back as `PONG` and changes nothing else: `clusterID` (the ID of the cluster
//! that is pinged) and `timeStamp` come back to who sent them. Ours may be padded with spaces behind the
//! JSON, which 0.8.3 reads over, to learn what sizes the path carries. `echo: true` asks for an answer of the same
//! size, so that one exchange tests both directions; 0.8.3 leaves the field out and answers short.

use serde::{Deserialize, Serialize};

/// IPv4 and UDP headers in front of a message.
pub(crate) const HEADERS: u16 = 28;
/// Longest message read: that of a link with jumbo frames.
pub(crate) const LONGEST: usize = 9216;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// Answer this.
    #[serde(rename = "PING")]
    Ping,
    /// An answer.
    #[serde(rename = "PONG")]
    Pong,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Message {
    /// The cluster that is pinged.
    #[serde(rename = "clusterID")]
    pub(crate) cluster_id: String,
    #[serde(rename = "msgType")]
    pub(crate) kind: Kind,
    /// RFC 3339; tells the pings apart.
    #[serde(rename = "timeStamp")]
    pub(crate) stamp: String,
    /// The answer shall have the size of the question.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) echo: bool,
}

impl Message {
    /// The message as a datagram of at least `size` bytes of IPv4 packet.
    pub(crate) fn encode(&self, size: u16) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("three texts are JSON");
        let wanted = usize::from(size.saturating_sub(HEADERS));
        bytes.resize(bytes.len().max(wanted), b' ');
        bytes
    }

    /// Reads a datagram; whatever is not a message is nothing.
    pub(crate) fn decode(datagram: &[u8]) -> Option<Self> {
        serde_json::from_slice(datagram).ok()
    }

    /// What is sent back: of the same size only if that was asked for, so that nobody is sent more than he sent.
    pub(crate) fn answer(mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        if self.kind != Kind::Ping {
            return None;
        }
        self.kind = Kind::Pong;
        let size = if self.echo { datagram.len() } else { 0 };
        Some(self.encode(u16::try_from(size).ok()?.saturating_add(HEADERS)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::*;

    fn ping(echo: bool) -> Message {
        let stamp = "2026-11-20T23:27:15.123456789Z".to_owned();
        Message { cluster_id: "0d9e8c7b".into(), kind: Kind::Ping, stamp, echo }
    }

    #[test]
    fn a_ping_of_ours_is_one_of_0_8_3() {
        let text = String::from_utf8(ping(false).encode(0)).unwrap();
        assert_eq!(text, r#"{"clusterID":"0d9e8c7b","msgType":"PING","timeStamp":"2026-11-20T23:27:15.123456789Z"}"#);
    }

    #[test]
    fn padding_is_read_over_and_comes_back_when_asked_for() {
        let long = ping(true).encode(1400);
        assert_eq!(long.len(), 1400 - usize::from(HEADERS));
        let read = Message::decode(&long).unwrap();
        assert_eq!(read, ping(true));
        let answer = read.answer(&long).unwrap();
        assert_eq!(answer.len(), long.len());
        assert_eq!(Message::decode(&answer).unwrap().kind, Kind::Pong);
        let plain = ping(false).encode(1400);
        assert!(ping(false).answer(&plain).unwrap().len() < 120);
    }

    proptest! {
        #[test]
        fn fuzz_whatever_comes_is_read_or_is_nothing(bytes in prop::collection::vec(any::<u8>(), 0..LONGEST)) {
            let _ = Message::decode(&bytes);
        }

        #[test]
        fn fuzz_a_damaged_message_is_nothing_or_what_it_says(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(), echo in any::<bool>(), size in 0_u16..2000,
        ) {
            let mut bytes = ping(echo).encode(size);
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(cut.index(bytes.len()) + 1);
            let Some(read) = Message::decode(&bytes) else { return Ok(()) };
            prop_assert_eq!(Message::decode(&read.encode(0)), Some(read.clone()));
            if let Some(answer) = read.clone().answer(&bytes) {
                let longest = if read.echo { bytes.len() } else { 0 };
                // Its own JSON is the least an answer can be, and escapes may make it longer than the question.
                prop_assert_eq!(answer.len(), longest.max(Message { kind: Kind::Pong, ..read }.encode(0).len()));
            }
        }
    }

    #[test]
    fn an_answer_is_not_answered_and_garbage_is_nothing() {
        let pong = Message { kind: Kind::Pong, ..ping(false) };
        assert_eq!(pong.answer(b"x"), None);
        for garbage in [&b""[..], b"{", b"null", b"[]", b"{\"msgType\":\"PING\"}", &[0xff; 2000], &[b'['; 5000]] {
            assert_eq!(Message::decode(garbage), None);
        }
    }

    #[test]
    fn fuzz_recorded_messages() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "ping", |bytes| {
            let Some(read) = Message::decode(bytes) else { return };
            assert_eq!(Message::decode(&read.encode(0)), Some(read.clone()));
            let _ = read.answer(bytes);
        });
    }
}
