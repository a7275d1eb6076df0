//! How flag values are read: durations, percentages, pairs, addresses.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// A duration as Go writes it: `120s`, `10m`, `1h30m`, `500ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("invalid duration {text:?}: write a number with a unit, e.g. 120s, 10m or 1m30s");
    let mut rest = text;
    let mut seconds = 0.0;
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let unit = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            _ => return Err(wrong()),
        };
        seconds += number.parse::<f64>().map_err(|_| wrong())? * unit;
        rest = after;
    }
    if text.is_empty() { Err(wrong()) } else { Duration::try_from_secs_f64(seconds).map_err(|_| wrong()) }
}

/// A duration as Go prints it.
pub(crate) fn duration_text(duration: Duration) -> String {
    match (duration.as_secs(), duration.subsec_millis()) {
        (seconds, 0) => format!("{seconds}s"),
        (seconds, millis) => format!("{}ms", seconds * 1000 + u64::from(millis)),
    }
}

/// A percentage: 0 to 100, with or without the sign.
pub(crate) fn percentage(text: &str) -> Result<u8, String> {
    let number = text.trim_end_matches('%').parse().ok().filter(|number| *number <= 100);
    number.ok_or_else(|| format!("invalid percentage value: {text}. It has to be in range [0 - 100]"))
}

/// `k=v,k=v`.
pub(crate) fn pairs(text: &str) -> Result<BTreeMap<String, String>, String> {
    let pair = |one: &str| match one.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err(format!("invalid value {one}: write key=value")),
    };
    text.split(',').filter(|one| !one.trim().is_empty()).map(pair).collect()
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cidr {
    address: IpAddr,
    bits: u8,
}

impl Cidr {
    /// Whether `address` is one of them.
    pub(crate) fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && self.address == first(address, self.bits)
    }
}

/// The first of the addresses that share the first `bits` with this one.
fn first(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// An address and the length of its prefix; any address of the range will do.
pub(crate) fn cidr(text: &str) -> Result<Cidr, String> {
    let parse = || {
        let (address, bits) = text.split_once('/')?;
        let (address, bits) = (address.parse::<IpAddr>().ok()?, bits.parse::<u8>().ok()?);
        let longest = if address.is_ipv4() { 32 } else { 128 };
        (bits <= longest).then(|| Cidr { address: first(address, bits), bits })
    };
    parse().ok_or_else(|| format!("invalid CIDR address: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, millis) in
            [("120s", 120_000), ("10m", 600_000), ("1h30m", 5_400_000), ("1.5s", 1500), ("20ms", 20), ("0", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "m", "-1s", "1d", "1s2"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn percentages_stay_in_range() {
        assert_eq!((percentage("0"), percentage("90"), percentage("100%")), (Ok(0), Ok(90), Ok(100)));
        assert_eq!(percentage("101").unwrap_err(), "invalid percentage value: 101. It has to be in range [0 - 100]");
        assert!(percentage("-1").is_err());
    }

    #[test]
    fn pairs_need_a_key() {
        assert_eq!(pairs("a=b,c=").unwrap().len(), 2);
        assert!(pairs("a").is_err() && pairs("=b").is_err());
    }

    #[test]
    fn a_range_knows_its_addresses() {
        let range = cidr("10.244.0.0/16").unwrap();
        assert!(range.contains("10.244.3.4".parse().unwrap()));
        assert!(!range.contains("10.245.0.1".parse().unwrap()));
        assert!(cidr("0.0.0.0/0").unwrap().contains("8.8.8.8".parse().unwrap()));
        assert!(cidr("fd00::/8").unwrap().contains("fd12::1".parse().unwrap()));
        assert!(cidr("10.0.0.0/33").is_err() && cidr("10.0.0.0").is_err());
        assert_eq!(cidr("10.244.3.4/16").unwrap().to_string(), "10.244.0.0/16");
        assert!(!cidr("10.0.0.0/8").unwrap().contains("a00::1".parse().unwrap()));
    }
}
