//! What users do with pods and with what pods need, each compared with what a plain node gives.
//!
//! One pair of clusters: first objects are replaced while the provider is cut off, then everything else happens at the same
//! time, each behaviour with objects of its own.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use liqo_test::{
    Cluster, Stage,
    run::{command, inside, output},
    stage::{LONG, on},
    story, wait_for,
};
use serde_json::{Value, json};

/// Longer than the provider once waited before it made a failed pod anew, and than statuses were held back.
const A_WHILE: Duration = Duration::from_secs(13);

#[test]
fn pods_behave_as_on_a_plain_node() -> Result<()> {
    story::alone(
        "pods",
        || Stage::ready("pods", &["rome", "milan"]),
        |stage| {
            let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
            stage.peer(rome, milan)?;
            stage.offload(rome, "demo", &[])?;
            let namespaces = milan.items(&["namespaces", "-l", "liqo.io/remote-cluster-id"])?;
            let there =
                namespaces.first().and_then(|one| one["metadata"]["name"].as_str()).context("a remote namespace")?;
            let view = View { stage, rome, milan, there };
            view.replaced_while_the_provider_is_away()?;
            thread::scope(|scope| {
                let view = &view;
                let told = behaviours().map(|(name, behaviour)| (name, scope.spawn(move || behaviour(view))));
                let failed = told.map(|(name, one)| match one.join() {
                    Ok(Ok(())) => String::new(),
                    Ok(Err(error)) => format!("{name}: {error:#}\n"),
                    Err(_) => format!("{name}: panicked\n"),
                });
                let failed = failed.concat();
                if failed.is_empty() { Ok(()) } else { bail!("{failed}") }
            })?;
            let refused = stage.refused(rome, &["unoffload", "namespace", "missing"])?;
            ensure!(refused.contains("there is no namespace"), "{refused}");
            Ok(())
        },
    )
}

/// A behaviour and its name.
type Behaviour<'a> = (&'static str, fn(&View<'a>) -> Result<()>);

/// What happens at the same time.
fn behaviours<'a>() -> [Behaviour<'a>; 10] {
    [
        ("deadline", View::an_end_is_final),
        ("gates", View::readiness_gates_count),
        ("resources", View::resources_of_a_pod_bind),
        ("grace", View::the_grace_of_the_caller_travels),
        ("refused", View::a_refusal_is_told_to_the_pod),
        ("changes", View::what_is_not_followed_is_told),
        ("logs", View::logs_are_refused_in_words),
        ("service", View::fields_of_services_stay),
        ("client", View::a_client_finds_its_namespace),
        ("metrics", View::a_virtual_node_tells_what_its_pods_use),
    ]
}

/// Both clusters, and the remote namespace of `demo`.
struct View<'a> {
    stage: &'a Stage,
    rome: &'a Cluster,
    milan: &'a Cluster,
    there: &'a str,
}

