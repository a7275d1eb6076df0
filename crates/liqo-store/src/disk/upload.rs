//! Uploads in parts.
//!
//! An upload is a directory: the key, and one file for each part. Parts are put together behind the first one, each is removed when
//! its bytes are there, so an upload needs no more space than its parts and one. Meanwhile the directory has another name, so that
//! no request finds the upload: nobody ends it twice, and no part changes.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use liqo_results::keys::LIFE;
use ring::rand::{SecureRandom, SystemRandom};
use s3s::{S3Error, s3_error};

use super::{Disk, Draft, etag, failed, is_nowhere};

/// Most parts of an upload, as everywhere.
pub(crate) const MOST_PARTS: i32 = 10_000;
/// Fewest bytes of a part that is not the last, as everywhere.
const SMALLEST_PART: u64 = 5 * 1024 * 1024;
/// Uploads that nothing was added to for so long are removed: no key that began one is left then.
const OLD: Duration = Duration::from_secs(2 * LIFE);
/// The file with the key.
const KEY: &str = "key";
/// What the name of the directory goes on with while the parts are put together.
const ENDING: &str = ".ending";

/// A part that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) number: i32,
    pub(crate) size: u64,
    pub(crate) etag: String,
}

impl Disk {
    /// Begins an upload; returns its identifier, which nobody can guess.
    pub(crate) fn begin_upload(&self, key: &str) -> Result<String, S3Error> {
        self.path(key)?;
        let mut random = [0_u8; 16];
        SystemRandom::new().fill(&mut random).map_err(|_| s3_error!(InternalError, "no random numbers"))?;
        let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let directory = self.uploads.join(&id);
        fs::create_dir(&directory).and_then(|()| fs::write(directory.join(KEY), key)).map_err(failed)?;
        Ok(id)
    }

