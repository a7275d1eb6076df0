//! The manifest: what the results of a job are.

mod scan;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use self::scan::Head;
pub(crate) use self::scan::scan;
use crate::path::BadPath;

/// The form that this code writes, and the only form that it reads.
const VERSION: u32 = 1;
/// Most results of one job.
pub(crate) const MOST_FILES: usize = 200_000;
/// Most files that a manifest names as left out; more are counted.
pub(crate) const MOST_SKIPPED: usize = 1_000;
/// Longest manifest that is read, in bytes.
pub(crate) const LONGEST: usize = 96 * 1024 * 1024;
/// Longest text of a manifest, in bytes.
const LONGEST_TEXT: usize = 4_096;

/// A SHA-256 digest; as text, 64 hexadecimal digits in lower case.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of what was hashed, with SHA-256.
    pub(crate) fn of(hashed: ring::digest::Context) -> Self {
        let mut digest = [0; 32];
        digest.copy_from_slice(hashed.finish().as_ref());
        Self(digest)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WHY: &str = "a digest has 64 hexadecimal digits in lower case";
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(WHY),
        };
        let mut digest = [0; 32];
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != digest.len() || !rest.is_empty() {
            return Err(WHY);
        }
        for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Ok(Self(digest))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// A result that is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Path below the prefix of the job, and below the directory of results.
    pub path: Box<str>,
    /// Bytes.
    pub size: u64,
    /// Digest of the bytes.
    pub sha256: Digest,
}

/// A file that was found and is not stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skipped {
    /// Its path; bytes that are no text are escaped.
    pub path: String,
    /// Why it is not stored.
    pub reason: String,
}

/// The results of a job. It is stored last, so its files are stored when it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// Form of the manifest.
    pub version: u32,
    /// Identifier of the job.
    pub job: String,
    /// Whether every regular file that the job left is stored.
    pub complete: bool,
    /// Why not, if not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Bytes of all files.
    pub total: u64,
    /// What was found and is not stored: files, if the manifest is not complete, and symbolic links, sockets, devices and
    /// pipes, which are no results.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
    /// How many more there are than `skipped` names.
    #[serde(skip_serializing_if = "is_zero")]
    pub more_skipped: u64,
    /// What is stored, ordered by path.
    pub files: Vec<File>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Why bytes are no manifest.
#[derive(Debug, thiserror::Error)]
pub enum BadManifest {
    /// It is not read at all.
    #[error("the manifest is longer than {LONGEST} bytes")]
    Long,
    /// No JSON, or not of this shape.
    #[error("the manifest cannot be read")]
    Json(#[from] serde_json::Error),
    /// It is written by another version.
    #[error("the manifest has version {0}, this program reads version {VERSION}")]
    Version(u32),
    /// It names too many files.
    #[error("the manifest names more than {MOST_FILES} files")]
    Many,
    /// A text is too long.
    #[error("the manifest has a text that is longer than {LONGEST_TEXT} bytes")]
    Text,
    /// A path that no result can have.
    #[error("the manifest names {0:?}: {1}")]
    Path(Box<str>, #[source] BadPath),
    /// Files are not in the order of their paths, or a path is there twice.
    #[error("the manifest names {0:?} out of order")]
    Order(Box<str>),
    /// Sizes do not add up to the total.
    #[error("the sizes of the files do not add up to {0} bytes")]
    Total(u64),
    /// The manifest has `complete: true` and a reason, or `complete: false` and no reason.
    #[error("the manifest says neither that it is complete nor why it is not, or both")]
    Reason,
}

impl Manifest {
    /// A manifest of `files`, which need not be in order. Without a `reason` it is complete.
    pub fn new(job: &str, mut files: Vec<File>, reason: Option<String>) -> Self {
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let total = files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.size));
        Self {
            version: VERSION,
            job: job.to_owned(),
            complete: reason.is_none(),
            reason,
            total,
            skipped: Vec::new(),
            more_skipped: 0,
            files,
        }
    }

    /// Reads a manifest. Whoever wrote it: what comes out keeps the rules that this crate writes by.
    ///
    /// # Errors
    /// The first rule that the manifest breaks.
    pub fn read(bytes: &[u8]) -> Result<Self, BadManifest> {
        if bytes.len() > LONGEST {
            return Err(BadManifest::Long);
        }
        let mut files = Vec::new();
        let head = scan(bytes, &mut |file| files.push(file))?;
        Ok(Self::of(head, files))
    }

    /// The manifest with this head and these files, which were read together.
    pub(crate) fn of(head: Head, files: Vec<File>) -> Self {
        let Head { job, reason, total, skipped, more_skipped, .. } = head;
        Self { version: VERSION, job, complete: reason.is_none(), reason, total, skipped, more_skipped, files }
    }

