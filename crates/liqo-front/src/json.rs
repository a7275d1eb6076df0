//! Answers in JSON.

use axum::{body::Body, response::Response};
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION},
};
use serde::Serialize;

use crate::{
    accept::{Form, preferred},
    etag,
    problem::Problem,
};

const JSON: &str = "application/json";

/// Answers a reading request, with a tag that the next request can show.
///
/// # Errors
/// 406 when the caller does not take JSON.
pub fn answer(method: &Method, headers: &HeaderMap, value: &impl Serialize) -> Result<Response, Problem> {
    if preferred(headers, &[Form::Json]).is_none() {
        return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, format!("there is {JSON}")));
    }
    Ok(etag::answer(method, headers, JSON, bytes(value)))
}

/// A value that nobody keeps, as answer to a writing request.
pub fn once(value: &impl Serialize) -> Response {
    let mut response = Response::new(Body::from(bytes(value)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An object that a request made or asked for, as answer with this status. `place` is the path of the object (RFC 9110, section 10.2.2);
/// a path that no header can hold is left out.
pub fn made(status: StatusCode, place: &str, value: &impl Serialize) -> Response {
    let mut response = once(value);
    *response.status_mut() = status;
    if let Ok(place) = HeaderValue::from_str(place) {
        response.headers_mut().insert(LOCATION, place);
    }
    response
}

fn bytes(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("an answer is JSON")
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT, ETAG};

    use super::*;

    #[test]
    fn who_takes_no_json_gets_a_problem() {
        let asked = |accept: &'static str| {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            answer(&Method::GET, &headers, &[1, 2])
        };
        for accept in ["application/json", "*/*", "text/html, application/*;q=0.5"] {
            assert!(asked(accept).unwrap().headers().contains_key(ETAG), "{accept}");
        }
        assert_eq!(asked("text/html").unwrap_err().status, 406);
        assert_eq!(once(&[1]).headers()[CACHE_CONTROL], "no-store");
    }
}
