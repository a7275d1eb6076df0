//! Whether a store is fit for results: it takes an object below the prefix, gives the same bytes back and removes the object.

use std::{error::Error, time::Duration};

use object_store::{ObjectStoreExt, PutPayload};

use crate::{Store, store::chain};

/// Object of a probe, among those of Liqo itself, and its bytes.
const PROBE: &str = "probe";
const BYTES: &[u8] = b"liqo";
/// Time limit of a probe.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest code of an error, in bytes.
const LONGEST_CODE: usize = 64;

/// Why a store is not fit, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// There is no connection, or no answer.
    Unreachable,
    /// The store does not know the keys, or not any more.
    CredentialsRefused,
    /// There is no such bucket.
    BucketNotFound,
    /// The keys are good and do not open the prefix for reading, writing and removing.
    AccessDenied,
    /// The bucket is in another region.
    WrongRegion,
    /// It gave other bytes than it took.
    OtherBytes,
    /// Everything else that the store answered.
    Refused,
}

/// Why a store is not fit.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{doing}: {detail}")]
pub struct Unfit {
    /// In one word.
    pub why: Why,
    /// What was tried.
    pub doing: &'static str,
    /// What the store, or the network, said.
    pub detail: String,
}

impl Store {
    /// Writes, reads and removes an object below the prefix.
    ///
    /// # Errors
    /// The first step that failed.
    pub async fn probe(&self) -> Result<(), Unfit> {
        let late = |_| Unfit {
            why: Why::Unreachable,
            doing: "trying the store",
            detail: format!("no end within {} s", PATIENCE.as_secs()),
        };
        tokio::time::timeout(PATIENCE, self.tried()).await.map_err(late)?
    }

    async fn tried(&self) -> Result<(), Unfit> {
        let key = self.own_key(PROBE).map_err(|error| Unfit::caused("naming an object", &error))?;
        let failed = |doing| move |error: object_store::Error| Unfit::caused(doing, &error);
        self.s3.put(&key, PutPayload::from_static(BYTES)).await.map_err(failed("writing an object"))?;
        let got = self.s3.get(&key).await.map_err(failed("reading an object"))?;
        let is_longer = got.meta.size > BYTES.len() as u64;
        if is_longer || got.bytes().await.map_err(failed("reading an object"))? != BYTES {
            let detail = "the store gave other bytes than it took".to_owned();
            return Err(Unfit { why: Why::OtherBytes, doing: "reading an object", detail });
        }
        self.s3.delete(&key).await.map_err(failed("removing an object"))?;
        // Without the right to list the bucket, S3 answers 403 here, and nobody learns that a job has left nothing.
        match self.s3.get(&key).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("looking for an object that is not there")(error)),
            Ok(_) => {
                let detail = "the store still gives an object that was removed".to_owned();
                Err(Unfit { why: Why::OtherBytes, doing: "removing an object", detail })
            }
        }
    }
}

impl Unfit {
    /// What an error means. Errors repeat the words of their causes: people read the last cause.
    pub(crate) fn caused(doing: &'static str, error: &(dyn Error + 'static)) -> Self {
        let (all, mut last) = (chain(error), error);
        while let Some(cause) = last.source() {
            last = cause;
        }
        let unfit = Self::of(doing, all.clone());
        let detail = if code(&all).is_some() { unfit.detail } else { last.to_string() };
        Self { detail, ..unfit }
    }

    /// What the text of an error or of an answer means.
    pub(crate) fn of(doing: &'static str, detail: String) -> Self {
        Self { why: why(&detail), doing, detail: brief(&detail) }
    }
}

/// Errors carry the answer of the store as text, and the code of the error in it.
fn why(detail: &str) -> Why {
    match code(detail) {
        Some("NoSuchBucket") => Why::BucketNotFound,
        Some(
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "InvalidToken"
            | "ExpiredToken"
            | "InvalidClientTokenId"
            | "RequestTimeTooSkewed"
            | "AuthFailure",
        ) => Why::CredentialsRefused,
        Some("AccessDenied" | "AllAccessDisabled") => Why::AccessDenied,
        Some("PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => {
            Why::WrongRegion
        }
        Some(_) => Why::Refused,
        None if detail.contains("HTTP error") || detail.contains("error sending request") => Why::Unreachable,
        None => Why::Refused,
    }
}

/// The code of an error, as S3 and the Security Token Service say it in their answers.
fn code(detail: &str) -> Option<&str> {
    let (_, rest) = detail.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    (code.len() <= LONGEST_CODE && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.'))
        .then_some(code)
}

/// The error for people: the message of the store where there is one.
fn brief(detail: &str) -> String {
    let message = || Some(detail.split_once("<Message>")?.1.split_once("</Message>")?.0);
    match (code(detail), message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => detail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_the_store_says_why() {
        for (detail, wanted, text) in [
            (
                "x: <Error><Code>NoSuchBucket</Code><Message>no bucket</Message></Error>",
                Why::BucketNotFound,
                "NoSuchBucket: no bucket",
            ),
            ("<Code>SignatureDoesNotMatch</Code>", Why::CredentialsRefused, "SignatureDoesNotMatch"),
            ("<Code>AccessDenied</Code>", Why::AccessDenied, "AccessDenied"),
            ("<Code>PermanentRedirect</Code>", Why::WrongRegion, "PermanentRedirect"),
            ("<Code>SlowDown</Code>", Why::Refused, "SlowDown"),
            ("<Code>No such</Code>", Why::Refused, "<Code>No such</Code>"),
            (
                "HTTP error: error sending request: refused",
                Why::Unreachable,
                "HTTP error: error sending request: refused",
            ),
            ("500 with nothing", Why::Refused, "500 with nothing"),
        ] {
            let unfit = Unfit::of("writing an object", detail.to_owned());
            assert_eq!((unfit.why, unfit.detail.as_str()), (wanted, text), "{detail}");
        }
    }
}
