//! The course of the playground on the terminal: one line per step, all else in the log.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use liqo_test::{out, run};

pub(crate) struct Steps {
    command: &'static str,
    done: usize,
    count: usize,
    path: PathBuf,
    log: File,
}

impl Steps {
    /// The steps of a `command`, which can be given again; `done` of the `count` steps were done and shown already.
    pub(crate) fn new(command: &'static str, done: usize, count: usize, path: &Path) -> Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(path);
        let log = log.with_context(|| format!("cannot write the log {}", path.display()))?;
        Ok(Self { command, done, count, path: path.to_owned(), log })
    }

    /// Does one step.
    pub(crate) fn step<T>(&mut self, title: &str, act: impl FnOnce(&mut Log) -> Result<T>) -> Result<T> {
        self.done += 1;
        let began = Instant::now();
        let (done, count) = (self.done, self.count);
        out::begin(&format!("[{done:2}/{count}] {title} {} ", ".".repeat(56usize.saturating_sub(title.len()))));
        let mut log = Log { file: self.log.try_clone().context("cannot share the log")? };
        log.write(&format!("\n=== {title}\n"));
        match act(&mut log) {
            Ok(value) => {
                out::note(&format!("{:5.1} s", began.elapsed().as_secs_f64()));
                Ok(value)
            }
            Err(error) => {
                log.write(&format!("failed: {error:#}\n"));
                out::note("failed");
                let why = run::tail(&format!("{error:#}"), 15).replace('\n', "\n    ");
                let (log, command) = (self.path.display(), self.command);
                bail!(
                    "\nWhat failed:  {title}\nWhy:          {why}\n\
                     What to do:   run {command} again; it goes on from here. `./quickstart down` starts afresh\n\
                     The log:      {log}"
                );
            }
        }
    }
}

pub(crate) struct Log {
    file: File,
}

impl Log {
    pub(crate) fn write(&mut self, text: &str) {
        // A log that cannot be written must not end the work.
        let _ = self.file.write_all(text.as_bytes());
    }

    /// Runs a program that must succeed, and logs what it says.
    pub(crate) fn run(&mut self, command: &mut Command) -> Result<String> {
        self.write(&format!("$ {command:?}\n"));
        let result = run::output(command);
        match &result {
            Ok(printed) => self.write(printed),
            Err(error) => self.write(&format!("{error:#}\n")),
        }
        result
    }
}
