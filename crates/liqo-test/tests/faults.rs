//! What breaks: processes die, API servers and whole clusters go away and come back, answers get lost.
//!
//! One pair of clusters for all tests of this file; each test leaves it peered, with namespace `demo` offloaded.

mod faults {
    pub(crate) mod node;
    pub(crate) mod tenant;
}

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use liqo_test::{
    Cluster, Stage, Suite,
    run::nft,
    stage::{LONG, on},
    wait_for,
};
use serde_json::{Value, json};

/// The stage, peered.
static SUITE: Suite<Stage> = Suite::new("faults", || {
    let stage = Stage::ready("faults", &["rome", "milan"])?;
    stage.peer(stage.cluster("rome"), stage.cluster("milan"))?;
    stage.offload(stage.cluster("rome"), "demo", &[])?;
    Ok(stage)
});

/// All pods of the product, with their namespaces and containers.
fn ours(cluster: &Cluster) -> Result<Vec<(String, String, String)>> {
    let mut all = Vec::new();
    for pod in cluster.items(&["pods", "-A", "-l", "app.kubernetes.io/part-of=liqo"])? {
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        all.push((text("/metadata/namespace"), text("/metadata/name"), text("/spec/containers/0/name")));
    }
    Ok(all)
}

/// `kill -9` of the process in one of our pods; the pod is then replaced, so that back-off does not add up.
fn kill(cluster: &Cluster, (namespace, pod, container): &(String, String, String)) {
    if cluster.kill_pod_process(namespace, pod, container).is_ok() {
        let _ =
            cluster.kubectl(&["delete", "pod", "-n", namespace, pod, "--force", "--grace-period=0", "--wait=false"]);
    }
}

/// Does something while every process of ours on both sides is killed once.
fn while_killing(stage: &Stage, what: &str, act: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    let clusters = [stage.cluster("rome"), stage.cluster("milan")];
    let victims: Vec<_> =
        clusters.iter().flat_map(|c| ours(c).unwrap_or_default().into_iter().map(move |pod| (*c, pod))).collect();
    ensure!(victims.len() >= 6, "{what}: only {} processes of ours found", victims.len());
    thread::scope(|scope| {
        let acting = scope.spawn(act);
        for (cluster, pod) in &victims {
            kill(cluster, pod);
            thread::sleep(Duration::from_millis(400));
        }
        acting.join().expect("the act does not panic").with_context(|| format!("{what} under kill -9"))
    })
}

#[test]
fn every_process_may_die_in_every_phase() -> Result<()> {
    SUITE.tell(|stage| {
        let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
        rome.web("demo", "web", 2, &on("milan"))?;
        rome.rolled_out("demo", "web")?;
        let uids = |cluster: &Cluster| -> Result<Vec<String>> {
            let pods = cluster.items(&["pods", "-A", "-l", "app=web"])?;
            Ok(pods.iter().filter_map(|pod| pod.pointer("/metadata/uid")?.as_str().map(str::to_owned)).collect())
        };
        let before = uids(milan)?;
        while_killing(stage, "nothing", || Ok(()))?;
        rome.rolled_out("demo", "web")?;
        ensure!(uids(milan)? == before, "remote pods were replaced by a restart of ours");

        while_killing(stage, "scaling", || {
            rome.kubectl(&["scale", "-n", "demo", "deployment/web", "--replicas=6"]).map(drop)
        })?;
        rome.rolled_out("demo", "web")?;
        // A pod that was given up when its namespace was unoffloaded stays as a record, as an evicted pod does, if the removal
        // of the pod met the kill of the process that removes it.
        let living = ["pods", "-n", "demo", "-l", "app=web", "--field-selector=status.phase!=Failed"];
        let same = |phase: &str| {
            wait_for(&format!("as many pods there as here after {phase}"), LONG, || {
                let (here, there) = (rome.items(&living)?.len(), uids(milan)?.len());
                if here == there { Ok(Some(())) } else { bail!("{here} here, {there} there") }
            })
        };
        same("scaling")?;
        // Commands may be told no while a webhook is away: a user tries again, so does this test.
        let again =
            |args: &[&str]| wait_for(&args.join(" "), LONG * 2, || stage.liqoctl(rome, args).map(Some)).map(drop);
        while_killing(stage, "unoffloading", || again(&["unoffload", "namespace", "demo"]))?;
        wait_for("the remote namespace is gone", LONG, || {
            Ok(milan.items(&["namespaces", "-l", "liqo.io/remote-cluster-id"])?.is_empty().then_some(()))
        })?;
        let command = stage.peer_command(milan)?;
        let command: Vec<_> = command.iter().map(String::as_str).collect();
        while_killing(stage, "unpeering", || again(&["unpeer", "milan"]))?;
        while_killing(stage, "peering", || again(&command))?;
        while_killing(stage, "offloading", || again(&["offload", "namespace", "demo"]))?;
        rome.kubectl(&["rollout", "restart", "-n", "demo", "deployment/web"])?;
        rome.rolled_out("demo", "web")?;
        same("offloading again")?;
        rome.kubectl(&["delete", "deployment,service", "-n", "demo", "web"]).map(drop)
    })
}

