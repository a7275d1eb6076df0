//! The certificate that a front shows: the one in a directory, or one of its own.
//!
//! Keeps true: a certificate that is replaced in its directory, or is due for renewal, is replaced in the running process;
//! what cannot be used replaces nothing.

use std::{path::PathBuf, sync::Arc, time::Duration};

use liqo_kube::{
    certs::{self, Pair, Shown, Subject},
    now,
};

/// Names of the files, those of a Secret of the type `kubernetes.io/tls`.
const FILES: (&str, &str) = ("tls.crt", "tls.key");
/// How long a certificate of our own lasts.
const LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Pause between two looks at the directory and the time.
const PAUSE: Duration = Duration::from_secs(60);

/// A certificate and where it comes from.
pub struct Certificate {
    directory: Option<PathBuf>,
    name: &'static str,
    shown: Arc<Shown>,
    last: Pair,
}

impl Certificate {
    /// The certificate in `directory`, or else one that the process makes for `name` and `localhost`.
    ///
    /// # Errors
    /// A text that says which file cannot be used and why.
    pub fn open(directory: Option<PathBuf>, name: &'static str) -> Result<Self, String> {
        let last = match &directory {
            Some(directory) => read(directory)?,
            None => own(name)?,
        };
        let shown = Arc::new(Shown::default());
        shown.show(&last).map_err(|error| error.to_string())?;
        Ok(Self { directory, name, shown, last })
    }

    /// What servers show.
    pub fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.shown)
    }

    /// Keeps the certificate current for as long as the process lives.
    pub async fn follow(mut self) {
        loop {
            tokio::time::sleep(PAUSE).await;
            match self.refresh() {
                Ok(true) => tracing::info!("another certificate is shown from now on"),
                Ok(false) => {}
                Err(error) => tracing::warn!(error, "the certificate stays as it is"),
            }
        }
    }

    /// Looks again; says whether another certificate is shown now.
    fn refresh(&mut self) -> Result<bool, String> {
        let wanted = match &self.directory {
            Some(directory) => read(directory)?,
            None => {
                let facts = certs::facts(self.last.certificate.as_bytes()).map_err(|error| error.to_string())?;
                if !certs::due(&facts, now().0) {
                    return Ok(false);
                }
                own(self.name)?
            }
        };
        if wanted == self.last {
            return Ok(false);
        }
        self.shown.show(&wanted).map_err(|error| error.to_string())?;
        self.last = wanted;
        Ok(true)
    }
}

fn read(directory: &std::path::Path) -> Result<Pair, String> {
    let read = |name: &str| {
        let path = directory.join(name);
        std::fs::read_to_string(&path).map_err(|error| format!("reading {}: {error}", path.display()))
    };
    Ok(Pair { certificate: read(FILES.0)?, key: read(FILES.1)? })
}

fn own(name: &str) -> Result<Pair, String> {
    let subject = Subject { common_name: name.to_owned(), ..Subject::default() };
    certs::self_signed(&subject, &[name.to_owned(), "localhost".to_owned()], LIFE).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_certificate_is_replaced_while_the_process_runs() {
        certs::install_crypto();
        let directory = std::env::temp_dir().join(format!("liqo-front-certificate-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let write = |pair: &Pair| {
            fs::write(directory.join(FILES.0), &pair.certificate).unwrap();
            fs::write(directory.join(FILES.1), &pair.key).unwrap();
        };
        let (first, second) = (own("a").unwrap(), own("b").unwrap());
        write(&first);
        let mut certificate = Certificate::open(Some(directory.clone()), "a").unwrap();
        assert_eq!(certificate.refresh(), Ok(false));
        // Between the writes of its two files.
        fs::write(directory.join(FILES.1), &second.key).unwrap();
        assert!(certificate.refresh().is_err() && certificate.last == first);
        write(&second);
        assert_eq!((certificate.refresh(), certificate.last == second), (Ok(true), true));
        fs::remove_dir_all(&directory).unwrap();
        assert!(certificate.refresh().unwrap_err().contains("tls.crt"));
        let mut own = Certificate::open(None, "a").unwrap();
        assert_eq!(own.refresh(), Ok(false));
        let subject = Subject::default();
        own.last = certs::self_signed(&subject, &[], Duration::from_secs(1)).unwrap();
        assert_eq!(own.refresh(), Ok(true), "a certificate that is due is made anew");
    }
}