    /// Directory of an upload of this key.
    fn upload(&self, id: &str, key: &str) -> Result<PathBuf, S3Error> {
        if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(unknown());
        }
        let directory = self.uploads.join(id);
        match fs::read(directory.join(KEY)) {
            Ok(of) if of == key.as_bytes() => Ok(directory),
            Ok(_) => Err(unknown()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(unknown()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Whether there is such an upload of this key.
    pub(crate) fn has_upload(&self, id: &str, key: &str) -> Result<(), S3Error> {
        self.upload(id, key).map(drop)
    }

    /// Makes a file a part of an upload, in place of an earlier one of this number, unless the prefix `writer` is closed.
    pub(crate) fn keep_part(
        &self,
        draft: Draft,
        (id, key): (&str, &str),
        number: i32,
        writer: Option<&str>,
    ) -> Result<String, S3Error> {
        let directory = self.upload(id, key)?;
        if !(1..=MOST_PARTS).contains(&number) {
            return Err(s3_error!(InvalidArgument, "parts have numbers from 1 to {MOST_PARTS}"));
        }
        let path = directory.join(number.to_string());
        // The upload may have ended while the bytes came.
        let gone = |error| if is_nowhere(&error) { unknown() } else { failed(error) };
        self.place(draft, &path, writer, |from| fs::rename(from, &path).map_err(gone))
    }

    /// The parts that are stored, by number.
    pub(crate) fn parts(&self, id: &str, key: &str) -> Result<Vec<Part>, S3Error> {
        parts(&self.upload(id, key)?).map_err(failed)
    }

    /// Whether the upload can be ended with these parts, which are named by number and entity tag.
    pub(crate) fn may_end(&self, (id, key): (&str, &str), wanted: &[(i32, String)]) -> Result<(), S3Error> {
        judge(&self.parts(id, key)?, wanted)
    }

    /// Puts the parts together and makes them the object, unless the prefix `writer` is closed. The parts are named by number and
    /// entity tag.
    pub(crate) fn end_upload(
        &self,
        (id, key): (&str, &str),
        wanted: &[(i32, String)],
        writer: Option<&str>,
    ) -> Result<String, S3Error> {
        self.may_end((id, key), wanted)?;
        let ending = Ending::begin(self.upload(id, key)?)?;
        // A part may have changed meanwhile; from here on none does.
        if let Err(why) = parts(&ending.0).map_err(failed).and_then(|parts| judge(&parts, wanted)) {
            ending.undo();
            return Err(why);
        }
        let draft = ending.join(wanted).map_err(failed)?;
        self.keep(draft, key, writer)
    }

    /// Removes uploads that a process which was killed had begun to put together.
    pub(super) fn remove_ending(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.uploads)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().ends_with(ENDING.as_bytes()) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    /// Forgets an upload.
    pub(crate) fn abort_upload(&self, id: &str, key: &str) -> Result<(), S3Error> {
        let directory = self.upload(id, key)?;
        fs::remove_dir_all(directory).map_err(failed)
    }

    /// Ends all uploads of objects whose keys begin so.
    pub(super) fn end_uploads_below(&self, beginning: &str) -> io::Result<()> {
        for entry in fs::read_dir(&self.uploads)? {
            let directory = entry?.path();
            let is_below = match fs::read(directory.join(KEY)) {
                Ok(key) => key.starts_with(beginning.as_bytes()),
                Err(error) if is_nowhere(&error) => false,
                Err(error) => return Err(error),
            };
            if is_below {
                fs::remove_dir_all(directory)?;
            }
        }
        Ok(())
    }

    /// Removes old uploads, and what is left of keys that ended; returns how many uploads.
    pub(crate) fn sweep(&self) -> io::Result<u64> {
        self.forget_closed()?;
        self.sweep_before(SystemTime::now().checked_sub(OLD).unwrap_or(SystemTime::UNIX_EPOCH))
    }

    fn sweep_before(&self, before: SystemTime) -> io::Result<u64> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.uploads)? {
            let entry = entry?;
            // The directory changes with each part that comes.
            if entry.metadata()?.modified()? < before {
                fs::remove_dir_all(entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

fn unknown() -> S3Error {
    s3_error!(NoSuchUpload, "there is no such upload of this key")
}

/// The parts in the directory of an upload, by number.
fn parts(directory: &Path) -> io::Result<Vec<Part>> {
    let mut parts = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            let data = entry.metadata()?;
            parts.push(Part { number, size: data.len(), etag: etag(&data) });
        }
    }
    parts.sort_unstable_by_key(|part| part.number);
    Ok(parts)
}

/// The directory of an upload whose parts are being put together; goes with this value.
struct Ending(PathBuf);

impl Ending {
    fn begin(directory: PathBuf) -> Result<Self, S3Error> {
        let mut name = directory.clone().into_os_string();
        name.push(ENDING);
        match fs::rename(&directory, &name) {
            Ok(()) => Ok(Self(name.into())),
            Err(error) if is_nowhere(&error) => Err(unknown()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Nothing was put together: the upload is as it was.
    fn undo(mut self) {
        let name = std::mem::take(&mut self.0);
        let _ = fs::rename(&name, name.with_extension(""));
    }

    /// One file with the bytes of all parts, in this order.
    fn join(&self, wanted: &[(i32, String)]) -> io::Result<Draft> {
        let path = |number: i32| self.0.join(number.to_string());
        let mut numbers = wanted.iter().map(|(number, _)| *number);
        let first = path(numbers.next().unwrap_or_default());
        let file = OpenOptions::new().read(true).append(true).open(&first)?;
        let mut draft = Draft { path: first, file, kept: false };
        for number in numbers {
            io::copy(&mut File::open(path(number))?, &mut draft.file)?;
            fs::remove_file(path(number))?;
        }
        Ok(draft)
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// Whether an upload with these parts can be ended with those that the client names.
fn judge(stored: &[Part], wanted: &[(i32, String)]) -> Result<(), S3Error> {
    if wanted.is_empty() {
        return Err(s3_error!(InvalidPart, "an upload has at least one part"));
    }
    if wanted.iter().zip(wanted.iter().skip(1)).any(|((a, _), (b, _))| a >= b) {
        return Err(s3_error!(InvalidPartOrder, "parts must be named in the order of their numbers"));
    }
    for (index, (number, etag)) in wanted.iter().enumerate() {
        let found = stored.binary_search_by_key(number, |part| part.number).ok().and_then(|at| stored.get(at));
        match found {
            Some(part) if part.etag != *etag => {
                return Err(s3_error!(InvalidPart, "part {number} is another one than that which is named"));
            }
            Some(part) if index + 1 < wanted.len() && part.size < SMALLEST_PART => {
                return Err(s3_error!(EntityTooSmall, "part {number} has fewer than {SMALLEST_PART} bytes"));
            }
            Some(_) => {}
            None => return Err(s3_error!(InvalidPart, "there is no part {number}")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::{super::tests::Here, *};

    fn part(here: &Here, id: &str, number: i32, bytes: &[u8]) -> Result<String, S3Error> {
        let mut draft = here.0.draft().unwrap();
        draft.file.write_all(bytes).unwrap();
        here.0.keep_part(draft, (id, "a/big"), number, None)
    }

    fn code<T: std::fmt::Debug>(outcome: Result<T, S3Error>) -> String {
        outcome.unwrap_err().code().as_str().to_owned()
    }

    #[test]
    fn parts_become_one_object() {
        let here = Here::new("parts");
        let id = here.0.begin_upload("a/big").unwrap();
        let large = vec![b'x'; usize::try_from(SMALLEST_PART).unwrap()];
        part(&here, &id, 1, b"replaced").unwrap();
        let last = part(&here, &id, 3, b"end").unwrap();
        let first = part(&here, &id, 1, &large).unwrap();
        let numbers: Vec<_> = here.0.parts(&id, "a/big").unwrap().iter().map(|part| (part.number, part.size)).collect();
        assert_eq!(numbers, [(1, SMALLEST_PART), (3, 3)]);
        assert_eq!(code(here.0.read("a/big")), "NoSuchKey");
        let wanted = [(1, first), (3, last)];
        assert_eq!(code(here.0.end_upload((&id, "a/other"), &wanted, None)), "NoSuchUpload");
        here.0.end_upload((&id, "a/big"), &wanted, None).unwrap();
        let mut bytes = Vec::new();
        here.0.read("a/big").unwrap().0.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [&large[..], b"end"].concat());
        assert_eq!(code(here.0.end_upload((&id, "a/big"), &wanted, None)), "NoSuchUpload");
        assert_eq!(fs::read_dir(&here.0.uploads).unwrap().count(), 0);
    }

    /// A process that was killed while parts were put together leaves nothing that a client could go on with.
    #[test]
    fn an_upload_ends_once() {
        let here = Here::new("ending");
        let id = here.0.begin_upload("a/big").unwrap();
        let wanted = [(1, part(&here, &id, 1, b"all").unwrap())];
        let ending = Ending::begin(here.0.upload(&id, "a/big").unwrap()).unwrap();
        assert_eq!(code(part(&here, &id, 2, b"late")), "NoSuchUpload");
        assert_eq!(code(here.0.end_upload((&id, "a/big"), &wanted, None)), "NoSuchUpload");
        ending.undo();
        assert_eq!(code(here.0.end_upload((&id, "a/big"), &[(1, "other".into())], None)), "InvalidPart");
        std::mem::forget(Ending::begin(here.0.upload(&id, "a/big").unwrap()).unwrap());
        here.0.remove_ending().unwrap();
        assert_eq!(fs::read_dir(&here.0.uploads).unwrap().count(), 0);
    }

    #[test]
    fn uploads_are_judged() {
        let stored: Vec<_> = [(1, SMALLEST_PART), (2, 1), (3, 1)]
            .map(|(number, size)| Part { number, size, etag: number.to_string() })
            .into();
        let judged = |wanted: &[(i32, &str)]| {
            let wanted: Vec<_> = wanted.iter().map(|(number, etag)| (*number, (*etag).to_owned())).collect();
            judge(&stored, &wanted).map_err(|error| error.code().as_str().to_owned())
        };
        assert_eq!(judged(&[(1, "1"), (2, "2")]), Ok(()));
        assert_eq!(judged(&[(3, "3")]), Ok(()));
        for (wanted, expected) in [
            (&[][..], "InvalidPart"),
            (&[(4, "4")], "InvalidPart"),
            (&[(1, "2")], "InvalidPart"),
            (&[(2, "2"), (1, "1")], "InvalidPartOrder"),
            (&[(1, "1"), (1, "1")], "InvalidPartOrder"),
            (&[(1, "1"), (2, "2"), (3, "3")], "EntityTooSmall"),
        ] {
            assert_eq!(judged(wanted), Err(expected.into()), "{wanted:?}");
        }
    }

    #[test]
    fn uploads_that_nobody_knows() {
        let here = Here::new("unknown");
        let id = here.0.begin_upload("a/big").unwrap();
        for unknown in ["", "..", "../../liqo-jobs", &"0".repeat(32), &"/".repeat(32)] {
            assert_eq!(code(part(&here, unknown, 1, b"")), "NoSuchUpload", "{unknown}");
        }
        for number in [0, -1, MOST_PARTS + 1] {
            assert_eq!(code(part(&here, &id, number, b"")), "InvalidArgument", "{number}");
        }
        assert_eq!(code(here.0.begin_upload("../x")), "InvalidArgument");
        here.0.abort_upload(&id, "a/big").unwrap();
        assert_eq!(code(here.0.has_upload(&id, "a/big")), "NoSuchUpload");
    }

    #[test]
    fn old_uploads_go() {
        let here = Here::new("old");
        let id = here.0.begin_upload("a/big").unwrap();
        assert_eq!(here.0.sweep().unwrap(), 0);
        assert_eq!(here.0.sweep_before(SystemTime::now() + OLD).unwrap(), 1);
        assert!(here.0.has_upload(&id, "a/big").is_err());
    }
}
