//! Metrics in the text format of Prometheus.

mod page;

/// Labels of one sample at most; kubelets write up to eight.
const LABELS: usize = 32;

pub use self::page::{Page, Space, Spaces, TooLong};

/// A sample with labels, whose names, values and time are what the format allows, each label once. Values of labels are as they are
/// written, escapes included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample<'a> {
    /// The name of the sample: the name of its family, or a name that begins with the name of the family.
    pub name: &'a str,
    /// Names and values of the labels, in their order.
    pub labels: Vec<(&'a str, &'a str)>,
    /// Value and, perhaps, time.
    pub rest: &'a str,
}

impl<'a> Sample<'a> {
    /// Reads a line; `None` where it is no sample with labels.
    pub fn read(line: &'a str) -> Option<Self> {
        let (name, mut rest) = line.split_once('{')?;
        is_name(name, ":").then_some(())?;
        let mut labels: Vec<(&str, &str)> = Vec::new();
        loop {
            rest = rest.trim_start_matches([' ', ',']);
            if let Some(rest) = rest.strip_prefix('}') {
                let rest = rest.trim();
                return is_measured(rest).then_some(Self { name, labels, rest });
            }
            let (key, value) = rest.split_once("=\"")?;
            let is_new = labels.len() < LABELS && labels.iter().all(|(known, _)| *known != key);
            (is_new && is_name(key, "")).then_some(())?;
            let (value, after) = value.split_at(end_of(value)?);
            labels.push((key, value));
            rest = after.strip_prefix('"')?;
        }
    }

    /// The value of a label.
    pub fn label(&self, wanted: &str) -> Option<&'a str> {
        self.labels.iter().find(|(key, _)| *key == wanted).map(|(_, value)| *value)
    }

    /// The value, where it is a number, and the time in milliseconds, where there is one.
    pub fn value(&self) -> (Option<f64>, Option<i64>) {
        let mut words = self.rest.split_ascii_whitespace();
        let value = words.next().and_then(|word| word.parse::<f64>().ok()).filter(|value| value.is_finite());
        (value, words.next().and_then(|word| word.parse().ok()))
    }
}

/// Whether a text is a name of a sample or of a label: letters, digits, underscores and `more`, and no digit first.
fn is_name(text: &str, more: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_' || more.contains(c);
    text.starts_with(is_letter) && text.chars().all(|c| is_letter(c) || c.is_ascii_digit())
}

/// Whether a text is a number and, perhaps, a time in milliseconds.
fn is_measured(text: &str) -> bool {
    let mut words = text.split_ascii_whitespace();
    words.next().is_some_and(|word| word.parse::<f64>().is_ok())
        && words.next().is_none_or(|word| word.parse::<i64>().is_ok())
        && words.next().is_none()
}

/// Where the value of a label ends: at the first quote that no backslash precedes.
fn end_of(value: &str) -> Option<usize> {
    let mut escaped = false;
    for (place, byte) in value.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(place),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_as_they_are_written() {
        let read = |line| Sample::read(line).map(|sample| (sample.name, sample.labels, sample.rest));
        assert_eq!(read(r#"a{b="c\"d",e="f\\", } 1 2"#), Some(("a", vec![("b", r#"c\"d"#), ("e", r"f\\")], "1 2")));
        for line in [
            "a 1",
            "",
            "# TYPE a{",
            r#"a{b="c} 1"#,
            r#"a{b=c} 1"#,
            r#"{b="c"} 1"#,
            r#"a b{c="d"} 1"#,
            r#"a{b ="c"} 1"#,
            r#"a{1="c"} 1"#,
            r#"a{:b="c"} 1"#,
            r#"a{b="c",b="d"} 1"#,
            r#"a{z} 9 #="c"} 1"#,
            r#"a{b="c"} 1 2 3"#,
            r#"a{b="c"} 1 2.5"#,
            r#"a{b="c"} # 1"#,
            r#"a{b="c"}"#,
        ] {
            assert_eq!(read(line), None, "{line}");
        }
    }

    #[test]
    fn values_are_numbers_with_or_without_a_time() {
        let value = |rest| Sample { name: "a", labels: vec![], rest }.value();
        for (rest, wanted) in [
            ("1.5 1700000000000", (Some(1.5), Some(1_700_000_000_000))),
            ("1.048576e+06", (Some(1_048_576.0), None)),
            ("NaN", (None, None)),
            ("+Inf 1", (None, Some(1))),
            ("", (None, None)),
            ("x y", (None, None)),
        ] {
            assert_eq!(value(rest), wanted, "{rest:?}");
        }
    }
}
