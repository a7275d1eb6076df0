//! A store in this process, and movers in processes of their own.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::Parser;
use futures::TryStreamExt;
use liqo_results::{
    Digest, Location, Store,
    keys::{Access, Scope, issue},
    mover::{self, MoverArgs},
};
use rustix::{
    mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount},
    process::{Pid, Signal, kill_process},
};

pub(crate) const BUCKET: &str = "liqo-jobs";
const MASTER: [u8; 32] = [7; 32];
/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(120);

/// A store and a directory for everything; both go with it.
pub(crate) struct Bed {
    pub(crate) root: PathBuf,
    pub(crate) endpoint: String,
    runtime: tokio::runtime::Runtime,
    is_mounted: bool,
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self::with(None)
    }

    /// A store on a disk of its own, of so many bytes.
    pub(crate) fn of_size(bytes: usize) -> Self {
        Self::with(Some(bytes))
    }

    fn with(size: Option<usize>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let _ = rustls::crypto::ring::default_provider().install_default();
        let name = format!("liqo-store-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(root.join("results")).unwrap();
        let data = root.join("data");
        if let Some(size) = size {
            fs::create_dir_all(&data).unwrap();
            let options = std::ffi::CString::new(format!("size={size}")).unwrap();
            mount("tmpfs", &data, "tmpfs", MountFlags::empty(), &*options).unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let store = liqo_store::Store::open(data, BUCKET, MASTER.into()).unwrap();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { store.serve(tokio::net::TcpListener::from_std(listener).unwrap()).await });
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { root, endpoint, runtime, is_mounted: size.is_some() }
    }

    /// Changes the size of the disk.
    pub(crate) fn resize(&self, bytes: usize) {
        let options = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        mount_remount(self.root.join("data"), MountFlags::empty(), &*options).unwrap();
    }

    /// The location `prefix`, with a key that ends `seconds` from now (or ended before) and opens `opened`.
    pub(crate) fn key(&self, prefix: &str, opened: &str, access: Access, seconds: i64) -> Location {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let scope = Scope { prefix: opened.into(), access, expires: now.saturating_add_signed(seconds) };
        let key = issue(&MASTER, &scope).unwrap();
        Location {
            endpoint: self.endpoint.clone(),
            virtual_host: false,
            region: "us-east-1".into(),
            bucket: BUCKET.into(),
            prefix: prefix.into(),
            access_key_id: key.id,
            secret_access_key: key.secret,
            session_token: None,
            ca: None,
        }
    }

    pub(crate) fn location(&self, prefix: &str) -> Location {
        self.key(prefix, prefix, Access::ReadWrite, 3600)
    }

    pub(crate) fn store(&self, prefix: &str) -> Store {
        Store::new(&self.location(prefix)).unwrap()
    }

    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("an answer in time") })
    }

    pub(crate) fn results(&self) -> PathBuf {
        self.root.join("results")
    }

    /// The file of an object.
    pub(crate) fn object(&self, key: &str) -> PathBuf {
        self.root.join("data").join(BUCKET).join(key)
    }

    /// Starts a mover, which waits for the end of the worker.
    pub(crate) fn mover(&self, location: &Location, more: &[&str]) -> Mover {
        let directory = self.root.join("location");
        write(&directory, location);
        let summary = self.root.join("summary");
        let (results, log) = (self.results(), summary.to_str().unwrap().to_owned());
        let args = ["store", "--job", "team-a/job", "--results", results.to_str().unwrap()];
        let args = [&args[..], &["--location", directory.to_str().unwrap(), "--termination-log", &log], more].concat();
        Mover::start(&args, summary)
    }

    /// Downloads inputs, as the mover does before the worker.
    pub(crate) fn fetch(&self, location: &Location, into: &Path) -> Result<(), String> {
        let directory = self.root.join("from");
        write(&directory, location);
        let summary = self.root.join("fetched");
        let args = ["liqo-mover", "fetch", "--location", directory.to_str().unwrap(), "--into", into.to_str().unwrap()];
        let args = [&args[..], &["--termination-log", summary.to_str().unwrap()]].concat();
        self.wait(mover::run(MoverArgs::parse_from(args)))
    }

    /// Digest of an object, as a client reads it.
    pub(crate) fn digest(&self, store: &Store, path: &str) -> (u64, Digest) {
        let opened = self.wait(store.open(path, None)).unwrap();
        let size = opened.size;
        let hashed = opened.bytes.try_fold(ring::digest::Context::new(&ring::digest::SHA256), |mut context, bytes| {
            context.update(&bytes);
            async { Ok(context) }
        });
        (size, digest(self.wait(hashed).unwrap()))
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if self.is_mounted {
            unmount(self.root.join("data"), UnmountFlags::DETACH).unwrap();
        }
        let removed = fs::remove_dir_all(&self.root);
        assert!(thread::panicking() || removed.is_ok(), "{removed:?}");
    }
}

