//! The order in which a cluster comes up. What does not wait for something else runs beside it.

use std::{fs, thread};

use anyhow::{Context, Result, ensure};

use super::{Cluster, ClusterSpec, Node, addons, control_plane};
use crate::{assets, cidr, down, record::Record, run::write, wire};

impl Cluster {
    /// Brings up a cluster; returns when its nodes are Ready and its DNS answers.
    pub(crate) fn start(record: &Record, spec: ClusterSpec) -> Result<Self> {
        let name = spec.name.clone();
        Self::start_all(record, spec).with_context(|| format!("cannot start the cluster {name}"))
    }

    fn start_all(record: &Record, spec: ClusterSpec) -> Result<Self> {
        cidr::parse(&spec.pod_cidr)?;
        cidr::parse(&spec.service_cidr)?;
        let dir = record.dir.join(&spec.name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        write(&dir.join("cluster.json"), serde_json::to_vec_pretty(&spec)?)?;
        let cluster = Self { record: record.clone(), spec, dir };

        let names: Vec<_> = (1..=cluster.spec.nodes.max(1)).map(|n| format!("{}-{n}", cluster.name())).collect();
        let mut nodes = names.iter().map(|name| Node::claim(&cluster, name)).collect::<Result<Vec<_>>>()?;
        nodes.iter().try_for_each(|node| wire::attach(record, node, cluster.spec.strict_paths))?;

        thread::scope(|scope| {
            let containers: Vec<_> = nodes.iter().map(|node| scope.spawn(move || prepare(node))).collect();
            control_plane::certificates(&cluster, &nodes[0])?;
            control_plane::start_api(&cluster, &nodes[0])?;
            control_plane::start_controllers(&cluster, &nodes[0])?;
            containers.into_iter().try_for_each(|it| it.join().expect("preparing does not panic"))
        })?;

        thread::scope(|scope| {
            let starts: Vec<_> = nodes.iter_mut().map(|node| scope.spawn(|| enter(&cluster, node))).collect();
            addons::create(&cluster)?;
            cluster.add_kwok_nodes(cluster.spec.kwok_nodes)?;
            starts.into_iter().try_for_each(|it| it.join().expect("starting does not panic"))
        })?;
        wire::sync(record)?;
        addons::wait(&cluster)?;
        write(&cluster.dir.join("complete"), "")?;
        Ok(cluster)
    }

    /// One more real node; returns when it is Ready.
    pub fn add_node(&self) -> Result<Node> {
        let free = (1..).map(|number| format!("{}-{number}", self.name())).find(|name| self.node(name).is_err());
        let mut node = Node::claim(self, &free.expect("numbers do not end"))?;
        wire::attach(&self.record, &node, self.spec.strict_paths)?;
        prepare(&node)?;
        enter(self, &mut node)?;
        wire::sync(&self.record)?;
        Ok(node)
    }
}

impl Cluster {
    /// A node dies for good, with all that is on it; the cluster finds out by itself. Never the first one.
    pub fn unplug_node(&self, name: &str) -> Result<()> {
        ensure!(name != self.first(), "the control plane is on {name}");
        down::unplug(&self.node(name)?)?;
        wire::sync(&self.record)
    }

    /// The same, and the cluster forgets it.
    pub fn remove_node(&self, name: &str) -> Result<()> {
        self.unplug_node(name)?;
        self.kubectl(&["delete", "node", name]).map(drop)
    }
}

/// What a node can do without a control plane: containerd with the images that every node needs.
fn prepare(node: &Node) -> Result<()> {
    node.start_containerd()?;
    for image in ["pause", "coredns", "busybox"] {
        node.load_image(&assets::images().join(format!("{image}.tar")))?;
    }
    Ok(())
}

/// Joins a cluster whose API server answers.
fn enter(cluster: &Cluster, node: &mut Node) -> Result<()> {
    node.announce(cluster)?;
    if node.name == cluster.first() {
        node.start_kubelet(cluster, &cluster.dir.join("kubelet.conf"))?;
    } else {
        control_plane::kubelet_config(cluster, node)?;
        node.start_kubelet(cluster, &node.dir.join("kubelet.conf"))?;
    }
    node.start_proxy(cluster)?;
    node.learn_pod_cidr(cluster)?;
    node.wait_ready(cluster)
}
