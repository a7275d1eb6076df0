//! Jobs: submitted in rome, run in rome or milan, results in the embedded store, byte for byte.

mod jobs {
    mod callers;
    pub(crate) mod legacy;
    pub(crate) mod rest;
    pub(crate) mod stores;
    pub(crate) mod work;
}

use anyhow::{Context, Result, ensure};
use liqo_test::{Stage, Suite, stage::LONG, usage, wait_for};
use serde_json::json;

use jobs::{
    legacy,
    rest::{self, Rest},
    stores,
    work::{self, NAMESPACE, Place, SYSTEM, Work},
};

/// Jobs that ended, for what they cost.
const MANY: u64 = 500;

static SUITE: Suite<Stage> = Suite::new("jobs", raise);

fn raise() -> Result<Stage> {
    let stage = Stage::raise("jobs", &["rome", "milan"])?;
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
    let legacy = legacy::values();
    let jobs = ["--set", "jobs.enabled=true,jobs.store.persistence.enabled=false", "--set", &legacy];
    legacy::token(rome)?;
    stage.everywhere(|cluster| {
        let values: &[&str] = if cluster.name() == "rome" { &jobs } else { &[] };
        stage.install(cluster, cluster.name(), values)
    })?;
    stage.peer(rome, milan)?;
    stage.liqoctl(rome, &["offload", "namespace", NAMESPACE])?;
    ["liqo-store", "liqo-jobs", "liqo-jobs-api"].iter().try_for_each(|name| rome.rolled_out(SYSTEM, name))?;
    rest::accounts(rome)?;
    // These run, and end, while other stories are told.
    work::early().iter().try_for_each(|work| work.submit(rome))?;
    let endless = work::endless();
    endless.submit(rome)?;
    endless.phase(rome, "Running")?;
    endless.cancel(rome)?;
    Ok(stage)
}

