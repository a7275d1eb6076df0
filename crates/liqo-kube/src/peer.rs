//! How another cluster is reached: what an identity secret holds, and clients made from it.
//!
//! Keeps true: a renewed identity is taken over while its client is in use ([`PeerClient`]). Nothing of the old identity is used
//! for a request that begins afterwards.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret, jiff::Timestamp};
use kube::{
    Client, Config, ResourceExt,
    config::{
        AuthInfo, Cluster as ClusterEntry, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster,
        NamedContext,
    },
};

use crate::{
    certs,
    reach::Reach,
    wire::{self, Switch, Way},
};

/// Our identity on a peer, as a Secret of Liqo 0.8.3 holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// URL of the peer's API server.
    pub api_server_url: String,
    /// Certificate authority of the peer's API server, PEM; system roots when absent.
    pub api_server_ca: Option<String>,
    /// Client certificate, PEM.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: String,
    /// The namespace dedicated to us there.
    pub namespace: String,
    /// HTTP proxy (CONNECT) through which the API server is reached.
    pub proxy_url: Option<String>,
    /// Resource version of the secret: a new one means a new identity.
    pub version: String,
}

/// Key of the private key, PKCS#8 PEM.
pub const PRIVATE_KEY: &str = "private-key";
/// Key of the certificate, PEM.
pub const CERTIFICATE: &str = "certificate";
/// Key of the API server's URL.
pub const API_SERVER_URL: &str = "apiServerUrl";
/// Key of the API server's authority, PEM.
pub const API_SERVER_CA: &str = "apiServerCa";
/// Key of the tenant namespace there.
pub const NAMESPACE: &str = "namespace";
/// Key of the proxy's URL.
pub const PROXY_URL: &str = "proxyURL";

impl PeerIdentity {
    /// Reads an identity secret; `None` while it is not complete.
    pub fn from_secret(secret: &Secret) -> Option<Self> {
        let data = secret.data.as_ref()?;
        Some(Self {
            api_server_url: text(data, API_SERVER_URL)?,
            api_server_ca: text(data, API_SERVER_CA),
            certificate: text(data, CERTIFICATE)?,
            key: text(data, PRIVATE_KEY)?,
            namespace: text(data, NAMESPACE)?,
            proxy_url: text(data, PROXY_URL),
            version: secret.resource_version().unwrap_or_default(),
        })
    }

    /// The best of several identity secrets: the one whose certificate was issued last. Its key is the one that the peer knows;
    /// an older certificate may be valid for longer, when the peer has begun to give shorter ones.
    pub fn best<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Option<Self> {
        secrets.into_iter().filter_map(Self::from_secret).max_by_key(Self::issued)
    }

    /// Begin and end of the certificate's validity; the beginning of time if the certificate cannot be read.
    pub fn issued(&self) -> (Timestamp, Timestamp) {
        certs::facts(self.certificate.as_bytes())
            .map_or((Timestamp::MIN, Timestamp::MIN), |facts| (facts.not_before, facts.not_after))
    }

    /// A client that acts with this identity, whatever becomes of the identity. The peer has chosen the URL, so the URL leads
    /// only where `reach` permits; every answer is bounded.
    ///
    /// # Errors
    /// A text that says what in the identity cannot be used.
    pub async fn client(&self, reach: &Reach) -> Result<Client, String> {
        Ok(Switch::new(self.way(reach).await?).client())
    }

