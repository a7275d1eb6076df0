//! A test bed: the wire, its clusters, and the promise that they go when it goes.

use std::{path::Path, thread};

use anyhow::{Context, Result};

use crate::{
    Cluster, ClusterSpec, assets, down, evidence, out,
    reaper::Reaper,
    record::{self, Record},
    wire,
};

/// One wire with clusters on it. Dropped, it leaves nothing, unless it was made persistent.
#[derive(Debug)]
pub struct Testbed {
    record: Record,
    /// Whether it goes with this value.
    mine: bool,
    reaper: Option<Reaper>,
    keep_logs: bool,
}

impl Testbed {
    /// A test bed that lives as long as this value, or, if the process dies, as long as the process.
    pub fn new(name: &str) -> Result<Self> {
        let mut bed = Self::make(name, false)?;
        let reaper = Reaper::start(&mut bed.record)?;
        bed.reaper = Some(reaper);
        wire::lay(&bed.record)?;
        Ok(bed)
    }

    /// A test bed that stays until somebody takes it down by name.
    pub fn persistent(name: &str) -> Result<Self> {
        let bed = Self::make(name, true)?;
        wire::lay(&bed.record)?;
        Ok(bed)
    }

    /// A test bed that exists; dropping this value leaves it alone.
    pub fn open(name: &str) -> Result<Self> {
        let record = record::all()?.into_iter().find(|record| record.name == name);
        let record =
            record.with_context(|| format!("there is no test bed called {name}; `testbed list` names them"))?;
        Ok(Self { record, mine: false, reaper: None, keep_logs: false })
    }

    fn make(name: &str, persistent: bool) -> Result<Self> {
        assets::ensure()?;
        sweep()?;
        Ok(Self { record: Record::claim(name, persistent)?, mine: !persistent, reaper: None, keep_logs: false })
    }

    pub fn name(&self) -> &str {
        &self.record.name
    }

    pub fn dir(&self) -> &Path {
        &self.record.dir
    }

    /// Brings up one cluster.
    pub fn cluster(&self, spec: ClusterSpec) -> Result<Cluster> {
        Cluster::start(&self.record, spec)
    }

    /// Brings up several clusters at the same time.
    pub fn clusters<const N: usize>(&self, specs: [ClusterSpec; N]) -> Result<[Cluster; N]> {
        let clusters = self.start_all(specs.into())?;
        Ok(clusters.try_into().expect("as many clusters as specs"))
    }

    pub fn start_all(&self, specs: Vec<ClusterSpec>) -> Result<Vec<Cluster>> {
        thread::scope(|scope| {
            let starts: Vec<_> = specs.into_iter().map(|spec| scope.spawn(|| self.cluster(spec))).collect();
            starts.into_iter().map(|start| start.join().expect("a start does not panic")).collect()
        })
    }

    /// The clusters that exist, by name.
    pub fn existing(&self) -> Result<Vec<Cluster>> {
        Cluster::all(&self.record)
    }

    pub fn find(&self, cluster: &str) -> Result<Cluster> {
        Cluster::open(&self.record, cluster)
    }

    /// Lets the pods of these clusters reach each other without translation. Their pod CIDRs must differ.
    pub fn join_pod_networks(&self, clusters: &[&Cluster]) -> Result<()> {
        wire::join(&self.record, clusters)
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// Keeps what there is to read now, and says where.
    pub fn keep_evidence(&self) {
        match evidence::save(&self.record) {
            Ok(path) => out::note(&format!("logs of the test bed {}: {}", self.name(), path.display())),
            Err(error) => out::note(&format!("cannot keep the logs of {}: {error:#}", self.name())),
        }
    }

    /// Whether the logs are kept when this is dropped, as if the test had failed.
    pub fn keep_logs(&mut self, keep: bool) {
        self.keep_logs = keep;
    }

    /// Takes it down now, whether persistent or not, and says what went wrong.
    pub fn down(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let result = down::down(&self.record);
        if let Some(reaper) = self.reaper.take() {
            reaper.dismiss();
        }
        self.mine = false;
        result
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        if !self.mine {
            return;
        }
        let failed = thread::panicking() || self.keep_logs;
        if failed {
            self.keep_evidence();
        }
        if failed && assets::switch("LIQO_TESTBED_KEEP") {
            self.abandon();
            return;
        }
        if let Err(error) = self.end() {
            out::note(&format!("cannot take down the test bed {}: {error:#}", self.name()));
        }
    }
}

impl Testbed {
    /// Makes it persistent after all, for a person to look at.
    fn abandon(&mut self) {
        self.mine = false;
        self.record.owner = None;
        let _ = self.record.save();
        if let Some(reaper) = self.reaper.take() {
            reaper.dismiss();
        }
        out::note(&format!("the test bed {0} stays; `testbed env {0}`, later `testbed down {0}`", self.name()));
    }
}

/// Takes down what dead owners left. Their reapers do it; this is for reapers that died too.
pub fn sweep() -> Result<()> {
    for record in record::all()?.iter().filter(|record| record.abandoned()) {
        down::down(record).with_context(|| format!("cannot sweep the abandoned test bed {}", record.name))?;
    }
    Ok(())
}
