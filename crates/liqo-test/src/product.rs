//! The product under test: built once, packed into an image, driven by its own `liqoctl`.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use liqo_api::role::{PLATFORM, ROLES, Role, SERVICES};
use sha2::{Digest, Sha256};

use crate::{
    Cluster, assets,
    run::{command, output},
};

const TARGET: &str = "x86_64-unknown-linux-musl";
/// The binaries in the image.
const SERVERS: [&str; 2] = [PLATFORM, SERVICES];
static BUILT: OnceLock<PathBuf> = OnceLock::new();

/// The binaries of one build.
#[derive(Clone, Debug)]
pub struct Product {
    bin: PathBuf,
}

impl Product {
    /// Builds the server binaries and `liqoctl`, once per process; `LIQO_BIN_DIR` names a directory that has them already.
    pub fn build() -> Result<Self> {
        if let Some(bin) = BUILT.get() {
            return Ok(Self { bin: bin.clone() });
        }
        let bin = match assets::directory("LIQO_BIN_DIR") {
            Some(directory) => directory,
            None => compile()?,
        };
        for program in SERVERS.into_iter().chain(["liqoctl"]) {
            ensure!(bin.join(program).is_file(), "{} has no {program}", bin.display());
        }
        Ok(Self { bin: BUILT.get_or_init(|| bin).clone() })
    }

    /// The image `localhost/liqo:dev` as a docker archive, kept in the cache by the hash of what is in it.
    pub fn image(&self) -> Result<PathBuf> {
        let containerfile = assets::source().join("Containerfile");
        let mut hash = Sha256::new();
        for part in SERVERS.map(|binary| self.bin.join(binary)).iter().chain([&containerfile]) {
            hash.update(fs::read(part).with_context(|| format!("cannot read {}", part.display()))?);
        }
        let hash = hash.finalize();
        let name: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let kept = cache().join(format!("liqo-{name}.tar"));
        // Suites, and stories of one suite, begin at the same time: one of them builds, and the others wait.
        let turn = fs::File::create(cache().join("image.lock")).context("cannot make the lock of the image")?;
        turn.lock().context("cannot wait for the image")?;
        if !kept.is_file() {
            forget_old_images();
            let work = cache().join(format!("image-{name}"));
            let _ = fs::remove_dir_all(&work);
            let packed = self.pack(&work, &containerfile);
            let result = packed.and_then(|tar| fs::rename(tar, &kept).context("cannot keep the image"));
            let _ = fs::remove_dir_all(&work);
            result?;
        }
        Ok(kept)
    }

    /// Builds the image and puts it on all nodes of these clusters.
    pub fn load(&self, clusters: &[&Cluster]) -> Result<()> {
        let image = self.image()?;
        clusters.iter().try_for_each(|cluster| cluster.load_image(&image))
    }

    /// Runs liqoctl against a cluster; gives whatever came of it.
    pub fn liqoctl(&self, cluster: &Cluster, args: &[&str]) -> Result<Output> {
        self.liqoctl_command(&cluster.kubeconfig()).args(args).output().context("cannot run liqoctl")
    }

    /// Runs liqoctl, which must succeed; gives what it prints.
    pub fn liqoctl_ok(&self, cluster: &Cluster, args: &[&str]) -> Result<String> {
        output(self.liqoctl_command(&cluster.kubeconfig()).args(args))
    }

    pub fn liqoctl_command(&self, kubeconfig: &Path) -> Command {
        let mut liqoctl = command(self.liqoctl_path());
        liqoctl.env("KUBECONFIG", kubeconfig).current_dir(assets::source());
        // helm, which liqoctl calls, caches the discovery of an API server by its address, and later clusters reuse addresses.
        if let Some(directory) = kubeconfig.parent() {
            liqoctl.env("KUBECACHEDIR", directory.join("cache"));
        }
        liqoctl
    }

    pub fn liqoctl_path(&self) -> PathBuf {
        self.bin.join("liqoctl")
    }

    /// The server as one of its roles, for no longer than `limit`.
    pub fn server(&self, program: &str, limit: Duration) -> Command {
        let binary = Role::called(program).map_or(PLATFORM, Role::binary);
        let mut server = command("timeout");
        server.arg(limit.as_secs().to_string()).arg(self.bin.join(binary)).arg(program);
        server
    }

    /// The context that the Containerfile copies: the server binaries, each called by several names.
    fn pack(&self, work: &Path, containerfile: &Path) -> Result<PathBuf> {
        let programs = work.join("context/usr/bin");
        fs::create_dir_all(&programs).with_context(|| format!("cannot make {}", programs.display()))?;
        for binary in SERVERS {
            fs::copy(self.bin.join(binary), programs.join(binary)).context("cannot copy a binary")?;
        }
        for role in ROLES {
            symlink(role.binary(), programs.join(role.program)).context("cannot link a role")?;
        }
        let (image, tar) = ("localhost/liqo:dev", work.join("liqo.tar"));
        let buildah = || {
            let mut buildah = command("buildah");
            buildah.args(["--storage-driver", "vfs", "--root"]).arg(work.join("storage"));
            buildah.arg("--runroot").arg(work.join("run"));
            buildah
        };
        output(
            buildah()
                .args(["bud", "--isolation", "chroot", "-q", "-t", image, "-f"])
                .arg(containerfile)
                .arg(work.join("context")),
        )?;
        output(buildah().args(["push", "-q", image, &format!("docker-archive:{}:{image}", tar.display())]))?;
        Ok(tar)
    }
}

fn compile() -> Result<PathBuf> {
    let mut cargo = command("cargo");
    cargo.args(["build", "--quiet", "--release", "--target", TARGET, "-p", "liqo", "-p", "liqoctl"]);
    output(cargo.current_dir(assets::source())).context("the product does not build")?;
    Ok(assets::target().join(TARGET).join("release"))
}

/// Images are kept beside the programs of the test bed.
fn cache() -> PathBuf {
    assets::images().parent().map_or_else(|| PathBuf::from("/tmp"), Path::to_owned)
}

/// Each build makes another image; the newest three are enough.
fn forget_old_images() {
    let entries = fs::read_dir(cache()).into_iter().flatten().flatten();
    let mut images: Vec<_> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("liqo-"))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    images.sort();
    for (_, path) in images.iter().rev().skip(3) {
        let _ = fs::remove_file(path);
    }
}
