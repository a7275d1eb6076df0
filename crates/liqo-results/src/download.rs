//! Downloads results into a directory: for the mover before the worker begins, and for users.
//!
//! Keeps true: a file has its name only when all its bytes have arrived and have the digest that the manifest says. A
//! download that ended early goes on where it was. Nothing outside of the directory is written: paths are those that results
//! may have, and symbolic links are not followed.

use std::{
    fs::File as Open,
    io::{self, Read, Seek, SeekFrom, Write},
    os::fd::OwnedFd,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use ring::digest::{Context, SHA256};
use rustix::{
    fs::{CWD, Mode, OFlags, mkdirat, openat, renameat},
    io::Errno,
};

use crate::{BadPath, Digest, Store, StoreError, check, manifest::File, store::chain};

/// Files at the same time.
const AT_ONCE: usize = 8;
/// Tries of one file in a row that bring no byte, and the pause between them.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(2);
/// Bytes that are hashed at once.
const STEP: usize = 256 * 1024;
/// What a file is called before it is whole; a name for its path and digest follows.
const PARTIAL: &str = ".liqo-partial-";

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Why a download ended early. What arrived stays for the next one.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The directory, or a file in it, cannot be written.
    #[error("writing {0:?}")]
    Write(String, #[source] io::Error),
    /// No file can have this path.
    #[error("{0:?}: {1}")]
    Path(String, #[source] BadPath),
    /// The store does not give the file.
    #[error("downloading {0:?}")]
    Store(String, #[source] StoreError),
    /// The store has other bytes than the manifest says.
    #[error("{path:?} in the store has the digest {found}, its manifest says {expected}")]
    Digest {
        /// Path of the file.
        path: String,
        /// What the store has.
        found: Digest,
        /// What the manifest says.
        expected: Digest,
    },
}

/// A download into one directory.
#[derive(Debug)]
pub struct Download {
    store: Store,
    into: OwnedFd,
    /// Bytes that are there, those of earlier downloads included.
    bytes: AtomicU64,
}

impl DownloadError {
    /// The error with its causes, in one line.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

impl Download {
    /// A download into a directory, which is made if it is not there. The directory itself may be a symbolic link.
    ///
    /// # Errors
    /// When the directory cannot be made or opened.
    pub fn new(store: Store, into: &Path) -> Result<Self, DownloadError> {
        let failed = |error| DownloadError::Write(into.display().to_string(), error);
        std::fs::create_dir_all(into).map_err(failed)?;
        let flags = DIRECTORY.difference(OFlags::NOFOLLOW);
        let into = openat(CWD, into, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        Ok(Self { store, into, bytes: AtomicU64::new(0) })
    }

    /// Bytes that are there by now.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Downloads the files that are not there yet.
    ///
    /// # Errors
    /// The first that occurs; other files may be there or not.
    pub async fn files(&self, files: &[File]) -> Result<(), DownloadError> {
        let all = stream::iter(files).map(|file| self.file(file)).buffer_unordered(AT_ONCE);
        all.try_collect().await
    }

    async fn file(&self, file: &File) -> Result<(), DownloadError> {
        let path = || file.path.to_string();
        check(&file.path).map_err(|why| DownloadError::Path(path(), why))?;
        let failed = |error| DownloadError::Write(path(), error);
        let (directory, name) = self.directory(&file.path).map_err(failed)?;
        if is_there(&directory, name, file).map_err(failed)? {
            self.bytes.fetch_add(file.size, Ordering::Relaxed);
            return Ok(());
        }
        let partial = partial_name(file);
        let mut begun = Begun::open(&directory, &partial, file.size).map_err(failed)?;
        let resumed = begun.length > 0;
        self.whole(file, &mut begun).await?;
        if resumed && begun.digest() != file.sha256 {
            // What was there is not the beginning of this file.
            self.bytes.fetch_sub(begun.length, Ordering::Relaxed);
            begun = begun.anew().map_err(failed)?;
            self.whole(file, &mut begun).await?;
        }
        let found = begun.digest();
        if found != file.sha256 {
            return Err(DownloadError::Digest { path: path(), found, expected: file.sha256 });
        }
        renameat(&directory, &partial, &directory, name).map_err(|error| failed(error.into()))
    }

    /// Reads from the store until the file is whole, whatever ends in between.
    async fn whole(&self, file: &File, begun: &mut Begun) -> Result<(), DownloadError> {
        self.bytes.fetch_add(begun.length, Ordering::Relaxed);
        let mut tries = 0;
        while begun.length < file.size {
            let before = begun.length;
            match self.more(file, begun).await {
                Err(DownloadError::Store(_, StoreError::Store(error))) if tries < TRIES => {
                    tries = if begun.length > before { 1 } else { tries + 1 };
                    tracing::debug!(path = &*file.path, %error, "the download goes on after a pause");
                    tokio::time::sleep(PAUSE).await;
                }
                ended => ended?,
            }
        }
        Ok(())
    }

    /// Reads from the store until the file is whole or an answer ends early.
    async fn more(&self, file: &File, begun: &mut Begun) -> Result<(), DownloadError> {
        let store = |error| DownloadError::Store(file.path.to_string(), error);
        let opened = self.store.open(&file.path, Some(begun.length..file.size)).await.map_err(store)?;
        let mut bytes = opened.bytes;
        while let Some(piece) = bytes.try_next().await.map_err(store)? {
            begun.write(&piece).map_err(|error| DownloadError::Write(file.path.to_string(), error))?;
            self.bytes.fetch_add(u64::try_from(piece.len()).unwrap_or_default(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Makes and opens the directory of a path; returns it with the name of the file.
    fn directory<'p>(&self, path: &'p str) -> io::Result<(OwnedFd, &'p str)> {
        let mut opened = openat(&self.into, c".", DIRECTORY, Mode::empty())?;
        let (directories, name) = path.rsplit_once('/').unwrap_or(("", path));
        for component in directories.split('/').filter(|component| !component.is_empty()) {
            match mkdirat(&opened, component, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            opened = openat(&opened, component, DIRECTORY, Mode::empty())?;
        }
        Ok((opened, name))
    }
}

/// The name that the file has before it is whole: another one for each path and each digest.
pub fn partial_name(file: &File) -> String {
    let mut context = Context::new(&SHA256);
    context.update(&file.sha256.0);
    context.update(file.path.as_bytes());
    let name = Digest::of(context).to_string();
    format!("{PARTIAL}{name:.16}")
}

/// Whether the file is there with these bytes.
fn is_there(directory: &OwnedFd, name: &str, wanted: &File) -> io::Result<bool> {
    let file = match openat(directory, name, FILE.union(OFlags::RDONLY), Mode::empty()) {
        Ok(file) => Open::from(file),
        // A symbolic link is replaced.
        Err(Errno::NOENT | Errno::LOOP) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let data = file.metadata()?;
    if !data.is_file() || data.len() != wanted.size {
        return Ok(false);
    }
    let mut context = Context::new(&SHA256);
    hash(&file, &mut context)?;
    Ok(Digest::of(context) == wanted.sha256)
}

/// Hashes a file from where it is to its end; returns the bytes.
fn hash(mut file: &Open, context: &mut Context) -> io::Result<u64> {
    let (mut step, mut length) = (vec![0; STEP], 0);
    loop {
        let read = file.read(&mut step)?;
        let Some(bytes) = step.get(..read).filter(|bytes| !bytes.is_empty()) else { return Ok(length) };
        context.update(bytes);
        length += u64::try_from(read).map_err(io::Error::other)?;
    }
}

/// A file that is not whole yet.
struct Begun {
    file: Open,
    length: u64,
    context: Context,
}

impl Begun {
    /// Opens what an earlier download left, or begins.
    fn open(directory: &OwnedFd, partial: &str, size: u64) -> io::Result<Self> {
        let flags = FILE.union(OFlags::RDWR).union(OFlags::CREATE);
        let mut file = Open::from(openat(directory, partial, flags, Mode::from_raw_mode(0o666))?);
        if file.metadata()?.len() > size {
            file.set_len(0)?;
        }
        file.seek(SeekFrom::Start(0))?;
        let mut context = Context::new(&SHA256);
        let length = hash(&file, &mut context)?;
        Ok(Self { file, length, context })
    }

    /// Begins once more.
    fn anew(self) -> io::Result<Self> {
        let mut file = self.file;
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(Self { file, length: 0, context: Context::new(&SHA256) })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.context.update(bytes);
        self.length += u64::try_from(bytes.len()).map_err(io::Error::other)?;
        Ok(())
    }

    fn digest(&self) -> Digest {
        Digest::of(self.context.clone())
    }
}