/// The same job at home and on the provider leaves the same bytes in the store.
#[test]
fn results_are_the_bytes_the_worker_wrote() -> Result<()> {
    SUITE.tell(|stage| {
        let rome = stage.cluster("rome");
        let both = work::bytes();
        both.iter().try_for_each(|work| work.submit(rome))?;
        for (work, on) in both.iter().zip(["liqo-milan".to_owned(), rome.first()]) {
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
        let work = work::fails();
        work.submit(rome)?;
        let job = work.ended(rome)?;
        let status = &job["status"];
        ensure!(status["phase"] == "Failed" && status["exitCode"] == 3, "{status}");
        ensure!(status["reason"] == "BackoffLimitExceeded" && status["results"]["files"] == 1, "{status}");
        Ok(())
    })
}

/// A cancelled job ends within its farewell and never comes back; a deleted one takes its results along. The job was cancelled with the
/// stage.
#[test]
fn what_is_cancelled_ends_and_what_is_deleted_leaves_nothing() -> Result<()> {
    SUITE.tell(|stage| {
        let rome = stage.cluster("rome");
        let job = work::endless().ended(rome)?;
        ensure!(job["status"]["phase"] == "Cancelled", "{}", job["status"]);
        let left = |kind: &str, label: &str| rome.items(&[kind, "-n", NAMESPACE, "-l", &format!("{label}=endless")]);
        let pods = left("pods", "batch.kubernetes.io/job-name")?;
        ensure!(
            pods.is_empty() && left("jobs.batch", "jobs.liqo.io/job")?.is_empty(),
            "something of a cancelled job is left"
        );
        let place = Place::of(rome, "endless")?;
        ensure!(place.objects(rome)? > 0, "what the worker wrote before its end is not in the store");
        rome.kubectl(&["delete", "-n", NAMESPACE, "jobs.jobs.liqo.io", "endless"])?;
        ensure!(place.objects(rome)? == 0, "a deleted job left results behind");
        Ok(())
    })
}

/// A provider has the key of a job while it runs the worker, and never that of another job or the master key.
#[test]
fn a_provider_has_the_key_of_the_job_it_runs_and_no_other() -> Result<()> {
    SUITE.tell(|stage| {
        let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
        let secrets = || work::secrets_of_provider(milan);
        let both = [("key-here", "Local"), ("key-there", "Remote")]
            .map(|(name, placement)| Work::new(name, "trap exit TERM; sleep 600 & wait").placed(placement));
        both.iter().try_for_each(|work| work.submit(rome))?;
        for work in &both {
            work.phase(rome, "Running")?;
        }
        let keys: Vec<_> = secrets()?.into_iter().filter(|name| name.starts_with("liqo-")).collect();
        ensure!(keys.contains(&"liqo-results-key-there".to_owned()), "the provider has {keys:?}");
        ensure!(!keys.contains(&"liqo-results-key-here".to_owned()), "the key of a job at home left: {keys:?}");
        ensure!(!keys.contains(&"liqo-store-key".to_owned()), "the master key left: {keys:?}");
        both.iter().try_for_each(|work| work.cancel(rome))?;
        for work in &both {
            ensure!(work.ended(rome)?["status"]["phase"] == "Cancelled");
        }
        wait_for("the key is gone with the worker", LONG, || {
            Ok((!secrets()?.contains(&"liqo-results-key-there".to_owned())).then_some(()))
        })?;
        let here = rome.items(&["secrets", "-n", NAMESPACE])?;
        let is_left = |secret: &serde_json::Value| secret["metadata"]["name"] == "liqo-results-key-here";
        ensure!(!here.iter().any(is_left), "the key of a job that has ended is left");
        Ok(())
    })
}

/// Nobody submits in the name of another user, and no worker gets a Secret of Liqo.
#[test]
fn nobody_borrows_a_name_or_a_key() -> Result<()> {
    SUITE.tell(|stage| {
        let rome = stage.cluster("rome");
        let job = |submitter: &str, name: &str| {
            json!({"apiVersion": "jobs.liqo.io/v1alpha1", "kind": "Job",
                "metadata": {"name": name, "namespace": NAMESPACE, "annotations": {"jobs.liqo.io/submitter": submitter}},
                "spec": {"template": work::template("true"), "cancel": true}})
            .to_string()
        };
        let refused = rome.apply(&job("somebody-else", "borrowed")).expect_err("a job in the name of another user");
        ensure!(format!("{refused:#}").contains("names the user who submits the job"), "{refused:#}");
        let source = json!([{"secretRef": {"name": "liqo-store-key"}}]);
        let spec = json!({"template": work::template("true"), "envFrom": source});
        let refused = work::apply(rome, "thief", &spec).expect_err("a job that names a Secret of Liqo");
        ensure!(format!("{refused:#}").contains("belong to Liqo"), "{refused:#}");
        let editor = Rest::of(rome, "editor")?;
        let answer = editor.post("/api/v1/jobs", &json!({"spec": spec}), &[])?;
        ensure!(answer.code == 422 && answer.text().contains("belong to Liqo"), "{answer:?}");
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

/// Variables of 32 KiB each.
fn large_env(count: usize) -> serde_json::Value {
    (0..count).map(|n| json!({"name": format!("V{n}"), "value": "x".repeat(32_000)})).collect()
}

/// Who may edit the namespace of the jobs gets neither the master key of the store nor a process, an account or a volume that has it;
/// a master key that an earlier version left there goes. Jobs are limited in number.
#[test]
fn an_editor_of_jobs_has_no_power_over_the_store() -> Result<()> {
    SUITE.tell(|stage| {
        let rome = stage.cluster("rome");
        let editor = format!("--as={}", rest::account("editor"));
        let may = |verb: &str, what: &str, namespace: &str| {
            let answer = rome.kubectl(&["auth", "can-i", verb, what, "-n", namespace, &editor]);
            answer.is_ok_and(|said| said.trim() == "yes")
        };
        ensure!(may("get", "secrets", NAMESPACE) && may("create", "pods", NAMESPACE), "the role edit is another one");
        for (verb, what) in [("get", "secrets"), ("create", "pods"), ("create", "pods/exec"), ("get", "pods")] {
            ensure!(!may(verb, what, SYSTEM), "an editor of jobs may {verb} {what} in {SYSTEM}");
        }
        let keys = rome.items(&["secrets", "-n", SYSTEM])?;
        for name in ["liqo-store-key", "liqo-jobs-api-key"] {
            ensure!(keys.iter().any(|one| one["metadata"]["name"] == name), "Secret {name} is not in {SYSTEM}");
            let there = rome.kubectl(&["get", "secret", "-n", NAMESPACE, name]);
            ensure!(there.is_err(), "Secret {name} is where an editor of jobs reads it");
        }
        for kind in ["deployments", "pvc"] {
            let there = rome.items(&[kind, "-n", NAMESPACE])?;
            ensure!(there.is_empty(), "{kind} where an editor has power: {there:?}");
        }
        let accounts = rome.items(&["serviceaccounts", "-n", NAMESPACE])?;
        let is_ours =
            |one: &serde_json::Value| one["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("liqo-"));
        ensure!(!accounts.iter().any(is_ours), "accounts of ours where an editor has power: {accounts:?}");

        wait_for("jobs are limited in number", LONG, || {
            let quotas = rome.items(&["resourcequotas", "-n", NAMESPACE])?;
            Ok(quotas.iter().any(|one| one["status"]["hard"]["count/jobs.jobs.liqo.io"] == "2k").then_some(()))
        })?;
        wait_for("no trial is left", LONG, || {
            Ok(rome.items(&["resourcequotas", "-n", SYSTEM])?.is_empty().then_some(()))
        })?;

        let old = [
            "create",
            "secret",
            "generic",
            "-n",
            NAMESPACE,
            "liqo-store-key",
            "--from-literal=master-key=0123456789abcdef0123456789abcdef",
        ];
        rome.kubectl(&old)?;
        rome.kubectl(&["rollout", "restart", "-n", SYSTEM, "deployment/liqo-jobs"])?;
        wait_for("the old master key is gone", LONG, || {
            Ok(rome.kubectl(&["get", "secret", "-n", NAMESPACE, "liqo-store-key"]).is_err().then_some(()))
        })?;
        rome.rolled_out(SYSTEM, "liqo-jobs")
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
            ("large", json!({"template": {"image": "b", "args": vec!["x".repeat(4096); 17]}}), "at most 64 KiB"),
            ("large-env", json!({"template": {"image": "b"}, "env": large_env(3)}), "at most 64 KiB"),
            ("amount", json!({"template": {"image": "b", "outputSize": "1".repeat(65)}}), "spec.template.outputSize"),
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
        rome.kubectl(&[
            "delete",
            "pods",
            "-n",
            SYSTEM,
            "-l",
            "app.kubernetes.io/name=jobs",
            "--force",
            "--grace-period=0",
        ])?;
        let job = work.ended(rome)?;
        ensure!(job["status"]["phase"] == "Succeeded" && job["status"]["attempts"] == 1, "{}", job["status"]);
        Ok(())
    })
}

/// A `batch/v1` Job of somebody else that has the name of a job is neither taken over nor touched: the job waits for its name.
#[test]
fn a_foreign_batch_job_is_never_adopted() -> Result<()> {
    SUITE.tell(|stage| {
        let rome = stage.cluster("rome");
        let foreign = json!({"apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": "taken", "namespace": NAMESPACE, "labels": {"jobs.liqo.io/job": "taken"}},
            "spec": {"template": {"spec": {"restartPolicy": "Never",
                "containers": [{"name": "worker", "image": "localhost/busybox:1", "command": ["sleep", "600"]}]}}}});
        rome.apply(&foreign.to_string())?;
        let work = Work::new("taken", "echo mine > /output/mine");
        work.submit(rome)?;
        work.reason(rome, "NameTaken")?;
        let uid = |cluster: &liqo_test::Cluster| -> Result<serde_json::Value> {
            Ok(cluster.json(&["job.batch", "-n", NAMESPACE, "taken"])?["metadata"]["uid"].clone())
        };
        let before = uid(rome)?;
        let other = Work::new("beside", "true");
        other.submit(rome)?;
        ensure!(other.ended(rome)?["status"]["phase"] == "Succeeded");
        ensure!(uid(rome)? == before, "the batch/v1 Job of somebody else was replaced");
        rome.kubectl(&["delete", "job.batch", "-n", NAMESPACE, "taken", "--wait=true"])?;
        let job = work.ended(rome)?;
        ensure!(job["status"]["phase"] == "Succeeded" && job["status"]["results"]["files"] == 1, "{}", job["status"]);
        Ok(())
    })
}

/// Jobs that ended cost the controller little memory, however much they were asked to do.
#[test]
fn thousands_of_jobs_that_ended_cost_little() -> Result<()> {
    SUITE.tell(|stage| {
        let rome = stage.cluster("rome");
        let pods = rome.pods(SYSTEM, "app.kubernetes.io/name=jobs")?;
        let (pod, _) = pods.first().context("no controller runs")?;
        let pid = rome.container_process(SYSTEM, pod, "jobs")?.pid;
        let before = usage::memory(pid)?.anonymous;
        let job = |number: u64| {
            json!({"apiVersion": "jobs.liqo.io/v1alpha1", "kind": "Job",
                "metadata": {"name": format!("many-{number}"), "namespace": NAMESPACE, "labels": {"story": "many"}},
                "spec": {"template": work::template(&"x".repeat(2000)), "cancel": true}})
        };
        let all: Vec<_> = (0..MANY).map(job).collect();
        rome.apply(&json!({"apiVersion": "v1", "kind": "List", "items": all}).to_string())?;
        wait_for("all are cancelled", LONG, || {
            let jobs = rome.items(&["ljob", "-n", NAMESPACE, "-l", "story=many"])?;
            let ended = jobs.iter().filter(|job| job["status"]["phase"] == "Cancelled").count();
            Ok((ended as u64 == MANY).then_some(()))
        })?;
        let added = usage::memory(pid)?.anonymous.saturating_sub(before);
        rome.kubectl(&["delete", "-n", NAMESPACE, "jobs.jobs.liqo.io", "-l", "story=many", "--wait=false"])?;
        // 10,000 of them stay below 60 MB.
        ensure!(added <= 5 * MANY, "{MANY} jobs that ended added {added} KiB to the controller");
        Ok(())
    })
}

/// Results go to a store that nobody here wrote, with keys for one job; stores that cannot work say why, and jobs wait for them.
#[test]
fn results_go_to_the_store_that_the_operator_names() -> Result<()> {
    SUITE.tell(|stage| stores::tell(stage.cluster("rome"), stage.cluster("milan")))
}

/// The command lines of the first generation, word for word but for the address.
#[test]
fn programs_of_the_first_generation_run_unchanged() -> Result<()> {
    SUITE.tell(|stage| legacy::seed(stage.cluster("rome")))
}

/// Files that describe a worker and its variables, by the fixed rules of the facade.
#[test]
fn programs_of_the_first_generation_send_files() -> Result<()> {
    SUITE.tell(|stage| legacy::files(stage.cluster("rome")))
}

/// Each hole of the first generation is closed: these requests did harm there.
#[test]
fn holes_of_the_first_generation_are_closed() -> Result<()> {
    SUITE.tell(|stage| legacy::holes(stage.cluster("rome")))
}

/// The paths of the later generation: services, workflows, states.
#[test]
fn programs_of_the_later_generation_run_unchanged() -> Result<()> {
    SUITE.tell(|stage| legacy::services(stage.cluster("rome")))
}

/// A program that nobody here wrote makes up requests from the OpenAPI document and compares the answers with it. Told last: it may find jobs
/// of other stories, and cancel or delete them.
#[test]
fn what_the_document_of_the_api_says_is_kept() -> Result<()> {
    SUITE.tell(|stage| {
        let rome = stage.cluster("rome");
        let kept = Rest::of(rome, "editor")?.keeps_its_document();
        // Jobs that were made up would keep the turns of other stories.
        work::remove_jobs_of(rome, &rest::account("editor"))?;
        kept
    })
}
