//! Figures of the tunnel beside those of wireguard-go, both ends on this machine, taking turns in the same run.
//!
//! `bench/network/run [--rounds N] [--seconds N] [--patience N] [--only tunnel|rest]
//! [--kinds raw,go,ours]`. Prints tables: ratio per round, median and range; beside each figure the
//! processor time of everything on the machine that is not ours.

#![expect(clippy::print_stdout, reason = "it prints tables")]
#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on ends")]

mod engine;
mod load;
mod machine;
mod report;
mod rest;

#[path = "../../tests/tunnel/bed.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod bed;

use std::time::Duration;

use engine::{Kind, Side};
use load::Wire;
use report::{Figures, Report};

/// How much is measured.
struct Wish {
    rounds: usize,
    seconds: u64,
    /// Seconds to wait, before each figure, for a quiet machine.
    patience: u64,
    only: Option<String>,
    kinds: Vec<Kind>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some("serve") => engine::serve(&arguments[1..]),
        Some("serve-many") => rest::serve_many(&arguments[1..]),
        Some("serve-hub") => rest::serve_hub(&arguments[1..]),
        _ => bench(&wish(&arguments)),
    }
}

fn wish(arguments: &[String]) -> Wish {
    let mut wish =
        Wish { rounds: 3, seconds: 5, patience: 0, only: None, kinds: vec![Kind::Raw, Kind::Go, Kind::Ours] };
    for pair in arguments.chunks(2) {
        match pair {
            [name, value] if name == "--rounds" => wish.rounds = value.parse().expect("--rounds N"),
            [name, value] if name == "--seconds" => wish.seconds = value.parse().expect("--seconds N"),
            [name, value] if name == "--patience" => wish.patience = value.parse().expect("--patience N"),
            [name, value] if name == "--only" => wish.only = Some(value.clone()),
            [name, value] if name == "--kinds" => wish.kinds = value.split(',').map(kind).collect(),
            other => panic!(
                "unknown arguments {other:?}: [--rounds N] [--seconds N] [--patience N] [--only tunnel|rest] [--kinds raw,go,ours]"
            ),
        }
    }
    wish
}

fn kind(word: &str) -> Kind {
    match word {
        "raw" => Kind::Raw,
        "go" => Kind::Go,
        "ours" => Kind::Ours,
        _ => panic!("--kinds takes raw, go, ours"),
    }
}

fn bench(wish: &Wish) {
    println!("{}", machine::describe());
    let wanted = |part: &str| wish.only.as_deref().is_none_or(|only| only == part);
    if wanted("tunnel") {
        let mut report = Report::default();
        for round in 1..=wish.rounds {
            for &kind in &wish.kinds {
                let figures = measure(kind, Duration::from_secs(wish.seconds), Duration::from_secs(wish.patience));
                println!("round {round}  {}", figures.line(kind));
                report.add(kind, figures);
            }
        }
        println!("\n{report}");
    }
    if wanted("rest") {
        rest::measure();
    }
}

/// All figures of one kind of tunnel, freshly started.
fn measure(kind: Kind, time: Duration, patience: Duration) -> Figures {
    let mut wire = Wire::new();
    let tunnel = engine::start(kind, &wire);
    wire.go_through(kind);
    wire.wait_until_open();
    let idle = tunnel.memory(Side::A);
    machine::calm(patience);
    let one = wire.tcp(1, time, &tunnel);
    machine::calm(patience);
    let four = wire.tcp(4, time, &tunnel);
    machine::calm(patience);
    let small = wire.small(&tunnel);
    machine::calm(patience);
    let trip = wire.round_trip(Duration::from_secs(2), &tunnel);
    Figures { one, four, small, trip, idle, loaded: tunnel.memory(Side::A).max(tunnel.memory(Side::B)) }
}
