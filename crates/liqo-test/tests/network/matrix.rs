//! Who reaches whom: every pair of places, by every way, with what the one asked should see.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use liqo_test::{
    echo::{Answer, PORT, Way, ask_here},
    out,
};

use super::{
    application::Application,
    places::{Place, View, mapped},
};

/// Small and large, connections and datagrams: one that a narrow path has to refuse, so that its sender learns of it, and
/// one that is longer than any packet may be.
const WAYS: [Way; 5] = [Way::Tcp(100), Way::Tcp(200_000), Way::Udp(100), Way::Udp(1300), IN_PIECES];
const IN_PIECES: Way = Way::Udp(4000);

/// One thing to ask from a place.
#[derive(Clone, Debug)]
struct Question {
    what: String,
    to: SocketAddr,
    /// The cluster whose pod is asked by its own address.
    of: Option<String>,
    /// Who may answer.
    names: Vec<String>,
    /// Where they are.
    clusters: Vec<String>,
    /// The address the one asked should see.
    seen: Option<IpAddr>,
}

/// A question, from where it is asked and by which ways.
#[derive(Clone, Debug)]
struct Asked<'a> {
    from: &'a Place,
    question: Question,
    ways: Vec<Way>,
}

/// All there is to ask.
#[derive(Debug)]
pub(crate) struct Matrix<'a> {
    all: Vec<Asked<'a>>,
}

/// What has to be asked anew when some answers were wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// Everything: the network is whole when all goes well at once.
    All,
    /// What went wrong: the wire loses some of it, and nobody but the asker can help that. What travels in several pieces,
    /// of which none may be lost, is not asked at all.
    Wrong,
}

impl<'a> Matrix<'a> {
    /// From every pod and every node to every pod of the other cluster, to the Services and to the node ports.
    pub(crate) fn new(
        places: &'a [Place],
        views: &BTreeMap<(String, String), View>,
        application: &Application,
    ) -> Result<Self> {
        let mut all = Vec::new();
        for from in places {
            let mut questions = Vec::new();
            for to in places.iter().filter(|to| to.is_pod && to.name != from.name) {
                questions.extend(pod(from, to, views)?);
            }
            questions.extend(of_the_application(from, application, places));
            all.extend(questions.into_iter().map(|question| Asked { from, question, ways: WAYS.to_vec() }));
        }
        Ok(Self { all })
    }

    /// Asks until nothing is wrong; says how long that took.
    pub(crate) fn whole(mut self, after: &str, limit: Duration, again: Again) -> Result<()> {
        for one in &mut self.all {
            one.ways.retain(|way| match again {
                Again::All => true,
                Again::Wrong => *way != IN_PIECES,
            });
        }
        let (began, size) = (Instant::now(), count(&self.all));
        let mut left = self.all.clone();
        loop {
            let asked = Instant::now();
            let (wrong, errors, slowest) = ask(&left)?;
            if wrong.is_empty() {
                let (all, last) = (began.elapsed().as_secs_f64(), asked.elapsed().as_secs_f64());
                out::note(&format!("{after}: {size} answers, whole after {all:.1} s (asking {last:.1} s; {slowest})"));
                return Ok(());
            }
            if began.elapsed() > limit {
                let some = &errors[..errors.len().min(40)];
                bail!("{after}: {} of {size} questions go wrong after {limit:?}: {some:#?}", errors.len());
            }
            out::note(&format!(
                "  after {:.1} s {} wrong, as {}",
                began.elapsed().as_secs_f64(),
                errors.len(),
                errors[0]
            ));
            if again != Again::All {
                left = wrong;
            }
        }
    }

    /// Divides the questions: first all that go to Services, and those to addresses of pods that `is_open` accepts by the
    /// clusters of who asks and who is asked; second the others.
    pub(crate) fn partition(self, is_open: impl Fn(&str, &str) -> bool) -> (Self, Self) {
        let is_first = |one: &Asked| one.question.of.as_ref().is_none_or(|asked| is_open(&one.from.cluster, asked));
        let (first, second) = self.all.into_iter().partition(is_first);
        (Self { all: first }, Self { all: second })
    }

    /// Asks everything once, by TCP and UDP: no question may be answered.
    pub(crate) fn nobody_answers(&self, after: &str) -> Result<()> {
        ensure!(!self.all.is_empty(), "{after}: there is nothing to ask");
        let mut asking = Vec::new();
        for Asked { from, question, .. } in &self.all {
            let (what, to) = (format!("{}/{} → {}", from.cluster, from.name, question.what), question.to);
            for way in [Way::Tcp(100), Way::Udp(100)] {
                asking.push((format!("{what} by {way:?}"), from.netns.spawn(move || ask_here(to, way).is_ok())?));
            }
        }
        let size = asking.len();
        let mut answered = Vec::new();
        for (what, one) in asking {
            if one.join().expect("asking does not panic")? {
                answered.push(what);
            }
        }
        ensure!(answered.is_empty(), "{after}: {} of {size} questions are answered: {answered:#?}", answered.len());
        out::note(&format!("{after}: {size} questions that nobody answers"));
        Ok(())
    }

