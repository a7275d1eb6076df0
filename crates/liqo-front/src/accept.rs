//! Content negotiation (RFC 9110, 12.5.1): pages for people, JSON for programs.

use http::{HeaderMap, header::ACCEPT};

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `text/html`.
    Html,
    /// `application/json`.
    Json,
}

/// The form the caller prefers among those there are, the first of which wins a tie and is given to who says nothing;
/// `None` when the caller accepts none of them.
pub fn preferred(headers: &HeaderMap, there: &[Form]) -> Option<Form> {
    let mut texts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
    if texts.peek().is_none() {
        return there.first().copied();
    }
    let ranges: Vec<_> = texts.flat_map(|text| text.split(',')).filter_map(range).collect();
    let rated = there.iter().map(|form| (*form, quality(&ranges, *form)));
    // The last of equals is the maximum, the first is wanted.
    let best = rated.rev().max_by(|(_, a), (_, b)| a.cmp(b))?;
    (best.1 > 0).then_some(best.0)
}

/// A media range and its quality in thousandths.
fn range(text: &str) -> Option<(String, u16)> {
    let mut parts = text.split(';').map(str::trim);
    let kind = parts.next().filter(|kind| kind.contains('/'))?.to_ascii_lowercase();
    let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let thousandths = match quality {
        None => 1000.0,
        Some(text) => text.parse::<f32>().ok().filter(|value| (0.0..=1.0).contains(value))? * 1000.0,
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1000")]
    Some((kind, thousandths.round() as u16))
}

/// The quality that the most specific range gives the form; 0 without one.
fn quality(ranges: &[(String, u16)], form: Form) -> u16 {
    let names = match form {
        Form::Html => ["text/html", "text/*", "*/*"],
        Form::Json => ["application/json", "application/*", "*/*"],
    };
    let given = |name: &str| ranges.iter().find(|(kind, _)| kind == name).map(|(_, quality)| *quality);
    names.into_iter().find_map(given).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_form_is_chosen() {
        use Form::{Html, Json};
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (accept, there, wanted) in [
            (Some(browser), [Json, Html], Some(Html)),
            (Some("*/*"), [Json, Html], Some(Json)),
            (Some("*/*"), [Html, Json], Some(Html)),
            (None, [Html, Json], Some(Html)),
            (Some("application/json"), [Html, Json], Some(Json)),
            (Some("application/json;q=0.5, text/html;q=0.4"), [Html, Json], Some(Json)),
            (Some("text/html;q=0, */*"), [Html, Json], Some(Json)),
            (Some("application/*;q=0.2"), [Html, Json], Some(Json)),
            (Some("image/png"), [Html, Json], None),
            (Some("nonsense"), [Html, Json], None),
            (Some("text/html;q=9"), [Html, Json], None),
        ] {
            let headers = accept.map(|text| (ACCEPT, text.parse().unwrap())).into_iter().collect();
            assert_eq!(preferred(&headers, &there), wanted, "{accept:?} of {there:?}");
        }
    }

    /// What is preferred is there, and accepting everything besides takes nothing away.
    #[test]
    fn fuzz_accept() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "accept", |bytes| {
            let Ok(value) = http::HeaderValue::from_bytes(bytes) else { return };
            let headers = HeaderMap::from_iter([(ACCEPT, value)]);
            let json = preferred(&headers, &[Form::Json]);
            assert!(json.is_none_or(|form| form == Form::Json));
            let one = preferred(&headers, &[Form::Json, Form::Html]);
            assert_eq!(one.is_none(), json.is_none() && preferred(&headers, &[Form::Html]).is_none());
        });
    }
}
