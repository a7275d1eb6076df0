//! Lists of objects, in the order of their keys, page by page.

use std::{
    collections::BinaryHeap,
    fs::{self, Metadata},
    io,
    path::{Path, PathBuf},
};

use super::{Disk, is_nowhere};

/// What a list should have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// What keys begin with.
    pub(crate) prefix: String,
    /// Only keys after this one.
    pub(crate) after: String,
    /// Whether keys that go on with a slash after the prefix are put together.
    pub(crate) grouped: bool,
    /// Entries, at most.
    pub(crate) most: usize,
}

/// An entry of a list.
#[derive(Debug)]
pub(crate) enum Entry {
    /// An object.
    Object(String, Metadata),
    /// What several keys begin with; ends with a slash.
    Group(String),
}

impl Entry {
    pub(crate) fn key(&self) -> &str {
        match self {
            Self::Object(key, _) | Self::Group(key) => key,
        }
    }
}

/// A page of a list.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Entry>,
    /// Whether there are more.
    pub(crate) more: bool,
}

impl Disk {
    /// A page of the list.
    pub(crate) fn list(&self, wanted: &Wanted) -> io::Result<Page> {
        let mut page = Page::default();
        // No key has such a component, and none must lead out of the bucket.
        let odd = |component: &str| matches!(component, "" | "." | "..");
        let directory = wanted.prefix.rsplit_once('/').map_or("", |(directory, _)| directory);
        if !wanted.prefix.starts_with('/') && (directory.is_empty() || !directory.split('/').any(odd)) {
            self.walk(directory, wanted, &mut page)?;
        }
        Ok(page)
    }

    /// Adds what is below a directory, until the page is full. Of a directory, no more is in memory than fits on a page.
    fn walk(&self, directory: &str, wanted: &Wanted, page: &mut Page) -> io::Result<()> {
        let mut last = String::new();
        loop {
            let most = wanted.most.saturating_sub(page.entries.len()).saturating_add(1);
            let children = children(&self.bucket, directory, most, |key| key > last.as_str() && wanted.may_have(key))?;
            let is_all = children.len() < most;
            let Some(end) = children.last().map(|(key, _)| key.clone()) else { return Ok(()) };
            self.look(children, wanted, page)?;
            if page.more || is_all {
                return Ok(());
            }
            last = end;
        }
    }

    /// Adds children of a directory, or what is below them, until the page is full.
    fn look(&self, children: Vec<Child>, wanted: &Wanted, page: &mut Page) -> io::Result<()> {
        for (key, path) in children {
            if page.more {
                return Ok(());
            }
            let is_directory = key.ends_with('/');
            let grouped = wanted.grouped && is_directory && key.len() > wanted.prefix.len();
            match (is_directory, grouped) {
                (true, false) => self.walk(key.trim_end_matches('/'), wanted, page)?,
                (true, true) if key == wanted.after || !self.has_more(&key, &path, &wanted.after)? => {}
                (true, true) => page.add(wanted, || Ok(Some(Entry::Group(key))))?,
                (false, _) => page.add(wanted, || match fs::metadata(&path) {
                    Ok(data) => Ok(Some(Entry::Object(key, data))),
                    Err(error) if is_nowhere(&error) => Ok(None),
                    Err(error) => Err(error),
                })?,
            }
        }
        Ok(())
    }
}

impl Disk {
    /// Whether there is an object below the directory `key`, after the key `after`.
    fn has_more(&self, key: &str, path: &Path, after: &str) -> io::Result<bool> {
        if !after.starts_with(key) {
            return has_file(path);
        }
        let one = Wanted { prefix: key.to_owned(), after: after.to_owned(), grouped: false, most: 1 };
        Ok(!self.list(&one)?.entries.is_empty())
    }
}

impl Wanted {
    /// Whether the list may have this key of a file, or what is below this key of a directory (with a slash at its end).
    fn may_have(&self, key: &str) -> bool {
        let is_directory = key.ends_with('/');
        // Everything below a directory begins with its key.
        let passed = key <= self.after.as_str() && !(is_directory && self.after.starts_with(key));
        !passed && (key.starts_with(&self.prefix) || is_directory && self.prefix.starts_with(key))
    }
}

impl Page {
    fn add(&mut self, wanted: &Wanted, entry: impl FnOnce() -> io::Result<Option<Entry>>) -> io::Result<()> {
        if self.entries.len() >= wanted.most {
            self.more = true;
        } else {
            self.entries.extend(entry()?);
        }
        Ok(())
    }
}

/// Key and path of what is in a directory. The key of a directory ends with a slash, so that the order is that of all keys.
type Child = (String, PathBuf);

