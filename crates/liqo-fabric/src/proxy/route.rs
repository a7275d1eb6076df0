//! Where a target leads: decided from its text and from the addresses of the authentication service.

use std::net::{IpAddr, SocketAddr};

use http::Uri;

/// The two ends there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Destination {
    ApiServer,
    AuthService,
}

impl Destination {
    /// As people say it.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::ApiServer => "the API server",
            Self::AuthService => "the authentication service",
        }
    }
}

/// Where the ends are.
#[derive(Debug)]
pub(super) struct Routes {
    pub(super) api_server: (String, u16),
    pub(super) auth: (String, u16),
}

impl Routes {
    /// Host and port of an end.
    pub(super) fn end(&self, destination: Destination) -> &(String, u16) {
        match destination {
            Destination::ApiServer => &self.api_server,
            Destination::AuthService => &self.auth,
        }
    }

    /// Whether a target with this port can be the authentication service at all.
    pub(super) fn may_be_auth(&self, port: u16) -> bool {
        self.auth.1 == port
    }

    /// Where a target leads; `auth` are the addresses of the authentication service.
    ///
    /// The API server has many names, and peers use the one its own cluster told them; so everything that is not
    /// known to be something else leads to it.
    ///
    /// # Errors
    /// A sentence for a target inside this cluster that is neither of the two.
    pub(super) fn lead(&self, host: &str, port: u16, auth: &[SocketAddr]) -> Result<Destination, String> {
        let service = in_cluster(&self.auth.0);
        let name = in_cluster(host);
        if name.is_some() && name == service || host == first_label(&self.auth.0) {
            if port != self.auth.1 {
                return Err(format!("the authentication service listens on port {}, not on {port}", self.auth.1));
            }
            return Ok(Destination::AuthService);
        }
        let address = host.parse::<IpAddr>().ok();
        if address.is_some_and(|address| auth.contains(&SocketAddr::new(address, port))) {
            return Ok(Destination::AuthService);
        }
        match name {
            Some((name, namespace)) if (name, namespace) != ("kubernetes", "default") => Err(format!(
                "service {namespace}/{name} cannot be reached from here: this proxy leads to the API server and to \
                 the authentication service of its cluster only"
            )),
            _ => Ok(Destination::ApiServer),
        }
    }
}

/// Name and namespace of a Service in the names that cluster DNS gives it (`x.y.svc`, `x.y.svc.cluster.local`).
fn in_cluster(host: &str) -> Option<(&str, &str)> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let mut labels = host.split('.');
    let (name, namespace) = (labels.next()?, labels.next()?);
    (labels.next() == Some("svc")).then_some((name, namespace))
}

fn first_label(host: &str) -> &str {
    host.split('.').next().unwrap_or_default()
}

/// Host and port of a CONNECT request (RFC 9110, 9.3.6); brackets around an IPv6 address are taken off.
pub(super) fn target(uri: &Uri) -> Option<(String, u16)> {
    let authority = uri.authority()?;
    if authority.as_str().contains('@') {
        return None;
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let port = authority.port_u16().filter(|port| *port != 0)?;
    (!host.is_empty()).then_some((host, port))
}

/// A flag of the form `HOST:PORT`.
pub(super) fn service(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("{text:?} must look like liqo-auth.liqo.svc:443");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    match port.parse() {
        Ok(port) if port != 0 && !host.is_empty() => Ok((host.to_owned(), port)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    proptest! {
        /// Whatever a target looks like, only the names and addresses of the authentication service lead to it.
        #[test]
        fn fuzz_targets(text in "\\PC{0,60}|[a-z.@:0-9\\[\\]]{0,40}|[a-z]{1,9}(\\.[a-z]{1,9}){0,4}:[0-9]{1,5}") {
            let Some((host, port)) = text.parse::<Uri>().ok().as_ref().and_then(target) else { return Ok(()) };
            prop_assert!(port != 0 && !host.is_empty() && !host.contains('@'));
            if lead(&host, port) == Ok(Destination::AuthService) {
                prop_assert!(host == "10.96.7.7" || host.split('.').next() == Some("liqo-auth"), "{}", host);
                prop_assert_eq!(port, 443);
            }
        }
    }

    #[test]
    fn fuzz_recorded_targets() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "connect_target", |bytes| {
            let Some((host, port)) = Uri::try_from(bytes).ok().as_ref().and_then(target) else { return };
            if lead(&host, port) == Ok(Destination::AuthService) {
                assert!(host == "10.96.7.7" || host.split('.').next() == Some("liqo-auth"), "{host}");
            }
        });
    }

    fn lead(host: &str, port: u16) -> Result<Destination, String> {
        let routes = Routes { api_server: ("10.96.0.1".into(), 443), auth: ("liqo-auth.liqo.svc".into(), 443) };
        routes.lead(host, port, &["10.96.7.7:443".parse().unwrap()])
    }

    #[test]
    fn whatever_a_peer_calls_the_api_server_leads_there() {
        for (host, port) in [
            ("172.30.0.12", 6443),
            ("fd00::1", 6443),
            ("kubernetes.default.svc", 443),
            ("kubernetes.default.svc.cluster.local", 443),
            ("api.rome.example.org", 443),
            ("10.96.7.7", 6443),
            ("kubernetes", 443),
        ] {
            assert_eq!(lead(host, port), Ok(Destination::ApiServer), "{host}:{port}");
        }
    }

    #[test]
    fn the_authentication_service_has_its_names_and_its_address() {
        for host in ["liqo-auth", "liqo-auth.liqo.svc", "liqo-auth.liqo.svc.cluster.local.", "10.96.7.7"] {
            assert_eq!(lead(host, 443), Ok(Destination::AuthService), "{host}");
        }
        assert!(lead("liqo-auth.liqo.svc", 5000).unwrap_err().contains("listens on port 443, not on 5000"));
    }

    #[test]
    fn other_services_are_refused_in_a_sentence() {
        for (host, told) in [
            ("liqo-network-manager.liqo.svc", "service liqo/liqo-network-manager cannot be reached"),
            ("liqo-auth.other.svc.cluster.local", "service other/liqo-auth cannot be reached"),
            ("kubernetes.other.svc", "service other/kubernetes cannot be reached"),
        ] {
            assert!(lead(host, 443).unwrap_err().contains(told), "{host}");
        }
    }

    #[test]
    fn a_target_is_a_host_and_a_port() {
        let parse = |text: &str| text.parse::<Uri>().ok().as_ref().and_then(target);
        assert_eq!(parse("172.30.0.12:6443"), Some(("172.30.0.12".into(), 6443)));
        assert_eq!(parse("[fd00::1]:6443"), Some(("fd00::1".into(), 6443)));
        assert_eq!(parse("API.Rome.example:443"), Some(("api.rome.example".into(), 443)));
        for bad in ["172.30.0.12", "172.30.0.12:0", "172.30.0.12:65536", "user@172.30.0.12:443", "/path", ":443"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_service_flag_needs_a_port() {
        assert_eq!(service("liqo-auth.liqo.svc:443"), Ok(("liqo-auth.liqo.svc".into(), 443)));
        for bad in ["liqo-auth", "liqo-auth:0", ":443", "a:b"] {
            assert!(service(bad).is_err(), "{bad}");
        }
    }
}
