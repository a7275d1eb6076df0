//! Who asks how often: limits for those who ask for names, for strangers, and for peers that are known.
//!
//! Keeps true: strangers use up the limits of strangers only. Behind a Service that hides addresses, all callers of a node look
//! like one source; a peer that proves its key is counted by its ID nevertheless. The memory is bounded.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use liqo_kube::{
    certs::{self, SigningRequest},
    rate::{Limiter, Rate, source},
};

use super::super::wire;

/// Sources, or peers, whose requests are counted, at most.
const COUNTED: usize = 4096;
/// One source asks 60 times at once and then five times a second, all together ten times as often.
const SOURCE: (Rate, Rate) = (Rate::new(60, Duration::from_millis(200)), Rate::new(600, Duration::from_millis(20)));
/// One peer asks for its identity 20 times at once and then once a second, all together ten times as often.
const PEER: (Rate, Rate) = (Rate::new(20, Duration::from_secs(1)), Rate::new(200, Duration::from_millis(100)));

/// Who asks for an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// Somebody.
    Stranger,
    /// A peer that has proved the key of its certificate.
    Peer,
}

/// The limits, and the certificates of peers.
pub(super) struct Callers {
    names: Limiter<IpAddr>,
    strangers: Limiter<IpAddr>,
    peers: Limiter<String>,
    /// By cluster ID, in PEM.
    certificates: RwLock<BTreeMap<String, Vec<String>>>,
}

impl Default for Callers {
    fn default() -> Self {
        let by_source = || Limiter::new(SOURCE.0, SOURCE.1, COUNTED);
        Self {
            names: by_source(),
            strangers: by_source(),
            peers: Limiter::new(PEER.0, PEER.1, COUNTED),
            certificates: RwLock::default(),
        }
    }
}

impl Callers {
    /// The certificates of peers are these.
    pub(super) fn learn(&self, certificates: &[String]) {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for certificate in certificates {
            if let Ok(facts) = certs::facts(certificate.as_bytes()) {
                all.entry(facts.subject.common_name).or_default().push(certificate.clone());
            }
        }
        *self.certificates.write().unwrap_or_else(PoisonError::into_inner) = all;
    }

    /// Counts a question for the name of this cluster.
    ///
    /// # Errors
    /// The time to wait.
    pub(super) fn asks_for_name(&self, address: IpAddr) -> Result<(), Duration> {
        self.names.take(source(address))
    }

    /// Counts a stranger's request for an identity.
    ///
    /// # Errors
    /// The time to wait.
    pub(super) fn is_stranger(&self, address: IpAddr) -> Result<(), Duration> {
        self.strangers.take(source(address))
    }

    /// Counts a known peer's request for an identity.
    ///
    /// # Errors
    /// The time to wait.
    pub(super) fn is_peer(&self, id: &str) -> Result<(), Duration> {
        self.peers.take(id.to_owned())
    }

    /// Whether a peer with this ID is known: only then it is worth looking at a proof.
    pub(super) fn knows(&self, id: &str) -> bool {
        self.certificates.read().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    /// Who asks: a peer, if the request is by the key of the peer's certificate, or that key speaks for the new one.
    pub(super) fn judge(&self, request: &wire::Request, csr: &SigningRequest) -> Caller {
        let all = self.certificates.read().unwrap_or_else(PoisonError::into_inner);
        let mut known = all.get(&request.cluster.cluster_id).into_iter().flatten();
        if known.any(|certificate| proves(certificate, &request.proof, csr)) { Caller::Peer } else { Caller::Stranger }
    }
}

fn proves(certificate: &str, proof: &str, csr: &SigningRequest) -> bool {
    let certificate = certificate.as_bytes();
    let speaks =
        |signature: Vec<u8>| certs::check_signature(certificate, &wire::renewal(csr.der()), &signature).is_ok();
    csr.check_answer(certificate).is_ok() || !proof.is_empty() && STANDARD.decode(proof).is_ok_and(speaks)
}

#[cfg(test)]
mod tests {
    use liqo_api::ClusterIdentity;
    use liqo_kube::certs::{KeyKind, Subject};

    use super::*;

    const ID: &str = "09897b82-7830-483b-b786-9cf90899f809";

    fn request(key: &str, proof: String) -> (wire::Request, SigningRequest) {
        let pem = certs::signing_request(key, &Subject::new(ID, "liqo.io"), &[]).unwrap();
        let request = wire::Request {
            cluster: ClusterIdentity::new(ID, "milan"),
            origin_cluster_token: String::new(),
            destination_cluster_token: String::new(),
            certificate_signing_request: String::new(),
            renews: true,
            proof,
        };
        (request, SigningRequest::read(&pem).unwrap())
    }

    #[test]
    fn a_peer_is_who_has_the_key_of_its_certificate() {
        certs::install_crypto();
        let callers = Callers::default();
        let (key, other) = (certs::new_key(KeyKind::P256).unwrap(), certs::new_key(KeyKind::P256).unwrap());
        let subject = Subject::new(ID, "liqo.io");
        let certificate = certs::self_signed_by(&key, &subject, &[], Duration::from_secs(600)).unwrap().certificate;
        let judge = |(request, csr): (wire::Request, SigningRequest)| callers.judge(&request, &csr);
        assert_eq!(judge(request(&key, String::new())), Caller::Stranger, "nobody is known yet");
        callers.learn(&["nonsense".to_owned(), certificate]);
        assert!(callers.knows(ID) && !callers.knows("another"));
        assert_eq!(judge(request(&key, String::new())), Caller::Peer, "the same key");
        assert_eq!(judge(request(&other, String::new())), Caller::Stranger, "another key");
        let (mut renewed, csr) = request(&other, String::new());
        renewed.proof = wire::proof(&key, &csr.pem()).unwrap();
        assert_eq!(callers.judge(&renewed, &csr), Caller::Peer, "another key, for which the old one speaks");
        renewed.proof = wire::proof(&other, &csr.pem()).unwrap();
        assert_eq!(callers.judge(&renewed, &csr), Caller::Stranger, "another key that speaks for itself");
        callers.learn(&[]);
        assert_eq!(judge(request(&key, String::new())), Caller::Stranger, "a peer that is gone");
    }

    #[test]
    fn strangers_use_up_the_limits_of_strangers_only() {
        let (callers, masquerade) = (Callers::default(), IpAddr::from([10, 0, 0, 1]));
        while callers.is_stranger(masquerade).is_ok() {}
        assert_eq!((callers.is_peer(ID), callers.asks_for_name(masquerade)), (Ok(()), Ok(())));
        while callers.asks_for_name(masquerade).is_ok() {}
        assert_eq!(callers.asks_for_name([10, 0, 0, 2].into()), Ok(()), "another source");
        while callers.is_peer("loud").is_ok() {}
        assert_eq!(callers.is_peer(ID), Ok(()), "another peer");
    }
}