/// The first `most` children of a directory, in order, whose keys are `wanted`.
fn children(bucket: &Path, directory: &str, most: usize, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<Child>> {
    let entries = match fs::read_dir(bucket.join(directory)) {
        Ok(entries) => entries,
        Err(error) if is_nowhere(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    // The greatest is on top, and goes when there are too many.
    let mut first = BinaryHeap::new();
    for entry in entries {
        let entry = entry?;
        // The store itself writes only names that are text.
        let Ok(name) = entry.file_name().into_string() else { continue };
        let end = if entry.file_type()?.is_dir() { "/" } else { "" };
        let key = if directory.is_empty() { format!("{name}{end}") } else { format!("{directory}/{name}{end}") };
        if wanted(&key) {
            first.push((key, entry.path()));
        }
        if first.len() > most {
            first.pop();
        }
    }
    Ok(first.into_sorted_vec())
}

fn has_file(directory: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_nowhere(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if !entry.file_type()?.is_dir() || has_file(&entry.path())? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::{super::tests::Here, *};

    fn all(here: &Here, wanted: &Wanted) -> Vec<String> {
        let (mut wanted, mut keys) = (wanted.clone(), Vec::new());
        loop {
            let page = here.0.list(&wanted).unwrap();
            assert!(page.entries.len() <= wanted.most && (!page.more || page.entries.len() == wanted.most));
            keys.extend(page.entries.iter().map(|entry| entry.key().to_owned()));
            let Some(last) = page.entries.last().filter(|_| page.more) else { return keys };
            wanted.after = last.key().to_owned();
        }
    }

    #[test]
    fn no_more_of_a_directory_is_kept_than_asked_for() {
        let here = Here::new("children");
        (0..50).for_each(|number| drop(here.put(&format!("d/{number:02}"), b"").unwrap()));
        let keys = |most, after: &str| {
            let found = children(&here.0.bucket, "d", most, |key| key > after).unwrap();
            found.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(keys(3, ""), ["d/00", "d/01", "d/02"]);
        assert_eq!(keys(3, "d/47"), ["d/48", "d/49"]);
    }

    #[test]
    fn keys_are_listed_in_order_whatever_the_pages() {
        let here = Here::new("list");
        let keys = ["a", "b.txt", "b/1", "b/2/x", "b/2/y", "b0", "c/ü x", "d"];
        for key in keys {
            here.put(key, b"1").unwrap();
        }
        fs::create_dir_all(here.0.path("b/empty/empty").unwrap()).unwrap();
        for (prefix, grouped, expected) in [
            ("", false, keys.to_vec()),
            ("", true, vec!["a", "b.txt", "b/", "b0", "c/", "d"]),
            ("b", false, vec!["b.txt", "b/1", "b/2/x", "b/2/y", "b0"]),
            ("b", true, vec!["b.txt", "b/", "b0"]),
            ("b/", false, vec!["b/1", "b/2/x", "b/2/y"]),
            ("b/", true, vec!["b/1", "b/2/"]),
            ("b/2", true, vec!["b/2/"]),
            ("b/2/", true, vec!["b/2/x", "b/2/y"]),
            ("b/2/x", false, vec!["b/2/x"]),
            ("c/ü", false, vec!["c/ü x"]),
            ("e", false, vec![]),
            ("a/x", false, vec![]),
            ("../", false, vec![]),
            ("b/../", false, vec![]),
            ("b/2/../../../", false, vec![]),
            ("/", false, vec![]),
            ("//", false, vec![]),
        ] {
            for most in [1, 2, 3, 1000] {
                let wanted = Wanted { prefix: prefix.into(), after: String::new(), grouped, most };
                assert_eq!(all(&here, &wanted), expected, "{prefix:?} grouped: {grouped}, pages of {most}");
            }
        }
        let after = |after: &str| all(&here, &Wanted { after: after.into(), most: 1000, ..Wanted::default() });
        assert_eq!(after("b/2"), keys[3..]);
        assert_eq!(after("b/2/x"), keys[4..]);
        assert_eq!(after("b/zzz"), keys[5..]);
        assert!(after("zzz").is_empty());
    }

    /// What S3 says a list has, of all keys: those after `after`, and for each group that has one of these its name, unless the name
    /// was the last entry of the page before.
    fn model(keys: &[&str], wanted: &Wanted) -> Vec<String> {
        let after = keys.iter().filter(|key| key.starts_with(&wanted.prefix) && ***key > *wanted.after);
        let entry = |key: &&str| match key.strip_prefix(&*wanted.prefix).and_then(|rest| rest.split_once('/')) {
            Some((group, _)) if wanted.grouped => format!("{}{group}/", wanted.prefix),
            _ => (*key).to_owned(),
        };
        let mut entries: Vec<_> = after.map(entry).filter(|entry| *entry != wanted.after).collect();
        entries.dedup();
        entries
    }

    /// A list has the keys that S3 says, whatever it is asked for. Input: prefix and first key, and how they are to be grouped.
    #[test]
    fn fuzz_list() {
        let here = Here::new("fuzz");
        let mut keys = ["a", "b.txt", "b/1", "b/2/x", "b/2/y", "b0", "c/\u{fc} x", "c/d/e/f", "d"];
        keys.sort_unstable();
        keys.iter().for_each(|key| drop(here.put(key, b"1").unwrap()));
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "list", |bytes| {
            let mut parts = bytes.splitn(3, |byte| *byte == b'\n').map(std::str::from_utf8);
            let (Some(Ok(prefix)), Some(Ok(after)), how) = (parts.next(), parts.next(), parts.next()) else { return };
            let how = how.and_then(Result::ok).map_or(0, str::len);
            // No directory has this path, and S3 would group keys that we cannot have.
            if prefix.split('/').rev().skip(1).any(|part| matches!(part, "" | "." | "..")) {
                return;
            }
            let wanted =
                Wanted { prefix: prefix.into(), after: after.into(), grouped: how % 2 == 1, most: 1 + how / 2 };
            assert_eq!(all(&here, &wanted), model(&keys, &wanted), "{wanted:?}");
        });
    }
}
