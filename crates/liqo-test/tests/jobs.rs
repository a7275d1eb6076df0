//! Jobs: submitted in rome, run in rome or milan, results in the embedded store, byte for byte.

mod jobs {
    pub(crate) mod work;
}

use anyhow::{Result, ensure};
use liqo_test::{Stage, Suite};
use serde_json::json;

use jobs::work::{self, NAMESPACE, Place, Work};

static SUITE: Suite<Stage> = Suite::new("jobs", raise);

fn raise() -> Result<Stage> {
    let stage = Stage::raise("jobs", &["rome", "milan"])?;
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
    let jobs = ["--set", "jobs.enabled=true", "--set", "jobs.store.persistence.enabled=false"];
    stage.install(rome, "rome", &jobs)?;
    stage.install(milan, "milan", &[])?;
    stage.peer(rome, milan)?;
    stage.liqoctl(rome, &["offload", "namespace", NAMESPACE])?;
    rome.rolled_out(NAMESPACE, "liqo-store")?;
    rome.rolled_out(NAMESPACE, "liqo-jobs")?;
    Ok(stage)
}

/// The same job at home and on the provider leaves the same bytes in the store.
#[test]
fn results_are_the_bytes_the_worker_wrote() -> Result<()> {
    SUITE.tell(|stage| {
        let rome = stage.cluster("rome");
        for (placement, on) in [("Remote", "liqo-milan"), ("Local", "rome-1")] {
            let work = Work::new(&format!("bytes-{}", placement.to_lowercase()), work::ALL_BYTES).placed(placement);
            work.submit(rome)?;
            let job = work.ended(rome)?;
            ensure!(job["status"]["phase"] == "Succeeded", "{}", job["status"]);
            ensure!(job["status"]["node"] == on, "the worker ran on {}", job["status"]["node"]);
            work::compare(rome, &job)?;
        }
        Ok(())
    })
}

/// A worker that fails says so, and what it left is in the store.
#[test]
fn a_failed_worker_keeps_its_results() -> Result<()> {
    SUITE.tell(|stage| {
        let rome = stage.cluster("rome");
        let work = Work::new("fails", "echo partly > /output/partly; exit 3").placed("Remote");
        work.submit(rome)?;
        let job = work.ended(rome)?;
        let status = &job["status"];
        ensure!(status["phase"] == "Failed" && status["exitCode"] == 3, "{status}");
        ensure!(status["reason"] == "BackoffLimitExceeded" && status["results"]["files"] == 1, "{status}");
        Ok(())
    })
}

/// A cancelled job ends within its farewell and never comes back; a deleted one takes its results along.
#[test]
fn a_cancelled_job_ends_and_a_deleted_one_leaves_nothing() -> Result<()> {
    SUITE.tell(|stage| {
        let rome = stage.cluster("rome");
        let work = Work::new("endless", "echo one > /output/one; trap '' TERM; while true; do sleep 1; done").placed("Remote");
        work.submit(rome)?;
        work.phase(rome, "Running")?;
        work.cancel(rome)?;
        let job = work.ended(rome)?;
        ensure!(job["status"]["phase"] == "Cancelled", "{}", job["status"]);
        let left = |kind: &str| rome.items(&[kind, "-n", NAMESPACE, "-l", "jobs.liqo.io/job=endless"]);
        ensure!(left("pods")?.is_empty() && left("jobs.batch")?.is_empty(), "something of a cancelled job is left");
        let place = Place::of(rome, "endless")?;
        ensure!(place.objects(rome)? > 0, "what the worker wrote before its end is not in the store");
        rome.kubectl(&["delete", "-n", NAMESPACE, "jobs.jobs.liqo.io", "endless"])?;
        ensure!(place.objects(rome)? == 0, "a deleted job left results behind");
        Ok(())
    })
}

/// More jobs than there are turns: all end, none runs twice, and never more at once than there are turns.
#[test]
fn jobs_wait_for_their_turn() -> Result<()> {
    SUITE.tell(|stage| {
        let rome = stage.cluster("rome");
        let all: Vec<_> = (0..8).map(|n| Work::new(&format!("turn-{n}"), "date > /output/when")).collect();
        all.iter().try_for_each(|work| work.submit(rome))?;
        for work in &all {
            let job = work.ended(rome)?;
            ensure!(job["status"]["phase"] == "Succeeded" && job["status"]["attempts"] == 1, "{}", job["status"]);
        }
        Ok(())
    })
}

/// What makes no sense is refused with a sentence, and what names nothing waits and says for what.
#[test]
fn bad_jobs_are_refused_or_say_why_they_wait() -> Result<()> {
    SUITE.tell(|stage| {
        let rome = stage.cluster("rome");
        let both = json!({"templateName": "a", "template": {"image": "b"}});
        for (name, spec, words) in [
            ("both", both, "either templateName"),
            ("none", json!({}), "either templateName"),
            ("dots", json!({"template": {"image": "b", "outputDir": "/a/../b"}}), "spec.template.outputDir"),
            ("retries", json!({"template": {"image": "b", "retries": -1}}), "spec.template.retries"),
        ] {
            let refused = work::apply(rome, name, &spec).expect_err("a job that makes no sense");
            ensure!(format!("{refused:#}").contains(words), "{name}: {refused:#}");
        }
        work::apply(rome, "unknown", &json!({"templateName": "nobody"}))?;
        let waiting = Work::new("unknown", "");
        waiting.reason(rome, "TemplateNotFound")?;
        let template = json!({"apiVersion": "jobs.liqo.io/v1alpha1", "kind": "JobTemplate",
            "metadata": {"name": "nobody", "namespace": NAMESPACE}, "spec": work::template("true")});
        rome.apply(&template.to_string())?;
        ensure!(waiting.ended(rome)?["status"]["phase"] == "Succeeded");
        let change = json!({"spec": {"templateName": "other"}}).to_string();
        let refused = rome.kubectl(&["patch", "-n", NAMESPACE, "ljob", "unknown", "--type=merge", "-p", &change]);
        ensure!(refused.is_err_and(|error| format!("{error:#}").contains("cannot be changed")), "a job was changed");
        Ok(())
    })
}

/// The controller, the store and the pod of a worker end in the middle: the job is done once, and nothing is lost.
#[test]
fn a_controller_that_is_killed_loses_nothing() -> Result<()> {
    SUITE.tell(|stage| {
        let rome = stage.cluster("rome");
        let work = Work::new("survivor", "sleep 3; echo here > /output/here").placed("Remote");
        work.submit(rome)?;
        work.phase(rome, "Running")?;
        rome.kubectl(&["delete", "pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=jobs", "--force", "--grace-period=0"])?;
        let job = work.ended(rome)?;
        ensure!(job["status"]["phase"] == "Succeeded" && job["status"]["attempts"] == 1, "{}", job["status"]);
        Ok(())
    })
}
