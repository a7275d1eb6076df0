//! The little arithmetic on IPv4 networks that a test bed needs.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};

/// First address and prefix length of `10.0.0.0/16`.
pub fn parse(cidr: &str) -> Result<(u32, u8)> {
    let (address, length) = cidr.split_once('/').with_context(|| format!("{cidr} is not a CIDR"))?;
    let address: Ipv4Addr = address.parse().with_context(|| format!("{cidr} has no IPv4 address"))?;
    let length: u8 = length.parse().with_context(|| format!("{cidr} has no prefix length"))?;
    ensure!((1..=32).contains(&length), "{cidr}: prefix length must be 1 to 32");
    Ok((address.to_bits() & mask(length), length))
}

/// The `n`th address of a network.
pub fn nth(cidr: &str, n: u32) -> Result<Ipv4Addr> {
    let (first, _) = parse(cidr)?;
    Ok(Ipv4Addr::from_bits(first + n))
}

/// The network that lies in the upper half of `all` as `one` does in the lower half.
pub fn upper_half(all: &str, one: &str) -> Result<String> {
    let ((_, all), (first, length)) = (parse(all)?, parse(one)?);
    Ok(format!("{}/{length}", Ipv4Addr::from_bits(first | 1 << (31 - all))))
}

/// Whether two networks share an address.
pub fn overlap(one: &str, other: &str) -> Result<bool> {
    let ((a, x), (b, y)) = (parse(one)?, parse(other)?);
    let shorter = mask(x.min(y));
    Ok(a & shorter == b & shorter)
}

fn mask(length: u8) -> u32 {
    u32::MAX << (32 - length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_overlap_when_one_holds_the_other() {
        assert!(overlap("10.0.0.0/8", "10.20.0.0/16").unwrap());
        assert!(!overlap("10.10.0.0/16", "10.20.0.0/16").unwrap());
        assert_eq!(nth("10.96.0.0/12", 10).unwrap().to_string(), "10.96.0.10");
        assert!(parse("10.0.0.0").is_err());
    }
}
