//! Identities where signers give minutes: a certificate is renewed in time, ends when nobody renews it, and is revoked.
//!
//! `rome` consumes from `milan`. The controller manager of Kubernetes dates certificates back by five minutes, so two thirds
//! of the life of a certificate of 170 s are over 12 s after its issue.

mod identity {
    pub(crate) mod held;
    pub(crate) mod impostor;
}

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use identity::{
    held::{Answer, Held, held, identities, replaced, text},
    impostor,
};
use liqo_test::{
    Cluster, Stage,
    stage::{LONG, on},
    story, wait_for,
};
use serde_json::{Value, json};

/// Certificates of this life are renewed after 12 s.
const SHORT: Duration = Duration::from_secs(170);
/// Certificates of this life are due at once, and renewed every 10 s.
const SHORTEST: Duration = Duration::from_secs(30);
/// A definite refusal ends a command within this time: `liqoctl` believes a refusal that lasts for 20 s.
const REFUSED: Duration = Duration::from_secs(45);
/// Certificates of this life are not renewed while the story is told.
const LASTING: Duration = Duration::from_secs(24 * 3600);
/// Longer than two pauses between attempts at something that is refused.
const REST: Duration = Duration::from_secs(12);
/// A ConfigMap of the consumer is at the provider within this time.
const PROMPT: Duration = Duration::from_secs(10);

#[test]
fn identities_are_renewed_end_and_are_revoked() -> Result<()> {
    story::alone("identity", || Stage::raise("identity", &["rome", "milan"]), told)
}

fn told(stage: &Stage) -> Result<()> {
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
    stage.everywhere(|cluster| cluster.sign_for(SHORT))?;
    stage.install_all(&[])?;
    stage.peer(rome, milan)?;
    let first = held(rome)?;
    stage.offload(rome, "demo", &[])?;
    rome.web("demo", "web", 1, &on("milan"))?;
    rome.rolled_out("demo", "web")?;
    renewed(stage, &first)?;
    ended(stage)?;
    revoked(stage)?;
    forgotten(stage)
}

/// The certificate is replaced before it ends, and every few seconds when it lives for seconds; nobody notices. Nothing of ours
/// restarts, pods stay ready, and a shell that was opened with the first certificate goes on.
fn renewed(stage: &Stage, first: &Held) -> Result<()> {
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
    let before = seen(stage)?;
    let mut shell = Shell::open(rome)?;
    shell.says("under the first certificate")?;
    let second = replaced(rome, first)?;
    ensure!(now()? < first.ends, "renewed when it had ended");
    ensure!(second.key != first.key, "a renewed certificate speaks of the key it had");
    delivered(stage, "after-the-first-renewal")?;
    wait_for("the serving certificate of the virtual kubelet is renewed, too", LONG, || {
        let asked = rome.items(&["csr"])?;
        let asked = asked.iter().filter(|one| text(one, "/spec/username").ends_with(":virtual-kubelet")).count();
        if asked > 1 { Ok(Some(())) } else { bail!("{asked} requests") }
    })?;
    milan.sign_for(SHORTEST)?;
    let mut last = second;
    while last.ends > now()? + SHORTEST.as_secs() {
        last = replaced(rome, &last)?;
    }
    // Whatever used a certificate from before this moment has been shown another one at its end.
    let until = last.ends + 5;
    let mut count = 0;
    while now()? < until {
        count += 1;
        delivered(stage, &format!("step-{count}"))?;
    }
    let after = seen(stage)?;
    ensure!(after == before, "renewals were noticed:\n{before:#}\n{after:#}");
    shell.says("under the last certificate")?;
    shell.close()?;
    wait_for("no superseded identity is left", LONG, || {
        let left = identities(rome)?.len();
        // One is about to be replaced at times.
        if left <= 2 { Ok(Some(())) } else { bail!("{left} identities") }
    })?;
    rome.kubectl(&["exec", "-n", "demo", "deployment/web", "--", "true"])?;
    rome.kubectl(&["logs", "-n", "demo", "deployment/web"]).map(drop)
}

