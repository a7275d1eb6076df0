//! How long a call is worked on.

use std::time::Duration;

use http::HeaderMap;

/// Longest time until an answer begins.
const LONGEST: Duration = Duration::from_secs(30);

/// The time until the answer must begin: what the client says in `grpc-timeout`, and [`LONGEST`] at most.
pub(super) fn of(headers: &HeaderMap) -> Duration {
    let said = headers.get("grpc-timeout").and_then(|value| value.to_str().ok());
    said.and_then(read).unwrap_or(LONGEST).min(LONGEST)
}

/// One to eight digits and a unit, as <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md> has it.
fn read(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let digits = text.strip_suffix(unit)?;
    let number: u64 = (1..=8).contains(&digits.len()).then(|| digits.parse().ok())??;
    Some(match unit {
        'H' => Duration::from_secs(number.saturating_mul(3600)),
        'M' => Duration::from_secs(number.saturating_mul(60)),
        'S' => Duration::from_secs(number),
        'm' => Duration::from_millis(number),
        'u' => Duration::from_micros(number),
        'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_wait_less_and_not_more() {
        for (text, wanted) in [
            ("100m", Duration::from_millis(100)),
            ("7S", Duration::from_secs(7)),
            ("5000000u", Duration::from_secs(5)),
            ("99999999n", Duration::from_nanos(99_999_999)),
            ("0S", Duration::ZERO),
            ("1M", LONGEST),
            ("99999999H", LONGEST),
            ("999999999n", LONGEST),
            ("", LONGEST),
            ("S", LONGEST),
            ("7", LONGEST),
            ("-7S", LONGEST),
            ("7x", LONGEST),
            ("7\u{b5}", LONGEST),
        ] {
            let value = http::HeaderValue::from_bytes(text.as_bytes()).unwrap();
            let headers = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-timeout"), value)]);
            assert_eq!(of(&headers), wanted, "{text:?}");
        }
        assert_eq!(of(&HeaderMap::new()), LONGEST);
    }
}