#[test]
fn remote_pods_run_on_while_the_consumers_api_server_is_away() -> Result<()> {
    SUITE.tell(|stage| {
        let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
        rome.web("demo", "steady", 2, &on("milan"))?;
        rome.rolled_out("demo", "steady")?;
        let there = milan.items(&["pods", "-A", "-l", "app=steady"])?;
        rome.stop_component("kube-apiserver")?;
        let away = Instant::now();
        // One of the pods is deleted in the provider's cluster meanwhile: its ShadowPod recreates the pod without the consumer.
        let (namespace, name) = (&there[0]["metadata"]["namespace"], &there[0]["metadata"]["name"]);
        let (namespace, name) = (namespace.as_str().unwrap_or_default(), name.as_str().unwrap_or_default());
        milan.kubectl(&["delete", "pod", "-n", namespace, name, "--wait=false"])?;
        wait_for("the remote pods run", LONG, || {
            let pods =
                milan.items(&["pods", "-n", namespace, "-l", "app=steady", "--field-selector=status.phase=Running"])?;
            let fresh = pods.iter().all(|pod| pod["metadata"]["deletionTimestamp"].is_null());
            Ok((pods.len() == 2 && fresh).then_some(()))
        })?;
        wait_for("a minute has passed", Duration::from_secs(70), || {
            Ok((away.elapsed() > Duration::from_secs(60)).then_some(()))
        })?;
        let still = milan.items(&["pods", "-n", namespace, "-l", "app=steady"])?;
        ensure!(still.len() == 2, "{} remote pods after a minute", still.len());
        rome.start_component("kube-apiserver")?;
        rome.rolled_out("demo", "steady")?;
        wait_for("the restart is counted here", LONG, || {
            let pod = rome.json(&["pod", "-n", "demo", name])?;
            Ok((pod["status"]["containerStatuses"][0]["restartCount"] == 1).then_some(()))
        })?;
        rome.wait_peering("milan", "OutgoingPeering", "Established")?;
        rome.kubectl(&["delete", "deployment,service", "-n", "demo", "steady"]).map(drop)
    })
}

#[test]
fn a_provider_that_vanishes_makes_its_node_not_ready_and_comes_back_without_duplicates() -> Result<()> {
    SUITE.tell(|stage| {
        let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
        rome.web("demo", "away", 2, &on("milan"))?;
        rome.rolled_out("demo", "away")?;
        let here = rome.pods("demo", "app=away")?;
        milan.link().cut()?;
        let cut = Instant::now();
        let ready = || -> Result<Value> {
            let node = rome.json(&["node", "liqo-milan"])?;
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            Ok(conditions.into_iter().find(|one| one["type"] == "Ready").unwrap_or_default()["status"].clone())
        };
        wait_for("the node is not ready", Duration::from_secs(40), || Ok((ready()? != "True").then_some(())))?;
        ensure!(cut.elapsed() < Duration::from_secs(40), "noticed after {:?}", cut.elapsed());
        // A pod deleted meanwhile stays, terminating, until its end can be confirmed.
        rome.kubectl(&["delete", "pod", "-n", "demo", &here[0].0, "--wait=false"])?;
        milan.link().restore()?;
        wait_for("the node is ready again", LONG, || Ok((ready()? == "True").then_some(())))?;
        rome.rolled_out("demo", "away")?;
        wait_for("two pods on each side", LONG, || {
            let there = milan.items(&["pods", "-A", "-l", "app=away"])?;
            let mut names: Vec<_> =
                there.iter().map(|pod| pod["metadata"]["name"].clone()).map(|n| n.to_string()).collect();
            let mut mine: Vec<_> =
                rome.pods("demo", "app=away")?.into_iter().map(|(name, _)| format!("{name:?}")).collect();
            names.sort();
            mine.sort();
            if names.len() == 2 && names == mine { Ok(Some(())) } else { bail!("{mine:?} here, {names:?} there") }
        })?;
        rome.kubectl(&["delete", "deployment,service", "-n", "demo", "away"]).map(drop)
    })
}

