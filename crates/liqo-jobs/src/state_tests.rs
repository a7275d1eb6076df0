use k8s_openapi::jiff::Timestamp;
use liqo_api::jobs::JobSpec;
use serde_json::{Value, json};

use super::*;

fn at(second: i64) -> Time {
    Time(Timestamp::from_second(second).expect("a time"))
}

fn batch(conditions: Value) -> Batch {
    serde_json::from_value(
        json!({"metadata": {"name": "j"}, "status": {"active": 0, "succeeded": 1, "conditions": conditions}}),
    )
    .expect("a batch job")
}

fn ended(kind: &str, reason: &str) -> Batch {
    batch(json!([{"type": kind, "status": "True", "reason": reason, "message": "as it says"}]))
}

fn pod(name: &str, status: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": "liqo-milan", "containers": []}, "status": status}))
    .expect("a pod")
}

fn worker(state: Value) -> Value {
    json!({"containerStatuses": [{"name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}]})
}

fn results(incomplete: Option<&str>) -> ResultsSummary {
    ResultsSummary { files: 3, bytes: 10, incomplete: incomplete.map(str::to_owned), ..ResultsSummary::default() }
}

fn status(batch: Option<&Batch>, pod: Option<&Pod>, stored: Stored) -> JobStatus {
    let pods: Vec<_> = pod.into_iter().collect();
    of(&Job::new("j", JobSpec::default()), &Seen { batch, pods: &pods, stored, now: at(100) })
}

#[test]
fn the_phase_follows_the_worker() {
    let running = json!({"running": {"startedAt": "2026-01-01T00:00:05Z"}});
    let terminated = json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
    let pulling = json!({"waiting": {"reason": "ErrImagePull", "message": "no\nsuch image"}});
    let table = [
        (worker(running), Phase::Running, "WorkerRunning", None),
        (worker(terminated), Phase::Storing, "Completed", None),
        (worker(pulling), Phase::Starting, "ErrImagePull", Some("no such image")),
        (
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}]}),
            Phase::Starting,
            "Unschedulable",
            Some("0/2 nodes"),
        ),
        (json!({}), Phase::Starting, "Starting", None),
    ];
    for (seen, phase, reason, message) in table {
        let status = status(None, Some(&pod("p", seen.clone())), Stored::NotAsked);
        let got = (status.phase, status.reason.as_deref(), status.message.as_deref());
        assert_eq!(got, (phase, Some(reason), message), "{seen}");
        assert_eq!((status.node.as_deref(), status.finished_at), (Some("liqo-milan"), None));
    }
}

#[test]
fn a_job_succeeds_only_with_a_complete_set_of_results() {
    let complete = ended("Complete", "");
    let table = [
        (Stored::NotAsked, Phase::Storing, "WaitingForStore"),
        (Stored::Nothing, Phase::Failed, "ResultsLost"),
        (Stored::Complete(results(None)), Phase::Succeeded, "Completed"),
        (Stored::Unusable("the manifest is no JSON".to_owned()), Phase::Failed, "ResultsInvalid"),
        (Stored::Complete(results(Some("a socket was left out"))), Phase::Failed, "ResultsIncomplete"),
    ];
    for (stored, phase, reason) in table {
        let status = status(Some(&complete), None, stored.clone());
        assert_eq!((status.phase, status.reason.as_deref()), (phase, Some(reason)), "{stored:?}");
        assert_eq!(status.finished_at.is_some(), phase.is_final(), "{stored:?}");
    }
}

#[test]
fn a_failed_worker_says_why_and_keeps_what_it_stored() {
    let failed = json!({"terminated": {"exitCode": 3, "reason": "Error"}});
    let status = status(
        Some(&ended("Failed", "BackoffLimitExceeded")),
        Some(&pod("p", worker(failed))),
        Stored::Complete(results(None)),
    );
    assert_eq!((status.phase, status.exit_code, status.attempts), (Phase::Failed, Some(3), 1));
    assert_eq!(status.reason.as_deref(), Some("BackoffLimitExceeded"));
    assert_eq!(status.message.as_deref(), Some("the worker ended with exit code 3: as it says"));
    assert_eq!(status.results.map(|results| results.files), Some(3));
}

#[test]
fn reasons_of_others_are_one_word() {
    for (said, wanted) in [
        ("ErrImagePull", "ErrImagePull"),
        ("\u{1b}[31mRed alert\n", "Unknown"),
        ("", "Starting"),
        ("Two words", "Twowords"),
        (&"x".repeat(5000), &"x".repeat(64)),
    ] {
        let seen = worker(json!({"waiting": {"reason": said, "message": "\u{1b}[31m"}}));
        let status = status(None, Some(&pod("p", seen)), Stored::NotAsked);
        assert_eq!((status.reason.as_deref(), status.message.as_deref()), (Some(wanted), Some(" [31m")), "{said:?}");
    }
}

#[test]
fn a_job_that_fails_while_pods_still_end_is_not_at_its_end() {
    let both = batch(json!([{"type": "FailureTarget", "status": "True", "reason": "DeadlineExceeded"}]));
    assert!(is_failing(&both) && end(&both, true).is_none());
    assert!(end(&both, false).is_some(), "its pods are gone, or lost with their node");
    let over = ended("Failed", "DeadlineExceeded");
    assert!(!is_failing(&over) && end(&over, true).is_some());
}

#[test]
fn the_time_of_a_condition_changes_with_its_status_only() {
    let mut status = JobStatus::default();
    set(&mut status, ("Stored", false), "A", "", &at(1));
    set(&mut status, ("Stored", false), "B", "", &at(2));
    assert_eq!((status.conditions[0].last_transition_time.clone(), status.conditions.len()), (at(1), 1));
    set(&mut status, ("Stored", true), "B", "", &at(3));
    assert_eq!(status.conditions[0].last_transition_time, at(3));
}
