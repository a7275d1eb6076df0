//! Links to results: whoever has one reads one result without a token, until its time.
//!
//! Keeps true: a link opens one result of one job, and never that of a later job of the same name; a link does what the user who
//! asked for it may do at the time of each request; a link is sealed, so that it tells nothing and nobody makes one up.

use std::collections::BTreeMap;

use axum::{
    body::Bytes,
    extract::{Extension, Path, State},
    response::Response,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, Method, StatusCode};
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};
use kube::ResourceExt;
use liqo_api::meta::annotation;
use liqo_front::{json, problem::Problem};
use liqo_kube::{Cluster, KubeError, access::User, now};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};
use serde::{Deserialize, Serialize};

use crate::{
    api::{AppState, Known, What, found, result},
    model::{LinkView, NewLink, ResultView},
};

/// Where links lead.
pub(crate) const PATH: &str = "/links/";
/// Seconds for which a link is good, at most.
const LONGEST: u64 = 24 * 3600;
/// The Secret with the key that seals links, and its one entry. The name is reserved: no worker gets its value.
const SECRET: &str = "liqo-jobs-api-key";
const ENTRY: &str = "key";
const KEY_BYTES: usize = 32;
/// What a sealed text is for, and the version of its form.
const PURPOSE: &[u8] = b"liqo-jobs-api link 1";

/// What a link opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Claim {
    /// UID of the job.
    job: String,
    path: String,
    /// Seconds since 1970.
    expires: u64,
    user: String,
    groups: Vec<String>,
    uid: Option<String>,
    extra: BTreeMap<String, Vec<String>>,
}

/// Why there is no key for links.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoKey {
    #[error("the key of links in Secret {SECRET}: {}", chain(.0))]
    Kube(#[from] KubeError),
    #[error("Secret {SECRET} has no entry {ENTRY:?} of {KEY_BYTES} bytes; delete the Secret, and a new one is made")]
    Unusable,
    #[error("the system has no randomness")]
    NoRandomness,
}

/// An error with its causes.
fn chain(error: &KubeError) -> String {
    let all = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    all.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Makes links and opens them.
pub(crate) struct Links(LessSafeKey);

impl Links {
    /// With the key in the Secret, which is made if there is none, so that links outlive this process. `namespace` is that of the API:
    /// whoever may edit the namespace of the jobs reads the Secrets there, and would make links of everybody.
    ///
    /// # Errors
    /// When there is no key.
    pub(crate) async fn open(cluster: &Cluster, namespace: &str) -> Result<Self, NoKey> {
        loop {
            if let Some(secret) = cluster.get::<Secret>(namespace, SECRET).await? {
                let key = secret.data.unwrap_or_default().remove(ENTRY).ok_or(NoKey::Unusable)?;
                return Self::with(&key.0);
            }
            let mut key = vec![0; KEY_BYTES];
            SystemRandom::new().fill(&mut key).map_err(|_| NoKey::NoRandomness)?;
            match cluster.create(&secret(namespace, key)).await {
                Err(error) if !error.is_conflict() => return Err(error.into()),
                // Read again, also after our own write: what is stored counts.
                _ => {}
            }
        }
    }

    fn with(key: &[u8]) -> Result<Self, NoKey> {
        UnboundKey::new(&CHACHA20_POLY1305, key).map(|key| Self(LessSafeKey::new(key))).map_err(|_| NoKey::Unusable)
    }

    /// The last part of the path of a link.
    fn seal(&self, claim: &Claim) -> Result<String, NoKey> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| NoKey::NoRandomness)?;
        let mut text = serde_json::to_vec(claim).expect("a claim is JSON");
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        let sealed = self.0.seal_in_place_append_tag(nonce_used, Aad::from(PURPOSE), &mut text);
        sealed.map_err(|_| NoKey::Unusable)?;
        Ok(URL_SAFE_NO_PAD.encode([&nonce[..], &text].concat()))
    }

    /// What a link opens at this time, in seconds since 1970; nothing where the link is not ours or its time is over.
    fn read(&self, key: &str, now: u64) -> Option<Claim> {
        let bytes = URL_SAFE_NO_PAD.decode(key).ok()?;
        let (nonce, text) = bytes.split_first_chunk::<NONCE_LEN>()?;
        let mut text = text.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let text = self.0.open_in_place(nonce, Aad::from(PURPOSE), &mut text).ok()?;
        serde_json::from_slice::<Claim>(text).ok().filter(|claim| claim.expires > now)
    }
}

