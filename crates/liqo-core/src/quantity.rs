//! Amounts of resources, exact.
//!
//! Kubernetes writes them as text (`600m`, `1Gi`, `2e3`). Here they are billionths, so that sums and
//! differences lose nothing. No amount that is read is larger than 2^63-1, as for Kubernetes, and no sum
//! runs over: at the end of what can be counted it stays there.

use std::ops::{Add, AddAssign, Sub};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Billionths in one.
const ONE: i128 = 1_000_000_000;
/// Billionths in a thousandth.
const MILLI: i128 = 1_000_000;
/// The largest amount there is, 2^63-1, in billionths.
const LARGEST: i128 = i64::MAX as i128 * ONE;

/// An exact amount of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(i128);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// So many whole ones.
    pub fn whole(count: i64) -> Self {
        Self(i128::from(count) * ONE)
    }

    /// So many thousandths.
    pub fn milli(count: i64) -> Self {
        Self(i128::from(count) * MILLI)
    }

    /// Reads the text of a quantity as Kubernetes does: what is less than a billionth is rounded up, away from
    /// nothing; what is more than 2^63-1 is 2^63-1. `None` when it is none, or has more digits than can be
    /// counted exactly (38).
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (digits, suffix) = text.split_at(end);
        let (integer, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if (integer.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let (scale, exponent) = scale_of(suffix)?;
        let value = scaled(integer, fraction, scale, exponent)?;
        Some(Self(if negative { -value } else { value }))
    }

    /// Reads a quantity; what cannot be read is nothing.
    pub fn of(quantity: &Quantity) -> Self {
        Self::parse(&quantity.0).unwrap_or_default()
    }

    /// The amount, or zero if the amount is negative.
    #[must_use]
    pub fn at_least_zero(self) -> Self {
        self.max(Self::ZERO)
    }

    /// Whether it is more than nothing.
    pub fn is_positive(self) -> bool {
        self.0 > 0
    }

    /// `percent` of it, cut down to a whole multiple of `unit`.
    #[must_use]
    pub fn share(self, percent: u8, unit: Self) -> Self {
        let unit = unit.0.max(1);
        Self(self.0.saturating_mul(i128::from(percent)) / 100 / unit * unit)
    }

    /// In whole ones, rounded up; nothing if it is negative.
    pub fn units(self) -> u64 {
        u64::try_from(ceil_div(self.0.max(0), ONE)).unwrap_or(u64::MAX)
    }

    /// In billionths; nothing if it is negative.
    pub fn nanos(self) -> u64 {
        u64::try_from(self.0.max(0)).unwrap_or(u64::MAX)
    }

    /// How far two amounts are apart.
    #[must_use]
    pub fn distance(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0).saturating_abs())
    }

    /// As Kubernetes writes decimal amounts: whole numbers where possible, else thousandths and less.
    pub fn quantity(self) -> Quantity {
        let (step, suffix) = match self.0 {
            value if value % ONE == 0 => (ONE, ""),
            value if value % MILLI == 0 => (MILLI, "m"),
            value if value % 1000 == 0 => (1000, "u"),
            _ => (1, "n"),
        };
        Quantity(format!("{}{suffix}", self.0 / step))
    }
}

fn ceil_div(value: i128, by: i128) -> i128 {
    value / by + i128::from(value % by != 0)
}

/// Billionths of `integer.fraction`, times `scale`, times ten to the power of `exponent`.
fn scaled(integer: &str, fraction: &str, scale: i128, exponent: i32) -> Option<i128> {
    let all = format!("{integer}{fraction}");
    let digits = all.trim_end_matches('0');
    let places = i32::try_from(fraction.len()).ok()?.checked_sub(i32::try_from(all.len() - digits.len()).ok()?)?;
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    let mantissa: i128 = digits.parse().ok()?;
    // From ones to billionths, less the decimal places of the mantissa, up by what the suffix says.
    let shift = exponent.checked_add(9)?.checked_sub(places)?;
    let Some(value) = mantissa.checked_mul(scale) else {
        // More than 10^38: still too much when ten digits of it are behind the point.
        return (shift >= -10).then_some(LARGEST);
    };
    let power = 10_i128.checked_pow(shift.unsigned_abs());
    let value = match (shift >= 0, power) {
        (true, power) => power.and_then(|power| value.checked_mul(power)).unwrap_or(LARGEST),
        (false, Some(power)) => ceil_div(value, power),
        (false, None) => 1,
    };
    Some(value.min(LARGEST))
}

/// A factor and a power of ten.
fn scale_of(suffix: &str) -> Option<(i128, i32)> {
    let binary = |power: u32| Some((1_i128 << (10 * power), 0));
    match suffix {
        "" => Some((1, 0)),
        "n" => Some((1, -9)),
        "u" => Some((1, -6)),
        "m" => Some((1, -3)),
        "k" => Some((1, 3)),
        "M" => Some((1, 6)),
        "G" => Some((1, 9)),
        "T" => Some((1, 12)),
        "P" => Some((1, 15)),
        "E" => Some((1, 18)),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            Some((1, exponent))
        }
    }
}

