//! The test bed itself: clusters work, faults bite and heal, and nothing remains.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]
#![expect(clippy::disallowed_methods, reason = "looking at a test bed from outside takes programs of its own")]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    thread,
    time::Duration,
};

use liqo_test::{Cluster, ClusterSpec, Story, Testbed, process::Process, record, wait_for};

/// Two cores are not enough for two test beds at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
const SOON: Duration = Duration::from_secs(40);

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      affinity:
        podAntiAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
          - weight: 100
            podAffinityTerm: {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: web}}}
      containers:
      - name: web
        image: localhost/busybox:1
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}
"#;

#[test]
fn clusters_work_side_by_side_and_leave_nothing() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(|poison| poison.into_inner());
    let _story = Story::begin("side-by-side");
    let host_rules = host_rules();
    let bed = Testbed::new("side-by-side").unwrap();
    let (dir, slot) = (bed.dir().to_owned(), slot(&bed));
    let same = |name| ClusterSpec::new(name, 1);
    let [rome, milan, paris] =
        bed.clusters([same("rome").nodes(2).kwok_nodes(3), same("milan"), ClusterSpec::new("paris", 3)]).unwrap();

    thread::scope(|scope| {
        let webs = [&rome, &milan, &paris].map(|cluster| scope.spawn(move || web(cluster)));
        webs.into_iter().for_each(|web| web.join().unwrap());
    });
    both_nodes_of_rome_serve(&rome);
    pods_of_joined_clusters_see_each_others_addresses(&bed, &rome, &paris);
    assert!(bed.join_pod_networks(&[&rome, &milan]).is_err(), "equal pod CIDRs cannot be joined");
    pretending_nodes_are_ready(&rome);
    faults_of_the_wire_bite_and_heal(&bed, &rome, &milan);
    faults_of_processes_bite_and_heal(&milan);

    let groups = cgroups(&milan);
    assert!(groups.iter().any(|group| group.exists()), "{groups:?}");
    drop(bed);
    assert_eq!(remains(&dir, slot), Vec::<String>::new());
    assert!(!groups.iter().any(|group| group.exists()), "{groups:?}");
    assert_eq!(self::host_rules(), host_rules);
}

#[test]
fn the_reaper_takes_down_what_a_killed_owner_left() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(|poison| poison.into_inner());
    let _story = Story::begin("orphan");
    let mut owner = Command::new(env!("CARGO_BIN_EXE_testbed"))
        .args(["hold", "orphan", "--clusters", "rome"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(owner.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("KUBECONFIG_ROME"), "{line}");
    let orphan = record::all().unwrap().into_iter().find(|record| record.owner == Process::find(owner.id())).unwrap();
    assert!(!remains(&orphan.dir, orphan.slot).is_empty());

    owner.kill().unwrap();
    owner.wait().unwrap();
    let gone = || Ok(record::all()?.iter().all(|record| record.slot != orphan.slot).then_some(()));
    wait_for("end of the orphan", Duration::from_secs(10), gone).unwrap();
    assert_eq!(remains(&orphan.dir, orphan.slot), Vec::<String>::new());
}

fn web(cluster: &Cluster) {
    cluster.apply(WEB).unwrap();
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).unwrap();
}

/// exec, logs, cluster DNS, the Service, and traffic between nodes.
fn both_nodes_of_rome_serve(rome: &Cluster) {
    let nodes = rome.kubectl(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].spec.nodeName}"]).unwrap();
    assert!(nodes.contains("rome-1") && nodes.contains("rome-2"), "{nodes}");
    for pod in pods(rome) {
        let mut answers = std::collections::BTreeSet::new();
        wait_for("both replicas answer", SOON, || {
            answers.insert(rome.kubectl(&["exec", &pod.0, "--", "wget", "-qO-", "http://web.default"])?);
            Ok((answers.len() == 2).then_some(()))
        })
        .unwrap();
        assert!(rome.kubectl(&["logs", &pod.0]).unwrap().contains("serves on port 8080"));
    }
}

fn pods_of_joined_clusters_see_each_others_addresses(bed: &Testbed, rome: &Cluster, paris: &Cluster) {
    bed.join_pod_networks(&[rome, paris]).unwrap();
    let (from, to) = (&pods(rome)[0], &pods(paris)[0]);
    rome.kubectl(&["exec", &from.0, "--", "wget", "-qO-", &format!("http://{}:8080", to.1)]).unwrap();
    let log = paris.kubectl(&["logs", &to.0]).unwrap();
    assert!(log.contains(&from.1), "the pod {} of rome is not seen by paris: {log}", from.1);
}

fn pretending_nodes_are_ready(rome: &Cluster) {
    rome.wait(&["--for=condition=Ready", "node", "-l", "type=kwok"], SOON).unwrap();
}