/// Nobody renews the certificate, so it ends; the provider's pods run on, and all is well by itself when somebody renews it.
fn ended(stage: &Stage) -> Result<()> {
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
    let pods = pods(milan)?;
    milan.kubectl(&["scale", "-n", "liqo", "deployment/liqo-auth", "--replicas=0"])?;
    rome.wait_peering("milan", "AuthenticationStatus", "Error")?;
    let told = rome.peering("milan", "AuthenticationStatus")?;
    ensure!(text(&told, "/message").starts_with("Cannot ensure identity: failed to send identity request"), "{told}");
    warned(rome, "The peer does not renew our certificate, the old one stays in use")?;
    let old = held(rome)?;
    ensure!(old.ends <= now()?, "the identity was given up before its end");
    let answer = old.asks(stage, "/apis/discovery.liqo.io/v1alpha1/namespaces/TENANT/resourcerequests")?;
    ensure!(answer == Answer::Unknown, "a certificate that has ended is answered: {answer:?}");
    rome.wait_peering("milan", "APIServerStatus", "Error")?;
    ensure!(self::pods(milan)? == pods, "pods of the consumer changed because its certificate ended");

    milan.sign_for(SHORT)?;
    milan.kubectl(&["scale", "-n", "liqo", "deployment/liqo-auth", "--replicas=1"])?;
    for condition in ["AuthenticationStatus", "APIServerStatus", "OutgoingPeering"] {
        rome.wait_peering("milan", condition, "Established")?;
    }
    wait_for("the virtual node is ready", LONG, || {
        let ready = ready(rome)?;
        if ready["status"] == "True" { Ok(Some(())) } else { bail!("{ready}") }
    })?;
    delivered(stage, "after-the-end")?;
    ensure!(self::pods(milan)? == pods, "pods of the consumer changed when its certificate came back");
    rome.rolled_out("demo", "web")
}

/// The provider ends it: the certificate is valid for minutes, opens nothing, and is not renewed.
fn revoked(stage: &Stage) -> Result<()> {
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
    let there = offloaded(milan)?;
    let requests = "/apis/discovery.liqo.io/v1alpha1/namespaces/TENANT/resourcerequests";
    let shadows = format!("/apis/virtualkubelet.liqo.io/v1alpha1/namespaces/{there}/shadowpods");
    let maps = format!("/api/v1/namespaces/{there}/configmaps");
    let held = held(rome)?;
    for path in [requests, &shadows, &maps] {
        let answer = held.asks(stage, path)?;
        ensure!(answer == Answer::Given, "{path} is answered before the end: {answer:?}");
    }
    let recorded = recorded_longer(milan, held.ends)?;
    let lines = |said: &str, verb: &str| -> Vec<String> {
        said.lines().filter_map(|line| Some(line.split_once(verb)?.1.to_owned())).collect()
    };
    let shown = lines(&stage.liqoctl(milan, &["evict", "tenant", "rome", "--dry-run"])?, "Would end: ");
    ensure!(held.asks(stage, requests)? == Answer::Given, "a dry run has ended the rights");
    let said = stage.liqoctl(milan, &["evict", "tenant", "rome", "--timeout", "60s"])?;
    let ended = lines(&said, "Ended: ");
    ensure!(shown == ended, "the dry run shows {shown:?}, and {ended:?} was ended");
    for wanted in ["role liqo-", &format!("namespace {there} with all its pods"), "tenant namespace liqo-tenant-rome"] {
        ensure!(ended.iter().any(|one| one.starts_with(wanted)), "no line says that {wanted:?} ended: {said}");
    }
    // It may have been renewed while that was done.
    let last = self::held(rome)?;
    let ban = milan.json(&["foreigncluster", "rome"])?;
    let ends = text(&ban, "/metadata/annotations/discovery.liqo.io~1certificate-expire-time");
    let ends: u64 = ends.parse().with_context(|| format!("the ban says that the certificate ends at {ends:?}"))?;
    ensure!(ends == recorded, "the last certificate ends at {recorded}, the ban says at {ends}");
    for path in [requests, &shadows, &maps, "/api/v1/namespaces", "/apis/virtualkubelet.liqo.io/v1alpha1/namespacemaps"]
    {
        for one in [&held, &last] {
            let answer = one.asks(stage, path)?;
            ensure!(answer == Answer::Forbidden, "{path} is answered after the end: {answer:?}");
        }
    }
    rome.wait_peering("milan", "AuthenticationStatus", "Denied")?;
    let told = rome.peering("milan", "AuthenticationStatus")?;
    ensure!(text(&told, "/message").contains("cluster \"milan\" says: cluster "), "{told}");
    ensure!(text(&told, "/message").contains("is banned from this cluster"), "{told}");
    ensure!(now()? < held.ends, "the certificate has ended meanwhile");
    ensure!(self::held(rome)?.ends == last.ends, "a banned cluster was given a certificate");
    rests(rome)?;
    lifted(stage)
}

/// While nothing changes, nothing is written: what the consumer shows of a peering that was refused stays as it is.
fn rests(rome: &Cluster) -> Result<()> {
    let seen = || -> Result<Vec<Value>> {
        let shown = rome.items(&["foreignclusters,resourcerequests.discovery.liqo.io", "-A"])?;
        Ok(shown.into_iter().map(|one| json!([one["metadata"], one["status"]])).collect())
    };
    let before = seen()?;
    ensure!(!before.is_empty(), "the consumer shows nothing of the peering");
    std::thread::sleep(REST);
    let after = seen()?;
    ensure!(before == after, "something is written again and again:\n{before:#?}\n{after:#?}");
    Ok(())
}

