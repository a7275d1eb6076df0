//! Who calls: programs by REST, people in a browser, the command line.

use anyhow::{Result, ensure};
use liqo_test::{
    browser::{Browser, WIDE},
    stage::LONG,
    wait_for,
};
use serde_json::json;

use super::{
    rest::Rest,
    work::{self, NAMESPACE, SYSTEM, Work},
};
use crate::SUITE;

/// A job by REST: submitted twice with one key, followed, its results by the byte and in parts; nobody does what RBAC does not let
/// that user do.
#[test]
fn the_api_does_what_its_caller_may_do() -> Result<()> {
    SUITE.tell(|stage| {
        let rome = stage.cluster("rome");
        let (editor, viewer) = (Rest::of(rome, "editor")?, Rest::of(rome, "viewer")?);
        let job = json!({"spec": {"template": work::template("printf 'a\\r\\n\\377b' > /output/r; echo said"), "placement": "Remote"}});
        let first = editor.post("/api/v1/jobs", &job, &["-H", "Idempotency-Key: one"])?;
        ensure!(first.code == 201, "{first:?}");
        let again = editor.post("/api/v1/jobs", &job, &["-H", "Idempotency-Key: one"])?;
        ensure!(again.code == 200 && again.json()?["uid"] == first.json()?["uid"], "{again:?}");
        let other = json!({"spec": {"template": work::template("true")}});
        ensure!(editor.post("/api/v1/jobs", &other, &["-H", "Idempotency-Key: one"])?.code == 422);
        let name = first.json()?["name"].as_str().unwrap_or_default().to_owned();
        ensure!(Work::new(&name, "").ended(rome)?["status"]["phase"] == "Succeeded");

        let path = format!("/api/v1/jobs/{name}/results/r");
        let whole = editor.get(&path, &[])?;
        ensure!(whole.code == 200 && whole.body == b"a\r\n\xffb", "{whole:?}");
        let part = editor.get(&path, &["-r", "1-3"])?;
        ensure!(part.code == 206 && part.body == b"\r\n\xff", "{part:?}");
        ensure!(editor.get(&path, &["-r", "9-"])?.code == 416);
        ensure!(editor.get(&format!("/api/v1/jobs/{name}/log"), &[])?.body == b"said\n");
        for missing in ["nothing", "../r", "%2e%2e/r", ".liqo/manifest.json"] {
            let refused = editor.get(&format!("/api/v1/jobs/{name}/results/{missing}"), &["--path-as-is"])?;
            ensure!(refused.code == 404, "{missing}: {refused:?}");
        }

        let endless = json!({"name": "rest-endless", "spec": {"template": work::template("sleep 600"), "ttlSecondsAfterFinished": 1}});
        ensure!(editor.post("/api/v1/jobs", &endless, &[])?.code == 201);
        ensure!(editor.post("/api/v1/jobs/rest-endless/cancel", &json!({}), &[])?.code == 202);
        wait_for("the cancelled job is gone when its time is over", LONG, || {
            Ok((editor.get("/api/v1/jobs/rest-endless", &[])?.code == 404).then_some(()))
        })?;

        ensure!(viewer.get(&format!("/api/v1/jobs/{name}"), &[])?.code == 200);
        ensure!(viewer.get(&path, &[])?.code == 403 && viewer.post("/api/v1/jobs", &job, &[])?.code == 403);
        let nobody = Rest::unknown(rome)?;
        ensure!(nobody.get("/api/v1/jobs", &[])?.code == 401);
        let bad = editor.post("/api/v1/jobs", &json!({"spec": {}}), &[])?;
        ensure!(bad.code == 422 && bad.text().contains("either templateName"), "{bad:?}");
        ensure!(editor.post("/api/v1/jobs", &json!({"spec": {}, "sepc": 1}), &[])?.code == 400);
        Ok(())
    })
}

/// Whoever has a link reads one result, until the time of the link or the right of who made the link ends.
#[test]
fn a_link_opens_one_result_for_a_while() -> Result<()> {
    SUITE.tell(|stage| {
        let rome = stage.cluster("rome");
        let work = work::linked();
        work.submit(rome)?;
        ensure!(work.ended(rome)?["status"]["phase"] == "Succeeded");
        let (editor, viewer, nobody) = (Rest::of(rome, "editor")?, Rest::of(rome, "viewer")?, Rest::unknown(rome)?);
        let links = "/api/v1/jobs/linked/links";
        let made = editor.post(links, &json!({"path": "deep r"}), &[])?;
        ensure!(made.code == 201, "{made:?}");
        let url = made.json()?["url"].as_str().unwrap_or_default().to_owned();
        let whole = nobody.get(&url, &[])?;
        ensure!(whole.code == 200 && whole.body == b"a\r\n\xffb", "{whole:?}");
        let part = nobody.get(&url, &["-r", "1-3"])?;
        ensure!(part.code == 206 && part.body == b"\r\n\xff", "{part:?}");
        ensure!(nobody.post(&url, &json!({}), &[])?.code == 401, "a link is read and nothing else");

        let short = editor.post(links, &json!({"path": "other", "seconds": 1}), &[])?.json()?;
        let short = short["url"].as_str().unwrap_or_default().to_owned();
        wait_for("the time of the link is over", LONG, || Ok((nobody.get(&short, &[])?.code == 403).then_some(())))?;
        let (_, key) = url.rsplit_once('/').unwrap_or_default();
        let other = format!("/links/B{}", key.get(1..).unwrap_or_default());
        ensure!(nobody.get(&other, &[])?.code == 403, "a link that nobody made");
        for (body, code) in [
            (json!({"path": "nothing"}), 404),
            (json!({"path": "../other"}), 404),
            (json!({"path": "other", "seconds": 86_401}), 400),
            (json!({"path": "other", "seconds": 0}), 400),
            (json!({"path": "other", "second": 1}), 400),
        ] {
            let refused = editor.post(links, &body, &[])?;
            ensure!(refused.code == code, "{body}: {refused:?}");
        }
        ensure!(viewer.post(links, &json!({"path": "other"}), &[])?.code == 403);
        let log = rome.kubectl(&["logs", "-n", SYSTEM, "deployment/liqo-jobs-api"])?;
        ensure!(log.contains("/links/") && !log.contains(key), "the log shows a link");
        Ok(())
    })
}

