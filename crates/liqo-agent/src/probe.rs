//! How far away providers are, measured from here: the time until a TCP connection stands.
//!
//! Keeps true: nothing is sent; only addresses outside of this cluster are tried; providers that cannot be measured are left out.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, stream};
use liqo_kube::reach::Reach;
use liqo_market_client::Listed;
use tokio::{net::TcpStream, time::Instant};

/// Providers that are measured at the same time.
const AT_ONCE: usize = 16;
/// Connections to one provider; the middle one counts.
const TRIES: usize = 3;
/// How long one connection may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Milliseconds to each provider that says where it can be measured, by cluster ID.
pub(crate) async fn measure(reach: &Reach, providers: Vec<Listed>) -> BTreeMap<String, u32> {
    let asked = providers.into_iter().filter(|one| !one.probe.is_empty());
    let measured =
        stream::iter(asked).map(|one| async move { Some((one.cluster_id, one_way(reach, &one.probe).await?)) });
    measured.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await
}

async fn one_way(reach: &Reach, probe: &str) -> Option<u32> {
    let (host, port) = probe.rsplit_once(':')?;
    let resolved = tokio::time::timeout(PATIENCE, reach.resolve(host, port.parse().ok()?)).await.ok()?;
    let address = *resolved.ok()?.first()?;
    let mut times = Vec::new();
    for _ in 0..TRIES {
        let began = Instant::now();
        tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await.ok()?.ok()?;
        times.push(began.elapsed());
    }
    middle(times)
}

/// The middle time in whole milliseconds, rounded up.
fn middle(mut times: Vec<Duration>) -> Option<u32> {
    times.sort_unstable();
    let micros = times.get(times.len() / 2)?.as_micros();
    u32::try_from(micros.div_ceil(1000)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_time_counts_rounded_up() {
        let micros = |all: &[u64]| middle(all.iter().map(|micros| Duration::from_micros(*micros)).collect());
        assert_eq!((micros(&[90_000, 1_001, 3]), micros(&[1000]), micros(&[])), (Some(2), Some(1), None));
    }

    #[tokio::test]
    async fn only_who_can_be_reached_is_measured() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap().to_string();
        let listed = |id: &str, probe: &str| Listed { cluster_id: id.into(), probe: probe.into() };
        let all = || vec![listed("a", &here), listed("b", ""), listed("c", "127.0.0.1:x"), listed("d", "nowhere")];
        let found = measure(&Reach::anywhere(), all()).await;
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a"]);
        assert!(measure(&Reach::default(), all()).await.is_empty(), "no provider is on a loopback address");
    }
}
