//! Sessions of browsers: a token is shown once in a form and stays in this process; the browser gets a random name for it.
//!
//! Keeps true: the token is in no cookie and no answer; a session gives nothing that its token does not give at the time
//! of each request; sessions are bounded in number, for each user and in all, and in time.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{COOKIE, HOST, ORIGIN},
};
use liqo_kube::access::bearer;
use ring::{
    digest::{SHA256, digest},
    rand::{SecureRandom, SystemRandom},
};

use crate::problem::Problem;

/// How long a session lasts. The API server may refuse its token earlier.
pub const LIFE: Duration = Duration::from_secs(3600);
/// Sessions at the same time, and those of one user; the oldest of the user makes room.
const MOST: usize = 1024;
const MOST_OF_ONE: usize = 8;
/// The prefix makes browsers insist on `Secure`, on the path `/` and on this very host.
const NAME: &str = "__Host-liqo";

type Key = [u8; 32];

struct Session {
    user: String,
    token: String,
    began: Instant,
}

/// The sessions of this process.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<Key, Session>>);

impl Sessions {
    /// Begins a session of `user`, who has shown `token`; gives the header `Set-Cookie`.
    ///
    /// # Errors
    /// 503 when there are too many sessions.
    pub fn begin(&self, user: &str, token: &str) -> Result<HeaderValue, Problem> {
        let mut random = [0; 32];
        let failed = |why: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, why);
        SystemRandom::new().fill(&mut random).map_err(|_| failed("the system has no randomness"))?;
        let name = URL_SAFE_NO_PAD.encode(random);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, session| session.began.elapsed() < LIFE);
        let mine: Vec<_> = all.iter().filter(|(_, one)| one.user == user).map(|(key, one)| (one.began, *key)).collect();
        if mine.len() >= MOST_OF_ONE
            && let Some((_, oldest)) = mine.iter().min()
        {
            all.remove(oldest);
        }
        if all.len() >= MOST {
            return Err(failed("there are too many sessions, try again later"));
        }
        let session = Session { user: user.to_owned(), token: token.to_owned(), began: Instant::now() };
        all.insert(key(&name), session);
        Ok(cookie(&name, LIFE))
    }

    /// The token of the session that the headers name.
    pub fn token(&self, headers: &HeaderMap) -> Option<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let session = all.get(&key(name(headers)?))?;
        (session.began.elapsed() < LIFE).then(|| session.token.clone())
    }

    /// Ends the session that the headers name; gives the header `Set-Cookie` that makes the browser forget it.
    pub fn end(&self, headers: &HeaderMap) -> HeaderValue {
        if let Some(name) = name(headers) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key(name));
        }
        cookie("", Duration::ZERO)
    }
}

/// Names are kept as hashes: a lookup tells nothing about other names by its time.
fn key(name: &str) -> Key {
    digest(&SHA256, name.as_bytes()).as_ref().try_into().unwrap_or_default()
}

fn name(headers: &HeaderMap) -> Option<&str> {
    let texts = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, value)| *name == NAME && !value.is_empty()).map(|(_, value)| value)
}

fn cookie(name: &str, life: Duration) -> HeaderValue {
    let text = format!("{NAME}={name}; Path=/; Max-Age={}; Secure; HttpOnly; SameSite=Strict", life.as_secs());
    HeaderValue::from_str(&text).expect("a cookie is a header value")
}

/// Whether a request that changes something may have been made by a page of another site: a browser adds cookies and client
/// certificates by itself, but no bearer token. Programs that are no browsers show none of the headers that tell.
pub fn is_forged(headers: &HeaderMap) -> bool {
    let is_of_browser =
        [COOKIE.as_str(), ORIGIN.as_str(), "sec-fetch-site"].iter().any(|name| headers.contains_key(*name));
    bearer(headers).is_none() && is_of_browser && !is_same_origin(headers)
}

