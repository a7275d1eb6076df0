//! `testbed`: Kubernetes clusters for work by hand, and the reaper of those that tests make.

use std::{
    fmt::Write,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use liqo_test::{Cluster, ClusterSpec, Testbed, cluster::ProxyMode, delay, out, reaper, record, testbed::sweep};

/// Kubernetes clusters in network namespaces of this machine: a pair is up in some 20 seconds.
#[derive(Parser)]
#[command(name = "testbed", disable_help_subcommand = true)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Brings up clusters that stay until `testbed down`; adds those that are missing to a test bed that exists
    Up {
        /// The test bed's name
        name: String,
        /// The clusters' names
        #[arg(long, value_delimiter = ',', default_value = "rome,milan")]
        clusters: Vec<String>,
        /// Real nodes in each cluster
        #[arg(long, default_value_t = 1)]
        nodes: u32,
        /// Pretending nodes in each cluster
        #[arg(long, default_value_t = 0)]
        kwok_nodes: u32,
        /// One pod CIDR per cluster [default: 10.10.0.0/16, 10.20.0.0/16, …]
        #[arg(long, value_delimiter = ',')]
        pod_cidr: Vec<String>,
        /// One Service CIDR per cluster [default: 10.101.0.0/16, 10.102.0.0/16, …]
        #[arg(long, value_delimiter = ',')]
        service_cidr: Vec<String>,
        /// What kube-proxy writes its rules with
        #[arg(long, default_value = "nftables")]
        proxy: Proxy,
        /// Nodes drop packets that come from where they would not send the answer
        #[arg(long)]
        strict_paths: bool,
        /// Clusters behind a router that translates their addresses
        #[arg(long, value_delimiter = ',')]
        behind_nat: Vec<String>,
        /// Lets the pods of all clusters reach each other without translation
        #[arg(long)]
        join: bool,
    },
    /// Like `up` with the clusters' own CIDRs, but the test bed goes when this program ends, however it ends
    Hold {
        name: String,
        #[arg(long, value_delimiter = ',', default_value = "rome,milan")]
        clusters: Vec<String>,
    },
    /// Takes test beds down; nothing of them remains
    Down {
        #[arg(required_unless_present = "all")]
        name: Option<String>,
        /// All persistent test beds of this machine
        #[arg(long)]
        all: bool,
    },
    /// Lists the test beds of this machine
    List,
    /// Prints a shell's `export` of each cluster's kubeconfig: KUBECONFIG_ROME=…
    Env { name: String },
    /// Adds one real node to a cluster
    AddNode { name: String, cluster: String },
    /// Removes a real node, with all that is on it
    RemoveNode { name: String, cluster: String, node: String },
    /// Puts the image of a docker archive on all nodes of all clusters
    Load { name: String, archive: std::path::PathBuf },
    /// Breaks or mends something
    Fault {
        /// The test bed
        name: String,
        #[command(subcommand)]
        fault: Fault,
    },
    /// Waits for the end of standard input, then takes a test bed down
    #[command(hide = true)]
    Reap { slot: u8 },
    /// Carries frames between two TAP devices, late
    #[command(hide = true)]
    Carry { one: String, other: String, milliseconds: u64 },
}

#[derive(Subcommand)]
enum Fault {
    /// Pulls the cable of a cluster's nodes
    Cut { cluster: String },
    /// Plugs it in again
    Restore { cluster: String },
    /// Loses frames on the legs of a cluster; 0 ends it
    Loss { cluster: String, percent: u8 },
    /// Delays frames on the legs of a cluster, in milliseconds for each direction; 0 ends it
    Delay { cluster: String, milliseconds: u32 },
    /// Limits what enters the nodes of a cluster, in Mbit/s; 0 ends it
    Rate { cluster: String, mbit: u32 },
    /// Swallows packets longer than this; 0 ends it
    BlackHole { cluster: String, mtu: u32 },
    /// Cuts two clusters from each other
    Part { one: String, other: String },
    /// Ends all faults of the wire
    Heal,
    /// Flushes all nftables rules of a node; those of kube-proxy and of the test bed are put back
    FlushNftables { cluster: String, node: String },
    /// Switches a node off and on; it has another address then
    Readdress { cluster: String, node: String },
    /// Acts on a component of a cluster's first node
    Component {
        cluster: String,
        /// etcd, kube-apiserver, kube-controller-manager, kube-scheduler, containerd, kubelet, kube-proxy
        component: String,
        act: Act,
    },
    /// kill -9 of a container's first process
    KillContainer { cluster: String, namespace: String, pod: String, container: String },
}

