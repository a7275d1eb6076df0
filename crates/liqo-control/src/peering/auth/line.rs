//! The line to the controller manager.
//!
//! Keeps true: only a server that has a certificate of the webhooks' authority is shown our token or a peer's; not more
//! than [`LINES`] requests wait for an answer at once, and strangers leave some of these to peers. What the controller manager has begun it finishes, also when this
//! process has stopped waiting; the peer asks again and is given what was stored.

use std::path::PathBuf;

use http::{Method, StatusCode};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use liqo_api::names;
use liqo_kube::{
    Cluster, Store,
    reach::{Answer, Ask, Reach, Trust},
};
use tokio::sync::Semaphore;

use super::{
    super::{
        issuer::No,
        limits::{LINE, LINES, LINES_OF_STRANGERS, QUEUE},
        wire,
    },
    AuthArgs,
    callers::Caller,
};

/// Path of what the service must know.
pub(in crate::peering) const FACTS: &str = "/internal/authentication-service";
/// Path of requests for an identity.
pub(in crate::peering) const IDENTITY: &str = "/internal/identity";
/// Port of the controller manager when the flag names none.
const PORT: u16 = 9443;

/// The line.
pub(super) struct Line {
    url: String,
    token: PathBuf,
    configurations: Store<ValidatingWebhookConfiguration>,
    turns: Semaphore,
    of_strangers: Semaphore,
}

impl Line {
    pub(super) fn open(cluster: &Cluster, args: &AuthArgs) -> Self {
        let at = match args.controller_manager.as_str() {
            "" => format!("{}.{}.svc:{PORT}", names::CONTROLLER_MANAGER_SERVICE, args.liqo_namespace),
            given => given.to_owned(),
        };
        let only = format!("metadata.name={}", names::WEBHOOK_CONFIGURATION);
        Self {
            url: format!("https://{at}"),
            token: args.token_path.clone(),
            configurations: cluster.watch::<ValidatingWebhookConfiguration>("").fields(&only).start(|_| {}),
            turns: Semaphore::new(LINES),
            of_strangers: Semaphore::new(LINES_OF_STRANGERS),
        }
    }

    /// Who this cluster is, and what to show.
    ///
    /// # Errors
    /// A text for the log.
    pub(super) async fn facts(&self) -> Result<wire::Facts, String> {
        self.ask(Method::GET, FACTS, Vec::new()).await
    }

    /// What the controller manager says to a request.
    ///
    /// # Errors
    /// Its refusal; 503 when it says nothing.
    pub(super) async fn grant(&self, caller: Caller, request: &wire::Request) -> Result<wire::Answer, No> {
        let body = serde_json::to_vec(request).expect("a request is JSON");
        let turn = async {
            let share = match caller {
                Caller::Stranger => self.of_strangers.acquire().await.ok(),
                Caller::Peer => None,
            };
            (share, self.turns.acquire().await.ok())
        };
        let said = match tokio::time::timeout(QUEUE, turn).await {
            Ok(_turn) => self.ask(Method::POST, IDENTITY, body).await,
            Err(_) => Err(format!("no line was free within {} s", QUEUE.as_secs())),
        };
        said.map_err(|why| {
            tracing::warn!(peer = request.cluster.cluster_id, reason = why, "a request could not be passed on");
            No(StatusCode::SERVICE_UNAVAILABLE, "this cluster cannot grant identities right now; try again".to_owned())
        })
        .and_then(outcome)
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, String> {
        let trust = Trust::Authorities(self.authorities()?);
        let token = std::fs::read_to_string(&self.token)
            .map_err(|error| format!("reading the token {}: {error}", self.token.display()))?;
        let url = format!("{}{path}", self.url);
        let bearer = Some(token.trim());
        let asked = Ask { method, body: body.into(), bearer, patience: LINE, ..Ask::get(&url, &trust) };
        // The administrator of this cluster says where its controller manager is.
        let Answer { status, body } = Reach::anywhere().ask(asked).await?;
        if status != StatusCode::OK {
            return Err(format!("{url} answers {status}"));
        }
        serde_json::from_slice(&body).map_err(|error| format!("the answer of {url} cannot be read: {error}"))
    }

    /// Who issues the certificates of the controller manager: whom the API server believes, too.
    fn authorities(&self) -> Result<Vec<u8>, String> {
        let name = names::WEBHOOK_CONFIGURATION;
        let configuration = self.configurations.get("", name);
        let hooks = configuration.iter().flat_map(|one| one.webhooks.iter().flatten());
        let mut bundles = hooks.filter_map(|hook| hook.client_config.ca_bundle.as_ref());
        let bundle = bundles.find(|bundle| !bundle.0.is_empty());
        bundle
            .map(|bundle| bundle.0.clone())
            .ok_or_else(|| format!("ValidatingWebhookConfiguration {name} has no caBundle yet"))
    }
}

fn outcome(verdict: wire::Verdict) -> Result<wire::Answer, No> {
    match verdict {
        wire::Verdict::Granted(answer) => Ok(answer),
        wire::Verdict::Refused { status, why } => {
            let status = StatusCode::from_u16(status).ok().filter(|status| status.as_u16() >= 400);
            Err(No(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_never_told_as_a_success() {
        for (status, told) in [(401, 401), (403, 403), (503, 503), (202, 500), (0, 500)] {
            let verdict = wire::Verdict::Refused { status, why: "no".to_owned() };
            assert_eq!(outcome(verdict).unwrap_err(), No(StatusCode::from_u16(told).unwrap(), "no".to_owned()));
        }
    }
}
