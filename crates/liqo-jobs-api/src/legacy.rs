//! The facade for programs of the first generation (`/job/deploy`, `/job/{id}/result/list`, `/demo`): the same jobs, other words.
//!
//! Keeps true: off unless switched on; on a loopback address unless somebody says otherwise; whoever can reach the address acts
//! as one named user of the cluster, with the rights of that user and no others. Every answer says that the facade is deprecated.

mod demo;
mod dotenv;
mod first;
mod order;
mod place;
mod resource;
mod services;
mod upload;

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::DefaultBodyLimit,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use kube::ResourceExt;
use liqo_api::jobs::{Job, JobSpec, SUBMITTER_ANNOTATION};
use liqo_front::{Front, page::parameter, problem::Problem, session::is_forged};
use liqo_kube::{
    access::User,
    drain::Drain,
    owner_reference, said,
    server::{self, Limits, Listen, Reply},
};
use ring::rand::{SecureRandom, SystemRandom};

use self::{
    dotenv::Variables,
    upload::{File, LONGEST_FORM},
};
use crate::{
    api::{App, What, phase_of},
    submit,
    world::World,
};

/// When a caller who was refused for too many jobs may try again.
const PAUSE: Duration = Duration::from_secs(55);
/// Jobs of the facade that have not ended, at most.
const MOST_JOBS: usize = 100;
/// Resources that one order names, at most.
const MOST_RESOURCES: usize = 16;
/// Answers wait for jobs, so their time is bounded here and not by the server.
const LIMITS: Limits = Limits { answer: None, ..Limits::DEFAULT };

/// The facade's switches.
#[derive(Clone, Debug, clap::Args)]
pub struct LegacyArgs {
    /// Address of the facade for older programs, plain HTTP; left out: there is none.
    #[arg(long, value_name = "HOST:PORT", requires = "legacy_user")]
    pub legacy_address: Option<Listen>,
    /// The user of this cluster with whose rights the facade acts.
    #[arg(long, value_name = "USER")]
    pub legacy_user: Option<String>,
    /// Groups of that user.
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    pub legacy_groups: Vec<String>,
    /// JobTemplate that `/job/deploy` and `/demo` run.
    #[arg(long, default_value = "legacy", value_name = "NAME")]
    pub legacy_template: String,
    /// Images that a job description may name besides that of the template; a `*` at the end stands for anything.
    #[arg(long, value_name = "IMAGE", value_delimiter = ',')]
    pub legacy_images: Vec<String>,
    /// File with the token that callers of the later generation (`/services`) show; left out: these paths are not there.
    #[arg(long, value_name = "FILE", requires = "legacy_address")]
    pub legacy_services_token: Option<PathBuf>,
}

/// The facade, switched on.
pub(crate) struct Legacy {
    address: Listen,
    facade: Facade,
    drain: Drain,
}

#[derive(Clone)]
struct Facade {
    app: Arc<App>,
    user: User,
    template: String,
    images: Arc<[String]>,
    /// File with the token for the paths of the later generation.
    token: Option<Arc<Path>>,
}

/// What a caller orders.
#[derive(Default)]
struct Order {
    /// Which worker; nothing: that of the template.
    description: Option<Variables>,
    /// Its variables.
    variables: Variables,
    /// The template; nothing: that of the facade.
    template: Option<String>,
    /// ConfigMaps with more variables, by name.
    resources: Vec<String>,
    /// Annotations of the job.
    annotations: Vec<(String, String)>,
}

impl Legacy {
    /// The facade; none when it is not switched on.
    ///
    /// # Errors
    /// A text that says which flag is missing.
    pub(crate) fn new(
        args: LegacyArgs,
        world: &Arc<World>,
        front: &Arc<Front>,
        drain: Drain,
    ) -> Result<Option<Self>, String> {
        let LegacyArgs {
            legacy_address,
            legacy_user,
            legacy_groups,
            legacy_template,
            legacy_images,
            legacy_services_token,
        } = args;
        let Some(address) = legacy_address else { return Ok(None) };
        let name = legacy_user.filter(|name| !name.is_empty());
        let name = name.ok_or("--legacy-user: name the user of this cluster with whose rights the facade acts")?;
        let user = User { name, groups: legacy_groups, ..User::default() };
        let app = App::new(Arc::clone(front), Arc::clone(world));
        let token = legacy_services_token.map(Into::into);
        let facade = Facade { app, user, template: legacy_template, images: legacy_images.into(), token };
        Ok(Some(Self { address, facade, drain }))
    }

