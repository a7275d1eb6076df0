//! The broker, asked over HTTPS with the token that its operator has given this cluster.
//!
//! Keeps true: only the address that the administrator of this cluster wrote is asked, only a server with a certificate of the authority
//! that the administrator gave; redirects are not followed; answers are bounded in size and time.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{Method, StatusCode};
use liqo_api::market::Selection;
use liqo_kube::reach::{Ask, Reach, Trust};
use liqo_market::wire::{Heartbeat, HeartbeatAnswer, Invitation, NewReservation};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// How long the broker may take: it decides about reservations for up to 10 s.
const PATIENCE: Duration = Duration::from_secs(15);
/// Bytes of an answer.
const LONGEST: usize = 4 * 1024 * 1024;
/// Characters of a refusal that are passed on.
const LONGEST_WORDS: usize = 512;

/// The broker.
pub(crate) struct Broker {
    url: String,
    directory: PathBuf,
    namespace: String,
}

/// Why the broker did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum No {
    /// The broker does not answer, or this cluster cannot ask.
    #[error("the broker cannot be asked: {0}")]
    Away(String),
    /// The broker refuses.
    #[error("the broker answers {0}: {1}")]
    Refused(StatusCode, String),
}

impl No {
    /// Whether the broker answered with this code.
    pub(crate) fn is(&self, code: StatusCode) -> bool {
        matches!(self, Self::Refused(found, _) if *found == code)
    }
}

/// What becomes of a wish, as far as the agent reads it.
#[derive(Debug, Deserialize)]
pub(crate) struct Selected {
    pub(crate) selected: Vec<Choice>,
    #[serde(default)]
    pub(crate) rejected: Vec<Rejected>,
}

/// A provider that fits.
#[derive(Debug, Deserialize)]
pub(crate) struct Choice {
    #[serde(rename = "clusterID")]
    pub(crate) cluster_id: String,
}

/// A provider that does not fit.
#[derive(Debug, Deserialize)]
pub(crate) struct Rejected {
    #[serde(rename = "clusterID")]
    pub(crate) cluster_id: String,
    #[serde(default)]
    pub(crate) reasons: Vec<Why>,
}

/// Why not.
#[derive(Debug, Deserialize)]
pub(crate) struct Why {
    pub(crate) criterion: String,
    pub(crate) code: String,
}

/// A provider of the catalogue, as far as the agent reads it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listed {
    #[serde(rename = "clusterID")]
    pub(crate) cluster_id: String,
    #[serde(default)]
    pub(crate) probe: String,
}

/// A reservation, as far as the agent reads it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reserved {
    pub(crate) provider: String,
    pub(crate) phase: String,
    #[serde(default)]
    pub(crate) expires_at: Option<String>,
}

impl Broker {
    /// The broker at this URL.
    ///
    /// # Errors
    /// A text that names the URL.
    pub(crate) fn new(url: String, directory: PathBuf, namespace: String) -> Result<Self, String> {
        liqo_core::endpoint::introduced_url(&url)
            .map_err(|_| format!("--broker-url {url:?} must be https://HOST[:PORT]"))?;
        Ok(Self { url: url.trim_end_matches('/').to_owned(), directory, namespace })
    }

    /// Sends a heartbeat.
    pub(crate) async fn heartbeat(&self, id: &str, beat: &Heartbeat) -> Result<HeartbeatAnswer, No> {
        self.ask(Method::POST, &format!("/api/v1/providers/{id}/heartbeat"), &json!(beat)).await
    }

    /// The first providers that were heard of lately.
    pub(crate) async fn providers(&self) -> Result<Vec<Listed>, No> {
        #[derive(Deserialize)]
        struct Page {
            items: Vec<Listed>,
        }
        let page: Page = self.ask(Method::GET, "/api/v1/providers?fresh=true&limit=500", &Value::Null).await?;
        Ok(page.items)
    }

    /// Which providers fit.
    pub(crate) async fn select(&self, wish: &Selection, measured: &BTreeMap<String, u32>) -> Result<Selected, No> {
        self.ask(Method::POST, "/api/v1/selections", &json!({"selection": wish, "measured": measured})).await
    }

