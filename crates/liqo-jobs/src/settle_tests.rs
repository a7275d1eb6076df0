use k8s_openapi::jiff::Timestamp;
use liqo_api::jobs::{JobSpec, ResultsSummary};
use serde_json::json;

use super::*;

const NOW: i64 = 1_000;
/// The longest turn.
const LONGEST: i64 = 86_400;

fn at(second: i64) -> Time {
    Time(Timestamp::from_second(second).expect("a time"))
}

fn job(phase: Phase, is_held: bool) -> Job {
    let template = JobTemplateSpec { image: "worker".to_owned(), ..JobTemplateSpec::default() };
    let mut job = Job::new("j", JobSpec { template: Some(template), ..JobSpec::default() });
    job.metadata.finalizers = is_held.then(|| vec![RESULTS_FINALIZER.to_owned()]);
    job.status = Some(JobStatus { phase, ..JobStatus::default() });
    job
}

fn batch(condition: Option<&str>) -> Arc<Batch> {
    let conditions: Vec<_> = condition.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
    let value = json!({"metadata": {"name": "j"}, "status": {"conditions": conditions}});
    Arc::new(serde_json::from_value(value).expect("a batch job"))
}

fn pod(deleted: Option<i64>) -> Arc<Pod> {
    let mut pod = Pod::default();
    pod.metadata.deletion_timestamp = deleted.map(at);
    Arc::new(pod)
}

fn known(batch: Option<Arc<Batch>>, pods: Vec<Arc<Pod>>) -> Known {
    let worker = JobTemplateSpec { image: "worker".to_owned(), ..JobTemplateSpec::default() };
    let key = Some(store::period(u64::try_from(NOW).unwrap(), store::PERIOD));
    Known { worker: Ok(worker), batch, pods, key, period: store::PERIOD, longest: LONGEST, now: at(NOW) }.without_lost()
}

/// The names of the steps, and the phase a status that is written has.
fn steps(job: &Job, known: &Known, stored: Stored) -> Vec<String> {
    let name = |step: &Step| match step {
        Step::Tell(status) => format!("Tell {:?}", status.phase),
        Step::Make(_) => "Make".to_owned(),
        Step::RemoveBatch(_) => "RemoveBatch".to_owned(),
        Step::EndPod(_) => "EndPod".to_owned(),
        other => format!("{other:?}"),
    };
    plan(job, known, stored).iter().map(name).collect()
}

#[test]
fn a_job_with_its_turn_is_held_first_and_made_then() {
    let none = known(None, vec![]);
    assert_eq!(steps(&job(Phase::Queued, false), &none, Stored::NotAsked), ["Tell Queued", "Turns"]);
    assert_eq!(steps(&job(Phase::Starting, false), &none, Stored::NotAsked), ["Hold"]);
    assert_eq!(steps(&job(Phase::Starting, true), &none, Stored::NotAsked), ["Make"]);
}

#[test]
fn the_store_is_asked_when_the_worker_has_ended_and_the_answer_ends_the_job() {
    let over = known(Some(batch(Some("Complete"))), vec![]);
    let running = job(Phase::Running, true);
    assert_eq!(steps(&running, &over, Stored::NotAsked)[0], "AskStore");
    assert_eq!(steps(&running, &over, Stored::Nothing), ["EndKey", "Tell Failed", "Turns"]);
    let complete = Stored::Complete(ResultsSummary::default());
    assert_eq!(steps(&running, &over, complete), ["EndKey", "Tell Succeeded", "Turns"]);
    assert_eq!(steps(&running, &known(Some(batch(None)), vec![]), Stored::NotAsked), [wait()]);
}

/// Until the key of a job is due again.
fn wait() -> String {
    format!("Wait({:?})", store::left_of_period(u64::try_from(NOW).unwrap(), store::PERIOD))
}

#[test]
fn the_key_of_an_active_job_is_replaced_in_each_period() {
    let mut running = known(Some(batch(None)), vec![]);
    for key in [None, running.key.map(|period| period + 1)] {
        running.key = key;
        assert_eq!(steps(&job(Phase::Running, true), &running, Stored::NotAsked), ["Renew".to_owned(), wait()]);
    }
}

