//! Refusals as problem documents (RFC 9457).

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{
    HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde::Serialize;
use std::time::Duration;
use utoipa::ToSchema;

/// Media type of problem documents.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Why a request is not answered as the caller wished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the title is that of the status code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The words of the HTTP status code.
    pub title: String,
    /// The HTTP status code.
    pub status: u16,
    /// What is wrong with this request, one sentence.
    pub detail: String,
    /// What the caller can do, where there is something: a sentence or a command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Seconds after which the caller may try again.
    #[serde(rename = "retryAfter", skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

impl Problem {
    /// A problem with this status code.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Unknown").to_owned();
        let (kind, detail) = ("about:blank".to_owned(), detail.into());
        Self { kind, title, status: status.as_u16(), detail, remedy: None, retry_after: None }
    }

    /// The same with what the caller can do.
    #[must_use]
    pub fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    /// 401: nobody known asks.
    pub fn unknown_caller() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "no client certificate and no valid token was shown")
            .with_remedy("show a token of this cluster: kubectl create token SERVICE-ACCOUNT")
    }

    /// 403: the caller may not do `verb` with the kind.
    pub fn forbidden(user: &str, verb: &str, resource: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, format!("user {user:?} may not {verb} {resource}"))
            .with_remedy(format!("kubectl auth can-i {verb} {resource} --as={user:?}"))
    }

    /// 429: too many requests; the caller may try again after `wait`.
    pub fn too_many(wait: Duration) -> Self {
        let seconds = wait.as_secs().saturating_add(1);
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, format!("too many requests, try again in {seconds} s"));
        Self { retry_after: Some(seconds), ..problem }
    }

    /// 503: the API server does not say who the caller is or what the caller may do. The cause goes to the log.
    pub fn unanswered(cause: &(dyn std::error::Error + 'static)) -> Self {
        tracing::warn!(error = cause, "the API server did not say who may do what");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the API server did not say whether this is allowed, try again")
    }

    /// The status code.
    pub fn code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Sets the headers that belong to the problem, whatever its body looks like.
    pub(crate) fn dress(&self, response: &mut Response) {
        *response.status_mut() = self.code();
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if self.code() == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"liqo\""));
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).expect("a problem is JSON");
        let mut response = Response::new(Body::from(body));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        self.dress(&mut response);
        // The front shows it as a page to who prefers pages.
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_problem_is_a_document_of_the_standard() {
        let value = |problem: Problem| -> Value { serde_json::to_value(problem).unwrap() };
        assert_eq!(
            value(Problem::new(StatusCode::NOT_FOUND, "there is no /x")),
            json!({"type": "about:blank", "title": "Not Found", "status": 404, "detail": "there is no /x"})
        );
        assert_eq!(
            value(Problem::forbidden("ada", "list", "pods"))["remedy"],
            "kubectl auth can-i list pods --as=\"ada\""
        );
        assert_eq!(value(Problem::too_many(Duration::from_millis(1500)))["retryAfter"], 2);
    }

    #[test]
    fn headers_go_with_the_problem() {
        let response = Problem::unknown_caller().into_response();
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(header(CONTENT_TYPE), Some("application/problem+json"));
        assert_eq!(header(WWW_AUTHENTICATE), Some("Bearer realm=\"liqo\""));
        assert_eq!(header(CACHE_CONTROL), Some("no-store"));
        let limited = Problem::too_many(Duration::from_secs(4)).into_response();
        assert_eq!(limited.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()), Some("5"));
    }
}
