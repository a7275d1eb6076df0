//! Where the two clusters are: the user's own, kind's, or the test bed's.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use liqo_test::{ClusterSpec, Product, Testbed, assets, down as testbed_down, out, record, run};

use crate::steps::Log;

const BED: &str = "playground";
/// Name, pod CIDR, Service CIDR. The first one consumes, the second one provides.
const CLUSTERS: [(&str, &str, &str); 2] =
    [("rome", "10.244.0.0/16", "10.96.0.0/16"), ("milan", "10.244.0.0/16", "10.96.0.0/16")];

/// One of the two clusters.
pub(crate) struct Site {
    pub(crate) name: &'static str,
    pub(crate) kubeconfig: PathBuf,
}

impl Site {
    pub(crate) fn kubectl(&self, args: &[&str]) -> Command {
        let mut kubectl = run::command("kubectl");
        kubectl.env("KUBECONFIG", &self.kubeconfig).args(args);
        kubectl
    }
}

/// Clusters of the user's own, instead of those that the playground makes.
#[derive(Args)]
pub(crate) struct Own {
    /// The kubeconfig of the cluster that consumes
    #[arg(long, env, requires = "kubeconfig_b")]
    kubeconfig_a: Option<PathBuf>,
    /// The kubeconfig of the cluster that provides
    #[arg(long, env, requires_all = ["kubeconfig_a", "image"])]
    kubeconfig_b: Option<PathBuf>,
    /// An image of the product that your clusters can pull, with its tag
    #[arg(long, env)]
    image: Option<String>,
    /// An image with busybox, where the application runs
    #[arg(long, env, default_value = "busybox:1.36")]
    web_image: String,
    /// Network namespaces of this machine even where there is a Docker engine
    #[arg(long, env = "LIQO_NATIVE")]
    native: bool,
}

pub(crate) enum Place {
    Own { kubeconfigs: [PathBuf; 2], image: String, web_image: String },
    Kind,
    Native,
}

impl Place {
    pub(crate) fn choose(own: Own) -> Self {
        let Own { kubeconfig_a, kubeconfig_b, image, web_image, native } = own;
        let docker = || run::output(run::command("docker").arg("info")).is_ok();
        match (kubeconfig_a, kubeconfig_b, image) {
            (Some(a), Some(b), Some(image)) => Self::Own { kubeconfigs: [a, b], image, web_image },
            _ if !native && docker() => Self::Kind,
            _ => Self::Native,
        }
    }

    pub(crate) fn title(&self) -> &'static str {
        match self {
            Self::Own { .. } => "Reach your two Kubernetes clusters",
            Self::Kind => "Start two Kubernetes clusters with kind",
            Self::Native => "Start two Kubernetes clusters",
        }
    }

    /// Repository and tag of the product's image.
    pub(crate) fn image(&self) -> Result<(String, String)> {
        let Self::Own { image, .. } = self else { return Ok(("localhost/liqo".into(), "dev".into())) };
        let (repository, tag) = image.rsplit_once(':').context("IMAGE has no tag")?;
        Ok((repository.into(), tag.into()))
    }

    /// An image with a shell and busybox' web server, where the application runs.
    pub(crate) fn web_image(&self) -> String {
        match self {
            Self::Own { web_image, .. } => web_image.clone(),
            _ => "localhost/busybox:1".into(),
        }
    }

    pub(crate) fn start(&self, log: &mut Log) -> Result<[Site; 2]> {
        match self {
            Self::Own { kubeconfigs, .. } => reach(kubeconfigs, log),
            Self::Kind => kind(log),
            Self::Native => native(),
        }
    }

    /// Makes the image known to the clusters; says whether it is another one than they had.
    pub(crate) fn load(&self, product: &Product, sites: &[Site; 2], log: &mut Log) -> Result<bool> {
        if matches!(self, Self::Own { .. }) {
            return Ok(false);
        }
        let image = product.image()?;
        let note = state().join("image");
        let name = image.display().to_string();
        if std::fs::read_to_string(&note).is_ok_and(|loaded| loaded == name) {
            return Ok(false);
        }
        match self {
            Self::Native => {
                Testbed::open(BED)?.existing()?.iter().try_for_each(|cluster| cluster.load_image(&image))?
            }
            _ => {
                for (site, tar) in
                    sites.iter().flat_map(|site| [(site, image.clone()), (site, assets::images().join("busybox.tar"))])
                {
                    let mut load = run::command("kind");
                    log.run(load.args(["load", "image-archive", "--name", site.name]).arg(tar))?;
                }
            }
        }
        std::fs::create_dir_all(state())?;
        run::write(&note, name)?;
        Ok(true)
    }
}

/// What the playground remembers about clusters that are not the test bed's goes here.
fn state() -> PathBuf {
    record::all()
        .ok()
        .and_then(|all| all.into_iter().find(|record| record.name == BED))
        .map_or_else(|| assets::source().join("target/playground"), |record| record.dir)
}

