//! The facade for programs of earlier generations, as their users call it: with curl in a shell.

use anyhow::{Context, Result, ensure};
use liqo_test::{Cluster, run};
use serde_json::{Value, json};

use super::{
    rest,
    work::{self, Forward, NAMESPACE, SYSTEM, Work},
};

/// The token that callers of the later generation show.
const TOKEN: &str = "s3cr3t-of-the-services";

/// Values that switch the facade on.
pub(crate) fn values() -> String {
    let user = rest::account("legacy");
    let on = format!("jobs.api.legacy.enabled=true,jobs.api.legacy.user={user}");
    format!(
        "{on},jobs.api.legacy.images={{localhost/busybox:*}},jobs.api.legacy.servicesTokenSecretName=liqo-services-token"
    )
}

/// The Secret with the token, before the installation that wants it.
pub(crate) fn token(cluster: &Cluster) -> Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM,
        "labels": {"app.kubernetes.io/managed-by": "Helm"},
        "annotations": {"meta.helm.sh/release-name": "liqo", "meta.helm.sh/release-namespace": "liqo"}}});
    cluster.apply(&namespace.to_string())?;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"token": TOKEN}, "metadata": {
        "name": "liqo-services-token", "namespace": SYSTEM}});
    cluster.apply(&secret.to_string()).map(drop)
}

/// The facade of earlier generations, and a directory for files.
struct Legacy {
    forward: Forward,
    directory: std::path::PathBuf,
}

