//! Sending files: small ones many at a time, large ones in parts.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{StreamExt, TryStreamExt, stream};
use object_store::{
    ObjectStoreExt,
    aws::AmazonS3,
    multipart::{MultipartStore, PartId},
    path::Path,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinSet, spawn_blocking},
    time::{Instant, interval},
};

use super::{
    Failed, PROGRESS, Progress, RECORD,
    part::{self, Reader},
    record::{Part, Record, Upload},
    tree::{Found, Left, Tree},
};
use crate::{Digest, Store, StoreError, manifest::File};

/// Files at the same time.
const AT_ONCE: usize = 16;
/// Bytes in memory at the same time, unless two parts are more.
const ROOM: u64 = 16 * 1024 * 1024;
/// The unit that room is counted in, in bytes.
const UNIT: u64 = 1024;

/// Sends the files of one directory to one store.
pub(super) struct Sender<'a> {
    store: &'a Store,
    tree: Arc<Tree>,
    part_size: u64,
    room: Arc<Semaphore>,
}

/// Why a file is not stored.
enum Trouble {
    /// The file cannot be read: the results are stored without it.
    Local(io::Error),
    /// The store does not know the upload any more, or the file has other bytes than those that were sent.
    Gone,
    /// The store, or the way to it: everything is tried again.
    Failed(Failed),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Local(error)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<object_store::Error> for Trouble {
    fn from(error: object_store::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// What sending a file needs besides the file.
#[derive(Clone, Copy)]
struct Work<'a> {
    record: &'a Mutex<&'a mut Record>,
    progress: &'a Progress,
}

impl<'a> Work<'a> {
    fn record(&self) -> MutexGuard<'a, &'a mut Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Sender<'a> {
    pub(super) fn new(store: &'a Store, tree: Tree, part_size: u64, files: &[Found]) -> Self {
        let largest = files.iter().map(|found| part::size_for(found.size, part_size).min(found.size)).max();
        let room = ROOM.max(largest.unwrap_or_default().saturating_mul(2));
        let room = usize::try_from(room / UNIT).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { store, tree: Arc::new(tree), part_size, room: Arc::new(Semaphore::new(room)) }
    }

    /// Stores all files that are not stored yet. Those that cannot be read are lost.
    ///
    /// # Errors
    /// When the store refuses or cannot be reached; the record says how far it came.
    pub(super) async fn send(
        &self,
        files: Vec<Found>,
        record: &mut Record,
        progress: &Progress,
        left: &mut Left,
    ) -> Result<Vec<File>, Failed> {
        let (mut stored, record) = (Vec::with_capacity(files.len()), Mutex::new(record));
        let work = Work { record: &record, progress };
        let mut sending = stream::iter(files).map(|found| self.one(found, work)).buffer_unordered(AT_ONCE);
        let (mut recording, mut recorded, mut logging) = (interval(RECORD / 10), Instant::now(), interval(PROGRESS));
        loop {
            tokio::select! {
                sent = sending.try_next() => match sent? {
                    Some(Ok(file)) => stored.push(file),
                    Some(Err((path, why))) => left.lost(path, &format!("it cannot be read: {why}")),
                    None => return Ok(stored),
                },
                _ = recording.tick() => {
                    if work.record().is_due() || recorded.elapsed() >= RECORD {
                        self.record(work).await?;
                        recorded = Instant::now();
                    }
                }
                _ = logging.tick() => progress.log(),
            }
        }
    }

    /// Records what is new.
    async fn record(&self, work: Work<'_>) -> Result<(), StoreError> {
        let segment = work.record().segment();
        match segment {
            Some((name, bytes)) => self.store.put_own(&name, bytes).await,
            None => Ok(()),
        }
    }

    /// Stores one file. The inner error is that of the file.
    async fn one(&self, found: Found, work: Work<'_>) -> Result<Result<File, (String, io::Error)>, Failed> {
        let Found { path, size } = found;
        let known = work.record().known(&path, size);
        let sent = match known {
            Some(done) if done.sure => Ok(done.sha256),
            known => self.bytes(&path, size, known.map(|done| done.sha256), work).await,
        };
        match sent {
            Ok(sha256) => {
                let file = File { path, size, sha256 };
                if !known.is_some_and(|done| done.sure) {
                    work.record().stored(&file);
                }
                work.progress.file();
                Ok(Ok(file))
            }
            Err(Trouble::Local(error)) => Ok(Err((path.into(), error))),
            Err(Trouble::Gone) => Ok(Err((path.into(), io::Error::other("it changes while it is read")))),
            Err(Trouble::Failed(failed)) => Err(failed),
        }
    }

    async fn bytes(&self, path: &str, size: u64, known: Option<Digest>, work: Work<'_>) -> Result<Digest, Trouble> {
        let part = part::size_for(size, self.part_size);
        if let Some(known) = known
            && self.digest(path, size, part).await? == known
        {
            work.progress.sent(size);
            return Ok(known);
        }
        if size <= part { self.small(path, size, work).await } else { self.large(path, (size, part), work).await }
    }

    async fn small(&self, path: &str, size: u64, work: Work<'_>) -> Result<Digest, Trouble> {
        let _room = self.room(size).await?;
        let (_, bytes, digest) = read(self.open(path, size).await?, size).await?;
        self.store.s3.put(&self.store.result(path)?, bytes.into()).await?;
        work.progress.sent(size);
        Ok(digest)
    }

    async fn large(&self, path: &str, sizes: (u64, u64), work: Work<'_>) -> Result<Digest, Trouble> {
        let key = self.store.result(path)?;
        let begun = work.record().upload(path);
        if let Some(begun) = begun {
            if (begun.size, begun.part) == sizes {
                match self.parts(path, &key, begun.clone(), work).await {
                    Err(Trouble::Gone) => {}
                    ended => return ended,
                }
            }
            // What is left of it is of no use to anybody.
            let _ = self.store.s3.abort_multipart(&key, &begun.id).await;
        }
        let id = self.store.s3.create_multipart(&key).await?;
        let upload = Upload { id, size: sizes.0, part: sizes.1, parts: Vec::new() };
        work.record().begun(path, upload.clone());
        self.parts(path, &key, upload, work).await
    }

    /// Sends the parts that are not stored yet, and ends the upload.
    async fn parts(&self, path: &str, key: &Path, upload: Upload, work: Work<'_>) -> Result<Digest, Trouble> {
        let Upload { id, size, part, parts: known } = upload;
        let count = usize::try_from(size.div_ceil(part)).map_err(io::Error::other)?;
        let mut reader = self.open(path, size).await?;
        let (mut arrived, mut sending) = (Arrived::new(known.len(), count), JoinSet::new());
        let mut end = None;
        for (index, begin) in (0..size).step_by(usize::try_from(part).map_err(io::Error::other)?).enumerate() {
            let length = part.min(size - begin);
            let room = self.room(length).await?;
            let (next, bytes, digest) = read(reader, length).await?;
            (reader, end) = (next, Some(digest));
            match known.get(index) {
                Some(part) if part.sha256 == digest => work.progress.sent(length),
                Some(_) => return Err(Trouble::Gone),
                None => {
                    let (s3, key, id) = (Arc::clone(&self.store.s3), key.clone(), id.clone());
                    sending.spawn(send_part((s3, key, id), index, bytes, digest, room));
                }
            }
            while let Some(sent) = sending.try_join_next() {
                arrived.note(sent.map_err(io::Error::other)?, path, work)?;
            }
        }
        while let Some(sent) = sending.join_next().await {
            arrived.note(sent.map_err(io::Error::other)?, path, work)?;
        }
        let etags = known.iter().map(|part| &part.etag).chain(arrived.etags());
        let parts = etags.map(|etag| PartId { content_id: etag.clone() }).collect();
        self.store.s3.complete_multipart(key, &id, parts).await.map_err(gone)?;
        end.ok_or(Trouble::Gone)
    }

    /// Digest of a whole file.
    async fn digest(&self, path: &str, size: u64, part: u64) -> Result<Digest, Trouble> {
        let _room = self.room(part.min(size)).await?;
        let mut reader = self.open(path, size).await?;
        let mut begin = 0;
        loop {
            let length = part.min(size - begin);
            let (next, _, digest) = read(reader, length).await?;
            (reader, begin) = (next, begin + length);
            if begin == size {
                return Ok(digest);
            }
        }
    }

    async fn open(&self, path: &str, size: u64) -> io::Result<Reader> {
        let (tree, path) = (Arc::clone(&self.tree), path.to_owned());
        let (file, now) = spawn_blocking(move || tree.file(&path)).await??;
        if now == size { Ok(Reader::new(file)) } else { Err(io::Error::other("its size changed")) }
    }

    /// Waits until `bytes` fit into memory.
    async fn room(&self, bytes: u64) -> io::Result<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).map_err(io::Error::other)?;
        Arc::clone(&self.room).acquire_many_owned(units).await.map_err(io::Error::other)
    }
}

