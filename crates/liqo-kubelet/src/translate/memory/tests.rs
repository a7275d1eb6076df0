use super::*;

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn mapped(last: u8) -> IpAddr {
    IpAddr::from([10, 98, 0, last])
}

fn user(name: &str) -> User {
    User { scope: "slices/demo".into(), name: name.to_owned() }
}

fn set<const N: usize>(all: [u8; N]) -> BTreeSet<IpAddr> {
    all.map(ip).into()
}

fn refused() -> Trouble {
    Trouble::Refused("no range left".to_owned())
}

/// A memory, its clock, and one user of `10.0.0.1`.
fn wanted() -> (Memory, Instant) {
    let (mut memory, now) = (Memory::default(), Instant::now());
    assert_eq!(memory.wish(&user("a"), set([1]), now), [ip(1)]);
    (memory, now)
}

#[test]
fn an_address_is_asked_for_once_and_then_known() {
    let (mut memory, now) = wanted();
    assert_eq!((memory.answer(ip(1)), memory.step(ip(1), now)), (Answer::Asking, Step::Ask));
    assert_eq!(memory.learn(ip(1), Ok(mapped(1)), now), [user("a")]);
    assert_eq!((memory.answer(ip(1)), memory.step(ip(1), now)), (Answer::Known(mapped(1)), Step::Rest));
    assert!(memory.wish(&user("a"), set([1]), now).is_empty(), "the same wish again is none");
    assert!(memory.wish(&user("b"), set([1]), now).is_empty(), "a second user finds it known");
}

#[test]
fn it_is_given_back_when_the_last_user_has_been_gone_for_a_while() {
    let (mut memory, now) = wanted();
    let _ = memory.wish(&user("b"), set([1]), now);
    let _ = memory.learn(ip(1), Ok(mapped(1)), now);
    assert!(memory.wish(&user("a"), set([]), now).is_empty(), "b still wants it");
    assert_eq!(memory.wish(&user("b"), set([2]), now), [ip(2), ip(1)]);
    assert_eq!(memory.step(ip(1), now), Step::Wait(GRACE));
    assert_eq!(memory.step(ip(1), now), Step::Rest, "one alarm is enough");
    assert_eq!(memory.step(ip(1), now + GRACE), Step::Release);
    assert!(!memory.released(ip(1), Ok(()), now + GRACE));
    assert_eq!((memory.step(ip(1), now + GRACE), memory.answer(ip(1))), (Step::Rest, Answer::Asking), "forgotten");
}

#[test]
fn who_comes_back_in_time_finds_everything_as_it_was() {
    let (mut memory, now) = wanted();
    let _ = memory.learn(ip(1), Ok(mapped(1)), now);
    let _ = memory.wish(&user("a"), set([]), now);
    assert_eq!(memory.wish(&user("b"), set([1]), now + GRACE / 2), [ip(1)]);
    assert_eq!(memory.answer(ip(1)), Answer::Known(mapped(1)));
    assert_eq!(memory.step(ip(1), now + GRACE), Step::Rest);
}

#[test]
fn who_comes_back_while_it_is_given_back_gets_a_new_answer() {
    let (mut memory, now) = wanted();
    let _ = memory.learn(ip(1), Ok(mapped(1)), now);
    let _ = memory.wish(&user("a"), set([]), now);
    let now = now + GRACE;
    assert_eq!(memory.step(ip(1), now), Step::Release);
    let _ = memory.wish(&user("b"), set([1]), now);
    assert!(memory.released(ip(1), Ok(()), now));
    assert_eq!((memory.answer(ip(1)), memory.step(ip(1), now)), (Answer::Asking, Step::Ask));
}

#[test]
fn what_was_never_answered_is_given_back_too() {
    let (mut memory, now) = wanted();
    let _ = memory.learn(ip(1), Err(Trouble::Away), now);
    let _ = memory.wish(&user("a"), set([]), now);
    assert_eq!(memory.step(ip(1), now + GRACE), Step::Release, "the lost answer may have been a yes");
    assert!(memory.released(ip(1), Err(Trouble::Away), now + GRACE));
    assert_eq!(memory.step(ip(1), now + GRACE), Step::Wait(OUTAGE_PAUSE), "until it is heard");
}

