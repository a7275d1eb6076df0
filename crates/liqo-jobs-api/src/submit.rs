//! What becomes of a request to submit a job.

use http::{HeaderMap, StatusCode};
use kube::ResourceExt;
use liqo_api::jobs::{Job, JobSpec, QUEUE_LABEL, RERUN_OF_ANNOTATION, SUBMITTER_ANNOTATION};
use liqo_front::problem::Problem;
use liqo_kube::KubeError;
use ring::digest::{SHA256, digest};

use crate::world::World;

/// Annotation of a job: the digest of the request that an `Idempotency-Key` belongs to.
const REQUEST_ANNOTATION: &str = "jobs.liqo.io/request-sha256";
/// Longest `Idempotency-Key`, in characters.
const LONGEST_KEY: usize = 255;

/// A submitted job, and whether an earlier request with the same key had submitted it.
#[derive(Debug)]
pub(crate) struct Submitted {
    pub(crate) job: Job,
    pub(crate) is_known: bool,
}

/// The job of a request. With a key, its name follows from user and key, so that a repeated request finds the job of the first
/// one, whichever replica answers and whatever happened in between.
///
/// # Errors
/// 400 when the key makes no sense.
pub(crate) fn wanted(headers: &HeaderMap, user: &str, name: Option<String>, spec: JobSpec) -> Result<Job, Problem> {
    let key = key(headers)?;
    let request = serde_json::to_vec(&(&name, &spec)).expect("a request is JSON");
    let mut job = Job::new("", spec);
    job.annotations_mut().insert(SUBMITTER_ANNOTATION.to_owned(), user.to_owned());
    if key.is_some() {
        job.annotations_mut().insert(REQUEST_ANNOTATION.to_owned(), hex(&request, 32));
    }
    job.metadata.name = name.or_else(|| key.map(|key| format!("job-{}", hex(format!("{user}\0{key}").as_bytes(), 10))));
    job.metadata.generate_name = job.metadata.name.is_none().then(|| "job-".to_owned());
    Ok(job)
}

/// The job that does the same as another one, under a new name.
///
/// # Errors
/// 400 when the key makes no sense.
pub(crate) fn again(headers: &HeaderMap, before: &Job, user: &str) -> Result<Job, Problem> {
    let mut job = wanted(headers, user, None, JobSpec { cancel: false, ..before.spec.clone() })?;
    if job.metadata.name.is_none() {
        job.metadata.generate_name = Some(format!("{}-", before.name_any().chars().take(40).collect::<String>()));
    }
    job.annotations_mut().insert(RERUN_OF_ANNOTATION.to_owned(), before.name_any());
    let queue = before.labels().get(QUEUE_LABEL).map(|queue| (QUEUE_LABEL.to_owned(), queue.clone()));
    job.labels_mut().extend(queue);
    Ok(job)
}

fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| !key.is_empty() && key.len() <= LONGEST_KEY);
    let wrong = || format!("Idempotency-Key must be 1 to {LONGEST_KEY} printable characters");
    key.map(|key| Some(key.to_owned())).ok_or_else(|| Problem::new(StatusCode::BAD_REQUEST, wrong()))
}

/// The first `bytes` of the SHA-256 of some text, in hexadecimal digits.
pub(crate) fn hex(text: &[u8], bytes: usize) -> String {
    digest(&SHA256, text).as_ref().iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
}

/// Creates the job, or finds the one that an earlier request with the same key has created.
pub(crate) async fn submit(world: &World, mut job: Job) -> Result<Submitted, Problem> {
    job.metadata.namespace = Some(world.namespace.clone());
    let (name, request) = (job.name_any(), job.annotations().get(REQUEST_ANNOTATION).cloned());
    match world.cluster.create(&job).await {
        Ok(job) => Ok(Submitted { job, is_known: false }),
        Err(error) if error.is_conflict() && request.is_some() => {
            let known = world.cluster.get::<Job>(&world.namespace, &name).await.map_err(|error| refused(&error))?;
            repeated(known, request.as_ref(), &name)
        }
        Err(error) => Err(refused(&error)),
    }
}