impl Drop for Legacy {
    fn drop(&mut self) {
        // A directory that stays behind is in the directory for temporary files.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Legacy {
    /// Where a user finds the facade: on the loopback address of its pod.
    fn of(cluster: &Cluster, story: &str) -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("liqo-jobs-{story}-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        Ok(Self { forward: Forward::to(cluster, "deployment/liqo-jobs-api", 8888)?, directory })
    }

    /// Runs lines of a shell in which `$A` is the address of the facade; gives what they print.
    fn script(&self, lines: &str) -> Result<Vec<u8>> {
        let mut shell = run::command("bash");
        shell.args(["-euo", "pipefail", "-c", lines]).current_dir(&self.directory);
        shell.env("A", format!("http://127.0.0.1:{}", self.forward.port)).env("TOKEN", TOKEN);
        let output = shell.output().context("cannot run bash")?;
        ensure!(output.status.success(), "{lines}: {}", run::tail(&String::from_utf8_lossy(&output.stderr), 8));
        Ok(output.stdout)
    }

    fn text(&self, lines: &str) -> Result<String> {
        Ok(String::from_utf8(self.script(lines)?)?.trim().to_owned())
    }

    fn json(&self, lines: &str) -> Result<Value> {
        let text = self.text(lines)?;
        serde_json::from_str(&text).with_context(|| format!("{lines}: no JSON: {text}"))
    }

    /// The status code of a request.
    fn code(&self, curl: &str) -> Result<String> {
        self.text(&format!("curl -s -o /dev/null -w '%{{http_code}}' {curl}"))
    }
}

/// Writes a JobTemplate.
fn template(cluster: &Cluster, name: &str, script: &str) -> Result<()> {
    let template = json!({"apiVersion": "jobs.liqo.io/v1alpha1", "kind": "JobTemplate",
        "metadata": {"name": name, "namespace": NAMESPACE}, "spec": work::template(script)});
    cluster.apply(&template.to_string()).map(drop)
}

/// The one template that the facade runs: its worker leaves a file, and the variables that were sent.
const WORKER: &str = "printf '\\377\\000x' > /output/result; env | grep ^SENT_ | sort > /output/sent || true; mkdir -p /output/deep; \
    echo quoted > '/output/deep/a;b $(touch x)'";

/// Waits until the job with this UID has ended well.
fn succeeded(cluster: &Cluster, id: &str) -> Result<String> {
    let name = work::by_uid(cluster, id)?;
    let job = Work::new(&name, "").ended(cluster)?;
    ensure!(job["status"]["phase"] == "Succeeded", "{}", job["status"]);
    Ok(name)
}

pub(crate) fn seed(rome: &Cluster) -> Result<()> {
    template(rome, "legacy", WORKER)?;
    let legacy = Legacy::of(rome, "seed")?;
    ensure!(legacy.script("curl -XGET $A/health")? == br#"{"health":"alive"}"#);
    let id = legacy.text("curl -XGET $A/job/deploy | jq -r .job_uuid")?;
    succeeded(rome, &id)?;
    let run = |line: &str| legacy.script(&format!("JOB_ID={id}; {line}"));
    let results = br#"["deep/a;b $(touch x)","result","sent"]"#;
    ensure!(run("curl -XGET $A/job/$JOB_ID/result/list")? == results);
    ensure!(run("curl -XGET $A/job/$JOB_ID/resultnew/list/")? == results);
    ensure!(run("curl -XGET $A/job/$JOB_ID/result?file=result")? == b"\xff\x00x");
    ensure!(run("curl -XGET $A/job/$JOB_ID/resultnew/?result_file=result")? == b"\xff\x00x");
    ensure!(run("curl -XGET $A/job/$JOB_ID/result?file=/output/result")? == b"\xff\x00x");
    ensure!(run("curl -XPOST $A/job/$JOB_ID/result/store/")? == b"{}");
    ensure!(run("curl -XGET $A/job/$JOB_ID | jq -r '.[\"pod.status.phase\"]'")? == b"Succeeded\n");
    let head = String::from_utf8(run("curl -s -D - -o /dev/null $A/job/$JOB_ID")?)?.to_lowercase();
    ensure!(head.contains("\r\ndeprecation: @") && head.contains("rel=\"successor-version\""), "{head}");
    ensure!(legacy.code(&format!("-XDELETE $A/job/{id}"))? == "202");
    liqo_test::wait_for("the deleted job is unknown", liqo_test::stage::LONG, || {
        Ok((legacy.code(&format!("-XDELETE $A/job/{id}"))? == "404").then_some(()))
    })?;
    ensure!(legacy.script("curl -XGET $A/demo > resultfile; cat resultfile")? == b"\xff\x00x");
    // Whoever does not wait so long is told where the job is.
    let head = legacy.text("curl -s -D - -o /dev/null $A/demo?timeout=0")?;
    ensure!(head.starts_with("HTTP/1.1 202") && head.to_lowercase().contains("location: /job/"), "{head}");
    let quit = legacy.json("curl -sXPOST $A/demo/forceQuit")?;
    let name = work::by_uid(rome, quit["job_id"].as_str().unwrap_or_default())?;
    let ended = Work::new(&name, "").ended(rome)?;
    // A worker of a second may have ended before.
    ensure!(["Cancelled", "Succeeded"].map(Value::from).contains(&ended["status"]["phase"]), "{}", ended["status"]);
    ensure!(legacy.script("curl -sXPOST $A/demo/forceQuit")? == b"{}", "nobody waits any more");
    Ok(())
}

pub(crate) fn files(rome: &Cluster) -> Result<()> {
    template(rome, "legacy", WORKER)?;
    let legacy = Legacy::of(rome, "files")?;
    legacy.script(concat!(
        "printf 'WORKER_IMAGE=localhost/busybox:1\\nGPU=false\\nRESULT_DIRECTORY=/output/\\n' > job.env\n",
        r#"printf '\xef\xbb\xbf# comment\r\nexport SENT_A="a # b" # c\r\nSENT_B=${SENT_A}$(id)`id`\nSENT_C=1\nSENT_C=2\nSENT_TOKEN=hidden\n# secret\nSENT_D=apart\n' > worker.env"#,
    ))?;
    let wanted = "SENT_A=a # b\nSENT_B=${SENT_A}$(id)`id`\nSENT_C=2\nSENT_D=apart\nSENT_TOKEN=hidden";
    let sent = |id: &str| legacy.text(&format!("curl -s $A/job/{id}/result?file=sent"));

    let told = legacy.json("curl -sXPOST $A/job/deploy/ -F config_data=@job.env -F env_file=@worker.env")?;
    ensure!(told["status"] == "job deployed", "{told}");
    let name = succeeded(rome, told["job_uuid"].as_str().unwrap_or_default())?;
    ensure!(sent(told["job_uuid"].as_str().unwrap_or_default())? == wanted);
    let plain = rome.json(&["configmap", "-n", NAMESPACE, &name])?;
    let keys = |object: &Value| object["data"].as_object().map(|data| data.keys().cloned().collect::<Vec<_>>());
    ensure!(keys(&plain) == Some(vec!["SENT_A".into(), "SENT_B".into(), "SENT_C".into()]), "{plain}");
    let secret = rome.json(&["secret", "-n", NAMESPACE, &name])?;
    ensure!(keys(&secret) == Some(vec!["SENT_D".into(), "SENT_TOKEN".into()]), "{secret}");
    ensure!(plain["metadata"]["ownerReferences"][0]["name"] == name.as_str(), "what is sent goes with the job");

    let resource =
        legacy.json("curl -sXPOST $A/resource/env/ -F 'env_file=@worker.env;filename=../../etc/worker.env'")?;
    let id = resource["resource_id"].as_str().unwrap_or_default().to_owned();
    ensure!(resource["filename"] == "../../etc/worker.env" && id.starts_with("env-"), "{resource}");
    let told = legacy.json(&format!("curl -sXPOST $A/job/deploy/?config_map_ref={id}"))?;
    let job = told["job_uuid"].as_str().unwrap_or_default().to_owned();
    succeeded(rome, &job)?;
    ensure!(sent(&job)? == wanted, "{}", sent(&job)?);
    ensure!(legacy.script(&format!("curl -sXDELETE $A/resource/env/{id}"))? == b"{}");
    ensure!(legacy.code(&format!("-XDELETE $A/resource/env/{id}"))? == "404");

    // A file in a GET, as the first generation sends them.
    let demo = legacy.json("curl -sXGET $A/demo -F config_data=@job.env -F env_file=@worker.env")?;
    ensure!(demo["job_results"] == json!(["deep/a;b $(touch x)", "result", "sent"]), "{demo}");
    ensure!(sent(demo["job_id"].as_str().unwrap_or_default())? == wanted);
    Ok(())
}

pub(crate) fn holes(rome: &Cluster) -> Result<()> {
    template(rome, "legacy", WORKER)?;
    let legacy = Legacy::of(rome, "holes")?;
    let id = legacy.text("curl -s $A/job/deploy | jq -r .job_uuid")?;
    succeeded(rome, &id)?;
    // A shell ran what a file was called.
    let named = format!("curl -sG $A/job/{id}/result --data-urlencode 'file=deep/a;b $(touch x)'");
    ensure!(legacy.text(&named)? == "quoted");
    for (file, code) in [
        ("/output2/result", "400"),
        ("../output2/result", "400"),
        ("/etc/passwd", "400"),
        ("/output/../etc/passwd", "400"),
        ("result; id", "404"),
        ("$(id)", "404"),
        ("a%0Ab", "404"),
        (".liqo/manifest.json", "404"),
    ] {
        let got = legacy.code(&format!("-G $A/job/{id}/result --data-urlencode 'file={file}'"))?;
        ensure!(got == code, "{file}: {got}");
    }
    let long =
        legacy.code(&format!("-G $A/job/{id}/result --data-urlencode file=$(head -c 1000 /dev/zero | tr '\\0' x)"))?;
    ensure!(long == "404", "{long}");
    // Too long, wrong, or for another image than the operator allows.
    legacy.script("truncate -s 2G huge; head -c 1048577 /dev/zero | tr '\\0' '#' > long; printf 'A=\\xff' > bad; printf 'WORKER_IMAGE=evil' > image; printf 'A=1\\nB C' > odd")?;
    for (form, code) in [
        ("env_file=@huge", "413"),
        ("env_file=@long", "413"),
        ("env_file=@bad", "400"),
        ("env_file=@odd", "400"),
        ("config_data=@image", "403"),
    ] {
        let got = legacy.code(&format!("-XPOST $A/job/deploy/ -F {form}"))?;
        ensure!(got == code, "{form}: {got}");
    }
    // A page of another site, and a ConfigMap that the facade did not make.
    ensure!(legacy.code("-XPOST -H 'Origin: https://evil.example' $A/job/deploy")? == "403");
    ensure!(legacy.code("-XDELETE $A/resource/env/kube-root-ca.crt")? == "404");
    ensure!(legacy.code("$A/job/no-such-job")? == "404");
    // The facade does what its user may do, and no more.
    rome.kubectl(&["delete", "rolebinding", "-n", NAMESPACE, "legacy"])?;
    let refused = liqo_test::wait_for("the user of the facade may nothing", liqo_test::stage::LONG, || {
        Ok((legacy.code("$A/job/deploy")? == "403" && legacy.code(&format!("-XDELETE $A/job/{id}"))? == "403")
            .then_some(()))
    });
    let account = format!("--serviceaccount={NAMESPACE}:legacy");
    rome.kubectl(&["create", "rolebinding", "-n", NAMESPACE, "legacy", "--clusterrole=edit", &account])?;
    refused
}

pub(crate) fn services(rome: &Cluster) -> Result<()> {
    template(rome, "service", "echo started; env | grep ^SENT_ > /output/sent; sleep 2; echo done")?;
    let legacy = Legacy::of(rome, "services")?;
    for token in ["", "-H 'access-token: wrong'", "-H 'access-token:'"] {
        ensure!(legacy.code(&format!("{token} $A/services/"))? == "403", "{token}");
    }
    let ask = |words: &str| legacy.json(&format!("curl -s -H \"access-token: $TOKEN\" {words}"));
    let all = ask("$A/services/")?;
    ensure!(all.as_array().is_some_and(|all| all.iter().any(|one| one["service_id"] == "service")), "{all}");
    let info = ask("$A/services/service/info")?;
    ensure!(info["workflow_resource"]["worker_image"] == "localhost/busybox:1", "{info}");
    legacy.script("printf 'SENT_A=first\\nSENT_TOKEN=t\\n' > input.env")?;
    ask("-X PUT $A/services/service/input/environment -F file=@input.env")?;
    let first = ask("-X POST $A/services/service/workflow/execute")?;
    let id = first["workflow_id"].as_str().unwrap_or_default().to_owned();
    let status = |level: u8| {
        ask(&format!("'$A/services/service/workflow/status/{id}?verbose_level={level}'").replace('\'', "\""))
    };
    liqo_test::wait_for("the workflow has finished", liqo_test::stage::LONG, || {
        Ok((status(0)?["state"] == "FINISHED").then_some(()))
    })?;
    ensure!(status(2)?["logs"] == "started\ndone\n", "{}", status(2)?);
    let output = |more: &str| {
        legacy.text(&format!("curl -s -H \"access_token: $TOKEN\" \"$A/services/service/output?resource=sent{more}\""))
    };
    ensure!(output("")?.contains("SENT_A=first"), "{}", output("")?);
    // Results stay with their workflow, also when another one has ended.
    legacy.script("printf 'SENT_A=second\\n' > input.env")?;
    ask("-X PUT $A/services/service/input/environment -F file=@input.env")?;
    let second = ask("-X POST $A/services/service/workflow/execute")?["workflow_id"].clone();
    succeeded(rome, second.as_str().unwrap_or_default())?;
    ensure!(output("")? == "SENT_A=second" && output(&format!("&workflow_id={id}"))?.contains("SENT_A=first"));
    let third = ask("-X POST $A/services/service/workflow/execute")?["workflow_id"].clone();
    let third = third.as_str().unwrap_or_default();
    ask(&format!("-X POST $A/services/service/workflow/stop/{third}"))?;
    let name = work::by_uid(rome, third)?;
    ensure!(Work::new(&name, "").ended(rome)?["status"]["phase"] == "Cancelled");
    ensure!(ask("$A/services/service/workflow/")?.as_array().is_some_and(|all| all.len() == 3));
    Ok(())
}