/// Whether a form was sent by a page of ours: browsers say so, and other programs have no form to send.
pub fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match (text("sec-fetch-site"), text(ORIGIN.as_str()), text(HOST.as_str())) {
        (Some(site), ..) => site == "same-origin",
        (None, Some(origin), Some(host)) => origin.strip_prefix("https://") == Some(host),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(cookie: &HeaderValue) -> HeaderMap {
        let pair = cookie.to_str().unwrap().split(';').next().unwrap();
        HeaderMap::from_iter([(COOKIE, format!("a=b; {pair}; c=d").parse().unwrap())])
    }

    #[test]
    fn a_session_is_found_by_its_cookie_until_it_ends() {
        let sessions = Sessions::default();
        let cookie = sessions.begin("ada", "the.token.itself").unwrap();
        let text = cookie.to_str().unwrap();
        assert!(text.ends_with("; Path=/; Max-Age=3600; Secure; HttpOnly; SameSite=Strict"), "{text}");
        assert!(text.starts_with("__Host-liqo=") && !text.contains("token"), "{text}");
        assert_eq!(sessions.token(&back(&cookie)).as_deref(), Some("the.token.itself"));
        assert_eq!(sessions.token(&HeaderMap::new()), None);
        assert!(sessions.end(&back(&cookie)).to_str().unwrap().contains("Max-Age=0;"));
        assert_eq!(sessions.token(&back(&cookie)), None);
    }

    #[test]
    fn one_user_cannot_take_all_sessions() {
        let sessions = Sessions::default();
        let others = sessions.begin("bob", "b").unwrap();
        let first = sessions.begin("ada", "a").unwrap();
        let last = (0..MOST).map(|_| sessions.begin("ada", "a").unwrap()).last().unwrap();
        let is_there = |cookie| sessions.token(&back(cookie)).is_some();
        assert_eq!([is_there(&others), is_there(&first), is_there(&last)], [true, false, true]);
        assert_eq!(sessions.0.lock().unwrap().len(), MOST_OF_ONE + 1);
    }

    #[test]
    fn forms_of_other_sites_are_known() {
        for (pairs, wanted) in [
            (&[("sec-fetch-site", "same-origin")][..], true),
            (&[("sec-fetch-site", "cross-site"), ("origin", "https://a:8443"), ("host", "a:8443")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("origin", "https://a:8443"), ("host", "a:8443")], true),
            (&[("origin", "https://b"), ("host", "a:8443")], false),
            (&[("origin", "null"), ("host", "a:8443")], false),
            (&[("host", "a:8443")], false),
        ] {
            let headers = pairs
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
            assert_eq!(is_same_origin(&headers.collect()), wanted, "{pairs:?}");
        }
        let forged = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
            is_forged(&headers.collect())
        };
        assert!(forged(&[("cookie", "__Host-liqo=x")]) && forged(&[("sec-fetch-site", "cross-site")]));
        assert!(!forged(&[("cookie", "__Host-liqo=x"), ("sec-fetch-site", "same-origin")]));
        assert!(!forged(&[("host", "a")]), "a program with a client certificate");
        assert!(!forged(&[("authorization", "Bearer x"), ("origin", "https://b")]));
    }

    /// Cookies of others are no session; that of a session is found among them.
    #[test]
    fn fuzz_cookie() {
        let sessions = Sessions::default();
        let cookie = sessions.begin("ada", "t").unwrap();
        let pair = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "cookie", |bytes| {
            let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
            let headers = HeaderMap::from_iter([(COOKIE, value)]);
            assert_eq!(sessions.token(&headers), None);
            let Ok(text) = str::from_utf8(bytes) else { return };
            let Ok(both) = HeaderValue::from_str(&format!("{pair}; {text}")) else { return };
            // A value that is no text hides nothing but itself.
            let is_text = both.to_str().is_ok();
            assert_eq!(sessions.token(&HeaderMap::from_iter([(COOKIE, both)])).is_some(), is_text);
        });
    }
}
