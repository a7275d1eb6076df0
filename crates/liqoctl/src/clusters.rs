//! From connection flags to a cluster: the flags of kubectl, with kubectl's meaning.
//!
//! Keeps true: Helm and we use exactly the same connection, because Helm is given the kubeconfig that
//! comes out of these flags.

mod remote;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use kube::{
    Client, Config,
    config::{
        AuthInfo, Cluster as ClusterEntry, Context as ContextEntry, KubeConfigOptions, Kubeconfig, NamedAuthInfo,
        NamedCluster, NamedContext,
    },
};
use liqo_api::names;
use liqo_kube::Cluster;

use crate::flag;

pub(crate) use remote::RemoteArgs;

/// Under which name we write.
const WRITER: &str = "liqoctl";
/// A webhook of ours that was just installed, or is being restarted, answers well within this.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where help shows what every command takes.
pub(crate) const GLOBAL: &str = "Global options";

/// Which cluster, and as whom.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = GLOBAL)]
pub(crate) struct ConnectionArgs {
    /// Path to the kubeconfig file to use
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The name of the kubeconfig context to use
    #[arg(long, global = true, value_name = "NAME", add = clap_complete::ArgValueCompleter::new(crate::completion::contexts))]
    context: Option<String>,
    /// The name of the kubeconfig user to use
    #[arg(long, global = true, value_name = "NAME", add = clap_complete::ArgValueCompleter::new(crate::completion::users))]
    user: Option<String>,
    /// The name of the kubeconfig cluster to use
    #[arg(long, global = true, value_name = "NAME", add = clap_complete::ArgValueCompleter::new(crate::completion::clusters))]
    cluster: Option<String>,
    #[command(flatten)]
    hidden: HiddenArgs,
}

/// The flags of kubectl that few people type.
#[derive(Clone, Debug, Default, clap::Args)]
struct HiddenArgs {
    /// Username to impersonate
    #[arg(long = "as", global = true, hide = true)]
    impersonate: Option<String>,
    /// Group to impersonate, may be repeated
    #[arg(long = "as-group", global = true, hide = true)]
    impersonate_groups: Vec<String>,
    /// UID to impersonate
    #[arg(long = "as-uid", global = true, hide = true)]
    impersonate_uid: Option<String>,
    /// Accepted for compatibility: nothing is cached
    #[arg(long, global = true, hide = true)]
    cache_dir: Option<PathBuf>,
    /// Certificate authority of the API server
    #[arg(long, global = true, hide = true)]
    certificate_authority: Option<String>,
    /// Client certificate file
    #[arg(long, global = true, hide = true)]
    client_certificate: Option<String>,
    /// Client key file
    #[arg(long, global = true, hide = true)]
    client_key: Option<String>,
    /// Accepted for compatibility: answers are never compressed
    #[arg(long, global = true, hide = true)]
    disable_compression: bool,
    /// Do not verify the API server's certificate
    #[arg(long, global = true, hide = true)]
    insecure_skip_tls_verify: bool,
    /// Time to wait for one answer; 0 leaves it to us
    #[arg(long, global = true, hide = true, value_parser = flag::duration, default_value = "0")]
    request_timeout: Duration,
    /// URL of the API server
    #[arg(short = 's', long, global = true, hide = true)]
    server: Option<String>,
    /// Name in the API server's certificate
    #[arg(long, global = true, hide = true)]
    tls_server_name: Option<String>,
    /// Bearer token
    #[arg(long, global = true, hide = true)]
    token: Option<String>,
}

/// Where Liqo lives in the cluster.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct NamespaceArgs {
    /// The namespace where Liqo is installed in
    #[arg(short, long, default_value = names::LIQO_NAMESPACE, value_name = "NAME", add = clap_complete::ArgValueCompleter::new(crate::completion::namespaces))]
    pub(crate) namespace: String,
}

/// A cluster we are connected to.
pub(crate) struct Connection {
    pub(crate) cluster: Cluster,
    /// URL of its API server.
    pub(crate) api_server: String,
    /// What leads there, for Helm; `None` inside a pod.
    pub(crate) kubeconfig: Option<Kubeconfig>,
}

impl ConnectionArgs {
    /// Prepares the connection; nothing is sent yet.
    pub(crate) async fn open(&self) -> anyhow::Result<Connection> {
        let kubeconfig = self.resolve()?;
        let mut config = match &kubeconfig {
            Some(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig.clone(), &KubeConfigOptions::default())
                .await
                .context("using the kubeconfig")?,
            None => {
                Config::incluster().context("there is no kubeconfig (--kubeconfig, KUBECONFIG or ~/.kube/config)")?
            }
        };
        config.connect_timeout = Some(Duration::from_secs(10));
        if !self.hidden.request_timeout.is_zero() {
            config.read_timeout = Some(self.hidden.request_timeout);
        }
        let api_server = config.cluster_url.to_string();
        let client = Client::try_from(config).context("preparing the client")?;
        Ok(Connection { cluster: Cluster::new(client, WRITER).patient(PATIENCE), api_server, kubeconfig })
    }

    /// The kubeconfig files as they are, for completion.
    pub(crate) fn read(&self) -> anyhow::Result<Option<Kubeconfig>> {
        match &self.kubeconfig {
            Some(path) => Ok(Some(Kubeconfig::read_from(path).with_context(|| format!("reading {}", path.display()))?)),
            None if Kubeconfig::from_env().context("reading the files named by KUBECONFIG")?.is_some() => {
                Ok(Some(Kubeconfig::read()?))
            }
            None => {
                let default = std::env::home_dir().map(|home| home.join(".kube/config"));
                let default = default.filter(|path| path.is_file());
                default.map(Kubeconfig::read_from).transpose().context("reading ~/.kube/config")
            }
        }
    }