fn secret(namespace: &str, key: Vec<u8>) -> Secret {
    // The key opens results: it leaves this cluster with no offloading.
    let annotations = BTreeMap::from([(annotation::SKIP_REFLECTION.to_owned(), "true".to_owned())]);
    let metadata = ObjectMeta {
        name: Some(SECRET.to_owned()),
        namespace: Some(namespace.to_owned()),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    };
    let data = BTreeMap::from([(ENTRY.to_owned(), ByteString(key))]);
    Secret { metadata, data: Some(data), immutable: Some(true), ..Secret::default() }
}

fn seconds() -> u64 {
    now().0.as_second().try_into().unwrap_or_default()
}

/// Make a link to a result
///
/// Whoever has the link reads the result without a token, with `Range` too, until its time, and as long as the caller may read results.
#[utoipa::path(post, path = "/api/v1/jobs/{name}/links", request_body = NewLink, params(("name" = String, Path, description = "Name of the job")),
    responses((status = 201, body = LinkView), (status = 400, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn make_link(
    State(app): AppState,
    Extension(caller): Known,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    app.may(&caller.user, "get", What::Results, &name).await?;
    let wrong = |why: String| Problem::new(StatusCode::BAD_REQUEST, why);
    let NewLink { path, seconds: life } =
        serde_json::from_slice(&body).map_err(|error| wrong(format!("the body is no link: {error}")))?;
    if !(1..=LONGEST).contains(&life) {
        return Err(wrong(format!("seconds must be a number from 1 to {LONGEST}")));
    }
    let (_, file) = found(&app, &name, &path).await?;
    let expires = seconds().saturating_add(life);
    let User { name: user, groups, uid, extra } = caller.user.clone();
    let job = app.job(&name)?.uid().unwrap_or_default();
    let sealed = app.world.links.seal(&Claim { job, path, expires, user, groups, uid, extra });
    let key = sealed.map_err(|error| Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    let expires_at = i64::try_from(expires).ok().and_then(|at| Timestamp::from_second(at).ok()).unwrap_or_default();
    let link =
        LinkView { url: format!("{PATH}{key}"), expires_at: expires_at.to_string(), result: ResultView::of(&file) };
    let mut response = json::once(&link);
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

/// `/links/{key}`: the result that a link opens.
pub(crate) async fn read_link(
    State(app): AppState,
    Path(key): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let refused = || Problem::new(StatusCode::FORBIDDEN, "the link is not valid, or not any more");
    let Claim { job, path, user, groups, uid, extra, .. } =
        app.world.links.read(&key, seconds()).ok_or_else(refused)?;
    let name = app.world.job_of(&job).ok_or_else(refused)?.name_any();
    let user = User { name: user, groups, uid, extra };
    app.may(&user, "get", What::Results, &name).await.map_err(|problem| match problem.code() {
        // Who reads a link is not told whose it is.
        StatusCode::FORBIDDEN => refused(),
        _ => problem,
    })?;
    result(&app, &name, &path, &method, &headers).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(byte: u8) -> Links {
        Links::with(&[byte; KEY_BYTES]).unwrap()
    }

    fn claim() -> Claim {
        Claim {
            job: "6f1c0b52".to_owned(),
            path: "deep/ü".to_owned(),
            expires: 100,
            user: "ann".to_owned(),
            groups: vec!["g".to_owned()],
            uid: None,
            extra: BTreeMap::new(),
        }
    }

    #[test]
    fn a_link_is_good_until_its_time_and_with_its_key_only() {
        let key = links(1).seal(&claim()).unwrap();
        assert_eq!(links(1).read(&key, 99), Some(claim()));
        assert_eq!(links(1).read(&key, 100), None);
        assert_eq!(links(2).read(&key, 0), None);
        assert!(!key.contains("ann") && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        assert_ne!(links(1).seal(&claim()).unwrap(), key, "no two links are the same");
        for at in 0..key.len() {
            let mut other = key.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            assert_ne!(links(1).read(str::from_utf8(&other).unwrap(), 0).as_ref(), Some(&claim()), "{at}");
        }
        assert!(Links::with(&[1; 31]).is_err());
    }

    #[test]
    fn the_key_stays_here() {
        let secret = secret("ns", vec![1; KEY_BYTES]);
        assert!(secret.name_any().starts_with(liqo_api::jobs::RESERVED_PREFIX));
        assert_eq!(secret.annotations()[annotation::SKIP_REFLECTION], "true");
    }

    /// Nothing that comes from outside is a link.
    #[test]
    fn fuzz_link() {
        let links = links(1);
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "link", |bytes| {
            let Ok(key) = str::from_utf8(bytes) else { return };
            if let Some(claim) = links.read(key, 0) {
                assert!(claim.expires > 0 && bytes.len() > NONCE_LEN);
            }
        });
    }
}
