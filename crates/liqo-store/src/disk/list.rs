//! Lists of objects, in the order of their keys, page by page.

use std::{
    fs::{self, Metadata},
    io,
    path::Path,
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

    /// Adds what is below a directory, until the page is full.
    fn walk(&self, directory: &str, wanted: &Wanted, page: &mut Page) -> io::Result<()> {
        for (key, path) in children(&self.bucket, directory)? {
            if page.more {
                return Ok(());
            }
            let is_directory = key.ends_with('/');
            // Everything below a directory begins with its key.
            let passed = key.as_str() <= wanted.after.as_str() && !(is_directory && wanted.after.starts_with(&key));
            if passed || !(key.starts_with(&wanted.prefix) || is_directory && wanted.prefix.starts_with(&key)) {
                continue;
            }
            let grouped = wanted.grouped && is_directory && key.len() > wanted.prefix.len();
            match (is_directory, grouped) {
                (true, false) => self.walk(key.trim_end_matches('/'), wanted, page)?,
                (true, true) if key == wanted.after || !has_file(&path)? => {}
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

/// Keys and paths of what is in a directory; those of directories end with a slash, so that the order is that of all keys.
fn children(bucket: &Path, directory: &str) -> io::Result<Vec<(String, std::path::PathBuf)>> {
    let entries = match fs::read_dir(bucket.join(directory)) {
        Ok(entries) => entries,
        Err(error) if is_nowhere(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut children = Vec::new();
    for entry in entries {
        let entry = entry?;
        // The store itself writes only names that are text.
        let Ok(name) = entry.file_name().into_string() else { continue };
        let end = if entry.file_type()?.is_dir() { "/" } else { "" };
        let key = if directory.is_empty() { format!("{name}{end}") } else { format!("{directory}/{name}{end}") };
        children.push((key, entry.path()));
    }
    children.sort_unstable();
    Ok(children)
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
}