    /// Only what has nothing to do with one cluster.
    pub(crate) fn without(mut self, cluster: &str) -> Self {
        self.all.retain(|one| {
            one.from.cluster != cluster && one.question.clusters.iter().all(|answering| answering != cluster)
        });
        self
    }

    /// Only what is asked from the places of one node.
    pub(crate) fn of_node(mut self, node: &str) -> Self {
        self.all.retain(|one| one.from.node == node);
        self
    }
}

/// How many answers are awaited.
fn count(all: &[Asked]) -> usize {
    all.iter().map(|one| one.ways.len()).sum()
}

/// Asks everything at once; gives what is to be asked again, why, and which answer took longest.
fn ask<'a>(all: &[Asked<'a>]) -> Result<(Vec<Asked<'a>>, Vec<String>, String)> {
    let mut asking = Vec::new();
    for one in all {
        let (question, ways) = (one.question.clone(), one.ways.clone());
        asking.push(one.from.netns.spawn(move || {
            let timed = ways.into_iter().map(|way| {
                let began = Instant::now();
                (way, wrong(&question, way), began.elapsed())
            });
            timed.collect::<Vec<_>>()
        })?);
    }
    let (mut left, mut errors, mut slowest) = (Vec::new(), Vec::new(), (Duration::ZERO, String::new()));
    for (one, asking) in all.iter().zip(asking) {
        let Asked { from, question, .. } = one;
        let what = format!("{}/{} → {}", from.cluster, from.name, question.what);
        let mut ways = Vec::new();
        for (way, answer, took) in asking.join().expect("asking does not panic")? {
            if took > slowest.0 {
                slowest = (took, format!("the slowest {:.1} s: {what} by {way:?}", took.as_secs_f64()));
            }
            if let Err(error) = answer {
                errors.push(format!("{what}: {error:#}"));
                ways.push(way);
            }
        }
        if !ways.is_empty() {
            left.push(Asked { ways, ..one.clone() });
        }
    }
    Ok((left, errors, slowest.1))
}

fn wrong(question: &Question, way: Way) -> Result<()> {
    let Answer { name, seen } = ask_here(question.to, way)?;
    ensure!(question.names.contains(&name), "{name} answers instead of {:?} by {way:?}", question.names);
    ensure!(
        question.seen.is_none_or(|wanted| wanted == seen),
        "seen as {seen}, not as {:?}, by {way:?}",
        question.seen
    );
    Ok(())
}

/// From anywhere to a pod. Pods are seen under their own address, or under the one that was agreed on.
fn pod(from: &Place, to: &Place, views: &BTreeMap<(String, String), View>) -> Result<Option<Question>> {
    let (to_ip, seen) = if from.cluster == to.cluster {
        (to.ip, from.is_pod.then_some(from.ip))
    } else {
        let Some(view) = views.get(&(from.cluster.clone(), to.cluster.clone())) else { return Ok(None) };
        let seen = from.is_pod.then(|| mapped(from.ip, &view.our_pods)).transpose()?;
        (mapped(to.ip, &view.remote_pods)?, seen)
    };
    Ok(Some(Question {
        what: format!("{} pod {} on {}", to.cluster, to.name, to.node),
        of: Some(to.cluster.clone()),
        to: SocketAddr::new(to_ip.into(), PORT),
        names: vec![to.name.clone()],
        clusters: vec![to.cluster.clone()],
        seen: seen.map(IpAddr::V4),
    }))
}

/// From anywhere to the Services of the application, whose endpoints are in this cluster, in the other or in a third one.
fn of_the_application(from: &Place, application: &Application, places: &[Place]) -> Vec<Question> {
    let services = &application.services[&from.cluster];
    let [here, there, far] = [&application.here, &application.there, &application.far];
    let question = |what: &str, to: SocketAddr, names: &[&str], clusters: &[&Place]| Question {
        what: what.into(),
        of: None,
        to,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        clusters: clusters.iter().map(|place| place.cluster.clone()).collect(),
        seen: None,
    };
    let of = |what: &str, to, pods: &[&Place]| {
        question(what, to, &pods.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>(), pods)
    };
    let mut all = vec![
        of("Service of all", services.all, &[here, there, far]),
        question("Service of a host's pod", services.host, &[&application.host], &[here]),
    ];
    // The node ports of its own node, and of another one.
    let nodes = places.iter().filter(|place| place.cluster == from.cluster && !place.is_pod);
    let (mine, others): (Vec<_>, Vec<_>) = nodes.partition(|node| node.node == from.node);
    for node in mine.into_iter().chain(others.into_iter().take(1)) {
        for (what, port, pod) in
            [("away", services.away, there), ("distant", services.distant, far), ("home", services.home, here)]
        {
            let to = SocketAddr::new(node.ip.into(), port);
            all.push(of(&format!("node port {what} of {}", node.name), to, &[pod]));
        }
    }
    all
}
