//! Which paths results may have.

/// Longest path of a result, in bytes. S3 allows keys of 1,024 bytes; the rest is for the prefix of the job.
const LONGEST_PATH: usize = 1000;
/// Longest key of an S3 object, in bytes.
const LONGEST_KEY: usize = 1024;
/// Longest component, in bytes: the longest file name of Linux file systems.
const LONGEST_COMPONENT: usize = 255;
/// The first component of what Liqo itself stores below the prefix of a job.
pub const RESERVED: &str = ".liqo";

/// Why a path cannot be that of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// More bytes than fit.
    #[error("the path is longer than {0} bytes")]
    Long(usize),
    /// A component that is longer than a file name can be.
    #[error("a component of the path is longer than {LONGEST_COMPONENT} bytes")]
    LongComponent,
    /// The path is empty, absolute, ends with a slash, or has two slashes in a row.
    #[error("the path has an empty component")]
    Empty,
    /// `.` or `..`.
    #[error("the path has a component `.` or `..`")]
    Dots,
    /// A control character, or a character that XML cannot carry.
    #[error("the path has a control character")]
    Control,
    /// The name that Liqo needs itself.
    #[error("the path begins with `{RESERVED}`, which is reserved")]
    Reserved,
}

/// Whether a result may have this path, relative to the prefix of its job.
///
/// # Errors
/// The first rule that the path breaks.
pub fn check(path: &str) -> Result<(), BadPath> {
    if path.len() > LONGEST_PATH {
        return Err(BadPath::Long(LONGEST_PATH));
    }
    check_key(path)?;
    if path.split('/').next() == Some(RESERVED) { Err(BadPath::Reserved) } else { Ok(()) }
}

/// Whether an object of any purpose may have this key: what holds for [`check`] besides the shorter length and the reserved
/// name.
///
/// # Errors
/// The first rule that the key breaks.
pub fn check_key(key: &str) -> Result<(), BadPath> {
    if key.len() > LONGEST_KEY {
        return Err(BadPath::Long(LONGEST_KEY));
    }
    for component in key.split('/') {
        match component {
            "" => return Err(BadPath::Empty),
            "." | ".." => return Err(BadPath::Dots),
            long if long.len() > LONGEST_COMPONENT => return Err(BadPath::LongComponent),
            _ => {}
        }
    }
    if key.chars().any(|c| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}')) {
        return Err(BadPath::Control);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use super::*;

    #[test]
    fn paths_of_results() {
        let long = format!("{}/{}", "a".repeat(255), "b".repeat(255));
        let longest = [long.as_str(), long.as_str()].join("/").chars().take(LONGEST_PATH).collect::<String>();
        for good in [
            "a",
            "a/b",
            "with space/ü/日本",
            "...",
            "a/..b",
            ".hidden",
            "a/.liqo/b",
            ".liqo2",
            "a\\b",
            "a%2e%2e",
            &longest,
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let (too_long, component) = (format!("{longest}c"), "c".repeat(256));
        for (bad, why) in [
            ("", BadPath::Empty),
            ("/etc/passwd", BadPath::Empty),
            ("a/", BadPath::Empty),
            ("a//b", BadPath::Empty),
            (".", BadPath::Dots),
            ("..", BadPath::Dots),
            ("a/../b", BadPath::Dots),
            ("a/./b", BadPath::Dots),
            ("a\nb", BadPath::Control),
            ("a\0", BadPath::Control),
            ("a\u{7f}", BadPath::Control),
            ("a\u{85}b", BadPath::Control),
            ("a\u{ffff}", BadPath::Control),
            (".liqo", BadPath::Reserved),
            (".liqo/manifest.json", BadPath::Reserved),
            (too_long.as_str(), BadPath::Long(LONGEST_PATH)),
            (component.as_str(), BadPath::LongComponent),
        ] {
            assert_eq!(check(bad), Err(why), "{bad:?}");
        }
        assert_eq!(check_key(".liqo/manifest.json"), Ok(()));
    }

    /// A path that is accepted stays below the directory it is joined to, and is one object and one file.
    #[test]
    fn fuzz_path() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "path", |bytes| {
            let Ok(path) = std::str::from_utf8(bytes) else { return };
            if check(path).is_err() {
                return;
            }
            let components: Vec<_> = Path::new(path).components().collect();
            assert!(components.iter().all(|component| matches!(component, Component::Normal(_))));
            assert_eq!(components.iter().collect::<std::path::PathBuf>().to_str(), Some(path));
            assert_eq!(object_store::path::Path::parse(path).map(String::from).ok().as_deref(), Some(path));
        });
    }
}
