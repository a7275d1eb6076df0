//! `playground`: what `./quickstart` runs once everything is built. Two clusters, peered, with an application in both.
//!
//! Kept true: each step may be done again and finds what is there, so a second run goes on where the first one ended.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use liqo_test::out;

mod demo;
mod jobs;
mod place;
mod steps;

/// Two clusters that share their capacity, in some two minutes.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    own: place::Own,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Brings everything up, or goes on where the last run ended
    Up(Course),
    /// Brings the clusters up if they are not, and runs a job in the other cluster
    Jobs(Course),
    /// Takes everything down
    Down,
}

#[derive(clap::Args)]
struct Course {
    /// How many steps were done and shown already
    #[arg(long, default_value_t = 0)]
    done: usize,
    /// Receives the whole output of every program
    #[arg(long, default_value = "quickstart.log")]
    log: std::path::PathBuf,
}

fn main() -> ExitCode {
    let Args { own, verb } = Args::parse();
    let result = match verb {
        Verb::Up(Course { done, log }) => demo::up(own, done, &log),
        Verb::Jobs(Course { done, log }) => jobs::up(own, done, &log),
        Verb::Down => place::down(own),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            out::note(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