fn write(directory: &Path, location: &Location) {
    let _ = fs::remove_dir_all(directory);
    fs::create_dir_all(directory).unwrap();
    for (file, text) in location.files() {
        fs::write(directory.join(file), text).unwrap();
    }
}

fn digest(context: ring::digest::Context) -> Digest {
    Digest(context.finish().as_ref().try_into().unwrap())
}

/// Digest of a file.
pub(crate) fn digest_of(path: &Path) -> Digest {
    let (mut context, mut piece, mut file) =
        (ring::digest::Context::new(&ring::digest::SHA256), vec![0; 1 << 20], File::open(path).unwrap());
    loop {
        match file.read(&mut piece).unwrap() {
            0 => return digest(context),
            read => context.update(&piece[..read]),
        }
    }
}

pub(crate) fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

/// The process of a mover.
pub(crate) struct Mover {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
    summary: PathBuf,
}

impl Mover {
    fn start(args: &[&str], summary: PathBuf) -> Self {
        let _ = fs::remove_file(&summary);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["mover", "--exact", "--ignored", "--nocapture"])
            .env(super::ARGS, args.join("\n"))
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log, summary }
    }

    /// Reads the log up to the line that contains `text`; returns what was read.
    pub(crate) fn until(&mut self, text: &str) -> String {
        let mut all = String::new();
        while self.log.read_line(&mut all).unwrap() > 0 {
            if all.lines().next_back().is_some_and(|line| line.contains(text)) {
                return all;
            }
        }
        panic!("the mover ended without saying {text:?}: {all}");
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The worker has ended.
    pub(crate) fn begin(&mut self) {
        self.until("waiting until the worker has ended");
        self.signal(Signal::TERM);
        self.until("storing results");
    }

    /// Tells it once more to end.
    pub(crate) fn hurry(&self) {
        self.signal(Signal::TERM);
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end. Returns its summary, its log from here on, and the most memory that it had, in KiB.
    pub(crate) fn end(mut self) -> (serde_json::Value, String, u64) {
        let reading = thread::spawn({
            let mut log = self.log;
            move || {
                let mut text = String::new();
                log.read_to_string(&mut text).unwrap();
                text
            }
        });
        let (began, mut most) = (Instant::now(), 0);
        let status = loop {
            let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            most = most.max(line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0));
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if began.elapsed() > PATIENCE {
                self.child.kill().unwrap();
                panic!("the mover does not end: {}", reading.join().unwrap());
            }
            thread::sleep(Duration::from_millis(5));
        };
        let log = reading.join().unwrap();
        assert!(status.success(), "{status}: {log}");
        (serde_json::from_str(&fs::read_to_string(&self.summary).unwrap()).unwrap(), log, most)
    }

    /// The summary of a mover that still runs, once there is one.
    pub(crate) fn summary(&self) -> serde_json::Value {
        let began = Instant::now();
        loop {
            if let Some(summary) = fs::read(&self.summary).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
                return summary;
            }
            assert!(began.elapsed() < PATIENCE, "no summary");
            thread::sleep(Duration::from_millis(20));
        }
    }
}