#[test]
fn a_virtual_node_deleted_by_hand_comes_back_and_nothing_is_lost() -> Result<()> {
    SUITE.tell(|stage| faults::node::story(stage))
}

#[test]
fn a_hundred_pods_are_placed_while_the_webhook_dies() -> Result<()> {
    SUITE.tell(|stage| {
        let rome = stage.cluster("rome");
        let webhook = || ours(rome).map(|all| all.into_iter().find(|(_, pod, _)| pod.contains("controller-manager")));
        let pods: Vec<_> = (0..100).map(pod_manifest).collect();
        thread::scope(|scope| {
            let creating = scope.spawn(|| -> Result<()> {
                for chunk in pods.chunks(10) {
                    let manifest = chunk.join("---\n");
                    wait_for("the pods are accepted", LONG, || rome.apply(&manifest).map(Some))?;
                }
                Ok(())
            });
            for _ in 0..2 {
                thread::sleep(Duration::from_millis(700));
                if let Some(pod) = webhook()? {
                    kill(rome, &pod);
                }
            }
            creating.join().expect("creating does not panic")
        })?;
        let created = rome.items(&["pods", "-n", "demo", "-l", "app=many"])?;
        ensure!(created.len() == 100, "{} pods of 100", created.len());
        let tolerates = |pod: &Value| {
            let tolerations = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
            tolerations.iter().filter(|one| one["key"] == "virtual-node.liqo.io/not-allowed").count()
        };
        ensure!(created.iter().all(|pod| tolerates(pod) == 1), "a pod slipped past the webhook");
        rome.kubectl(&["delete", "pods", "-n", "demo", "-l", "app=many", "--force", "--grace-period=0"]).map(drop)
    })
}

#[test]
fn a_rolling_update_refuses_no_admission_and_cuts_no_exec() -> Result<()> {
    SUITE.tell(|stage| {
        let rome = stage.cluster("rome");
        rome.web("demo", "talker", 1, &on("milan"))?;
        rome.rolled_out("demo", "talker")?;
        let mut exec = rome.kubectl_command();
        exec.args(["exec", "-n", "demo", "deployment/talker", "--", "sh", "-c", "echo begun; sleep 12; echo the end"]);
        let mut exec = exec.stdout(Stdio::piped()).spawn().context("cannot run kubectl exec")?;
        let mut said = BufReader::new(exec.stdout.take().context("kubectl has no output")?);
        let mut line = String::new();
        said.read_line(&mut line)?;
        ensure!(line == "begun\n", "exec says {line:?}");

        let rolled = AtomicBool::new(false);
        let asked = thread::scope(|scope| -> Result<usize> {
            let asking = scope.spawn(|| -> Result<usize> {
                let mut asked = 0;
                let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "asked", "namespace": "demo"},
                    "spec": {"containers": [{"name": "c", "image": "localhost/busybox:1"}]}});
                while !rolled.load(Ordering::Relaxed) {
                    // kubectl would ask a few times only: each of its starts takes a second on a busy machine.
                    rome.api()
                        .create("/api/v1/namespaces/demo/pods?dryRun=All", &pod)
                        .with_context(|| format!("after {asked} pods that were accepted"))?;
                    asked += 1;
                }
                Ok(asked)
            });
            let rolling = roll(rome, |name| name == "liqo-controller-manager" || name.starts_with("virtual-kubelet"));
            rolled.store(true, Ordering::Relaxed);
            rolling.and(asking.join().expect("asking does not panic"))
        })?;
        ensure!(asked > 10, "only {asked} pods were created during the update");

        line.clear();
        said.read_line(&mut line)?;
        ensure!(exec.wait()?.success() && line == "the end\n", "exec was cut after {line:?}");
        rome.kubectl(&["exec", "-n", "demo", "deployment/talker", "--", "true"])?;
        rome.kubectl(&["delete", "deployment,service", "-n", "demo", "talker"]).map(drop)
    })
}

/// Replaces the pods of some Deployments one after the other, as an update does.
fn roll(cluster: &Cluster, which: impl Fn(&str) -> bool) -> Result<()> {
    let mut rolled = 0;
    for deployment in cluster.items(&["deployments", "-A", "-l", "app.kubernetes.io/part-of=liqo"])? {
        let text = |pointer: &str| deployment.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        if which(name) {
            cluster.kubectl(&["rollout", "restart", "-n", namespace, "deployment", name])?;
            cluster.rolled_out(namespace, name)?;
            rolled += 1;
        }
    }
    ensure!(rolled == 2, "{rolled} Deployments of 2 were found");
    Ok(())
}

