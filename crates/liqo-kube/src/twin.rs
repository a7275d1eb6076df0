//! Twins: an object here, its copy there, and the copy's news on the way back.
//!
//! One engine mirrors everything: what a virtual kubelet reflects and what the replicator copies
//! between tenant namespaces. A [`Reflect`] says how the twin looks and what it teaches us; when to
//! apply, when to remove, when to leave alone is decided once, in [`decide`], for all kinds.
//!
//! **The law: source, forge, compare, apply; back.** The twin is compared with what was forged before
//! anything is written ([`differs`]), so a restart writes nothing when nothing has changed.
//!
//! **A twin knows whose it is.** It carries the UID of its source ([`Reflect::RECORD`]). A twin of another source that
//! had the same name is removed, and the new one is made when the old one is gone; its news are not believed. The same
//! happens to a twin whose immutable fields differ ([`unalterable`]). A twin without the record, as older versions and
//! Go Liqo 0.8.3 leave them, is taken over with the record added, unless [`Reflect::fits`] denies it.

mod compare;
mod descent;
mod driver;
mod send;
mod unknown;

use std::time::Duration;

use kube::ResourceExt;
use serde_json::Value;

use crate::Object;

pub use compare::{contains, differs, unalterable};
pub use driver::{Mirror, Parts};

/// What a reflector wants there for an object here.
#[derive(Clone, Debug, PartialEq)]
pub enum Forged<T> {
    /// A twin that looks like this; name and namespace are added by the engine.
    Make(Box<T>),
    /// No twin; one that is there is removed. The reason is told to the user, if there is one.
    Nothing(Option<String>),
    /// Not now: leave there as it is and look again at the next event (or when the error is retried).
    NotYet,
}

/// What the twin teaches us about the object here.
#[derive(Clone, Debug, PartialEq)]
pub enum Back {
    /// Nothing new.
    Nothing,
    /// The object here shall have this status.
    Status(Value),
    /// The object here shall have this status, for which nobody waits: the status may be written together with later news of the twin
    /// within this time.
    Soon(Value, Duration),
}

/// What becomes of an object here that is being deleted, once its twin is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// Nothing: we do not hold it.
    Nothing,
    /// It is held with this finalizer while its twin exists, and released then.
    Release(&'static str),
    /// It is deleted at once, without grace (pods: their end is confirmed by us).
    Delete,
}

/// One kind, mirrored. Implementations are pure, but for what [`Reflect::look`] may ask for.
pub trait Reflect: Send + Sync + 'static {
    /// Name in logs and metrics.
    const NAME: &'static str;
    /// The source.
    type Here: Object;
    /// The twin.
    type There: Object;
    /// The object whose news come back; for most kinds the twin itself.
    type Seen: Object;
    /// What happens at the end of an object here.
    const FAREWELL: Farewell = Farewell::Nothing;
    /// The annotation of the twin that holds the UID of its source. `None`: the twin does not belong to one source, it
    /// passes to the next object of the same name.
    const RECORD: Option<&'static str>;
    /// Fields of the twin that the API server never lets change, as JSON pointers. Data of immutable `ConfigMap`s and
    /// `Secret`s need not be named.
    const IMMUTABLE: &'static [&'static str] = &[];

    /// Whether a twin without a record can be the twin of this source.
    fn fits(&self, here: &Self::Here, there: &Self::There) -> bool {
        let _ = (here, there);
        true
    }

    /// A merge patch that tells the twin of an object that is being deleted how to end. The twin is removed once there are no
    /// more last words, or when nothing came of them within two seconds.
    fn last_words(&self, here: &Self::Here, there: &Self::There, seen: Option<&Self::Seen>) -> Option<Value> {
        let _ = (here, there, seen);
        None
    }

    /// Whether others write into the status of this object, too: then news that were made from an older state of the object
    /// are not written, but made again.
    fn shares_status(&self, here: &Self::Here) -> bool {
        let _ = here;
        false
    }

    /// A label, with its value, that this object gets together with the next status that is written here; `None`: there is none
    /// to add.
    fn mark(&self, here: &Self::Here) -> Option<(&'static str, &'static str)> {
        let _ = here;
        None
    }

    /// What happens at the end of this object here.
    fn farewell(&self, here: &Self::Here) -> Farewell {
        let _ = here;
        Self::FAREWELL
    }

    /// Shown everything about a name before anything is decided: the place to ask for, or to give back, what
    /// [`Reflect::forge`] and [`Reflect::back`] then find known or not. Called for every name, also when nothing is
    /// left of it on either side. Must be quick.
    fn look(&self, name: &str, here: Option<&Self::Here>, there: Option<&Self::There>, seen: Option<&Self::Seen>) {
        let _ = (name, here, there, seen);
    }

    /// How the twin should look; `there` is what is there now, if it is ours.
    fn forge(&self, here: &Self::Here, there: Option<&Self::There>) -> Forged<Self::There>;

    /// Whether we made that object there.
    fn ours(&self, there: &Self::There) -> bool;

    /// Whether what was seen there comes from our twin. If not, its name is taken there.
    fn ours_seen(&self, seen: &Self::Seen) -> bool {
        let _ = seen;
        true
    }

    /// What the twin teaches us. Both are `None` while nothing is there.
    fn back(&self, here: &Self::Here, there: Option<&Self::There>, seen: Option<&Self::Seen>) -> Back {
        let _ = (here, there, seen);
        Back::Nothing
    }

    /// The status of an object here whose twin the API server there refuses, with `why` naming that cluster; `None`: the
    /// status stays as it is.
    fn refused(&self, here: &Self::Here, why: &str) -> Option<Value> {
        let _ = (here, why);
        None
    }

    /// How the twin of `name` is called.
    fn name_there(&self, name: &str) -> String {
        name.to_owned()
    }

    /// Whose twin is called `name`; `None` when it cannot be one of ours.
    fn name_here(&self, name: &str) -> Option<String> {
        Some(name.to_owned())
    }
}