#[test]
fn while_nobody_answers_one_question_stands_for_all() {
    let (mut memory, now) = wanted();
    let _ = memory.wish(&user("b"), set([2]), now);
    assert_eq!(memory.learn(ip(1), Err(Trouble::Away), now), [user("a")], "the user goes on without");
    assert_eq!(memory.answer(ip(1)), Answer::Failed);
    let until = now + OUTAGE_PAUSE;
    assert_eq!(memory.step(ip(2), now), Step::Postpone(until));
    assert_eq!(memory.count(), [0, 1, 1]);
    assert_eq!(memory.postpone(ip(2), until, now), [user("b")]);
    assert_eq!((memory.answer(ip(2)), memory.step(ip(2), now)), (Answer::Failed, Step::Wait(OUTAGE_PAUSE)));
    assert!(memory.postpone(ip(2), until, now).is_empty(), "no news");
    assert_eq!(memory.step(ip(2), until), Step::Ask);
    assert_eq!(memory.learn(ip(2), Ok(mapped(2)), until), [user("b")]);
    assert!(!memory.is_out());
    assert_eq!(memory.count(), [1, 0, 1]);
}

#[test]
fn a_refusal_is_tried_again_ever_more_rarely_and_told_when_it_lasts() {
    let (mut memory, start) = wanted();
    let mut now = start;
    let mut woken = 0;
    for millis in [200, 400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000] {
        assert_eq!(memory.step(ip(1), now), Step::Ask);
        woken += memory.learn(ip(1), Err(refused()), now).len();
        assert_eq!(memory.lasting_refusal(ip(1), now).is_some(), now.duration_since(start) >= TELL_AFTER);
        assert_eq!(memory.step(ip(1), now), Step::Wait(Duration::from_millis(millis)));
        now += Duration::from_millis(millis);
    }
    assert_eq!(woken, 2, "at the first refusal, and when it had lasted");
    assert_eq!(memory.learn(ip(1), Ok(mapped(1)), now), [user("a")]);
    assert_eq!(memory.lasting_refusal(ip(1), now), None);
}

#[test]
fn doubt_asks_again_and_keeps_the_answer_until_there_is_another() {
    let (mut memory, now) = wanted();
    let _ = memory.learn(ip(1), Ok(mapped(1)), now);
    assert_eq!(memory.doubt(), [ip(1)]);
    assert_eq!((memory.answer(ip(1)), memory.step(ip(1), now)), (Answer::Known(mapped(1)), Step::Ask));
    assert!(memory.learn(ip(1), Ok(mapped(1)), now).is_empty(), "nothing new, nobody is woken");
    let _ = memory.doubt();
    assert_eq!(memory.learn(ip(1), Ok(mapped(9)), now), [user("a")]);
}

#[test]
fn doubt_ends_waiting() {
    let (mut memory, now) = wanted();
    for _ in 0..9 {
        let _ = memory.learn(ip(1), Err(refused()), now);
    }
    assert!(matches!(memory.step(ip(1), now), Step::Wait(_)));
    let _ = memory.doubt();
    assert_eq!(memory.step(ip(1), now), Step::Ask);
}

#[test]
fn an_answer_from_before_counts_until_it_is_confirmed() {
    let (mut memory, now) = wanted();
    memory.recall(ip(1), mapped(1));
    assert_eq!((memory.answer(ip(1)), memory.step(ip(1), now)), (Answer::Known(mapped(1)), Step::Ask));
    let _ = memory.learn(ip(1), Err(Trouble::Away), now);
    assert_eq!(memory.answer(ip(1)), Answer::Known(mapped(1)));
    let _ = memory.learn(ip(1), Ok(mapped(2)), now);
    memory.recall(ip(1), mapped(1));
    assert_eq!(memory.answer(ip(1)), Answer::Known(mapped(2)), "what was asked counts more");
}

#[test]
fn a_scope_leaves_whole_and_alone() {
    let (mut memory, now) = wanted();
    let other = User { scope: "pods/demo".into(), name: "a".to_owned() };
    let _ = memory.wish(&other, set([1, 2]), now);
    assert!(memory.is_wanted_elsewhere(ip(1), "slices/demo") && !memory.is_wanted_elsewhere(ip(2), "pods/demo"));
    assert_eq!(memory.names("pods/demo"), ["a"]);
    assert_eq!(memory.leave("pods/demo", now), [ip(2)]);
    assert_eq!((memory.wished(&other), memory.wished(&user("a"))), (set([]), set([1])));
}
