//! What happens to every request before and after its own work.
//!
//! Keeps true: without a known caller there is a style sheet, a script and a form, and nothing else; what a page or an
//! API shows is decided with the rights of its caller; every request is bounded in size, time and rate and leaves one
//! line in the log, target `audit`; lines about unknown callers are limited.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, SET_COOKIE, VARY},
};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use liqo_kube::{
    Cluster,
    access::{Act, Callers, Reviews, User, bearer},
    certs::Shown,
    drain::Drain,
    life::Busy,
    rate::{Limiter, Rate, source},
    said,
    server::{self, Limits, Listen, Peer, Reply},
    tokens::Unreviewed,
};
use serde_json::Value;
use tower_service::Service;

use crate::{
    accept::{Form, preferred},
    audit::Audit,
    document, etag,
    events::Streams,
    look::{self, Frame},
    problem::Problem,
    scope,
    session::{self, Sessions},
};

/// How often one user may ask, and all together.
const PRINCIPAL: Rate = Rate::new(100, Duration::from_millis(50));
const ALL_PRINCIPALS: Rate = Rate::new(1000, Duration::from_millis(2));
/// How often one source may ask without being known, and all together.
const STRANGER: Rate = Rate::new(60, Duration::from_millis(200));
const ALL_STRANGERS: Rate = Rate::new(600, Duration::from_millis(5));
/// Users, and sources, whose requests are counted.
const COUNTED: usize = 4096;
/// Longest body of a request, bytes.
const LONGEST_BODY: usize = 64 * 1024;
/// How long the work for a request may take until its answer begins.
const PATIENCE: Duration = Duration::from_secs(30);
/// Answers may be streams, which [`crate::events`] bounds.
const LIMITS: Limits = Limits { answer: None, ..Limits::DEFAULT };
/// Nothing but our own style sheet and script, and nobody shows our pages inside theirs.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Who asks, and how that was shown.
#[derive(Clone)]
pub struct Caller {
    /// The user whose rights count.
    pub user: User,
    peer: Peer,
    token: Option<Arc<str>>,
}

/// What a role serves to known callers.
pub struct Routes {
    /// The handlers; each finds its [`Caller`] in the extensions of the request.
    pub router: Router,
    /// The OpenAPI document of the handlers.
    pub openapi: Value,
    /// Pages for people: name, path.
    pub pages: &'static [(&'static str, &'static str)],
    /// Beginning of the paths that everybody may read, known or not: what follows is a key, which the handler judges and the log does not
    /// show. Such a request has no [`Caller`].
    pub links: Option<&'static str>,
}

impl Routes {
    /// Whether a path is one that everybody may read.
    fn is_link(&self, path: &str) -> bool {
        self.links.is_some_and(|start| path.starts_with(start))
    }

    /// The path as the log shows it.
    fn shown(&self, path: &str) -> String {
        self.links.filter(|_| self.is_link(path)).map_or_else(|| said::printable(path), str::to_owned)
    }
}

/// The front of one process.
pub struct Front {
    /// Who may do what.
    pub reviews: Reviews,
    /// The streams of events.
    pub streams: Streams,
    /// Name and ID of this cluster, for the pages.
    pub cluster: (String, String),
    home: Cluster,
    drain: Drain,
    callers: Callers,
    sessions: Sessions,
    principals: Limiter<String>,
    strangers: Limiter<IpAddr>,
    audit: Audit,
}

impl Front {
    /// A front for the users of `home`, the cluster of this name and ID, in a process that ends as `drain` says.
    pub fn new(home: Cluster, drain: Drain, cluster: (String, String)) -> Arc<Self> {
        Arc::new(Self {
            reviews: Reviews::new(home.clone()).audited(),
            streams: Streams::new(drain.clone()),
            cluster,
            callers: Callers::new(home.clone()),
            home,
            drain,
            sessions: Sessions::default(),
            principals: Limiter::new(PRINCIPAL, ALL_PRINCIPALS, COUNTED),
            strangers: Limiter::new(STRANGER, ALL_STRANGERS, COUNTED),
            audit: Audit::default(),
        })
    }

    /// Serves the routes over HTTPS until the process ends. The process is `busy` until the front listens.
    ///
    /// # Errors
    /// A text with the address and why the address cannot be used.
    pub async fn serve(
        self: Arc<Self>,
        address: Listen,
        shown: Arc<Shown>,
        busy: Busy,
        routes: Routes,
    ) -> Result<(), String> {
        let routes = Arc::new(Routes { openapi: document::complete(routes.openapi), ..routes });
        let front = Arc::clone(&self);
        let answer = move |request, peer| {
            let (front, routes) = (Arc::clone(&front), Arc::clone(&routes));
            async move { front.answer(&routes, request, peer).await }
        };
        server::serve_users(&self.home, address, LIMITS, (self.drain.clone(), busy), shown, answer).await
    }

