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

pub(crate) const COUNT: usize = 9;

pub(crate) struct Steps {
    done: usize,
    path: PathBuf,
    log: File,
}

impl Steps {
    pub(crate) fn new(done: usize, path: &Path) -> Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(path);
        let log = log.with_context(|| format!("cannot write the log {}", path.display()))?;
        Ok(Self { done, path: path.to_owned(), log })
    }

    /// Does one step. `advice` is what the user can do if it fails.
    pub(crate) fn step<T>(&mut self, title: &str, advice: &str, act: impl FnOnce(&mut Log) -> Result<T>) -> Result<T> {
        self.done += 1;
        let began = Instant::now();
        out::begin(&format!("[{:2}/{COUNT}] {title} {} ", self.done, ".".repeat(56usize.saturating_sub(title.len()))));
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
                let log = self.path.display();
                bail!("\nWhat failed:  {title}\nWhy:          {why}\nWhat to do:   {advice}\nThe log:      {log}");
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
