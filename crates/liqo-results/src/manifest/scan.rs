//! Reads manifests, which whoever had the key of a mover may have written.
//!
//! Keeps true: the bounds of a manifest hold while it is read, so that memory holds one file and the files that the caller keeps; the
//! first rule that is broken ends the reading.

use std::{
    fmt,
    io::{self, BufReader, Read},
};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};

use super::{BadManifest, File, LONGEST_TEXT, MOST_FILES, MOST_SKIPPED, Skipped, VERSION};
use crate::path::check;

/// Longest text as it is written, in bytes: each byte may be an escape of six.
const LONGEST_TOKEN: usize = 6 * LONGEST_TEXT + 6;

/// A manifest without its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Identifier of the job.
    pub job: String,
    /// Why not every regular file that the job left is stored; nothing: every one is.
    pub reason: Option<String>,
    /// Bytes of all files.
    pub total: u64,
    /// What was found and is not stored.
    pub skipped: Vec<Skipped>,
    /// How many more there are than `skipped` names.
    pub more_skipped: u64,
    /// Number of files.
    pub files: usize,
}

/// Reads a manifest and gives each file to `take`, in the order of their paths. The files count only if the whole manifest does.
///
/// # Errors
/// The first rule that the manifest breaks.
pub(crate) fn scan(from: impl Read, take: &mut dyn FnMut(File)) -> Result<Head, BadManifest> {
    let mut json = serde_json::Deserializer::from_reader(BufReader::new(Tokens::new(from)));
    let mut broken = None;
    let read = Document { take, broken: &mut broken }.deserialize(&mut json);
    let head = read.and_then(|head| json.end().map(|()| head));
    head.map_err(|error| match (broken, error.io_error_kind()) {
        (Some(broken), _) => broken,
        (None, Some(io::ErrorKind::InvalidData)) => BadManifest::Text,
        (None, _) => error.into(),
    })
}

/// The whole document. What is broken is left in `broken`, since errors of `serde_json` carry text only.
struct Document<'a> {
    take: &'a mut dyn FnMut(File),
    broken: &'a mut Option<BadManifest>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    Version,
    Job,
    Complete,
    Reason,
    Total,
    Skipped,
    MoreSkipped,
    Files,
}

/// The fields as they come.
#[derive(Default)]
struct Fields {
    version: Option<u32>,
    job: Option<String>,
    complete: Option<bool>,
    reason: Option<Option<String>>,
    total: Option<u64>,
    skipped: Option<Vec<Skipped>>,
    more_skipped: Option<u64>,
    /// Number of files, and the sum of their sizes unless it is too large.
    files: Option<(usize, Option<u64>)>,
}

fn put<T, E: Error>(place: &mut Option<T>, name: &'static str, value: T) -> Result<(), E> {
    if place.replace(value).is_some() { Err(E::duplicate_field(name)) } else { Ok(()) }
}

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = Head;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Head, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = Head;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a manifest")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Head, A::Error> {
        let Self { take, broken } = self;
        let mut fields = Fields::default();
        while let Some(field) = map.next_key()? {
            match field {
                Field::Version => put(&mut fields.version, "version", map.next_value()?)?,
                Field::Job => put(&mut fields.job, "job", map.next_value()?)?,
                Field::Complete => put(&mut fields.complete, "complete", map.next_value()?)?,
                Field::Reason => put(&mut fields.reason, "reason", map.next_value()?)?,
                Field::Total => put(&mut fields.total, "total", map.next_value()?)?,
                Field::MoreSkipped => put(&mut fields.more_skipped, "more_skipped", map.next_value()?)?,
                Field::Skipped => put(&mut fields.skipped, "skipped", map.next_value_seed(SkippedOnes(&mut *broken))?)?,
                Field::Files => {
                    let files = Files { take: &mut *take, broken: &mut *broken };
                    put(&mut fields.files, "files", map.next_value_seed(files)?)?;
                }
            }
        }
        fields.head(broken)
    }
}

impl Fields {
    /// The head, if the fields agree with each other.
    fn head<E: Error>(self, broken: &mut Option<BadManifest>) -> Result<Head, E> {
        let needed = |name| move || E::missing_field(name);
        let version = self.version.ok_or_else(needed("version"))?;
        let (job, total) = (self.job.ok_or_else(needed("job"))?, self.total.ok_or_else(needed("total"))?);
        let (complete, reason) = (self.complete.ok_or_else(needed("complete"))?, self.reason.flatten());
        let (files, sum) = self.files.ok_or_else(needed("files"))?;
        let (skipped, more_skipped) = (self.skipped.unwrap_or_default(), self.more_skipped.unwrap_or_default());
        let why = if version != VERSION {
            BadManifest::Version(version)
        } else if [Some(&job), reason.as_ref()].into_iter().flatten().any(|text| text.len() > LONGEST_TEXT) {
            BadManifest::Text
        } else if complete == reason.is_some() {
            BadManifest::Reason
        } else if sum != Some(total) {
            BadManifest::Total(total)
        } else {
            return Ok(Head { job, reason, total, skipped, more_skipped, files });
        };
        Err(breaks(broken, why))
    }
}

/// Leaves the reason where [`scan`] finds it.
fn breaks<E: Error>(broken: &mut Option<BadManifest>, why: BadManifest) -> E {
    *broken = Some(why);
    E::custom("a rule is broken")
}

