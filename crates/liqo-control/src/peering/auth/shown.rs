//! The TLS certificate of the authentication service.
//!
//! Keeps true: while the Secret exists, the service shows a certificate of the key in the Secret, so tokens may carry the
//! pin of that key; before a certificate expires, a new certificate of the same key replaces it. Deleting the Secret
//! changes the key, and the pin in later tokens. When the certificate comes from files, the Secret does not exist.
//!
//! Watches   `Secret` `liqo-auth-certificate`.
//! Writes    the same.
//! Removes   the same, when the certificate comes from files or is not to be pinned.

use std::{path::PathBuf, sync::Arc, time::Duration};

use k8s_openapi::{ByteString, api::core::v1::Secret, jiff::Timestamp};
use kube::api::ObjectMeta;
use liqo_api::names;
use liqo_kube::{
    KubeError, Queue,
    certs::{self, CertError, KeyKind, Pair, Shown, Subject},
    drive,
    life::Life,
    now,
};

use super::AuthArgs;
use crate::home::Home;

/// Life of a certificate the service makes for itself.
const OWN_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Nobody sleeps longer: clocks change.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The certificate shown: from the files if they exist, else that of the Secret, made when there is none.
///
/// # Errors
/// When there is no certificate to show.
pub(super) async fn shown(home: &Home, args: &AuthArgs, life: &Life) -> Result<Arc<Shown>, String> {
    let shown = Arc::new(Shown::default());
    let failed = |error: KubeError| format!("settling the certificate of the service: {error}");
    if args.cert_path.exists() {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|error| format!("reading {}: {error}", path.display()))
        };
        let pair = Pair { certificate: read(&args.cert_path)?, key: read(&args.key_path)? };
        shown.show(&pair).map_err(|error| format!("using {}: {error}", args.cert_path.display()))?;
        forget(home).await.map_err(failed)?;
        return Ok(shown);
    }
    if !args.pin_certificate {
        forget(home).await.map_err(failed)?;
        let pair = own(home, None).map_err(|error| format!("making a certificate: {error}"))?;
        shown.show(&pair).map_err(|error| format!("showing a certificate: {error}"))?;
        return Ok(shown);
    }
    let keeper = Keeper { home: home.clone(), shown: Arc::clone(&shown) };
    keeper.settle().await.map_err(failed)?;
    keeper.keep(life);
    Ok(shown)
}

/// No token is to carry a pin.
async fn forget(home: &Home) -> Result<(), KubeError> {
    match home.cluster.get::<Secret>(&home.namespace, names::AUTH_CERTIFICATE_SECRET).await? {
        Some(secret) => home.cluster.remove(&secret).await,
        None => Ok(()),
    }
}

/// A certificate for a key, or for a new one.
fn own(home: &Home, key: Option<&str>) -> Result<Pair, CertError> {
    let (service, namespace) = (names::AUTH_SERVICE, &home.namespace);
    let known = [service.to_owned(), format!("{service}.{namespace}"), format!("{service}.{namespace}.svc")];
    let key = key.map_or_else(|| certs::new_key(KeyKind::P256), |key| Ok(key.to_owned()))?;
    certs::self_signed_by(&key, &Subject::new(service, "liqo.io"), &known, OWN_LIFE)
}

/// What to do about the Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Plan {
    /// Show what it holds.
    Show(Pair, Duration),
    /// A new certificate for its key, or for a new key if it holds none that can be used.
    Make(Option<String>),
}

fn plan(held: Option<&Secret>, now: Timestamp) -> Plan {
    let text = |key: &str| {
        let bytes = &held?.data.as_ref()?.get(key)?.0;
        String::from_utf8(bytes.clone()).ok()
    };
    let Some(key) = text(names::TLS_KEY).filter(|key| certs::sign(key, b"").is_ok()) else { return Plan::Make(None) };
    let pair = text(names::TLS_CERTIFICATE).map(|certificate| Pair { certificate, key: key.clone() });
    let fits = pair.filter(|pair| Shown::default().show(pair).is_ok());
    let facts = fits.as_ref().and_then(|pair| certs::facts(pair.certificate.as_bytes()).ok());
    match (fits, facts.filter(|facts| !certs::due(facts, now))) {
        (Some(pair), Some(_)) => Plan::Show(pair, DAY),
        _ => Plan::Make(Some(key)),
    }
}

struct Keeper {
    home: Home,
    shown: Arc<Shown>,
}

impl Keeper {
    fn keep(self, life: &Life) {
        let queue = Queue::new();
        queue.push(());
        let news = queue.clone();
        let fields = format!("metadata.name={}", names::AUTH_CERTIFICATE_SECRET);
        let store =
            self.home.cluster.watch::<Secret>(&self.home.namespace).fields(&fields).start(move |_| news.push(()));
        life.spawn("auth-certificate", async move {
            let _watched = store;
            drive("auth-certificate", queue, 1, |()| async { self.settle().await.map(Some) }).await;
        });
    }

    /// Shows what is stored; gives when to look again.
    async fn settle(&self) -> Result<Duration, KubeError> {
        let Home { cluster, namespace, .. } = &self.home;
        loop {
            let held = cluster.get::<Secret>(namespace, names::AUTH_CERTIFICATE_SECRET).await?;
            let made = match plan(held.as_ref(), now().0) {
                Plan::Show(pair, again) => {
                    if let Err(error) = self.shown.show(&pair) {
                        tracing::error!(error = %error, "certificate not shown");
                    }
                    return Ok(again);
                }
                Plan::Make(key) => own(&self.home, key.as_deref()).expect("a key that signs makes a certificate"),
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
        assert_eq!(plan(Some(&held), now().0), Plan::Show(pair.clone(), DAY));
        assert_eq!(plan(Some(&held), soon), Plan::Make(Some(pair.key.clone())));
        assert_eq!(plan(None, now().0), Plan::Make(None));
        let other = certs::self_signed(&Subject::new("a", "b"), &[], Duration::from_secs(3600)).unwrap();
        let mixed = secret("liqo", &Pair { certificate: other.certificate, ..pair.clone() });
        assert_eq!(plan(Some(&mixed), now().0), Plan::Make(Some(pair.key)));
        let broken = secret("liqo", &Pair { certificate: String::new(), key: "nonsense".to_owned() });
        assert_eq!(plan(Some(&broken), now().0), Plan::Make(None));
    }
}
