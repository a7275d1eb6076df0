//! Running other programs: the only place that starts a process.
//!
//! Kept true: a program that fails is an error that names the program and its last words.

#![expect(clippy::disallowed_methods, reason = "this is the door to other programs")]

use std::{
    ffi::OsStr,
    io::Write,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
};

use anyhow::{Context, Result, bail};

use crate::assets;

/// A command whose path starts with the test bed's own programs and that sees nothing of the user's kubeconfig.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", assets::search_path()).env_remove("KUBECONFIG").stdin(Stdio::null());
    command
}

/// The same inside a network namespace. (`ip netns exec` would remount /sys and hide the cgroups.)
pub fn inside(netns: &str, program: impl AsRef<OsStr>) -> Command {
    inside_of(&Path::new("/run/netns").join(netns), program)
}

/// The same inside the network namespace that a file stands for.
pub fn inside_of(netns: &Path, program: impl AsRef<OsStr>) -> Command {
    let mut command = command("nsenter");
    command.arg(format!("--net={}", netns.display())).arg(program);
    command
}

/// A process that is killed when this value is dropped.
#[derive(Debug)]
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // A process that has ended cannot be killed, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs to the end; gives what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {}", shown(command)))?;
    checked(command, &output)
}

/// Runs to the end with `input` as its standard input.
pub fn feed(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", shown(command)))?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let output = thread::scope(|scope| {
        // A program that answers while it reads would wait for ever for somebody who only writes.
        scope.spawn(move || {
            // A program may stop reading early; then its exit status says why.
            let _ = stdin.write_all(input.as_bytes());
        });
        child.wait_with_output()
    });
    let output = output.with_context(|| format!("cannot wait for {}", shown(command)))?;
    checked(command, &output)
}

/// `ip` with words separated by blanks, in the namespace `netns` or, when empty, on the host.
pub fn ip(netns: &str, words: &str) -> Result<()> {
    let mut ip = command("ip");
    if !netns.is_empty() {
        ip.args(["-n", netns]);
    }
    output(ip.args(words.split_whitespace())).map(drop)
}

/// Feeds lines to `ip` in the namespace `netns`.
pub fn batch(netns: &str, lines: &str) -> Result<()> {
    feed(command("ip").args(["-n", netns, "-batch", "-"]), lines).map(drop)
}

/// Lets a network namespace pass packets on.
pub fn forward(netns: &str) -> Result<()> {
    output(inside(netns, "sh").args(["-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"])).map(drop)
}

/// Feeds `rules` to `nft` in one transaction.
pub fn nft(netns: &str, rules: &str) -> Result<()> {
    feed(inside(netns, "nft").args(["-f", "-"]), rules).map(drop)
}

pub fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    std::fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

fn checked(command: &Command, output: &Output) -> Result<String> {
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let said = format!("{}\n{}", String::from_utf8_lossy(&output.stderr).trim(), tail(printed.trim(), 12));
        bail!("{} failed ({}): {}", shown(command), output.status, tail(said.trim(), 24));
    }
    Ok(printed)
}

fn shown(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// The last `count` lines of a text.
pub fn tail(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