async fn read(reader: Reader, length: u64) -> io::Result<(Reader, Vec<u8>, Digest)> {
    spawn_blocking(move || reader.read(length)).await?
}

/// A part that the store has, with its place in the file.
type Sent = Result<(usize, Part, u64), object_store::Error>;

async fn send_part(
    (s3, key, id): (Arc<AmazonS3>, Path, String),
    index: usize,
    bytes: Vec<u8>,
    sha256: Digest,
    room: OwnedSemaphorePermit,
) -> Sent {
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let PartId { content_id: etag } = s3.put_part(&key, &id, index, bytes.into()).await?;
    drop(room);
    Ok((index, Part { etag, sha256 }, length))
}

/// An upload that the store does not know is begun anew.
fn gone(error: object_store::Error) -> Trouble {
    match error {
        object_store::Error::NotFound { .. } => Trouble::Gone,
        error => error.into(),
    }
}

/// Parts that arrived, in any order; they are recorded in theirs.
struct Arrived {
    /// Number of parts that were stored before.
    before: usize,
    parts: Vec<Option<Part>>,
    /// How many are recorded.
    recorded: usize,
}

impl Arrived {
    fn new(before: usize, count: usize) -> Self {
        Self { before, parts: vec![None; count.saturating_sub(before)], recorded: 0 }
    }

    fn note(&mut self, sent: Sent, path: &str, work: Work<'_>) -> Result<(), Trouble> {
        let (index, part, length) = sent.map_err(gone)?;
        work.progress.sent(length);
        if let Some(place) = self.parts.get_mut(index - self.before) {
            *place = Some(part);
        }
        while let Some(Some(part)) = self.parts.get(self.recorded) {
            work.record().part(path, part.clone());
            self.recorded += 1;
        }
        Ok(())
    }

    fn etags(&self) -> impl Iterator<Item = &String> {
        self.parts.iter().flatten().map(|part| &part.etag)
    }
}
