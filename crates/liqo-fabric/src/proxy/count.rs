//! What the proxy has done, for `/metrics`.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
};

use http::StatusCode;
use ipnet::IpNet;

use super::route::Destination;

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

    /// In the Prometheus text format; `sources` are the open tunnels of each network.
    pub(super) fn text(&self, sources: &BTreeMap<IpNet, u32>) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, samples: &[(&str, i128)]| {
            let _ = writeln!(text, "# TYPE {name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        let of = |counter: &AtomicU64| i128::from(counter.load(Relaxed));
        family("liqo_proxy_tunnels_open", "gauge", &[("", i128::from(self.open.load(Relaxed)))]);
        let labels: Vec<_> = sources.keys().map(|source| format!("{{source=\"{source}\"}}")).collect();
        let open: Vec<_> =
            labels.iter().zip(sources.values()).map(|(label, count)| (label.as_str(), i128::from(*count))).collect();
        family("liqo_proxy_source_tunnels_open", "gauge", &open);
        let tunnels = [
            ("{destination=\"api-server\"}", of(&self.to_api_server)),
            ("{destination=\"auth-service\"}", of(&self.to_auth_service)),
        ];
        family("liqo_proxy_tunnels_total", "counter", &tunnels);
        let bytes =
            [("{direction=\"to_upstream\"}", of(&self.sent)), ("{direction=\"to_client\"}", of(&self.received))];
        family("liqo_proxy_bytes_total", "counter", &bytes);
        let labels = Refused::ALL.map(|why| format!("{{reason=\"{}\"}}", why.label()));
        let refused: Vec<_> =
            labels.iter().zip(&self.refused).map(|(label, count)| (label.as_str(), of(count))).collect();
        family("liqo_proxy_refused_total", "counter", &refused);
        text
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
        let text = counts.text(&[("10.42.0.0/16".parse().unwrap(), 3)].into());
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
