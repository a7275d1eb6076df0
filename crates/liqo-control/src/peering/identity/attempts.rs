//! What was tried to get an identity, remembered by this process only.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use k8s_openapi::api::core::v1::Secret;
use liqo_kube::peer::PeerIdentity;

/// Why there is no (new) identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The peer refused the token we sent.
    Denied(String),
    /// The peer refused us, and we had no token to send.
    DeniedWithoutToken(String),
    /// Anything else.
    Failed(String),
}

/// What has been tried, by peer.
#[derive(Default)]
pub(crate) struct Attempts(Mutex<HashMap<String, Attempt>>);

/// What was tried last with one peer.
#[derive(Clone, Default)]
pub(super) struct Attempt {
    pub(super) failures: u32,
    pub(super) next: Option<Instant>,
    /// Version of the token sent: a new one is tried at once.
    pub(super) token: Option<String>,
    pub(super) failure: Option<Failure>,
    /// The pending Secret; the store may not have shown it yet.
    pub(super) pending: Option<Arc<Secret>>,
    /// When to look next whether a peer that does not answer our request still gives us rights.
    pub(super) look: Option<Instant>,
    /// The peer had ended the rights of a valid identity.
    pub(super) ended: bool,
    /// What was granted; the store may not have shown it yet.
    pub(super) granted: Option<PeerIdentity>,
}

impl Attempts {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<String, Attempt>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn of(&self, peer: &str) -> Attempt {
        self.lock().get(peer).cloned().unwrap_or_default()
    }

    pub(super) fn forget(&self, peer: &str) {
        self.lock().remove(peer);
    }

    /// Nothing is tried with the other peers any more.
    pub(crate) fn retain(&self, wanted: impl Fn(&str) -> bool) {
        self.lock().retain(|peer, _| wanted(peer));
    }
}
