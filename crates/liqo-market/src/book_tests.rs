use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_000_000;

fn cpu(count: i64) -> Resources {
    [("cpu".to_owned(), Amount::whole(count))].into()
}

fn ask(id: &str, made: i64, count: i64) -> Ask {
    Ask { id: id.into(), made, resources: Ok(cpu(count)), until: NOW + 600, was_granted: false }
}

fn grant(id: &str, count: i64, until: i64) -> Grant {
    Grant { id: id.into(), resources: cpu(count), asked: until, until }
}

fn ids(booked: &Booked) -> Vec<&str> {
    booked.grants.iter().map(|grant| grant.id.as_str()).collect()
}

#[test]
fn who_came_first_is_served_first() {
    let booked = book(&cpu(4), &[], &[ask("b", 2, 3), ask("a", 3, 2), ask("c", 1, 1)], NOW, None);
    assert_eq!(ids(&booked), ["b", "c"]);
    assert_eq!(booked.verdicts["a"], Verdict::NotEnough("cpu".into(), Amount::whole(2), Amount::ZERO));
    assert_eq!(booked.verdicts["b"], Verdict::Granted(NOW + 600));
}

#[test]
fn what_holds_is_kept_whatever_comes() {
    let held = [grant("old", 3, NOW + 600)];
    // Somebody asked earlier, but the promise is there already; the offer has shrunk below it.
    let booked = book(&cpu(2), &held, &[ask("early", 0, 1), Ask { was_granted: true, ..ask("old", 5, 3) }], NOW, None);
    assert_eq!(ids(&booked), ["old"]);
    assert_eq!(booked.verdicts["early"], Verdict::NotEnough("cpu".into(), Amount::whole(1), Amount::ZERO));
    assert_eq!(free(&cpu(2), &booked.grants), cpu(-1));
}

#[test]
fn a_promise_ends_with_its_time_or_its_reservation() {
    let held = [grant("gone", 1, NOW + 600), grant("over", 1, NOW), grant("stays", 1, NOW + 1)];
    let granted = |id: &str, until: i64| Ask { until, was_granted: true, ..ask(id, 1, 1) };
    let asks = [granted("over", NOW + 600), granted("stays", NOW + 1)];
    let booked = book(&cpu(9), &held, &asks, NOW, None);
    assert_eq!(ids(&booked), ["stays"]);
    assert_eq!(booked.verdicts["over"], Verdict::Expired, "what is over is not renewed");
    assert_eq!((booked.next_end(NOW), Booked::default().next_end(NOW)), (Some(1), None));
}

#[test]
fn a_later_end_renews_and_none_is_further_away_than_the_longest() {
    let held = [grant("a", 1, NOW + 60)];
    let booked = book(&cpu(1), &held, &[Ask { until: NOW + 900, was_granted: true, ..ask("a", 1, 1) }], NOW, None);
    assert_eq!((booked.grants[0].asked, booked.grants[0].until), (NOW + 900, NOW + 900));
    let far = Ask { until: i64::MAX, ..ask("b", 1, 1) };
    let booked = book(&cpu(1), &[], std::slice::from_ref(&far), NOW, None);
    assert_eq!(booked.grants[0].until, NOW + LONGEST);
    // The end does not move on by itself.
    let later = book(&cpu(1), &booked.grants, &[Ask { was_granted: true, ..far }], NOW + 100, None);
    assert_eq!(later.grants, booked.grants);
    let ended = book(&cpu(1), &held, &[Ask { until: NOW - 1, was_granted: true, ..ask("a", 1, 1) }], NOW, None);
    assert_eq!((ended.grants.len(), &ended.verdicts["a"]), (0, &Verdict::Expired));
}

