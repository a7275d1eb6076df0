//! Flows of peers that connection tracking took in before kube-proxy translated the gateway's node port.
//!
//! A peer may send to a new node port before kube-proxy of this node has a rule for the port, and after a reboot of this node
//! before kube-proxy has any rule. The kernel then remembers the flow as one to the node port itself, where nobody listens. The
//! peer sends on from the same port, so the kernel never forgets the flow, and the rule that came later is never asked.
//! kube-proxy does not help: kube-proxy looks for such flows only when endpoints of a UDP Service change, and some versions
//! compare addresses only, while the gateway has the address of its node.
//!
//! Removes: untranslated flows of UDP to node ports of the gateway Service, on the node of the active gateway.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Service;
use liqo_netlink::{Error, Flow, Kernel};

/// Shortest pause between two looks at the kernel's flows, and from an event to the first look: a look takes some 10 ms on a
/// busy node, which a gateway that takes over does not have.
const PAUSE: Duration = Duration::from_secs(2);
/// So long after the node ports have changed, kube-proxy may not have rules for them yet.
const SETTLING: Duration = Duration::from_secs(60);

/// When the flows were looked at, and why they will be.
#[derive(Debug, Default)]
pub(super) struct Flows {
    ports: BTreeSet<u16>,
    /// When the ports changed.
    changed: Option<Instant>,
    /// Since when a peer that should answer does not.
    waiting: Option<Instant>,
    looked: Option<Instant>,
    /// The last look failed, and somebody was told so.
    has_failed: bool,
}

impl Flows {
    /// Deletes untranslated flows to the node ports of `services`, if it is time for a look. `waits`: a peer that should answer
    /// does not. A failure is told once and stops nothing: tunnels that work need no look.
    pub(super) fn settle(&mut self, kernel: &Kernel, services: &[Arc<Service>], waits: bool, now: Instant) {
        self.follow(node_ports(services.iter().map(AsRef::as_ref)), waits, now);
        if !self.is_due(now) {
            return;
        }
        self.looked = Some(now);
        let cleaned = self.ports.iter().try_fold(0, |sum, port| Ok::<_, Error>(sum + clean(kernel, *port)?));
        match &cleaned {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "forgotten: flows to a node port from before kube-proxy translated it"),
            Err(error) if !self.has_failed => tracing::warn!("{}", super::told(error)),
            Err(_) => {}
        }
        self.has_failed = cleaned.is_err();
    }

    /// Notes which node ports there are, and whether a peer that should answer does not.
    fn follow(&mut self, ports: BTreeSet<u16>, waits: bool, now: Instant) {
        if self.ports != ports {
            self.changed = Some(now);
            self.ports = ports;
        }
        self.waiting = waits.then(|| self.waiting.unwrap_or(now));
    }

    /// Whether it is time for a look.
    fn is_due(&self, now: Instant) -> bool {
        let age = |event: Option<Instant>| event.map(|event| now.duration_since(event));
        let is_new = age(self.changed).is_some_and(|age| (PAUSE..SETTLING).contains(&age));
        let is_long = age(self.waiting).is_some_and(|age| age >= PAUSE);
        (is_new || is_long) && age(self.looked).is_none_or(|age| age >= PAUSE)
    }
}

/// The UDP node ports of these Services.
fn node_ports<'s>(services: impl Iterator<Item = &'s Service>) -> BTreeSet<u16> {
    let ports = services.filter_map(|service| service.spec.as_ref()?.ports.as_ref()).flatten();
    let udp = ports.filter(|port| port.protocol.as_deref() == Some("UDP"));
    udp.filter_map(|port| u16::try_from(port.node_port?).ok()).filter(|port| *port != 0).collect()
}

/// Deletes the untranslated flows to one port.
fn clean(kernel: &Kernel, port: u16) -> Result<usize, Error> {
    let flows = kernel.udp_flows(port, port)?;
    flows
        .iter()
        .filter(|flow| is_untranslated(flow))
        .try_fold(0, |sum, flow| Ok(sum + usize::from(kernel.forget(flow)?)))
}

/// Whether answers are sent from where the flow was opened to. kube-proxy leaves no flow to a node port like that: the
/// gateway listens elsewhere.
fn is_untranslated(flow: &Flow) -> bool {
    flow.reply.from == flow.original.to
}

#[cfg(test)]
mod tests {
    use liqo_netlink::Way;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_untranslated_flows_are_deleted() {
        let cases = [
            ("172.30.0.11:31871", true, "not translated"),
            ("172.30.0.11:5871", false, "to the gateway of this node"),
            ("172.30.0.12:5871", false, "to the gateway of another node"),
            ("172.30.0.12:31871", false, "to another node that listens there"),
        ];
        for (answers, wanted, why) in cases {
            let (peer, node) = ("192.0.2.7:5871".parse().unwrap(), "172.30.0.11:31871".parse().unwrap());
            let reply = Way { from: answers.parse().unwrap(), to: peer };
            let flow = Flow { original: Way { from: peer, to: node }, reply };
            assert_eq!(is_untranslated(&flow), wanted, "{why}");
        }
    }

    #[test]
    fn flows_are_looked_at_while_ports_are_new_or_a_peer_does_not_answer() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        // Time, node port, whether a peer does not answer, whether there is a look.
        let cases = [
            (0, 31000, false, false, "kube-proxy has had no time"),
            (2, 31000, false, true, "the port is new"),
            (3, 31000, true, false, "too early"),
            (4, 31000, false, true, "the port is still new"),
            (60, 31000, false, false, "the port is known"),
            (61, 31000, true, false, "a peer has just fallen silent"),
            (62, 31000, false, false, "the peer answers"),
            (63, 31000, true, false, "a peer has fallen silent again"),
            (65, 31000, true, true, "the peer stays silent"),
            (66, 31000, true, false, "too early again"),
            (67, 31871, true, true, "the peer is silent, whatever the port"),
            (70, 31871, false, true, "another port is new"),
            (126, 31871, false, true, "and still is"),
            (128, 31871, false, false, "the other port is known, too"),
        ];
        let mut flows = Flows::default();
        for (second, port, waits, wanted, why) in cases {
            flows.follow([port].into(), waits, at(second));
            assert_eq!(flows.is_due(at(second)), wanted, "{second}: {why}");
            if wanted {
                flows.looked = Some(at(second));
            }
        }
    }

    #[test]
    fn node_ports_are_those_of_udp() {
        let service = |ports| serde_json::from_value::<Service>(json!({"spec": {"ports": ports}})).unwrap();
        let services = [
            service(json!([{"port": 5871, "protocol": "UDP", "nodePort": 31871}])),
            service(json!([{"port": 5871, "protocol": "UDP"}, {"port": 80, "protocol": "TCP", "nodePort": 30080}])),
            Service::default(),
        ];
        assert_eq!(node_ports(services.iter()), [31871].into());
    }
}
