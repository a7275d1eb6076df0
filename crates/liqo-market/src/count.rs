//! Amounts as whole numbers of small units: bytes of what is counted in bytes, thousandths of everything else.
//!
//! Keeps true: what there is is rounded down, what is asked for is rounded up; an amount that is too large to be counted is [`MOST`].

use liqo_core::quantity::Amount;

/// Bytes in 1Gi: the unit of prices of memory and storage.
pub(crate) const GIB: u128 = 1 << 30;
/// More than can be counted.
pub(crate) const MOST: i64 = i64::MAX;
/// Billionths in a thousandth.
const MILLI: u64 = 1_000_000;

/// Whether a resource is counted in bytes.
pub(crate) fn is_bytes(name: &str) -> bool {
    name == "memory" || name == "ephemeral-storage" || name == "storage" || name.starts_with("hugepages-")
}

/// Whether a resource comes in any amount, not only in whole ones.
pub(crate) fn is_divisible(name: &str) -> bool {
    name == "cpu" || is_bytes(name)
}

/// What there is.
pub(crate) fn there(name: &str, amount: Amount) -> i64 {
    count(name, amount, |rest, small| rest / small)
}

/// What is asked for.
pub(crate) fn asked(name: &str, amount: Amount) -> i64 {
    count(name, amount, u64::div_ceil)
}

fn count(name: &str, amount: Amount, round: impl Fn(u64, u64) -> u64) -> i64 {
    let (each, small) = if is_bytes(name) { (1, 1000 * MILLI) } else { (1000, MILLI) };
    let amount = amount.at_least_zero();
    let whole = amount.share(100, Amount::whole(1));
    let rest = round((amount - whole).nanos(), small);
    i64::try_from(whole.units().saturating_mul(each).saturating_add(rest)).unwrap_or(MOST)
}

/// So many small units of a resource.
pub(crate) fn amount(name: &str, count: i64) -> Amount {
    if is_bytes(name) { Amount::whole(count) } else { Amount::milli(count) }
}

/// What so many small units cost in an hour, in billionths, at so many billionths for 1 (or for 1Gi).
pub(crate) fn cost(is_bytes: bool, count: i64, price: u64) -> u64 {
    let product = u128::from(price) * u128::from(count.unsigned_abs());
    // 64 bits are enough for all but absurd prices, and several times faster.
    let cost = match u64::try_from(product) {
        Ok(product) if is_bytes => u128::from(product >> 30),
        Ok(product) => u128::from(product / 1000),
        Err(_) => product / if is_bytes { GIB } else { 1000 },
    };
    u64::try_from(cost).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_counted_against_whoever_has_too_little() {
        for (name, text, has, wants) in [
            ("cpu", "2", 2000, 2000),
            ("cpu", "1500u", 1, 2),
            ("memory", "1Gi", 1 << 30, 1 << 30),
            ("memory", "1500m", 1, 2),
            ("cpu", "-1", 0, 0),
            ("memory", "64Gi", 64 << 30, 64 << 30),
        ] {
            let amount = Amount::parse(text).unwrap();
            assert_eq!((there(name, amount), asked(name, amount)), (has, wants), "{text} of {name}");
        }
        assert_eq!(there("a/b", Amount::parse("9e15").unwrap()), 9_000_000_000_000_000_000);
        assert_eq!(there("a/b", Amount::parse("9e18").unwrap()), MOST);
        assert_eq!(amount("cpu", 1500).quantity().0, "1500m");
        assert_eq!(amount("memory", 1 << 30).quantity().0, (1_i64 << 30).to_string());
    }

    #[test]
    fn costs_are_exact_and_do_not_run_over() {
        assert_eq!(cost(false, 500, 30_000_000), 15_000_000);
        assert_eq!(cost(true, 512 << 20, 4_000_000), 2_000_000);
        assert_eq!(cost(false, MOST, u64::MAX), u64::MAX);
        assert_eq!(cost(true, 64 << 40, 1_000_000_000), 65_536_000_000_000);
    }
}
