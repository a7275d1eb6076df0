//! Processes that run on by themselves: started, found again by any other process, signalled, ended.
//!
//! Kept true: a process is known by its id *and* its time of birth, so a signal never meets a stranger.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use serde::{Deserialize, Serialize};

use crate::{
    run::{command, write},
    wait_for,
};

/// One process for all its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    born: u64,
}

impl Process {
    /// The living process with this id.
    pub fn find(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything; fields are counted after it.
        let fields: Vec<_> = stat.rsplit_once(") ")?.1.split(' ').collect();
        (fields[0] != "Z" && fields[0] != "X").then_some(())?;
        Some(Self { pid, born: fields.get(19)?.parse().ok()? })
    }

    pub fn me() -> Self {
        Self::find(std::process::id()).expect("this process lives")
    }

    pub fn alive(&self) -> bool {
        Self::find(self.pid) == Some(*self)
    }

    /// Sends a signal, unless the process is gone.
    pub fn signal(&self, signal: Signal) {
        if let (true, Some(pid)) = (self.alive(), Pid::from_raw(self.pid.cast_signed())) {
            let _ = kill_process(pid, signal);
        }
    }
}

/// A server of a node: its command line and its process are on disk, so that it can be started again.
#[derive(Clone, Debug)]
pub struct Daemon {
    node: PathBuf,
    name: String,
}

#[derive(Serialize, Deserialize)]
struct Run {
    netns: String,
    words: Vec<String>,
    process: Option<Process>,
}

impl Daemon {
    /// The daemon `name` of the node that keeps its files in `node`.
    pub fn of(node: &Path, name: &str) -> Self {
        Self { node: node.to_owned(), name: name.to_owned() }
    }

    /// Every daemon that was started for this node.
    pub fn all(node: &Path) -> Vec<Self> {
        let Ok(files) = fs::read_dir(node.join("run")) else { return Vec::new() };
        let names = files.flatten().filter_map(|file| file.path().file_stem()?.to_str().map(str::to_owned));
        names.map(|name| Self { node: node.to_owned(), name }).collect()
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts it for the first time.
    pub fn spawn(node: &Path, netns: &str, name: &str, words: Vec<String>) -> Result<Self> {
        let daemon = Self::of(node, name);
        daemon.launch(Run { netns: netns.to_owned(), words, process: None })?;
        Ok(daemon)
    }

    /// Starts it again with the command line it had. One that runs goes on running.
    pub fn start(&self) -> Result<()> {
        if self.alive() { Ok(()) } else { self.launch(self.read()?) }
    }

    /// Asks it to end; after two seconds it is killed.
    pub fn stop(&self) -> Result<()> {
        self.end(Signal::TERM).or_else(|_| self.kill())
    }

    /// `kill -9`.
    pub fn kill(&self) -> Result<()> {
        self.end(Signal::KILL)
    }

    /// Stops its clock: connections stay open and nothing answers.
    pub fn freeze(&self) -> Result<()> {
        self.running()?.signal(Signal::STOP);
        Ok(())
    }

    pub fn thaw(&self) -> Result<()> {
        self.running()?.signal(Signal::CONT);
        Ok(())
    }

    pub fn alive(&self) -> bool {
        self.read().is_ok_and(|run| run.process.is_some_and(|process| process.alive()))
    }

    pub fn log(&self) -> PathBuf {
        self.node.join("log").join(format!("{}.log", self.name))
    }

    /// The process, if it runs.
    pub fn running(&self) -> Result<Process> {
        let process = self.read()?.process.filter(Process::alive);
        process.with_context(|| format!("{} does not run, see {}", self.name, self.log().display()))
    }

    fn end(&self, signal: Signal) -> Result<()> {
        let Ok(process) = self.running() else { return Ok(()) };
        process.signal(signal);
        process.signal(Signal::CONT);
        wait_for(&format!("end of {}", self.name), Duration::from_secs(2), || Ok((!process.alive()).then_some(())))
    }

    fn launch(&self, mut run: Run) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.log()).context("cannot open a log")?;
        let mut child = command("setsid")
            .args(["nsenter", &format!("--net=/run/netns/{}", run.netns)])
            .args(&run.words)
            .stdout(log.try_clone().context("cannot share a log")?)
            .stderr(log)
            .stdin(Stdio::null())
            .current_dir("/")
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        run.process = Process::find(child.id());
        // Somebody must take the exit status, or the dead child stays a zombie as long as we live.
        std::thread::spawn(move || child.wait());
        if run.process.is_none() {
            bail!("{} ended at once, see {}", self.name, self.log().display());
        }
        write(&self.file(), serde_json::to_vec(&run)?)
    }

    fn read(&self) -> Result<Run> {
        let file = fs::read(self.file()).with_context(|| format!("{} was never started here", self.name))?;
        Ok(serde_json::from_slice(&file)?)
    }

    fn file(&self) -> PathBuf {
        self.node.join("run").join(format!("{}.json", self.name))
    }
}
