//! Jobs and templates as they are kept in memory.
//!
//! Keeps true: an object takes little more than the texts of its `spec`, and never more than [`LARGEST_SPEC`] of them, however large
//! it is in the API server: annotations of users are forgotten, and so is what a job that has ended was made of. Nothing is
//! written from an object that is kept so but its status and its finalizers.

use kube::Resource;
use liqo_api::jobs::{Job, JobTemplate, JobTemplateSpec, LARGEST_SPEC, SUBMITTER_ANNOTATION};
use liqo_kube::strip;

/// Annotation in memory of an object whose `spec` is too large to be kept. An object that has the annotation in the API server is
/// taken for one.
const TOO_LARGE: &str = "jobs.liqo.io/too-large";
/// Longest name of a submitter that counts, in bytes.
const LONGEST_NAME: usize = 1024;

/// Keeps of a job what decisions read.
pub(crate) fn job(job: &mut Job) {
    forget(job);
    let is_over = job.status.as_ref().is_some_and(|status| status.phase.is_final());
    let is_too_large = job.spec.weight() > LARGEST_SPEC;
    if is_over || is_too_large {
        let spec = &mut job.spec;
        (spec.template, spec.template_name) = (None, None);
        (spec.env, spec.env_from, spec.clusters) = Default::default();
    }
    if is_too_large {
        mark(job);
    }
}

/// Keeps of a template what jobs need.
pub(crate) fn template(template: &mut JobTemplate) {
    forget(template);
    if template.spec.weight() > LARGEST_SPEC {
        template.spec = JobTemplateSpec::default();
        mark(template);
    }
}

/// Whether the `spec` was too large to be kept.
pub(crate) fn is_too_large<K: Resource>(object: &K) -> bool {
    object.meta().annotations.as_ref().is_some_and(|all| all.contains_key(TOO_LARGE))
}

fn mark<K: Resource>(object: &mut K) {
    object.meta_mut().annotations.get_or_insert_default().insert(TOO_LARGE.to_owned(), String::new());
}

fn forget<K: Resource>(object: &mut K) {
    strip(object);
    if let Some(annotations) = &mut object.meta_mut().annotations {
        annotations
            .retain(|key, value| key == TOO_LARGE || (key == SUBMITTER_ANNOTATION && value.len() <= LONGEST_NAME));
    }
}

#[cfg(test)]
mod tests {
    use liqo_api::jobs::{JobSpec, JobStatus, Phase};

    use super::*;

    fn large(bytes: usize) -> Job {
        let template = JobTemplateSpec { args: vec!["x".repeat(bytes)], ..JobTemplateSpec::default() };
        let mut job = Job::new("j", JobSpec { template: Some(template), ..JobSpec::default() });
        let annotations = [("note", "x".repeat(200_000)), (SUBMITTER_ANNOTATION, "ann".to_owned())];
        job.metadata.annotations = Some(annotations.map(|(key, value)| (key.to_owned(), value)).into());
        job
    }

    /// Bytes of the object as JSON.
    fn bytes(job: &Job) -> usize {
        serde_json::to_vec(job).expect("JSON").len()
    }

    #[test]
    fn a_job_takes_no_more_memory_than_its_limit() {
        for (size, too_large) in [(1000, false), (LARGEST_SPEC, false), (LARGEST_SPEC + 1, true), (1_500_000, true)] {
            let mut kept = large(size);
            job(&mut kept);
            assert!(bytes(&kept) < LARGEST_SPEC + 1024, "{size}: {}", bytes(&kept));
            assert_eq!(is_too_large(&kept), too_large, "{size}");
            assert_eq!(kept.metadata.annotations.as_ref().map(|all| all[SUBMITTER_ANNOTATION].as_str()), Some("ann"));
            assert_eq!(kept.spec.template.is_none(), too_large);
        }
    }

    #[test]
    fn of_a_job_that_has_ended_nothing_is_kept_but_how_it_ended() {
        let mut kept = large(LARGEST_SPEC);
        kept.status = Some(JobStatus { phase: Phase::Succeeded, ..JobStatus::default() });
        kept.spec.ttl_seconds_after_finished = Some(60);
        job(&mut kept);
        assert!(bytes(&kept) < 1024 && kept.spec.ttl_seconds_after_finished == Some(60), "{}", bytes(&kept));
    }

    #[test]
    fn a_template_takes_no_more_memory_than_its_limit() {
        let mut kept = JobTemplate::new("t", large(1_500_000).spec.template.unwrap());
        template(&mut kept);
        assert!(is_too_large(&kept) && kept.spec.args.is_empty());
    }
}