/// The record of the provider covers the certificate in use. Makes the record that of an earlier certificate, which ends an hour
/// later than the one in use, and returns the record.
fn recorded_longer(milan: &Cluster, ends: u64) -> Result<u64> {
    const KEY: &str = "discovery.liqo.io/certificate-expire-time";
    let known = milan.json(&["foreigncluster", "rome"])?;
    let tenant = text(&known, "/status/tenantNamespace/local").to_owned();
    let namespace = milan.json(&["namespace", &tenant])?;
    let recorded: u64 = text(&namespace, "/metadata/annotations/discovery.liqo.io~1certificate-expire-time").parse()?;
    ensure!(recorded >= ends, "the certificate ends at {ends}, the record says at {recorded}");
    let longer = recorded + 3600;
    milan.kubectl(&["annotate", "--overwrite", "namespace", &tenant, &format!("{KEY}={longer}")])?;
    Ok(longer)
}

/// A new wish for resources ends with the reason of the provider while the ban lasts, and comes true when the ban is lifted.
fn lifted(stage: &Stage) -> Result<()> {
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
    let began = Instant::now();
    let told = stage.refused(rome, &["peer", "milan"])?;
    ensure!(told.contains("is banned from this cluster"), "{told}");
    ensure!(began.elapsed() < REFUSED, "a banned cluster waited for {:?}", began.elapsed());
    let id = milan.json(&["foreigncluster", "rome"])?;
    let id = text(&id, "/spec/clusterIdentity/clusterID");
    let open =
        r#"{"metadata":{"annotations":{"liqo.io/tenant-condition":null}},"spec":{"incomingPeeringEnabled":"Auto"}}"#;
    let open = milan.kubectl(&["patch", "foreigncluster", "rome", "--type=merge", "-p", open, "-o", "json"])?;
    let open: Value = serde_json::from_str(&open)?;
    impostor::is_refused(stage, id)?;
    let ends = text(&open, "/metadata/annotations/discovery.liqo.io~1certificate-expire-time");
    ensure!(!ends.is_empty(), "with the ban it is forgotten when the last certificate ends");
    // The key of milan for rome ended with the ban: milan comes with a new one, and needs the word of rome.
    rome.sign_for(LASTING)?;
    let command = stage.peer_command_anew(rome, milan)?;
    let token = command.iter().skip_while(|word| *word != "--auth-token").nth(1).context("no token")?;
    let labels = json!({"discovery.liqo.io/cluster-id": id, "discovery.liqo.io/auth-token": ""});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"token": token},
        "metadata": {"name": format!("remote-token-{id}"), "namespace": "liqo", "labels": labels}});
    milan.apply(&secret.to_string())?;
    stage.liqoctl(rome, &["peer", "milan"])?;
    rome.rolled_out("demo", "web")
}

/// The token for milan goes with its `ForeignCluster`. Milan, of which rome then wants nothing, shows the identity of rome as
/// one without a `ForeignCluster`, and ends it by the ID of rome.
fn forgotten(stage: &Stage) -> Result<()> {
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
    let held = held(rome)?;
    let id = milan.json(&["foreigncluster", "rome"])?;
    let id = text(&id, "/spec/clusterIdentity/clusterID").to_owned();
    rome.kubectl(&["delete", "foreigncluster", "milan", "--timeout=90s"])?;
    wait_for("the token for milan is gone", LONG, || {
        let tokens = rome.items(&["secrets", "-n", "liqo", "-l", "discovery.liqo.io/auth-token"])?;
        Ok(tokens.is_empty().then_some(()))
    })?;
    wait_for("milan forgets rome, which asks for nothing", LONG, || {
        Ok(milan.items(&["foreignclusters"])?.is_empty().then_some(()))
    })?;
    let shown = stage.liqoctl(milan, &["status", "peer"])?;
    ensure!(shown.contains("Identity without a ForeignCluster") && shown.contains(&id), "{shown}");
    stage.liqoctl(milan, &["evict", "tenant", &id, "--timeout", "60s"])?;
    let answer = held.asks(stage, "/apis/discovery.liqo.io/v1alpha1/namespaces/TENANT/resourcerequests")?;
    ensure!(answer == Answer::Forbidden, "an identity that was ended is answered: {answer:?}");
    let shown = stage.liqoctl(milan, &["status", "peer"])?;
    ensure!(!shown.contains(&id), "{shown}");
    Ok(())
}

