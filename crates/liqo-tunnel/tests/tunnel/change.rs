//! What changes while packets flow: keys, addresses, peers, the interface itself.

use std::time::Duration;

use liqo_tunnel::{Error, Implementation, Peer, PrivateKey};

use crate::bed::{INTERFACE, Machine, Switch, echo, eventually, full_mesh, within};

const SOON: Duration = Duration::from_secs(5);
const NOT: Duration = Duration::from_millis(700);

fn pair(switch: &Switch) -> (Machine, Machine) {
    let mut machines = full_mesh(switch, 2);
    let b = machines.pop().unwrap();
    let a = machines.pop().unwrap();
    assert!(echo(&a, &b, b.inner4(), SOON));
    (a, b)
}

#[test]
fn keys_are_exchanged_anew_and_nothing_is_lost() {
    let switch = Switch::new();
    let (a, b) = pair(&switch);
    for round in 0..20 {
        let before = a.state_of(&b).last_handshake.unwrap();
        let (from, to) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        // The protocol refuses initiations whose time has not moved on.
        std::thread::sleep(Duration::from_millis(2));
        from.engine().handshake(&to.key.public()).unwrap();
        eventually("new keys", || a.state_of(&b).last_handshake.unwrap() > before);
        assert!(echo(&a, &b, b.inner4(), NOT), "round {round}, there");
        assert!(echo(&b, &a, a.inner6(), NOT), "round {round}, back");
    }
}

#[test]
fn rotation_under_load_keeps_the_stream() {
    let switch = Switch::new();
    let (a, b) = pair(&switch);
    std::thread::scope(|scope| {
        let stream = scope.spawn(|| crate::bed::stream(&a, &b, b.inner4(), 512 << 20));
        while !stream.is_finished() {
            a.engine().handshake(&b.key.public()).unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
        stream.join().unwrap();
    });
}

#[test]
fn a_peer_that_moves_is_followed() {
    let switch = Switch::new();
    let (a, b) = pair(&switch);
    b.outside.ip("address delete 192.0.2.2/24 dev eth0");
    b.outside.ip("address add 192.0.2.77/24 dev eth0");
    // It speaks first, so the other learns.
    assert!(echo(&b, &a, a.inner4(), SOON));
    eventually("the new address", || a.state_of(&b).endpoint == Some("192.0.2.77:5871".parse().unwrap()));
    assert!(echo(&a, &b, b.inner4(), NOT));
    // A wish that has not changed does not call it back.
    a.engine().set_peers(&[b.peer()]).unwrap();
    assert_eq!(a.state_of(&b).endpoint, Some("192.0.2.77:5871".parse().unwrap()));
    // A changed one does.
    let place = "[2001:db8::2]:5871".parse().unwrap();
    a.engine().set_peers(&[Peer { endpoint: Some(place), ..b.peer() }]).unwrap();
    assert!(echo(&a, &b, b.inner4(), NOT));
    eventually("the wished address", || a.state_of(&b).endpoint == Some(place));
}

#[test]
fn the_old_address_is_valid_until_the_new_one_has_answered() {
    let switch = Switch::new();
    let (a, b) = pair(&switch);
    let place = "192.0.2.88:5871".parse().unwrap();
    a.engine().set_peers(&[Peer { endpoint: Some(place), ..b.peer() }]).unwrap();
    for _ in 0..20 {
        assert!(echo(&a, &b, b.inner4(), NOT) && echo(&b, &a, a.inner4(), NOT));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(a.state_of(&b).endpoint, b.peer().endpoint);
    b.outside.ip("address add 192.0.2.88/24 dev eth0");
    eventually("the new address", || a.state_of(&b).endpoint == Some(place));
    assert!(echo(&a, &b, b.inner4(), NOT) && echo(&b, &a, a.inner4(), NOT));
}

/// While it is looked for there, keys are not made anew; that must end before the keys in use do.
#[test]
fn an_address_where_nobody_answers_is_given_up() {
    let switch = Switch::new();
    let (a, b) = pair(&switch);
    let agreed = a.state_of(&b).last_handshake;
    a.engine().set_peers(&[Peer { endpoint: Some("192.0.2.99:5871".parse().unwrap()), ..b.peer() }]).unwrap();
    // Eight times it is asked in vain, a second apart.
    within(Duration::from_secs(20), "new keys at the old address", || {
        assert!(echo(&a, &b, b.inner4(), NOT));
        a.state_of(&b).last_handshake > agreed
    });
    assert_eq!(a.state_of(&b).endpoint, b.peer().endpoint);
}

/// A load balancer's address that changed: what the peer sends comes from the old one still, what goes there is lost.
#[test]
fn a_peer_is_not_followed_back_to_where_it_is_not_reached() {
    let switch = Switch::new();
    let (a, b) = pair(&switch);
    // B knows no place of A but the one it hears it from.
    b.engine().set_peers(&[Peer { endpoint: None, ..a.peer() }]).unwrap();
    b.outside.ip("address add 192.0.2.88/24 dev eth0");
    deaf(&b, "192.0.2.2");
    let speaks = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while speaks.load(std::sync::atomic::Ordering::Relaxed) {
                echo(&b, &a, a.inner4(), Duration::from_millis(100));
            }
        });
        assert!(!echo(&a, &b, b.inner4(), NOT));
        let place = "192.0.2.88:5871".parse().unwrap();
        a.engine().set_peers(&[Peer { endpoint: Some(place), ..b.peer() }]).unwrap();
        let is_back = echo(&a, &b, b.inner4(), Duration::from_secs(2));
        speaks.store(false, std::sync::atomic::Ordering::Relaxed);
        assert!(is_back);
    });
    assert!(echo(&a, &b, b.inner4(), NOT) && echo(&b, &a, a.inner4(), NOT));
}

