//! Namespaces that vanish with the test, and programs to look into them from outside.
#![expect(dead_code, reason = "each test binary uses a part")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use liqo_netlink::{Kernel, Netns};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A namespace of its own name, removed when dropped, also by a panic.
pub(crate) struct Ns {
    pub(crate) path: PathBuf,
    pub(crate) netns: Netns,
    pub(crate) kernel: Kernel,
}

impl Ns {
    pub(crate) fn new() -> Self {
        let name = format!("lnt-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new("/run/netns").join(name);
        let netns = Netns::create(&path).unwrap();
        let kernel = Kernel::open(&netns).unwrap();
        let ns = Self { path, netns, kernel };
        ns.run("ip link set lo up");
        ns
    }

    /// What a program prints that is run inside. It must succeed.
    pub(crate) fn run(&self, command: &str) -> String {
        let (ok, out) = self.attempt(command);
        assert!(ok, "`{command}` failed: {out}");
        out
    }

    /// Whether a program run inside succeeds, and what it prints.
    #[expect(clippy::disallowed_methods, reason = "tests look with the usual programs")]
    pub(crate) fn attempt(&self, command: &str) -> (bool, String) {
        let out = self.netns.enter(|| Command::new("sh").args(["-c", command]).output()).unwrap().unwrap();
        let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        (out.status.success(), text)
    }

    /// Loads rules as a person would.
    pub(crate) fn nft(&self, script: &str) -> String {
        self.run(&format!("nft -f - <<'EOF'\n{script}\nEOF"))
    }
}

impl Drop for Ns {
    fn drop(&mut self) {
        let removed = Netns::remove(&self.path);
        if !std::thread::panicking() {
            removed.unwrap();
        }
    }
}

/// A path for a namespace, freed when dropped, also by a panic.
pub(crate) struct Spot(pub(crate) PathBuf);

impl Spot {
    pub(crate) fn new(name: &str) -> Self {
        Self(Path::new("/run/netns").join(format!("lnt-{}-{name}", std::process::id())))
    }
}

impl Drop for Spot {
    fn drop(&mut self) {
        let _ = Netns::remove(&self.0);
    }
}

/// A cable between two namespaces: each end's name, address and peer's address, up.
pub(crate) fn cable(a: &Ns, a_name: &str, a_net: &str, b: &Ns, b_name: &str, b_net: &str) {
    let netns = b.path.file_name().unwrap().to_str().unwrap().to_owned();
    a.run(&format!("ip link add {a_name} type veth peer name {b_name} netns {netns}"));
    for (ns, name, net) in [(a, a_name, a_net), (b, b_name, b_net)] {
        ns.run(&format!("ip address add {net} dev {name} && ip link set {name} up"));
    }
}