    /// Serves for as long as the process lives.
    ///
    /// # Errors
    /// When the address cannot be used.
    pub(crate) async fn serve(self) -> Result<(), String> {
        let Self { address, facade, drain } = self;
        let listener = address.bind().await?;
        let router = routes(facade.clone());
        let answer = move |request, _peer| answered(facade.clone(), router.clone(), request);
        server::serve_within(LIMITS, &drain, listener, None, answer).await;
        Ok(())
    }
}

fn routes(facade: Facade) -> Router {
    let mut all = first::routes().merge(demo::routes()).merge(resource::routes());
    if facade.token.is_some() {
        all = all.merge(services::routes(&facade));
    }
    // Bodies are bounded where they are read.
    all.layer(DefaultBodyLimit::disable()).with_state(facade)
}

async fn answered(facade: Facade, router: Router, request: Request<hyper::body::Incoming>) -> Response<Reply> {
    let (method, path) = (said::method(request.method()), said::printable(request.uri().path()));
    let mut response = facade.answer(router, request).await.unwrap_or_else(IntoResponse::into_response);
    // RFC 9745 wants a date: that of the first release that has the successor.
    response.headers_mut().insert("deprecation", HeaderValue::from_static("@1796083200"));
    let successor = HeaderValue::from_static("</api/v1/jobs>; rel=\"successor-version\"");
    response.headers_mut().insert(http::header::LINK, successor);
    let status = response.status().as_u16();
    tracing::info!(target: "audit", facade = "legacy", %method, path, status, "request answered");
    response.map(|body| http_body_util::BodyExt::boxed_unsync(http_body_util::BodyExt::map_err(body, Into::into)))
}

/// Whether jobs of the facade, of which so many have not ended, may become more.
fn has_room(waiting: usize) -> Result<(), Problem> {
    if waiting < MOST_JOBS { Ok(()) } else { Err(Problem::too_many(PAUSE)) }
}

/// A name that nobody else chooses.
fn made_up(prefix: &str) -> Result<String, Problem> {
    let mut random = [0; 8];
    let none = |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the system has no randomness");
    SystemRandom::new().fill(&mut random).map_err(none)?;
    Ok(format!("{prefix}-{:016x}", u64::from_be_bytes(random)))
}

impl Order {
    /// Reads an order from a form and a query.
    ///
    /// # Errors
    /// 400 with what breaks a rule.
    fn read(files: &[File], query: Option<&str>) -> Result<Self, Problem> {
        let description = upload::variables(files, "config_data")?;
        let variables = upload::variables(files, "env_file")?.unwrap_or_default();
        let names = parameter(query, "config_map_ref").unwrap_or_default();
        let resources: Vec<_> =
            names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        if resources.len() > MOST_RESOURCES {
            let why = format!("config_map_ref names more than {MOST_RESOURCES} resources");
            return Err(Problem::new(StatusCode::BAD_REQUEST, why));
        }
        Ok(Self { description, variables, resources, ..Self::default() })
    }
}

