//! Texts of other clusters, as they are shown here.
//!
//! Keeps true: a shown text has at most [`LONGEST`] characters, each of them printable and on one line, and the name of the
//! cluster that said it stands before it. Its content is a claim of that cluster.

/// A shown text is not longer, in characters.
pub const LONGEST: usize = 768;
/// A shown method is not longer, in characters: the longest methods that are registered have 17 (RFC 4437, RFC 3253).
const LONGEST_METHOD: usize = 17;

/// A text of another cluster on one line, without characters that change how the rest is shown.
pub fn printable(text: &str) -> String {
    let shown: String = text.chars().map(|c| if is_printable(c) { c } else { ' ' }).take(LONGEST).collect();
    shown.trim().to_owned()
}

/// The name of an HTTP method for a line of the log: callers may invent methods of any length.
pub fn method(method: &http::Method) -> String {
    printable(method.as_str()).chars().take(LONGEST_METHOD).collect()
}

/// A text of a cluster, marked as its claim: `cluster "NAME" says: TEXT`.
pub fn by(cluster: &str, text: &str) -> String {
    format!("cluster {cluster:?} says: {}", printable(text))
}

/// Control characters end lines and steer terminals; the others are invisible or turn the direction of writing.
fn is_printable(c: char) -> bool {
    let is_invisible = matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    !c.is_control() && !is_invisible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_another_cluster_is_one_short_line_with_its_name() {
        let long = "é".repeat(2 * LONGEST);
        for (text, shown) in [
            ("no room", "no room"),
            (" no\n\troom\r\n", "no  room"),
            ("\u{1b}[31mred\u{7}", "[31mred"),
            ("a\u{202e}b\u{200b}c\u{feff}d\u{e0041}", "a b c d"),
            ("", ""),
            (&long, &"é".repeat(LONGEST)),
        ] {
            assert_eq!(printable(text), shown, "{text:?}");
            assert_eq!(by("milan", text), format!("cluster \"milan\" says: {shown}"), "{text:?}");
        }
    }

    #[test]
    fn an_invented_method_fills_no_line() {
        for (name, shown) in [("GET", "GET"), (&*"A".repeat(60_000), &*"A".repeat(LONGEST_METHOD))] {
            assert_eq!(method(&http::Method::from_bytes(name.as_bytes()).unwrap()), shown);
        }
    }
}
