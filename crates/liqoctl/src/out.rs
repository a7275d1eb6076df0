//! The only place that prints.
//!
//! Keeps true: what was asked for is on stdout; what was done is told there too, unless the command prints data
//! for programs, then stdout holds nothing but data; errors and spinners go to stderr. Without a terminal there is no
//! spinner and no colour, and `NO_COLOR` is honoured. A closed pipe is nobody's failure.

use std::{
    io::{self, IsTerminal, Write},
    sync::LazyLock,
    time::Duration,
};

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use liqo_kube::KubeError;
use serde::Serialize;

/// Everything under way, one line each, on the terminal behind stderr; lines that stay are printed above.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// How results are printed for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// JSON, indented.
    Json,
    /// YAML.
    Yaml,
}

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Info,
    Done,
    Warn,
    Error,
}

impl Mark {
    fn text(self) -> &'static str {
        match self {
            Self::Info | Self::Done => " INFO ",
            Self::Warn => " WARN ",
            Self::Error => " ERRO ",
        }
    }

    fn style(self) -> Style {
        let (ink, paper) = match self {
            Self::Info => (AnsiColor::Black, AnsiColor::White),
            Self::Done => (AnsiColor::Black, AnsiColor::Green),
            Self::Warn => (AnsiColor::Black, AnsiColor::Yellow),
            Self::Error => (AnsiColor::Black, AnsiColor::BrightRed),
        };
        Style::new().fg_color(Some(ink.into())).bg_color(Some(paper.into()))
    }

    /// The prefix as a terminal shows it; plain once the styling is taken away.
    pub(crate) fn prefix(self) -> String {
        let style = self.style();
        format!("{style}{}{style:#}", self.text())
    }
}

/// Where words go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    /// Stdout is for programs: progress moves to stderr.
    data_only: bool,
    /// Which of two clusters the lines are about.
    scope: Option<&'static str>,
}

impl Out {
    /// For a command whose result is read by people, or by programs when `data_only`.
    pub(crate) fn new(data_only: bool) -> Self {
        Self { data_only, scope: None }
    }

    /// The same, for lines about one of two clusters: they begin with `(scope)`.
    pub(crate) fn scoped(self, scope: &'static str) -> Self {
        Self { scope: Some(scope), ..self }
    }

    /// Starts something that takes a while.
    pub(crate) fn step(self, doing: impl Into<String>) -> Step {
        let terminal = io::stderr().is_terminal() && (self.data_only || io::stdout().is_terminal());
        let bar = if terminal { BARS.add(ProgressBar::new_spinner()) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})").expect("the template is valid");
        bar.set_style(style);
        bar.set_message(self.about(&doing.into()));
        bar.enable_steady_tick(Duration::from_millis(100));
        Step { bar, out: self }
    }

    /// Something worth knowing.
    pub(crate) fn info(self, text: impl AsRef<str>) {
        self.mark(Mark::Info, text.as_ref());
    }

    /// Something that was done.
    pub(crate) fn done(self, text: impl AsRef<str>) {
        self.mark(Mark::Done, text.as_ref());
    }

    /// Something to look at.
    pub(crate) fn warn(self, text: impl AsRef<str>) {
        self.mark(Mark::Warn, text.as_ref());
    }

    /// What failed, and the whole chain of causes, once.
    pub(crate) fn error(error: &anyhow::Error) {
        let mut text = format!("{} {}", Mark::Error.prefix(), liqo_kube::chain(error.as_ref()));
        if let Some(hint) = hint(error) {
            text.push_str(&format!("\nhint: {hint}"));
        }
        let text = clean(&text);
        let _ = writeln!(AutoStream::auto(io::stderr()), "{text}");
    }

    fn mark(self, mark: Mark, text: &str) {
        self.plain(format!("{} {}", mark.prefix(), self.about(text)));
    }

    fn about(self, text: &str) -> String {
        let text = clean(text);
        self.scope.map_or_else(|| text.clone(), |scope| format!("({scope}) {text}"))
    }

    /// A line for people, without prefix.
    pub(crate) fn plain(self, text: impl AsRef<str>) {
        let text = clean(text.as_ref());
        let _ = BARS.suspend(|| {
            if self.data_only {
                writeln!(AutoStream::auto(io::stderr()), "{text}")
            } else {
                writeln!(AutoStream::auto(io::stdout()), "{text}")
            }
        });
    }

    /// What was asked for.
    pub(crate) fn data(self, text: &str) -> anyhow::Result<()> {
        let text = clean(text.trim_end_matches('\n'));
        match writeln!(AutoStream::auto(io::stdout()), "{text}") {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Bytes that were asked for, as they are; `false` when nobody reads them any more.
    pub(crate) fn bytes(self, bytes: &[u8]) -> anyhow::Result<bool> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            outcome => Ok(outcome.map(|()| true)?),
        }
    }

    /// What was asked for, for programs.
    pub(crate) fn value(self, value: &impl Serialize, format: Format) -> anyhow::Result<()> {
        let value = serde_json::to_value(value)?;
        match format {
            Format::Json => self.data(&serde_json::to_string_pretty(&value)?),
            Format::Yaml => self.data(&serde_saphyr::to_string(&value)?),
        }
    }
}

