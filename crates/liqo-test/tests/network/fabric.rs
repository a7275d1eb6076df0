//! The stage of the stories about the network: two clusters of three nodes and one of a single node, all with equal ranges.
//! `rome` is peered with the two others by the product alone; those do not know each other.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use liqo_test::{Cluster, ClusterSpec, Stage, Suite, cluster::ProxyMode, stage::LONG, wait_for};
use serde_json::Value;

use super::{
    application::{self, Application},
    matrix::{Again, Matrix},
    places::{self, Finder, Place, running},
};

/// Long enough for whatever heals by itself.
pub(crate) const SOON: Duration = Duration::from_secs(30);
pub(crate) const PODS: &str = "10.244.0.0/16";
pub(crate) const SERVICES: &str = "10.96.0.0/16";

/// The stage and what is known of it.
pub(crate) struct Fabric {
    pub(crate) stage: Stage,
    pub(crate) application: Application,
    finder: Finder,
}

static SUITE: Suite<Fabric> = Suite::new("network", Fabric::raise);

/// Runs a story on the one stage of this file.
pub(crate) fn on_stage(test: impl FnOnce(&mut Fabric) -> Result<()>) -> Result<()> {
    SUITE.tell(test)
}

impl AsMut<Stage> for Fabric {
    fn as_mut(&mut self) -> &mut Stage {
        &mut self.stage
    }
}

impl Fabric {
    fn raise() -> Result<Self> {
        let spec = |name, nodes, proxy| {
            ClusterSpec::new(name, 1).cidrs(PODS, SERVICES).nodes(nodes).strict_paths().proxy(proxy)
        };
        let specs = vec![
            spec("rome", 3, ProxyMode::Nftables),
            spec("milan", 3, ProxyMode::Iptables).own_ranges(),
            spec("turin", 1, ProxyMode::Nftables),
        ];
        let stage = Stage::apart("network", specs)?;
        let mut finder = Finder::default();
        let application = Self::furnish(&stage, &mut finder)?;
        Ok(Self { stage, application, finder })
    }

    fn furnish(stage: &Stage, finder: &mut Finder) -> Result<Application> {
        places::furnish(stage)?;
        stage.everywhere(|cluster| Self::install(stage, cluster, &[]))?;
        let rome = stage.cluster("rome");
        if rome.items(&["foreignclusters"])?.is_empty() {
            for provider in ["milan", "turin"] {
                stage.peer(rome, stage.cluster(provider))?;
            }
        }
        for (cluster, peer) in [("rome", "milan"), ("milan", "rome"), ("rome", "turin"), ("turin", "rome")] {
            stage.cluster(cluster).wait_peering(peer, "NetworkStatus", "Established")?;
        }
        application::perform(stage, finder)
    }

    /// Installs the product in a cluster with the values of this stage and `more` arguments.
    pub(crate) fn install(stage: &Stage, cluster: &Cluster, more: &[&str]) -> Result<()> {
        let values =
            "gateway.replicas=2,gateway.metrics.enabled=true,peerPolicy.allowedServiceTypes={ClusterIP,NodePort}";
        stage.install(cluster, cluster.name(), &[&["--set", values], more].concat())
    }

    pub(crate) fn rome(&self) -> &Cluster {
        self.stage.cluster("rome")
    }

    pub(crate) fn milan(&self) -> &Cluster {
        self.stage.cluster("milan")
    }

    /// Looks for pods again: of those that were replaced the network is another one.
    pub(crate) fn refresh(&mut self) -> Result<()> {
        let (stage, finder) = (&self.stage, &mut self.finder);
        self.application = wait_for("the application", LONG, || application::perform(stage, finder).map(Some))?;
        Ok(())
    }

    /// Where one can be now.
    pub(crate) fn places(&mut self) -> Result<Vec<Place>> {
        let mut all = Vec::new();
        for cluster in &self.stage.clusters {
            let finder = &mut self.finder;
            all.extend(wait_for("places", LONG, || finder.places(cluster).map(Some))?);
        }
        Ok(all)
    }

    /// All clusters.
    pub(crate) fn clusters(&self) -> &[Cluster] {
        &self.stage.clusters
    }

    /// Everybody reaches everybody, at the latest after `limit`.
    pub(crate) fn whole(&mut self, after: &str, limit: Duration) -> Result<()> {
        self.asked(after, limit, Again::All)
    }

    /// The same on a wire that loses some of what is said.
    pub(crate) fn whole_at_last(&mut self, after: &str, limit: Duration) -> Result<()> {
        self.asked(after, limit, Again::Wrong)
    }

    /// The same among all but one cluster.
    pub(crate) fn whole_without(&mut self, cluster: &str, after: &str, limit: Duration) -> Result<()> {
        let places = self.places()?;
        let views = places::views(&self.stage)?;
        Matrix::new(&places, &views, &self.application)?.without(cluster).whole(after, limit, Again::Wrong)
    }

    fn asked(&mut self, after: &str, limit: Duration, again: Again) -> Result<()> {
        let places = self.places()?;
        let views = places::views(&self.stage)?;
        Matrix::new(&places, &views, &self.application)?.whole(after, limit, again)
    }

    /// The same from and to the places of one node.
    pub(crate) fn node_whole(&mut self, after: &str, node: &str, limit: Duration) -> Result<()> {
        let places = self.places()?;
        let views = places::views(&self.stage)?;
        Matrix::new(&places, &views, &self.application)?.of_node(node).whole(after, limit, Again::All)
    }
}

/// The pods of a role, with their nodes.
pub(crate) fn role(cluster: &Cluster, name: &str) -> Result<Vec<(String, String)>> {
    let pods = running(cluster, "liqo", &format!("app.kubernetes.io/name={name}"))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(pods.iter().map(|pod| (text(&pod["metadata"]["name"]), text(&pod["spec"]["nodeName"]))).collect())
}

/// The active gateway of a cluster and its node.
pub(crate) fn active_gateway(cluster: &Cluster) -> Result<(String, String)> {
    wait_for("one active gateway", LONG, || {
        let pods = running(cluster, "liqo", "net.liqo.io/gateway=active")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let one = (pods.len() == 1).then(|| (text(&pods[0]["metadata"]["name"]), text(&pods[0]["spec"]["nodeName"])));
        Ok(one)
    })
}

/// How a cluster says that its tunnel to a peer is.
pub(crate) fn connection(cluster: &Cluster, peer: &str) -> Result<Value> {
    let tunnels = cluster.items(&["tunnelendpoints", "-A"])?;
    let tunnel = tunnels.into_iter().find(|one| one["spec"]["clusterIdentity"]["clusterName"] == peer);
    Ok(tunnel.with_context(|| format!("{} has no tunnel to {peer}", cluster.name()))?["status"]["connection"].clone())
}

/// Waits until a cluster says that its tunnel to a peer is so.
pub(crate) fn wait_connection(cluster: &Cluster, peer: &str, status: &str, limit: Duration) -> Result<()> {
    wait_for(&format!("tunnel of {} to {peer} {status}", cluster.name()), limit, || {
        let now = connection(cluster, peer)?;
        ensure!(now["status"] == status, "{now}");
        Ok(Some(()))
    })
}
