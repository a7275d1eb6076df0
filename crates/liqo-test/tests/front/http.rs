//! Requests to the page, by curl: what a program sees, byte by byte.

use std::{
    cell::RefCell,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use base64::{Engine, engine::general_purpose::STANDARD};
use liqo_test::{
    run::{Killed, command, output},
    wait_for,
};
use serde_json::Value;

/// A page at an address; its certificate is its own and is not verified.
pub(crate) struct Site {
    pub(crate) url: String,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    fn read(text: &str) -> Result<Self> {
        let mut rest = text;
        loop {
            let (head, body) = rest.split_once("\r\n\r\n").with_context(|| format!("no answer: {text}"))?;
            let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
            let status: u16 = status.with_context(|| format!("no status: {head}"))?;
            // curl asks before it sends long bodies.
            if status != 100 {
                return Ok(Self { status, head: head.to_owned(), body: body.to_owned() });
            }
            rest = body;
        }
    }

    /// A header by its name in lowercase.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut pairs = self.head.lines().filter_map(|line| line.split_once(": "));
        pairs.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("{} is not JSON: {}", self.status, self.body))
    }
}

impl Site {
    pub(crate) fn new(url: String) -> Self {
        Self { url }
    }

    /// GET with a token, or with none when it is empty.
    pub(crate) fn get(&self, path: &str, token: &str) -> Result<Answer> {
        self.ask(path, token, &[])
    }

    /// A request as curl's words say.
    pub(crate) fn ask(&self, path: &str, token: &str, words: &[&str]) -> Result<Answer> {
        let mut curl = command("curl");
        curl.args(["-sS", "-k", "-i", "--max-time", "20"]).args(bearer(token)).args(words);
        Answer::read(&output(curl.arg(format!("{}{path}", self.url)))?)
    }

    /// GET with the client certificate of a kubeconfig.
    pub(crate) fn with_certificate(&self, path: &str, kubeconfig: &Path) -> Result<Answer> {
        let mut kubectl = command("kubectl");
        kubectl.arg("--kubeconfig").arg(kubeconfig).args([
            "config",
            "view",
            "--raw",
            "--minify",
            "--flatten",
            "-o",
            "json",
        ]);
        let user: Value = serde_json::from_str(&output(&mut kubectl)?)?;
        let folder = tempdir("certificate")?;
        let part = |name: &str| -> Result<PathBuf> {
            let value = user["users"][0]["user"][format!("{name}-data")].as_str().context("no client certificate")?;
            let bytes = STANDARD.decode(value).map_err(|error| anyhow!("{name} is not base64: {error}"))?;
            let path = folder.join(name);
            fs::write(&path, bytes)?;
            Ok(path)
        };
        let (certificate, key) = (part("client-certificate")?, part("client-key")?);
        let words = ["--cert", &certificate.to_string_lossy(), "--key", &key.to_string_lossy()];
        let answer = self.ask(path, "", &words);
        fs::remove_dir_all(&folder)?;
        answer
    }

    /// Many requests, sixteen at a time; the status of each.
    pub(crate) fn often(&self, path: &str, token: &str, count: usize) -> Result<Vec<u16>> {
        let mut curl = command("curl");
        curl.args([
            "-sS",
            "-k",
            "-Z",
            "--parallel-max",
            "16",
            "--max-time",
            "60",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}\n",
        ]);
        curl.args(bearer(token));
        let printed = output(curl.arg(format!("{}{path}?x=[1-{count}]", self.url)))?;
        Ok(printed.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Follows a stream until dropped.
    pub(crate) fn follow(&self, path: &str, token: &str) -> Result<Stream> {
        let folder = tempdir("stream")?;
        let mut curl = command("curl");
        curl.args(["-sS", "-k", "-N", "--max-time", "120"]).args(bearer(token)).arg(format!("{}{path}", self.url));
        let child = curl.stdout(File::create(folder.join("events"))?).stderr(Stdio::null()).spawn()?;
        Ok(Stream { curl: RefCell::new(Killed(child)), folder })
    }
}

fn bearer(token: &str) -> Vec<String> {
    if token.is_empty() { Vec::new() } else { vec!["-H".to_owned(), format!("Authorization: Bearer {token}")] }
}

pub(crate) fn tempdir(name: &str) -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("liqo-front-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A stream of events, as far as it has come.
pub(crate) struct Stream {
    curl: RefCell<Killed>,
    folder: PathBuf,
}

impl Stream {
    pub(crate) fn text(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.join("events"))?)
    }

    /// Something when the server has ended the stream.
    ///
    /// # Errors
    /// When the stream was cut.
    pub(crate) fn ended(&self) -> Result<Option<()>> {
        let Some(status) = self.curl.borrow_mut().0.try_wait()? else { return Ok(None) };
        anyhow::ensure!(status.success(), "the stream ended with curl's {status}");
        Ok(Some(()))
    }

    /// Waits until the stream has said this.
    pub(crate) fn has(&self, words: &str, limit: Duration) -> Result<()> {
        wait_for(&format!("the stream says {words}"), limit, || {
            let text = self.text()?;
            anyhow::ensure!(text.contains(words), "so far: {text}");
            Ok(Some(()))
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
