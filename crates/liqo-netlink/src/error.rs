//! One error for the whole door: what was being done, what the kernel said, which errno.

use std::fmt::{self, Display};
use std::io;

/// What this crate's calls return.
pub type Result<T> = std::result::Result<T, Error>;

/// The kernel refused something, or answered what could not be read.
#[derive(Debug)]
pub struct Error {
    doing: String,
    said: Option<String>,
    source: io::Error,
}

impl Error {
    /// `doing` names the act and its object in lower case: "adding route 10.0.0.0/16 dev liqo.host".
    pub(crate) fn new(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { doing: doing.into(), said: None, source: source.into() }
    }

    /// With the kernel's own words (netlink extended acknowledgement).
    pub(crate) fn said(mut self, said: Option<String>) -> Self {
        self.said = said;
        self
    }

    /// Several failures told as one; the first is the source of the errno.
    pub(crate) fn all(mut errors: Vec<Self>) -> Option<Self> {
        let rest = if errors.is_empty() { return None } else { errors.split_off(1) };
        let mut first = errors.pop()?;
        for error in rest {
            first.said = Some(format!("{}; and {error}: {}", first.said.unwrap_or_default(), error.source));
        }
        Some(first)
    }

    /// The kernel's error number, if the failure came from it.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)?;
        match &self.said {
            Some(said) => write!(f, " ({said})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
