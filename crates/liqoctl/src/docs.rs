//! `liqoctl docs`: the reference of all commands, one Markdown page each.

use std::{fmt::Write, path::PathBuf};

use anyhow::Context;
use clap::{Arg, Command, CommandFactory};

use crate::{Cli, out::Out};

/// Arguments of `docs`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DocsArgs {
    /// Where to write the pages
    #[arg(long, default_value = ".", value_name = "DIRECTORY")]
    dir: PathBuf,
    /// The format of the pages
    #[arg(long = "type", value_enum, default_value = "markdown")]
    kind: Kind,
    /// Start each page with a front matter
    #[arg(long)]
    generate_headers: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Kind {
    Markdown,
}

/// `liqoctl docs`
pub(crate) fn run(args: &DocsArgs) -> anyhow::Result<()> {
    let DocsArgs { dir, kind: Kind::Markdown, generate_headers } = args;
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let mut root = Cli::command();
    root.build();
    let pages = pages(&root, "", *generate_headers);
    for (name, text) in &pages {
        let path = dir.join(format!("{name}.md"));
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Out::new(false).done(format!("{} pages written to {:?}", pages.len(), dir.display().to_string()));
    Ok(())
}

/// Pure: the page of a command, then those of its children.
fn pages(command: &Command, parents: &str, headers: bool) -> Vec<(String, String)> {
    let full =
        if parents.is_empty() { command.get_name().to_owned() } else { format!("{parents} {}", command.get_name()) };
    let mut all = vec![(full.replace(' ', "_"), page(command, &full, headers))];
    let children = command.get_subcommands().filter(|child| !child.is_hide_set() && child.get_name() != "help");
    all.extend(children.flat_map(|child| pages(child, &full, headers)));
    all
}

fn page(command: &Command, full: &str, headers: bool) -> String {
    let mut text = String::new();
    if headers {
        let _ = writeln!(text, "---\ntitle: \"{full}\"\n---\n");
    }
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(text, "# {full}\n\n{about}\n");
    if let Some(long) = command.get_long_about() {
        let long = long.to_string();
        let rest = long.strip_prefix(&about).unwrap_or(&long).trim();
        if !rest.is_empty() {
            let _ = writeln!(text, "## Description\n\n```text\n{rest}\n```\n");
        }
    }
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    let _ = writeln!(text, "## Usage\n\n```text\n{usage}\n```");
    let (inherited, own): (Vec<_>, Vec<_>) =
        command.get_arguments().filter(|arg| !arg.is_hide_set()).partition(|arg| arg.is_global_set());
    options(&mut text, "Arguments and options", &own);
    options(&mut text, "Options also valid for subcommands", &inherited);
    let children: Vec<_> =
        command.get_subcommands().filter(|child| !child.is_hide_set() && child.get_name() != "help").collect();
    if !children.is_empty() {
        let _ = writeln!(text, "\n## Commands\n");
        for child in children {
            let link = format!("{full} {}", child.get_name());
            let about = child.get_about().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "* [{link}]({}.md) - {about}", link.replace(' ', "_"));
        }
    }
    text
}

fn options(text: &mut String, title: &str, all: &[&Arg]) {
    if all.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n## {title}\n\n| Option | Default | Meaning |\n|---|---|---|");
    for arg in all {
        let takes_value = arg.get_action().takes_values();
        let value =
            arg.get_value_names().and_then(|names| names.first()).filter(|_| takes_value).map(|name| name.to_string());
        let option = match (arg.get_short(), arg.get_long(), value) {
            (Some(short), Some(long), Some(value)) => format!("`-{short}, --{long} <{value}>`"),
            (Some(short), Some(long), None) => format!("`-{short}, --{long}`"),
            (None, Some(long), Some(value)) => format!("`--{long} <{value}>`"),
            (None, Some(long), None) => format!("`--{long}`"),
            (_, None, value) => format!("`<{}>`", value.unwrap_or_else(|| arg.get_id().to_string())),
        };
        let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
        let default = if takes_value { default.join(",") } else { String::new() };
        let _ = writeln!(text, "| {option} | {default} | {help} |");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_visible_command_has_a_page_that_teaches() {
        let mut root = Cli::command();
        root.build();
        let pages = pages(&root, "", false);
        let names: Vec<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for wanted in
            ["liqoctl", "liqoctl_peer", "liqoctl_peer_out-of-band", "liqoctl_install_kubeadm", "liqoctl_status_peer"]
        {
            assert!(names.contains(&wanted), "{wanted} in {names:?}");
        }
        for (name, text) in &pages {
            assert!(text.contains("Example") || name == "liqoctl", "{name} has no example");
        }
    }
}
