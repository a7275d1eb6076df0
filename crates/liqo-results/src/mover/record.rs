//! What is stored already, so that nothing is sent twice.
//!
//! The record lies in the store, in numbered segments that are only added to: a mover that was killed leaves them behind, the next
//! one goes on from there. It is removed when the manifest is stored, because the manifest says the same.
//!
//! Keeps true: a file counts as stored only if the store has an object of its size, and the file on disk still has the
//! recorded digest.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use crate::{
    Digest, Store, StoreError,
    manifest::{File, MOST_FILES},
};

/// Longest segment that is read, in bytes, and most segments.
const LONGEST: usize = 64 * 1024 * 1024;
const MOST: u64 = 100_000;
/// New files, or new parts, that are recorded at once.
const NEW_FILES: usize = 1_000;
const NEW_PARTS: usize = 16;

/// What is stored already.
#[derive(Debug, Default)]
pub(super) struct Record {
    recalled: bool,
    done: BTreeMap<Box<str>, Done>,
    uploads: BTreeMap<Box<str>, Upload>,
    /// What the next segment says.
    pending: Segment,
    /// Number of the next segment.
    next: u64,
}

/// A file that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) size: u64,
    pub(super) sha256: Digest,
    /// Whether this process has read the file and knows that its bytes are stored.
    pub(super) sure: bool,
}

/// An upload in parts that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upload {
    pub(super) id: String,
    /// Bytes of the file, and of each part but the last.
    pub(super) size: u64,
    pub(super) part: u64,
    /// The first parts, as far as all of them are stored.
    pub(super) parts: Vec<Part>,
}

/// A part that is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) etag: String,
    /// Digest of the file from its beginning to the end of this part.
    pub(super) sha256: Digest,
}

/// One object of the record.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Segment {
    files: Vec<File>,
    parts: Vec<More>,
}

/// Parts that came to an upload.
#[derive(Debug, Serialize, Deserialize)]
struct More {
    path: Box<str>,
    id: String,
    size: u64,
    part: u64,
    /// How many parts there were before.
    from: usize,
    parts: Vec<Part>,
}

impl Record {
    /// Reads what an earlier mover left, once in the life of a process.
    ///
    /// # Errors
    /// When the store cannot be asked. A record that makes no sense is left alone: everything is sent again.
    pub(super) async fn recall(&mut self, store: &Store) -> Result<(), StoreError> {
        if self.recalled {
            return Ok(());
        }
        match store.manifest().await {
            Ok(manifest) => {
                manifest.into_iter().flat_map(|manifest| manifest.files).for_each(|file| self.add(file, false))
            }
            Err(StoreError::Manifest(error)) => tracing::warn!(%error, "what is stored as manifest is none, it goes"),
            Err(error) => return Err(error),
        }
        while self.next < MOST
            && let Some(bytes) = store.own(&name(self.next), LONGEST).await?
        {
            match serde_json::from_slice(&bytes) {
                Ok(segment) => self.merge(segment),
                Err(error) => tracing::warn!(%error, segment = self.next, "a part of the record cannot be read"),
            }
            self.next += 1;
        }
        if !self.done.is_empty() || !self.uploads.is_empty() {
            self.compare(store).await?;
            tracing::info!(files = self.done.len(), uploads = self.uploads.len(), "going on where a mover was ended");
        }
        self.recalled = true;
        Ok(())
    }

    /// Forgets files that the store does not have with that size.
    async fn compare(&mut self, store: &Store) -> Result<(), StoreError> {
        let (mut objects, mut there) = (store.list(), BTreeMap::new());
        while let Some(object) = objects.try_next().await? {
            if let Some((path, done)) = self.done.remove_entry(object.path.as_str())
                && done.size == object.size
            {
                there.insert(path, done);
            }
        }
        self.done = there;
        Ok(())
    }

    fn merge(&mut self, segment: Segment) {
        for file in segment.files {
            self.add(file, false);
        }
        for More { path, id, size, part, from, parts } in segment.parts {
            let begun = Upload { id, size, part, parts: Vec::new() };
            let upload = self.uploads.entry(path).or_insert_with(|| begun.clone());
            if upload.id != begun.id {
                *upload = begun;
            }
            if upload.parts.len() == from {
                upload.parts.extend(parts);
            }
        }
    }

    fn add(&mut self, file: File, sure: bool) {
        self.uploads.remove(&file.path);
        if self.done.len() < MOST_FILES {
            self.done.insert(file.path, Done { size: file.size, sha256: file.sha256, sure });
        }
    }

    /// What is known of the file, if the store has one of this size.
    pub(super) fn known(&self, path: &str, size: u64) -> Option<Done> {
        self.done.get(path).filter(|done| done.size == size).copied()
    }

    /// The file is stored, as this process has seen.
    pub(super) fn stored(&mut self, file: &File) {
        self.pending.parts.retain(|more| more.path != file.path);
        self.pending.files.push(file.clone());
        self.add(file.clone(), true);
    }

    /// The upload of the file that was begun and not ended.
    pub(super) fn upload(&self, path: &str) -> Option<Upload> {
        self.uploads.get(path).cloned()
    }

