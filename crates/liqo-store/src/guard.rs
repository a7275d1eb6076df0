//! What is refused before the S3 library sees the request, and before a byte of its body is read: the library takes forms with files
//! from anybody and keeps them in memory until it judges them.

use std::{future::Future, pin::Pin};

use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE},
};
use hyper::{body::Incoming, service::Service};
use s3s::{Body, service::S3Service};

use crate::chunked::{self, Chunked};

/// The S3 service, for requests that carry a signature.
#[derive(Clone)]
pub(crate) struct Guarded(pub(crate) S3Service);

impl Service<Request<Incoming>> for Guarded {
    type Response = Response<Body>;
    type Error = <S3Service as Service<Request<Incoming>>>::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        match refusal(&request) {
            Some(why) => {
                tracing::debug!(method = %request.method(), why, "request refused unread");
                Box::pin(std::future::ready(Ok(refused(why))))
            }
            None if chunked::is_chunked(request.headers()) => {
                let library = self.0.clone();
                let request = request.map(|body| Body::http_body_unsync(Chunked::new(body)));
                Box::pin(async move { library.call(request).await })
            }
            None => Service::call(&self.0, request),
        }
    }
}

/// Why a request is refused without a look at its signature.
fn refusal<B>(request: &Request<B>) -> Option<&'static str> {
    let kind = request.headers().get(CONTENT_TYPE).map(|kind| kind.as_bytes().to_ascii_lowercase());
    if *request.method() == Method::POST && kind.is_some_and(|kind| kind.starts_with(b"multipart/form-data")) {
        return Some("this store takes no forms");
    }
    let is_signature = |(name, _): (_, _)| name == "X-Amz-Signature";
    let in_query = form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).any(is_signature);
    (!in_query && !request.headers().contains_key(AUTHORIZATION)).then_some("requests must be signed")
}

/// The connection ends: what is left of the body is not read.
fn refused(why: &str) -> Response<Body> {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>AccessDenied</Code><Message>{why}</Message></Error>"
    );
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::FORBIDDEN;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_signed_requests_are_read_and_no_forms() {
        let form = ("content-type", "Multipart/Form-Data; boundary=x");
        let signed = ("authorization", "AWS4-HMAC-SHA256 x");
        for (method, uri, headers, expected) in [
            ("GET", "/b/k", vec![], Some("requests must be signed")),
            ("PUT", "/b/k?x-amz-signature=1", vec![], Some("requests must be signed")),
            ("PUT", "/b/k?a=b&X-Amz-Signature=1", vec![], None),
            ("POST", "/b?delete", vec![signed], None),
            ("POST", "/b", vec![form], Some("this store takes no forms")),
            ("POST", "/b", vec![form, signed], Some("this store takes no forms")),
            ("PUT", "/b/k", vec![form, signed], None),
        ] {
            let mut request = Request::builder().method(method).uri(uri);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            assert_eq!(refusal(&request.body(()).unwrap()), expected, "{method} {uri}");
        }
    }
}
