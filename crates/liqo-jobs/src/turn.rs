//! Whose turn it is.
//!
//! Keeps true: never more jobs are active than there is room for; the submitter with the fewest active jobs is next; the jobs of
//! one submitter start in the order of their creation; two submitters with equally many take the older job first. So nobody who
//! submits a thousand jobs keeps another waiting for more than one job, and nothing has to be remembered: jobs say who they
//! are and how they stand.

use std::collections::BTreeMap;

use kube::ResourceExt;
use liqo_api::jobs::{Job, SUBMITTER_ANNOTATION};

/// The names of the jobs that start now, in this order.
pub(crate) fn next<'a>(jobs: impl Iterator<Item = &'a Job>, room: usize) -> Vec<String> {
    let mut active: BTreeMap<&str, usize> = BTreeMap::new();
    let mut waiting: BTreeMap<&str, Vec<&Job>> = BTreeMap::new();
    for job in jobs {
        let phase = job.status.as_ref().map(|status| status.phase).unwrap_or_default();
        if phase.is_active() {
            *active.entry(submitter(job)).or_default() += 1;
        } else if !phase.is_final() && !job.spec.cancel && job.metadata.deletion_timestamp.is_none() {
            waiting.entry(submitter(job)).or_default().push(job);
        }
    }
    for jobs in waiting.values_mut() {
        // The last is the next.
        jobs.sort_by_key(|job| std::cmp::Reverse(age(job)));
    }
    let mut free = room.saturating_sub(active.values().sum());
    let mut turns = Vec::new();
    while free > 0 {
        let of = |who: &str| active.get(who).copied().unwrap_or_default();
        let candidates = waiting.iter().filter_map(|(who, jobs)| Some((of(who), age(jobs.last()?), *who)));
        let Some((_, _, who)) = candidates.min() else { break };
        let Some(job) = waiting.get_mut(who).and_then(Vec::pop) else { break };
        turns.push(job.name_any());
        *active.entry(who).or_default() += 1;
        free -= 1;
    }
    turns
}

/// Who submitted the job; jobs made without the API of jobs share one turn.
fn submitter(job: &Job) -> &str {
    job.annotations().get(SUBMITTER_ANNOTATION).map(String::as_str).unwrap_or_default()
}

/// Older jobs come first, jobs of one second by name.
fn age(job: &Job) -> (Option<i64>, &str) {
    let created = job.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second());
    (created, job.metadata.name.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
    use liqo_api::jobs::{JobSpec, JobStatus, Phase};

    use super::*;

    fn job(name: &str, who: &str, second: i64, phase: Phase) -> Job {
        let mut job = Job::new(name, JobSpec::default());
        job.metadata.creation_timestamp = Timestamp::from_second(second).ok().map(Time);
        job.annotations_mut().insert(SUBMITTER_ANNOTATION.to_owned(), who.to_owned());
        job.status = Some(JobStatus { phase, ..JobStatus::default() });
        job
    }

    fn queued(name: &str, who: &str, second: i64) -> Job {
        job(name, who, second, Phase::Queued)
    }

    #[test]
    fn jobs_of_one_submitter_start_in_the_order_of_their_creation() {
        let jobs = [queued("c", "ann", 3), queued("b", "ann", 2), queued("z", "ann", 1), queued("a", "ann", 2)];
        assert_eq!(next(jobs.iter(), 10), ["z", "a", "b", "c"]);
        assert_eq!(next(jobs.iter(), 2), ["z", "a"]);
    }

    #[test]
    fn submitters_take_turns_whoever_came_first() {
        let mut jobs: Vec<_> = (0..100).map(|n| queued(&format!("ann-{n:03}"), "ann", n)).collect();
        jobs.extend([queued("ben-0", "ben", 200), queued("cid-0", "cid", 201)]);
        assert_eq!(next(jobs.iter(), 5), ["ann-000", "ben-0", "cid-0", "ann-001", "ann-002"]);
    }

    #[test]
    fn active_jobs_take_room_and_count_for_their_submitter() {
        for phase in [Phase::Starting, Phase::Running, Phase::Storing] {
            let jobs = [job("r", "ann", 1, phase), queued("a", "ann", 2), queued("b", "ben", 3)];
            assert_eq!(next(jobs.iter(), 1), Vec::<String>::new(), "{phase:?}");
            assert_eq!(next(jobs.iter(), 2), ["b"], "{phase:?}");
            assert_eq!(next(jobs.iter(), 3), ["b", "a"], "{phase:?}");
        }
    }

    #[test]
    fn jobs_that_ended_or_shall_end_do_not_start() {
        let mut cancelled = queued("x", "ann", 1);
        cancelled.spec.cancel = true;
        let mut going = queued("g", "ann", 1);
        going.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        let done = [Phase::Succeeded, Phase::Failed, Phase::Cancelled].map(|phase| job("d", "ann", 1, phase));
        let jobs: Vec<_> = done.into_iter().chain([cancelled, going, queued("a", "ann", 9)]).collect();
        assert_eq!(next(jobs.iter(), 10), ["a"]);
    }
}