#[test]
fn what_is_not_taken_says_why() {
    let asks = [
        Ask { resources: Err("no amount".into()), ..ask("odd", 1, 1) },
        Ask { until: NOW, ..ask("late", 1, 1) },
        Ask { was_granted: true, ..ask("lost", 1, 1) },
        ask("fine", 1, 1),
    ];
    let verdicts = book(&cpu(9), &[], &asks, NOW, Some("cordoned")).verdicts;
    assert_eq!(verdicts["odd"], Verdict::Invalid("no amount".into()));
    assert_eq!((&verdicts["late"], &verdicts["lost"]), (&Verdict::Expired, &Verdict::Expired));
    assert_eq!(verdicts["fine"], Verdict::Closed("cordoned".into()));
    let other = [Ask { resources: Ok([("gpu".to_owned(), Amount::whole(1))].into()), ..ask("gpu", 1, 1) }];
    let verdicts = book(&cpu(9), &[], &other, NOW, None).verdicts;
    assert_eq!(verdicts["gpu"], Verdict::NotEnough("gpu".into(), Amount::whole(1), Amount::ZERO));
}

#[test]
fn a_reservation_that_is_told_twice_is_promised_once() {
    let booked = book(&cpu(9), &[], &[ask("a", 1, 2), ask("a", 1, 2)], NOW, None);
    assert_eq!(booked.grants.len(), 1);
}

/// Something that happens to a provider.
#[derive(Clone, Debug)]
enum Event {
    Ask(i64, i64),
    Release(usize),
    Renew(usize, i64),
    Offer(i64),
    Wait(i64),
    Cordon(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1_i64..6, 1_i64..200).prop_map(|(count, life)| Event::Ask(count, life)),
        2 => any::<usize>().prop_map(Event::Release),
        1 => (any::<usize>(), 1_i64..200).prop_map(|(which, life)| Event::Renew(which, life)),
        1 => (0_i64..30).prop_map(Event::Offer),
        2 => (1_i64..60).prop_map(Event::Wait),
        1 => any::<bool>().prop_map(Event::Cordon),
    ]
}

fn sum(grants: &[Grant]) -> Amount {
    Amount::ZERO - free(&cpu(0), grants)["cpu"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    /// Through 200 events: the sum of the promises grows only within the offer, a promise that holds is never broken, each
    /// reservation has a verdict, and to book once more changes nothing.
    #[test]
    fn the_ledger_holds_through_events(events in proptest::collection::vec(event(), 200)) {
        let (mut grants, mut asks, mut offer, mut now, mut closed) = (Vec::new(), Vec::<Ask>::new(), 10, NOW, false);
        for (number, event) in events.into_iter().enumerate() {
            let mut released = None;
            match event {
                Event::Ask(count, life) => {
                    asks.push(Ask { until: now + life, ..ask(&format!("r{number:03}"), now, count) });
                }
                Event::Release(which) if !asks.is_empty() => released = Some(asks.remove(which % asks.len()).id),
                Event::Renew(which, life) if !asks.is_empty() => {
                    let which = which % asks.len();
                    asks[which].until = now + life;
                }
                Event::Release(_) | Event::Renew(..) => {}
                Event::Offer(count) => offer = count,
                Event::Wait(seconds) => now += seconds,
                Event::Cordon(is_closed) => closed = is_closed,
            }
            let why = closed.then_some("cordoned");
            let booked = book(&cpu(offer), &grants, &asks, now, why);
            prop_assert!(sum(&booked.grants) <= Amount::whole(offer).max(sum(&grants)), "more is promised than there is");
            for before in grants.iter().filter(|grant| grant.until > now && released.as_ref() != Some(&grant.id)) {
                let after = booked.grants.iter().find(|grant| grant.id == before.id);
                prop_assert!(after.is_some_and(|after| after.resources == before.resources), "a promise was broken");
            }
            prop_assert!(asks.iter().all(|ask| booked.verdicts.contains_key(&ask.id)));
            // The broker writes verdicts; final ones are not asked about again.
            asks.retain_mut(|ask| {
                let is_granted = matches!(booked.verdicts[&ask.id], Verdict::Granted(_));
                ask.was_granted |= is_granted;
                is_granted
            });
            let again = book(&cpu(offer), &booked.grants, &asks, now, why);
            prop_assert_eq!(&again.grants, &booked.grants);
            grants = booked.grants;
        }
    }
}
