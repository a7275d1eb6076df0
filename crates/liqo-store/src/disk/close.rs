//! Closed prefixes: keys of movers write nothing there any more. One empty file for each, until no such key can be left.

use std::{
    fs::{self, File},
    io,
    path::PathBuf,
    sync::PoisonError,
    time::{Duration, SystemTime},
};

use liqo_results::keys::LIFE;
use s3s::{S3Error, s3_error};

use super::Disk;

/// How long a prefix stays closed: twice as long as a key lives, since the clocks of store and controller may differ.
const CLOSED: Duration = Duration::from_secs(2 * LIFE);

impl Disk {
    /// The file that says that a prefix is closed. A prefix of a key has no `~`, see [`liqo_results::keys`].
    fn mark(&self, prefix: &str) -> PathBuf {
        self.closed.join(prefix.replace('/', "~"))
    }

    /// Does work that writes, unless `prefix` is closed; nobody closes it meanwhile. Whoever closes a prefix waits for the work, and
    /// everybody else for whoever closes: the work must be short, whatever the size of an object.
    pub(crate) fn writing<T>(
        &self,
        prefix: Option<&str>,
        work: impl FnOnce() -> Result<T, S3Error>,
    ) -> Result<T, S3Error> {
        let _open = self.closing.read().unwrap_or_else(PoisonError::into_inner);
        if prefix.is_some_and(|prefix| self.mark(prefix).exists()) {
            return Err(s3_error!(AccessDenied, "this key was ended: the job is over"));
        }
        work()
    }

    /// Closes a prefix, and ends uploads of objects below it.
    pub(crate) fn close(&self, prefix: &str) -> io::Result<()> {
        let mark = {
            let _alone = self.closing.write().unwrap_or_else(PoisonError::into_inner);
            File::create(self.mark(prefix))?
        };
        mark.sync_all()?;
        File::open(&self.closed)?.sync_all()?;
        // No upload begins below a closed prefix, so nobody has to wait for these to go.
        self.end_uploads_below(&format!("{prefix}/"))
    }

    /// Forgets closed prefixes that no key opens any more.
    pub(super) fn forget_closed(&self) -> io::Result<()> {
        self.forget_closed_before(SystemTime::now().checked_sub(CLOSED).unwrap_or(SystemTime::UNIX_EPOCH))
    }

    fn forget_closed_before(&self, before: SystemTime) -> io::Result<()> {
        for entry in fs::read_dir(&self.closed)? {
            let entry = entry?;
            if entry.metadata()?.modified()? < before {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::Here, *};

    #[test]
    fn a_closed_prefix_takes_nothing_and_has_no_uploads() {
        let here = Here::new("close");
        let (own, other) = (here.0.begin_upload("a/1/big").unwrap(), here.0.begin_upload("a/11/big").unwrap());
        here.put("a/1/x", b"kept").unwrap();
        here.0.close("a/1").unwrap();
        let writes = |prefix: Option<&str>| here.0.writing(prefix, || Ok(())).is_ok();
        assert!(!writes(Some("a/1")) && writes(Some("a/11")) && writes(Some("a")) && writes(None));
        assert!(here.0.has_upload(&own, "a/1/big").is_err() && here.0.has_upload(&other, "a/11/big").is_ok());
        assert!(here.0.read("a/1/x").is_ok());
        here.0.forget_closed().unwrap();
        assert!(!writes(Some("a/1")), "a key may be left");
        here.0.forget_closed_before(SystemTime::now() + CLOSED).unwrap();
        assert!(writes(Some("a/1")));
    }
}
