//! Helm, which does the installing: found, run, and quoted when it fails.
//!
//! Keeps true: Helm sees the cluster that our flags mean; an interrupted Helm is given the time to roll back. The kubeconfig is in
//! a file only while Helm runs; nobody else can read that file, whatever the umask, and an interruption removes it.

use std::{
    ffi::OsString,
    fs::Permissions,
    io::{ErrorKind, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use anyhow::{Context, anyhow, bail};
use kube::config::Kubeconfig;
use tempfile::{NamedTempFile, TempDir};
use tokio::{
    process::Command,
    signal::unix::{Signal, SignalKind, signal},
};

/// Name of the release.
pub(crate) const RELEASE: &str = "liqo";
const MISSING: &str = "`helm` (version 3) was not found; it is needed because Liqo is installed as a Helm release. \
    Install it as https://helm.sh/docs/intro/install describes, or name the program with --helm-path";

/// Where Helm is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct HelmArgs {
    /// The helm program; looked up in PATH when not given
    #[arg(long, global = true, env = "LIQOCTL_HELM", hide_env_values = true, value_name = "FILE")]
    helm_path: Option<PathBuf>,
    /// Where the test bed keeps its programs, tried last
    #[arg(long, global = true, env = "LIQO_CACHE", hide = true)]
    test_bed_cache: Option<PathBuf>,
}

/// Helm, ready for one cluster. Its files go when it goes.
pub(crate) struct Helm {
    program: OsString,
    files: TempDir,
    kubeconfig: Option<Vec<u8>>,
}

impl Helm {
    /// Looks for Helm and prepares its kubeconfig.
    pub(crate) async fn find(args: &HelmArgs, kubeconfig: Option<&Kubeconfig>) -> anyhow::Result<Self> {
        let program = program(args).await?;
        let kubeconfig = kubeconfig.map(serde_json::to_vec).transpose().context("writing the kubeconfig for helm")?;
        Ok(Self { program, files: private_directory()?, kubeconfig })
    }

    /// Writes a file that lives as long as this value; only we can read its directory.
    pub(crate) async fn keep(&self, name: &str, content: &[u8]) -> anyhow::Result<PathBuf> {
        let path = self.files.path().join(name);
        let failed = || format!("writing {}", path.display());
        if let Some(directory) = path.parent() {
            tokio::fs::create_dir_all(directory).await.with_context(failed)?;
        }
        tokio::fs::write(&path, content).await.with_context(failed)?;
        Ok(path)
    }

    /// A directory for files that live as long as this value.
    pub(crate) fn directory(&self) -> &Path {
        self.files.path()
    }

    /// Runs Helm. `interrupted` is called at Ctrl-C and at the signals that end programs, then Helm has its time to roll back.
    ///
    /// # Errors
    /// What Helm said.
    pub(crate) async fn run(&self, words: &[OsString], interrupted: impl Fn()) -> anyhow::Result<()> {
        self.ask(words, interrupted).await.map(drop)
    }

    /// Runs Helm, as [`Self::run`] does, and returns what Helm has written to its standard output.
    ///
    /// # Errors
    /// What Helm said.
    pub(crate) async fn ask(&self, words: &[OsString], interrupted: impl Fn()) -> anyhow::Result<Vec<u8>> {
        let mut interruptions = Interruptions::new().context("listening for signals")?;
        let mut command = Command::new(&self.program);
        let kubeconfig = self.kubeconfig.as_deref().map(|text| private_file(self.files.path(), text)).transpose()?;
        if let Some(kubeconfig) = &kubeconfig {
            command.arg("--kubeconfig").arg(kubeconfig.path());
        }
        // A group of its own: Ctrl-C reaches Helm through us, once.
        command
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("running {}", self.program.display()))?;
        let process = child.id();
        let mut output = std::pin::pin!(child.wait_with_output());
        let mut was_interrupted = false;
        let output: Output = loop {
            tokio::select! {
                output = &mut output => break output.context("waiting for helm")?,
                () = interruptions.next() => {
                    if was_interrupted {
                        bail!("interrupted again: helm was killed, `helm status {RELEASE}` tells what it left");
                    }
                    was_interrupted = true;
                    interrupted();
                    interrupt(process);
                }
            }
        };
        match (output.status.success(), was_interrupted) {
            (true, _) => Ok(output.stdout),
            (false, true) => bail!("the operation was canceled"),
            (false, false) => Err(anyhow!(told(&output))),
        }
    }
}

