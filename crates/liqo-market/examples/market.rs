//! What selections and reservations cost, beside the plainest loop that looks at the same columns. `bench/market` runs it.
//!
//! Prints a table on standard output. The providers are made up, the same ones in each run: two thirds miss one criterion or several.

use std::{
    collections::BTreeMap,
    hint::black_box,
    io::{self, Write},
    time::{Duration, Instant},
};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use liqo_api::market::{Price, Selection};
use liqo_core::{quantity::Amount, resources::Resources};
use liqo_market::{
    Ask, Asked, Grant, Provider, Table, Verdict, Wish, book, free, select,
    uptime::{Outage, Record},
};

/// Selections that are measured for each size.
const ROUNDS: usize = 200;
/// Promises that a ledger holds while reservations come and go.
const HELD: i64 = 200;
const NOW: i64 = 1_800_000_000;

fn resources(cpu: i64, gibibytes: i64) -> Resources {
    [("cpu".to_owned(), Amount::whole(cpu)), ("memory".to_owned(), Amount::whole(gibibytes << 30))].into()
}

/// A number that looks like chance, the same one in each run.
fn chance(seed: usize, salt: u64) -> i64 {
    let mut x = (seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 29;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    i64::try_from((x >> 33) % 1000).unwrap_or(0)
}

fn provider(number: usize) -> Provider {
    let price = |resource: &str, thousandths: i64| Price {
        resource: resource.into(),
        amount: Quantity(format!("{thousandths}m")),
        currency: "EUR".into(),
    };
    let (offered, left) = (64, 4 + chance(number, 1) % 60);
    let outages = match chance(number, 2) {
        0..100 => vec![Outage { from: NOW - 40_000, until: Some(NOW - 30_000) }],
        _ => Vec::new(),
    };
    Provider {
        id: format!("{number:08x}-0000-4000-8000-000000000000"),
        name: format!("provider-{number}"),
        region: format!("region-{}", chance(number, 3) % 8),
        labels: [("tier".to_owned(), if chance(number, 4) < 500 { "gold" } else { "silver" }.to_owned())].into(),
        prices: vec![price("cpu", 10 + chance(number, 5) % 40), price("memory", 1 + chance(number, 6) % 5)],
        cordoned: false,
        carbon: Some(u32::try_from(chance(number, 7)).unwrap_or(0)),
        record: Record { since: Some(0), outages },
        offered: resources(offered, 4 * offered),
        free: resources(left, 4 * left),
        largest: resources(left, 4 * left),
    }
}

/// Five criteria: room, price, latency, region, uptime; and all weights.
fn wish() -> Wish {
    let selection: Selection = serde_json::from_value(serde_json::json!({
        "request": {"cpu": "8", "memory": "32Gi"},
        "criteria": {
            "maxPrice": {"amount": "0.4", "currency": "EUR"}, "maxLatencyMillis": 150,
            "regions": ["region-1", "region-2", "region-3", "region-4", "region-5"],
            "minUptime": {"ratio": "0.95"}
        },
        "weights": {"price": 40, "latency": 30, "uptime": 10, "carbon": 10, "headroom": 10}
    }))
    .expect("a selection");
    Wish::read(&selection).expect("a wish")
}

/// The times of many calls, in order.
fn times(mut act: impl FnMut()) -> Vec<Duration> {
    let one = |_| {
        let began = Instant::now();
        act();
        began.elapsed()
    };
    let mut times: Vec<_> = (0..ROUNDS).map(one).collect();
    times.sort_unstable();
    times
}

fn milliseconds(times: &[Duration], percent: usize) -> f64 {
    times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0
}

/// Columns of numbers, and a loop that counts the rows that fit: no reasons, no score, no order.
fn plain(count: usize) -> Vec<Duration> {
    let column = |of: &dyn Fn(usize) -> i64| (0..count).map(of).collect::<Vec<i64>>();
    let (room, price) = (column(&|row| 4 + chance(row, 1) % 60), column(&|row| 10 + chance(row, 5) % 40));
    let (latency, region) = (column(&|row| chance(row, 8) % 200), column(&|row| chance(row, 3) % 8));
    let uptime = column(&|row| chance(row, 2));
    times(|| {
        let fits = |row: &usize| {
            let row = *row;
            room[row] >= 8
                && price[row] * 8 <= 320
                && latency[row] <= 150
                && (1..=5).contains(&region[row])
                && uptime[row] >= 100
        };
        black_box((0..count).filter(fits).count());
    })
}

fn selections(out: &mut impl Write, count: usize) -> io::Result<()> {
    let mut table = Table::default();
    let mut latency = BTreeMap::new();
    for number in 0..count {
        let one = provider(number);
        latency.insert(one.id.clone(), u32::try_from(chance(number, 8) % 200).unwrap_or(0));
        let id = one.id.clone();
        table.put(one);
        table.heard(&id, 0);
    }
    let (wish, asked) = (wish(), Asked { latency, now: NOW, ..Asked::default() });
    let outcome = select(&table, &wish, &asked);
    let ours = times(|| {
        black_box(select(&table, &wish, &asked));
    });
    let plain = plain(count);
    let (median, last, plain) = (milliseconds(&ours, 50), milliseconds(&ours, 99), milliseconds(&plain, 50));
    let (fits, reasons) = (outcome.fits.len(), outcome.reasons.len());
    writeln!(
        out,
        "| selection among {count} providers: {fits} fit, {reasons} reasons | {median:.2} ms, P99 {last:.2} ms | {plain:.3} ms | {:.0} |",
        median / plain
    )
}

/// Reservations that come and go at one ledger: each is granted or refused by what is left, and the sum is checked each time.
fn reservations(out: &mut impl Write) -> io::Result<()> {
    let (offer, each) = (resources(HELD, HELD), resources(1, 1));
    let mut grants: Vec<Grant> = Vec::new();
    let mut refused = 0;
    let began = Instant::now();
    let mut made = 0_usize;
    while began.elapsed() < Duration::from_secs(2) {
        made += 1;
        let ask = |id: &str, was_granted| Ask {
            id: id.to_owned(),
            made: NOW,
            resources: Ok(each.clone()),
            until: NOW + 600,
            was_granted,
        };
        let id = format!("{made:012}");
        let asks: Vec<_> = grants.iter().map(|grant| ask(&grant.id, true)).chain([ask(&id, false)]).collect();
        let booked = book(&offer, &grants, &asks, NOW, None);
        assert!(free(&offer, &booked.grants).values().all(|left| *left >= Amount::ZERO), "promised twice");
        refused += usize::from(matches!(booked.verdicts[&id], Verdict::NotEnough(..)));
        grants = booked.grants;
        // When nothing is left, an old one is given back every other time: so half of them are refused.
        if grants.len() as i64 >= HELD && made.is_multiple_of(2) {
            grants.remove(0);
        }
    }
    let rate = made as f64 / began.elapsed().as_secs_f64();
    writeln!(
        out,
        "| reservations at one ledger with {HELD} promises, one core: {made} decided, {refused} refused, 0 promised twice | {rate:.0} each second | – | – |"
    )
}

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "| what | ours | plain loop over five columns, only counting | ratio |\n|---|---|---|---|")?;
    [1_000, 10_000, 100_000].into_iter().try_for_each(|count| selections(&mut out, count))?;
    reservations(&mut out)
}
