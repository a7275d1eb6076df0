//! A log as server-sent events: `line` carries a line as JSON text, `end` says that the worker has ended.
//!
//! Keeps true: the `id` of an event says from which pod and how many of its bytes were told, so that a browser that connects again with
//! `Last-Event-ID` misses nothing and gets nothing twice; a line without end holds no memory.

use std::{io, time::Duration};

use axum::body::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};

/// Longest line of one event, bytes; longer ones come in pieces.
const LONGEST: usize = 16 * 1024;

/// Cuts a log into events.
#[derive(Debug)]
pub(crate) struct Lines {
    pod: String,
    /// Bytes told.
    told: u64,
    /// Bytes that the caller knows from before.
    skip: u64,
    /// The beginning of a line.
    rest: Vec<u8>,
}

impl Lines {
    /// The log of a pod, for a caller who knows the events up to `last`.
    pub(crate) fn of(pod: &str, last: Option<&str>) -> Self {
        let known = last.and_then(|id| id.rsplit_once('/')).filter(|(of, _)| *of == pod);
        let skip = known.and_then(|(_, bytes)| bytes.parse().ok()).unwrap_or_default();
        Self { pod: pod.to_owned(), told: 0, skip, rest: Vec::new() }
    }

    /// The events of the next bytes.
    fn feed(&mut self, piece: &[u8]) -> String {
        let known = usize::try_from(self.skip).unwrap_or(usize::MAX).min(piece.len());
        self.skip -= known as u64;
        self.told += known as u64;
        let mut events = String::new();
        for byte in piece.iter().skip(known) {
            self.rest.push(*byte);
            if *byte == b'\n' || self.rest.len() == LONGEST {
                events.push_str(&self.event());
            }
        }
        events
    }

    /// The last events.
    fn end(&mut self) -> String {
        let last = if self.rest.is_empty() { String::new() } else { self.event() };
        format!("{last}event: end\ndata: null\n\n")
    }

    fn event(&mut self) -> String {
        self.told += self.rest.len() as u64;
        let line = self.rest.strip_suffix(b"\n").unwrap_or(&self.rest);
        let line = serde_json::to_string(&String::from_utf8_lossy(line)).expect("a text is JSON");
        self.rest.clear();
        format!("id: {}/{}\nevent: line\ndata: {line}\n\n", self.pod, self.told)
    }
}

/// The events of a log. A comment says that the stream lives when the worker says nothing for so long.
pub(crate) fn events(
    log: BoxStream<'static, io::Result<Bytes>>,
    lines: Lines,
    silence: Duration,
) -> BoxStream<'static, io::Result<Bytes>> {
    let next = move |state: Option<(BoxStream<'static, io::Result<Bytes>>, Lines)>| async move {
        let Some((mut log, mut lines)) = state else { return Ok(None) };
        let text = match tokio::time::timeout(silence, log.next()).await {
            Err(_) => ":\n\n".to_owned(),
            Ok(None) => return Ok(Some((Bytes::from(lines.end()), None))),
            Ok(Some(piece)) => lines.feed(&piece?),
        };
        Ok(Some((Bytes::from(text), Some((log, lines)))))
    };
    stream::try_unfold(Some((log, lines)), next).boxed()
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    fn told(pieces: &[&[u8]], last: Option<&str>) -> Vec<(String, String)> {
        let mut lines = Lines::of("p", last);
        let mut text: String = pieces.iter().map(|piece| lines.feed(piece)).collect();
        text.push_str(&lines.end());
        let field = |event: &str, name: &str| {
            let line = event.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim_start_matches(": ").to_owned()
        };
        text.split_terminator("\n\n").map(|event| (field(event, "id"), field(event, "data"))).collect()
    }

    #[test]
    fn lines_are_events_wherever_the_pieces_end() {
        let pair = |id: &str, data: &str| (id.to_owned(), data.to_owned());
        let wanted = [
            pair("p/3", "\"ab\""),
            pair("p/4", "\"\""),
            pair("p/9", "\"\u{fffd}\\\"x\\r\""),
            pair("p/10", "\"e\""),
            pair("", "null"),
        ];
        assert_eq!(told(&[b"ab\n\n\xff\"x\r\ne"], None), wanted);
        let single: Vec<&[u8]> = b"ab\n\n\xff\"x\r\ne".chunks(1).collect();
        assert_eq!(told(&single, None), wanted);
        assert_eq!(told(&single, Some("p/4")), wanted[2..]);
        assert_eq!(told(&single, Some("p/10")), wanted[4..]);
        for other in ["q/4", "4", "p/", "p/x", "p/-1"] {
            assert_eq!(told(&single, Some(other)), wanted, "{other}");
        }
    }

    #[test]
    fn a_line_without_end_comes_in_pieces() {
        let long = vec![b'x'; 2 * LONGEST + 1];
        let ids: Vec<_> = told(&[&long], None).into_iter().map(|(id, _)| id).collect();
        let id = |bytes: usize| format!("p/{bytes}");
        assert_eq!(ids, [id(LONGEST), id(2 * LONGEST), id(2 * LONGEST + 1), String::new()]);
    }

    #[tokio::test]
    async fn a_silent_worker_is_no_dead_stream() {
        let log = stream::iter([Ok(Bytes::from_static(b"a\n"))]).chain(stream::pending()).boxed();
        let all = events(log, Lines::of("p", None), Duration::from_millis(1));
        let first: Vec<_> = all.take(2).try_collect().await.unwrap();
        assert_eq!(first, [Bytes::from_static(b"id: p/2\nevent: line\ndata: \"a\"\n\n"), Bytes::from_static(b":\n\n")]);
    }
}