fn reach([a, b]: &[PathBuf; 2], log: &mut Log) -> Result<[Site; 2]> {
    let sites = [Site { name: "rome", kubeconfig: a.clone() }, Site { name: "milan", kubeconfig: b.clone() }];
    for site in &sites {
        log.run(&mut site.kubectl(&["get", "nodes", "--request-timeout=10s"]))?;
    }
    Ok(sites)
}

fn native() -> Result<[Site; 2]> {
    if record::all()?.iter().any(|record| record.name == BED) && !whole(&Testbed::open(BED)?) {
        // Interrupted on the way up: half a cluster is of no use.
        Testbed::open(BED)?.down()?;
    }
    let exists = record::all()?.iter().any(|record| record.name == BED);
    let bed = if exists { Testbed::open(BED)? } else { Testbed::persistent(BED)? };
    if !exists {
        bed.start_all(CLUSTERS.map(|(name, pods, services)| ClusterSpec::new(name, 1).cidrs(pods, services)).into())?;
    }
    let sites = CLUSTERS.map(|(name, ..)| bed.find(name));
    let [rome, milan] = sites;
    let (rome, milan) = (rome?, milan?);
    Ok([Site { name: "rome", kubeconfig: rome.kubeconfig() }, Site { name: "milan", kubeconfig: milan.kubeconfig() }])
}

/// All clusters came up and their API servers still answer.
fn whole(bed: &Testbed) -> bool {
    CLUSTERS.iter().all(|(name, ..)| {
        bed.find(name).is_ok_and(|cluster| cluster.complete() && cluster.api().text("/readyz").is_ok())
    })
}

/// Thin: kind's own networks already reach each other's nodes.
fn kind(log: &mut Log) -> Result<[Site; 2]> {
    let directory = state();
    std::fs::create_dir_all(&directory)?;
    let there = log.run(run::command("kind").args(["get", "clusters"]))?;
    for (name, pods, services) in CLUSTERS {
        let kubeconfig = directory.join(name);
        if there.lines().any(|line| line == name) {
            log.run(
                run::command("kind").args(["export", "kubeconfig", "--name", name, "--kubeconfig"]).arg(&kubeconfig),
            )?;
            continue;
        }
        let config = directory.join(format!("{name}.yaml"));
        run::write(
            &config,
            format!(
                "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n\
                 networking: {{podSubnet: {pods}, serviceSubnet: {services}, apiServerAddress: 0.0.0.0}}\n"
            ),
        )?;
        let mut create = run::command("kind");
        create.args(["create", "cluster", "--wait", "120s", "--name", name, "--config"]).arg(&config);
        log.run(create.arg("--kubeconfig").arg(&kubeconfig))?;
    }
    let node = |name: &str| format!("{name}-control-plane");
    let address = |log: &mut Log, name: &str| -> Result<String> {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        Ok(log.run(run::command("docker").args(["inspect", "-f", format, &node(name)]))?.trim().to_owned())
    };
    // The address that the other cluster reaches too, and of which the certificate speaks.
    for (name, ..) in CLUSTERS {
        let server = format!("--server=https://{}:6443", address(log, name)?);
        let config = format!("--kubeconfig={}", directory.join(name).display());
        log.run(run::command("kubectl").args(["config", "set-cluster", &format!("kind-{name}"), &server, &config]))?;
    }
    Ok(CLUSTERS.map(|(name, ..)| Site { name, kubeconfig: directory.join(name) }))
}

/// Leaves nothing of the playground. The user's own clusters keep what was installed: that is said.
pub(crate) fn down(own: Own) -> Result<()> {
    assets::ensure()?;
    if let Place::Own { .. } = Place::choose(own) {
        out::note("Your own clusters were left as they are; `liqoctl uninstall` removes the product from them.");
        return Ok(());
    }
    for record in record::all()?.iter().filter(|record| record.name == BED) {
        testbed_down::down(record)?;
    }
    let directory = assets::source().join("target/playground");
    if directory.is_dir() {
        for (name, ..) in CLUSTERS {
            run::output(run::command("kind").args(["delete", "cluster", "--name", name]))?;
        }
        std::fs::remove_dir_all(&directory).context("cannot remove the playground's notes")?;
    }
    out::note("Nothing of the two clusters remains.");
    Ok(())
}

/// Waits until a program succeeds; gives what it prints.
pub(crate) fn until(what: &str, limit: Duration, mut command: impl FnMut() -> Command) -> Result<String> {
    liqo_test::wait_for(what, limit, || run::output(&mut command()).map(Some))
}

pub(crate) fn chart() -> Result<(PathBuf, String)> {
    let chart = assets::source().join("deploy/chart");
    let text = std::fs::read_to_string(chart.join("Chart.yaml")).context("deploy/chart/Chart.yaml is missing")?;
    let version = text.lines().find_map(|line| line.strip_prefix("version:"));
    let version = version.context("the chart has no version")?.trim().trim_matches('"').to_owned();
    ensure!(Path::new(&chart).is_dir(), "{} is not a directory", chart.display());
    Ok((chart, version))
}
