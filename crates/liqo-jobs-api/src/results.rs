//! One result by the byte: ranges (RFC 9110, 14), validators, digests (RFC 9530), a name for the file.

use std::ops::Range;

use axum::{body::Body, response::Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::TryStreamExt;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{
        ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE,
        RANGE,
    },
};
use liqo_front::{
    etag::{Precondition, precondition},
    problem::Problem,
};
use liqo_results::{File, Store, StoreError};

const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// The part of a representation that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// These bytes.
    Bytes(Range<u64>),
    /// Nothing that there is: 416.
    Nothing,
}

/// Evaluates `Range` and `If-Range`. Several ranges in one request, and ranges that make no sense, are answered with the whole, as
/// the standard allows.
pub(crate) fn part(method: &Method, headers: &HeaderMap, tag: &str, size: u64) -> Part {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let (Some(range), true) = (text(RANGE), *method == Method::GET) else { return Part::Whole };
    if headers.contains_key(IF_RANGE) && text(IF_RANGE) != Some(tag) {
        return Part::Whole;
    }
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-')) else {
        return Part::Whole;
    };
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let bytes = match (first, number(first), number(last)) {
        ("", _, Some(0)) => return Part::Nothing,
        ("", _, Some(count)) => size.saturating_sub(count)..size,
        (_, Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(size),
        (_, Some(first), None) if last.is_empty() => first..size,
        _ => return Part::Whole,
    };
    if bytes.start < bytes.end { Part::Bytes(bytes) } else { Part::Nothing }
}

/// `Content-Disposition` (RFC 6266): the last part of the path, in ASCII and as it is.
fn disposition(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_. ".contains(c) { c } else { '_' };
    let ascii: String = name.chars().map(plain).collect();
    let encoded: String = name
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect();
    format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''{encoded}")
}

/// Answers with a result, or a part of it, as it comes from the store.
pub(crate) async fn answer(
    store: &Store,
    file: &File,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let tag = format!("\"{}\"", file.sha256);
    let mut response = Response::new(Body::empty());
    match precondition(method, headers, &tag) {
        Precondition::Met => {}
        Precondition::NotModified => *response.status_mut() = StatusCode::NOT_MODIFIED,
        Precondition::Failed => {
            return Err(Problem::new(StatusCode::PRECONDITION_FAILED, format!("the result has the tag {tag}")));
        }
    }
    let part = part(method, headers, &tag, file.size);
    let head = response.headers_mut();
    let put = |head: &mut HeaderMap, name: HeaderName, text: String| {
        head.insert(name, HeaderValue::from_str(&text).expect("ASCII without control characters"));
    };
    put(head, ETAG, tag);
    put(head, CONTENT_DISPOSITION, disposition(&file.path));
    put(head, REPR_DIGEST, format!("sha-256=:{}:", STANDARD.encode(file.sha256.0)));
    head.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // The bytes are a worker's: no browser shall take them for a page.
    head.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    head.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if response.status() == StatusCode::NOT_MODIFIED {
        return Ok(response);
    }
    let range = match part {
        Part::Whole => None,
        Part::Bytes(range) => Some(range),
        Part::Nothing => {
            put(response.headers_mut(), CONTENT_RANGE, format!("bytes */{}", file.size));
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            return Ok(response);
        }
    };
    let length = range.as_ref().map_or(file.size, |range| range.end - range.start);
    put(response.headers_mut(), CONTENT_LENGTH, length.to_string());
    if let Some(range) = &range {
        let text = format!("bytes {}-{}/{}", range.start, range.end - 1, file.size);
        put(response.headers_mut(), CONTENT_RANGE, text);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    if *method == Method::GET && length > 0 {
        let opened = store.open(&file.path, range).await.map_err(|error| trouble(&error))?;
        if opened.size != file.size {
            return Err(Problem::new(StatusCode::BAD_GATEWAY, "the store has something else than the manifest says"));
        }
        *response.body_mut() = Body::from_stream(opened.bytes.map_err(std::io::Error::other));
    }
    Ok(response)
}

/// What the store did not do, as a problem. The cause goes to the log.
pub(crate) fn trouble(error: &StoreError) -> Problem {
    match error {
        StoreError::NotFound(_) => Problem::new(StatusCode::NOT_FOUND, "the store does not have it"),
        StoreError::Path(..) => Problem::new(StatusCode::BAD_REQUEST, error.chain()),
        other => {
            tracing::warn!(error = other.chain(), "the store did not answer");
            Problem::new(StatusCode::BAD_GATEWAY, "the store of the results did not answer, try again")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(range: &str, if_range: Option<&str>) -> Part {
        let mut headers = HeaderMap::from_iter([(RANGE, range.parse().unwrap())]);
        if_range.map(|tag| headers.insert(IF_RANGE, tag.parse().unwrap()));
        part(&Method::GET, &headers, "\"t\"", 100)
    }

    #[test]
    fn ranges_are_those_of_the_standard() {
        for (range, wanted) in [
            ("bytes=0-", Part::Bytes(0..100)),
            ("bytes=10-19", Part::Bytes(10..20)),
            ("bytes=90-900", Part::Bytes(90..100)),
            ("bytes=-10", Part::Bytes(90..100)),
            ("bytes=-900", Part::Bytes(0..100)),
            ("bytes=100-", Part::Nothing),
            ("bytes=-0", Part::Nothing),
            ("bytes=20-10", Part::Whole),
            ("bytes=1-2,4-5", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("bytes=x-", Part::Whole),
            ("bytes=-", Part::Whole),
            ("lines=1-2", Part::Whole),
            ("bytes=18446744073709551615-18446744073709551615", Part::Nothing),
            ("bytes=99999999999999999999999-", Part::Whole),
        ] {
            assert_eq!(asked(range, None), wanted, "{range}");
        }
        assert_eq!(asked("bytes=1-1", Some("\"t\"")), Part::Bytes(1..2));
        assert_eq!(asked("bytes=1-1", Some("\"other\"")), Part::Whole);
        let headers = HeaderMap::from_iter([(RANGE, "bytes=1-1".parse().unwrap())]);
        assert_eq!(part(&Method::HEAD, &headers, "\"t\"", 100), Part::Whole);
        assert_eq!(part(&Method::GET, &HeaderMap::new(), "\"t\"", 0), Part::Whole);
    }

    #[test]
    fn a_file_name_cannot_leave_its_header() {
        assert_eq!(disposition("a/b c.bin"), "attachment; filename=\"b c.bin\"; filename*=UTF-8''b%20c.bin");
        assert_eq!(disposition("ü\".html"), "attachment; filename=\"__.html\"; filename*=UTF-8''%C3%BC%22.html");
    }

    /// A range that is answered lies in the file and has bytes.
    #[test]
    fn fuzz_range() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "range", |bytes| {
            let Ok(value) = http::HeaderValue::from_bytes(bytes) else { return };
            let headers = HeaderMap::from_iter([(RANGE, value)]);
            for size in [0, 1, 100, u64::MAX] {
                if let Part::Bytes(range) = part(&Method::GET, &headers, "\"t\"", size) {
                    assert!(range.start < range.end && range.end <= size, "{range:?} of {size}");
                }
            }
        });
    }
}
