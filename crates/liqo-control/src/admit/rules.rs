//! The rules of [`door`] for one kind of users, evaluated by the webhook where the cluster has no `ValidatingAdmissionPolicy`.
//!
//! Keeps true: a request that no rule is about, or that none of these users made, passes; a rule that cannot be evaluated
//! refuses.

use std::{collections::HashMap, sync::Arc};

use cel::{
    Context, Env, ExecutionError, Program, Value,
    extractors::This,
    objects::{Key, Map},
};
use liqo_core::door::{Place, Rule};
use serde_json::json;

use super::review::Request;

/// Reason of a refusal when an expression fails: the object lacks a required field.
const UNREADABLE: &str = "the object lacks what the rule must look at";

/// Rules, compiled, and the condition under which they judge.
pub(super) struct Rules {
    env: Arc<Env>,
    condition: Program,
    rules: Vec<Compiled>,
}

struct Compiled {
    rule: &'static Rule,
    variables: Vec<(&'static str, Program)>,
    validations: Vec<(Program, &'static str)>,
}

/// A variable that is not in the table: what the webhook knows besides the request.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    /// The name after `variables.`.
    pub(super) name: &'static str,
    pub(super) value: &'a serde_json::Value,
}

/// The variables of a rule, by name.
type Variables = HashMap<Key, Value>;

impl Rules {
    /// Compiles rules and the condition of their place.
    ///
    /// # Errors
    /// Which text is no CEL.
    pub(super) fn read(place: Place, rules: impl Iterator<Item = &'static Rule>) -> Result<Self, String> {
        let mut env = Env::stdlib();
        env.add_extension(cel::extensions::strings).map_err(|error| format!("the functions of CEL: {error:?}"))?;
        let compile = |text: &str| env.compile(text).map_err(|error| format!("the rule {text:?} is no CEL: {error}"));
        let rules = rules.map(|rule| {
            let variables = rule.variables().map(|(name, text)| Ok((name, compile(text)?)));
            let validations = rule.validations.iter().map(|one| Ok((compile(one.expression)?, one.message)));
            Ok(Compiled {
                rule,
                variables: variables.collect::<Result<_, String>>()?,
                validations: validations.collect::<Result<_, String>>()?,
            })
        });
        let rules = rules.collect::<Result<_, String>>()?;
        let condition = compile(place.condition().1)?;
        Ok(Self { env: Arc::new(env), condition, rules })
    }

    /// Whether a rule about this request uses settings.
    pub(super) fn use_settings(&self, asked: &Request) -> bool {
        self.judges(&self.context(asked)) && self.about(asked).any(|one| one.rule.settings)
    }

    /// The first reason to refuse.
    pub(super) fn judge(&self, asked: &Request, given: Option<Given<'_>>) -> Result<(), String> {
        let mut context = self.context(asked);
        if !self.judges(&context) {
            return Ok(());
        }
        self.about(asked).try_for_each(|one| one.judge(&mut context, given))
    }

    /// The text of a variable of the first rule about a request; `None`: the request is not judged.
    ///
    /// # Errors
    /// The reason of a refusal, when the variable cannot be evaluated or is no text.
    pub(super) fn text(&self, asked: &Request, name: &str) -> Result<Option<String>, String> {
        let mut context = self.context(asked);
        let Some(one) = self.about(asked).next().filter(|_| self.judges(&context)) else { return Ok(None) };
        let mut variables = one.variables(&mut context, None);
        match variables.remove(&key(name)) {
            Some(Value::String(text)) => Ok(Some(text.to_string())),
            _ => Err(format!("{UNREADABLE} ({})", one.rule.name)),
        }
    }

    /// Whether the user is one whose requests are judged. A condition that cannot be evaluated judges.
    fn judges(&self, context: &Context<'_, '_>) -> bool {
        !matches!(self.condition.execute(context), Ok(Value::Bool(false)))
    }

    fn about<'a>(&'a self, asked: &'a Request) -> impl Iterator<Item = &'a Compiled> {
        let resource = match asked.sub_resource.as_str() {
            "" => asked.resource.resource.clone(),
            part => format!("{}/{part}", asked.resource.resource),
        };
        let about = move |one: &&Compiled| one.rule.is_about(&asked.resource.group, &resource, &asked.operation);
        self.rules.iter().filter(about)
    }

    /// What expressions see of a request.
    fn context(&self, asked: &Request) -> Context<'static, 'static> {
        let user = json!({"username": asked.user_info.username, "groups": asked.user_info.groups});
        let kind = json!({"group": asked.resource.group, "resource": asked.resource.resource});
        let request = json!({
            "userInfo": user, "operation": asked.operation, "resource": kind, "name": asked.name,
            "namespace": asked.namespace,
        });
        let mut context = Context::with_env(Arc::clone(&self.env));
        // No function of the standard library has the name.
        let _ = context.add_function("sum", sum);
        context.add_variable_from_value("request", value(&request));
        context.add_variable_from_value("object", value(&asked.object));
        context.add_variable_from_value("oldObject", value(&asked.old_object));
        context
    }
}

impl Compiled {
    fn judge(&self, context: &mut Context<'_, '_>, given: Option<Given<'_>>) -> Result<(), String> {
        let variables = self.variables(context, given);
        context.add_variable_from_value("variables", Value::Map(Map { map: Arc::new(variables) }));
        let mut broken = self.validations.iter().filter(|(program, _)| !is_true(program, context));
        broken.next().map_or(Ok(()), |(_, message)| Err((*message).to_owned()))
    }

    /// The variables of the rule. A variable that cannot be evaluated is left out: as in the API server, a request is refused only
    /// by an expression that needs the variable.
    fn variables(&self, context: &mut Context<'_, '_>, given: Option<Given<'_>>) -> Variables {
        let given = given.map(|given| (key(given.name), value(given.value)));
        let mut variables: Variables = given.into_iter().collect();
        for (name, program) in &self.variables {
            let known = Map { map: Arc::new(variables.clone()) };
            context.add_variable_from_value("variables", Value::Map(known));
            if let Ok(found) = program.execute(context) {
                variables.insert(key(name), found);
            }
        }
        variables
    }
}

/// The sum of a list of whole numbers, as in the CEL of Kubernetes.
fn sum(This(list): This<Arc<Vec<Value>>>) -> Result<i64, ExecutionError> {
    let add = |all: i64, one: &Value| match one {
        Value::Int(number) => all.checked_add(*number),
        _ => None,
    };
    let all = list.iter().try_fold(0, add);
    all.ok_or_else(|| ExecutionError::function_error("sum", "no whole numbers, or too large ones"))
}

fn key(name: &str) -> Key {
    Key::String(Arc::new(name.to_owned()))
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
