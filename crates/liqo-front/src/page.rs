//! Paging by cursor: a page begins after a key, so that what comes and goes meanwhile moves nothing else.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::problem::Problem;

/// Items of a page when the caller does not say.
const USUAL: usize = 100;
/// Most items of a page.
const MOST: usize = 500;
/// Longest cursor, bytes.
const LONGEST: usize = 1024;

/// The part of a list that a caller asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Most items.
    pub limit: usize,
    /// Only items with greater keys; empty: from the beginning.
    pub after: String,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items, in the order of their keys.
    pub items: Vec<T>,
    /// Value of the parameter `after` for the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Namespaces in which the caller may see the items; absent when the caller may see all of them.
    #[serde(rename = "onlyIn", skip_serializing_if = "Option::is_none")]
    pub only_in: Option<Vec<String>>,
}

/// The values of one parameter of a query.
pub fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    let mut all = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    all.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

impl Cut {
    /// Reads the parameters `limit` (1 to 500) and `after` (the `next` of a page).
    ///
    /// # Errors
    /// 400 with what is allowed.
    pub fn read(query: Option<&str>) -> Result<Self, Problem> {
        let wrong = |detail: String| Problem::new(StatusCode::BAD_REQUEST, detail);
        let limit = match parameter(query, "limit") {
            None => USUAL,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=MOST).contains(limit))
                .ok_or_else(|| wrong(format!("limit must be a number from 1 to {MOST}")))?,
        };
        let after = match parameter(query, "after") {
            None => String::new(),
            Some(text) => read_cursor(&text).ok_or_else(|| wrong("after must be the next of a page".to_owned()))?,
        };
        Ok(Self { limit, after })
    }

    /// Whether an item with this key, when `kept` items were kept before, has to be kept for [`Cut::of`]. Keys ascend and differ.
    pub fn needs(&self, kept: usize, key: &str) -> bool {
        kept <= self.limit && (self.after.is_empty() || key > self.after.as_str())
    }

    /// The page of `items`, whose keys ascend and differ.
    pub fn of<T: Clone>(&self, items: &[T], key: impl Fn(&T) -> String) -> Page<T> {
        let mut rest = items.iter().filter(|item| self.after.is_empty() || key(item) > self.after);
        let items: Vec<T> = rest.by_ref().take(self.limit).cloned().collect();
        let more = rest.next().is_some();
        let next = items.last().filter(|_| more).map(|last| URL_SAFE_NO_PAD.encode(key(last)));
        Page { items, next, only_in: None }
    }
}

impl<T> Page<T> {
    /// The page of other items, one for each.
    pub fn map<U>(self, item: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(item).collect(), next: self.next, only_in: self.only_in }
    }
}

fn read_cursor(text: &str) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok().filter(|_| text.len() <= LONGEST)?;
    String::from_utf8(bytes).ok().filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_without_gap_or_repetition() {
        let all: Vec<String> = (0..7).map(|number| format!("ns/{number}")).collect();
        let (mut seen, mut query) = (Vec::new(), "limit=3".to_owned());
        let mut lengths = Vec::new();
        loop {
            let page = Cut::read(Some(&query)).unwrap().of(&all, Clone::clone);
            lengths.push(page.items.len());
            seen.extend(page.items);
            let Some(next) = page.next else { break };
            query = format!("limit=3&after={next}");
        }
        assert_eq!((seen, lengths), (all, vec![3, 3, 1]));
    }

    #[test]
    fn a_page_of_a_stream_is_the_page_of_the_list() {
        let all: Vec<String> = (0..7).map(|number| number.to_string()).collect();
        for (limit, after) in [(3, ""), (3, "2"), (3, "3"), (3, "6"), (7, ""), (500, "x")] {
            let cut = Cut { limit, after: after.to_owned() };
            let mut kept = Vec::new();
            for key in &all {
                if cut.needs(kept.len(), key) {
                    kept.push(key.clone());
                }
            }
            assert!(kept.len() <= limit + 1);
            assert_eq!(cut.of(&kept, Clone::clone), cut.of(&all, Clone::clone), "{cut:?}");
        }
    }

    #[test]
    fn what_comes_and_goes_moves_nothing_else() {
        let key = Clone::clone;
        let cut = |after: &str| Cut { limit: 2, after: after.to_owned() };
        let old = ["b", "d", "f"].map(str::to_owned);
        let next = read_cursor(&cut("").of(&old, key).next.unwrap()).unwrap();
        let new = ["a", "b", "c", "e", "f"].map(str::to_owned);
        assert_eq!((next.as_str(), cut(&next).of(&new, key).items), ("d", vec!["e".to_owned(), "f".to_owned()]));
    }

    #[test]
    fn wrong_parameters_are_refused_and_unknown_ones_ignored() {
        for query in ["limit=0", "limit=501", "limit=x", "limit=-1", "after=", "after=%25", "after=_w"] {
            assert_eq!(Cut::read(Some(query)).map_err(|problem| problem.status), Err(400), "{query}");
        }
        let usual = Cut { limit: USUAL, after: String::new() };
        assert_eq!((Cut::read(None), Cut::read(Some("x=y"))), (Ok(usual.clone()), Ok(usual)));
    }

    /// A cursor that is read is the key that it was made from, and bounded; a query never asks for more than a page.
    #[test]
    fn fuzz_cursor() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "cursor", |bytes| {
            let Ok(text) = str::from_utf8(bytes) else { return };
            if let Some(key) = read_cursor(text) {
                assert!(!key.is_empty() && key.len() <= LONGEST);
                assert_eq!(URL_SAFE_NO_PAD.encode(key), text);
            }
            if let Ok(cut) = Cut::read(Some(text)) {
                assert!((1..=MOST).contains(&cut.limit));
            }
        });
    }
}
