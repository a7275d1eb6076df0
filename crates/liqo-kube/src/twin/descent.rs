//! Whose twin an object of the other cluster is, by the UID its twin records.

use kube::{Resource, ResourceExt};

use super::Reflect;

/// The UID of the source that `there` records; `None` when it records none.
fn recorded<R: Reflect>(there: &impl Resource) -> Option<&str> {
    there.meta().annotations.as_ref()?.get(R::RECORD?).map(String::as_str)
}

/// Whether `there` records another source than `here`.
pub(super) fn is_anothers<R: Reflect>(here: &R::Here, there: &impl Resource) -> bool {
    recorded::<R>(there).is_some_and(|uid| here.meta().uid.as_deref() != Some(uid))
}

/// Whether a twin was made for another source than `here`: the twin records another UID, or it records none and its contents
/// do not fit `here`.
pub(super) fn is_strange<R: Reflect>(r: &R, here: &R::Here, there: &R::There) -> bool {
    match R::RECORD.and(recorded::<R>(there)) {
        Some(_) => is_anothers::<R>(here, there),
        None => R::RECORD.is_some() && !r.fits(here, there),
    }
}

/// Records the source in its twin.
pub(super) fn record<R: Reflect>(twin: &mut R::There, here: &R::Here) {
    if let (Some(key), Some(uid)) = (R::RECORD, here.uid()) {
        twin.annotations_mut().insert(key.to_owned(), uid);
    }
}