/// What is sent to this address of a machine is lost.
fn deaf(machine: &Machine, address: &str) {
    for rule in [
        "add table ip deaf",
        "add chain ip deaf input { type filter hook input priority 0 ; }",
        &format!("add rule ip deaf input ip daddr {address} drop"),
    ] {
        machine.outside.command("/usr/sbin/nft", rule);
    }
}

#[test]
fn answers_leave_from_the_address_that_was_asked() {
    let switch = Switch::new();
    let machines = full_mesh(&switch, 2);
    let (a, b) = (&machines[0], &machines[1]);
    b.outside.ip("address add 192.0.2.88/24 dev eth0");
    let mut peer = b.peer();
    peer.endpoint = Some("192.0.2.88:5871".parse().unwrap());
    b.engine().set_peers(&[Peer { endpoint: None, ..a.peer() }]).unwrap();
    a.engine().set_peers(&[peer]).unwrap();
    assert!(echo(a, b, b.inner4(), SOON));
    assert_eq!(
        a.state_of(b).endpoint,
        Some("192.0.2.88:5871".parse().unwrap()),
        "the routing table would have said 192.0.2.2"
    );
}

#[test]
fn a_peers_new_key_waits_behind_the_old_one() {
    let switch = Switch::new();
    let (a, mut b) = pair(&switch);
    let old = b.key.public();
    let next = PrivateKey::generate().unwrap();
    // A is told before B has its key: traffic goes on with the old one.
    let peer = Peer { key: next.public(), ..b.peer() };
    a.engine().set_peers(std::slice::from_ref(&peer)).unwrap();
    for _ in 0..5 {
        assert!(echo(&a, &b, b.inner4(), NOT) && echo(&b, &a, a.inner4(), NOT));
        std::thread::sleep(Duration::from_millis(100));
    }
    let keys = |machine: &Machine| machine.engine().peers().unwrap().iter().map(|peer| peer.key).collect::<Vec<_>>();
    assert!(keys(&a).contains(&old) && keys(&a).contains(&next.public()));
    // B has it: the new one takes over, the old one goes.
    b.engine().set_key(&next).unwrap();
    b.key = next;
    eventually("the old key to go", || keys(&a) == [b.key.public()]);
    assert!(echo(&a, &b, b.inner4(), NOT) && echo(&b, &a, a.inner4(), NOT));
}

#[test]
fn our_new_key_serves_peers_that_only_know_the_old_one() {
    let switch = Switch::new();
    let (a, mut b) = pair(&switch);
    let next = PrivateKey::generate().unwrap();
    b.engine().set_key(&next).unwrap();
    assert!(echo(&a, &b, b.inner4(), NOT) && echo(&b, &a, a.inner4(), NOT));
    // Also for a handshake under the old key.
    let agreed = a.state_of(&b).last_handshake.unwrap();
    a.engine().handshake(&b.key.public()).unwrap();
    eventually("a handshake under the old key", || a.state_of(&b).last_handshake.unwrap() > agreed);
    assert!(echo(&a, &b, b.inner4(), NOT));
    b.key = next;
    a.engine().set_peers(&[b.peer()]).unwrap();
    eventually("the new key alone", || {
        a.engine().peers().unwrap().len() == 1 && a.state_of(&b).last_handshake.is_some()
    });
    assert!(echo(&a, &b, b.inner4(), NOT) && echo(&b, &a, a.inner4(), NOT));
}

