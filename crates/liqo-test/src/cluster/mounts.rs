//! A node's own `/run/netns`: agents of a node's network bind namespaces there, and on this machine there are many nodes.
//!
//! Kept true: containerd and the kubelet of a node share one mount namespace. What they mount below the node's directory is
//! seen from outside too, and what they bind in `/run/netns` is seen outside as `<node>/netns`, so that tearing down finds it.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use super::Node;
use crate::run::{command, output, write};

/// Makes the mount namespace of a node, once.
pub(super) fn isolate(node: &Node) -> Result<()> {
    let (dir, namespace) = (node.dir.display().to_string(), mount_namespace(node));
    let keep = namespace.parent().context("the namespace's file has a directory")?.display().to_string();
    for part in [&keep, &format!("{dir}/netns")] {
        fs::create_dir_all(part).with_context(|| format!("cannot make {part}"))?;
    }
    // A namespace can only be kept on a mount that is not shared.
    for (directory, propagation) in [(&dir, "--make-shared"), (&keep, "--make-private")] {
        mount(&["--bind", directory, directory])?;
        mount(&[propagation, directory])?;
    }
    write(&namespace, "")?;
    let file = format!("--mount={}", namespace.display());
    output(command("unshare").args([&file, "--propagation", "unchanged", "true"]))
        .context("cannot make a mount namespace")?;
    // Private first: what covers /run/netns here must not cover it elsewhere. Shared then, with nobody: containerd asks
    // that of what lies below, too, before it lets a container bind something there.
    let own = "mount --make-private /run/netns && mount --make-shared /run/netns";
    let cover = format!("{own} && mount --bind {dir}/netns /run/netns");
    output(command("nsenter").args([&file, "sh", "-c", &cover])).context("cannot give a node its /run/netns").map(drop)
}

/// The words that start a program of a node in the node's mount namespace.
pub(super) fn words(node: &Node, program: Vec<String>) -> Vec<String> {
    let enter = ["nsenter".to_owned(), format!("--mount={}", mount_namespace(node).display())];
    enter.into_iter().chain(program).collect()
}

fn mount_namespace(node: &Node) -> PathBuf {
    node.dir.join("ns/mnt")
}

fn mount(words: &[&str]) -> Result<()> {
    output(command("mount").args(words)).map(drop)
}
