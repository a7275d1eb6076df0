//! The envelope: `AdmissionReview` of both versions, in and out.
//!
//! Objects stay JSON values here, so that fields we do not know survive.

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// What the API server wants to know.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Request {
    /// To be repeated in the answer.
    pub uid: String,
    /// `CREATE`, `UPDATE`, `DELETE`.
    pub operation: String,
    /// Whose request it is.
    pub user_info: User,
    /// The resource of the request, in the version the webhook registered for.
    pub resource: Resource,
    /// The subresource, like `status`.
    #[serde(deserialize_with = "or_default")]
    pub sub_resource: String,
    /// Namespace of the object.
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
    /// Name of the object, if it is known already.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// The object as it shall be; null for `DELETE`.
    pub object: Value,
    /// The object as it is; null for `CREATE`.
    pub old_object: Value,
    /// Nothing will be stored.
    #[serde(deserialize_with = "or_default")]
    pub dry_run: bool,
}

/// Who asks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct User {
    /// Name; a peer's cluster ID.
    pub username: String,
    /// Groups.
    #[serde(deserialize_with = "or_default")]
    pub groups: Vec<String>,
}

/// A kind of object, as the path of the webhook names it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Resource {
    /// API group; empty for the core group.
    pub group: String,
    /// Plural name.
    pub resource: String,
}

fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    /// Go ahead, with these changes (RFC 6902) and these words to the user.
    Allow {
        /// Changes; none: as it is.
        patch: Vec<Value>,
        /// Shown to the user by `kubectl`.
        warnings: Vec<String>,
    },
    /// No.
    Deny {
        /// HTTP status the user gets.
        code: u16,
        /// Why.
        message: String,
    },
}

impl Verdict {
    /// Go ahead, as it is.
    pub(super) fn allow() -> Self {
        Self::Allow { patch: vec![], warnings: vec![] }
    }

    /// No, and it is the user's to change that.
    pub(super) fn deny(message: impl Into<String>) -> Self {
        Self::Deny { code: 403, message: message.into() }
    }

    /// No, with a status of its own.
    pub(super) fn error(code: u16, message: impl Into<String>) -> Self {
        Self::Deny { code, message: message.into() }
    }
}

/// Reads a review: its version and what is asked.
///
/// # Errors
/// A text that says what is wrong with it.
pub(super) fn read(body: &[u8]) -> Result<(String, Request), String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Review {
        #[serde(default)]
        api_version: String,
        #[serde(default)]
        kind: String,
        request: Option<Request>,
    }
    let review: Review =
        serde_json::from_slice(body).map_err(|error| format!("the body is not an AdmissionReview: {error}"))?;
    let Review { api_version, kind, request } = review;
    if kind != "AdmissionReview" || !matches!(api_version.as_str(), "admission.k8s.io/v1" | "admission.k8s.io/v1beta1")
    {
        return Err(format!(
            "an AdmissionReview of admission.k8s.io/v1 or v1beta1 is expected, not {kind:?} of {api_version:?}"
        ));
    }
    let request = request.ok_or("the AdmissionReview has no request")?;
    if request.uid.is_empty() {
        return Err("the request of the AdmissionReview has no uid".to_owned());
    }
    Ok((api_version, request))
}

/// Writes the answer, in the version of the question.
pub(super) fn write(version: &str, uid: &str, verdict: Verdict) -> Value {
    let response = match verdict {
        Verdict::Allow { patch, warnings } => {
            let mut response = json!({"uid": uid, "allowed": true});
            if !patch.is_empty() {
                use base64::Engine;
                let text = Value::from(patch).to_string();
                response["patchType"] = "JSONPatch".into();
                response["patch"] = base64::engine::general_purpose::STANDARD.encode(text).into();
            }
            if !warnings.is_empty() {
                response["warnings"] = warnings.into();
            }
            response
        }
        Verdict::Deny { code, message } => {
            let reason = match code {
                400 => "BadRequest",
                403 => "Forbidden",
                _ => "InternalError",
            };
            let status = json!({"status": "Failure", "code": code, "reason": reason, "message": message});
            json!({"uid": uid, "allowed": false, "status": status})
        }
    };
    json!({"apiVersion": version, "kind": "AdmissionReview", "response": response})
}

/// A value of an enumeration: `Err` names the field, the value and what is allowed.
///
/// # Errors
/// When the field has another value.
pub(super) fn one_of(object: &Value, pointer: &str, allowed: &[&str]) -> Result<(), String> {
    let Some(value) = object.pointer(pointer).filter(|value| !value.is_null()) else { return Ok(()) };
    if value.as_str().is_some_and(|value| allowed.contains(&value)) {
        return Ok(());
    }
    let field = pointer.trim_start_matches('/').replace('/', ".");
    let allowed: Vec<_> = allowed.iter().map(|one| format!("{one:?}")).collect();
    Err(format!("{field}: Unsupported value: {value}: supported values: {}", allowed.join(", ")))
}

/// The text at a place in an object; empty when there is none.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A label of an object; empty when it has none.
pub(super) fn label_of<'a>(object: &'a Value, key: &str) -> &'a str {
    object.pointer("/metadata/labels").and_then(|labels| labels.get(key)?.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read_and_echoed() {
        for version in ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"] {
            let body = json!({
                "apiVersion": version, "kind": "AdmissionReview",
                "request": {"uid": "u", "operation": "DELETE", "namespace": null, "object": null, "dryRun": null},
            });
            let (echoed, request) = read(body.to_string().as_bytes()).unwrap();
            assert_eq!((echoed.as_str(), request.uid.as_str(), request.dry_run), (version, "u", false));
            let answer = write(&echoed, &request.uid, Verdict::deny("no"));
            assert_eq!(answer["apiVersion"], version);
            assert_eq!(answer["response"]["uid"], "u");
            assert_eq!(answer["response"]["allowed"], false);
            assert_eq!(answer["response"]["status"]["message"], "no");
            assert_eq!(answer["response"]["status"]["code"], 403);
        }
    }

    #[test]
    fn what_is_no_review_is_refused_with_words() {
        for (body, words) in [
            ("", "is not an AdmissionReview"),
            ("{}", "is expected, not"),
            (r#"{"apiVersion":"admission.k8s.io/v2","kind":"AdmissionReview"}"#, "v2"),
            (r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#, "no request"),
            (r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{}}"#, "no uid"),
        ] {
            let error = read(body.as_bytes()).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_patch_is_sent_only_if_there_is_one() {
        let plain = write("admission.k8s.io/v1", "u", Verdict::allow());
        assert_eq!(plain["response"], json!({"uid": "u", "allowed": true}));
        let patch = vec![json!({"op": "add", "path": "/a", "value": 1})];
        let changed = write("admission.k8s.io/v1", "u", Verdict::Allow { patch, warnings: vec!["w".to_owned()] });
        assert_eq!(changed["response"]["patchType"], "JSONPatch");
        assert_eq!(changed["response"]["warnings"], json!(["w"]));
    }

    #[test]
    fn a_wrong_choice_is_told_with_the_right_ones() {
        let object = json!({"spec": {"strategy": "Sometimes"}});
        assert_eq!(
            one_of(&object, "/spec/strategy", &["Always", "Never"]),
            Err("spec.strategy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\"".to_owned())
        );
        assert_eq!(one_of(&object, "/spec/other", &["Always"]), Ok(()));
        assert_eq!(one_of(&object, "/spec/strategy", &["Sometimes"]), Ok(()));
    }
}
