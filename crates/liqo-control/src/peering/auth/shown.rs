//! The certificate the authentication service shows: from its files, else what the controller manager says, else one of
//! its own that ends with the process.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use liqo_kube::certs::{Pair, Shown};

use super::{
    super::{issuer::certificate, wire},
    AuthArgs,
};

/// What is shown.
pub(super) struct Showing {
    shown: Arc<Shown>,
    /// Nothing else is shown than what the files said.
    from_files: bool,
    namespace: String,
    /// What the controller manager said last.
    said: Mutex<Option<Option<wire::ShownPair>>>,
}

impl Showing {
    /// Reads the files, if there are any.
    ///
    /// # Errors
    /// A text that names the file that cannot be used.
    pub(super) fn open(args: &AuthArgs) -> Result<Self, String> {
        let (shown, from_files) = (Arc::new(Shown::default()), args.cert_path.exists());
        if from_files {
            let read = |path: &Path| {
                std::fs::read_to_string(path).map_err(|error| format!("reading {}: {error}", path.display()))
            };
            let pair = Pair { certificate: read(&args.cert_path)?, key: read(&args.key_path)? };
            shown.show(&pair).map_err(|error| format!("using {}: {error}", args.cert_path.display()))?;
        }
        Ok(Self { shown, from_files, namespace: args.liqo_namespace.clone(), said: Mutex::default() })
    }

    pub(super) fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.shown)
    }

    /// Shows what the controller manager says; without its word, one of our own.
    ///
    /// # Errors
    /// A text, when there is none that could be shown.
    pub(super) fn show(&self, wanted: Option<&wire::ShownPair>) -> Result<(), String> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if self.from_files || said.as_ref().is_some_and(|said| said.as_ref() == wanted) {
            return Ok(());
        }
        let pair = match wanted {
            Some(wire::ShownPair { certificate, key }) => Pair { certificate: certificate.clone(), key: key.clone() },
            None => {
                certificate::own(&self.namespace, None).map_err(|error| format!("making a certificate: {error}"))?
            }
        };
        self.shown.show(&pair).map_err(|error| format!("showing a certificate: {error}"))?;
        *said = Some(wanted.cloned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use liqo_kube::certs;

    use super::*;

    #[test]
    fn what_is_said_is_shown_and_nonsense_is_not() {
        certs::install_crypto();
        let showing = Showing::open(&AuthArgs::parse_from(["liqo-auth-service", "--cert-path=/nowhere"])).unwrap();
        showing.show(None).unwrap();
        let Pair { certificate, key } = certificate::own("liqo", None).unwrap();
        showing.show(Some(&wire::ShownPair { certificate, key: key.clone() })).unwrap();
        assert!(showing.show(Some(&wire::ShownPair { certificate: String::new(), key })).is_err());
    }
}
