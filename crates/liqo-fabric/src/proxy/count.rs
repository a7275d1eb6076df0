//! What the proxy has done, for `/metrics`.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
};

use http::StatusCode;
use ipnet::IpNet;
use liqo_kube::metrics::{Metric, Samples};

use super::route::Destination;

const OPEN: Metric = Metric::gauge("liqo_proxy_tunnels_open", "Open tunnels of in-band peers.", &[]);
const OPEN_OF: Metric =
    Metric::gauge("liqo_proxy_source_tunnels_open", "Open tunnels by the network they come from.", &["source"]);
const OPENED: Metric = Metric::counter("liqo_proxy_tunnels_total", "Tunnels opened, by destination.", &["destination"]);
const BYTES: Metric = Metric::counter("liqo_proxy_bytes_total", "Bytes passed on, by direction.", &["direction"]);
const REFUSED: Metric = Metric::counter("liqo_proxy_refused_total", "Requests refused, by reason.", &["reason"]);

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Method,
    Target,
    Forbidden,
    Full,
    Source,
    Unreachable,
}

impl Refused {
    const ALL: [Self; 6] = [Self::Method, Self::Target, Self::Forbidden, Self::Full, Self::Source, Self::Unreachable];

    /// What the client is answered with.
    pub(super) fn code(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Target => StatusCode::BAD_REQUEST,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Full => StatusCode::SERVICE_UNAVAILABLE,
            Self::Source => StatusCode::TOO_MANY_REQUESTS,
            Self::Unreachable => StatusCode::BAD_GATEWAY,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Target => "target",
            Self::Forbidden => "forbidden",
            Self::Full => "full",
            Self::Source => "source",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Tunnels and bytes, since the process began.
#[derive(Debug, Default)]
pub(super) struct Counts {
    open: AtomicI64,
    to_api_server: AtomicU64,
    to_auth_service: AtomicU64,
    refused: [AtomicU64; Refused::ALL.len()],
    sent: AtomicU64,
    received: AtomicU64,
}

impl Counts {
    pub(super) fn opened(&self, destination: Destination) {
        self.open.fetch_add(1, Relaxed);
        match destination {
            Destination::ApiServer => self.to_api_server.fetch_add(1, Relaxed),
            Destination::AuthService => self.to_auth_service.fetch_add(1, Relaxed),
        };
    }

    pub(super) fn closed(&self) {
        self.open.fetch_sub(1, Relaxed);
    }

    pub(super) fn refused(&self, why: Refused) {
        self.refused[why as usize].fetch_add(1, Relaxed);
    }

    /// Bytes passed from a client to an end.
    pub(super) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Relaxed);
    }

    /// Bytes passed from an end to a client.
    pub(super) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Relaxed);
    }

    /// All counts; `sources` are the open tunnels of each network.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in floating point")]
    pub(super) fn samples(&self, sources: &BTreeMap<IpNet, u32>, samples: &mut Samples) {
        samples.gauge(&OPEN, &[], self.open.load(Relaxed) as f64);
        samples.describe(&OPEN_OF);
        for (source, open) in sources {
            samples.gauge(&OPEN_OF, &[&source.to_string()], f64::from(*open));
        }
        for (destination, count) in [("api-server", &self.to_api_server), ("auth-service", &self.to_auth_service)] {
            samples.count(&OPENED, &[destination], count.load(Relaxed));
        }
        for (direction, count) in [("to_upstream", &self.sent), ("to_client", &self.received)] {
            samples.count(&BYTES, &[direction], count.load(Relaxed));
        }
        for (why, count) in Refused::ALL.into_iter().zip(&self.refused) {
            samples.count(&REFUSED, &[why.label()], count.load(Relaxed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_has_its_line() {
        let counts = Counts::default();
        counts.opened(Destination::ApiServer);
        counts.opened(Destination::AuthService);
        counts.closed();
        counts.refused(Refused::Forbidden);
        counts.sent(7);
        let mut samples = Samples::default();
        counts.samples(&[("10.42.0.0/16".parse().unwrap(), 3)].into(), &mut samples);
        let text = samples.text();
        for line in [
            "liqo_proxy_tunnels_open 1",
            "liqo_proxy_source_tunnels_open{source=\"10.42.0.0/16\"} 3",
            "liqo_proxy_tunnels_total{destination=\"api-server\"} 1",
            "liqo_proxy_bytes_total{direction=\"to_upstream\"} 7",
            "liqo_proxy_refused_total{reason=\"forbidden\"} 1",
            "liqo_proxy_refused_total{reason=\"full\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
