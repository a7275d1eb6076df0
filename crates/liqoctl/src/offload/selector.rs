//! Label selectors, as `kubectl -l` takes them, turned into terms of a node selector.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

/// One selector: comma separated requirements, all of which must hold.
pub(crate) fn parse(text: &str) -> Result<NodeSelectorTerm, String> {
    let requirements = split(text).map(|one| requirement(one.trim()));
    let all: Vec<_> =
        requirements.collect::<Result<_, _>>().map_err(|why| format!("invalid selector {text:?}: {why}"))?;
    Ok(NodeSelectorTerm { match_expressions: Some(all), match_fields: None })
}

/// The parts between commas that are not inside parentheses.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
}

fn requirement(text: &str) -> Result<NodeSelectorRequirement, String> {
    if text.is_empty() {
        return Err("a requirement is empty".to_owned());
    }
    if let Some(key) = text.strip_prefix('!') {
        return made(key, "DoesNotExist", None);
    }
    for (sign, operator) in [("!=", "NotIn"), ("==", "In"), ("=", "In"), (">", "Gt"), ("<", "Lt")] {
        if let Some((key, value)) = text.split_once(sign) {
            return made(key, operator, Some(vec![value.trim().to_owned()]));
        }
    }
    let mut words = text.splitn(2, char::is_whitespace);
    let (key, rest) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().trim());
    // `key in(a,b)` needs no space, `key` alone needs nothing.
    match (rest, rest.strip_prefix("notin"), rest.strip_prefix("in")) {
        ("", ..) => made(key, "Exists", None),
        (_, Some(values), _) => made(key, "NotIn", Some(list(values)?)),
        (_, None, Some(values)) => made(key, "In", Some(list(values)?)),
        _ => Err(format!(
            "{text:?} is none of key, !key, key=value, key!=value, key in (a,b), key notin (a,b), key>1, key<1"
        )),
    }
}

fn list(text: &str) -> Result<Vec<String>, String> {
    let inner = text.trim().strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    let inner = inner.ok_or_else(|| format!("values must be in parentheses, found {:?}", text.trim()))?;
    Ok(inner.split(',').map(|value| value.trim().to_owned()).collect())
}

fn made(key: &str, operator: &str, values: Option<Vec<String>>) -> Result<NodeSelectorRequirement, String> {
    let key = key.trim();
    if !is_key(key) {
        return Err(format!("{key:?} is not a valid label key"));
    }
    for value in values.iter().flatten() {
        let number = matches!(operator, "Gt" | "Lt");
        if number && value.parse::<i64>().is_err() {
            return Err(format!("{value:?} is not a whole number"));
        }
        if !number && !value.is_empty() && !is_name(value) {
            return Err(format!("{value:?} is not a valid label value"));
        }
    }
    Ok(NodeSelectorRequirement { key: key.to_owned(), operator: operator.to_owned(), values })
}

/// `[prefix/]name`.
fn is_key(key: &str) -> bool {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let part =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    is_name(name) && prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(part))
}

/// A qualified name: at most 63 letters, digits, `-`, `_` and `.`, starting and ending with a letter or digit.
fn is_name(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    name.len() <= 63 && edge(name.chars().next()) && edge(name.chars().last()) && name.chars().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<(String, String, Vec<String>)> {
        let all = parse(text).unwrap().match_expressions.unwrap();
        all.into_iter().map(|one| (one.key, one.operator, one.values.unwrap_or_default())).collect()
    }

    #[test]
    fn each_form_has_its_operator() {
        for (text, operator, values) in [
            ("a=b", "In", vec!["b"]),
            ("a == b", "In", vec!["b"]),
            ("a!=b", "NotIn", vec!["b"]),
            ("a in (x, y)", "In", vec!["x", "y"]),
            ("a in(x)", "In", vec!["x"]),
            ("a notin (x,y)", "NotIn", vec!["x", "y"]),
            ("a", "Exists", vec![]),
            ("!a", "DoesNotExist", vec![]),
            ("a>3", "Gt", vec!["3"]),
            ("a<3", "Lt", vec!["3"]),
            ("a=", "In", vec![""]),
        ] {
            let values = values.into_iter().map(str::to_owned).collect();
            assert_eq!(told(text), [("a".to_owned(), operator.to_owned(), values)], "{text}");
        }
    }

    #[test]
    fn commas_join_but_not_inside_parentheses() {
        let keys: Vec<_> =
            told("liqo.io/type=virtual-node,region in (eu,us),!gpu").into_iter().map(|one| one.0).collect();
        assert_eq!(keys, ["liqo.io/type", "region", "gpu"]);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "a,", "a in x", "a b", "=b", "a=b c", "-a=b", "A/b=c", "a>x", "a in (x"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