    /// The caller of a stream once more: rights and tokens end while streams last.
    ///
    /// # Errors
    /// 401 when the caller is not known any more, 503 when the API server does not say.
    pub async fn again(&self, caller: &Caller) -> Result<(), Problem> {
        self.identify(&caller.peer, caller.token.clone()).await?.map(drop).ok_or_else(Problem::unknown_caller)
    }

    /// Whether the user may do it, as the API server says.
    ///
    /// # Errors
    /// 403 when the user may not, 503 when the API server does not say.
    pub async fn may(&self, user: &User, act: &Act) -> Result<(), Problem> {
        if self.reviews.allows(user, act).await.map_err(|error| Problem::unanswered(&error))? {
            return Ok(());
        }
        let Act { verb, group, resource, subresource, .. } = act;
        Err(Problem::forbidden(&user.name, verb, &scope::text(group, resource, subresource)))
    }

    /// Counts a request of this user that comes by another way than [`Front::serve`].
    ///
    /// # Errors
    /// 429 when the user, or all users together, ask too often.
    pub fn count(&self, user: &str) -> Result<(), Problem> {
        self.principals.take(user.to_owned()).map_err(Problem::too_many)
    }

    async fn answer(&self, routes: &Routes, request: Request<Incoming>, peer: Peer) -> Response<Reply> {
        let (method, path, headers) =
            (request.method().clone(), request.uri().path().to_owned(), request.headers().clone());
        let address = peer.address;
        let mut who = None;
        let answered = self.handle(routes, request, peer, &mut who).await;
        let user = who.as_ref().map_or("", |caller| caller.user.name.as_str());
        let response = self.finish(routes, &headers, &path, user, answered.unwrap_or_else(IntoResponse::into_response));
        if self.audit.tells(user, address) {
            let (method, path, status) = (said::method(&method), routes.shown(&path), response.status().as_u16());
            tracing::info!(target: "audit", user, source = %address, %method, path, status, "request answered");
        }
        response.map(|body| body.map_err(Into::into).boxed_unsync())
    }