    /// An upload begins; an earlier one of this file is forgotten.
    pub(super) fn begun(&mut self, path: &str, upload: Upload) {
        self.pending.parts.retain(|more| &*more.path != path);
        self.uploads.insert(path.into(), upload);
    }

    /// The next part of an upload is stored.
    pub(super) fn part(&mut self, path: &str, part: Part) {
        let Some(upload) = self.uploads.get_mut(path) else { return };
        match self.pending.parts.iter_mut().find(|more| &*more.path == path) {
            Some(more) => more.parts.push(part.clone()),
            None => self.pending.parts.push(More {
                path: path.into(),
                id: upload.id.clone(),
                size: upload.size,
                part: upload.part,
                from: upload.parts.len(),
                parts: vec![part.clone()],
            }),
        }
        upload.parts.push(part);
    }

    /// Whether so much is new that it should be recorded now.
    pub(super) fn is_due(&self) -> bool {
        self.pending.files.len() >= NEW_FILES
            || self.pending.parts.iter().map(|more| more.parts.len()).sum::<usize>() >= NEW_PARTS
    }

    /// The next segment, if there is something to say, and its name.
    pub(super) fn segment(&mut self) -> Option<(String, Vec<u8>)> {
        if self.pending.files.is_empty() && self.pending.parts.is_empty() {
            return None;
        }
        let segment = serde_json::to_vec(&std::mem::take(&mut self.pending)).expect("a segment is JSON");
        self.next += 1;
        Some((name(self.next - 1), segment))
    }

    /// Removes the record from the store.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub(super) async fn forget(&mut self, store: &Store) -> Result<(), StoreError> {
        for number in 0..self.next {
            store.remove_own(&name(number)).await?;
        }
        Ok(())
    }
}

fn name(segment: u64) -> String {
    format!("progress/{segment}.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, byte: u8) -> File {
        File { path: path.into(), size: 1, sha256: Digest([byte; 32]) }
    }

    fn part(byte: u8) -> Part {
        Part { etag: byte.to_string(), sha256: Digest([byte; 32]) }
    }

    fn upload(id: &str, parts: &[u8]) -> Upload {
        Upload { id: id.into(), size: 9, part: 5, parts: parts.iter().copied().map(part).collect() }
    }

    /// What the segments of one record tell another.
    fn recalled(record: &mut Record, into: &mut Record) {
        let (_, segment) = record.segment().unwrap();
        into.merge(serde_json::from_slice(&segment).unwrap());
    }

    #[test]
    fn the_next_mover_knows_what_this_one_did() {
        let (mut this, mut next) = (Record::default(), Record::default());
        assert!(this.segment().is_none());
        this.stored(&file("a", 1));
        this.begun("big", upload("u1", &[]));
        this.part("big", part(1));
        this.part("big", part(2));
        recalled(&mut this, &mut next);
        assert_eq!(next.known("a", 1), Some(Done { size: 1, sha256: Digest([1; 32]), sure: false }));
        assert_eq!((next.known("a", 2), next.known("b", 1)), (None, None));
        assert_eq!(next.upload("big"), Some(upload("u1", &[1, 2])));
        this.part("big", part(3));
        recalled(&mut this, &mut next);
        assert_eq!(next.upload("big"), Some(upload("u1", &[1, 2, 3])));
        this.begun("big", upload("u2", &[]));
        this.part("big", part(4));
        recalled(&mut this, &mut next);
        assert_eq!(next.upload("big"), Some(upload("u2", &[4])), "a new upload replaces the earlier one");
        this.part("big", part(5));
        this.stored(&file("big", 5));
        recalled(&mut this, &mut next);
        assert_eq!((next.upload("big"), next.known("big", 1).map(|done| done.sha256)), (None, Some(Digest([5; 32]))));
        assert_eq!((this.known("big", 1).unwrap().sure, this.next), (true, 4));
    }

    #[test]
    fn parts_out_of_order_are_not_believed() {
        let mut record = Record::default();
        let more = |from, parts: Vec<Part>| More { path: "big".into(), id: "u".into(), size: 9, part: 5, from, parts };
        record.merge(Segment { files: Vec::new(), parts: vec![more(0, vec![part(1)]), more(2, vec![part(3)])] });
        assert_eq!(record.upload("big"), Some(upload("u", &[1])));
    }

    /// A record read from made-up segments, one in each line, and a record read from what the first record writes are equal.
    #[test]
    fn fuzz_record() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "record", |bytes| {
            let mut record = Record::default();
            for segment in bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()) {
                record.merge(segment);
            }
            let files = record.done.iter().map(|(path, done)| File {
                path: path.clone(),
                size: done.size,
                sha256: done.sha256,
            });
            let parts = record.uploads.iter().map(|(path, upload)| {
                let Upload { id, size, part, parts } = upload.clone();
                More { path: path.clone(), id, size, part, from: 0, parts }
            });
            let (files, parts) = (files.collect(), parts.collect());
            let told = serde_json::to_vec(&Segment { files, parts }).unwrap();
            let mut other = Record::default();
            other.merge(serde_json::from_slice(&told).unwrap());
            assert_eq!((&other.done, &other.uploads), (&record.done, &record.uploads));
            assert!(record.done.values().all(|done| !done.sure), "nothing that was read is sure");
        });
    }
}
