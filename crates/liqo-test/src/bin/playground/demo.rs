//! The main job, step by step: build, install, peer, offload, run an application in both clusters and use it.

use std::{
    collections::BTreeMap,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use liqo_test::{Product, assets, out, run, wait_for};
use serde_json::Value;

use crate::{
    place::{Own, Place, Site, chart, until},
    steps::{Log, Steps},
};

/// All steps, with the two of the script.
const STEPS: usize = 9;

pub(crate) fn up(own: Own, done: usize, path: &Path) -> Result<()> {
    let began = Instant::now();
    let mut steps = Steps::new("./quickstart", done, STEPS, path)?;
    let place = Place::choose(own);
    let product = Product::build().context("the product is not built; ./quickstart does that")?;
    let sites = peered(&mut steps, &place, &product)?;
    let [rome, _] = &sites;
    steps.step("Offload the namespace demo", |log| offload(&product, rome, log))?;
    let pods = steps.step("Run a web application in both clusters", |log| deploy(&place, rome, log))?;
    let seen = steps.step("Use it: requests, logs, exec", |log| exercise(rome, &pods, log))?;
    out::note("");
    out::say(&farewell(&product, &sites, &seen));
    out::note(&format!("\nThe clusters and everything after them took {:.0} s.", began.elapsed().as_secs_f64()));
    Ok(())
}

/// The two clusters with the product in them, and rome may use milan's capacity.
pub(crate) fn peered(steps: &mut Steps, place: &Place, product: &Product) -> Result<[Site; 2]> {
    let sites = steps.step(place.title(), |log| {
        assets::ensure()?;
        place.start(log)
    })?;
    let [rome, milan] = &sites;
    let fresh = steps.step("Load the image", |log| place.load(product, &sites, log))?;
    steps.step("Install in rome and milan", |log| {
        let outdated = fresh && sites.iter().any(is_installed);
        install(place, product, &sites, log)?;
        if outdated { restart(&sites, log) } else { Ok(()) }
    })?;
    steps.step("Peer: rome will use milan's capacity", |log| peer(product, rome, milan, log))?;
    Ok(sites)
}

/// Installs the product in one cluster, or changes the values of the release there.
pub(crate) fn install_one(place: &Place, product: &Product, site: &Site, more: &[&str]) -> Result<String> {
    let (chart, version) = chart()?;
    let (image, tag) = place.image()?;
    let mut liqoctl = product.liqoctl_command(&site.kubeconfig);
    liqoctl.args(["install", "kubeadm", "--cluster-name", site.name, "--version", &version, "--local-chart-path"]);
    liqoctl.arg(&chart).args(["--service-type", "NodePort"]);
    liqoctl.args(["--set", &format!("image={image}"), "--set", &format!("tag={tag}")]).args(more);
    run::output(&mut liqoctl).with_context(|| format!("in {}", site.name))
}

fn install(place: &Place, product: &Product, sites: &[Site; 2], log: &mut Log) -> Result<()> {
    thread::scope(|scope| {
        let installs = sites.each_ref().map(|site| scope.spawn(move || install_one(place, product, site, &[])));
        installs.into_iter().try_for_each(|it| {
            log.write(&it.join().expect("installing does not panic")?);
            Ok(())
        })
    })
}

fn is_installed(site: &Site) -> bool {
    site.kubectl(&["-n", "liqo", "get", "deployment", "liqo-controller-manager"])
        .output()
        .is_ok_and(|got| got.status.success())
}

/// The tag is the same and the image another one: pods that run must start again.
fn restart(sites: &[Site; 2], log: &mut Log) -> Result<()> {
    for site in sites {
        log.run(&mut site.kubectl(&["-n", "liqo", "rollout", "restart", "deployment"]))?;
    }
    for site in sites {
        let status = ["-n", "liqo", "rollout", "status", "deployment", "--timeout=120s"];
        log.run(&mut site.kubectl(&status))?;
    }
    Ok(())
}

fn peer(product: &Product, rome: &Site, milan: &Site, log: &mut Log) -> Result<()> {
    let mut generate = product.liqoctl_command(&milan.kubeconfig);
    let printed = run::output(generate.args(["generate", "peer-command", "--only-command"]))?;
    let words: Vec<_> = printed.split_whitespace().skip_while(|word| *word != "peer").collect();
    ensure!(!words.is_empty(), "liqoctl generate peer-command printed no command: {printed}");
    log.run(product.liqoctl_command(&rome.kubeconfig).args(words))?;
    let node = ["wait", "node/liqo-milan", "--for=condition=Ready", "--timeout=5s"];
    until("the virtual node liqo-milan", Duration::from_secs(60), || rome.kubectl(&node)).map(drop)
}

fn offload(product: &Product, rome: &Site, log: &mut Log) -> Result<()> {
    if run::output(&mut rome.kubectl(&["get", "namespace", "demo"])).is_err() {
        log.run(&mut rome.kubectl(&["create", "namespace", "demo"]))?;
    }
    let mut liqoctl = product.liqoctl_command(&rome.kubeconfig);
    log.run(liqoctl.args(["offload", "namespace", "demo", "--namespace-mapping-strategy", "EnforceSameName"])).map(drop)
}

/// A replica in each cluster.
struct Pods {
    here: String,
    there: String,
}

fn deploy(place: &Place, rome: &Site, log: &mut Log) -> Result<Pods> {
    let manifest = include_str!("web.yaml").replace("WEB_IMAGE", &place.web_image());
    log.write(&run::feed(&mut rome.kubectl(&["apply", "-f", "-"]), &manifest)?);
    let status = ["-n", "demo", "rollout", "status", "deployment/web", "--timeout=120s"];
    if let Err(error) = log.run(&mut rome.kubectl(&status)) {
        let pods = log.run(&mut rome.kubectl(&["-n", "demo", "describe", "pods"])).unwrap_or_default();
        return Err(error.context(run::tail(&pods, 8)));
    }
    let pods = rome.kubectl(&["-n", "demo", "get", "pods", "-l", "app=web", "-o", "json"]);
    let list: Value = serde_json::from_str(&run::output(&mut { pods })?)?;
    let pods: Vec<_> = list["items"].as_array().into_iter().flatten().collect();
    let find = |remote: bool| {
        let matches = |pod: &&&Value| {
            pod["metadata"]["deletionTimestamp"].is_null() && (pod["spec"]["nodeName"] == "liqo-milan") == remote
        };
        let pod = pods.iter().find(matches).and_then(|pod| pod["metadata"]["name"].as_str());
        pod.map(str::to_owned)
            .with_context(|| format!("no replica runs {}", if remote { "in milan" } else { "in rome" }))
    };
    Ok(Pods { here: find(false)?, there: find(true)? })
}

/// What the user shall see of it.
struct Seen {
    table: String,
    answers: BTreeMap<String, usize>,
    back: String,
    logs: String,
    exec: String,
    pod: String,
}

fn exercise(rome: &Site, pods: &Pods, log: &mut Log) -> Result<Seen> {
    let request =
        |from: &str| rome.kubectl(&["-n", "demo", "exec", from, "--", "wget", "-qO-", "http://web.demo:8080"]);
    let mut answers = BTreeMap::new();
    wait_for("an answer from both replicas", Duration::from_secs(60), || {
        let answer = run::output(&mut request(&pods.here))?.trim().to_owned();
        *answers.entry(answer).or_default() += 1;
        Ok((answers.len() == 2 && answers.values().sum::<usize>() >= 8).then_some(()))
    })?;
    let back = until("an answer to milan", Duration::from_secs(30), || request(&pods.there))?;
    let logs = log.run(&mut rome.kubectl(&["-n", "demo", "logs", &pods.there]))?;
    let logs = logs.lines().take(3).collect::<Vec<_>>().join("\n");
    let name = ["-n", "demo", "exec", &pods.there, "--", "sh", "-c", "echo I am $(hostname) on $NODE"];
    let exec = log.run(&mut rome.kubectl(&name))?;
    let table = log.run(&mut rome.kubectl(&["-n", "demo", "get", "pods", "-o", "wide"]))?;
    Ok(Seen { table, answers, back, logs, exec, pod: pods.there.clone() })
}

fn farewell(product: &Product, [rome, milan]: &[Site; 2], seen: &Seen) -> String {
    let indent = |text: &str| format!("  {}", text.trim_end().replace('\n', "\n  "));
    let answers: Vec<_> = seen.answers.iter().map(|(answer, count)| format!("{count} × {answer}")).collect();
    let bin = liqo_test::assets::bin().display().to_string();
    format!(
        "One Deployment, two clusters (kubectl -n demo get pods -o wide):\n{table}\n\n\
         Who answered requests to the Service, sent from rome:\n{answers}\n\
         and one sent from milan:\n{back}\n\n\
         kubectl logs of the replica in milan:\n{logs}\n\
         kubectl exec in it:\n{exec}\n\n\
         Try next:\n  \
         export PATH={bin}:$PATH KUBECONFIG={rome}    # milan's: {milan}\n  \
         kubectl get nodes                                  # liqo-milan is the other cluster\n  \
         kubectl -n demo scale deployment web --replicas=1  # and watch where it stays\n  \
         kubectl -n demo exec -it {pod} -- sh\n  \
         KUBECONFIG={milan} kubectl get pods -A         # what runs in milan for rome\n  \
         {liqoctl} status\n  \
         ./quickstart jobs                                  # a job that runs in milan, and its results\n  \
         ./quickstart down                                  # leaves nothing",
        table = indent(&seen.table),
        answers = indent(&answers.join("\n")),
        back = indent(&seen.back),
        logs = indent(&seen.logs),
        exec = indent(&seen.exec),
        rome = rome.kubeconfig.display(),
        milan = milan.kubeconfig.display(),
        pod = seen.pod,
        liqoctl = product.liqoctl_path().display(),
    )
}
