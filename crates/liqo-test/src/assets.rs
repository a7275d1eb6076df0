//! Where the programs and images are: what `testbed/install` made, wherever its cache is.
//!
//! Kept true: the first use in a process installs what is missing, so no caller has to remember it.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context, Result, ensure};

static PATHS: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();

/// The root of this source tree; `LIQO_SOURCE` names another one when the binary was moved to another machine.
///
/// What cargo says when it runs us goes before what it said when it built us: a target directory may be shared by
/// several clones, and cargo does not build again for another one.
pub fn source() -> PathBuf {
    if let Some(source) = env::var_os("LIQO_SOURCE") {
        return source.into();
    }
    let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&package).ancestors().nth(2).expect("our packages are two deep").to_owned()
}

#[expect(clippy::disallowed_methods, reason = "the search path of other programs is not known before this one ran")]
/// Installs what is missing: quiet and quick when nothing is.
pub fn ensure() -> Result<()> {
    if PATHS.get().is_some() {
        return Ok(());
    }
    let install = source().join("testbed/install");
    let status = Command::new(&install).status().with_context(|| format!("cannot run {}", install.display()))?;
    ensure!(status.success(), "testbed/install failed, see above");
    let printed = Command::new(&install).arg("--paths").stderr(Stdio::inherit()).output()?.stdout;
    let printed = String::from_utf8(printed).context("testbed/install --paths does not print UTF-8")?;
    let mut lines = printed.lines().map(PathBuf::from);
    let paths = lines.next().zip(lines.next()).context("testbed/install --paths prints two lines")?;
    let _ = PATHS.set(paths);
    room_for_watchers()
}

/// Kubelets, containerds and our own components watch files: several test beds need more instances than a machine grants.
fn room_for_watchers() -> Result<()> {
    const LIMIT: &str = "/proc/sys/fs/inotify/max_user_instances";
    const ENOUGH: u32 = 1024;
    let granted: u32 = fs::read_to_string(LIMIT)?.trim().parse().with_context(|| format!("cannot read {LIMIT}"))?;
    if granted < ENOUGH {
        fs::write(LIMIT, ENOUGH.to_string()).with_context(|| format!("cannot raise {LIMIT} to {ENOUGH}"))?;
    }
    Ok(())
}

fn paths() -> &'static (PathBuf, PathBuf) {
    ensure().expect("the test bed's programs can be installed");
    PATHS.get().expect("ensure() sets it")
}

/// The directory of kube-apiserver and its like.
pub fn bin() -> &'static Path {
    &paths().0
}

/// The directory of pause.tar, coredns.tar and busybox.tar.
pub fn images() -> &'static Path {
    &paths().1
}

/// `PATH` with the test bed's programs first, and with the places where Debian keeps `ip` and `nft`.
pub(crate) fn search_path() -> OsString {
    let mut path = bin().as_os_str().to_owned();
    path.push(":");
    path.push(env::var_os("PATH").unwrap_or_default());
    path.push(":/usr/sbin:/sbin");
    path
}

/// Where test beds keep their state; short, because sockets live below it.
pub(crate) fn state() -> PathBuf {
    env::var_os("LIQO_TESTBED_DIR").map_or_else(|| PathBuf::from("/var/tmp/liqo-rs"), PathBuf::from)
}

/// The target directory of cargo, which also takes the evidence of failed tests.
pub fn target() -> PathBuf {
    directory("CARGO_TARGET_DIR").unwrap_or_else(|| source().join("target"))
}

/// A switch of the environment: set and neither empty nor 0.
pub fn switch(name: &str) -> bool {
    word(name).is_some()
}

/// What a switch of the environment says, if it is on.
pub(crate) fn word(name: &str) -> Option<String> {
    let value = env::var_os(name)?.to_string_lossy().into_owned();
    (!value.is_empty() && value != "0").then_some(value)
}

/// A directory that the environment names.
pub(crate) fn directory(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
