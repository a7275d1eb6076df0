//! Who takes a test bed down when its owner cannot: a process of its own, waiting at the end of a pipe.
//!
//! Kept true: the pipe ends when the owner ends, however it ends. If no word of farewell came through it, the reaper
//! tears the test bed down. It is the program `testbed`, which cargo builds beside every test of this package.

use std::{
    env,
    io::{PipeWriter, Read, Write},
    path::PathBuf,
    process::{Child, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};

use crate::{
    assets, down, evidence, out,
    process::Process,
    record::Record,
    run::{command, output},
};

const FAREWELL: &[u8] = b"done";

/// The owner's end.
#[derive(Debug)]
pub(crate) struct Reaper {
    pipe: PipeWriter,
    child: Child,
}

impl Reaper {
    pub(crate) fn start(record: &mut Record) -> Result<Self> {
        let (reader, pipe) = std::io::pipe().context("cannot make a pipe")?;
        // A session of its own: Ctrl-C at the terminal ends the owner, not the reaper.
        let child = command("setsid")
            .arg(program()?)
            .args(["reap", &record.slot.to_string()])
            .stdin(reader)
            .stdout(Stdio::null())
            .stderr(evidence::reapers()?)
            .current_dir("/")
            .spawn()
            .context("cannot start the reaper")?;
        record.reaper = Process::find(child.id());
        record.save()?;
        Ok(Self { pipe, child })
    }

    /// All is done already.
    pub(crate) fn dismiss(mut self) {
        let _ = self.pipe.write_all(FAREWELL);
        drop(self.pipe);
        let _ = self.child.wait();
    }
}

/// The reaper's life: wait for the end of standard input, then act.
pub fn reap(record: &Record) -> Result<()> {
    let mut heard = Vec::new();
    // A broken pipe is an end too.
    let _ = std::io::stdin().read_to_end(&mut heard);
    if heard == FAREWELL {
        return Ok(());
    }
    down::down(record).inspect_err(|error| {
        out::note(&format!("{}: cannot take down the test bed {}: {error:#}", now(), record.name));
    })
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `testbed`: beside this program, one directory up (cargo's tests live in `deps`), or built now.
pub(crate) fn program() -> Result<PathBuf> {
    let me = env::current_exe().context("cannot find this program")?;
    let near = me.ancestors().skip(1).take(2).map(|directory| directory.join("testbed"));
    if let Some(found) = near.into_iter().find(|path| path.is_file()) {
        return Ok(found);
    }
    let target = me.ancestors().nth(2).context("this program has no directory")?;
    let mut cargo = command("cargo");
    cargo.args([
        "build",
        "-q",
        "--release",
        "--target",
        "x86_64-unknown-linux-musl",
        "-p",
        "liqo-test",
        "--bin",
        "testbed",
    ]);
    output(cargo.current_dir(assets::source())).context("cannot build the reaper")?;
    let built = target.join("testbed");
    Ok(if built.is_file() { built } else { assets::source().join("target/x86_64-unknown-linux-musl/release/testbed") })
}