/// What a repeated request gets.
fn repeated(known: Option<Job>, request: Option<&String>, name: &str) -> Result<Submitted, Problem> {
    let Some(job) = known else {
        return Err(Problem::new(StatusCode::CONFLICT, format!("job {name} was deleted just now, try again")));
    };
    if job.annotations().get(REQUEST_ANNOTATION) == request {
        return Ok(Submitted { job, is_known: true });
    }
    let detail = format!("the key belongs to another request, or the name {name} to another job");
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
        .with_remedy("use a new Idempotency-Key for a new request"))
}

/// What the API server refused, as a problem; its own words are for the caller.
pub(crate) fn refused(error: &KubeError) -> Problem {
    let words = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    let status = match error.code() {
        Some(code @ (403 | 404 | 409 | 422)) => StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_REQUEST),
        Some(400) => StatusCode::BAD_REQUEST,
        _ => return Problem::unanswered(error),
    };
    Problem::new(status, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(key: &str) -> HeaderMap {
        HeaderMap::from_iter([("idempotency-key".parse().unwrap(), key.parse().unwrap())])
    }

    fn job(key: &str, user: &str, placement: &str) -> Job {
        let spec = serde_json::from_value(serde_json::json!({"templateName": "t", "placement": placement})).unwrap();
        wanted(&headers(key), user, None, spec).unwrap()
    }

    #[test]
    fn a_key_of_a_user_is_a_name() {
        let name = |key, user| job(key, user, "Any").name_any();
        assert_eq!(name("k", "ann"), name("k", "ann"));
        assert!(name("k", "ann") != name("k", "ben") && name("k", "ann") != name("l", "ann"));
        assert_eq!(name("k", "ann").len(), "job-".len() + 20);
        let none = wanted(&HeaderMap::new(), "ann", None, JobSpec::default()).unwrap();
        assert_eq!((none.metadata.name, none.metadata.generate_name.as_deref()), (None, Some("job-")));
        assert!(wanted(&headers(&"k".repeat(256)), "ann", None, JobSpec::default()).is_err());
    }

    #[test]
    fn a_job_runs_again_once_for_each_key() {
        let before = Job::new("first", JobSpec { cancel: true, ..JobSpec::default() });
        let again = |key: &str| super::again(&headers(key), &before, "ann").unwrap();
        assert_eq!(again("k").name_any(), again("k").name_any());
        assert_ne!(again("k").name_any(), again("l").name_any());
        let none = super::again(&HeaderMap::new(), &before, "ann").unwrap();
        assert_eq!((none.metadata.generate_name.as_deref(), none.spec.cancel), (Some("first-"), false));
        assert_eq!(none.annotations()[RERUN_OF_ANNOTATION], "first");
    }

    #[test]
    fn a_repeated_request_finds_its_job_and_another_one_is_refused() {
        let first = job("k", "ann", "Any");
        let request = |job: &Job| job.annotations().get(REQUEST_ANNOTATION).cloned();
        let same = repeated(Some(first.clone()), request(&job("k", "ann", "Any")).as_ref(), "n").unwrap();
        assert!(same.is_known);
        let other = repeated(Some(first), request(&job("k", "ann", "Local")).as_ref(), "n").unwrap_err();
        assert_eq!(other.status, 422);
        assert_eq!(repeated(None, None, "n").unwrap_err().status, 409);
    }

    /// A body is a job or none, and a job that is read is the job that is written.
    #[test]
    fn fuzz_new_job() {
        use crate::model::NewJob;
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "new-job", |bytes| {
            let Ok(NewJob { name, spec }) = serde_json::from_slice(bytes) else { return };
            let written = serde_json::json!({"name": name, "spec": spec}).to_string();
            let again: NewJob = serde_json::from_str(&written).unwrap();
            assert_eq!((again.name, again.spec), (name, spec));
        });
    }
}
