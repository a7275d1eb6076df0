//! The heartbeats of this cluster as a provider.
//!
//! Keeps true: a change of the offer, and an invitation, are told at once; otherwise the broker says how often it wants to hear.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Node, Pod};
use liqo_core::resources::write;
use liqo_kube::{Store, told::Told};
use liqo_market::wire::{Heartbeat, HeartbeatAnswer};
use liqo_market_client::Broker;
use tokio::sync::watch;

use crate::{
    OfferArgs,
    invite::{Answer, Inviter},
    offer::{offer, trim_node, trim_pod},
};

/// Changes of capacity within this time are told together.
const CROWD: Duration = Duration::from_secs(1);
/// Pause after a heartbeat that did not arrive.
const AFTER_FAILURE: Duration = Duration::from_secs(3);
/// Bounds of the pause that the broker asks for.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// Sends heartbeats for ever.
pub(crate) async fn provide(inviter: Inviter, broker: Arc<Broker>, args: OfferArgs) {
    let changes = watch::Sender::new(());
    let (of_node, of_pod) = (changes.clone(), changes.clone());
    let nodes = inviter.home.watch::<Node>("").trim(trim_node).start(move |_| of_node.send_modify(|()| ()));
    let pods = inviter.home.watch::<Pod>("").trim(trim_pod).start(move |_| of_pod.send_modify(|()| ()));
    nodes.ready().await;
    pods.ready().await;
    let (mut changed, told) = (changes.subscribe(), Told::default());
    let mut beat = Heartbeat { declared: args.declared(&inviter.local.cluster_name), ..Heartbeat::default() };
    loop {
        changed.borrow_and_update();
        let (offered, largest) = offer(&nodes.all(), &pods.all(), args.share);
        (beat.offered, beat.largest_allocation) = (write(&offered), write(&largest));
        let id = &inviter.local.cluster_id;
        let pause = match broker.heartbeat(id, &beat).await {
            Ok(answer) => {
                told.settle("broker", "heartbeat");
                (beat.invitations, beat.refusals) = Default::default();
                answers(&inviter, &nodes, &answer, &mut beat).await;
                let has_news = !beat.invitations.is_empty() || !beat.refusals.is_empty();
                let pause = Duration::from_secs(answer.interval_seconds).clamp(PAUSES.0, PAUSES.1);
                if has_news { Duration::ZERO } else { pause }
            }
            Err(no) => {
                let why = no.to_string();
                if told.is_news("broker", "heartbeat", &why) {
                    tracing::warn!(why, "the broker was not told what this cluster offers, will be tried again");
                }
                AFTER_FAILURE
            }
        };
        wait(&mut changed, pause, (&nodes, &pods), (&args, &beat)).await;
    }
}

/// Waits for so long, or until the offer is another one.
async fn wait(
    changed: &mut watch::Receiver<()>,
    pause: Duration,
    (nodes, pods): (&Store<Node>, &Store<Pod>),
    (args, beat): (&OfferArgs, &Heartbeat),
) {
    let other = async {
        loop {
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(CROWD).await;
            let (offered, largest) = offer(&nodes.all(), &pods.all(), args.share);
            if write(&offered) != beat.offered || write(&largest) != beat.largest_allocation {
                return;
            }
        }
    };
    // Whichever comes first.
    let _ = tokio::time::timeout(pause, other).await;
}

/// Answers each promise that the broker has no invitation for.
async fn answers(inviter: &Inviter, nodes: &Store<Node>, answer: &HeartbeatAnswer, beat: &mut Heartbeat) {
    for promise in answer.promises.iter().filter(|promise| !promise.is_invited) {
        match inviter.answer(promise, nodes).await {
            Ok(Answer::Invited(invitation)) => beat.invitations.push(invitation),
            Ok(Answer::Refused(refusal)) => beat.refusals.push(refusal),
            Err(why) => {
                tracing::warn!(why, reservation = promise.reservation, "a consumer is not invited yet");
            }
        }
    }
}