/// What to do there.
#[derive(Clone, Debug, PartialEq)]
pub enum There<T> {
    /// Nothing.
    Keep,
    /// Somebody else's object has that name: tell the user, touch nothing.
    Taken,
    /// The object shall not be reflected, for this reason: tell the user.
    Refused(String),
    /// Make the twin look like this.
    Apply(Box<T>),
    /// Merge this into the twin, which is about to be removed: it says how the twin shall end.
    Tell(Value),
    /// The twin has outlived its reason.
    Remove,
    /// The object here waits until what is left there is gone.
    Wait,
}

/// What to do here.
#[derive(Clone, Debug, PartialEq)]
pub enum Here {
    /// Nothing.
    Keep,
    /// Write this status.
    Status(Value),
    /// Write this status if there is still none to write at once after this time.
    Soon(Value, Duration),
    /// Add this finalizer, before anything is made there.
    Hold(&'static str),
    /// Take this finalizer away.
    Release(&'static str),
    /// Delete at once.
    Delete,
}

impl From<Back> for Here {
    fn from(back: Back) -> Self {
        match back {
            Back::Nothing => Self::Keep,
            Back::Status(status) => Self::Status(status),
            Back::Soon(status, within) => Self::Soon(status, within),
        }
    }
}

/// What follows for one name.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Plan<T> {
    /// What to do here, first if it is [`Here::Hold`], else last.
    pub here: Here,
    /// What to do there.
    pub there: There<T>,
}

/// The law of reflection, for every kind.
pub fn decide<R: Reflect>(
    r: &R,
    here: Option<&R::Here>,
    there: Option<&R::There>,
    seen: Option<&R::Seen>,
) -> Plan<R::There> {
    let ours = there.filter(|there| r.ours(there));
    let foreign = there.is_some() && ours.is_none() || seen.is_some_and(|seen| !r.ours_seen(seen));
    let Some(here) = here else {
        let there = if ours.is_some_and(is_alive) { There::Remove } else { There::Keep };
        return Plan { here: Here::Keep, there };
    };
    // News of another source's twin are not news of this one.
    let strange = seen.is_some_and(|seen| descent::is_anothers::<R>(here, seen));
    if !is_alive(here) {
        return leaving(r, here, ours, if foreign || strange { None } else { seen });
    }
    if let Some(there) = ours.filter(|there| descent::is_strange(r, here, *there)) {
        let there = if is_alive(there) { There::Remove } else { There::Wait };
        return Plan { here: Here::Keep, there };
    }
    if strange && !foreign {
        return Plan { here: Here::Keep, there: if ours.is_some() { There::Keep } else { There::Wait } };
    }
    let back = |there| {
        let here = if foreign { Here::Keep } else { r.back(here, ours, seen).into() };
        Plan { here, there }
    };
    match r.forge(here, ours) {
        Forged::NotYet => back(There::Keep),
        Forged::Nothing(reason) => match (ours.is_some_and(is_alive), reason) {
            (true, _) => back(There::Remove),
            (false, Some(reason)) => back(There::Refused(reason)),
            (false, None) => back(There::Keep),
        },
        Forged::Make(_) if foreign => Plan { here: Here::Keep, there: There::Taken },
        // A twin on its way out comes back only after it is gone.
        Forged::Make(_) if ours.is_some_and(|there| !is_alive(there)) => back(There::Keep),
        Forged::Make(mut twin) => {
            descent::record::<R>(&mut *twin, here);
            if ours.is_some_and(|there| unalterable(&*twin, there, R::IMMUTABLE)) {
                return back(There::Remove);
            }
            if let Farewell::Release(finalizer) = r.farewell(here)
                && !here.finalizers().iter().any(|one| one == finalizer)
            {
                return Plan { here: Here::Hold(finalizer), there: There::Apply(twin) };
            }
            if ours.is_some_and(|there| !differs(&*twin, there)) { back(There::Keep) } else { back(There::Apply(twin)) }
        }
    }
}

/// The end of an object here: first its twin goes, then what was seen there, then the object itself.
fn leaving<R: Reflect>(r: &R, here: &R::Here, ours: Option<&R::There>, seen: Option<&R::Seen>) -> Plan<R::There> {
    if let Some(there) = ours
        && is_alive(there)
    {
        let there = r.last_words(here, there, seen).map_or(There::Remove, There::Tell);
        return Plan { here: Here::Keep, there };
    }
    if ours.is_some() || seen.is_some() {
        return Plan { here: r.back(here, ours, seen).into(), there: There::Wait };
    }
    let end = match r.farewell(here) {
        Farewell::Nothing => Here::Keep,
        Farewell::Delete => Here::Delete,
        Farewell::Release(finalizer) if here.finalizers().iter().any(|one| one == finalizer) => {
            Here::Release(finalizer)
        }
        Farewell::Release(_) => Here::Keep,
    };
    Plan { here: end, there: There::Keep }
}

fn is_alive<K: ResourceExt>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_none()
}

#[cfg(test)]
mod tests;