    fn reservations(&self) -> Result<String, No> {
        match self.namespace.as_str() {
            "" => Err(No::Away("--broker-namespace is empty: this cluster reserves nothing".to_owned())),
            namespace => Ok(format!("/api/v1/namespaces/{namespace}/reservations")),
        }
    }

    /// Reserves; a repeated request finds the reservation of the first one.
    pub(crate) async fn reserve(&self, new: &NewReservation) -> Result<Reserved, No> {
        self.ask(Method::POST, &self.reservations()?, &json!(new)).await
    }

    /// How a reservation stands.
    pub(crate) async fn reservation(&self, name: &str) -> Result<Reserved, No> {
        self.ask(Method::GET, &format!("{}/{name}", self.reservations()?), &Value::Null).await
    }

    /// Lets a reservation last so many seconds from now.
    pub(crate) async fn renew(&self, name: &str, seconds: u32) -> Result<Reserved, No> {
        self.ask(Method::POST, &format!("{}/{name}/renew", self.reservations()?), &json!({"ttlSeconds": seconds})).await
    }

    /// Gives the resources back; whether the reservation was there does not matter.
    pub(crate) async fn release(&self, name: &str) -> Result<(), No> {
        let asked = self.send(Method::DELETE, &format!("{}/{name}", self.reservations()?), &Value::Null).await;
        match asked {
            Err(no) if !no.is(StatusCode::NOT_FOUND) => Err(no),
            _ => Ok(()),
        }
    }

    /// How to peer with the provider of a reservation; `None`: the provider has not said it yet.
    pub(crate) async fn invitation(&self, name: &str) -> Result<Option<Invitation>, No> {
        match self.ask(Method::GET, &format!("{}/{name}/invitation", self.reservations()?), &Value::Null).await {
            Err(no) if no.is(StatusCode::NOT_FOUND) => Ok(None),
            asked => asked.map(Some),
        }
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: &Value) -> Result<T, No> {
        let answer = self.send(method, path, body).await?;
        serde_json::from_slice(&answer).map_err(|error| No::Away(format!("its answer cannot be read: {error}")))
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Result<Bytes, No> {
        let (token, authority) = (self.file("token").await?, self.file("ca.crt").await?);
        let token = String::from_utf8(token).map_err(|_| No::Away("the token is no text".to_owned()))?;
        let trust = Trust::Authorities(authority);
        let url = format!("{}{path}", self.url);
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into_bytes().into() };
        let ask = Ask {
            method,
            body,
            bearer: Some(token.trim()),
            patience: PATIENCE,
            longest: LONGEST,
            ..Ask::get(&url, &trust)
        };
        // The administrator of this cluster has written the URL.
        let answer = Reach::anywhere().ask(ask).await.map_err(No::Away)?;
        if answer.status.is_success() { Ok(answer.body) } else { Err(No::Refused(answer.status, words(&answer.body))) }
    }

    /// Read each time, because tokens are replaced.
    async fn file(&self, name: &str) -> Result<Vec<u8>, No> {
        let path = self.directory.join(name);
        tokio::fs::read(&path).await.map_err(|error| No::Away(format!("{}: {error}", path.display())))
    }
}

/// The sentence of a problem document, or the text itself, bounded.
fn words(body: &[u8]) -> String {
    let problem: Option<Value> = serde_json::from_slice(body).ok();
    let detail = problem.and_then(|problem| problem["detail"].as_str().map(str::to_owned));
    let text = detail.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_refusal_are_bounded() {
        assert_eq!(words(br#"{"detail": "no\nroom"}"#), "no room");
        assert_eq!(words(b"plain"), "plain");
        assert_eq!(words(&[b'x'; 9999]).len(), LONGEST_WORDS);
    }

    #[test]
    fn the_broker_is_a_plain_https_url() {
        let broker = |url: &str| Broker::new(url.to_owned(), PathBuf::new(), String::new());
        assert_eq!(broker("https://b.example:8443/").map(|broker| broker.url).unwrap(), "https://b.example:8443");
        for wrong in ["http://b", "https://u@b", "https://b/x?y", ""] {
            assert!(broker(wrong).is_err(), "{wrong}");
        }
    }
}