#[test]
fn a_cancelled_job_ends_when_its_pods_have_ended() {
    let mut cancelled = job(Phase::Running, true);
    cancelled.spec.cancel = true;
    let table = [
        (known(Some(batch(None)), vec![pod(None)]), vec!["EndPod", "RemoveBatch"]),
        // The garbage collector was quicker, and gave the pod ten minutes.
        (known(None, vec![pod(Some(NOW + 600))]), vec!["EndPod"]),
        (known(None, vec![pod(Some(NOW + 30))]), vec!["Wait(30s)"]),
        (known(None, vec![]), vec!["EndKey", "Tell Cancelled", "Turns"]),
    ];
    for (known, wanted) in table {
        assert_eq!(steps(&cancelled, &known, Stored::NotAsked), wanted);
    }
    let mut waiting = job(Phase::Queued, false);
    waiting.spec.cancel = true;
    assert_eq!(steps(&waiting, &known(None, vec![]), Stored::NotAsked), ["Tell Cancelled", "Turns"]);
}

/// Workers without an end, pods whose node is gone, templates that are gone: the turn ends, and others have theirs.
#[test]
fn a_turn_has_an_end() {
    let mut endless = job(Phase::Running, true);
    endless.status.get_or_insert_default().admitted_at = Some(at(NOW - LONGEST - 900));
    let still = known(Some(batch(None)), vec![pod(None)]);
    assert_eq!(steps(&endless, &still, Stored::NotAsked), ["EndPod", "RemoveBatch"]);
    let none = known(None, vec![pod(Some(NOW - 301))]);
    assert_eq!(steps(&endless, &none, Stored::NotAsked), ["AskStore"]);
    assert_eq!(steps(&endless, &none, Stored::Nothing), ["EndKey", "Tell Failed", "Turns"]);

    // A node is gone, and with it whoever could say that the pod has ended.
    let running = job(Phase::Running, true);
    for (since, wanted) in
        [(300, vec!["Tell Starting".to_owned(), "Wait(60s)".to_owned()]), (301, vec!["AskStore".to_owned()])]
    {
        let failing = known(Some(batch(Some("FailureTarget"))), vec![pod(Some(NOW - since))]);
        let got = steps(&running, &failing, Stored::NotAsked);
        assert_eq!(got.first(), wanted.first(), "{since}: {got:?}");
        assert!(since != 300 || got.last() == wanted.last(), "{got:?}");
    }
    let mut cancelled = job(Phase::Running, true);
    cancelled.spec.cancel = true;
    let lost = known(None, vec![pod(Some(NOW - 301))]);
    assert_eq!(steps(&cancelled, &lost, Stored::NotAsked), ["EndKey", "Tell Cancelled", "Turns"]);

    let mut without_template = known(None, vec![]);
    without_template.worker = Err(("TemplateNotFound", "it is gone".to_owned()));
    assert_eq!(steps(&job(Phase::Starting, true), &without_template, Stored::NotAsked), ["Tell Queued", "Turns"]);
}

#[test]
fn results_go_with_the_job_after_its_pods() {
    let mut going = job(Phase::Running, true);
    going.metadata.deletion_timestamp = Some(at(NOW));
    assert_eq!(steps(&going, &known(Some(batch(None)), vec![pod(None)]), Stored::NotAsked), ["EndPod", "RemoveBatch"]);
    assert_eq!(steps(&going, &known(None, vec![]), Stored::NotAsked), ["RemoveResults", "Release", "Turns"]);
    going.metadata.finalizers = None;
    assert_eq!(steps(&going, &known(None, vec![]), Stored::NotAsked), Vec::<String>::new());
}

#[test]
fn a_job_that_ended_goes_when_its_time_is_over() {
    let mut done = job(Phase::Succeeded, true);
    let status = done.status.get_or_insert_default();
    status.finished_at = Some(at(NOW - 10));
    let none = known(None, vec![]);
    assert_eq!(steps(&done, &none, Stored::NotAsked), Vec::<String>::new());
    for (ttl, wanted) in [(60, "Wait(50s)"), (10, "Remove"), (0, "Remove")] {
        done.spec.ttl_seconds_after_finished = Some(ttl);
        assert_eq!(steps(&done, &none, Stored::NotAsked), [wanted]);
    }
}

#[test]
fn a_worker_out_of_time_has_no_minutes_for_its_end() {
    let failing = known(Some(batch(Some("FailureTarget"))), vec![pod(Some(NOW + 600)), pod(Some(NOW + 5))]);
    let steps = steps(&job(Phase::Running, true), &failing, Stored::NotAsked);
    assert_eq!(steps.iter().filter(|step| *step == "EndPod").count(), 1, "{steps:?}");
}