impl View<'_> {
    /// Objects are deleted and made again under their names while the provider is cut off: there, the new ones are found.
    fn replaced_while_the_provider_is_away(&self) -> Result<()> {
        let Self { stage, rome, milan, there } = self;
        let objects = |word: &str, kind: &str, key: &str| {
            let meta = |name: &str| json!({"name": name, "namespace": "demo"});
            let pod = json!({"nodeName": "liqo-milan", "restartPolicy": "Always", "terminationGracePeriodSeconds": 1,
                "tolerations": [{"operator": "Exists", "key": "virtual-node.liqo.io/not-allowed"}],
                "containers": [{"name": "c", "image": "localhost/busybox:1", "command": ["sleep", "3600"],
                    "env": [{"name": "WORD", "value": word}]}]});
            let all = [
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta("heir"), "spec": pod}),
                json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta("heir"), "type": kind,
                    "stringData": {key: word}}),
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("heir"), "immutable": true,
                    "data": {"word": word}}),
            ];
            all.map(|one| one.to_string()).join("\n---\n")
        };
        let state = || -> Result<(String, String, String, String)> {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let get = |kind: &str| milan.json(&["-n", there, kind, "heir"]);
            let (pod, secret, map) = (get("pod")?, get("secret")?, get("configmap")?);
            ensure!(pod["status"]["phase"] == "Running", "the pod there is {}", pod["status"]["phase"]);
            let env = pod["spec"]["containers"][0]["env"].as_array();
            let word = env.into_iter().flatten().find(|one| one["name"] == "WORD");
            let word = word.map(|one| text(&one["value"])).unwrap_or_default();
            Ok((word, text(&secret["type"]), text(&map["data"]["word"]), text(&pod["metadata"]["uid"])))
        };
        let reached = |word: &str, kind: &str| {
            wait_for(&format!("the objects of {word} are there"), LONG, || {
                let (pod, secret, map, uid) = state()?;
                ensure!((&*pod, &*secret, &*map) == (word, kind, word), "there are {pod}, {secret}, {map}");
                Ok(Some(uid))
            })
        };
        rome.apply(&objects("old", "Opaque", "word"))?;
        let first = reached("old", "Opaque")?;
        milan.link().cut()?;
        rome.kubectl(&["delete", "-n", "demo", "pod/heir", "--force", "--grace-period=0"])?;
        rome.kubectl(&["delete", "-n", "demo", "secret/heir", "configmap/heir"])?;
        rome.apply(&objects("new", "kubernetes.io/ssh-auth", "ssh-privatekey"))?;
        stage.bed.heal()?;
        let second = reached("new", "kubernetes.io/ssh-auth")?;
        ensure!(first != second, "the old pod runs on under the new one");
        wait_for("the new pod is told to run", LONG, || Ok(self.phase("heir")?.contains("Running").then_some(())))?;
        rome.kubectl(&["delete", "-n", "demo", "pod/heir", "--wait=false"]).map(drop)
    }

    /// A pod whose deadline has passed has failed, here and there, and is not made again.
    fn an_end_is_final(&self) -> Result<()> {
        self.run("deadline", "activeDeadlineSeconds: 4,", "sleep 3600")?;
        wait_for("the deadline has passed", LONG, || {
            let status = self.rome.json(&["pod", "-n", "demo", "deadline"])?["status"].clone();
            Ok((status["phase"] == "Failed" && status["reason"] == "DeadlineExceeded").then_some(()))
        })?;
        let uid = self.remote("deadline")?["metadata"]["uid"].clone();
        self.stays(|| {
            let pod = self.remote("deadline")?;
            let (here, there) = (self.phase("deadline")?, &pod["status"]["phase"]);
            ensure!(
                pod["metadata"]["uid"] == uid && here == "Failed" && there == "Failed",
                "{here} here, {there} there"
            );
            Ok(())
        })
    }

    /// A gate that is opened here makes the pod ready here and there, and stays open.
    fn readiness_gates_count(&self) -> Result<()> {
        self.run("gated", "readinessGates: [{conditionType: example.org/gate}],", "sleep 3600")?;
        let ready = |pod: &Value| condition(pod, "Ready");
        wait_for("the containers are ready", LONG, || {
            Ok((condition(&self.local("gated")?, "ContainersReady") == "True").then_some(()))
        })?;
        ensure!(ready(&self.local("gated")?) == "False", "ready with a gate that is closed");
        let now = self.local("gated")?["status"]["startTime"].clone();
        let open = json!({"type": "example.org/gate", "status": "True", "lastTransitionTime": now});
        let patch = json!({"status": {"conditions": [open]}}).to_string();
        self.rome.kubectl(&["patch", "pod", "-n", "demo", "gated", "--subresource=status", "-p", &patch])?;
        wait_for("the pod is ready here and there", LONG, || {
            Ok((ready(&self.local("gated")?) == "True" && ready(&self.remote("gated")?) == "True").then_some(()))
        })?;
        self.stays(|| {
            let pod = self.local("gated")?;
            ensure!(
                ready(&pod) == "True" && condition(&pod, "example.org/gate") == "True",
                "the gate was closed again"
            );
            Ok(())
        })
    }

    /// Limits of the whole pod bind it there.
    fn resources_of_a_pod_bind(&self) -> Result<()> {
        self.run("whole", "resources: {limits: {cpu: 200m, memory: 64Mi}},", "sleep 3600")?;
        self.running("whole")?;
        let limits = self.remote("whole")?["spec"]["resources"]["limits"].clone();
        ensure!(limits == json!({"cpu": "200m", "memory": "64Mi"}), "the limits there are {limits}");
        Ok(())
    }

    /// A pod that does not listen ends when the caller's time is over, not its own.
    fn the_grace_of_the_caller_travels(&self) -> Result<()> {
        self.run("deaf", "terminationGracePeriodSeconds: 60,", "trap : TERM; while true; do sleep 1; done")?;
        self.running("deaf")?;
        let began = Instant::now();
        self.rome.kubectl(&["delete", "pod", "-n", "demo", "deaf", "--grace-period=2"])?;
        let took = began.elapsed();
        ensure!(took < Duration::from_secs(30), "the pod had {took:?} to end");
        Ok(())
    }

    /// A pod that needs a Secret that is not reflected says why it does not start.
    fn a_refusal_is_told_to_the_pod(&self) -> Result<()> {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
            "metadata": {"name": "legacy", "namespace": "demo", "annotations": {"kubernetes.io/service-account.name": "default"}}});
        self.rome.apply(&secret.to_string())?;
        self.run("needy", "volumes: [{name: v, secret: {secretName: legacy}}],", "sleep 3600")?;
        self.told("needy", "Secret \"legacy\"")
    }

    /// A debugging container is refused in a sentence.
    fn what_is_not_followed_is_told(&self) -> Result<()> {
        self.run("debugged", "", "sleep 3600")?;
        self.running("debugged")?;
        self.rome.kubectl(&[
            "debug",
            "-n",
            "demo",
            "debugged",
            "--image=localhost/busybox:1",
            "-c",
            "probe",
            "--",
            "true",
        ])?;
        self.told("debugged", "ephemeral containers are not started there: \"probe\"")?;
        let pod = self.local("debugged")?;
        let (generation, observed) = (&pod["metadata"]["generation"], &pod["status"]["observedGeneration"]);
        ensure!(generation != observed, "generation {observed} is said to be seen");
        Ok(())
    }

    /// What the kubelet there says of a log reaches the user as text.
    fn logs_are_refused_in_words(&self) -> Result<()> {
        self.run("quiet", "", "sleep 3600")?;
        self.running("quiet")?;
        let Err(error) = self.rome.kubectl(&["logs", "-n", "demo", "quiet", "--previous"]) else {
            bail!("a log of nothing")
        };
        let text = format!("{error:#}");
        ensure!(text.contains("previous terminated container") && !text.contains("\"kind\""), "{text}");
        Ok(())
    }

    fn fields_of_services_stay(&self) -> Result<()> {
        let spec = json!({"selector": {"app": "none"}, "ports": [{"port": 80}], "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}, "trafficDistribution": "PreferClose"});
        let meta = json!({"name": "sticky", "namespace": "demo"});
        self.rome.apply(&json!({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}).to_string())?;
        wait_for("the Service is there as it is here", LONG, || {
            let there = self.milan.json(&["service", "-n", self.there, "sticky"])?["spec"].clone();
            let same = |field: &str| there[field] == spec[field];
            Ok((same("sessionAffinityConfig") && same("trafficDistribution")).then_some(()))
        })
    }

    /// Pages of the kubelet API name offloaded pods as they are called at home, and no other pod of the provider; the agent behind them
    /// answers nobody but its API server.
    fn a_virtual_node_tells_what_its_pods_use(&self) -> Result<()> {
        self.run("busy", "", "while true; do :; done")?;
        self.running("busy")?;
        let get = |page: &str| self.rome.kubectl(&["get", "--raw", &format!("/api/v1/nodes/liqo-milan/proxy/{page}")]);
        let sample = |name: &str| format!("{name}{{namespace=\"demo\",pod=\"busy\",container=\"c\"}} ");
        let page = wait_for("the kubelet there has looked at the pod", LONG, || {
            let page = get("metrics/resource")?;
            let told = ["container_cpu_usage_seconds_total", "container_memory_working_set_bytes"].map(sample);
            Ok(told.iter().all(|sample| page.contains(sample)).then_some(page))
        })?;
        let value = |name: &str| page.lines().find_map(|line| line.strip_prefix(name)?.split(' ').nth(1)?.parse().ok());
        ensure!(value("node_memory_working_set_bytes").is_some_and(|bytes: f64| bytes > 0.0), "{page}");
        ensure!(!page.contains("kube-system"), "pods of the provider are told: {page}");
        let summary: Value = serde_json::from_str(&get("stats/summary")?)?;
        let pods = summary["pods"].as_array().cloned().unwrap_or_default();
        let pod = pods.iter().find(|pod| pod["podRef"]["name"] == "busy").context("the pod is not in the summary")?;
        ensure!(pod["podRef"]["uid"] == self.local("busy")?["metadata"]["uid"], "{pod}");
        ensure!(pod["memory"]["workingSetBytes"].as_u64() > Some(0), "{pod}");
        let agents = self.milan.items(&["pods", "-n", "liqo", "-l", "app.kubernetes.io/name=metric-agent"])?;
        let address = agents.first().and_then(|pod| pod["status"]["podIP"].as_str()).context("no metric agent")?;
        let id = self.milan.items(&["foreignclusters"])?[0]["spec"]["clusterIdentity"]["clusterID"].clone();
        let id = id.as_str().context("the peer has no ID")?;
        let url = format!("https://{address}:8443/apis/metrics.liqo.io/v1alpha1/scrape/{id}/metrics/resource");
        let mut curl = inside(&self.milan.node(&self.milan.first())?.netns, "curl");
        curl.args(["-sSk", "-o", "/dev/null", "-w", "%{http_code}", "--noproxy", "*", "--max-time", "5"]);
        let code = output(curl.args(["-H", &format!("X-Remote-User: {id}"), &url]))?;
        ensure!(code == "403", "somebody who says that he is the API server is answered {code}");
        self.rome.kubectl(&["delete", "pod", "-n", "demo", "busy", "--wait=false"]).map(drop)
    }

    /// A client that reads the files of its service account may list the pods of the namespace that these name, and the downward API
    /// tells it the same namespace and its own UID.
    fn a_client_finds_its_namespace(&self) -> Result<()> {
        let account = ["--clusterrole=view", "--serviceaccount=demo:default"];
        self.rome.kubectl(&[&["create", "rolebinding", "client", "-n", "demo"][..], &account].concat())?;
        let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client", "namespace": "demo"}, "spec": {
            "nodeName": "liqo-milan", "tolerations": [{"operator": "Exists", "key": "virtual-node.liqo.io/not-allowed"}],
            "volumes": [{"name": "me", "downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}},
                {"path": "uid", "fieldRef": {"fieldPath": "metadata.uid"}}]}}],
            "containers": [{"name": "c", "image": "localhost/busybox:1", "command": ["sleep", "3600"],
                "volumeMounts": [{"name": "me", "mountPath": "/me"}],
                "env": [{"name": "NAMESPACE", "valueFrom": field("metadata.namespace")},
                    {"name": "ID", "valueFrom": field("metadata.uid")}]}]}});
        self.rome.apply(&pod.to_string())?;
        self.running("client")?;
        let run = |command: &str| -> Result<String> {
            let said = self.rome.kubectl(&["exec", "-n", "demo", "client", "--", "sh", "-c", command])?;
            Ok(said.trim().to_owned())
        };
        let uid = self.local("client")?["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let told = run("echo $NAMESPACE $ID $(cat /me/namespace) $(cat /me/uid)")?;
        ensure!(told == format!("demo {uid} demo {uid}"), "the pod is told {told}, its UID is {uid}");
        let files = "/var/run/secrets/kubernetes.io/serviceaccount";
        let [namespace, token] = ["namespace", "token"].map(|file| run(&format!("cat {files}/{file}")));
        let authority = self.rome.logs_dir().join("client-ca.crt");
        std::fs::write(&authority, run(&format!("cat {files}/ca.crt"))?).context("cannot keep the certificates")?;
        let mut curl = command("curl");
        curl.args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--noproxy", "*", "--max-time", "5", "--cacert"]);
        curl.arg(authority).args(["-H", &format!("Authorization: Bearer {}", token?)]);
        let code = output(curl.arg(format!("{}/api/v1/namespaces/{}/pods", self.rome.api_server(), namespace?)))?;
        ensure!(code == "200", "the pods of the namespace that the client finds: {code}");
        Ok(())
    }

    /// Starts a pod with more fields of its spec and a shell command.
    fn run(&self, name: &str, pod: &str, command: &str) -> Result<()> {
        let place = on("milan");
        let manifest = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: demo}}\nspec: {{{place} {pod} containers: [{{name: c, \
             image: 'localhost/busybox:1', command: [sh, -c, '{command}']}}]}}\n"
        );
        self.rome.apply(&manifest).map(drop)
    }

    fn local(&self, name: &str) -> Result<Value> {
        self.rome.json(&["pod", "-n", "demo", name])
    }

    fn remote(&self, name: &str) -> Result<Value> {
        self.milan.json(&["pod", "-n", self.there, name])
    }

    fn phase(&self, name: &str) -> Result<String> {
        Ok(self.local(name)?["status"]["phase"].as_str().unwrap_or_default().to_owned())
    }

    fn running(&self, name: &str) -> Result<()> {
        wait_for(&format!("pod {name} runs"), LONG, || Ok((self.phase(name)? == "Running").then_some(())))
    }

    /// Waits until an Event of a pod contains these words.
    fn told(&self, pod: &str, words: &str) -> Result<()> {
        wait_for(&format!("pod {pod} is told {words}"), LONG, || {
            let events = self.rome.items(&[
                "events",
                "-n",
                "demo",
                "--field-selector",
                &format!("involvedObject.name={pod}"),
            ])?;
            let says = |event: &Value| event["message"].as_str().is_some_and(|text| text.contains(words));
            Ok(events.iter().any(says).then_some(()))
        })
    }

    /// Something holds for [`A_WHILE`].
    fn stays(&self, holds: impl Fn() -> Result<()>) -> Result<()> {
        let began = Instant::now();
        let mut broken = None;
        wait_for("a while has passed", A_WHILE * 2, || {
            broken = broken.take().or(holds().err());
            Ok((broken.is_some() || began.elapsed() > A_WHILE).then_some(()))
        })?;
        broken.map_or(Ok(()), Err)
    }
}

/// The status of a pod's condition; empty: the pod has none of that type.
fn condition(pod: &Value, kind: &str) -> String {
    let all = pod["status"]["conditions"].as_array();
    let one = all.into_iter().flatten().find(|one| one["type"] == kind);
    one.and_then(|one| one["status"].as_str()).unwrap_or_default().to_owned()
}
