//! Node selectors, with the meaning the Kubernetes scheduler gives them.
//!
//! Terms are alternatives, the requirements of a term hold together, a term without requirements matches
//! nothing. As in the scheduler, a term that cannot be read does not spoil another one that matches.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};

/// What is wrong with a selector: where, which value, what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSelector(String);

/// Operators of expressions.
const OPERATORS: &str = r#""DoesNotExist", "Exists", "Gt", "In", "Lt", "NotIn""#;

/// Whether a node is selected. No selector, or one without terms, selects every node.
///
/// # Errors
/// When no term matches and at least one cannot be read.
pub fn matches(
    selector: Option<&NodeSelector>,
    node: &str,
    labels: &BTreeMap<String, String>,
) -> Result<bool, InvalidSelector> {
    let terms = selector.map(|selector| selector.node_selector_terms.as_slice()).unwrap_or_default();
    if terms.is_empty() {
        return Ok(true);
    }
    let mut invalid = None;
    for (index, term) in terms.iter().enumerate() {
        match term_matches(term, node, labels) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(why) => {
                invalid.get_or_insert_with(|| InvalidSelector(format!("nodeSelectorTerms[{index}].{why}")));
            }
        }
    }
    invalid.map_or(Ok(false), Err)
}

/// What is wrong with a selector, whichever node it is asked about.
pub fn error(selector: &NodeSelector) -> Option<InvalidSelector> {
    let none = BTreeMap::new();
    let first = |(index, term)| {
        let wrong = term_matches(term, "", &none).err();
        wrong.map(|why| InvalidSelector(format!("nodeSelectorTerms[{index}].{why}")))
    };
    selector.node_selector_terms.iter().enumerate().find_map(first)
}

/// Terms that hold where one of `left` and one of `right` hold. Fields (the pin of a `DaemonSet` pod) are
/// carried along; what matched nothing still matches nothing.
pub fn both(left: &[NodeSelectorTerm], right: &[NodeSelectorTerm]) -> Vec<NodeSelectorTerm> {
    let pairs = left.iter().flat_map(|one| right.iter().map(move |other| (one, other)));
    let terms: Vec<_> =
        pairs.filter(|(one, other)| !is_empty(one) && !is_empty(other)).map(|(one, other)| join(one, other)).collect();
    // Kubernetes wants at least one term; an empty one says "no node", as these terms did.
    if terms.is_empty() { vec![NodeSelectorTerm::default()] } else { terms }
}

fn join(one: &NodeSelectorTerm, other: &NodeSelectorTerm) -> NodeSelectorTerm {
    NodeSelectorTerm {
        match_expressions: chain(&one.match_expressions, &other.match_expressions),
        match_fields: chain(&one.match_fields, &other.match_fields),
    }
}

type Requirements = Option<Vec<NodeSelectorRequirement>>;

fn chain(one: &Requirements, other: &Requirements) -> Requirements {
    let mut all: Vec<NodeSelectorRequirement> = Vec::new();
    for requirement in one.iter().chain(other).flatten() {
        if !all.contains(requirement) {
            all.push(requirement.clone());
        }
    }
    (!all.is_empty()).then_some(all)
}

/// Whether a term has no requirement, and so matches nothing.
pub fn is_empty(term: &NodeSelectorTerm) -> bool {
    let none = |list: &Requirements| list.as_ref().is_none_or(Vec::is_empty);
    none(&term.match_expressions) && none(&term.match_fields)
}

fn term_matches(term: &NodeSelectorTerm, node: &str, labels: &BTreeMap<String, String>) -> Result<bool, String> {
    // Every requirement is read, so that what is wrong is told whatever the node looks like.
    let mut all = !is_empty(term);
    for (index, requirement) in term.match_expressions.iter().flatten().enumerate() {
        let holds = expression_holds(requirement, labels);
        all &= holds.map_err(|why| format!("matchExpressions[{index}].{why}"))?;
    }
    for (index, requirement) in term.match_fields.iter().flatten().enumerate() {
        let holds = field_holds(requirement, node);
        all &= holds.map_err(|why| format!("matchFields[{index}].{why}"))?;
    }
    Ok(all)
}

