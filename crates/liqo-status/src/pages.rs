//! The pages: the view of a caller as HTML.

use askama::Template;
use axum::response::Response;
use http::StatusCode;
use liqo_front::{
    look::{self, Frame},
    page::Page,
};
use liqo_kube::now;

use crate::{
    model::{Capacity, Hidden, Namespace, Overview, Peer, Pod},
    view::View,
};

/// Pages for people: name, path.
pub(crate) const PAGES: &[(&str, &str)] =
    &[("Peers", "/"), ("Namespaces", "/namespaces"), ("Pods", "/pods"), ("API", "/front/api")];

#[derive(Template)]
#[template(path = "peers.html")]
struct PeersPage<'a> {
    overview: &'a Overview,
    peers: &'a [Peer],
}

#[derive(Template)]
#[template(path = "namespaces.html")]
struct NamespacesPage<'a> {
    page: &'a Page<Namespace>,
    hidden: Vec<&'a Hidden>,
}

#[derive(Template)]
#[template(path = "pods.html")]
struct PodsPage<'a> {
    page: &'a Page<Pod>,
    hidden: Vec<&'a Hidden>,
}

/// The first page: counts, peers, what needs somebody.
pub(crate) fn first(cluster: &(String, String), user: &str, view: &View) -> Response {
    let main = PeersPage { overview: &view.overview, peers: &view.peers };
    framed(cluster, user, ("peers", "/", "/api/v1/peers"), &main)
}

/// The offloaded namespaces.
pub(crate) fn namespaces(cluster: &(String, String), user: &str, view: &View, page: &Page<Namespace>) -> Response {
    let main = NamespacesPage { page, hidden: hidden(view, "offloaded namespaces") };
    framed(cluster, user, ("namespaces", "/namespaces", "/api/v1/namespaces"), &main)
}

/// The pods that run elsewhere.
pub(crate) fn pods(cluster: &(String, String), user: &str, view: &View, page: &Page<Pod>) -> Response {
    let main = PodsPage { page, hidden: hidden(view, "pods") };
    framed(cluster, user, ("pods", "/pods", "/api/v1/pods"), &main)
}

fn hidden<'a>(view: &'a View, what: &str) -> Vec<&'a Hidden> {
    view.overview.hidden.iter().filter(|one| one.what == what).collect()
}

fn framed(
    (cluster, id): &(String, String),
    user: &str,
    (title, here, json): (&str, &str, &str),
    main: &impl Template,
) -> Response {
    let main = main.render().expect("a template is rendered into memory");
    let time = now().0.to_string();
    let frame = Frame { cluster, id, title, user, pages: PAGES, here, time: &time, main: &main, json };
    look::answer(StatusCode::OK, frame.html())
}

/// Cores and bytes for people; a dash where nothing is known.
fn amount(capacity: Option<&Capacity>) -> String {
    let Some(capacity) = capacity else { return "–".to_owned() };
    format!("{} cores · {}", cores(capacity), gib(capacity.memory_bytes))
}

fn cores(capacity: &Capacity) -> String {
    let text = format!("{}.{:02}", capacity.cpu_milli / 1000, capacity.cpu_milli % 1000 / 10);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn gib(bytes: u64) -> String {
    let tenths = (bytes >> 20) * 10 / 1024;
    if tenths.is_multiple_of(10) {
        format!("{} GiB", tenths / 10)
    } else {
        format!("{}.{} GiB", tenths / 10, tenths % 10)
    }
}

/// A time for people, to the minute, UTC.
fn minute(rfc3339: &str) -> String {
    rfc3339.chars().take(16).map(|c| if c == 'T' { ' ' } else { c }).collect()
}

/// How much of the CPU on offer is requested: in percent, at most 999, and as the share of one that `<meter>` takes.
fn usage(peer: &Peer) -> Option<(u64, String)> {
    let (gives, used) = (peer.gives?, peer.used?);
    let percent = used.cpu_milli.saturating_mul(100).checked_div(gives.cpu_milli)?.min(999);
    Some((percent, format!("{}.{:02}", percent.min(100) / 100, percent.min(100) % 100)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Level, Need};

    const EVIL: &str = "<b onload=x>\"'";

    fn peer() -> Peer {
        Peer {
            name: EVIL.into(),
            level: Level::Bad,
            state: "No path".into(),
            reason: EVIL.into(),
            gives: Some(Capacity { cpu_milli: 8000, memory_bytes: 32 << 30 }),
            used: Some(Capacity { cpu_milli: 6240, memory_bytes: 0 }),
            ..Peer::default()
        }
    }

    #[test]
    fn a_peer_is_a_row_with_words_and_units() {
        let overview = Overview {
            peers: Some(1),
            peers_established: Some(0),
            needs: vec![Need { level: Level::Bad, subject: EVIL.into(), text: EVIL.into(), command: EVIL.into() }],
            ..Overview::default()
        };
        let html = PeersPage { overview: &overview, peers: &[peer()] }.render().unwrap();
        for part in
            ["class=\"bad\">No path<small>", "8 cores · 32 GiB", "value=\"0.78\"", "78 %", "0 <small>of 1</small>"]
        {
            assert!(html.contains(part), "{part}: {html}");
        }
        assert!(!html.contains(EVIL) && html.contains("&#60;b onload=x&#62;&#34;&#39;"), "{html}");
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        let html = PeersPage { overview: &Overview::default(), peers: &[] }.render().unwrap();
        assert!(html.contains("Nothing needs you."), "{html}");
        let page = Page { items: Vec::new(), next: None, only_in: None };
        assert!(PodsPage { page: &page, hidden: Vec::new() }.render().unwrap().contains("No pod runs elsewhere."));
    }

    #[test]
    fn amounts_are_for_people() {
        let cores = |cpu_milli| cores(&Capacity { cpu_milli, memory_bytes: 0 });
        assert_eq!([cores(0), cores(20_000), cores(1550), cores(20)], ["0", "20", "1.55", "0.02"]);
        assert_eq!([gib(0), gib(3 << 29), gib(32 << 30)], ["0 GiB", "1.5 GiB", "32 GiB"]);
        let usage = |gives, used| {
            let capacity = |cpu_milli| Some(Capacity { cpu_milli, memory_bytes: 0 });
            usage(&Peer { gives: capacity(gives), used: capacity(used), ..Peer::default() })
        };
        for (gives, used, wanted) in
            [(8000, 0, (0, "0.00")), (1000, 70, (7, "0.07")), (8000, 6240, (78, "0.78")), (1000, 3400, (340, "1.00"))]
        {
            assert_eq!(usage(gives, used), Some((wanted.0, wanted.1.to_owned())));
        }
        assert_eq!(minute("2026-01-02T03:04:05Z"), "2026-01-02 03:04");
        assert_eq!((amount(None).as_str(), usage(0, 5)), ("–", None));
    }
}
