//! In which namespaces a caller may list a kind.

use std::collections::BTreeSet;

use futures::future::try_join_all;
use liqo_kube::access::{Act, Reviews, User};

use crate::problem::Problem;

/// Namespaces asked about for one kind and caller; what is in others is hidden from a caller who may not list all.
const MOST: usize = 100;

/// A kind, as roles name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Plural name.
    pub resource: &'static str,
}

/// A kind, or a part of its objects, as `kubectl auth can-i` takes it: `pods/log`, `jobs.jobs.liqo.io`.
pub(crate) fn text(group: &str, resource: &str, subresource: &str) -> String {
    let part = if subresource.is_empty() { String::new() } else { format!("/{subresource}") };
    let group = if group.is_empty() { String::new() } else { format!(".{group}") };
    format!("{resource}{part}{group}")
}

/// Where a caller may list a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere.
    All,
    /// In these namespaces only, which may be none.
    Only(BTreeSet<String>),
}

impl Scope {
    /// The caller may list the kind somewhere.
    ///
    /// # Errors
    /// 403 when the caller may not.
    pub fn check(&self, user: &User, kind: Kind) -> Result<(), Problem> {
        let refused = || Problem::forbidden(&user.name, "list", &text(kind.group, kind.resource, ""));
        if self.is_nothing() { Err(refused()) } else { Ok(()) }
    }

    /// Whether objects of this namespace may be shown; the empty one is that of kinds without namespaces.
    pub fn has(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(some) => some.contains(namespace),
        }
    }

    /// Whether nothing may be shown.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Only(some) if some.is_empty())
    }

    /// The namespaces, unless everything may be shown.
    pub fn only_in(&self) -> Option<Vec<String>> {
        match self {
            Self::All => None,
            Self::Only(some) => Some(some.iter().cloned().collect()),
        }
    }
}

/// Asks with the rights of `user` where the kind may be listed: everywhere, or else in which of these namespaces.
///
/// # Errors
/// 503 when the API server does not say.
pub async fn scope(
    reviews: &Reviews,
    user: &User,
    kind: Kind,
    namespaces: impl IntoIterator<Item = String>,
) -> Result<Scope, Problem> {
    let list = |namespace: String| Act {
        verb: "list",
        group: kind.group,
        resource: kind.resource,
        namespace,
        ..Act::default()
    };
    let unanswered = |error| Problem::unanswered(&error);
    if reviews.allows(user, &list(String::new())).await.map_err(unanswered)? {
        return Ok(Scope::All);
    }
    let asked: BTreeSet<String> = namespaces.into_iter().filter(|namespace| !namespace.is_empty()).collect();
    let answers = asked.into_iter().take(MOST).map(|namespace| async {
        let allowed = reviews.allows(user, &list(namespace.clone())).await.map_err(unanswered)?;
        Ok::<_, Problem>(allowed.then_some(namespace))
    });
    Ok(Scope::Only(try_join_all(answers).await?.into_iter().flatten().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_shows_what_it_names() {
        let some = Scope::Only(BTreeSet::from(["a".to_owned()]));
        let none = Scope::Only(BTreeSet::new());
        assert_eq!([Scope::All.has("b"), some.has("a"), some.has("b"), none.has("")], [true, true, false, false]);
        assert_eq!([Scope::All.is_nothing(), some.is_nothing(), none.is_nothing()], [false, false, true]);
        assert_eq!((Scope::All.only_in(), some.only_in()), (None, Some(vec!["a".to_owned()])));
    }
}
