//! What peers may write, where the cluster has no `ValidatingAdmissionPolicy`: the same rules, see [`door`].
//!
//! One thing is done here in every cluster: Services are kept inside, see [`service`].
//!
//! The rules are read when the first such request comes: where there are policies, none does.
//!
//! Keeps true: a request that no rule is about, or that no peer made, passes; a rule that cannot be evaluated refuses,
//! as does a rule that needs the settings while there are none.

mod service;

use std::sync::OnceLock;

use liqo_core::door::{self, Place};
use serde_json::Value;

use super::{
    review::{Request, Resource, User, Verdict},
    rules::{Given, Rules},
};
use crate::door::Policy;

/// Name of the variable that holds the settings.
const SETTINGS: &str = "settings";
const NO_SETTINGS: &str =
    "the ConfigMap liqo-peer-policy is not there: the administrators of this cluster must install the chart again";

/// The rules, compiled when the first request is judged: where there are policies, that is seldom.
///
/// # Errors
/// The rule that is no CEL.
fn rules() -> Result<&'static Rules, String> {
    static RULES: OnceLock<Result<Rules, String>> = OnceLock::new();
    RULES.get_or_init(|| Rules::read(Place::Tenant, door::rules())).as_ref().map_err(Clone::clone)
}

/// Whether the rules of the door let a peer do what it asks.
pub(super) fn admit(policy: &Policy, asked: &Request) -> Verdict {
    let rules = match rules() {
        Ok(rules) => rules,
        Err(why) => return Verdict::error(500, why),
    };
    match judge(rules, asked, policy.settings().as_ref()) {
        Ok(()) => Verdict::allow(),
        Err(why) => Verdict::deny(Place::Tenant.refusal(&asked.user_info.username, &why)),
    }
}

/// The patch to a Service that a peer writes.
pub(super) fn keep_inside(policy: &Policy, asked: &Request) -> Verdict {
    service::keep_inside(asked, &policy.setting(door::SERVICE_TYPES))
}

/// Whether a peer could create such an object of the core group itself. `settings`: those that loosen the rules.
///
/// # Errors
/// The reason of the refusal.
pub(crate) fn could_create(peer: &str, resource: &str, object: Value, settings: Option<&Value>) -> Result<(), String> {
    let asked = Request {
        operation: "CREATE".to_owned(),
        user_info: User { username: peer.to_owned(), groups: vec![door::GROUP.to_owned()] },
        resource: Resource { group: String::new(), resource: resource.to_owned() },
        object,
        ..Request::default()
    };
    judge(rules()?, &asked, settings)
}

/// The first reason to refuse.
fn judge(rules: &Rules, asked: &Request, settings: Option<&Value>) -> Result<(), String> {
    if settings.is_none() && rules.use_settings(asked) {
        return Err(NO_SETTINGS.to_owned());
    }
    rules.judge(asked, settings.map(|value| Given { name: SETTINGS, value }))
}

#[cfg(test)]
mod tests;