fn faults_of_the_wire_bite_and_heal(bed: &Testbed, rome: &Cluster, milan: &Cluster) {
    let answers = |cluster: &Cluster| reaches(&format!("http://{}:30080", cluster.node_ip()));
    assert!(answers(rome) && answers(milan));
    rome.link().cut().unwrap();
    assert!(!answers(rome) && answers(milan));
    rome.link().restore().unwrap();
    wait_for("rome after the cut", SOON, || Ok(answers(rome).then_some(()))).unwrap();

    milan.link().loss(100).unwrap();
    assert!(!answers(milan));
    milan.link().loss(0).unwrap();
    assert!(answers(milan));

    let from_rome = || {
        let url = format!("http://{}:30080", milan.node_ip());
        rome.kubectl(&["exec", &pods(rome)[0].0, "--", "timeout", "2", "wget", "-qO-", &url]).is_ok()
    };
    assert!(from_rome());
    // Who only looks takes nothing down.
    drop(Testbed::open(bed.name()).unwrap());
    assert!(from_rome());
    bed.part(rome, milan).unwrap();
    assert!(!from_rome() && answers(rome) && answers(milan));
    bed.heal().unwrap();
    assert!(from_rome());

    milan.link().delay(100).unwrap();
    let trip = round_trip(rome, milan);
    assert!((200..400).contains(&trip), "{trip} ms");
    milan.link().delay(0).unwrap();
    assert!(round_trip(rome, milan) < 100);

    milan.link().black_hole(1000).unwrap();
    assert!(pings(rome, milan, 900) && !pings(rome, milan, 1100) && !pings(milan, rome, 1100));
    milan.link().black_hole(0).unwrap();
    assert!(pings(rome, milan, 1100));
}

fn faults_of_processes_bite_and_heal(milan: &Cluster) {
    let ready = || milan.kubectl(&["get", "--raw", "/readyz", "--request-timeout=2s"]).is_ok();
    milan.component("kube-apiserver").freeze().unwrap();
    assert!(!ready());
    milan.component("kube-apiserver").thaw().unwrap();
    assert!(ready());
    milan.stop_component("kube-apiserver").unwrap();
    assert!(!ready());
    milan.start_component("kube-apiserver").unwrap();
    assert!(ready());

    let pod = pods(milan).remove(0).0;
    milan.kill_pod_process("default", &pod, "web").unwrap();
    wait_for("the container's second life", SOON, || {
        let path = "jsonpath={.status.containerStatuses[0].restartCount}";
        Ok((milan.kubectl(&["get", "pod", &pod, "-o", path])? == "1").then_some(()))
    })
    .unwrap();
}

/// Names and addresses of the pods of `web`.
fn pods(cluster: &Cluster) -> Vec<(String, String)> {
    let path = r#"jsonpath={range .items[*]}{.metadata.name} {.status.podIP}{"\n"}{end}"#;
    let printed = cluster.kubectl(&["get", "pods", "-l", "app=web", "-o", path]).unwrap();
    printed.lines().filter_map(|line| line.split_once(' ')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

fn reaches(url: &str) -> bool {
    Command::new("curl").args(["-so", "/dev/null", "--noproxy", "*", "-m", "2", url]).status().unwrap().success()
}

/// Whether a packet of so many octets, of which 28 are headers, gets from a node to another cluster's and back.
fn pings(from: &Cluster, to: &Cluster, length: u32) -> bool {
    let netns = from.nodes()[0].netns.clone();
    let (size, to) = ((length - 28).to_string(), to.node_ip());
    let ping = [netns.as_str(), "busybox", "ping", "-c1", "-W1", "-q", "-s", &size, &to];
    Command::new("ip").args(["netns", "exec"]).args(ping).stdout(Stdio::null()).status().unwrap().success()
}

fn round_trip(from: &Cluster, to: &Cluster) -> u128 {
    // The first may have to ask for the neighbour's address, which is a round trip of its own.
    assert!(pings(from, to, 100));
    let began = std::time::Instant::now();
    assert!(pings(from, to, 100));
    began.elapsed().as_millis()
}

fn slot(bed: &Testbed) -> u8 {
    bed.dir().file_name().unwrap().to_str().unwrap().parse().unwrap()
}

/// Where the kernel may keep the cgroups of a cluster's containers.
fn cgroups(cluster: &Cluster) -> Vec<PathBuf> {
    let tasks = cluster.logs_dir().join(cluster.first()).join("containerd/io.containerd.runtime.v2.task/k8s.io");
    let tasks = names(&tasks.display().to_string());
    let hierarchies = ["", "pids", "memory", "cpu", "systemd"].map(|name| Path::new("/sys/fs/cgroup").join(name));
    hierarchies.iter().flat_map(|hierarchy| tasks.iter().map(|task| hierarchy.join("k8s.io").join(task))).collect()
}

fn host_rules() -> String {
    let output = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Everything on this machine that bears the mark of a test bed.
fn remains(dir: &Path, slot: u8) -> Vec<String> {
    let mark = dir.join("").display().to_string();
    let prefix = format!("lq{slot}-");
    let mut found: Vec<String> = Vec::new();
    found.extend(dir.exists().then(|| mark.clone()));
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    found.extend(mounts.lines().filter(|line| line.contains(&mark)).map(str::to_owned));
    for place in ["/run/netns", "/var/lib/cni/results"] {
        found.extend(names(place).into_iter().filter(|name| name.starts_with(&prefix)));
    }
    found.extend(names("/sys/class/net").into_iter().filter(|name| *name == format!("lq{slot}")));
    let links = names("/var/log/containers").into_iter().filter_map(|name| {
        let target = fs::read_link(PathBuf::from("/var/log/containers").join(name)).ok()?;
        target.starts_with(dir).then(|| target.display().to_string())
    });
    found.extend(links);
    for pid in names("/proc").iter().filter_map(|name| name.parse().ok()) {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        if words.contains(&mark) && Process::find(pid).is_some() {
            found.push(words);
        }
    }
    found
}

fn names(dir: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