impl Add for Amount {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Amount {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_an_amount_is_read() {
        for (text, billionths) in [
            ("0", 0),
            ("1", ONE),
            ("600m", 600 * MILLI),
            ("0.6", 600 * MILLI),
            (".5", ONE / 2),
            ("1.", ONE),
            ("-2", -2 * ONE),
            ("+2", 2 * ONE),
            ("7551M", 7_551_000_000 * ONE),
            ("7551000000", 7_551_000_000 * ONE),
            ("1.5Gi", 1_610_612_736 * ONE),
            ("8010Ki", 8_202_240 * ONE),
            ("2e3", 2000 * ONE),
            ("2E-3", 2 * MILLI),
            ("1E", 1_000_000_000_000_000_000 * ONE),
            ("100n", 100),
            ("0.1n", 1),
            ("3u", 3000),
        ] {
            assert_eq!(Amount::parse(text), Some(Amount(billionths)), "{text}");
        }
        for bad in ["", "-", ".", "1.2.3", "1Q", "Gi", "1 Gi", "1e99999999999", "0x1"] {
            assert_eq!(Amount::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn amounts_are_written_as_kubernetes_writes_them() {
        for text in ["0", "2", "600m", "80354295808", "7551000000", "5u", "7n", "-1500m"] {
            assert_eq!(Amount::parse(text).unwrap().quantity().0, text);
        }
        assert_eq!(Amount::parse("2000m").unwrap().quantity().0, "2");
    }

    #[test]
    fn amounts_are_counted_in_whole_ones_and_billionths() {
        assert_eq!(Amount::parse("1500m").map(Amount::units), Some(2));
        assert_eq!(Amount::parse("1500n").map(Amount::nanos), Some(1500));
        assert_eq!(Amount::parse("-1").map(|amount| (amount.units(), amount.nanos())), Some((0, 0)));
    }

    #[test]
    fn a_share_is_cut_down_to_its_unit() {
        let share = |text, percent, unit| Amount::parse(text).unwrap().share(percent, unit).quantity().0;
        assert_eq!(share("2", 30, Amount::milli(1)), "600m");
        assert_eq!(share("1", 90, Amount::milli(1)), "900m");
        assert_eq!(share("250", 30, Amount::whole(1)), "75");
        assert_eq!(share("1", 50, Amount::whole(1)), "0");
        assert_eq!(share("25171996Ki", 30, Amount::whole(1_000_000)), "7732000000");
    }

    /// Values that the parser of Kubernetes returns, recorded from its own code.
    #[test]
    fn amounts_are_what_kubernetes_reads() {
        let recorded = include_str!("../tests/recorded/quantities.tsv");
        for line in recorded.lines().filter(|line| !line.starts_with('#')) {
            let (text, wanted) = line.split_once('\t').unwrap();
            // Kubernetes keeps decimal amounts beyond its largest number, and answers with that number when asked.
            let wanted = match wanted.strip_prefix('-').unwrap_or(wanted).len() {
                ..=30 => wanted.parse().ok(),
                _ => Some(if wanted.starts_with('-') { -LARGEST } else { LARGEST }),
            };
            let wanted = wanted.filter(|_| text != "Gi").map(|it: i128| it.clamp(-LARGEST, LARGEST));
            assert_eq!(Amount::parse(text).map(|it| it.0), wanted, "{text:?}");
        }
    }

    #[test]
    fn no_sum_runs_over() {
        let most = Amount(i128::MAX);
        assert_eq!(most + most, most);
        assert_eq!(Amount(i128::MIN) - most, Amount(i128::MIN));
        assert_eq!(most.share(50, Amount::whole(1)).distance(Amount(-1)).units(), u64::MAX);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[-+]?[0-9.]{0,45}[eEinumkKMGTP]{0,2}[-+]?[0-9]{0,12}", more in ".*") {
            for text in [&text, &more] {
                let _ = Amount::parse(text).map(|amount| amount.share(100, Amount::milli(1)).quantity());
            }
        }

        #[test]
        fn what_is_written_is_read(billionths in -LARGEST..=LARGEST) {
            let written = Amount(billionths).quantity().0;
            proptest::prop_assert_eq!(Amount::parse(&written), Some(Amount(billionths)));
        }

        #[test]
        fn a_suffix_is_its_power(whole in 0_i64..1 << 20, step in 1_usize..=4) {
            let suffixes = ["Ki", "Mi", "Gi", "Ti"];
            let wanted = Amount::whole(whole << (10 * step));
            proptest::prop_assert_eq!(Amount::parse(&format!("{whole}{}", suffixes[step - 1])), Some(wanted));
            let decimal = format!("{whole}e{}", 3 * step);
            let spelled = format!("{whole}{}", ["k", "M", "G", "T"][step - 1]);
            proptest::prop_assert_eq!(Amount::parse(&decimal), Amount::parse(&spelled));
        }
    }

    #[test]
    fn fuzz_quantities() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "quantity", |bytes| {
            let Some(amount) = Amount::parse(&String::from_utf8_lossy(bytes)) else { return };
            assert!(amount.0.abs() <= LARGEST);
            assert_eq!(Amount::parse(&amount.quantity().0), Some(amount), "what is written is read as it was");
        });
    }
}
