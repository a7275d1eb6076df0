//! The directory of results, as the worker left it.
//!
//! Keeps true: nothing outside of the directory is opened. Each component of a path is opened without following a symbolic
//! link, whatever a process that still runs puts there, and only regular files are read.

use std::{
    ffi::CStr,
    fs::File as Open,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};

use crate::{
    manifest::{MOST_FILES, MOST_SKIPPED, Skipped},
    path::check,
};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Without waiting: opening a pipe that nobody writes to must not stop the mover.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// The directory of results.
#[derive(Debug)]
pub(super) struct Tree(OwnedFd);

/// A regular file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: Box<str>,
    pub(super) size: u64,
}

/// What is in the directory.
#[derive(Debug, Default)]
pub(super) struct Census {
    /// Regular files with a path that results may have, ordered by path.
    pub(super) files: Vec<Found>,
    /// What else is there.
    pub(super) left: Left,
}

/// What is not stored.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// The first of them.
    pub(super) named: Vec<Skipped>,
    /// How many there are besides.
    pub(super) more: u64,
    /// Regular files among them, and directories that could not be read: without them the results are not complete.
    pub(super) lost: u64,
    /// Why the first of the lost is lost.
    pub(super) why: Option<String>,
}

impl Left {
    /// Something that is no result.
    pub(super) fn out(&mut self, path: String, reason: &str) {
        if self.named.len() < MOST_SKIPPED {
            self.named.push(Skipped { path, reason: reason.to_owned() });
        } else {
            self.more += 1;
        }
    }

    /// A result, or results, that cannot be stored.
    pub(super) fn lost(&mut self, path: String, reason: &str) {
        self.lost += 1;
        self.why.get_or_insert_with(|| reason.to_owned());
        self.out(path, reason);
    }
}

impl Tree {
    /// Opens the directory itself, which may be a symbolic link.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        Ok(Self(openat(CWD, directory, DIRECTORY.difference(OFlags::NOFOLLOW), Mode::empty())?))
    }

    /// Everything below the directory.
    pub(super) fn census(&self) -> io::Result<Census> {
        let (mut census, mut directories) = (Census::default(), vec![String::new()]);
        while let Some(directory) = directories.pop() {
            match self.look(&directory, &mut directories, &mut census) {
                Err(error) if directory.is_empty() => return Err(error),
                Err(error) => census.left.lost(directory, &format!("the directory cannot be read: {error}")),
                Ok(()) => {}
            }
        }
        census.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(census)
    }

    fn look(&self, directory: &str, directories: &mut Vec<String>, census: &mut Census) -> io::Result<()> {
        let opened = self.directory(directory)?;
        for entry in Dir::read_from(&opened)? {
            let entry = entry?;
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                look_at(&opened, directory, name, directories, census);
            }
        }
        Ok(())
    }

    /// Opens a regular file; the size is that at this moment.
    pub(super) fn file(&self, path: &str) -> io::Result<(Open, u64)> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let file = Open::from(openat(self.directory(directory)?, name, FILE, Mode::empty())?);
        let data = file.metadata()?;
        if data.is_file() { Ok((file, data.len())) } else { Err(io::Error::other("no regular file any more")) }
    }

    fn directory(&self, path: &str) -> io::Result<OwnedFd> {
        let mut opened = openat(&self.0, c".", DIRECTORY, Mode::empty())?;
        for component in path.split('/').filter(|component| !component.is_empty()) {
            opened = openat(&opened, component, DIRECTORY, Mode::empty())?;
        }
        Ok(opened)
    }
}

