//! The main job, told twice: install, peer, offload, use, and leave nothing.

use anyhow::{Result, ensure};
use liqo_test::{
    Cluster, ClusterSpec, Stage,
    run::{command, output},
    stage::{LONG, SPREAD, on},
    story, wait_for,
};

#[test]
fn two_clusters_become_one_and_two_again_twice() -> Result<()> {
    let specs = [ClusterSpec::new("rome", 1), ClusterSpec::new("milan", 2)];
    story::alone("story", || Stage::of("story", specs.into()), twice)
}

fn twice(stage: &Stage) -> Result<()> {
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
    let before = [rome.leftovers()?, milan.leftovers()?];
    ensure!(before == [Vec::<String>::new(), Vec::new()], "the clusters are not empty: {before:?}");
    for round in ["first", "second"] {
        let since = [rome.recorded(), milan.recorded()];
        ranges_are_found(stage, rome)?;
        stage.install_all(&[])?;
        tell(stage, rome, milan)?;
        // Before roles are removed while processes still end.
        let forbidden = [rome.forbidden(since[0])?, milan.forbidden(since[1])?].concat();
        ensure!(forbidden.is_empty(), "rights are missing: {forbidden:#?}");
        stage.everywhere(|cluster| {
            stage.liqoctl(cluster, &["uninstall", "--purge"])?;
            let left = wait_for("nothing is left", LONG, || {
                let left = cluster.leftovers()?;
                if left.is_empty() { Ok(Some(())) } else { anyhow::bail!("{left:?}") }
            });
            left.map_err(|error| error.context(format!("{round} round, {}", cluster.name())))
        })?;
    }
    Ok(())
}

fn tell(stage: &Stage, rome: &Cluster, milan: &Cluster) -> Result<()> {
    stage.peer(rome, milan)?;
    stage.offload(rome, "demo", &[])?;
    rome.kubectl(&["create", "configmap", "settings", "-n", "demo", "--from-literal=greeting=ciao"])?;
    rome.kubectl(&["create", "secret", "generic", "password", "-n", "demo", "--from-literal=word=sesame"])?;
    rome.web("demo", "web", 2, SPREAD)?;
    rome.rolled_out("demo", "web")?;
    placed(rome, milan)?;
    reflected(rome, milan)?;
    one_service(rome)?;
    looked_into(rome)?;
    told(stage, rome)?;
    strays_are_looked_after(rome)?;
    deleted_while_offloaded(stage)?;

    stage.liqoctl(rome, &["unoffload", "namespace", "demo"])?;
    let there = milan.items(&["namespaces", "-l", "liqo.io/remote-cluster-id"])?;
    ensure!(there.is_empty(), "the remote namespace stays after unoffload");
    stage.unpeer(rome, "milan")?;
    ensure!(rome.items(&["nodes", "-l", "liqo.io/type=virtual-node"])?.is_empty(), "the virtual node stays");
    ensure!(rome.items(&["foreignclusters"])?.is_empty(), "the foreign cluster stays on the consumer");
    wait_for("the provider forgets the consumer", LONG, || {
        let left = [milan.items(&["foreignclusters"])?, milan.items(&["resourceoffers", "-A"])?].concat();
        Ok(left.is_empty().then_some(()))
    })?;
    rome.kubectl(&["delete", "namespace", "demo"])?;
    Ok(())
}