impl Facade {
    async fn answer(&self, router: Router, request: Request<hyper::body::Incoming>) -> Result<Response, Problem> {
        use tower_service::Service;
        self.admit(request.headers())?;
        let (parts, body) = request.into_parts();
        let failed = |error: server::BodyError| Problem::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string());
        // Also with GET, as the first generation sends files.
        let body = server::body(Request::from_parts(parts.clone(), body), LONGEST_FORM).await.map_err(failed)?;
        let request = Request::from_parts(parts, Body::from(body));
        let answer: Result<Response, Infallible> = { router }.call(request).await;
        Ok(answer.unwrap_or_else(|never| match never {}))
    }

    /// Whether a request is looked at: programs ask at the rate of one user, and pages of other sites not at all.
    fn admit(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if is_forged(headers) {
            return Err(Problem::new(StatusCode::FORBIDDEN, "the request was made by a page of another site"));
        }
        self.app.front.count(&self.user.name)
    }

    async fn may(&self, verb: &'static str, what: What, name: &str) -> Result<(), Problem> {
        self.app.may(&self.user, verb, what, name).await
    }

    /// The job with this UID.
    fn job(&self, id: &str) -> Result<Arc<Job>, Problem> {
        let missing = || Problem::new(StatusCode::NOT_FOUND, format!("there is no job {id:?}"));
        self.app.world.job_of(id).ok_or_else(missing)
    }

    /// Whether the user of the facade has submitted a job, and the job has not ended.
    fn is_mine_and_lasts(&self, job: &Job) -> bool {
        job.annotations().get(SUBMITTER_ANNOTATION) == Some(&self.user.name) && !phase_of(job).is_final()
    }

    async fn submit(&self, order: Order) -> Result<Job, Problem> {
        self.may("create", What::Jobs, "").await?;
        has_room(self.app.world.jobs().iter().filter(|job| self.is_mine_and_lasts(job)).count())?;
        let Order { description, variables, template, resources, annotations } = order;
        self.may_keep(&variables).await?;
        let template_name = template.unwrap_or_else(|| self.template.clone());
        let template = self.app.world.template(&template_name).map(|template| template.spec.clone());
        let description = description.map(|one| order::worker(template.as_ref(), &one, &self.images));
        let template = description.transpose()?.flatten();
        let name = made_up("job")?;
        let mut env_from = Vec::new();
        for resource in resources {
            env_from.extend(self.sources(&resource).await?);
        }
        env_from.extend(order::sources(&name, !variables.plain.is_empty(), !variables.secret.is_empty()));
        let template_name = template.is_none().then_some(template_name);
        let spec = JobSpec { template_name, template, env_from, ..JobSpec::default() };
        let mut job = submit::wanted(&HeaderMap::new(), &self.user.name, Some(name), spec)?;
        job.annotations_mut().extend(annotations);
        let job = submit::submit(&self.app.world, job).await?.job;
        if let Err(problem) = self.keep(&job, variables).await {
            // Without its variables the worker would wait for ever.
            self.app.deleted(&job).await?;
            return Err(problem);
        }
        Ok(job)
    }

    /// Whether the user may keep such variables.
    async fn may_keep(&self, variables: &Variables) -> Result<(), Problem> {
        if !variables.plain.is_empty() {
            self.may("create", What::ConfigMaps, "").await?;
        }
        if !variables.secret.is_empty() {
            self.may("create", What::Secrets, "").await?;
        }
        Ok(())
    }

    /// Makes the ConfigMap and the Secret with the variables of a job, which go with the job.
    async fn keep(&self, job: &Job, variables: Variables) -> Result<(), Problem> {
        let world = &self.app.world;
        let metadata = || order::metadata(&world.namespace, &job.name_any(), Some(owner_reference(job, false)));
        let refused = |error| submit::refused(&error);
        let Variables { plain, secret } = variables;
        if !plain.is_empty() {
            world.cluster.create(&order::config_map(metadata(), plain)).await.map_err(refused)?;
        }
        if !secret.is_empty() {
            world.cluster.create(&order::secret(metadata(), secret)).await.map_err(refused)?;
        }
        Ok(())
    }
}

fn with(status: StatusCode, mut response: Response) -> Response {
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facade_does_not_fill_the_queue() {
        assert!(has_room(MOST_JOBS - 1).is_ok());
        assert_eq!(has_room(MOST_JOBS).map_err(|problem| problem.status), Err(429));
    }

    #[test]
    fn an_order_names_few_resources() {
        let names = |count: usize| format!("config_map_ref={}", vec!["a"; count].join("%2C"));
        assert_eq!(Order::read(&[], Some("config_map_ref=a,+b,,")).unwrap().resources, ["a", "b"]);
        assert!(Order::read(&[], Some(&names(MOST_RESOURCES))).is_ok());
        assert!(Order::read(&[], Some(&names(MOST_RESOURCES + 1))).is_err());
        assert!(Order::read(&[], None).unwrap().resources.is_empty());
    }

    #[test]
    fn made_up_names_differ() {
        let names: std::collections::BTreeSet<_> = (0..100).map(|_| made_up("job").unwrap()).collect();
        assert!(names.len() == 100 && names.iter().all(|name| name.len() == "job-".len() + 16));
    }
}
