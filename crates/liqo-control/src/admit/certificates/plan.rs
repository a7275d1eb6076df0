//! When which certificate is made.
//!
//! An authority lives ten years, a certificate one; each is renewed after two thirds. A new authority is
//! trusted beside the old one first, then it issues, then the old one is forgotten.

use std::time::Duration;

use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};
use liqo_kube::certs::{self, CertError, Facts, Pair, Subject};

const YEAR: u64 = 365 * 24 * 3600;
/// Life of an authority.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * YEAR);
/// Life of a certificate.
const LEAF_LIFE: Duration = Duration::from_secs(YEAR);
/// How long an authority that issues no more is still trusted, in seconds.
const FAREWELL: i64 = 3600;
/// Key of the authority's private key; only ours have one.
const AUTHORITY_KEY: &str = "ca.key";
const END: &str = "-----END CERTIFICATE-----";

/// What the secret holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Held {
    /// Authorities to trust, PEM, newest first.
    pub bundle: String,
    /// Private key of the newest authority; without it nothing can be issued.
    pub authority_key: Option<String>,
    /// What is shown.
    pub leaf: Pair,
    newest: Facts,
    leaf_facts: Facts,
}

impl Held {
    /// Reads the secret; `None` when something is missing or cannot be read.
    pub(super) fn read(secret: &Secret) -> Option<Self> {
        let text = |key: &str| String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok();
        let certificate = text("tls.crt").or_else(|| text("cert"))?;
        let key = text("tls.key").or_else(|| text("key"))?;
        Self::new(text("ca")?, text(AUTHORITY_KEY), Pair { certificate, key })
    }

    fn new(bundle: String, authority_key: Option<String>, leaf: Pair) -> Option<Self> {
        // A certificate that cannot be shown counts as missing.
        certs::Shown::default().show(&leaf).ok()?;
        let newest = certs::facts(bundle.as_bytes()).ok()?;
        let leaf_facts = certs::facts(leaf.certificate.as_bytes()).ok()?;
        Some(Self { bundle, authority_key, leaf, newest, leaf_facts })
    }

    /// The data of the secret, with the keys that Liqo 0.8.3 uses and the key that renewal needs.
    pub(super) fn data(&self) -> Vec<(&'static str, String)> {
        let Pair { certificate, key } = &self.leaf;
        let mut data = vec![
            ("ca", self.bundle.clone()),
            ("cert", certificate.clone()),
            ("key", key.clone()),
            ("tls.crt", certificate.clone()),
            ("tls.key", key.clone()),
        ];
        data.extend(self.authority_key.clone().map(|key| (AUTHORITY_KEY, key)));
        data
    }

    /// The newest authority.
    fn newest(&self) -> &str {
        self.bundle.split_inclusive(END).next().unwrap_or_default()
    }

