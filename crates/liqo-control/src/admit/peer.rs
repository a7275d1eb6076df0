//! What peers may write, where the cluster has no `ValidatingAdmissionPolicy`: the same rules, see [`door`].
//!
//! One thing is done here in every cluster: Services are kept inside, see [`service`].
//!
//! The rules are read when the first such request comes: where there are policies, none does.
//!
//! Keeps true: a request that no rule is about, or that no peer made, passes; a rule that cannot be evaluated refuses,
//! as does a rule that needs the settings while there are none.

mod service;

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use cel::{
    Context, Env, Program, Value,
    objects::{Key, Map},
};
use k8s_openapi::api::core::v1::ConfigMap;
use liqo_core::door::{self, Rule};
use liqo_kube::Store;
use serde_json::json;

use super::review::{Request, Verdict};
use crate::home::Home;

/// Reason of a refusal when an expression fails: the object lacks a required field.
const UNREADABLE: &str = "the object lacks what the rule must look at";
const NO_SETTINGS: &str =
    "the ConfigMap liqo-peer-policy is not there: the administrators of this cluster must install the chart again";

/// The rules of the door and the settings that loosen them.
pub(super) struct Door {
    rules: OnceLock<Result<Rules, String>>,
    settings: Store<ConfigMap>,
    namespace: String,
}

impl Door {
    /// Watches what loosens the rules.
    pub(super) fn watch(home: &Home) -> Self {
        let only = format!("metadata.name={}", door::POLICY);
        let settings = home.cluster.watch::<ConfigMap>(&home.namespace).fields(&only).start(|_| {});
        Self { rules: OnceLock::new(), settings, namespace: home.namespace.clone() }
    }

    pub(super) async fn ready(&self) {
        self.settings.ready().await;
    }

    /// Whether the rules of the door let a peer do what it asks.
    pub(super) fn judge(&self, asked: &Request) -> Verdict {
        let settings = self.settings.get(&self.namespace, door::POLICY);
        let data = settings.as_ref().map(|map| json!(map.data));
        let rules = match self.rules.get_or_init(Rules::read) {
            Ok(rules) => rules,
            Err(why) => return Verdict::error(500, why.clone()),
        };
        match rules.judge(asked, data.as_ref()) {
            Ok(()) => Verdict::allow(),
            Err(why) => Verdict::deny(door::refusal(&asked.user_info.username, &why)),
        }
    }

    /// The patch to a Service that a peer writes.
    pub(super) fn keep_inside(&self, asked: &Request) -> Verdict {
        let settings = self.settings.get(&self.namespace, door::POLICY);
        let types = settings.as_ref().and_then(|map| map.data.as_ref()?.get(door::SERVICE_TYPES));
        service::keep_inside(asked, types.map_or("", String::as_str))
    }
}

/// All rules, compiled.
struct Rules {
    env: Arc<Env>,
    condition: Program,
    rules: Vec<Compiled>,
}

struct Compiled {
    rule: &'static Rule,
    variables: Vec<(&'static str, Program)>,
    validations: Vec<(Program, &'static str)>,
}

impl Rules {
    fn read() -> Result<Self, String> {
        let mut env = Env::stdlib();
        env.add_extension(cel::extensions::strings).map_err(|error| format!("the functions of CEL: {error:?}"))?;
        let compile =
            |text: &str| env.compile(text).map_err(|error| format!("the rule for peers {text:?} is no CEL: {error}"));
        let rules = door::rules().map(|rule| {
            let variables = rule.variables().map(|(name, text)| Ok((name, compile(text)?)));
            let validations = rule.validations.iter().map(|one| Ok((compile(one.expression)?, one.message)));
            Ok(Compiled {
                rule,
                variables: variables.collect::<Result<_, String>>()?,
                validations: validations.collect::<Result<_, String>>()?,
            })
        });
        let rules = rules.collect::<Result<_, String>>()?;
        let condition = compile(door::CONDITION)?;
        Ok(Self { env: Arc::new(env), condition, rules })
    }

    /// The first reason to refuse.
    fn judge(&self, asked: &Request, settings: Option<&serde_json::Value>) -> Result<(), String> {
        let user = json!({"username": asked.user_info.username, "groups": asked.user_info.groups});
        let mut context = Context::with_env(Arc::clone(&self.env));
        let kind = json!({"group": asked.resource.group, "resource": asked.resource.resource});
        let request = json!({"userInfo": user, "operation": asked.operation, "resource": kind});
        context.add_variable_from_value("request", value(&request));
        // A user in the group of peers is judged as a peer.
        if matches!(self.condition.execute(&context), Ok(Value::Bool(false))) {
            return Ok(());
        }
        context.add_variable_from_value("object", value(&asked.object));
        context.add_variable_from_value("oldObject", value(&asked.old_object));
        let resource = match asked.sub_resource.as_str() {
            "" => asked.resource.resource.clone(),
            part => format!("{}/{part}", asked.resource.resource),
        };
        let about = |one: &&Compiled| one.rule.is_about(&asked.resource.group, &resource, &asked.operation);
        self.rules.iter().filter(about).try_for_each(|one| match settings {
            None if one.rule.settings => Err(NO_SETTINGS.to_owned()),
            settings => one.judge(&mut context, settings),
        })
    }
}

impl Compiled {
    fn judge(&self, context: &mut Context<'_, '_>, settings: Option<&serde_json::Value>) -> Result<(), String> {
        let settings = settings.map(|all| (Key::String(Arc::new("settings".to_owned())), value(all)));
        let mut variables: HashMap<_, _> = settings.into_iter().collect();
        for (name, program) in &self.variables {
            let known = Map { map: Arc::new(variables.clone()) };
            context.add_variable_from_value("variables", Value::Map(known));
            let found = program.execute(context).map_err(|_| format!("{UNREADABLE} ({})", self.rule.name))?;
            variables.insert(Key::String(Arc::new((*name).to_owned())), found);
        }
        context.add_variable_from_value("variables", Value::Map(Map { map: Arc::new(variables) }));
        let mut broken = self.validations.iter().filter(|(program, _)| !is_true(program, context));
        broken.next().map_or(Ok(()), |(_, message)| Err((*message).to_owned()))
    }
}

fn is_true(program: &Program, context: &Context<'_, '_>) -> bool {
    matches!(program.execute(context), Ok(Value::Bool(true)))
}

/// JSON as CEL sees it: whole numbers are signed, as in Kubernetes.
fn value(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::Null,
        Json::Bool(is) => Value::Bool(*is),
        Json::Number(number) => {
            number.as_i64().map_or_else(|| Value::Float(number.as_f64().unwrap_or_default()), Value::Int)
        }
        Json::String(text) => Value::String(Arc::new(text.clone())),
        Json::Array(items) => Value::List(Arc::new(items.iter().map(value).collect())),
        Json::Object(entries) => {
            let entry = |(key, one): (&String, _)| (Key::String(Arc::new(key.clone())), value(one));
            Value::Map(Map { map: Arc::new(entries.iter().map(entry).collect()) })
        }
    }
}

#[cfg(test)]
mod tests;