/// What asks a program to end: Ctrl-C, SIGTERM, and the end of the terminal.
struct Interruptions([Signal; 3]);

impl Interruptions {
    fn new() -> std::io::Result<Self> {
        let [first, second, third] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self([first?, second?, third?]))
    }

    async fn next(&mut self) {
        let Self([first, second, third]) = self;
        tokio::select! {
            _ = first.recv() => {}
            _ = second.recv() => {}
            _ = third.recv() => {}
        }
    }
}

/// A directory that only its owner can read, whatever the umask.
fn private_directory() -> anyhow::Result<TempDir> {
    let failed = "making a temporary directory";
    let mut builder = tempfile::Builder::new();
    let files = builder.prefix("liqoctl-").permissions(Permissions::from_mode(0o700)).tempdir().context(failed)?;
    std::fs::set_permissions(files.path(), Permissions::from_mode(0o700)).context(failed)?;
    Ok(files)
}

/// A file with this content that only its owner can read, whatever the umask. It goes when the value goes.
fn private_file(directory: &Path, content: &[u8]) -> anyhow::Result<NamedTempFile> {
    let failed = || format!("writing the kubeconfig for helm in {}", directory.display());
    let mut builder = tempfile::Builder::new();
    let private = Permissions::from_mode(0o600);
    let mut file = builder.permissions(private.clone()).tempfile_in(directory).with_context(failed)?;
    file.as_file().set_permissions(private).with_context(failed)?;
    file.write_all(content).and_then(|()| file.flush()).with_context(failed)?;
    Ok(file)
}

async fn program(args: &HelmArgs) -> anyhow::Result<OsString> {
    if let Some(path) = &args.helm_path {
        return match works(path.as_os_str()).await {
            true => Ok(path.clone().into()),
            false => bail!("--helm-path {} is not a helm program", path.display()),
        };
    }
    let mut candidates = vec![OsString::from("helm")];
    candidates.extend(test_bed(args.test_bed_cache.clone()).into_iter().map(OsString::from));
    for candidate in candidates {
        if works(&candidate).await {
            return Ok(candidate);
        }
    }
    bail!(MISSING)
}

async fn works(program: &std::ffi::OsStr) -> bool {
    let output = Command::new(program).args(["version", "--short"]).stdin(Stdio::null()).output().await;
    match output {
        Ok(output) => output.status.success(),
        Err(error) => error.kind() != ErrorKind::NotFound && error.kind() != ErrorKind::PermissionDenied,
    }
}

/// Where our test bed keeps its helm, newest Kubernetes first.
fn test_bed(cache: Option<PathBuf>) -> Vec<PathBuf> {
    let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache/liqo-rs")));
    let entries = cache.and_then(|cache| std::fs::read_dir(cache).ok()).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("k8s-"));
    let mut found: Vec<_> = ours.map(|entry| entry.path().join("bin/helm")).filter(|path| path.is_file()).collect();
    found.sort();
    found.reverse();
    found
}

fn interrupt(process: Option<u32>) {
    let process = process.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(process) = process {
        let _ = rustix::process::kill_process(process, rustix::process::Signal::INT);
    }
}

/// Helm's own words, without its warnings.
fn told(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("WARNING:"));
    let text = lines.map(|line| line.trim_start_matches("Error: ")).collect::<Vec<_>>().join("\n");
    let text = text.replace("context deadline exceeded", "timed out waiting for the condition");
    if text.is_empty() { format!("helm ended with {}", output.status) } else { text }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn the_kubeconfig_is_private_and_goes() {
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let directory = private_directory().unwrap();
        let file = private_file(directory.path(), b"secret").unwrap();
        let (path, root) = (file.path().to_owned(), directory.path().to_owned());
        assert_eq!((mode(&root), mode(&path)), (0o700, 0o600));
        assert_eq!(std::fs::read(&path).unwrap(), b"secret");
        drop(file);
        assert!(!path.exists());
        drop(directory);
        assert!(!root.exists());
    }

    #[test]
    fn helm_is_quoted_without_its_warnings() {
        let output = |stderr: &str| Output {
            status: std::process::ExitStatus::from_raw(256),
            stdout: Vec::new(),
            stderr: stderr.as_bytes().to_vec(),
        };
        assert_eq!(
            told(&output("WARNING: x\nError: context deadline exceeded\n")),
            "timed out waiting for the condition"
        );
        assert_eq!(told(&output("")), "helm ended with exit status: 1");
    }
}