#[derive(Clone, Copy, ValueEnum)]
enum Proxy {
    Nftables,
    Iptables,
}

impl From<Proxy> for ProxyMode {
    fn from(proxy: Proxy) -> Self {
        match proxy {
            Proxy::Nftables => Self::Nftables,
            Proxy::Iptables => Self::Iptables,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Act {
    Stop,
    Start,
    Kill,
    Freeze,
    Thaw,
}

fn main() -> ExitCode {
    match run(Args::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            out::note(&format!("testbed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Up {
            name,
            clusters,
            nodes,
            kwok_nodes,
            pod_cidr,
            service_cidr,
            proxy,
            strict_paths,
            behind_nat,
            join,
        } => {
            let mut specs = specs(&clusters, nodes, kwok_nodes, &pod_cidr, &service_cidr)?;
            for spec in &mut specs {
                spec.proxy = proxy.into();
                spec.strict_paths = strict_paths;
                spec.behind_nat = behind_nat.contains(&spec.name);
            }
            up(&name, specs, join)
        }
        Verb::Hold { name, clusters } => {
            let bed = Testbed::new(&name)?;
            bed.start_all(specs(&clusters, 1, 0, &[], &[])?)?;
            env(&bed)?;
            loop {
                std::thread::park();
            }
        }
        Verb::Down { name, all } => down(name.as_deref(), all),
        Verb::List => list(),
        Verb::Env { name } => env(&Testbed::open(&name)?),
        Verb::AddNode { name, cluster } => {
            let node = Testbed::open(&name)?.find(&cluster)?.add_node()?;
            out::say(&format!("{} {}", node.name, node.ip));
            Ok(())
        }
        Verb::RemoveNode { name, cluster, node } => Testbed::open(&name)?.find(&cluster)?.remove_node(&node),
        Verb::Load { name, archive } => {
            Testbed::open(&name)?.existing()?.iter().try_for_each(|cluster| cluster.load_image(&archive))
        }
        Verb::Fault { name, fault } => break_or_mend(&Testbed::open(&name)?, fault),
        Verb::Carry { one, other, milliseconds } => delay::carry(&one, &other, Duration::from_millis(milliseconds)),
        Verb::Reap { slot } => {
            let record = record::all()?.into_iter().find(|record| record.slot == slot);
            reaper::reap(&record.context("no such test bed")?)
        }
    }
}

fn specs(names: &[String], nodes: u32, kwok: u32, pods: &[String], services: &[String]) -> Result<Vec<ClusterSpec>> {
    for (flag, given) in [("--pod-cidr", pods.len()), ("--service-cidr", services.len())] {
        if given != 0 && given != names.len() {
            bail!("{flag} must name one CIDR for each of the {} clusters, or none", names.len());
        }
    }
    let spec = |(index, name): (usize, &String)| {
        let default = ClusterSpec::new(name, u32::try_from(index + 1).unwrap_or(u32::MAX));
        let pods = pods.get(index).unwrap_or(&default.pod_cidr).clone();
        let services = services.get(index).unwrap_or(&default.service_cidr).clone();
        default.cidrs(&pods, &services).nodes(nodes).kwok_nodes(kwok)
    };
    Ok(names.iter().enumerate().map(spec).collect())
}

fn up(name: &str, specs: Vec<ClusterSpec>, join: bool) -> Result<()> {
    let began = Instant::now();
    let exists = record::all()?.iter().any(|record| record.name == name);
    let bed = if exists { Testbed::open(name)? } else { Testbed::persistent(name)? };
    let there = bed.existing()?;
    let missing = specs.into_iter().filter(|spec| !there.iter().any(|cluster| cluster.name() == spec.name)).collect();
    bed.start_all(missing).inspect_err(|_| out::note(&format!("logs are below {}", bed.dir().display())))?;
    if join {
        let all = bed.existing()?;
        bed.join_pod_networks(&all.iter().collect::<Vec<_>>())?;
    }
    out::note(&format!("{name} is up after {:.1} s", began.elapsed().as_secs_f64()));
    env(&bed)
}

fn down(name: Option<&str>, all: bool) -> Result<()> {
    sweep()?;
    let wanted = |record: &&record::Record| (all && record.owner.is_none()) || name == Some(&record.name);
    let records = record::all()?;
    let wanted: Vec<_> = records.iter().filter(wanted).collect();
    if wanted.is_empty() && !all {
        out::note("there is no such test bed");
    }
    wanted.iter().try_for_each(|record| liqo_test::down::down(record))
}

fn list() -> Result<()> {
    let mut lines = format!("{:<16} {:<12} {:<36} STATE", "NAME", "OWNER", "CLUSTERS");
    for record in record::all()? {
        let owner = record.owner.map_or("persistent".to_owned(), |owner| format!("pid {}", owner.pid));
        let clusters = Testbed::open(&record.name).and_then(|bed| bed.existing()).unwrap_or_default();
        let clusters: Vec<_> = clusters.iter().map(Cluster::name).collect();
        write!(lines, "\n{:<16} {owner:<12} {:<36} {}", record.name, clusters.join(","), record.dir.display())?;
    }
    out::say(&lines);
    Ok(())
}

fn env(bed: &Testbed) -> Result<()> {
    for cluster in bed.existing()? {
        let name = cluster.name().to_uppercase().replace(|it: char| !it.is_ascii_alphanumeric(), "_");
        out::say(&format!("export KUBECONFIG_{name}={}", cluster.kubeconfig().display()));
    }
    out::say(&format!("export PATH={}:$PATH", liqo_test::assets::bin().display()));
    Ok(())
}

fn break_or_mend(bed: &Testbed, fault: Fault) -> Result<()> {
    match fault {
        Fault::Cut { cluster } => bed.find(&cluster)?.link().cut(),
        Fault::Restore { cluster } => bed.find(&cluster)?.link().restore(),
        Fault::Loss { cluster, percent } => bed.find(&cluster)?.link().loss(percent),
        Fault::Delay { cluster, milliseconds } => bed.find(&cluster)?.link().delay(milliseconds),
        Fault::Rate { cluster, mbit } => bed.find(&cluster)?.link().rate(mbit),
        Fault::BlackHole { cluster, mtu } => bed.find(&cluster)?.link().black_hole(mtu),
        Fault::Part { one, other } => bed.part(&bed.find(&one)?, &bed.find(&other)?),
        Fault::Heal => bed.heal(),
        Fault::FlushNftables { cluster, node } => bed.find(&cluster)?.flush_nftables(&node),
        Fault::Readdress { cluster, node } => {
            let node = bed.find(&cluster)?.reboot_with_another_address(&node)?;
            out::say(&node.ip);
            Ok(())
        }
        Fault::Component { cluster, component, act } => {
            let daemon = bed.find(&cluster)?.component(&component);
            match act {
                Act::Stop => daemon.stop(),
                Act::Start => daemon.start(),
                Act::Kill => daemon.kill(),
                Act::Freeze => daemon.freeze(),
                Act::Thaw => daemon.thaw(),
            }
        }
        Fault::KillContainer { cluster, namespace, pod, container } => {
            bed.find(&cluster)?.kill_pod_process(&namespace, &pod, &container)
        }
    }
}