    fn is_alone(&self) -> bool {
        self.bundle.matches(END).count() == 1
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Keep,
    /// Make everything.
    Start,
    /// Make a new authority and trust it beside the old one.
    AddAuthority,
    /// Let the newest authority issue a new certificate.
    Issue,
    /// Trust only the newest authority.
    DropOld,
}

/// `trusted`: the API server trusts the whole bundle.
pub(super) fn plan(held: Option<&Held>, trusted: bool, now: Timestamp) -> Step {
    let Some(held) = held else { return Step::Start };
    let can_issue = held.authority_key.is_some();
    let leaf_due = certs::due(&held.leaf_facts, now);
    // The newest authority is the only one that issues.
    let by_newest = held.leaf_facts.not_before >= held.newest.not_before;
    if certs::due(&held.newest, now) || (leaf_due && !can_issue) {
        return Step::AddAuthority;
    }
    if can_issue && (leaf_due || !by_newest) && (trusted || held.is_alone()) {
        return Step::Issue;
    }
    if !held.is_alone() && by_newest && now.as_second() >= held.leaf_facts.not_before.as_second() + FAREWELL {
        return Step::DropOld;
    }
    Step::Keep
}

/// What the secret holds after a step; `None` when it stays as it is.
pub(super) fn act(step: Step, held: Option<&Held>, names: &[String]) -> Result<Option<Held>, CertError> {
    let (bundle, key, leaf) = match (step, held) {
        (Step::Keep, _) => return Ok(None),
        (Step::AddAuthority, Some(held)) => {
            let authority = authority()?;
            let bundle = format!("{}{}\n", authority.certificate, held.newest().trim());
            (bundle, Some(authority.key), held.leaf.clone())
        }
        (Step::Issue, Some(Held { bundle, authority_key: Some(key), .. })) => {
            let by = Pair { certificate: bundle.clone(), key: key.clone() };
            (bundle.clone(), Some(key.clone()), issue(&by, names)?)
        }
        (Step::DropOld, Some(held)) => {
            (format!("{}\n", held.newest().trim()), held.authority_key.clone(), held.leaf.clone())
        }
        _ => {
            let authority = authority()?;
            let leaf = issue(&authority, names)?;
            (authority.certificate, Some(authority.key), leaf)
        }
    };
    Ok(Held::new(bundle, key, leaf))
}

fn authority() -> Result<Pair, CertError> {
    // A name of its own, so that nobody takes one authority for another.
    let name = format!("liqo-webhook-ca-{}", liqo_kube::now().0.as_second());
    certs::authority(&Subject::new(name, "liqo.io"), AUTHORITY_LIFE)
}

fn issue(by: &Pair, names: &[String]) -> Result<Pair, CertError> {
    let name = names.first().cloned().unwrap_or_default();
    certs::issue(by, &Subject::new(name, "liqo.io"), names, LEAF_LIFE)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;

    use super::*;

    fn names() -> Vec<String> {
        vec!["liqo-controller-manager.liqo.svc".to_owned()]
    }

    fn step(step: Step, held: Option<&Held>) -> Held {
        certs::install_crypto();
        act(step, held, &names()).unwrap().expect("something new")
    }

    fn later(days: i64) -> Timestamp {
        Timestamp::from_second(liqo_kube::now().0.as_second() + days * 24 * 3600).unwrap()
    }

    #[test]
    fn what_is_stored_is_read_again() {
        let held = step(Step::Start, None);
        let data: BTreeMap<_, _> =
            held.data().into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))).collect();
        assert_eq!(
            data.keys().map(String::as_str).collect::<Vec<_>>(),
            ["ca", "ca.key", "cert", "key", "tls.crt", "tls.key"]
        );
        let secret = Secret { data: Some(data), ..Secret::default() };
        assert_eq!(Held::read(&secret), Some(held));
        assert_eq!(Held::read(&Secret::default()), None);
    }

    #[test]
    fn a_certificate_is_renewed_in_time() {
        let held = step(Step::Start, None);
        assert_eq!(plan(None, false, later(0)), Step::Start);
        assert_eq!(plan(Some(&held), true, later(0)), Step::Keep);
        assert_eq!(plan(Some(&held), true, later(240)), Step::Keep);
        assert_eq!(plan(Some(&held), true, later(245)), Step::Issue);
        let renewed = step(Step::Issue, Some(&held));
        assert_eq!(renewed.bundle, held.bundle);
        assert_ne!(renewed.leaf, held.leaf);
    }

    #[test]
    fn a_new_authority_is_trusted_before_it_issues() {
        let mut held = step(Step::Start, None);
        assert_eq!(plan(Some(&held), true, later(10 * 250)), Step::AddAuthority);
        // As if it had been made a while ago.
        held.leaf_facts.not_before = later(-100);
        held.newest.not_before = later(-100);
        let leaf = held.leaf_facts.clone();
        let mut both = step(Step::AddAuthority, Some(&held));
        both.leaf_facts = leaf;
        assert_eq!((both.bundle.matches(END).count(), &both.leaf), (2, &held.leaf));
        assert_eq!(plan(Some(&both), false, later(0)), Step::Keep, "nobody trusts the new one yet");
        assert_eq!(plan(Some(&both), true, later(0)), Step::Issue);
        let issued = step(Step::Issue, Some(&both));
        assert_eq!(plan(Some(&issued), true, later(0)), Step::Keep, "others may still show the old one");
        assert_eq!(plan(Some(&issued), true, later(1)), Step::DropOld);
        let alone = step(Step::DropOld, Some(&issued));
        assert_eq!(alone.bundle.matches(END).count(), 1);
        assert!(issued.bundle.starts_with(alone.bundle.trim()));
        assert_eq!(plan(Some(&alone), false, later(1)), Step::Keep);
    }

    #[test]
    fn certificates_of_another_tool_are_used_until_they_are_due() {
        let mut held = step(Step::Start, None);
        held.authority_key = None;
        assert_eq!(plan(Some(&held), true, later(1)), Step::Keep);
        assert_eq!(plan(Some(&held), true, later(300)), Step::AddAuthority);
    }
}
