//! Quantities of Kubernetes as numbers, to compare them and to sum them up.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The quantity in units of one nano, rounded up; `None` when it is none.
pub(crate) fn nanos(quantity: &Quantity) -> Option<i128> {
    let text = quantity.0.trim();
    let digits = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (numerator, denominator) = scale(suffix)?;
    let (sign, number) = match number.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let fraction = &fraction[..fraction.len().min(15)];
    let value: i128 = format!("{whole}{fraction}").parse().ok()?;
    let below = denominator.checked_mul(10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?)?;
    let above = value.checked_mul(numerator)?;
    Some(sign * above.div_euclid(below) + if above.rem_euclid(below) == 0 { 0 } else { sign })
}

/// The quantity in whole units, rounded up.
pub(crate) fn units(quantity: &Quantity) -> Option<i128> {
    let nanos = nanos(quantity)?;
    Some(nanos.div_euclid(NANO) + i128::from(nanos.rem_euclid(NANO) != 0))
}

/// Nanos in one.
const NANO: i128 = 1_000_000_000;

/// How many nanos one of a suffix is, as a fraction.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    Some(match suffix {
        "n" => (1, 1),
        "u" => (1_000, 1),
        "m" => (1_000_000, 1),
        "" => (NANO, 1),
        "k" => (NANO * 1_000, 1),
        "M" => (NANO * 1_000_000, 1),
        "G" => (NANO * 1_000_000_000, 1),
        "T" => (NANO * 1_000_000_000_000, 1),
        "P" => (NANO * 1_000_000_000_000_000, 1),
        "E" => (NANO * 1_000_000_000_000_000_000, 1),
        "Ki" => (NANO << 10, 1),
        "Mi" => (NANO << 20, 1),
        "Gi" => (NANO << 30, 1),
        "Ti" => (NANO << 40, 1),
        "Pi" => (NANO << 50, 1),
        "Ei" => (NANO << 60, 1),
        exponent => {
            let exponent: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs()).filter(|power| *power <= NANO * NANO)?;
            if exponent < 0 { (NANO, power) } else { (NANO * power, 1) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_numbers() {
        let cases = [
            ("600m", Some(600_000_000)),
            ("0", Some(0)),
            ("1.5", Some(1_500_000_000)),
            ("123n", Some(123)),
            ("1Ki", Some(1024 * NANO)),
            ("7551M", Some(7_551_000_000 * NANO)),
            ("7551000000", Some(7_551_000_000 * NANO)),
            ("1E", Some(NANO * 1_000_000_000_000_000_000)),
            ("2e3", Some(2_000 * NANO)),
            ("-1", Some(-NANO)),
            ("0.5n", Some(1)),
            ("", None),
            ("abc", None),
            ("1Xi", None),
        ];
        for (text, expected) in cases {
            assert_eq!(nanos(&Quantity(text.into())), expected, "{text}");
        }
        assert_eq!(units(&Quantity("1500m".into())), Some(2));
    }
}
