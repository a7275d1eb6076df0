//! Figures of the tunnel beside those of wireguard-go, both ends on this machine, taking turns in the same run.
//!
//! `bench/network/run [--rounds N] [--seconds N] [--only tunnel|rest]`. Prints tables: ratio per round, median and range; beside each figure the
//! processor time of everything on the machine that is not ours.

#![expect(clippy::print_stdout, reason = "it prints tables")]

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
    only: Option<String>,
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
    let mut wish = Wish { rounds: 3, seconds: 5, only: None };
    for pair in arguments.chunks(2) {
        match pair {
            [name, value] if name == "--rounds" => wish.rounds = value.parse().expect("--rounds N"),
            [name, value] if name == "--seconds" => wish.seconds = value.parse().expect("--seconds N"),
            [name, value] if name == "--only" => wish.only = Some(value.clone()),
            other => panic!("unknown arguments {other:?}: [--rounds N] [--seconds N] [--only tunnel|rest]"),
        }
    }
    wish
}

fn bench(wish: &Wish) {
    println!("{}", machine::describe());
    let wanted = |part: &str| wish.only.as_deref().is_none_or(|only| only == part);
    if wanted("tunnel") {
        let mut report = Report::default();
        for round in 1..=wish.rounds {
            for kind in [Kind::Raw, Kind::Go, Kind::Ours] {
                let figures = measure(kind, Duration::from_secs(wish.seconds));
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
fn measure(kind: Kind, time: Duration) -> Figures {
    let mut wire = Wire::new();
    let tunnel = engine::start(kind, &wire);
    wire.go_through(kind);
    wire.wait_until_open();
    let idle = tunnel.memory(Side::A);
    let one = wire.tcp(1, time, &tunnel);
    let four = wire.tcp(4, time, &tunnel);
    let small = wire.small(&tunnel);
    let trip = wire.round_trip(Duration::from_secs(2), &tunnel);
    Figures { one, four, small, trip, idle, loaded: tunnel.memory(Side::A).max(tunnel.memory(Side::B)) }
}
