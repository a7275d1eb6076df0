//! Recorded input for fuzz tests. A target is a directory `corpus/<target>` of a crate; its files are real input, attacks, and
//! what once failed.
//!
//! Keeps true: a target without files fails, so that no body holds for want of input. Input for which a body does not hold is
//! shrunk and written into the corpus of its target, whose files are tried before made-up input from then on.

use std::{
    fs,
    panic::{self, AssertUnwindSafe},
    path::Path,
};

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    strategy::ValueTree,
    test_runner::{Config, TestError, TestRunner},
};

/// No made-up input is longer, in bytes, unless a file is.
const LONGEST: usize = 512;

/// Runs a body on each file of a target, then on damaged files and on arbitrary bytes: as many as `PROPTEST_CASES` says.
/// `directory` is that of the crate, `env!("CARGO_MANIFEST_DIR")`.
///
/// # Panics
/// When the target has no file, or when the body panics.
pub fn fuzz(directory: &str, target: &str, holds: impl Fn(&[u8])) {
    let directory = Path::new(directory).join("corpus").join(target);
    let files = files(&directory);
    for (name, bytes) in &files {
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| holds(bytes)));
        assert!(outcome.is_ok(), "{target} does not hold for {name}: {}", bytes.escape_ascii());
    }
    let config = Config { failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&damaged(files.into_iter().map(|(_, bytes)| bytes).collect()), |bytes| {
        holds(&bytes);
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, bytes)) => {
            let kept = directory.join(format!("found-{:016x}", name(&bytes)));
            fs::write(&kept, &bytes).expect("the corpus can be written");
            panic!("{target} does not hold, see {}: {why}: {}", kept.display(), bytes.escape_ascii());
        }
        Err(TestError::Abort(why)) => panic!("{target}: {why}"),
    }
}

/// The files of a target and `count` variants of them, the same at each call.
///
/// # Panics
/// When the target has no file.
pub fn sample(directory: &str, target: &str, count: usize) -> Vec<Vec<u8>> {
    let files = files(&Path::new(directory).join("corpus").join(target));
    let all: Vec<_> = files.into_iter().map(|(_, bytes)| bytes).collect();
    let (mut runner, variants) = (TestRunner::deterministic(), damaged(all.clone()));
    let one = |_| variants.new_tree(&mut runner).expect("no variant is refused").current();
    let variants: Vec<_> = (0..count).map(one).collect();
    [all, variants].concat()
}

/// The files of a target with their names, in order.
///
/// # Panics
/// When there is none.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let paths = entries.map(|entry| entry.expect("an entry of a directory can be read").path());
    let read = |path: &Path| fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut all: Vec<_> = paths.map(|path| (name(&path), read(&path))).collect();
    all.sort();
    assert!(!all.is_empty(), "{} has no file", directory.display());
    all
}

/// Files of which some bytes are others, that end early, or that go on as another file does; and arbitrary bytes.
fn damaged(files: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let damage = vec((any::<Index>(), any::<u8>()), 0..5);
    let one = (select(files.clone()), damage, prop::option::weighted(0.2, any::<Index>()));
    let other = prop::option::weighted(0.2, (select(files), any::<Index>()));
    let known = (one, other).prop_map(|((mut bytes, damage, end), other)| {
        for (at, byte) in damage.into_iter().filter(|_| !bytes.is_empty()).collect::<Vec<_>>() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(end.map_or(bytes.len(), |end| end.index(bytes.len() + 1)));
        if let Some((other, from)) = other {
            bytes.extend(other.iter().skip(from.index(other.len() + 1)));
        }
        bytes
    });
    prop_oneof![7 => known, 1 => vec(any::<u8>(), 0..LONGEST)]
}

/// A name for input: FNV-1a.
fn name(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_does_not_hold_is_kept_and_tried_first() {
        let directory = std::env::temp_dir().join(format!("liqo-corpus-{}", std::process::id()));
        let target = directory.join("corpus/target");
        fs::create_dir_all(&target).unwrap();
        let crate_directory = directory.to_str().unwrap();
        let run =
            |holds: &dyn Fn(&[u8])| panic::catch_unwind(AssertUnwindSafe(|| fuzz(crate_directory, "target", holds)));
        assert!(run(&|_| ()).is_err(), "a target without files");
        fs::write(target.join("seed"), b"abc").unwrap();
        let longest = Cell::new(0);
        run(&|bytes| longest.set(longest.get().max(bytes.len()))).unwrap();
        assert!(longest.get() > 3);
        let holds = |bytes: &[u8]| bytes.len() < 2 || bytes == b"abc";
        assert!(run(&|bytes| assert!(holds(bytes))).is_err());
        let kept: Vec<_> = files(&target).into_iter().filter(|(name, _)| name.starts_with("found-")).collect();
        let [(name, input)] = &kept[..] else { panic!("{kept:?}") };
        // Made-up input is shrunk to two bytes, two files in a row stay two files.
        assert!(!holds(input) && input.len() <= 6, "input is shrunk: {input:?}");
        let tried = Cell::new(0);
        let again = run(&|bytes| {
            tried.set(tried.get() + 1);
            assert!(bytes == b"abc" || bytes.len() < 2);
        });
        let why = again.unwrap_err().downcast::<String>().unwrap();
        assert!(why.contains(name.as_str()) && tried.get() <= 2, "{why} after {} tries", tried.get());
        fs::remove_dir_all(directory).unwrap();
    }
}