    /// The manifest as JSON, in pieces of at least `size` bytes besides the last, so that it need not be in memory twice.
    pub(crate) fn pieces(&self, size: usize) -> impl Iterator<Item = Vec<u8>> {
        let mut head = serde_json::to_vec(&self.head()).expect("a manifest is JSON");
        // `files` is the last field, so the head ends with `]}`.
        head.truncate(head.len().saturating_sub(2));
        let (mut piece, mut files, mut first) = (Some(head), self.files.iter(), true);
        std::iter::from_fn(move || {
            let mut bytes = piece.take()?;
            for file in files.by_ref() {
                if !std::mem::take(&mut first) {
                    bytes.push(b',');
                }
                serde_json::to_writer(&mut bytes, file).expect("a file of a manifest is JSON");
                if bytes.len() >= size {
                    piece = Some(Vec::new());
                    return Some(bytes);
                }
            }
            bytes.extend_from_slice(b"]}");
            Some(bytes)
        })
    }

    /// The manifest without its files.
    fn head(&self) -> Self {
        let Self { version, complete, total, more_skipped, .. } = *self;
        let (job, reason, skipped) = (self.job.clone(), self.reason.clone(), self.skipped.clone());
        Self { version, job, complete, reason, total, skipped, more_skipped, files: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::check;

    fn file(path: &str, size: u64) -> File {
        File { path: path.into(), size, sha256: Digest([0xa5; 32]) }
    }

    fn manifest() -> Manifest {
        let mut manifest = Manifest::new("team-a/uid", vec![file("b", 2), file("a/ü", 1)], None);
        manifest.skipped.push(Skipped { path: "link".into(), reason: "a symbolic link".into() });
        manifest
    }

    fn written(manifest: &Manifest) -> String {
        serde_json::to_string(manifest).unwrap()
    }

    #[test]
    fn digests_are_text() {
        let text = "00ff".repeat(16);
        assert_eq!(text.parse::<Digest>().unwrap().to_string(), text);
        for bad in ["", "00", &text.to_uppercase(), &"0g".repeat(32), &"00".repeat(33), &"ü".repeat(32)] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let incomplete = Manifest::new("j", Vec::new(), Some("too much".into()));
        for manifest in [manifest(), incomplete] {
            assert_eq!(Manifest::read(written(&manifest).as_bytes()).unwrap(), manifest);
            for size in [1, 100, 1000] {
                let pieces: Vec<_> = manifest.pieces(size).collect();
                assert!(pieces.split_last().unwrap().1.iter().all(|piece| piece.len() >= size));
                assert_eq!(String::from_utf8(pieces.concat()).unwrap(), written(&manifest), "{size}");
            }
        }
        let json = written(&manifest());
        assert!(
            json.starts_with(r#"{"version":1,"job":"team-a/uid","complete":true,"total":3,"skipped":[{"path":"link""#)
        );
        assert!(json.contains(r#""files":[{"path":"a/ü","size":1,"sha256":"a5a5"#), "{json}");
    }

    #[test]
    fn claims_are_compared() {
        let changed = |change: &dyn Fn(&mut Manifest)| {
            let mut manifest = manifest();
            change(&mut manifest);
            Manifest::read(written(&manifest).as_bytes()).unwrap_err().to_string()
        };
        for (error, said) in [
            (changed(&|m| m.version = 2), "version 2"),
            (changed(&|m| m.total = 4), "add up to 4"),
            (changed(&|m| m.files[0].size = u64::MAX), "add up"),
            (changed(&|m| m.files.swap(0, 1)), "out of order"),
            (changed(&|m| m.files[1].path = "a/ü".into()), "out of order"),
            (changed(&|m| m.files[0].path = "../a".into()), "`..`"),
            (changed(&|m| m.files[0].path = ".liqo/manifest.json".into()), "reserved"),
            (changed(&|m| m.complete = false), "neither"),
            (changed(&|m| m.reason = Some("x".into())), "both"),
            (changed(&|m| m.job = "j".repeat(LONGEST_TEXT + 1)), "longer than 4096"),
            (changed(&|m| m.skipped = vec![m.skipped[0].clone(); MOST_SKIPPED + 1]), "more than"),
        ] {
            assert!(error.contains(said), "{error}");
        }
        let json = written(&manifest());
        for (from, to) in [
            ("\"total\"", "\"other\":1,\"total\""),
            ("\"size\":1", "\"size\":-1"),
            ("a5a5", "A5A5"),
            ("\"job\"", "\"jab\""),
        ] {
            let error = Manifest::read(json.replace(from, to).as_bytes()).unwrap_err();
            assert!(matches!(error, BadManifest::Json(_)), "{from}: {error}");
        }
        assert!(matches!(Manifest::read(&vec![b' '; LONGEST + 1]), Err(BadManifest::Long)));
    }

    /// What is accepted is written and read again as it is.
    #[test]
    fn fuzz_manifest() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "manifest", |bytes| {
            let Ok(manifest) = Manifest::read(bytes) else { return };
            assert_eq!(Manifest::read(written(&manifest).as_bytes()).unwrap(), manifest);
            assert!(manifest.files.iter().all(|file| check(&file.path).is_ok()));
        });
    }
}
