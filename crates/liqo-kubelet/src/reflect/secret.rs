//! `Secret` to `Secret`. Tokens of service accounts are not copied: pods get their own, see `token`. A secret that is marked as needed
//! is copied while a pod of this node uses it, see `users`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use liqo_api::meta::{annotation, label};
use liqo_kube::twin::{Forged, Reflect};

use super::{
    twin_meta::{SKIPPED, is_skipped, metadata},
    users::is_on_demand,
};
use crate::link::Link;

/// Type of the secrets Kubernetes once made for service accounts.
const TOKEN_TYPE: &str = "kubernetes.io/service-account-token";

/// Answers whether a pod of this node uses the secret of this name; `None` while that is not known.
type Needed = dyn Fn(&str) -> Option<bool> + Send + Sync;

/// Secrets of one pair of namespaces.
#[derive(Clone)]
pub(super) struct Secrets {
    pub(super) link: Arc<Link>,
    pub(super) needed: Arc<Needed>,
}

/// Why a secret is never reflected, if it is not.
pub(super) fn refusal(here: &Secret) -> Option<&'static str> {
    if is_skipped(here) {
        return Some(SKIPPED);
    }
    (here.type_.as_deref() == Some(TOKEN_TYPE)).then_some("for secrets holding service account tokens")
}

impl Reflect for Secrets {
    const NAME: &'static str = "secret";
    type Here = Secret;
    type There = Secret;
    type Seen = Secret;
    const RECORD: Option<&'static str> = Some(annotation::ORIGINAL_UID);
    const IMMUTABLE: &'static [&'static str] = &["/type"];

    fn forge(&self, here: &Secret, _there: Option<&Secret>) -> Forged<Secret> {
        if let Some(reason) = refusal(here) {
            return Forged::Nothing(Some(reason.to_owned()));
        }
        if is_on_demand(here) {
            match (self.needed)(&here.name_any()) {
                Some(true) => {}
                Some(false) => return Forged::Nothing(None),
                None => return Forged::NotYet,
            }
        }
        Forged::Make(Box::new(Secret {
            metadata: metadata(here, &self.link),
            data: here.data.clone(),
            type_: here.type_.clone(),
            immutable: here.immutable,
            string_data: None,
        }))
    }

    /// Secrets with tokens for pods are ours too, but not the twin of any secret.
    fn ours(&self, there: &Secret) -> bool {
        self.link.made(there) && !there.labels().contains_key(label::SERVICE_ACCOUNT_FOR_POD_NAME)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;

    use super::*;

    fn secrets(needed: Option<bool>) -> Secrets {
        Secrets { link: Arc::new(Link::example()), needed: Arc::new(move |_| needed) }
    }

    #[test]
    fn a_secret_that_is_marked_as_needed_is_there_while_a_pod_uses_it() {
        let mut here = Secret::default();
        here.annotations_mut().insert(annotation::REFLECTION.into(), annotation::REFLECTION_NEEDED.into());
        assert!(matches!(secrets(Some(true)).forge(&here, None), Forged::Make(_)));
        assert_eq!(secrets(Some(false)).forge(&here, None), Forged::Nothing(None));
        assert_eq!(secrets(None).forge(&here, None), Forged::NotYet);
        here.annotations_mut().insert(annotation::SKIP_REFLECTION.into(), String::new());
        assert!(matches!(secrets(Some(true)).forge(&here, None), Forged::Nothing(Some(_))));
    }

    #[test]
    fn tokens_stay_here_and_token_secrets_are_no_twins() {
        let secrets = secrets(Some(false));
        let mut here = Secret {
            data: Some(BTreeMap::from([("key".to_owned(), ByteString(b"value".to_vec()))])),
            type_: Some("Opaque".into()),
            ..Secret::default()
        };
        let Forged::Make(mut twin) = secrets.forge(&here, None) else { panic!("it is reflected") };
        assert_eq!((&twin.data, &twin.type_), (&here.data, &here.type_));
        assert!(secrets.ours(&twin));
        twin.labels_mut().insert(label::SERVICE_ACCOUNT_FOR_POD_NAME.into(), "pod".into());
        assert!(!secrets.ours(&twin));
        here.type_ = Some(TOKEN_TYPE.into());
        assert!(matches!(secrets.forge(&here, None), Forged::Nothing(Some(_))));
    }
}
