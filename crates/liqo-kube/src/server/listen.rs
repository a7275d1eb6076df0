//! Where a server listens.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use tokio::net::TcpListener;

/// An address to listen at, as flags write it: `host:port`, or `:port` for all addresses of both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// All addresses of both families, or those of IPv4 where the machine has no IPv6.
    All(u16),
    /// One address, or all addresses of its family.
    At(SocketAddr),
}

impl Listen {
    /// Begins to listen.
    ///
    /// # Errors
    /// A text with the address and why the address cannot be used.
    pub async fn bind(self) -> Result<TcpListener, String> {
        let bound = match self {
            Self::At(address) => TcpListener::bind(address).await,
            Self::All(port) => match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
                Ok(listener) => Ok(listener),
                Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
            },
        };
        bound.map_err(|error| format!("listening at {self}: {error}"))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(port) => write!(f, ":{port}"),
            Self::At(address) => address.fmt(f),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(value: &str) -> Result<Self, String> {
        let parsed = match value.strip_prefix(':') {
            Some(port) => port.parse().ok().map(Self::All),
            None => value.parse().ok().map(Self::At),
        };
        parsed.ok_or_else(|| format!("address {value:?} must look like 10.0.0.1:8080, [fd00::1]:8080 or :8080"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_flags_write_them() {
        let read = |value: &str| value.parse::<Listen>().map(|listen| listen.to_string());
        for value in [":8080", "10.0.0.1:8080", "0.0.0.0:1", "[fd00::1]:8080", "[::]:8080"] {
            assert_eq!(read(value).as_deref(), Ok(value));
        }
        for value in ["", ":", "8080", ":65536", "host:8080", "fd00::1:8080x", "10.0.0.1"] {
            assert!(read(value).unwrap_err().contains(&format!("{value:?}")), "{value}");
        }
    }

    #[tokio::test]
    async fn all_addresses_are_those_of_both_families() {
        let listener = Listen::All(0).bind().await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let six = tokio::net::TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await;
        let four = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
        let has_six = std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        assert_eq!((six.is_ok(), four.is_ok()), (has_six, true));
    }
}
