//! What a kubeconfig may say, as an allow-list.
//!
//! Keeps true: a kubeconfig runs no program, impersonates nobody and sends no password, whoever wrote it. Where files are not
//! allowed, because somebody else wrote it, it reads no file of this process, leads through no proxy and trusts no server blindly.
//! A field that is not on the list is an error that names the field: what is left out in silence would be another identity.

use kube::config::{Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext};
use serde::Serialize;

/// Fields of a cluster and of a user that anybody may write.
const CLUSTER: [&str; 5] =
    ["server", "certificate-authority-data", "tls-server-name", "disable-compression", "extensions"];
const USER: [&str; 4] = ["token", "client-certificate-data", "client-key-data", "extensions"];
/// Fields that count only in a kubeconfig that the administrator of this process wrote.
const OWN_CLUSTER: [&str; 3] = ["certificate-authority", "proxy-url", "insecure-skip-tls-verify"];
const OWN_USER: [&str; 3] = ["tokenFile", "client-certificate", "client-key"];

/// Who wrote a kubeconfig.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// The administrator of this process: the kubeconfig may name files.
    Administrator,
    /// Somebody else, like a user in a Secret: everything is in the kubeconfig itself.
    Other,
}

/// The kubeconfig with its current context only: one cluster, one user.
///
/// # Errors
/// A sentence that names what is missing, or the field that is not allowed.
pub fn allowed(kubeconfig: Kubeconfig, author: Author) -> Result<Kubeconfig, String> {
    let Kubeconfig { current_context, contexts, clusters, auth_infos, .. } = kubeconfig;
    let current = current_context.filter(|name| !name.is_empty()).ok_or("there is no current context")?;
    let missing = |kind: &str, name: &str| format!("there is no {kind} {name:?}");
    let context = contexts.into_iter().find(|one| one.name == current);
    let context = context.and_then(|one| one.context).ok_or_else(|| missing("context", &current))?;
    let cluster = clusters.into_iter().find(|one| one.name == context.cluster);
    let cluster = cluster.and_then(|one| one.cluster).ok_or_else(|| missing("cluster", &context.cluster))?;
    let user = context.user.clone().unwrap_or_default();
    let auth = auth_infos.into_iter().find(|one| one.name == user);
    let auth = auth.and_then(|one| one.auth_info).ok_or_else(|| missing("user", &user))?;
    check(&cluster, "cluster", &CLUSTER, &OWN_CLUSTER, author)?;
    check(&auth, "user", &USER, &OWN_USER, author)?;
    Ok(Kubeconfig {
        clusters: vec![NamedCluster {
            name: context.cluster.clone(),
            cluster: Some(cluster),
            ..NamedCluster::default()
        }],
        auth_infos: vec![NamedAuthInfo { name: user, auth_info: Some(auth), ..NamedAuthInfo::default() }],
        contexts: vec![NamedContext { name: current.clone(), context: Some(context), ..NamedContext::default() }],
        current_context: Some(current),
        ..Kubeconfig::default()
    })
}

fn check(value: &impl Serialize, what: &str, all: &[&str], own: &[&str], author: Author) -> Result<(), String> {
    let value = serde_json::to_value(value).map_err(|error| format!("the {what} cannot be read: {error}"))?;
    let fields = value.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let is_allowed = |name: &str| all.contains(&name) || (author == Author::Administrator && own.contains(&name));
    match fields.map(|(name, _)| name).find(|name| !is_allowed(name)) {
        Some(name) => Err(format!("the field {name:?} of the {what} is not allowed")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(cluster: &str, user: &str, author: Author) -> Result<Kubeconfig, String> {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
             clusters:\n- {{name: c, cluster: {{server: 'https://c:6443', {cluster}}}}}\n- {{name: d, cluster: {{server: 'https://d'}}}}\n\
             contexts:\n- {{name: a, context: {{cluster: c, user: u}}}}\n- {{name: b, context: {{cluster: d, user: v}}}}\n\
             users:\n- {{name: u, user: {{{user}}}}}\n- {{name: v, user: {{exec: {{command: x}}}}}}\n"
        );
        allowed(Kubeconfig::from_yaml(&text).unwrap(), author)
    }

    #[test]
    fn what_is_not_on_the_list_is_refused_by_name() {
        for (cluster, user, administrator, other) in [
            ("", "token: t", None, None),
            ("certificate-authority-data: QQ==", "client-certificate-data: QQ==, client-key-data: QQ==", None, None),
            ("tls-server-name: n, disable-compression: true", "token: t", None, None),
            ("certificate-authority: /ca", "token: t", None, Some("certificate-authority")),
            ("insecure-skip-tls-verify: true", "token: t", None, Some("insecure-skip-tls-verify")),
            ("proxy-url: 'http://p'", "token: t", None, Some("proxy-url")),
            ("", "tokenFile: /etc/passwd", None, Some("tokenFile")),
            ("", "client-certificate: /c, client-key-data: QQ==", None, Some("client-certificate")),
            ("", "client-certificate-data: QQ==, client-key: /k", None, Some("client-key")),
            ("", "exec: {command: aws}", Some("exec"), Some("exec")),
            ("", "auth-provider: {name: gcp, config: {}}", Some("auth-provider"), Some("auth-provider")),
            ("", "token: t, as: root", Some("as"), Some("as")),
            ("", "token: t, as-groups: ['system:masters']", Some("as-groups"), Some("as-groups")),
            ("", "username: u, password: p", Some("password"), Some("password")),
            ("newer: 1", "token: t", Some("newer"), Some("newer")),
        ] {
            for (author, wanted) in [(Author::Administrator, administrator), (Author::Other, other)] {
                let found = read(cluster, user, author).err();
                let named = wanted.map(|name| format!("the field {name:?} of the "));
                let fits = match (&found, &named) {
                    (Some(found), Some(named)) => found.starts_with(named.as_str()),
                    (None, None) => true,
                    _ => false,
                };
                assert!(fits, "{cluster} {user} {author:?}: {found:?}");
            }
        }
    }

    #[test]
    fn only_the_current_context_is_left() {
        let left = read("", "token: t", Author::Other).unwrap();
        assert_eq!((left.clusters.len(), left.auth_infos.len(), left.contexts.len()), (1, 1, 1));
        assert_eq!(left.clusters[0].cluster.as_ref().unwrap().server.as_deref(), Some("https://c:6443"));
        let mut none = read("", "token: t", Author::Other).unwrap();
        none.current_context = None;
        assert_eq!(allowed(none, Author::Other).unwrap_err(), "there is no current context");
        let mut other = read("", "token: t", Author::Other).unwrap();
        other.clusters.clear();
        assert_eq!(allowed(other, Author::Other).unwrap_err(), "there is no cluster \"c\"");
    }
}
