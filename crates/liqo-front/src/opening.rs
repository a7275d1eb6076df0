//! How a role starts that answers people.
//!
//! Keeps true: the process is ready only when its front listens; the certificate is kept current for as long as the process
//! lives; clients have the time to learn that the process ends.

use std::{path::PathBuf, sync::Arc, time::Duration};

use liqo_kube::{
    Cluster,
    args::RuntimeArgs,
    drain::Patience,
    life::{Busy, Life},
    server::Listen,
};

use crate::{Front, Routes, certificate::Certificate};

/// How long a role that answers people serves on after the signal: people reach it through a Service, whose endpoints change a
/// moment after the signal; answers and downloads under way have `finish` seconds.
pub const fn patience(finish: u64) -> Patience {
    Patience { accept: Duration::from_secs(3), finish: Duration::from_secs(finish) }
}

/// Flags of a role that answers people.
#[derive(Clone, Debug, clap::Args)]
pub struct FrontArgs {
    /// Address of the pages and the API, HTTPS.
    #[arg(long, default_value = ":8443", value_name = "HOST:PORT")]
    pub address: Listen,
    /// Directory with the `tls.crt` and `tls.key` to show; without it the process makes its own certificate.
    #[arg(long, value_name = "DIRECTORY")]
    pub tls_directory: Option<PathBuf>,
}

/// A role that answers people, before its front listens. The process is busy until then.
pub struct Opening {
    /// The own cluster.
    pub home: Cluster,
    life: Life,
    busy: Busy,
    address: Listen,
    certificate: Certificate,
}

impl Opening {
    /// Begins: the connection to the own cluster, in which the role `name` writes under its name, and the certificate.
    ///
    /// # Errors
    /// A text that says which flag or file cannot be used and why.
    pub async fn begin(
        life: &Life,
        runtime: &RuntimeArgs,
        args: FrontArgs,
        name: &'static str,
    ) -> Result<Self, String> {
        let busy = life.busy();
        let home = life.home(runtime, name).await?;
        let certificate = Certificate::open(args.tls_directory, name)?;
        Ok(Self { home, life: life.clone(), busy, address: args.address, certificate })
    }

    /// The front for the users of the own cluster, which has this name and ID.
    pub fn front(&self, cluster: (String, String)) -> Arc<Front> {
        Front::new(self.home.clone(), self.life.drain().clone(), cluster)
    }

    /// Serves from now on.
    pub fn serve(self, front: Arc<Front>, routes: Routes) {
        let Self { life, busy, address, certificate, .. } = self;
        life.spawn("front", front.serve(address, certificate.shown(), busy, routes));
        life.spawn("certificate", certificate.follow());
    }
}
