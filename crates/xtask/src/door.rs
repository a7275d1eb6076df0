//! The rules for peers as the chart reads them: each with its policy, and with what a webhook needs where there are no
//! policies.

use liqo_core::door::{self, Place};
use serde_json::{Value, json};

/// One entry for each rule.
pub fn rules() -> Value {
    let entry = |rule: &door::Rule| {
        let place = match rule.place {
            Place::Tenant => "tenant",
            Place::Offloaded => "offloaded",
        };
        json!({"name": rule.name, "place": place, "settings": rule.settings, "policy": rule.policy()})
    };
    door::rules().map(entry).collect()
}

/// The requests that are judged at all.
pub fn condition() -> Value {
    json!([{"name": "is-a-peer", "expression": door::CONDITION}])
}