fn pod_manifest(number: usize) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: many-{number}, namespace: demo, labels: {{app: many}}}}\n\
         spec: {{nodeSelector: {{nobody: has-this}}, containers: [{{name: c, image: 'localhost/busybox:1', \
         imagePullPolicy: IfNotPresent}}]}}\n"
    )
}

#[test]
fn a_lost_reply_to_the_identity_request_locks_nobody_out() -> Result<()> {
    SUITE.tell(|stage| {
        let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
        stage.liqoctl(rome, &["unoffload", "namespace", "demo"])?;
        stage.unpeer(rome, "milan")?;
        // The consumer forgets all about the provider, as if the answer had never arrived (and its key with it).
        let tenant = rome.items(&["namespaces", "-l", "discovery.liqo.io/tenant-namespace=true"])?;
        let tenant = tenant[0]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        rome.kubectl(&["delete", "namespace", &tenant])?;
        // And while it asks again, the provider signs but its answers do not arrive.
        // The provider knows the consumer by the key that is lost: its administrator speaks for the new one.
        let command = stage.peer_command_anew(milan, rome)?;
        let command: Vec<_> = command.iter().map(String::as_str).collect();
        thread::scope(|scope| -> Result<()> {
            let peering = scope.spawn(|| stage.liqoctl(rome, &command));
            for _ in 0..4 {
                stage.bed.part(rome, milan)?;
                thread::sleep(Duration::from_millis(250));
                stage.bed.heal()?;
                thread::sleep(Duration::from_millis(150));
            }
            peering.join().expect("peering does not panic").map(drop)
        })?;
        rome.wait_peering("milan", "AuthenticationStatus", "Established")?;
        stage.liqoctl(rome, &["offload", "namespace", "demo"]).map(drop)
    })
}

#[test]
fn unpeering_from_a_dead_provider_is_clean_here_and_converges_there() -> Result<()> {
    SUITE.tell(|stage| {
        let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
        rome.web("demo", "left", 1, &on("milan"))?;
        rome.rolled_out("demo", "left")?;
        milan.link().cut()?;
        rome.wait_peering("milan", "APIServerStatus", "Error")?;
        stage.liqoctl(rome, &["unoffload", "namespace", "demo"])?;
        stage.unpeer(rome, "milan")?;
        ensure!(rome.items(&["nodes", "-l", "liqo.io/type=virtual-node"])?.is_empty(), "the virtual node stays");
        ensure!(rome.items(&["foreignclusters"])?.is_empty(), "the foreign cluster stays");
        // The provider can be reached again but cannot reach others yet: it has missed the end of its watches.
        let (node, api) = (milan.node(&milan.first())?, rome.node(&rome.first())?.ip);
        nft(
            &node.netns,
            &format!(
                "table ip no_way_back {{
                   chain admit {{
                     type filter hook prerouting priority raw;
                     ip daddr {api} tcp dport 6443 drop
                   }}
                 }}\n"
            ),
        )?;
        milan.link().restore()?;
        wait_for("the request is taken back", LONG, || {
            Ok(rome.items(&["resourcerequests", "-A"])?.is_empty().then_some(()))
        })?;
        nft(&node.netns, "delete table ip no_way_back\n")?;
        wait_for("the provider converges", LONG, || {
            let left = [
                milan.items(&["namespaces", "-l", "liqo.io/remote-cluster-id"])?,
                milan.items(&["resourceoffers,resourcerequests,namespacemaps,shadowpods", "-A"])?,
                milan.items(&["foreignclusters"])?,
            ]
            .concat();
            let names: Vec<_> = left.iter().map(|one| format!("{} {}", one["kind"], one["metadata"]["name"])).collect();
            if names.is_empty() { Ok(Some(())) } else { bail!("{names:?}") }
        })?;
        rome.kubectl(&["delete", "deployment,service", "-n", "demo", "left"])?;
        stage.peer(rome, milan)?;
        stage.liqoctl(rome, &["offload", "namespace", "demo"]).map(drop)
    })
}

#[test]
fn a_tenant_is_cordoned_drained_within_budgets_and_let_in_again() -> Result<()> {
    SUITE.tell(|stage| faults::tenant::story(stage))
}