fn expression_holds(requirement: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> Result<bool, String> {
    let NodeSelectorRequirement { key, operator, values } = requirement;
    if let Some(why) = label_key_error(key) {
        return Err(format!("key: Invalid value: {key:?}: {why}"));
    }
    let values = values.as_deref().unwrap_or_default();
    let value = labels.get(key);
    let listed = value.is_some_and(|value| values.contains(value));
    match (operator.as_str(), values) {
        ("In" | "NotIn", []) => Err(format!("values: Invalid value: []: at least one is needed for {operator}")),
        ("In", _) => Ok(listed),
        ("NotIn", _) => Ok(!listed),
        ("Exists", []) => Ok(value.is_some()),
        ("DoesNotExist", []) => Ok(value.is_none()),
        ("Exists" | "DoesNotExist", _) => {
            Err(format!("values: Invalid value: {values:?}: must be empty for {operator}"))
        }
        ("Gt" | "Lt", [bound]) => {
            let Ok(bound) = bound.parse::<i64>() else {
                return Err(format!("values[0]: Invalid value: {bound:?}: for {operator} it must be an integer"));
            };
            let number = value.and_then(|value| value.parse::<i64>().ok());
            Ok(number.is_some_and(|number| if operator == "Gt" { number > bound } else { number < bound }))
        }
        ("Gt" | "Lt", _) => Err(format!("values: Invalid value: {values:?}: exactly one is needed for {operator}")),
        _ => Err(format!("operator: Unsupported value: {operator:?}: supported values: {OPERATORS}")),
    }
}

/// Nodes have one field to match: their name.
fn field_holds(requirement: &NodeSelectorRequirement, node: &str) -> Result<bool, String> {
    let NodeSelectorRequirement { key, operator, values } = requirement;
    if key != "metadata.name" {
        return Err(format!("key: Unsupported value: {key:?}: supported values: \"metadata.name\""));
    }
    let values = values.as_deref().unwrap_or_default();
    match (operator.as_str(), values) {
        ("In", [name]) => Ok(name == node),
        ("NotIn", [name]) => Ok(name != node),
        ("In" | "NotIn", _) => Err(format!("values: Invalid value: {values:?}: exactly one is needed")),
        _ => Err(format!("operator: Unsupported value: {operator:?}: supported values: \"In\", \"NotIn\"")),
    }
}

/// Why a text is no label key: `[prefix/]name`.
fn label_key_error(key: &str) -> Option<&'static str> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 63 || !name.chars().all(inner) {
        return Some("its name must be 1 to 63 letters, digits, '-', '_' or '.'");
    }
    if !edge(name.chars().next()) || !edge(name.chars().last()) {
        return Some("its name must start and end with a letter or a digit");
    }
    let domain = |part: &str| crate::naming::dns_label_error(part).is_none();
    let good = prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(domain));
    (!good).then_some("its prefix must be a DNS name")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(key: &str, operator: &str, values: &[&str]) -> NodeSelectorRequirement {
        NodeSelectorRequirement {
            key: key.to_owned(),
            operator: operator.to_owned(),
            values: (!values.is_empty()).then(|| values.iter().map(|&value| value.to_owned()).collect()),
        }
    }

    fn term(expressions: &[(&str, &str, &[&str])], fields: &[(&str, &str, &[&str])]) -> NodeSelectorTerm {
        let list = |all: &[(&str, &str, &[&str])]| {
            let all: Vec<_> = all.iter().map(|(key, operator, values)| requirement(key, operator, values)).collect();
            (!all.is_empty()).then_some(all)
        };
        NodeSelectorTerm { match_expressions: list(expressions), match_fields: list(fields) }
    }

    fn asked(terms: &[NodeSelectorTerm]) -> Result<bool, InvalidSelector> {
        let labels = [("zone", "eu"), ("cores", "8"), ("liqo.io/type", "virtual-node")];
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        matches(Some(&NodeSelector { node_selector_terms: terms.to_vec() }), "liqo-milan", &labels)
    }

    #[test]
    fn operators_mean_what_the_scheduler_makes_of_them() {
        for (key, operator, values, wanted) in [
            ("zone", "In", &["eu", "us"][..], true),
            ("zone", "In", &["us"], false),
            ("other", "In", &["eu"], false),
            ("zone", "NotIn", &["us"], true),
            ("zone", "NotIn", &["eu"], false),
            ("other", "NotIn", &["eu"], true),
            ("zone", "Exists", &[], true),
            ("other", "Exists", &[], false),
            ("other", "DoesNotExist", &[], true),
            ("cores", "Gt", &["4"], true),
            ("cores", "Gt", &["8"], false),
            ("cores", "Lt", &["16"], true),
            ("zone", "Lt", &["16"], false),
            ("other", "Gt", &["1"], false),
        ] {
            assert_eq!(asked(&[term(&[(key, operator, values)], &[])]), Ok(wanted), "{key} {operator} {values:?}");
        }
        assert_eq!(asked(&[term(&[], &[("metadata.name", "In", &["liqo-milan"])])]), Ok(true));
        assert_eq!(asked(&[term(&[], &[("metadata.name", "NotIn", &["liqo-milan"])])]), Ok(false));
    }

    #[test]
    fn terms_are_alternatives_and_an_empty_one_matches_nothing() {
        let (yes, no) = (term(&[("zone", "Exists", &[])], &[]), term(&[("other", "Exists", &[])], &[]));
        let half = term(&[("zone", "Exists", &[]), ("other", "Exists", &[])], &[]);
        assert_eq!(matches(None, "n", &BTreeMap::new()), Ok(true));
        assert_eq!(asked(&[]), Ok(true));
        assert_eq!(asked(&[term(&[], &[])]), Ok(false));
        assert_eq!(asked(std::slice::from_ref(&half)), Ok(false));
        assert_eq!(asked(&[half, no, yes]), Ok(true));
    }

    #[test]
    fn what_is_wrong_is_told_unless_another_term_matches() {
        for (term, part) in [
            (term(&[("zone", "Like", &["e"])], &[]), "matchExpressions[0].operator: Unsupported value: \"Like\""),
            (term(&[("zone", "In", &[])], &[]), "at least one is needed for In"),
            (term(&[("zone", "Exists", &["x"])], &[]), "must be empty for Exists"),
            (term(&[("zone", "Gt", &["x"])], &[]), "must be an integer"),
            (term(&[("zo ne", "Exists", &[])], &[]), "key: Invalid value: \"zo ne\""),
            (term(&[("-/zone", "Exists", &[])], &[]), "its prefix must be a DNS name"),
            (term(&[], &[("spec.unschedulable", "In", &["x"])]), "matchFields[0].key: Unsupported value"),
        ] {
            let text = asked(std::slice::from_ref(&term)).unwrap_err().to_string();
            assert!(text.starts_with("nodeSelectorTerms[0].") && text.contains(part), "{text}");
            assert!(error(&NodeSelector { node_selector_terms: vec![term.clone()] }).is_some());
            assert_eq!(asked(&[term, self::term(&[("zone", "Exists", &[])], &[])]), Ok(true));
        }
        assert_eq!(error(&NodeSelector::default()), None);
    }

    #[test]
    fn joined_terms_keep_every_requirement() {
        let pinned = term(&[("a", "Exists", &[])], &[("metadata.name", "In", &["n1"])]);
        let (b, c) = (term(&[("b", "Exists", &[])], &[]), term(&[("c", "Exists", &[])], &[]));
        assert_eq!(
            both(&[pinned], &[b.clone(), c]),
            [
                term(&[("a", "Exists", &[]), ("b", "Exists", &[])], &[("metadata.name", "In", &["n1"])]),
                term(&[("a", "Exists", &[]), ("c", "Exists", &[])], &[("metadata.name", "In", &["n1"])]),
            ]
        );
        let nothing = NodeSelectorTerm::default();
        assert_eq!(both(std::slice::from_ref(&nothing), std::slice::from_ref(&b)), std::slice::from_ref(&nothing));
        assert_eq!(both(&[nothing, b.clone()], std::slice::from_ref(&b)), [b]);
    }

    /// A selector is wrong whichever node it is asked about, or it has an answer.
    #[test]
    fn fuzz_selectors() {
        type Asked = (NodeSelector, BTreeMap<String, String>);
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "selector", |bytes| {
            let Ok((selector, labels)) = serde_json::from_slice::<Asked>(bytes) else { return };
            if let Err(why) = matches(Some(&selector), "liqo-milan", &labels) {
                assert_eq!(error(&selector), Some(why));
            }
        });
    }
}
