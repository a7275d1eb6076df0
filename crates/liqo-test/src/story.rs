//! Stories: tests on real clusters. Each story is timed, and a failed story keeps the evidence of its clusters.
//!
//! Kept true: whatever ends a story badly, an error or a panic, in the raising of its stage or later, the last words of its
//! error name the directory with the logs. A stage that does not come up is raised once, not by each story of its file.

use std::{
    any::Any,
    env,
    fs::{self, OpenOptions},
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Condvar, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow};
use serde_json::json;

use crate::{Stage, assets, evidence, out, wait};

/// A running story. When dropped, the story writes one line to `timings.jsonl` in cargo's target directory.
#[derive(Debug)]
pub struct Story {
    name: String,
    bed: String,
    began: Instant,
    good: bool,
}

impl Story {
    /// Begins a story named after the current test.
    pub fn begin(bed: &str) -> Self {
        let test = thread::current().name().unwrap_or("main").to_owned();
        Self::called(&test, bed)
    }

    fn called(name: &str, bed: &str) -> Self {
        wait::forget();
        evidence::forget();
        Self { name: format!("{}::{name}", binary()), bed: bed.to_owned(), began: Instant::now(), good: true }
    }

    /// Ends the story with its result.
    fn end(mut self, outcome: thread::Result<Result<()>>) -> Result<()> {
        let error = match outcome {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(panic) => anyhow!("panicked: {}", words(panic.as_ref())),
        };
        self.good = false;
        let places: Vec<_> = evidence::kept().iter().map(|path| path.display().to_string()).collect();
        let places = if places.is_empty() { "nothing was kept".to_owned() } else { places.join("\n") };
        let told = format!("{error:#}\n\nWhat there is to read of {}:\n{places}", self.name);
        out::note(&format!("{} failed: {told}", self.name));
        Err(anyhow!(told))
    }

    /// One line of JSON: the story, its test bed, its end, its seconds, and its longest wait.
    fn write(&self) -> Result<()> {
        let seconds = |duration: std::time::Duration| (duration.as_secs_f64() * 10.0).round() / 10.0;
        let ended = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (wait, what) = wait::longest().unwrap_or_default();
        let line = json!({
            "story": self.name, "bed": self.bed, "ended": ended, "seconds": seconds(self.began.elapsed()),
            "good": self.good, "wait": {"seconds": seconds(wait), "for": what},
        });
        let path = assets::target().join("timings.jsonl");
        fs::create_dir_all(assets::target())?;
        let mut file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.as_mut().map_err(|error| anyhow!("cannot open {}: {error}", path.display()))?;
        file.write_all(format!("{line}\n").as_bytes()).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        self.good &= !thread::panicking();
        let verdict = if self.good { "ok" } else { "FAILED" };
        out::note(&format!("{} {verdict} after {:.1} s", self.name, self.began.elapsed().as_secs_f64()));
        if let Err(error) = self.write() {
            out::note(&format!("the time of {} is not written: {error:#}", self.name));
        }
    }
}

/// The name of this test binary, without the hash that cargo appends.
fn binary() -> String {
    let path = env::current_exe().unwrap_or_default();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    stem.rsplit_once('-').map_or(stem.clone(), |(name, _)| name.to_owned())
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_else(|| "?".to_owned())
}

/// Tells a story on a stage of its own, which is taken down afterwards.
///
/// # Errors
/// When the stage does not come up or the story fails.
pub fn alone(bed: &str, raise: impl FnOnce() -> Result<Stage>, test: impl FnOnce(&Stage) -> Result<()>) -> Result<()> {
    let story = Story::begin(bed);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut stage = raise()?;
        test(&stage)?;
        stage.note_rights()?;
        stage.is_well();
        Ok(())
    }));
    story.end(outcome)
}

/// One stage for all stories of a file; the stories run one at a time.
#[derive(Debug)]
pub struct Suite<S> {
    bed: &'static str,
    raise: fn() -> Result<S>,
    stage: OnceLock<Result<Mutex<S>, String>>,
    turns: Turns,
}

/// Stories are told in the order in which they ask for the stage. (A mutex alone lets the thread that has just let go of it
/// come first again.)
#[derive(Debug)]
struct Turns {
    asked: AtomicU64,
    told: Mutex<u64>,
    news: Condvar,
}

impl Turns {
    const fn new() -> Self {
        Self { asked: AtomicU64::new(0), told: Mutex::new(0), news: Condvar::new() }
    }

    /// Waits for the turn of whoever asks now.
    fn take(&self) -> Turn<'_> {
        let mine = self.asked.fetch_add(1, Ordering::SeqCst);
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.news.wait_while(told, |told| *told != mine));
        Turn(self)
    }
}

/// The turn of one story; it ends when this is dropped.
struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.told.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.news.notify_all();
    }
}

impl<S: AsMut<Stage>> Suite<S> {
    /// A suite whose stage `raise` makes when the first story is told.
    pub const fn new(bed: &'static str, raise: fn() -> Result<S>) -> Self {
        Self { bed, raise, stage: OnceLock::new(), turns: Turns::new() }
    }

    /// Tells a story on the stage, whose wire is whole at the beginning.
    ///
    /// # Errors
    /// When the stage does not come up, or did not for an earlier story, or when the story fails.
    pub fn tell(&self, test: impl FnOnce(&mut S) -> Result<()>) -> Result<()> {
        let _turn = self.turns.take();
        let stage = self.stage.get_or_init(|| self.raised()).as_ref();
        let stage = stage.map_err(|error| anyhow!("the stage did not come up: {error}"))?;
        let mut stage = stage.lock().unwrap_or_else(PoisonError::into_inner);
        let story = Story::begin(self.bed);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            stage.as_mut().bed.heal()?;
            test(&mut stage)?;
            stage.as_mut().note_rights()
        }));
        if !matches!(outcome, Ok(Ok(()))) {
            stage.as_mut().bed.keep_evidence();
        }
        story.end(outcome)
    }

    fn raised(&self) -> Result<Mutex<S>, String> {
        let story = Story::called("(the stage)", self.bed);
        let mut raised = None;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            raised = Some(Mutex::new((self.raise)()?));
            Ok(())
        }));
        story.end(outcome).map_err(|error| error.to_string())?;
        raised.ok_or_else(|| "nothing was raised".to_owned())
    }
}
