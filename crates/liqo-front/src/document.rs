//! The OpenAPI document of a role, completed by what the front does to every request.
//!
//! Keeps true: each operation names the refusals that any request may get, and each refusal its media type.

use serde_json::{Map, Value, json};

use crate::problem::MEDIA_TYPE;

/// Refusals of the front and of its checks of requests: status, when.
const REFUSALS: &[(&str, &str)] = &[
    ("400", "The request makes no sense"),
    ("401", "The caller is not known"),
    ("403", "The caller may not do that"),
    ("406", "There is no answer in a form that the caller accepts"),
    ("429", "Too many requests"),
    ("503", "The API server does not answer, try again"),
];
/// Refusals of bodies.
const BODIES: &[(&str, &str)] = &[("413", "The body is too long, or does not come")];

/// The document with what holds for all operations. The router says `{*path}` of a parameter with slashes: OpenAPI knows no such thing.
pub(crate) fn complete(mut document: Value) -> Value {
    let paths = document["paths"].as_object_mut().map(std::mem::take).unwrap_or_default();
    let paths = paths.into_iter().map(|(path, mut item)| {
        item.as_object_mut().into_iter().flat_map(Map::values_mut).for_each(operation);
        (path.replace("{*", "{"), item)
    });
    document["paths"] = paths.collect();
    document
}

fn operation(operation: &mut Value) {
    let has_body = operation.get("requestBody").is_some();
    let Some(answers) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    for (status, when) in REFUSALS.iter().chain(BODIES.iter().filter(|_| has_body)) {
        let schema = json!({"$ref": "#/components/schemas/Problem"});
        let refusal = json!({"description": when, "content": {"application/json": {"schema": schema}}});
        answers.entry(*status).or_insert(refusal);
    }
    for (status, answer) in answers {
        let is_refusal = status.starts_with('4') || status.starts_with('5');
        let Some(content) = answer.get_mut("content").and_then(Value::as_object_mut).filter(|_| is_refusal) else {
            continue;
        };
        if let Some(problem) = content.remove("application/json") {
            content.insert(MEDIA_TYPE.to_owned(), problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_names_the_refusals_of_all() {
        let known = json!({"description": "x", "content": {"application/json": {"schema": 1}}});
        let document = json!({"paths": {"/a/{*b}": {
            "get": {"responses": {"200": known, "404": known}},
            "post": {"requestBody": {}, "responses": {"403": known}},
        }}});
        let complete = complete(document);
        let (get, post) = (&complete["paths"]["/a/{b}"]["get"]["responses"], &complete["paths"]["/a/{b}"]["post"]);
        assert_eq!(get["200"], known);
        assert_eq!(get["404"]["content"][MEDIA_TYPE]["schema"], 1);
        assert_eq!(get["429"]["content"][MEDIA_TYPE]["schema"]["$ref"], "#/components/schemas/Problem");
        assert!(get.get("413").is_none() && post["responses"].get("413").is_some());
        assert_eq!(post["responses"]["403"]["description"], "x", "what a role says stays");
    }
}
