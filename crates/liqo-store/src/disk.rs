//! Objects as files.
//!
//! An object is the file `<data>/<bucket>/<key>`. What is being written lies in `<data>/.liqo-store`, on the same file system.
//!
//! Keeps true: a file comes to its place by renaming, after its bytes and before its acknowledgement are on the disk, so that an
//! object is whole or not there, whatever ends when. No path leads out of the bucket: keys are judged again here.

mod close;
mod list;
mod upload;

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use http::StatusCode;
use liqo_results::check_key;
use s3s::{S3Error, S3ErrorCode, s3_error};

pub(crate) use self::list::{Entry, Wanted};

/// Directory for what is no object yet: no bucket can have this name.
const OWN: &str = ".liqo-store";
/// How often a directory is made again that was removed as empty at the same time.
const TRIES: usize = 8;

/// The directory of the store.
#[derive(Debug)]
pub(crate) struct Disk {
    bucket: PathBuf,
    temporary: PathBuf,
    uploads: PathBuf,
    closed: PathBuf,
    /// Held for reading while a file gets its name, for writing while a prefix is closed. Nobody holds the lock while bytes are moved.
    closing: RwLock<()>,
    next: AtomicU64,
}

/// A file that is being written; dropped before it is kept, it is removed.
#[derive(Debug)]
pub(crate) struct Draft {
    path: PathBuf,
    pub(crate) file: File,
    kept: bool,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Disk {
    /// Opens the directory; what a process that was killed left unfinished is removed, besides uploads in parts that nobody had begun
    /// to put together.
    pub(crate) fn open(data: &Path, bucket: &str) -> io::Result<Self> {
        let own = data.join(OWN);
        let (bucket, temporary, uploads) = (data.join(bucket), own.join("new"), own.join("uploads"));
        let closed = own.join("closed");
        match fs::remove_dir_all(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        for directory in [&bucket, &temporary, &uploads, &closed] {
            fs::create_dir_all(directory)?;
        }
        let disk = Self { bucket, temporary, uploads, closed, closing: RwLock::new(()), next: AtomicU64::new(0) };
        disk.remove_ending()?;
        Ok(disk)
    }

    /// Whether objects can be stored.
    pub(crate) fn is_usable(&self) -> bool {
        self.bucket.is_dir() && self.temporary.is_dir()
    }

    /// File of an object.
    fn path(&self, key: &str) -> Result<PathBuf, S3Error> {
        check_key(key)
            .map_err(|why| s3_error!(InvalidArgument, "the key of an object here is the path of a file: {why}"))?;
        Ok(self.bucket.join(key))
    }

    /// Begins a file.
    pub(crate) fn draft(&self) -> io::Result<Draft> {
        let path = self.temporary.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        Ok(Draft { path, file, kept: false })
    }

    /// Makes a file the object `key`, unless the prefix `writer` is closed. Returns what the object is called then.
    pub(crate) fn keep(&self, draft: Draft, key: &str, writer: Option<&str>) -> Result<String, S3Error> {
        let path = self.path(key)?;
        let directory = path.parent().unwrap_or(&self.bucket);
        self.place(draft, &path, writer, |from| rename_into(from, &path, directory).map_err(failed))
    }

    /// Gives a file its name by `rename`. The bytes go to the disk before, without the lock of prefixes: that may take minutes.
    fn place(
        &self,
        mut draft: Draft,
        path: &Path,
        writer: Option<&str>,
        rename: impl FnOnce(&Path) -> Result<(), S3Error>,
    ) -> Result<String, S3Error> {
        draft.file.sync_data().map_err(failed)?;
        self.writing(writer, || rename(&draft.path))?;
        draft.kept = true;
        let etag = draft.file.metadata().map(|data| etag(&data)).map_err(failed)?;
        match File::open(path.parent().unwrap_or(&self.bucket)).and_then(|directory| directory.sync_all()) {
            // Somebody removed the object, and with it the directory.
            Err(error) if !is_nowhere(&error) => Err(failed(error)),
            _ => Ok(etag),
        }
    }

    /// Opens an object.
    pub(crate) fn read(&self, key: &str) -> Result<(File, Metadata), S3Error> {
        let opened = File::open(self.path(key)?).and_then(|file| Ok((file.metadata()?, file)));
        match opened {
            Ok((data, file)) if data.is_file() => Ok((file, data)),
            Ok(_) => Err(s3_error!(NoSuchKey)),
            Err(error) if is_nowhere(&error) => Err(s3_error!(NoSuchKey)),
            Err(error) => Err(failed(error)),
        }
    }

    /// Removes an object, if it is there, and directories that are empty then.
    pub(crate) fn remove(&self, key: &str) -> Result<(), S3Error> {
        let path = self.path(key)?;
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if is_nowhere(&error) || error.kind() == io::ErrorKind::IsADirectory => return Ok(()),
            Err(error) => return Err(failed(error)),
        }
        let parents = path.ancestors().skip(1).take_while(|parent| *parent != self.bucket);
        for parent in parents {
            if fs::remove_dir(parent).is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// Renames a file into a directory, which is made if it is not there.
fn rename_into(from: &Path, to: &Path, directory: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        fs::create_dir_all(directory)?;
        match fs::rename(from, to) {
            // Another request removed the last object of the directory, and with it the directory.
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < TRIES => tries += 1,
            renamed => return renamed,
        }
    }
}

/// There is no such file: nothing at this path, or its parent is a file.
fn is_nowhere(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The entity tag of a file: another one for each object that was at this key. No digest, and by its form not taken for one.
pub(crate) fn etag(data: &Metadata) -> String {
    let time = i128::from(data.mtime()) * 1_000_000_000 + i128::from(data.mtime_nsec());
    format!("{:x}-{time:x}-{:x}", data.ino(), data.len())
}

/// What a client is told when the disk does not do what it should.
pub(crate) fn failed(error: io::Error) -> S3Error {
    use io::ErrorKind::{
        AlreadyExists, DirectoryNotEmpty, FileTooLarge, IsADirectory, NotADirectory, QuotaExceeded, StorageFull,
    };
    let (code, status, text) = match error.kind() {
        StorageFull | QuotaExceeded => {
            ("StorageFull", StatusCode::INSUFFICIENT_STORAGE, "the disk of the store is full")
        }
        FileTooLarge => {
            ("EntityTooLarge", StatusCode::BAD_REQUEST, "the file system of the store has no files of this size")
        }
        AlreadyExists | DirectoryNotEmpty | IsADirectory | NotADirectory => (
            "KeyConflict",
            StatusCode::CONFLICT,
            "keys are paths here: one object cannot be both a file and a directory",
        ),
        _ => {
            tracing::error!(%error, "the disk failed");
            ("InternalError", StatusCode::INTERNAL_SERVER_ERROR, "the disk of the store failed")
        }
    };
    let code = S3ErrorCode::from_bytes(code.as_bytes()).unwrap_or(S3ErrorCode::InternalError);
    let mut s3 = S3Error::with_message(code, text);
    s3.set_status_code(status);
    s3.set_source(Box::new(error));
    s3
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{Read, Write};

    use super::*;

    /// A store in a directory of its own; the directory is removed with it.
    pub(crate) struct Here(pub(crate) Disk, PathBuf);

    impl Here {
        pub(crate) fn new(name: &str) -> Self {
            let data = std::env::temp_dir().join(format!("liqo-disk-{name}-{}", std::process::id()));
            Self(Disk::open(&data, "liqo-jobs").unwrap(), data)
        }

        pub(crate) fn put(&self, key: &str, bytes: &[u8]) -> Result<String, S3Error> {
            let mut draft = self.0.draft().unwrap();
            draft.file.write_all(bytes).unwrap();
            self.0.keep(draft, key, None)
        }
    }

    impl Drop for Here {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.1).unwrap();
        }
    }

    fn code(error: &S3Error) -> (&str, Option<StatusCode>) {
        (error.code().as_str(), error.status_code())
    }

    #[test]
    fn an_object_is_whole_or_not_there() {
        let here = Here::new("whole");
        let mut draft = here.0.draft().unwrap();
        draft.file.write_all(b"half").unwrap();
        assert_eq!(code(&here.0.read("a/x").unwrap_err()).0, "NoSuchKey");
        drop(draft);
        assert_eq!(fs::read_dir(&here.0.temporary).unwrap().count(), 0);
        let first = here.put("a/x", b"one").unwrap();
        let (mut file, data) = here.0.read("a/x").unwrap();
        assert_eq!(etag(&data), first);
        let second = here.put("a/x", b"two").unwrap();
        assert_ne!(first, second);
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one", "who reads goes on reading the same object");
        here.0.remove("a/x").unwrap();
        here.0.remove("a/x").unwrap();
        assert!(!here.0.bucket.join("a").exists() && here.0.is_usable());
    }

    #[test]
    fn a_store_that_was_killed_leaves_no_drafts() {
        let here = Here::new("killed");
        std::mem::forget(here.0.draft().unwrap());
        let again = Disk::open(&here.1, "liqo-jobs").unwrap();
        assert_eq!(fs::read_dir(&again.temporary).unwrap().count(), 0);
    }

    #[test]
    fn keys_that_are_no_files_are_refused() {
        let here = Here::new("keys");
        here.put("file", b"").unwrap();
        here.put("directory/x", b"").unwrap();
        for (key, expected) in [
            ("../x", "InvalidArgument"),
            ("/etc/passwd", "InvalidArgument"),
            ("a//b", "InvalidArgument"),
            ("a/", "InvalidArgument"),
            ("file/x", "KeyConflict"),
            ("directory", "KeyConflict"),
        ] {
            assert_eq!(code(&here.put(key, b"").unwrap_err()).0, expected, "{key}");
        }
        for key in ["file/x", "directory"] {
            assert_eq!(code(&here.0.read(key).unwrap_err()).0, "NoSuchKey", "{key}");
            here.0.remove(key).unwrap();
        }
        assert!(here.0.read("directory/x").is_ok() && here.0.read("file").is_ok());
        let longest = format!("{0}/{0}/{0}/{1}", "l".repeat(255), "m".repeat(255));
        here.put(&longest, b"long").unwrap();
        assert!(here.0.read(&longest).is_ok());
    }

    #[test]
    fn errors_of_the_disk_have_names() {
        let told = |kind: io::ErrorKind| {
            let error = failed(kind.into());
            (error.code().as_str().to_owned(), error.status_code().unwrap().as_u16())
        };
        assert_eq!(told(io::ErrorKind::StorageFull), ("StorageFull".into(), 507));
        assert_eq!(told(io::ErrorKind::QuotaExceeded), ("StorageFull".into(), 507));
        assert_eq!(told(io::ErrorKind::IsADirectory), ("KeyConflict".into(), 409));
        assert_eq!(told(io::ErrorKind::Other), ("InternalError".into(), 500));
    }
}
