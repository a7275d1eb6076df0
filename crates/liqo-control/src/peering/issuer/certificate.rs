//! The certificate the authentication service shows, kept by the controller manager.
//!
//! Keeps true: while the Secret exists, its key is the one shown, so tokens may carry the pin of that key; a certificate
//! that ends is replaced by one with the same key. Deleting the Secret changes the key, and with it the tokens to be
//! made from then on. Where somebody else's certificate is shown there is no such Secret.
//!
//! Watches   `Secret` `liqo-auth-certificate`.
//! Writes    the same.
//! Removes   the same, when the key is not to be pinned.

use std::time::Duration;

use k8s_openapi::{ByteString, api::core::v1::Secret, jiff::Timestamp};
use kube::api::ObjectMeta;
use liqo_api::names;
use liqo_kube::{
    KubeError, Queue, Store,
    certs::{self, CertError, KeyKind, Pair, Shown, Subject},
    drive,
    life::Life,
    now,
};

use super::super::wire::ShownPair;
use crate::home::Home;

/// Life of the certificate of the authentication service.
const OWN_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Longest pause between two looks at the certificate, because clocks change.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Keeps the Secret as it is to be: usable, or absent.
pub(super) fn keep(home: &Home, is_pinned: bool, life: &Life) {
    let queue = Queue::new();
    queue.push(());
    let news = queue.clone();
    let store = watch(home, move |_| news.push(()));
    let home = home.clone();
    life.spawn("auth-certificate", async move {
        let _watched = store;
        drive("auth-certificate", queue, 1, |()| async {
            match is_pinned {
                true => settle(&home).await.map(Some),
                false => forget(&home).await.map(|()| None),
            }
        })
        .await;
    });
}

/// Watches the Secret.
pub(super) fn watch(home: &Home, changed: impl Fn(&Secret) + Send + Sync + 'static) -> Store<Secret> {
    let fields = format!("metadata.name={}", names::AUTH_CERTIFICATE_SECRET);
    home.cluster.watch::<Secret>(&home.namespace).fields(&fields).start(changed)
}

/// The certificate to show and its key, `None` before they were made; returns when the watch has listed the Secret.
pub(super) async fn read(home: &Home, secrets: &Store<Secret>) -> Option<ShownPair> {
    secrets.ready().await;
    let held = secrets.get(&home.namespace, names::AUTH_CERTIFICATE_SECRET)?;
    pair(&held).map(|Pair { certificate, key }| ShownPair { certificate, key })
}

/// Deletes the Secret, so that no token carries a pin.
async fn forget(home: &Home) -> Result<(), KubeError> {
    match home.cluster.get::<Secret>(&home.namespace, names::AUTH_CERTIFICATE_SECRET).await? {
        Some(secret) => home.cluster.remove(&secret).await,
        None => Ok(()),
    }
}

/// A certificate of the authentication service for a key in PEM, or for a new one.
///
/// # Errors
/// When the key is none.
pub(in crate::peering) fn own(namespace: &str, key: Option<&str>) -> Result<Pair, CertError> {
    let service = names::AUTH_SERVICE;
    let known = [service.to_owned(), format!("{service}.{namespace}"), format!("{service}.{namespace}.svc")];
    let key = key.map_or_else(|| certs::new_key(KeyKind::P256), |key| Ok(key.to_owned()))?;
    certs::self_signed_by(&key, &Subject::new(service, "liqo.io"), &known, OWN_LIFE)
}

/// What to do about the Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Plan {
    /// The Secret is right; look again after so long.
    Keep(Duration),
    /// A new certificate for its key, or for a new key if it holds none that can be used.
    Make(Option<String>),
}

fn text(held: &Secret, key: &str) -> Option<String> {
    String::from_utf8(held.data.as_ref()?.get(key)?.0.clone()).ok()
}

/// Certificate and key, if they belong together.
fn pair(held: &Secret) -> Option<Pair> {
    let pair = Pair { certificate: text(held, names::TLS_CERTIFICATE)?, key: text(held, names::TLS_KEY)? };
    Shown::default().show(&pair).is_ok().then_some(pair)
}

fn plan(held: Option<&Secret>, now: Timestamp) -> Plan {
    let key = held.and_then(|held| text(held, names::TLS_KEY)).filter(|key| certs::sign(key, b"").is_ok());
    let facts = held.and_then(pair).and_then(|pair| certs::facts(pair.certificate.as_bytes()).ok());
    match facts.filter(|facts| key.is_some() && !certs::due(facts, now)) {
        Some(_) => Plan::Keep(DAY),
        None => Plan::Make(key),
    }
}

/// Makes the Secret what it is to be; gives when to look again.
async fn settle(home: &Home) -> Result<Duration, KubeError> {
    let Home { cluster, namespace, .. } = home;
    loop {
        let held = cluster.get::<Secret>(namespace, names::AUTH_CERTIFICATE_SECRET).await?;
        let made = match plan(held.as_ref(), now().0) {
            Plan::Keep(again) => return Ok(again),
            Plan::Make(key) => own(namespace, key.as_deref()).expect("a key that signs makes a certificate"),
        };
        let mut wanted = secret(namespace, &made);
        let written = match held {
            None => cluster.create(&wanted).await,
            Some(held) => {
                wanted.metadata.resource_version = held.metadata.resource_version;
                cluster.apply(&wanted).await
            }
        };
        match written {
            // Read again, also after our own write: what is stored counts.
            Err(error) if !error.is_conflict() => return Err(error),
            _ => {}
        }
    }
}

fn secret(namespace: &str, pair: &Pair) -> Secret {
    let data = [(names::TLS_CERTIFICATE, &pair.certificate), (names::TLS_KEY, &pair.key)];
    Secret {
        metadata: ObjectMeta {
            name: Some(names::AUTH_CERTIFICATE_SECRET.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(data.map(|(key, text)| (key.to_owned(), ByteString(text.clone().into_bytes()))).into()),
        type_: Some("kubernetes.io/tls".to_owned()),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_stays_when_the_certificate_ends() {
        certs::install_crypto();
        let pair = certs::self_signed(&Subject::new("a", "b"), &[], Duration::from_secs(3600)).unwrap();
        let held = secret("liqo", &pair);
        let soon = now().0 + Duration::from_secs(3000);
        assert_eq!(plan(Some(&held), now().0), Plan::Keep(DAY));
        assert_eq!(plan(Some(&held), soon), Plan::Make(Some(pair.key.clone())));
        assert_eq!(plan(None, now().0), Plan::Make(None));
        let other = certs::self_signed(&Subject::new("a", "b"), &[], Duration::from_secs(3600)).unwrap();
        let mixed = secret("liqo", &Pair { certificate: other.certificate, ..pair.clone() });
        assert_eq!(plan(Some(&mixed), now().0), Plan::Make(Some(pair.key)));
        let broken = secret("liqo", &Pair { certificate: String::new(), key: "nonsense".to_owned() });
        assert_eq!(plan(Some(&broken), now().0), Plan::Make(None));
    }
}
