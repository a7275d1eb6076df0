//! Why a call failed, in words and as an answer to questions.

use super::{DEADLINE, LIST_DEADLINE};
use crate::budget::TooMuch;

/// Longest text of an API server that is passed on, in characters.
const LONGEST_TEXT: usize = 8192;

/// What we were doing when the API server said no, or nothing.
#[derive(Debug, thiserror::Error)]
#[error("{verb} {kind} {name}")]
pub struct KubeError {
    verb: &'static str,
    kind: String,
    name: String,
    source: Cause,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Cause {
    #[error("{}", kube_text(.0))]
    Kube(Box<kube::Error>),
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Deadline,
    #[error("the list did not end within {} s", LIST_DEADLINE.as_secs())]
    Endless,
    #[error(transparent)]
    TooMuch(TooMuch),
}

impl Cause {
    pub(super) fn of_json(error: serde_json::Error) -> Self {
        Self::Kube(Box::new(kube::Error::SerdeError(error)))
    }
}

/// The API server's own words where there are any: one line, not too long.
pub(super) fn kube_text(error: &kube::Error) -> String {
    let text = full_text(error);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_TEXT).collect()
}

fn full_text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(cause) = source {
                let cause_text = cause.to_string();
                if !text.contains(&cause_text) {
                    text = format!("{text}: {cause_text}");
                }
                source = cause.source();
            }
            text
        }
    }
}

impl KubeError {
    /// HTTP status code, if the API server answered.
    pub fn code(&self) -> Option<u16> {
        match &self.source {
            Cause::Kube(error) => match error.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            Cause::Deadline | Cause::Endless | Cause::TooMuch(_) => None,
        }
    }

    /// The object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// The object exists already, or has changed meanwhile.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// We may not do that.
    pub fn is_forbidden(&self) -> bool {
        matches!(self.code(), Some(401 | 403))
    }

    /// The test in a JSON patch failed. What is not valid has the same code and says so.
    pub(super) fn is_failed_test(&self) -> bool {
        self.code() == Some(422) && !self.is_invalid()
    }

    /// The API server finds the object, or the change of it, invalid.
    pub fn is_invalid(&self) -> bool {
        self.code() == Some(422) && self.source.to_string().contains("is invalid")
    }

    /// A webhook the API server had to ask did not answer it; nothing was changed.
    pub fn is_webhook_away(&self) -> bool {
        self.code() == Some(500) && self.source.to_string().contains("failed calling webhook")
    }

    /// The API server could not be reached.
    pub fn is_unreachable(&self) -> bool {
        self.code().is_none()
    }
}

pub(super) fn failure(verb: &'static str, kind: &str, name: &str, source: Cause) -> KubeError {
    KubeError { verb, kind: kind.to_owned(), name: name.to_owned(), source }
}