    /// A kubeconfig with one context: what the files say, overridden by the flags.
    fn resolve(&self) -> anyhow::Result<Option<Kubeconfig>> {
        let Some(files) = self.read()? else {
            return Ok(self
                .hidden
                .server
                .is_some()
                .then(|| self.overridden(ClusterEntry::default(), AuthInfo::default(), None)));
        };
        let name = self.context.as_ref().or(files.current_context.as_ref()).filter(|name| !name.is_empty());
        let context = match name {
            Some(name) => match files.contexts.iter().find(|one| one.name == *name) {
                Some(found) => found.context.clone().unwrap_or_default(),
                None => bail!("context {name:?} does not exist in the kubeconfig"),
            },
            None => ContextEntry::default(),
        };
        let cluster = self.cluster.clone().unwrap_or(context.cluster);
        let entry = match files.clusters.iter().find(|one| one.name == cluster) {
            Some(found) => found.cluster.clone().unwrap_or_default(),
            None if self.hidden.server.is_some() => ClusterEntry::default(),
            None if cluster.is_empty() => bail!("the kubeconfig has no current context: choose one with --context"),
            None => bail!("cluster {cluster:?} does not exist in the kubeconfig"),
        };
        let user = self.user.clone().or(context.user).unwrap_or_default();
        let auth = match files.auth_infos.iter().find(|one| one.name == user) {
            Some(found) => found.auth_info.clone().unwrap_or_default(),
            None if user.is_empty() => AuthInfo::default(),
            None => bail!("user {user:?} does not exist in the kubeconfig"),
        };
        Ok(Some(self.overridden(entry, auth, context.namespace)))
    }

    fn overridden(&self, mut cluster: ClusterEntry, mut auth: AuthInfo, namespace: Option<String>) -> Kubeconfig {
        let HiddenArgs {
            impersonate,
            impersonate_groups,
            impersonate_uid,
            cache_dir: _,
            certificate_authority,
            client_certificate,
            client_key,
            disable_compression: _,
            insecure_skip_tls_verify,
            request_timeout: _,
            server,
            tls_server_name,
            token,
        } = self.hidden.clone();
        cluster.server = server.or(cluster.server);
        cluster.tls_server_name = tls_server_name.or(cluster.tls_server_name);
        if certificate_authority.is_some() {
            (cluster.certificate_authority, cluster.certificate_authority_data) = (certificate_authority, None);
        }
        if insecure_skip_tls_verify {
            cluster.insecure_skip_tls_verify = Some(true);
            (cluster.certificate_authority, cluster.certificate_authority_data) = (None, None);
        }
        if client_certificate.is_some() {
            (auth.client_certificate, auth.client_certificate_data) = (client_certificate, None);
        }
        if client_key.is_some() {
            (auth.client_key, auth.client_key_data) = (client_key, None);
        }
        if let Some(token) = token {
            auth = AuthInfo { token: Some(token.into()), ..AuthInfo::default() };
        }
        auth.impersonate = impersonate.or(auth.impersonate);
        auth.impersonate_uid = impersonate_uid.or(auth.impersonate_uid);
        if !impersonate_groups.is_empty() {
            auth.impersonate_groups = Some(impersonate_groups);
        }
        let name = WRITER.to_owned();
        let context =
            ContextEntry { cluster: name.clone(), user: Some(name.clone()), namespace, ..ContextEntry::default() };
        Kubeconfig {
            api_version: Some("v1".to_owned()),
            kind: Some("Config".to_owned()),
            clusters: vec![NamedCluster { name: name.clone(), cluster: Some(cluster), ..NamedCluster::default() }],
            auth_infos: vec![NamedAuthInfo { name: name.clone(), auth_info: Some(auth), ..NamedAuthInfo::default() }],
            contexts: vec![NamedContext { name: name.clone(), context: Some(context), ..NamedContext::default() }],
            current_context: Some(name),
            ..Kubeconfig::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        let text = "apiVersion: v1\nkind: Config\ncurrent-context: rome\n\
            clusters:\n- {name: rome, cluster: {server: 'https://rome:6443'}}\n- {name: milan, cluster: {server: 'https://milan:6443'}}\n\
            contexts:\n- {name: rome, context: {cluster: rome, user: me}}\n- {name: milan, context: {cluster: milan, user: me}}\n\
            users:\n- {name: me, user: {token: secret}}\n- {name: you, user: {token: other}}\n";
        std::fs::write(&path, text).unwrap();
        (directory, path)
    }

    fn server(args: &ConnectionArgs) -> String {
        args.resolve().unwrap().unwrap().clusters[0].cluster.as_ref().unwrap().server.clone().unwrap()
    }

    #[test]
    fn flags_win_over_files() {
        let (_kept, path) = files();
        let args = ConnectionArgs { kubeconfig: Some(path), ..ConnectionArgs::default() };
        assert_eq!(server(&args), "https://rome:6443");
        assert_eq!(server(&ConnectionArgs { context: Some("milan".into()), ..args.clone() }), "https://milan:6443");
        assert_eq!(server(&ConnectionArgs { cluster: Some("milan".into()), ..args.clone() }), "https://milan:6443");
        let hidden = HiddenArgs { server: Some("https://other".into()), ..HiddenArgs::default() };
        assert_eq!(server(&ConnectionArgs { hidden, ..args.clone() }), "https://other");
        let error = ConnectionArgs { context: Some("paris".into()), ..args }.resolve().unwrap_err();
        assert_eq!(error.to_string(), "context \"paris\" does not exist in the kubeconfig");
    }
}
