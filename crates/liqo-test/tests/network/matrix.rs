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
    application::{Application, Services},
    places::{Place, View, mapped},
};

/// How often a datagram is sent before it counts as lost on purpose.
const DATAGRAMS: usize = 5;
/// Small and large, connections and datagrams. The last one is longer than any packet may be.
const WAYS: [Way; 4] = [Way::Tcp(100), Way::Tcp(200_000), Way::Udp(100), Way::Udp(4000)];

/// One thing to ask from a place.
#[derive(Clone, Debug)]
struct Question {
    what: String,
    to: SocketAddr,
    /// Who may answer.
    names: Vec<String>,
    /// The address the one asked should see.
    seen: Option<IpAddr>,
}

/// All there is to ask, by the place it is asked from.
#[derive(Debug)]
pub(crate) struct Matrix<'a> {
    rows: Vec<(&'a Place, Vec<Question>)>,
}

impl<'a> Matrix<'a> {
    /// From every pod and every node to every pod of the other cluster, to the Services and to the node ports.
    pub(crate) fn new(
        places: &'a [Place],
        views: &BTreeMap<(String, String), View>,
        application: &Application,
    ) -> Result<Self> {
        let mut rows = Vec::new();
        for from in places {
            let mut questions = Vec::new();
            for to in places.iter().filter(|to| to.is_pod && to.name != from.name) {
                questions.extend(pod(from, to, views)?);
            }
            let services = if from.cluster == "rome" { &application.at_home } else { &application.abroad };
            questions.extend(of_the_application(from, services, application, places));
            rows.push((from, questions));
        }
        Ok(Self { rows })
    }

    /// How many questions that are.
    pub(crate) fn size(&self) -> usize {
        self.rows.iter().map(|(_, questions)| questions.len() * WAYS.len()).sum()
    }

    /// Asks everything at once; gives what went wrong.
    pub(crate) fn ask(&self) -> Result<Vec<String>> {
        let mut asking = Vec::new();
        for (from, questions) in &self.rows {
            for question in questions {
                let (question, name) = (question.clone(), format!("{}/{}", from.cluster, from.name));
                asking.push(from.netns.spawn(move || {
                    let wrong = WAYS.iter().filter_map(|way| patiently(&question, *way).err());
                    wrong.map(|error| format!("{name} → {}: {error:#}", question.what)).collect::<Vec<_>>()
                })?);
            }
        }
        let mut all = Vec::new();
        for one in asking {
            all.extend(one.join().expect("asking does not panic")?);
        }
        Ok(all)
    }

    /// Asks until nothing is wrong; says how long that took.
    pub(crate) fn whole(&self, after: &str, limit: Duration) -> Result<()> {
        let began = Instant::now();
        loop {
            let asked = Instant::now();
            let wrong = self.ask()?;
            if wrong.is_empty() {
                let (all, last) = (began.elapsed().as_secs_f64(), asked.elapsed().as_secs_f64());
                out::note(&format!("{after}: {} answers, whole after {all:.1} s (asking {last:.1} s)", self.size()));
                return Ok(());
            }
            if began.elapsed() > limit {
                let (count, size) = (wrong.len(), self.size());
                let some: Vec<_> = wrong.into_iter().take(40).collect();
                bail!("{after}: {count} of {size} questions go wrong after {limit:?}: {some:#?}");
            }
        }
    }

    /// Only what is asked from or of the places of one node.
    pub(crate) fn of_node(mut self, node: &str) -> Self {
        self.rows.retain(|(from, _)| from.node == node);
        self
    }
}

/// A wire may lose a datagram, and nobody but the asker sends it again.
fn patiently(question: &Question, way: Way) -> Result<()> {
    let again = if matches!(way, Way::Udp(_)) { DATAGRAMS - 1 } else { 0 };
    (0..again).find_map(|_| wrong(question, way).ok()).map_or_else(|| wrong(question, way), Ok)
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
        to: SocketAddr::new(to_ip.into(), PORT),
        names: vec![to.name.clone()],
        seen: seen.map(IpAddr::V4),
    }))
}

fn of_the_application(from: &Place, services: &Services, application: &Application, places: &[Place]) -> Vec<Question> {
    let (here, there) = (application.here.name.clone(), application.there.name.clone());
    let question =
        |what: &str, to: SocketAddr, names: Vec<String>| Question { what: what.into(), to, names, seen: None };
    let mut all = vec![
        question("Service of both", services.both, vec![here.clone(), there.clone()]),
        question("Service of a host's pod", services.host, vec![application.host.clone()]),
    ];
    // The node ports of its own node, and of another one.
    let nodes = places.iter().filter(|place| place.cluster == from.cluster && !place.is_pod);
    let (mine, others): (Vec<_>, Vec<_>) = nodes.partition(|node| node.node == from.node);
    for node in mine.into_iter().chain(others.into_iter().take(1)) {
        for (what, port, name) in [("away", services.away, &there), ("home", services.home, &here)] {
            let to = SocketAddr::new(node.ip.into(), port);
            all.push(question(&format!("node port {what} of {}", node.name), to, vec![name.clone()]));
        }
    }
    all
}
