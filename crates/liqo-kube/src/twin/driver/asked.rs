//! What is asked for by name, where watches may be behind.

use std::{sync::Arc, time::Instant};

use kube::Resource;

use super::{DOUBT, Pair, Reflect, lock};
use crate::{KubeError, Object};

impl<R: Reflect> Pair<'_, R> {
    /// The twin as the watch shows it, or as it is found when the watch has not shown yet what was made for another source of
    /// this name: server-side apply would change that twin instead of making a new one.
    pub(super) async fn unshown(
        &self,
        name: &str,
        name_there: &str,
        here: Option<&R::Here>,
        shown: Option<Arc<R::There>>,
    ) -> Result<Option<Arc<R::There>>, KubeError> {
        let made_for = lock(&self.made).get(name).cloned();
        let Some((here, made_for)) = here.zip(made_for).filter(|_| shown.is_none() && R::RECORD.is_some()) else {
            if shown.is_some() {
                lock(&self.made).remove(name);
            }
            return Ok(shown);
        };
        if made_for == here.meta().uid {
            return Ok(None);
        }
        let found = self.fetch(name_there).await?;
        lock(&self.made).remove(name);
        Ok(found)
    }

    /// The twin and what is seen there, as the watches show them, unless they should be gone by now and the watches may have missed
    /// that: their path may have died meanwhile, and a peer that has said farewell lets us look no more.
    pub(super) async fn still(
        &self,
        name: &str,
        there: Option<Arc<R::There>>,
        seen: Option<Arc<R::Seen>>,
    ) -> Result<(Option<Arc<R::There>>, Option<Arc<R::Seen>>), KubeError> {
        let known = lock(&self.fading).get(name).cloned();
        let Some((_, since)) = known.filter(|(uid, _)| *uid == first(there.as_deref(), seen.as_deref())) else {
            lock(&self.fading).remove(name);
            return Ok((there, seen));
        };
        if since.elapsed() < DOUBT {
            return Ok((there, seen));
        }
        let there = match &there {
            Some(shown) => self.ask(shown).await?,
            None => None,
        };
        let seen = match &seen {
            Some(shown) if there.is_none() => self.ask(shown).await?,
            _ => seen,
        };
        if let Some((_, since)) = lock(&self.fading).get_mut(name) {
            *since = Instant::now();
        }
        Ok((there, seen))
    }

    /// Whether an object of the other cluster, as a watch shows it, is still there.
    async fn ask<K: Object>(&self, shown: &Arc<K>) -> Result<Option<Arc<K>>, KubeError> {
        let meta = shown.meta();
        let now = self.fetch::<K>(meta.name.as_deref().unwrap_or_default()).await?;
        Ok(now.filter(|now| now.meta().uid == meta.uid).map(|_| Arc::clone(shown)))
    }

    /// The object of this name in the other cluster; `None` also when the other cluster forbids the request (403), because it has
    /// then taken back the namespace. A refused identity (401) is an error: nothing has been taken back.
    pub(super) async fn fetch<K: Object>(&self, name_there: &str) -> Result<Option<Arc<K>>, KubeError> {
        match self.parts.there.get::<K>(&self.parts.namespace_there, name_there).await {
            Err(error) if error.code() == Some(403) => Ok(None),
            outcome => Ok(outcome?.map(Arc::new)),
        }
    }
}

/// The UID of the twin, or of what is seen there when there is no twin.
pub(super) fn first<T: Resource, S: Resource>(there: Option<&T>, seen: Option<&S>) -> Option<String> {
    there.map_or_else(|| seen.and_then(|seen| seen.meta().uid.clone()), |there| there.meta().uid.clone())
}