/// An offloaded namespace that is deleted goes with its pods elsewhere, and nobody is asked to unoffload the namespace first.
fn deleted_while_offloaded(stage: &Stage) -> Result<()> {
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
    stage.offload(rome, "brief", &[])?;
    rome.web("brief", "web", 1, &on("milan"))?;
    rome.rolled_out("brief", "web")?;
    rome.kubectl(&["delete", "namespace", "brief", "--timeout=60s"])?;
    wait_for("the remote namespace is gone", LONG, || {
        let there = milan.items(&["namespaces", "-l", "liqo.io/remote-cluster-id"])?;
        Ok((!there.iter().any(|one| one["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("brief-"))))
            .then_some(()))
    })
}

/// `liqoctl install kubeadm` where the kube-controller-manager is no pod of the cluster: the ranges are those that kubeadm wrote down,
/// and without these the user is asked for them.
fn ranges_are_found(stage: &Stage, cluster: &Cluster) -> Result<()> {
    let labelled = |label: &str| {
        let pod = format!("pod/kube-controller-manager-{}", cluster.first());
        cluster.kubectl(&["label", "-n", "kube-system", &pod, label]).map(drop)
    };
    labelled("component-")?;
    let file = cluster.logs_dir().join("values.yaml");
    let file = file.to_string_lossy();
    let install = ["install", "kubeadm", "--cluster-name", "x", "--only-output-values", "--dump-values-path", &*file];
    let asked = stage.refused(cluster, &install)?;
    ensure!(asked.contains("--pod-cidr"), "{asked}");
    // As kubeadm does at the end of `kubeadm init`.
    let mut kubeadm = command("kubeadm");
    kubeadm
        .args(["init", "phase", "upload-config", "kubeadm", "--config"])
        .arg(cluster.logs_dir().join("kubeadm.yaml"));
    output(kubeadm.arg("--kubeconfig").arg(cluster.kubeconfig()))?;
    stage.liqoctl(cluster, &install)?;
    let values = std::fs::read_to_string(&*file)?;
    let spec = cluster.spec();
    for range in [spec.pod_cidr.to_string(), spec.service_cidr.to_string()] {
        ensure!(values.contains(&range), "{range} is not in {values}");
    }
    cluster.kubectl(&["delete", "configmap", "-n", "kube-system", "kubeadm-config"])?;
    labelled("component=kube-controller-manager")
}

fn remote_namespace(milan: &Cluster) -> Result<String> {
    let all = milan.items(&["namespaces", "-l", "liqo.io/remote-cluster-id"])?;
    ensure!(all.len() == 1, "one remote namespace is expected, not {}", all.len());
    Ok(all[0]["metadata"]["name"].as_str().unwrap_or_default().to_owned())
}

/// One replica on each side; the remote one runs in milan under the same name.
fn placed(rome: &Cluster, milan: &Cluster) -> Result<()> {
    let pods = rome.pods("demo", "app=web")?;
    let remote: Vec<_> = pods.iter().filter(|(_, node)| node == "liqo-milan").collect();
    ensure!(pods.len() == 2 && remote.len() == 1, "placed as {pods:?}");
    let there = remote_namespace(milan)?;
    ensure!(there.starts_with("demo-rome-"), "the remote namespace is called {there}");
    let twin = milan.json(&["pod", "-n", &there, &remote[0].0])?;
    ensure!(twin["metadata"]["labels"]["liqo.io/managed-by"] == "shadowpod", "{twin}");
    let here = rome.json(&["pod", "-n", "demo", &remote[0].0])?;
    ensure!(here["status"]["podIP"] == twin["status"]["podIP"], "the pod's address did not come back");
    ensure!(here["metadata"]["labels"]["liqo.io/shadowPod"] == "true", "the local pod is not marked");
    Ok(())
}

fn reflected(rome: &Cluster, milan: &Cluster) -> Result<()> {
    let there = remote_namespace(milan)?;
    let settings = milan.json(&["configmap", "-n", &there, "settings"])?;
    ensure!(settings["data"]["greeting"] == "ciao", "{settings}");
    let password = milan.json(&["secret", "-n", &there, "password"])?;
    ensure!(password["data"]["word"] == "c2VzYW1l", "the secret differs");
    milan.json(&["service", "-n", &there, "web"])?;
    rome.kubectl(&["patch", "configmap", "settings", "-n", "demo", "-p", r#"{"data":{"greeting":"salve"}}"#])?;
    wait_for("the change reaches the other side", LONG, || {
        let settings = milan.json(&["configmap", "-n", &there, "settings"])?;
        Ok((settings["data"]["greeting"] == "salve").then_some(()))
    })
}

/// Both replicas answer behind the one Service, asked from a pod.
fn one_service(rome: &Cluster) -> Result<()> {
    let pods = rome.pods("demo", "app=web")?;
    let local = pods.iter().find(|(_, node)| node != "liqo-milan").map(|(name, _)| name.as_str());
    let local = local.unwrap_or_default();
    wait_for("both replicas answer", LONG, || {
        let asked = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do wget -qO- http://web; echo; done";
        let answers = rome.kubectl(&["exec", "-n", "demo", local, "--", "sh", "-c", asked])?;
        Ok(pods.iter().all(|(name, _)| answers.contains(name.as_str())).then_some(()))
    })
}

/// `logs` and `exec` of the remote pod, over WebSocket and over SPDY.
fn looked_into(rome: &Cluster) -> Result<()> {
    let pods = rome.pods("demo", "app=web")?;
    let remote = pods.iter().find(|(_, node)| node == "liqo-milan").map(|(name, _)| name.as_str());
    let remote = remote.unwrap_or_default();
    let logs = rome.kubectl(&["logs", "-n", "demo", remote, "--tail=5"])?;
    ensure!(!logs.is_empty(), "the remote pod's log is empty");
    for websockets in ["true", "false"] {
        let mut exec = rome.kubectl_command();
        exec.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets);
        let exec = exec.args(["exec", "-n", "demo", remote, "--", "hostname"]);
        let name = liqo_test::run::output(exec)?;
        ensure!(name.trim() == remote, "exec (WebSockets {websockets}) answered {name}");
    }
    let status =
        rome.kubectl_command().args(["exec", "-n", "demo", remote, "--", "sh", "-c", "exit 7"]).output()?.status;
    ensure!(status.code() == Some(7), "exit code 7 came back as {status}");
    Ok(())
}

fn told(stage: &Stage, rome: &Cluster) -> Result<()> {
    let status = stage.liqoctl(rome, &["status"])?;
    ensure!(status.contains("liqo-controller-manager"), "{status}");
    let peers = stage.liqoctl(rome, &["status", "peer"])?;
    ensure!(peers.contains("milan") && peers.contains("Established"), "{peers}");
    Ok(())
}

/// A pod that somebody binds to the virtual node in a namespace that is not offloaded says that it waits, and goes when it is
/// deleted.
fn strays_are_looked_after(rome: &Cluster) -> Result<()> {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: stray, namespace: default}\nspec: {nodeName: liqo-milan, \
               tolerations: [{operator: Exists}], containers: [{name: c, image: 'localhost/busybox:1'}]}";
    rome.apply(pod)?;
    wait_for("the stray pod says that it waits", LONG, || {
        let status = rome.json(&["pod", "-n", "default", "stray"])?["status"].clone();
        ensure!(status["phase"] == "Pending" && status["reason"] == "OffloadingBackOff", "{status}");
        Ok(Some(()))
    })?;
    let limit = format!("--timeout={}s", LONG.as_secs());
    rome.kubectl(&["delete", "pod", "-n", "default", "stray", &limit]).map(drop)
}

#[test]
fn what_a_user_of_the_provider_decides_outlives_the_consumers_withdrawal() -> Result<()> {
    story::alone("decided", || Stage::ready("decided", &["rome", "milan"]), decided)
}

fn decided(stage: &Stage) -> Result<()> {
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
    let accept = |word: &str| {
        let patch = format!(r#"{{"spec":{{"incomingPeeringEnabled":"{word}"}}}}"#);
        milan.kubectl(&["patch", "foreigncluster", "rome", "--type=merge", "-p", &patch]).map(drop)
    };
    stage.peer(rome, milan)?;
    accept("No")?;
    stage.unpeer(rome, "milan")?;
    milan.wait_peering("rome", "IncomingPeering", "None")?;

    // A second request meets the decision.
    let command = stage.peer_command(milan)?;
    let words: Vec<_> = command.iter().map(String::as_str).chain(["--timeout", "15s"]).collect();
    stage.refused(rome, &words)?;
    milan.wait_peering("rome", "IncomingPeering", "Pending")?;
    let said = milan.peering("rome", "IncomingPeering")?;
    ensure!(said["message"].as_str().is_some_and(|said| said.contains("says No")), "milan does not say why: {said}");
    ensure!(milan.items(&["resourceoffers", "-A"])?.is_empty(), "milan offers resources though a user said No");
    accept("Yes")?;
    rome.wait_peering("milan", "OutgoingPeering", "Established")?;
    changed(stage, milan)
}

/// One value is changed, and the others of the release stay.
fn changed(stage: &Stage, milan: &Cluster) -> Result<()> {
    let kind = || Ok::<_, anyhow::Error>(milan.json(&["service", "-n", "liqo", "liqo-auth"])?["spec"]["type"].clone());
    ensure!(kind()? == "NodePort", "the stage uses another type of Service");
    let said = stage.liqoctl(milan, &["install", "kubeadm", "--set", "offloading.podSecurity=restricted"])?;
    ensure!(said.contains("Kept from the existing release") && said.contains("image=localhost/liqo"), "{said}");
    ensure!(kind()? == "NodePort", "the type of the Service was forgotten");
    let args = milan.json(&["deployment", "-n", "liqo", "liqo-controller-manager"])?.to_string();
    ensure!(args.contains("restricted") && args.contains("localhost/liqo:dev"), "{args}");
    Ok(())
}