/// Something under way. Dropped, it leaves no trace: the error that follows says what happened.
pub(crate) struct Step {
    bar: ProgressBar,
    out: Out,
}

impl Step {
    /// Changes what the spinner says.
    pub(crate) fn say(&self, doing: impl Into<String>) {
        self.bar.set_message(self.out.about(&doing.into()));
    }

    /// It worked.
    pub(crate) fn done(self, text: impl AsRef<str>) {
        self.bar.finish_and_clear();
        self.out.done(text);
    }

    /// It worked, but.
    pub(crate) fn warn(self, text: impl AsRef<str>) {
        self.bar.finish_and_clear();
        self.out.warn(text);
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// The text without what commands a terminal, or turns the order of characters: much of what is printed was written by others, who
/// may be in another cluster. Colours stay, since we use them ourselves.
fn clean(text: &str) -> String {
    let is_odd = |c: char| {
        c.is_control() && !matches!(c, '\n' | '\t')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut cleaned = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(is_odd) {
        let (before, odd) = rest.split_at(at);
        cleaned.push_str(before);
        let length = colour(odd);
        cleaned.push_str(length.and_then(|length| odd.get(..length)).unwrap_or("\u{fffd}"));
        let first = odd.chars().next().map_or(1, char::len_utf8);
        rest = odd.get(length.unwrap_or(first)..).unwrap_or_default();
    }
    cleaned.push_str(rest);
    cleaned
}

/// Bytes of the sequence that begins the text, if the sequence changes colours, weight or underlining and nothing else.
fn colour(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    let (parameters, rest) = parameters.split_at(end);
    let is_ours =
        |one: &str| matches!(one.parse::<u8>(), Ok(0 | 1 | 4 | 22 | 24 | 30..=37 | 39..=47 | 49 | 90..=97 | 100..=107));
    (rest.starts_with('m') && parameters.split(';').all(is_ours)).then_some("\u{1b}[".len() + end + 1)
}

/// What to look at when the API server itself is the problem.
fn hint(error: &anyhow::Error) -> Option<&'static str> {
    let by_webhook = error.chain().any(|cause| cause.to_string().contains("admission webhook"));
    let error = error.chain().find_map(|cause| cause.downcast_ref::<KubeError>())?;
    match (error.is_unreachable(), error.is_forbidden() && !by_webhook) {
        (true, _) => Some("is the API server running, and do --kubeconfig and --context name the right cluster?"),
        (_, true) => {
            Some("the user of the kubeconfig may not do that: liqoctl needs the rights of a cluster administrator")
        }
        _ => None,
    }
}

/// A failure that has been told already: only the exit code is left to say.
#[derive(Debug, thiserror::Error)]
#[error("some checks failed")]
pub(crate) struct Told;

/// The worker of a job failed, which has been told; its exit code is ours.
#[derive(Debug, thiserror::Error)]
#[error("the worker ended with exit code {0}")]
pub(crate) struct WorkerFailed(pub(crate) u8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_others_commands_a_terminal() {
        for (text, wanted) in [
            ("plain ✔ ünï\n\tx", "plain ✔ ünï\n\tx"),
            ("\u{1b}]0;title\u{7}", "\u{fffd}]0;title\u{fffd}"),
            ("\u{1b}[2J\u{1b}[1;1H", "\u{fffd}[2J\u{fffd}[1;1H"),
            ("\u{1b}[8mhidden", "\u{fffd}[8mhidden"),
            ("\u{1b}[1;31mred\u{1b}[0m", "\u{1b}[1;31mred\u{1b}[0m"),
            ("over\rwritten\u{8}\u{9b}2J", "over\u{fffd}written\u{fffd}\u{fffd}2J"),
            ("\u{202e}gpj.exe", "\u{fffd}gpj.exe"),
            ("\u{1b}", "\u{fffd}"),
            ("\u{1b}[31", "\u{fffd}[31"),
        ] {
            assert_eq!(clean(text), wanted, "{text:?}");
        }
        for mark in [Mark::Info, Mark::Done, Mark::Warn, Mark::Error] {
            assert_eq!(clean(&mark.prefix()), mark.prefix());
        }
    }

    #[test]
    fn a_prefix_is_six_characters_without_its_colours() {
        for mark in [Mark::Info, Mark::Done, Mark::Warn, Mark::Error] {
            let plain = anstream::adapter::strip_str(&mark.prefix()).to_string();
            assert_eq!(plain.len(), 6, "{plain:?}");
        }
    }
}
