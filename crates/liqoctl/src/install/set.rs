//! `--set` as Helm reads it: `a.b=c,d[0]=e,f={g,h}`; a backslash takes the meaning of the next character away.

use serde_json::{Map, Value};

/// Longest list that can be addressed by an index.
const LONGEST: usize = 65_536;

/// All `--set` arguments in one tree; later ones win.
pub(crate) fn all(sets: &[String]) -> Result<Value, String> {
    let mut tree = Value::Object(Map::new());
    for set in sets {
        one(&mut tree, set).map_err(|why| format!("invalid --set {set:?}: {why}"))?;
    }
    Ok(tree)
}

fn one(tree: &mut Value, text: &str) -> Result<(), String> {
    for assignment in cut(text, ',') {
        if assignment.trim().is_empty() {
            continue;
        }
        let mut sides = cut(assignment, '=');
        if sides.len() < 2 {
            return Err(format!("{assignment:?} has no value: write key=value"));
        }
        let path = path(sides.remove(0).trim())?;
        let value = value(&sides.join("="));
        put(tree, &path, value)?;
    }
    Ok(())
}

/// Cuts at a character that is neither escaped nor inside braces.
fn cut(text: &str, at: char) -> Vec<&str> {
    let (mut depth, mut escaped) = (0_u32, false);
    let cuts = |c: char| {
        match c {
            _ if escaped => {
                escaped = false;
                return false;
            }
            '\\' => escaped = true,
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == at && depth == 0
    };
    text.split(cuts).collect()
}

enum Step {
    Key(String),
    Index(usize),
}

fn path(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    for part in cut(text, '.') {
        let (key, indices) = part.split_once('[').map_or((part, None), |(key, rest)| (key, Some(rest)));
        if key.is_empty() && (indices.is_none() || steps.is_empty()) {
            return Err(format!("{text:?} has an empty key"));
        }
        if !key.is_empty() {
            steps.push(Step::Key(plain(key)));
        }
        for index in indices.into_iter().flat_map(|rest| rest.split('[')) {
            let number =
                index.strip_suffix(']').and_then(|number| number.parse().ok()).filter(|number| *number < LONGEST);
            steps.push(Step::Index(number.ok_or_else(|| format!("{part:?} has no valid index"))?));
        }
    }
    Ok(steps)
}

fn put(tree: &mut Value, path: &[Step], value: Value) -> Result<(), String> {
    let Some((step, rest)) = path.split_first() else {
        *tree = value;
        return Ok(());
    };
    match step {
        Step::Key(key) => {
            if !tree.is_object() {
                *tree = Value::Object(Map::new());
            }
            let map = tree.as_object_mut().expect("it is one now");
            put(map.entry(key.clone()).or_insert(Value::Null), rest, value)
        }
        Step::Index(index) => {
            if !tree.is_array() {
                *tree = Value::Array(Vec::new());
            }
            let list = tree.as_array_mut().expect("it is one now");
            if list.len() <= *index {
                list.resize(index + 1, Value::Null);
            }
            put(&mut list[*index], rest, value)
        }
    }
}

fn value(text: &str) -> Value {
    if let Some(inner) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let items = cut(inner, ',');
        return items.into_iter().filter(|item| !item.is_empty() || !inner.is_empty()).map(scalar).collect();
    }
    scalar(text)
}

/// A word gets the type it looks like, as in Helm.
fn scalar(text: &str) -> Value {
    match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        "null" => Value::Null,
        "0" => 0.into(),
        // A leading zero means text: a commit, a phone number.
        _ if text.starts_with('0') => plain(text).into(),
        _ => text.parse::<i64>().map_or_else(|_| plain(text).into(), Value::from),
    }
}

/// Without the backslashes that escape.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => out.extend(characters.next()),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(text: &str) -> Value {
        all(&[text.to_owned()]).unwrap()
    }

    #[test]
    fn it_reads_what_helm_reads() {
        for (text, wanted) in [
            ("a=b", json!({"a": "b"})),
            ("a.b=c,d=1", json!({"a": {"b": "c"}, "d": 1})),
            ("a=true,b=false,c=null", json!({"a": true, "b": false, "c": null})),
            ("a={x,y},b={}", json!({"a": ["x", "y"], "b": []})),
            ("a[1].b=c", json!({"a": [null, {"b": "c"}]})),
            (r"a\.b.c=d", json!({"a.b": {"c": "d"}})),
            (r"a=b\,c", json!({"a": "b,c"})),
            ("a=b=c", json!({"a": "b=c"})),
            ("a=007", json!({"a": "007"})),
            ("a=", json!({"a": ""})),
            ("a={--x=1,--y}", json!({"a": ["--x=1", "--y"]})),
        ] {
            assert_eq!(set(text), wanted, "{text}");
        }
    }

    #[test]
    fn later_ones_win_and_nonsense_is_refused() {
        assert_eq!(all(&["a.b=1".to_owned(), "a.b=2,a.c=3".to_owned()]), Ok(json!({"a": {"b": 2, "c": 3}})));
        for text in ["a", ".a=b", "a[x]=b", "a[99999999]=b", "=b"] {
            assert!(all(&[text.to_owned()]).is_err(), "{text}");
        }
    }
}
