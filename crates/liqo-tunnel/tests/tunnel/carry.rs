//! What goes in comes out, unchanged, in both families, for every size.

use std::time::Duration;

use crate::bed::{Switch, echo, full_mesh, stream};

const SOON: Duration = Duration::from_secs(5);

#[test]
fn three_machines_reach_each_other_in_both_families() {
    let switch = Switch::new();
    let machines = full_mesh(&switch, 3);
    for from in &machines {
        for to in machines.iter().filter(|to| to.n != from.n) {
            assert!(echo(from, to, to.inner4(), SOON), "{} to {} by IPv4", from.n, to.n);
            assert!(echo(from, to, to.inner6(), SOON), "{} to {} by IPv6", from.n, to.n);
        }
    }
}

#[test]
fn a_long_stream_arrives_whole() {
    let switch = Switch::new();
    let machines = full_mesh(&switch, 2);
    let (a, b) = (&machines[0], &machines[1]);
    stream(a, b, b.inner4(), 256 << 20);
    stream(b, a, a.inner6(), 64 << 20);
    let state = a.state_of(b);
    assert!(state.sent > 256 << 20 && state.received > 64 << 20, "{state:?}");
    assert!(state.last_handshake.is_some());
}