    async fn way(&self, reach: &Reach) -> Result<Way, String> {
        let encode = |pem: &str| {
            use base64::Engine;
            base64::engine::general_purpose::STANDARD.encode(pem)
        };
        let name = "peer".to_owned();
        let cluster = ClusterEntry {
            server: Some(self.api_server_url.clone()),
            certificate_authority_data: self.api_server_ca.as_deref().map(encode),
            ..ClusterEntry::default()
        };
        let auth = AuthInfo {
            client_certificate_data: Some(encode(&self.certificate)),
            client_key_data: Some(encode(&self.key).into()),
            ..AuthInfo::default()
        };
        let context = Context { cluster: name.clone(), user: Some(name.clone()), ..Context::default() };
        let kubeconfig = Kubeconfig {
            clusters: vec![NamedCluster { name: name.clone(), cluster: Some(cluster), ..NamedCluster::default() }],
            auth_infos: vec![NamedAuthInfo { name: name.clone(), auth_info: Some(auth), ..NamedAuthInfo::default() }],
            contexts: vec![NamedContext { name: name.clone(), context: Some(context), ..NamedContext::default() }],
            current_context: Some(name),
            ..Kubeconfig::default()
        };
        let failed = |error: &dyn std::fmt::Display| format!("using the identity on {}: {error}", self.api_server_url);
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let mut config = config.map_err(|error| failed(&error))?;
        // What is said for this peer counts, and no proxy of the environment: it would reach addresses we may not.
        let proxy = self
            .proxy_url
            .as_ref()
            .map(|url| url.parse().map_err(|error| failed(&format!("{PROXY_URL} {url:?} is no URL: {error}"))));
        config.proxy_url = proxy.transpose()?;
        // Whoever asks decides when to ask again, and whether the other cluster still answers.
        config.default_retry = false;
        wire::way(&config, reach.clone()).map_err(|error| failed(&error))
    }

    /// Whether two identities are for the same namespace of the same API server.
    fn is_beside(&self, other: &Self) -> bool {
        let place = |one: &Self| (one.api_server_url.clone(), one.api_server_ca.clone(), one.namespace.clone());
        place(self) == place(other)
    }

    /// Whether two identities differ in nothing but the version of their Secret.
    fn is_as(&self, other: &Self) -> bool {
        Self { version: String::new(), ..self.clone() } == Self { version: String::new(), ..other.clone() }
    }
}

/// A client of a peer's API server that takes renewed identities while it is in use.
///
/// Requests that begin after a renewal act with the new identity. Answers, logs and upgraded connections that have begun go on;
/// watches are resumed with the new identity.
pub struct PeerClient {
    switch: Switch,
    used: PeerIdentity,
    reach: Reach,
}

/// What became of an identity that was given to [`PeerClient::renew`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The client acted with the same identity before.
    Known,
    /// The client acts with the identity from now on.
    Taken,
    /// The identity is for another API server, or another namespace. The client was left as it is, because what was watched at
    /// the one says nothing about the other: watches must begin anew, with another client.
    Elsewhere,
}

impl PeerClient {
    /// Begins with `identity`; the client leads only where `reach` permits.
    ///
    /// # Errors
    /// See [`PeerIdentity::client`].
    pub async fn open(identity: PeerIdentity, reach: &Reach) -> Result<Self, String> {
        Ok(Self { switch: Switch::new(identity.way(reach).await?), used: identity, reach: reach.clone() })
    }

    /// The client; all clients from here act with the same identity.
    pub fn client(&self) -> Client {
        self.switch.client()
    }

    /// The namespace dedicated to us there.
    pub fn namespace(&self) -> &str {
        &self.used.namespace
    }

    /// Acts with `identity` from now on, if it is for the same API server and namespace.
    ///
    /// # Errors
    /// As [`PeerIdentity::client`]; the client acts with the identity before.
    pub async fn renew(&mut self, identity: &PeerIdentity) -> Result<Renewal, String> {
        if self.used.is_as(identity) {
            return Ok(Renewal::Known);
        }
        if !self.used.is_beside(identity) {
            return Ok(Renewal::Elsewhere);
        }
        self.switch.replace(identity.way(&self.reach).await?);
        self.used = identity.clone();
        Ok(Renewal::Taken)
    }
}

fn text(data: &BTreeMap<String, ByteString>, key: &str) -> Option<String> {
    let bytes = &data.get(key)?.0;
    std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests;
