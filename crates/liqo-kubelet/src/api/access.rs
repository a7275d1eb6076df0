//! Whether who asks may do it with the node, as kubelets decide: the own API server says who it is and what is allowed.

use http::{HeaderMap, StatusCode};
use liqo_kube::{
    Cluster, KubeError,
    access::{Act, Callers, Reviews, bearer},
    server::Peer,
    tokens::Unreviewed,
};

use super::Refusal;

/// Asks the own API server, and remembers for a while.
pub(super) struct Access {
    node: String,
    callers: Callers,
    reviews: Reviews,
}

impl Access {
    pub(super) fn new(home: Cluster, node: String) -> Self {
        Self { node, callers: Callers::new(home.clone()), reviews: Reviews::new(home) }
    }

    /// Whether the sender of a request may do `verb` with a subresource of the node.
    pub(super) async fn check(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
        (verb, subresource): (&'static str, &'static str),
    ) -> Result<(), Refusal> {
        let user = self.callers.identify(peer, bearer(headers)).await.map_err(|error| match error {
            Unreviewed::TooMany(_) => Refusal::new(StatusCode::TOO_MANY_REQUESTS, error.to_string()),
            Unreviewed::Kube(error) => unanswered(&error),
        })?;
        let Some(user) = user else {
            return Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                "Unauthorized: show a client certificate of the cluster or a bearer token",
            ));
        };
        let act = Act { verb, resource: "nodes", subresource, name: self.node.clone(), ..Act::default() };
        if self.reviews.allows(&user, &act).await.map_err(|error| unanswered(&error))? {
            return Ok(());
        }
        let text = format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource={subresource}, name={})",
            user.name, self.node
        );
        Err(Refusal::new(StatusCode::FORBIDDEN, text))
    }
}

fn unanswered(error: &KubeError) -> Refusal {
    tracing::warn!(error = error as &dyn std::error::Error, "nobody can say who may use the kubelet API");
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the API server did not say whether this is allowed, try again")
}
