//! The broker of a market, asked over HTTPS with the token that its operator has given the caller.
//!
//! Keeps true: only the address that the caller was told to use is asked, only a server with a certificate of the authority that came
//! with it; redirects are not followed; answers are bounded in size and time.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{Method, StatusCode};
use liqo_api::market::Selection;
use liqo_kube::reach::{Ask, Reach, Trust};
use liqo_market::wire::{Heartbeat, HeartbeatAnswer, Invitation, NewReservation, Resources};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// How long the broker may take: it decides about reservations for up to 10 s.
const PATIENCE: Duration = Duration::from_secs(15);
/// Bytes of an answer.
const LONGEST: usize = 4 * 1024 * 1024;
/// Characters of a refusal that are passed on.
const LONGEST_WORDS: usize = 512;
/// Pages of one list that are read.
const MOST_PAGES: usize = 64;

/// What the caller shows to the broker, and by what the caller knows the broker.
#[derive(Clone)]
pub enum Access {
    /// Files `token` and `ca.crt` in this directory, read each time, because tokens are replaced.
    Directory(PathBuf),
    /// A token, and the authority of the broker's certificate as PEM.
    Given(String, Vec<u8>),
}

/// The broker.
pub struct Broker {
    url: String,
    access: Access,
    namespace: String,
}

/// Why the broker did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum No {
    /// The broker does not answer, or this cluster cannot ask.
    #[error("the broker cannot be asked: {0}")]
    Away(String),
    /// The broker refuses.
    #[error("the broker answers {0}: {1}")]
    Refused(StatusCode, String),
}

impl No {
    /// Whether the broker answered with this code.
    pub fn is(&self, code: StatusCode) -> bool {
        matches!(self, Self::Refused(found, _) if *found == code)
    }
}

/// What becomes of a wish, as far as the agent reads it.
#[derive(Debug, Deserialize)]
pub struct Selected {
    /// Providers that fit, the best one first.
    pub selected: Vec<Choice>,
    /// The others.
    #[serde(default)]
    pub rejected: Vec<Rejected>,
    /// What is done about the provider that was chosen before.
    #[serde(default)]
    pub current: Option<Verdict>,
}

/// A provider that fits.
#[derive(Debug, Deserialize)]
pub struct Choice {
    /// Cluster ID.
    #[serde(rename = "clusterID")]
    pub cluster_id: String,
}

/// A provider that does not fit.
#[derive(Debug, Deserialize)]
pub struct Rejected {
    /// Cluster ID.
    #[serde(rename = "clusterID")]
    pub cluster_id: String,
    /// Every reason.
    #[serde(default)]
    pub reasons: Vec<Why>,
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Why {
    /// The criterion, as the wish names it.
    pub criterion: String,
    /// One word.
    pub code: String,
}

/// A provider of the catalogue, as far as the agent reads it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// Cluster ID.
    #[serde(rename = "clusterID")]
    pub cluster_id: String,
    /// Where the provider can be measured: HOST:PORT, or empty.
    #[serde(default)]
    pub probe: String,
}

/// What a caller knows when it selects.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Known {
    /// Milliseconds to providers, by cluster ID.
    pub measured: BTreeMap<String, u32>,
    /// Cluster ID of the consumer.
    pub consumer: String,
    /// A provider that was chosen before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<Current>,
    /// Most providers in each list of the answer; left out: as many as the broker likes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// A provider that was chosen before.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Current {
    /// Cluster ID.
    #[serde(rename = "clusterID")]
    pub cluster_id: String,
    /// What it holds for the caller.
    pub held: Resources,
    /// What the last answer said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub better: Option<Better>,
}

/// Another provider is better than the current one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Better {
    /// Cluster ID of the other provider.
    #[serde(rename = "clusterID")]
    pub cluster_id: String,
    /// Since when, in seconds since 1970.
    pub since: i64,
}

/// What is done about the provider that was chosen before.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Verdict {
    /// Keep, Wait, Switch or Nobody.
    pub verdict: String,
    /// The provider that takes its place.
    #[serde(default)]
    pub to: Option<String>,
    /// To be sent with the next question.
    #[serde(default)]
    pub better: Option<Better>,
    /// Why it does not fit any longer.
    #[serde(default)]
    pub reasons: Vec<Why>,
}

/// A reservation, as far as the agent reads it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reserved {
    /// Cluster ID of the provider.
    pub provider: String,
    /// Pending, Granted, Failed or Expired.
    pub phase: String,
    /// Until when, RFC 3339.
    #[serde(default)]
    pub expires_at: Option<String>,
}

impl Broker {
    /// The broker at this URL. Reservations are those of the namespace, which is empty if there is none.
    ///
    /// # Errors
    /// A text that names the URL.
    pub fn new(url: &str, access: Access, namespace: String) -> Result<Self, String> {
        liqo_core::endpoint::introduced_url(url)
            .map_err(|_| format!("the URL of the broker, {url:?}, must be https://HOST[:PORT] (agent.broker.url)"))?;
        Ok(Self { url: url.trim_end_matches('/').to_owned(), access, namespace })
    }

    /// Sends a heartbeat.
    ///
    /// # Errors
    /// The broker is away, or refuses.
    pub async fn heartbeat(&self, id: &str, beat: &Heartbeat) -> Result<HeartbeatAnswer, No> {
        self.ask(Method::POST, &format!("/api/v1/providers/{id}/heartbeat"), &json!(beat)).await
    }

