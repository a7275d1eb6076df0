//! What tunnels say while no gateway of this cluster is active.
//!
//! A gateway tells how its tunnels are. When the last one is gone, nobody is left to take back what it said: then this does,
//! once. The next gateway tells the truth again as soon as it is active.
//!
//! Watches   the Lease of the gateways, `TunnelEndpoint`.
//! Writes    `TunnelEndpoint.status.connection`.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use liqo_api::{
    names::GATEWAY_LEASE,
    net::{Connection, ConnectionLatency, TunnelEndpoint, TunnelEndpointStatus},
};
use liqo_kube::{
    Cluster, Store,
    lease::{self, Stillness},
};
use tokio::{sync::Notify, time::timeout};

/// A lease that nobody holds for so long is not about to be taken by a standby.
const GIVEN_BACK: Duration = Duration::from_secs(3);
/// A lease that has not moved for so long is nobody's: a gateway without rivals renews it every ten seconds.
const UNMOVED: Duration = Duration::from_secs(25);
/// Pause between two looks at the clock.
const LOOK: Duration = Duration::from_secs(1);
/// What tunnels say then.
const MESSAGE: &str = "Nothing is heard of an active gateway of this cluster";

/// Watches over the tunnels for ever.
pub(crate) async fn run(cluster: Cluster, namespace: String) {
    let news = Arc::new(Notify::new());
    let bell = Arc::clone(&news);
    let leases = cluster.watch::<Lease>(&namespace).fields(&format!("metadata.name={GATEWAY_LEASE}"));
    let leases = leases.start(move |_| bell.notify_one());
    let tunnels: Store<TunnelEndpoint> = cluster.watch("").start(|_| ());
    leases.ready().await;
    tunnels.ready().await;
    let (mut still, mut told) = (Stillness::default(), BTreeSet::new());
    loop {
        let mut lease = leases.get(&namespace, GATEWAY_LEASE);
        if still.of(lease.as_deref()) >= UNMOVED / 2 {
            // What counts is the time in which we would have seen it move.
            match cluster.get::<Lease>(&namespace, GATEWAY_LEASE).await {
                Ok(now) => lease = now.map(Arc::new),
                Err(_) => still = Stillness::default(),
            }
        }
        let unmoved = still.of(lease.as_deref());
        if unmoved.is_zero() {
            told.clear();
        }
        if is_absent(lease.as_deref(), unmoved) {
            for tunnel in tunnels.all() {
                if told.contains(&tunnel.uid()) {
                    continue;
                }
                let Some(status) = silenced(tunnel.status.as_ref()) else { continue };
                tracing::warn!(tunnel = tunnel.name_any(), "no gateway is active");
                match cluster.put_status_as_seen(&*tunnel, &status).await {
                    Ok(Some(_)) => drop(told.insert(tunnel.uid())),
                    // A gateway wrote, or the tunnel is gone: the watch shows which.
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(tunnel = tunnel.name_any(), error = %error, "not told, will be tried again");
                    }
                }
            }
        }
        let _ = timeout(LOOK, news.notified()).await;
    }
}

/// Whether there is no active gateway, when the lease has not moved for so long by our own clock.
fn is_absent(lease: Option<&Lease>, unmoved: Duration) -> bool {
    unmoved >= if lease::holder(lease).is_empty() { GIVEN_BACK } else { UNMOVED }
}

/// The status that no longer promises anything, if it does so now.
fn silenced(status: Option<&TunnelEndpointStatus>) -> Option<TunnelEndpointStatus> {
    let status = status?;
    let connection = status.connection.as_ref()?;
    if connection.status_message.as_deref() == Some(MESSAGE) {
        return None;
    }
    let latency = ConnectionLatency {
        value: Some("N/A".to_owned()),
        timestamp: connection.latency.as_ref().and_then(|latency| latency.timestamp.clone()),
    };
    let connection = Connection {
        status: Some("Error".to_owned()),
        status_message: Some(MESSAGE.to_owned()),
        latency: Some(latency),
        ..connection.clone()
    };
    Some(TunnelEndpointStatus { connection: Some(connection), ..status.clone() })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::LeaseSpec;

    use super::*;

    #[test]
    fn a_gateway_is_absent_when_its_lease_is_nobodys() {
        let held = |holder: &str| Lease {
            spec: Some(LeaseSpec { holder_identity: Some(holder.into()), ..LeaseSpec::default() }),
            ..Lease::default()
        };
        for (lease, seconds, absent) in [
            (None, 2, false),
            (None, 3, true),
            (Some(held("")), 2, false),
            (Some(held("")), 3, true),
            (Some(held("liqo-gateway-1")), 24, false),
            (Some(held("liqo-gateway-1")), 25, true),
        ] {
            assert_eq!(is_absent(lease.as_ref(), Duration::from_secs(seconds)), absent, "{lease:?} for {seconds} s");
        }
    }

    #[test]
    fn only_what_was_promised_is_taken_back_and_only_once() {
        assert_eq!(silenced(None), None);
        assert_eq!(silenced(Some(&TunnelEndpointStatus::default())), None);
        let connected = Connection { status: Some("Connected".into()), ..Connection::default() };
        let status = TunnelEndpointStatus {
            gateway_ip: Some("172.30.0.12".into()),
            connection: Some(connected),
            ..TunnelEndpointStatus::default()
        };
        let told = silenced(Some(&status)).unwrap();
        assert_eq!(told.gateway_ip, status.gateway_ip);
        assert_eq!(told.connection.as_ref().unwrap().status.as_deref(), Some("Error"));
        assert_eq!(silenced(Some(&told)), None);
    }
}