/// A program in the pod that says again what it is told.
struct Shell {
    kubectl: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Shell {
    fn open(rome: &Cluster) -> Result<Self> {
        let mut exec = rome.kubectl_command();
        exec.args(["exec", "-i", "-n", "demo", "deployment/web", "--", "cat"]);
        let kubectl = exec.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut kubectl = kubectl.context("cannot run kubectl exec")?;
        let to = kubectl.stdin.take().context("kubectl has no input")?;
        let from = BufReader::new(kubectl.stdout.take().context("kubectl has no output")?);
        Ok(Self { kubectl, to, from })
    }

    fn says(&mut self, words: &str) -> Result<()> {
        writeln!(self.to, "{words}").context("the shell was cut")?;
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        ensure!(line.trim_end() == words, "the shell says {line:?} instead of {words:?}");
        Ok(())
    }

    fn close(mut self) -> Result<()> {
        drop(self.to);
        let end = self.kubectl.wait()?;
        ensure!(end.success(), "the shell ended with {end}");
        Ok(())
    }
}

/// A ConfigMap made here comes there.
fn delivered(stage: &Stage, name: &str) -> Result<()> {
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
    let there = offloaded(milan)?;
    rome.kubectl(&["create", "configmap", "-n", "demo", name])?;
    wait_for(&format!("{name} is replicated"), PROMPT, || {
        let found = milan.items(&["configmaps", "-n", &there])?;
        Ok(found.iter().any(|one| text(one, "/metadata/name") == name).then_some(()))
    })
}

/// What a renewal must not change: pods here and there, the node, how the peering stands, and the processes of the product.
fn seen(stage: &Stage) -> Result<Value> {
    let rome = stage.cluster("rome");
    let conditions = ["AuthenticationStatus", "APIServerStatus", "OutgoingPeering"];
    let conditions = conditions.map(|condition| rome.peering("milan", condition));
    let conditions = conditions.into_iter().collect::<Result<Vec<_>>>()?;
    let node = ready(rome)?;
    let [here, there] = ["rome", "milan"].map(|name| pods(stage.cluster(name)));
    let [consumer, provider] = ["rome", "milan"].map(|name| processes(stage.cluster(name)));
    Ok(
        json!({"here": here?, "there": there?, "node": node, "peering": conditions, "processes": [consumer?, provider?]}),
    )
}

/// The containers of the product, with how often they were restarted.
fn processes(cluster: &Cluster) -> Result<Value> {
    let pods = cluster.items(&["pods", "-A", "-l", "app.kubernetes.io/part-of=liqo"])?;
    ensure!(!pods.is_empty(), "nothing of the product runs in {}", cluster.name());
    let restarts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].clone();
    Ok(pods.iter().map(|pod| (text(pod, "/metadata/name").to_owned(), restarts(pod))).collect())
}

/// The pods of the user as a cluster knows them: since when they are ready, and how often they were restarted.
fn pods(cluster: &Cluster) -> Result<Vec<Value>> {
    let pods = cluster.items(&["pods", "-A", "-l", "app=web"])?;
    let told = |pod: &Value| {
        let restarts = pod["status"]["containerStatuses"][0]["restartCount"].clone();
        json!({"uid": pod["metadata"]["uid"], "restarts": restarts, "ready": condition(pod, "Ready")})
    };
    Ok(pods.iter().map(told).collect())
}

/// The status of a condition of an object, and since when it is so.
fn condition(object: &Value, kind: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let one = conditions.into_iter().find(|one| one["type"] == kind).unwrap_or_default();
    json!({"status": one["status"], "since": one["lastTransitionTime"]})
}

fn ready(rome: &Cluster) -> Result<Value> {
    Ok(condition(&rome.json(&["node", "liqo-milan"])?, "Ready"))
}

/// The namespace made for the offloaded one.
fn offloaded(milan: &Cluster) -> Result<String> {
    let found = milan.items(&["namespaces", "-l", "liqo.io/remote-cluster-id"])?;
    ensure!(found.len() == 1, "{} namespaces of the consumer", found.len());
    Ok(text(&found[0], "/metadata/name").to_owned())
}

/// The user is told by an Event that the certificate is not renewed, in these words.
fn warned(rome: &Cluster, words: &str) -> Result<()> {
    wait_for(&format!("an Event says {words:?}"), LONG, || {
        let events = rome.items(&["events", "-A", "--field-selector", "reason=IdentityNotRenewed"])?;
        let said: Vec<_> = events.iter().map(|one| text(one, "/message")).collect();
        if said.iter().any(|one| one.contains(words)) { Ok(Some(())) } else { bail!("{said:?}") }
    })
}

/// The second it is.
fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}