#[test]
fn our_new_key_reaches_a_peer_that_is_heard_from_where_it_does_not_listen() {
    let switch = Switch::new();
    let mut machines = full_mesh(&switch, 2);
    let mut b = machines.pop().unwrap();
    let a = machines.pop().unwrap();
    a.outside.ip("address add 192.0.2.88/24 dev eth0");
    let expected = |machine: &Machine| Peer { endpoint: Some("192.0.2.88:5871".parse().unwrap()), ..machine.peer() };
    b.engine().set_peers(&[expected(&a)]).unwrap();
    assert!(echo(&b, &a, a.inner4(), SOON));
    // What goes to where its own initiations come from is lost.
    deaf(&a, "192.0.2.1");
    let next = PrivateKey::generate().unwrap();
    b.engine().set_key(&next).unwrap();
    b.key = next;
    a.engine().set_peers(&[b.peer()]).unwrap();
    eventually("the new key alone", || {
        [&a, &b].iter().all(|machine| machine.engine().peers().unwrap().len() == 1)
            && a.state_of(&b).last_handshake.is_some()
    });
    assert!(echo(&a, &b, b.inner4(), NOT) && echo(&b, &a, a.inner4(), NOT));
}

#[test]
fn a_peer_that_left_is_heard_no_more() {
    let switch = Switch::new();
    let (a, b) = pair(&switch);
    a.engine().set_peers(&[]).unwrap();
    assert!(!echo(&b, &a, a.inner4(), NOT));
    assert!(a.engine().peers().unwrap().is_empty());
    a.engine().set_peers(&[b.peer()]).unwrap();
    assert!(echo(&a, &b, b.inner4(), SOON));
}

#[test]
fn a_restarted_side_is_back_at_once() {
    let switch = Switch::new();
    let (mut a, b) = pair(&switch);
    a.engine.take().unwrap().stop();
    a.start(1420);
    a.engine().set_peers(&[b.peer()]).unwrap();
    assert!(echo(&b, &a, a.inner4(), Duration::from_secs(2)));
}

#[test]
fn an_interface_that_goes_away_ends_the_engine_and_says_so() {
    let switch = Switch::new();
    let (a, b) = pair(&switch);
    a.engine().check().unwrap();
    a.inside.ip(&format!("link delete {INTERFACE}"));
    eventually("the end", || matches!(a.engine().check(), Err(Error::Ended(_))));
    assert!(matches!(a.engine().set_peers(&[b.peer()]), Err(Error::Ended(_))));
}

#[test]
fn stopping_removes_interface_and_port() {
    let switch = Switch::new();
    let (mut a, b) = pair(&switch);
    let begun = std::time::Instant::now();
    a.engine.take().unwrap().stop();
    assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
    assert!(!a.inside.command("/usr/sbin/ip", "link show").contains(INTERFACE));
    a.start(1420);
    a.engine().set_peers(&[b.peer()]).unwrap();
}

#[test]
fn two_on_one_port_or_one_name_are_refused() {
    let switch = Switch::new();
    let (a, _b) = pair(&switch);
    let device = |interface: &str, port| liqo_tunnel::Device {
        interface: interface.to_owned(),
        port,
        key: a.key.clone(),
        mtu: 1420,
    };
    let open = |device| a.outside.run(|| liqo_tunnel::open(&device, a.inside.fd(), None).map(drop));
    assert!(matches!(open(device("other", 5871)), Err(Error::Io { .. })));
    assert!(matches!(open(device(INTERFACE, 5872)), Err(Error::Io { .. })));
    assert!(matches!(open(device("a name that is too long", 5873)), Err(Error::Name(_))));
}

#[test]
fn without_the_kernels_wireguard_ours_is_taken_and_says_why() {
    let switch = Switch::new();
    let a = Machine::new(&switch, 1);
    let device = liqo_tunnel::Device { interface: INTERFACE.to_owned(), port: 0, key: a.key.clone(), mtu: 1420 };
    let open = |wish| a.outside.run(|| liqo_tunnel::open(&device, a.inside.fd(), wish));
    // What the kernel itself says decides what is expected, so this holds on machines that have it.
    let has = a.outside.run(|| {
        #[expect(clippy::disallowed_methods, reason = "asks the kernel by another way")]
        std::process::Command::new("/usr/sbin/ip")
            .args(["link", "add", "probe", "type", "wireguard"])
            .status()
            .unwrap()
            .success()
    });
    let engine = open(None).unwrap();
    assert_ne!(engine.port(), 0);
    if has {
        assert_eq!((engine.implementation(), engine.fallback_reason()), (Implementation::Kernel, None));
    } else {
        assert_eq!(engine.implementation(), Implementation::Userspace);
        assert!(engine.fallback_reason().unwrap().contains("no WireGuard"), "{:?}", engine.fallback_reason());
        engine.stop();
        assert!(matches!(open(Some(Implementation::Kernel)).map(drop), Err(Error::NoKernel(_))));
    }
}
