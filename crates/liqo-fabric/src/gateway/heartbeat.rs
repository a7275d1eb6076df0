//! Heartbeats between the gateways of one cluster: a random number, with a proof that the sender has the WireGuard key of
//! the cluster.
//!
//! Keeps true: only a gateway can answer, only for the address at which it was asked, and only the current question:
//! numbers never repeat, and a question that no gateway sealed gets no answer. While the key changes, questions are
//! sealed in turn with the old and the new key, so that a gateway that has the new key and one that has not can each read
//! every other question.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    time::{Duration, Instant},
};

use liqo_tunnel::PrivateKey;
use ring::hmac;

/// Bytes of a question, and of an answer: a number and a proof.
pub(crate) const LENGTH: usize = NUMBER + PROOF;
const NUMBER: usize = 8;
const PROOF: usize = 32;
/// Context of the key derivation: the derived key serves the heartbeat only.
const PURPOSE: &[u8] = b"liqo gateway heartbeat";
/// For so long all gateways may take to hear of a new key.
const OVERLAP: Duration = Duration::from_secs(60);

/// A question or an answer.
pub(crate) type Message = [u8; LENGTH];

#[derive(Clone, Copy)]
enum Kind {
    Question,
    Answer,
}

/// What proofs are made with: of the current key, and of the one before for a while. None as long as no key is known.
#[derive(Clone, Default)]
pub(crate) struct Secrets {
    key: Option<PrivateKey>,
    current: Option<hmac::Key>,
    former: Option<(hmac::Key, Instant)>,
}

impl Secrets {
    /// Takes over the cluster's WireGuard key; `true` when the key has changed.
    pub(crate) fn follow(&mut self, key: &PrivateKey, now: Instant) -> bool {
        let differs = self.key.as_ref() != Some(key);
        if differs {
            self.former = self.current.take().map(|former| (former, now));
            self.current = Some(secret(key));
            self.key = Some(key.clone());
        }
        differs
    }

    fn all(&self, now: Instant) -> Vec<&hmac::Key> {
        let former = self.former.as_ref().filter(|(_, since)| now.duration_since(*since) < OVERLAP);
        self.current.iter().chain(former.map(|(former, _)| former)).collect()
    }

    /// A question to the gateway at this address.
    pub(crate) fn question(&self, number: u64, gateway: IpAddr, now: Instant) -> Option<Message> {
        let secrets = self.all(now);
        let turn = number.checked_rem(secrets.len() as u64)?;
        Some(seal(secrets.get(usize::try_from(turn).ok()?)?, Kind::Question, number, gateway))
    }

    /// The answer to a question that a gateway asked at `address`, an address of this gateway; `None` for any other datagram.
    pub(crate) fn answer(&self, question: &[u8], me: IpAddr, now: Instant) -> Option<Message> {
        let secrets = self.all(now);
        secrets.into_iter().find_map(|secret| {
            let number = read(secret, Kind::Question, question, me)?;
            Some(seal(secret, Kind::Answer, number, me))
        })
    }

    /// The number in an answer of the gateway at this address.
    pub(crate) fn read(&self, answer: &[u8], gateway: IpAddr, now: Instant) -> Option<u64> {
        self.all(now).into_iter().find_map(|secret| read(secret, Kind::Answer, answer, gateway))
    }
}

/// A number to begin with: none that an earlier process has used.
pub(crate) fn beginning() -> u64 {
    RandomState::new().hash_one(PURPOSE)
}

fn secret(key: &PrivateKey) -> hmac::Key {
    let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), PURPOSE);
    hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())
}

/// The authenticated data: the address of the answering gateway, the number, and whether the datagram is a question or an
/// answer.
fn claim(kind: Kind, number: &[u8], gateway: IpAddr) -> Vec<u8> {
    let address = match gateway {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    [&[kind as u8][..], number, &address.octets()].concat()
}

fn seal(secret: &hmac::Key, kind: Kind, number: u64, gateway: IpAddr) -> Message {
    let mut message = [0; LENGTH];
    let (plain, proof) = message.split_at_mut(NUMBER);
    plain.copy_from_slice(&number.to_be_bytes());
    proof.copy_from_slice(hmac::sign(secret, &claim(kind, plain, gateway)).as_ref());
    message
}

fn read(secret: &hmac::Key, kind: Kind, message: &[u8], gateway: IpAddr) -> Option<u64> {
    let (number, proof) = message.split_first_chunk::<NUMBER>()?;
    hmac::verify(secret, &claim(kind, number, gateway), proof).ok()?;
    Some(u64::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn of(keys: &[&PrivateKey]) -> Secrets {
        let mut secrets = Secrets::default();
        keys.iter().for_each(|key| assert!(secrets.follow(key, Instant::now())));
        secrets
    }

    #[test]
    fn only_a_gateway_answers_and_only_for_itself() {
        let now = Instant::now();
        let (key, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let ours = of(&[&key]);
        let question = ours.question(7, A, now).unwrap();
        let answer = ours.answer(&question, A, now).unwrap();
        assert_eq!(ours.read(&answer, A, now), Some(7));
        assert_eq!(ours.read(&question, A, now), None, "a question is no answer");
        assert_eq!(ours.read(&answer, B, now), None, "it is another gateway's");
        assert_eq!(ours.answer(&question, B, now), None, "it is for another gateway");
        assert_eq!(ours.answer(&answer, A, now), None, "an answer is no question");
        assert_eq!(of(&[&other]).answer(&question, A, now), None);
        assert_eq!(of(&[&other]).read(&answer, A, now), None);
        assert_eq!(ours.answer(&7_u64.to_be_bytes(), A, now), None, "a question without a proof");
        assert!(Secrets::default().question(7, A, now).is_none());
    }

    #[test]
    fn while_the_key_changes_every_other_question_is_understood() {
        let now = Instant::now();
        let (old, new) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let (behind, ahead) = (of(&[&old]), of(&[&old, &new]));
        for (asks, answers) in [(&behind, &ahead), (&ahead, &behind)] {
            let heard = (0..4).filter(|number| {
                let question = asks.question(*number, A, now).unwrap();
                let answer = answers.answer(&question, A, now);
                answer.is_some_and(|answer| asks.read(&answer, A, now) == Some(*number))
            });
            assert!(heard.count() >= 2);
        }
        let later = now + OVERLAP + Duration::from_secs(1);
        let stale = behind.question(7, A, later).unwrap();
        assert_eq!(ahead.answer(&stale, A, later), None, "the former key is good for nothing any more");
    }

    proptest! {
        #[test]
        fn fuzz_whatever_comes_is_answered_only_as_it_was_asked(
            number in any::<u64>(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            length in 0_usize..64,
        ) {
            let (now, secrets) = (Instant::now(), of(&[&PrivateKey::from_bytes([7; 32])]));
            let whole = secrets.question(number, A, now).unwrap();
            let mut question = whole.to_vec();
            damage.into_iter().for_each(|(at, byte)| question[at.index(LENGTH)] = byte);
            question.resize(length, 0);
            prop_assert_eq!(secrets.answer(&question, A, now).is_some(), question == whole);
            prop_assert_eq!(secrets.read(&question, A, now), None);
        }
    }

    /// Without the key nobody asks and nobody answers.
    #[test]
    fn fuzz_recorded_heartbeats() {
        let secrets = of(&[&PrivateKey::from_bytes([7; 32])]);
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "heartbeat", |bytes| {
            assert!(secrets.answer(bytes, A, Instant::now()).is_none());
            assert_eq!(secrets.read(bytes, A, Instant::now()), None);
        });
    }
}