fn look_at(opened: impl AsFd, directory: &str, name: &CStr, directories: &mut Vec<String>, census: &mut Census) {
    let below = |name: &str| if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
    let Ok(text) = name.to_str() else {
        let escaped = below(&name.to_bytes().escape_ascii().to_string());
        return census.left.lost(escaped, "the name is not UTF-8");
    };
    let path = below(text);
    let stat = match statat(opened, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(error) => return census.left.lost(path, &format!("it cannot be looked at: {error}")),
    };
    let kind = FileType::from_raw_mode(stat.st_mode);
    if matches!(kind, FileType::Directory | FileType::RegularFile)
        && let Err(why) = check(&path)
    {
        return census.left.lost(path.chars().take(1_000).collect(), &why.to_string());
    }
    match kind {
        FileType::Directory => directories.push(path),
        FileType::RegularFile if census.files.len() >= MOST_FILES => {
            census.left.lost(path, &format!("there are more than {MOST_FILES} files"));
        }
        FileType::RegularFile => {
            census.files.push(Found { path: path.into(), size: u64::try_from(stat.st_size).unwrap_or_default() });
        }
        FileType::Symlink => census.left.out(path, "a symbolic link"),
        FileType::Socket => census.left.out(path, "a socket"),
        FileType::Fifo => census.left.out(path, "a pipe"),
        _ => census.left.out(path, "a device"),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::OsStr,
        fs,
        os::unix::{ffi::OsStrExt, fs::symlink, net::UnixListener},
        path::PathBuf,
    };

    use super::*;

    fn directory(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("liqo-tree-{name}-{}", std::process::id()));
        fs::create_dir_all(directory.join("a/b")).unwrap();
        directory
    }

    #[test]
    fn regular_files_are_results_and_the_rest_is_named() {
        let root = directory("census");
        fs::write(root.join("z"), "zz").unwrap();
        fs::write(root.join("a/b/ü x"), "").unwrap();
        fs::write(root.join("a.txt"), "1").unwrap();
        symlink("/etc/passwd", root.join("a/link")).unwrap();
        symlink("/etc", root.join("etc")).unwrap();
        let _socket = UnixListener::bind(root.join("socket")).unwrap();
        rustix::fs::mkfifoat(CWD, root.join("pipe"), Mode::RUSR).unwrap();
        fs::write(root.join(OsStr::from_bytes(b"caf\xe9")), "1").unwrap();
        fs::write(root.join("new\nline"), "1").unwrap();
        fs::create_dir(root.join(".liqo")).unwrap();
        let census = Tree::open(&root).unwrap().census().unwrap();
        let files: Vec<_> = census.files.iter().map(|found| (&*found.path, found.size)).collect();
        assert_eq!(files, [("a.txt", 1), ("a/b/ü x", 0), ("z", 2)]);
        let mut left: Vec<_> =
            census.left.named.iter().map(|left| (left.path.as_str(), left.reason.as_str())).collect();
        left.sort_unstable();
        let expected = [
            (".liqo", "the path begins with `.liqo`, which is reserved"),
            ("a/link", "a symbolic link"),
            (r"caf\xe9", "the name is not UTF-8"),
            ("etc", "a symbolic link"),
            ("new\nline", "the path has a control character"),
            ("pipe", "a pipe"),
            ("socket", "a socket"),
        ];
        assert_eq!((left.as_slice(), census.left.lost), (expected.as_slice(), 3));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn no_link_is_followed_whenever_it_came() {
        let root = directory("links");
        fs::write(root.join("a/b/file"), "inside").unwrap();
        let tree = Tree::open(&root).unwrap();
        assert_eq!(tree.file("a/b/file").unwrap().1, 6);
        fs::remove_dir_all(root.join("a")).unwrap();
        fs::create_dir(root.join("a")).unwrap();
        symlink("/etc", root.join("a/b")).unwrap();
        assert!(tree.file("a/b/passwd").is_err(), "a directory became a link");
        symlink("/etc/passwd", root.join("a/file")).unwrap();
        assert!(tree.file("a/file").is_err(), "a file became a link");
        rustix::fs::mkfifoat(CWD, root.join("a/pipe"), Mode::RUSR).unwrap();
        assert!(tree.file("a/pipe").is_err(), "a file became a pipe");
        assert!(Tree::open(&root.join("nowhere")).is_err());
        fs::remove_dir_all(root).unwrap();
    }
}
