//! How pages look: one frame, one style sheet, one script for all pages of the product.

use askama::Template;
use axum::{body::Body, response::Response};
use http::{
    HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use serde_json::Value;

use crate::problem::Problem;

/// The style sheet of all pages.
pub(crate) const STYLE: &str = include_str!("../assets/style.css");
/// The script that follows changes; pages are complete without it.
pub(crate) const SCRIPT: &str = include_str!("../assets/live.js");

/// A page: what is around its content.
#[derive(Template)]
#[template(path = "frame.html")]
pub struct Frame<'a> {
    /// Name of this cluster.
    pub cluster: &'a str,
    /// ID of this cluster; empty while it is not known.
    pub id: &'a str,
    /// What the page is about, for the title.
    pub title: &'a str,
    /// Name of the caller; empty while nobody is known.
    pub user: &'a str,
    /// Pages: name, path.
    pub pages: &'a [(&'static str, &'static str)],
    /// Path of this page.
    pub here: &'a str,
    /// When what is shown was true, RFC 3339; empty where time does not matter.
    pub time: &'a str,
    /// The content: HTML whose values are escaped already.
    pub main: &'a str,
    /// Where the same is to be had as JSON; empty: nowhere.
    pub json: &'a str,
}

impl Frame<'_> {
    /// The whole page.
    pub fn html(&self) -> String {
        self.render().expect("a template is rendered into memory")
    }
}

/// Answers with a page, which nobody keeps.
pub fn answer(status: StatusCode, page: String) -> Response {
    let mut response = Response::new(Body::from(page));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[derive(Template)]
#[template(path = "sign-in.html")]
struct SignIn<'a> {
    refused: &'a str,
}

/// The form in which a browser shows a token; `refused` says why the last one did not count.
pub(crate) fn sign_in(refused: &str) -> String {
    SignIn { refused }.render().expect("a template is rendered into memory")
}

#[derive(Template)]
#[template(path = "problem.html")]
struct Trouble<'a> {
    problem: &'a Problem,
}

/// A problem for people.
pub(crate) fn trouble(problem: &Problem) -> String {
    Trouble { problem }.render().expect("a template is rendered into memory")
}

#[derive(Template)]
#[template(path = "api.html")]
struct Api {
    operations: Vec<Operation>,
}

struct Operation {
    method: String,
    path: String,
    summary: String,
    parameters: Vec<String>,
}

/// The description of the API for people, from the OpenAPI document.
pub(crate) fn api(document: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let paths = document["paths"].as_object().into_iter().flatten();
    let operations = paths.flat_map(|(path, item)| {
        item.as_object().into_iter().flatten().map(|(method, operation)| Operation {
            method: method.to_uppercase(),
            path: path.clone(),
            summary: text(&operation["summary"]),
            parameters: operation["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|one| text(&one["name"]))
                .collect(),
        })
    });
    Api { operations: operations.collect() }.render().expect("a template is rendered into memory")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const EVIL: &str = "<script>alert(1)</script>";

    #[test]
    fn no_value_becomes_markup() {
        let frame = Frame {
            cluster: EVIL,
            id: EVIL,
            title: EVIL,
            user: EVIL,
            pages: &[("Peers", "/")],
            here: "/",
            time: EVIL,
            main: "<p>ours</p>",
            json: EVIL,
        };
        let problem = Problem::new(StatusCode::NOT_FOUND, EVIL).with_remedy(EVIL);
        let document = json!({"paths": {EVIL: {"get": {"summary": EVIL, "parameters": [{"name": EVIL}]}}}});
        for html in [frame.html(), sign_in(EVIL), trouble(&problem), api(&document)] {
            assert!(!html.contains(EVIL) && html.contains("&#60;script&#62;"), "{html}");
        }
        assert!(frame.html().contains("<p>ours</p>"));
    }
}