    /// The first providers that were heard of lately.
    ///
    /// # Errors
    /// The broker is away, or refuses.
    pub async fn providers(&self) -> Result<Vec<Listed>, No> {
        #[derive(Deserialize)]
        struct Page {
            items: Vec<Listed>,
        }
        let page: Page = self.ask(Method::GET, "/api/v1/providers?fresh=true&limit=500", &Value::Null).await?;
        Ok(page.items)
    }

    /// Which providers fit.
    ///
    /// # Errors
    /// The broker is away, or refuses.
    pub async fn select<T: DeserializeOwned>(&self, wish: &Selection, known: &Known) -> Result<T, No> {
        let mut body = json!(known);
        body["selection"] = json!(wish);
        self.ask(Method::POST, "/api/v1/selections", &body).await
    }

    /// All providers, as the broker describes them; `filter` is a query.
    ///
    /// # Errors
    /// The broker is away, or refuses.
    pub async fn catalogue(&self, filter: &str) -> Result<Vec<Value>, No> {
        self.all("/api/v1/providers", filter).await
    }

    /// The reservations of the namespace, as the broker describes them.
    ///
    /// # Errors
    /// The broker is away, or refuses.
    pub async fn held(&self) -> Result<Vec<Value>, No> {
        self.all(&self.reservations()?, "").await
    }

    /// Every page of a list.
    async fn all(&self, path: &str, filter: &str) -> Result<Vec<Value>, No> {
        #[derive(Deserialize)]
        struct Page {
            items: Vec<Value>,
            #[serde(default)]
            next: Option<String>,
        }
        let (mut all, mut after) = (Vec::new(), String::new());
        for _ in 0..MOST_PAGES {
            let page: Page = self.ask(Method::GET, &format!("{path}?limit=500{after}{filter}"), &Value::Null).await?;
            all.extend(page.items);
            let Some(next) = page.next else { return Ok(all) };
            after = format!("&after={next}");
        }
        Err(No::Away(format!("its list has more than {MOST_PAGES} pages")))
    }

    fn reservations(&self) -> Result<String, No> {
        match self.namespace.as_str() {
            "" => Err(No::Away(
                "this cluster has no namespace at the broker and reserves nothing: set agent.broker.namespace"
                    .to_owned(),
            )),
            namespace => Ok(format!("/api/v1/namespaces/{namespace}/reservations")),
        }
    }

    /// Reserves; a repeated request finds the reservation of the first one.
    ///
    /// # Errors
    /// The broker is away, or refuses.
    pub async fn reserve(&self, new: &NewReservation) -> Result<Reserved, No> {
        self.ask(Method::POST, &self.reservations()?, &json!(new)).await
    }

    /// How a reservation stands.
    ///
    /// # Errors
    /// The broker is away, or refuses.
    pub async fn reservation(&self, name: &str) -> Result<Reserved, No> {
        self.ask(Method::GET, &format!("{}/{name}", self.reservations()?), &Value::Null).await
    }

    /// Lets a reservation last so many seconds from now.
    ///
    /// # Errors
    /// The broker is away, or refuses.
    pub async fn renew(&self, name: &str, seconds: u32) -> Result<Reserved, No> {
        self.ask(Method::POST, &format!("{}/{name}/renew", self.reservations()?), &json!({"ttlSeconds": seconds})).await
    }

    /// Gives the resources back; whether the reservation was there does not matter.
    ///
    /// # Errors
    /// The broker is away, or refuses.
    pub async fn release(&self, name: &str) -> Result<(), No> {
        let asked = self.send(Method::DELETE, &format!("{}/{name}", self.reservations()?), &Value::Null).await;
        match asked {
            Err(no) if !no.is(StatusCode::NOT_FOUND) => Err(no),
            _ => Ok(()),
        }
    }

    /// How to peer with the provider of a reservation; `None`: the provider has not said it yet.
    ///
    /// # Errors
    /// The broker is away, or refuses.
    pub async fn invitation(&self, name: &str) -> Result<Option<Invitation>, No> {
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
        let (token, authority) = self.shown().await?;
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
        // Whoever administers this cluster, or runs this program, has written the URL.
        let answer = Reach::anywhere().ask(ask).await.map_err(No::Away)?;
        if answer.status.is_success() { Ok(answer.body) } else { Err(No::Refused(answer.status, words(&answer.body))) }
    }

    async fn shown(&self) -> Result<(String, Vec<u8>), No> {
        let directory = match &self.access {
            Access::Given(token, authority) => return Ok((token.clone(), authority.clone())),
            Access::Directory(directory) => directory,
        };
        let file = async |name: &str| {
            let path = directory.join(name);
            tokio::fs::read(&path).await.map_err(|error| No::Away(format!("{}: {error}", path.display())))
        };
        let token = String::from_utf8(file("token").await?);
        Ok((token.map_err(|_| No::Away("the token is no text".to_owned()))?, file("ca.crt").await?))
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
        let broker = |url: &str| Broker::new(url, Access::Directory(PathBuf::new()), String::new());
        assert_eq!(broker("https://b.example:8443/").map(|broker| broker.url).unwrap(), "https://b.example:8443");
        for wrong in ["http://b", "https://u@b", "https://b/x?y", ""] {
            assert!(broker(wrong).is_err(), "{wrong}");
        }
    }
}