/// The list of what is not stored.
struct SkippedOnes<'a>(&'a mut Option<BadManifest>);

impl<'de> DeserializeSeed<'de> for SkippedOnes<'_> {
    type Value = Vec<Skipped>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for SkippedOnes<'_> {
    type Value = Vec<Skipped>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of what is not stored")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Self::Value, A::Error> {
        let mut skipped: Vec<Skipped> = Vec::new();
        while let Some(one) = all.next_element::<Skipped>()? {
            if skipped.len() == MOST_SKIPPED {
                return Err(breaks(self.0, BadManifest::Many));
            }
            if one.path.len().max(one.reason.len()) > LONGEST_TEXT {
                return Err(breaks(self.0, BadManifest::Text));
            }
            skipped.push(one);
        }
        Ok(skipped)
    }
}

/// The list of files.
struct Files<'a> {
    take: &'a mut dyn FnMut(File),
    broken: &'a mut Option<BadManifest>,
}

impl<'de> DeserializeSeed<'de> for Files<'_> {
    type Value = (usize, Option<u64>);

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Files<'_> {
    type Value = (usize, Option<u64>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of files")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Self::Value, A::Error> {
        let (mut count, mut total, mut last) = (0, Some(0_u64), Box::<str>::default());
        while let Some(file) = all.next_element::<File>()? {
            if count == MOST_FILES {
                return Err(breaks(self.broken, BadManifest::Many));
            }
            if let Err(why) = check(&file.path) {
                return Err(breaks(self.broken, BadManifest::Path(file.path, why)));
            }
            if file.path <= last {
                return Err(breaks(self.broken, BadManifest::Order(file.path)));
            }
            (count, total) = (count + 1, total.and_then(|total| total.checked_add(file.size)));
            last.clone_from(&file.path);
            (self.take)(file);
        }
        Ok((count, total))
    }
}

/// Refuses JSON with very long texts and numbers, which a reader keeps whole.
struct Tokens<R> {
    from: R,
    is_text: bool,
    is_escaped: bool,
    length: usize,
}

impl<R> Tokens<R> {
    fn new(from: R) -> Self {
        Self { from, is_text: false, is_escaped: false, length: 0 }
    }

    fn look(&mut self, byte: u8) {
        self.length += 1;
        match byte {
            _ if std::mem::take(&mut self.is_escaped) => {}
            b'\\' if self.is_text => self.is_escaped = true,
            b'"' => (self.is_text, self.length) = (!self.is_text, 0),
            b',' | b':' | b'[' | b']' | b'{' | b'}' | b' ' | b'\n' | b'\r' | b'\t' if !self.is_text => self.length = 0,
            _ => {}
        }
    }
}

impl<R: Read> Read for Tokens<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        for byte in buffer.iter().take(read) {
            self.look(*byte);
            if self.length > LONGEST_TOKEN {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes without end: a reader that does not stop at a bound never returns.
    fn endless(beginning: &str, repeated: &str) -> impl Read {
        io::Cursor::new(beginning.as_bytes().to_vec()).chain(Again(repeated.as_bytes().to_vec(), 0))
    }

    struct Again(Vec<u8>, usize);

    impl Read for Again {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            for byte in &mut *buffer {
                *byte = self.0[self.1];
                self.1 = (self.1 + 1) % self.0.len();
            }
            Ok(buffer.len())
        }
    }

    #[test]
    fn bounds_hold_while_a_manifest_is_read() {
        let head = r#"{"version":1,"job":"j","complete":true,"total":0,"#;
        let skipped = format!("{head}\"skipped\":[");
        for (from, said) in [
            (endless(&skipped, r#"{"path":"p","reason":"r"},"#), "more than"),
            (endless(&format!("{head}\"files\":[{{\"path\":\""), "p"), "longer than 4096"),
            (endless(r#"{"job":""#, r#"\""#), "longer than 4096"),
            (endless(r#"{"version":1"#, "1"), "longer than 4096"),
        ] {
            let error = scan(from, &mut |_| {}).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn no_more_files_are_taken_than_a_manifest_may_have() {
        let files = (0..=MOST_FILES)
            .map(|number| format!(r#"{{"path":"{number:06}","size":0,"sha256":"{}"}},"#, "a5".repeat(32)));
        let text =
            format!(r#"{{"version":1,"job":"j","complete":true,"total":0,"files":[{}"#, files.collect::<String>());
        let mut taken = 0;
        assert!(matches!(scan(text.as_bytes(), &mut |_| taken += 1), Err(BadManifest::Many)));
        assert_eq!(taken, MOST_FILES);
    }

    #[test]
    fn a_field_counts_once() {
        for text in [
            r#"{"version":1,"version":1,"job":"j","complete":true,"total":0,"files":[]}"#,
            r#"{"version":1,"job":"j","complete":true,"total":0,"files":[],"files":[]}"#,
            r#"{"version":1,"job":"j","complete":true,"files":[]}"#,
            r#"{"version":1,"job":"j","complete":true,"total":0,"files":[]} x"#,
        ] {
            assert!(matches!(scan(text.as_bytes(), &mut |_| {}), Err(BadManifest::Json(_))), "{text}");
        }
    }
}
