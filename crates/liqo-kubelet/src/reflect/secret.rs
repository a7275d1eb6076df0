//! `Secret` to `Secret`. Tokens of service accounts are not copied: pods get their own, see `token`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use liqo_api::meta::{annotation, label};
use liqo_kube::twin::{Forged, Reflect};

use super::twin_meta::{SKIPPED, is_skipped, metadata};
use crate::link::Link;

/// Type of the secrets Kubernetes once made for service accounts.
const TOKEN_TYPE: &str = "kubernetes.io/service-account-token";

#[derive(Clone)]
pub(super) struct Secrets(pub(super) Arc<Link>);

impl Reflect for Secrets {
    const NAME: &'static str = "secret";
    type Here = Secret;
    type There = Secret;
    type Seen = Secret;
    const RECORD: Option<&'static str> = Some(annotation::ORIGINAL_UID);
    const IMMUTABLE: &'static [&'static str] = &["/type"];

    fn forge(&self, here: &Secret, _there: Option<&Secret>) -> Forged<Secret> {
        if is_skipped(here) {
            return Forged::Nothing(Some(SKIPPED.to_owned()));
        }
        if here.type_.as_deref() == Some(TOKEN_TYPE) {
            return Forged::Nothing(Some("for secrets holding service account tokens".to_owned()));
        }
        Forged::Make(Box::new(Secret {
            metadata: metadata(here, &self.0),
            data: here.data.clone(),
            type_: here.type_.clone(),
            immutable: here.immutable,
            string_data: None,
        }))
    }

    /// Secrets with tokens for pods are ours too, but not the twin of any secret.
    fn ours(&self, there: &Secret) -> bool {
        self.0.made(there) && !there.labels().contains_key(label::SERVICE_ACCOUNT_FOR_POD_NAME)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn tokens_stay_here_and_token_secrets_are_no_twins() {
        let secrets = Secrets(Arc::new(Link::example()));
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