    async fn handle(
        &self,
        routes: &Routes,
        request: Request<Incoming>,
        peer: Peer,
        who: &mut Option<Caller>,
    ) -> Result<Response, Problem> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let stranger = || self.strangers.take(source(peer.address.ip())).map_err(Problem::too_many);
        if let Some(response) = self.open(&method, &path, request.headers()) {
            return Ok(response);
        }
        if (&method, path.as_str()) == (&Method::POST, "/front/sign-in") {
            stranger()?;
            return self.sign_in(request, &peer).await;
        }
        if method.is_safe() && routes.is_link(&path) {
            stranger()?;
            return work(routes, request, None).await;
        }
        let token = bearer(request.headers()).map(str::to_owned).or_else(|| self.sessions.token(request.headers()));
        let token: Option<Arc<str>> = token.map(Into::into);
        let Some(user) = self.identify(&peer, token.clone()).await? else {
            stranger()?;
            return Err(Problem::unknown_caller());
        };
        let caller = Caller { user, peer, token };
        *who = Some(caller.clone());
        self.count(&caller.user.name)?;
        if !method.is_safe() && session::is_forged(request.headers()) {
            return Err(Problem::new(StatusCode::FORBIDDEN, "the request was made by a page of another site"));
        }
        match path.as_str() {
            "/openapi.json" => Ok(shown(&method, request.headers(), &routes.openapi)),
            "/front/api" => Ok(self.page(routes, "API", &path, &caller.user.name, &look::api(&routes.openapi))),
            _ => work(routes, request, Some(caller)).await,
        }
    }

    /// Answers to everybody, known or not: style sheet, script, sign-in form, sign-out. These requests are not counted against the rate
    /// of their source, so that one caller cannot lock out others behind the same address.
    fn open(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<Response> {
        match (method, path) {
            (&Method::GET | &Method::HEAD, "/front/style.css") => {
                Some(asset(method, headers, "text/css; charset=utf-8", look::STYLE))
            }
            (&Method::GET | &Method::HEAD, "/front/live.js") => {
                Some(asset(method, headers, "text/javascript; charset=utf-8", look::SCRIPT))
            }
            (&Method::GET, "/front/sign-in") => Some(look::answer(StatusCode::OK, self.sign_in_page(""))),
            (&Method::POST, "/front/sign-out") if session::is_same_origin(headers) => {
                Some(redirect("/front/sign-in", self.sessions.end(headers)))
            }
            _ => None,
        }
    }

    async fn identify(&self, peer: &Peer, token: Option<Arc<str>>) -> Result<Option<User>, Problem> {
        self.callers.identify(peer, token.as_deref()).await.map_err(|error| match error {
            Unreviewed::TooMany(wait) => Problem::too_many(wait),
            Unreviewed::Kube(error) => Problem::unanswered(&error),
        })
    }

    /// Begins a session for the token in a form of ours.
    async fn sign_in(&self, request: Request<Incoming>, peer: &Peer) -> Result<Response, Problem> {
        if !session::is_same_origin(request.headers()) {
            return Err(Problem::new(StatusCode::FORBIDDEN, "the form was sent by a page of another site"));
        }
        let body = read(request).await?;
        let token = form_urlencoded::parse(&body).find(|(name, _)| name == "token").map(|(_, value)| value);
        let token: Arc<str> = token.unwrap_or_default().trim().into();
        let nobody = Peer { address: peer.address, certificate: None };
        match self.identify(&nobody, Some(Arc::clone(&token))).await? {
            Some(user) => Ok(redirect("/", self.sessions.begin(&user.name, &token)?)),
            None => Ok(look::answer(
                StatusCode::UNAUTHORIZED,
                self.sign_in_page("This token is not valid, or not any more."),
            )),
        }
    }

    fn sign_in_page(&self, refused: &str) -> String {
        self.framed(&[], "sign in", "/front/sign-in", "", &look::sign_in(refused))
    }

    fn page(&self, routes: &Routes, title: &str, path: &str, user: &str, main: &str) -> Response {
        look::answer(StatusCode::OK, self.framed(routes.pages, title, path, user, main))
    }

    fn framed(
        &self,
        pages: &[(&'static str, &'static str)],
        title: &str,
        here: &str,
        user: &str,
        main: &str,
    ) -> String {
        // Who is not known is not told which cluster this is.
        let (cluster, id) =
            if user.is_empty() { ("liqo", "") } else { (self.cluster.0.as_str(), self.cluster.1.as_str()) };
        Frame { cluster, id, title, user, pages, here, time: "", main, json: "" }.html()
    }

    /// Problems become pages for who prefers pages; every answer says what browsers may do with it.
    fn finish(&self, routes: &Routes, asked: &HeaderMap, path: &str, user: &str, mut response: Response) -> Response {
        let for_people = preferred(asked, &[Form::Json, Form::Html]) == Some(Form::Html) && !path.starts_with("/api/");
        if for_people && let Some(problem) = response.extensions().get::<Problem>().cloned() {
            let page = match problem.code() {
                StatusCode::UNAUTHORIZED => self.sign_in_page(""),
                _ => self.framed(routes.pages, &problem.title, path, user, &look::trouble(&problem)),
            };
            response = look::answer(problem.code(), page);
            problem.dress(&mut response);
        }
        let headers = response.headers_mut();
        for (name, value) in [
            ("content-security-policy", POLICY),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// Lets the router of the role do its work.
async fn work(routes: &Routes, request: Request<Incoming>, caller: Option<Caller>) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let body = match parts.method {
        Method::GET | Method::HEAD => Body::empty(),
        _ => Body::from(read(Request::from_parts(parts.clone(), body)).await?),
    };
    let mut request = Request::from_parts(parts, body);
    if let Some(caller) = caller {
        request.extensions_mut().insert(caller);
    }
    let answered = tokio::time::timeout(PATIENCE, routes.router.clone().call(request)).await;
    let late = |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("no answer within {} s", PATIENCE.as_secs()));
    let response: Result<Response, Infallible> = answered.map_err(late)?;
    let response = response.unwrap_or_else(|never| match never {});
    // The router refuses paths and methods without words.
    let is_bare = !response.headers().contains_key(CONTENT_TYPE);
    // So does axum what it cannot read, in plain text.
    let is_text = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    match response.status() {
        StatusCode::BAD_REQUEST if is_text => {
            Err(Problem::new(StatusCode::BAD_REQUEST, "the path or the query cannot be read"))
        }
        StatusCode::NOT_FOUND if is_bare => Err(Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path")),
        StatusCode::METHOD_NOT_ALLOWED if is_bare => {
            let mut refusal =
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path can only be read").into_response();
            refusal
                .headers_mut()
                .extend(response.headers().get("allow").map(|allow| (http::header::ALLOW, allow.clone())));
            Ok(refusal)
        }
        _ => Ok(response),
    }
}

async fn read(request: Request<Incoming>) -> Result<Bytes, Problem> {
    let failed = |error: server::BodyError| Problem::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string());
    server::body(request, LONGEST_BODY).await.map_err(failed)
}

fn shown(method: &Method, headers: &HeaderMap, document: &Value) -> Response {
    etag::answer(method, headers, "application/json", document.to_string().into_bytes())
}

fn asset(method: &Method, headers: &HeaderMap, kind: &'static str, text: &str) -> Response {
    let mut response = etag::answer(method, headers, kind, text.as_bytes().to_vec());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    response.headers_mut().remove(VARY);
    response
}

fn redirect(to: &'static str, cookie: HeaderValue) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    response.headers_mut().insert(LOCATION, HeaderValue::from_static(to));
    response.headers_mut().insert(SET_COOKIE, cookie);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