/// A log that is followed comes line by line, also to who connects again.
#[test]
fn a_log_is_followed_line_by_line() -> Result<()> {
    SUITE.tell(|stage| {
        let rome = stage.cluster("rome");
        let work =
            Work::new("talks", "echo one; sleep 2; printf '\\377two\\n'; sleep 1; printf three").placed("Remote");
        work.submit(rome)?;
        work.phase(rome, "Running")?;
        let editor = Rest::of(rome, "editor")?;
        let follow = |more: &[&str]| {
            editor.get("/api/v1/jobs/talks/log", &[&["-N", "-H", "Accept: text/event-stream"], more].concat())
        };
        let text = follow(&[])?.text();
        let data: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        ensure!(data == ["\"one\"", "\"\u{fffd}two\"", "\"three\"", "null"], "{text}");
        let first = text.lines().find_map(|line| line.strip_prefix("id: ")).unwrap_or_default();
        let rest = follow(&["-H", &format!("Last-Event-ID: {first}")])?.text();
        ensure!(!rest.contains("\"one\"") && rest.contains("\"three\""), "{rest}");
        Ok(())
    })
}

/// The pages: complete without a script, live with one, with nothing that axe finds wrong.
#[test]
fn people_see_jobs_in_a_browser() -> Result<()> {
    SUITE.tell(|stage| {
        let rome = stage.cluster("rome");
        let done = work::seen();
        done.submit(rome)?;
        ensure!(done.ended(rome)?["status"]["phase"] == "Succeeded");
        let editor = Rest::of(rome, "editor")?;
        let page = editor.get("/jobs/seen", &["-H", "Accept: text/html"])?.text();
        for words in [
            "4 of 4 steps",
            "the job asks for another cluster",
            "liqo-milan",
            "href=\"/api/v1/jobs/seen/results/deep/a%20b\"",
        ] {
            ensure!(page.contains(words), "the page of a job does not say {words:?}: {page}");
        }
        ensure!(editor.get("/api/v1/jobs/seen/results/deep/a%20b", &[])?.body == b"a\n", "what the page links to");

        let browser = Browser::start()?;
        browser.resize(WIDE)?;
        browser.sign_in(&editor.url(""), editor.token(), "seen")?;
        browser.looks("jobs", "/")?;
        browser.open(&editor.url("/jobs/seen"))?;
        browser.shows("4 of 4 steps")?;
        browser.looks("job", "/jobs/seen")?;
        browser.resize(WIDE)?;
        browser.open(&editor.url("/"))?;
        browser.run("window.sameDocument = true")?;
        browser.shows("live, as of")?;
        let later = Work::new("seen-later", "sleep 3").placed("Local");
        later.submit(rome)?;
        browser.shows("seen-later")?;
        ensure!(browser.run("return window.sameDocument === true")? == true, "the page was loaded anew");
        ensure!(later.ended(rome)?["status"]["phase"] == "Succeeded");
        Ok(())
    })
}

/// The command line waits, prints for programs and ends with the exit code of the worker; the label of a queue is handed on.
#[test]
fn the_command_line_says_how_a_job_ended() -> Result<()> {
    SUITE.tell(|stage| {
        let rome = stage.cluster("rome");
        let image = "--image=localhost/busybox:1";
        let run = |more: &[&str]| stage.liqoctl(rome, &[&["job", "run", image], more].concat());
        let done =
            run(&["--name=cli-done", "--queue=none", "--wait", "-o", "json", "--", "sh", "-c", "echo x > /output/x"])?;
        let job: serde_json::Value = serde_json::from_str(&done)?;
        ensure!(job["status"]["phase"] == "Succeeded" && job["status"]["results"]["files"] == 1, "{job}");
        let batch = rome.json(&["job.batch", "-n", NAMESPACE, "cli-done"])?;
        ensure!(batch["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "none", "{}", batch["metadata"]);
        let failed = run(&["--name=cli-fails", "--wait", "--", "sh", "-c", "exit 7"]).expect_err("a worker that fails");
        let text = format!("{failed:#}");
        ensure!(text.contains("exit status: 7") && text.contains("the worker ended with exit code 7"), "{text}");
        let wide = stage.liqoctl(rome, &["job", "list", "-o", "wide"])?;
        ensure!(wide.lines().any(|line| line.starts_with("cli-fails") && line.contains("   7   ")), "{wide}");
        let yaml = stage.liqoctl(rome, &["job", "get", "cli-done", "-o", "yaml"])?;
        ensure!(yaml.contains("phase: Succeeded"), "{yaml}");
        Ok(())
    })
}
