//! JSON values as block YAML that people and `kubectl` read.
//!
//! Keeps true: the text read back is the value, and equal values give equal text.

use serde_json::{Map, Value};

/// The value as a YAML document, ending in a line feed.
pub fn document(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => object(&mut out, map, 0, false),
        Value::Array(items) if !items.is_empty() => array(&mut out, items, 0),
        other => {
            out.push_str(&inline(other));
            out.push('\n');
        }
    }
    out
}

/// Writes the entries; `hanging` when the first one follows a `- ` on the same line.
fn object(out: &mut String, map: &Map<String, Value>, depth: usize, hanging: bool) {
    for (index, (key, value)) in map.iter().enumerate() {
        if index > 0 || !hanging {
            out.push_str(&"  ".repeat(depth));
        }
        out.push_str(&text(key));
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                object(out, inner, depth + 1, false);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                array(out, items, depth);
            }
            other => {
                out.push(' ');
                out.push_str(&inline(other));
                out.push('\n');
            }
        }
    }
}

fn array(out: &mut String, items: &[Value], depth: usize) {
    for item in items {
        out.push_str(&"  ".repeat(depth));
        out.push_str("- ");
        match item {
            Value::Object(inner) if !inner.is_empty() => object(out, inner, depth + 1, true),
            // A list in a list does not occur in what is generated; JSON is YAML too.
            other => {
                out.push_str(&inline(other));
                out.push('\n');
            }
        }
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(string) => text(string),
        other => other.to_string(),
    }
}

/// Plain when no reader can take it for anything but this text, else quoted as in JSON.
fn text(string: &str) -> String {
    if plain(string) { string.to_owned() } else { Value::from(string).to_string() }
}

fn plain(string: &str) -> bool {
    let harmless = |c: char| c.is_ascii_alphanumeric() || " -_./,()".contains(c);
    let word = string.to_ascii_lowercase();
    string.starts_with(|c: char| c.is_ascii_alphabetic())
        && !string.ends_with(' ')
        && string.chars().all(harmless)
        && !["y", "n", "yes", "no", "on", "off", "true", "false", "null", "inf", "nan"].contains(&word.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::document;

    #[test]
    fn what_is_written_is_read_back() {
        let value = json!({
            "plain": "a word", "no": "No", "number": "1.0", "colon": "a: b", "lines": "a\nb \"c\" \\",
            "empty": {}, "none": [], "deep": {"list": [{"a": 1, "b": [true, null]}, "x", {}], "x": {"y": -1.5}},
        });
        let read: serde_json::Value = serde_saphyr::from_str(&document(&value)).expect("valid YAML");
        assert_eq!(read, value);
    }

    #[test]
    fn it_reads_well() {
        let value = json!({"rules": [{"apiGroups": [""], "verbs": ["get", "list"]}]});
        assert_eq!(document(&value), "rules:\n- apiGroups:\n  - \"\"\n  verbs:\n  - get\n  - list\n");
    }
}
