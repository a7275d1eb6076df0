//! The way of an address over a real connection: a small address management answers on a socket.

use std::{
    future::Future,
    sync::atomic::{AtomicBool, AtomicU8, Ordering},
};

use liqo_front::grpc::{Caller, Credentials, Grpc, Identity, Status, Who};
use liqo_ipam_rpc::{Answers, Ipam, Refusal, Subject, files};
use liqo_kube::{drain::Drain, drive};
use tokio::net::TcpListener;

use super::*;

/// Pods of `10.244.0.0/16` are `10.245.0.0/16` there; everything else is given the next of `10.98.0.0/16`.
#[derive(Default)]
struct Plan {
    mapped: Mutex<HashMap<IpAddr, IpAddr>>,
    next: AtomicU8,
    /// Its memory cannot be reached.
    out: AtomicBool,
}

impl Plan {
    fn mapped(&self) -> Vec<String> {
        let mut all: Vec<_> = lock(&self.mapped).keys().map(ToString::to_string).collect();
        all.sort();
        all
    }
}

impl Identity for Plan {
    async fn identify(&self, _shown: Credentials<'_>) -> Result<Who, Status> {
        Ok(Who::Forwarded)
    }
}

impl Ipam for Plan {
    type Caller = Caller;

    async fn admit(&self, caller: &Caller, _subject: Subject<'_>) -> Result<(), Refusal> {
        caller.keep();
        Ok(())
    }

    async fn map_endpoint_ip(&self, cluster_id: &str, ip: IpAddr) -> Result<IpAddr, Refusal> {
        let IpAddr::V4(v4) = ip else { return Err(Refusal::Invalid("only IPv4".to_owned())) };
        if self.out.load(Ordering::SeqCst) {
            return Err(Refusal::Unavailable("the API server does not answer".to_owned()));
        }
        if cluster_id != "peer" {
            return Err(Refusal::Unknown(format!("cluster {cluster_id} is not known")));
        }
        if let [10, 244, c, d] = v4.octets() {
            return Ok(IpAddr::from([10, 245, c, d]));
        }
        let next = || IpAddr::from([10, 98, 0, self.next.fetch_add(1, Ordering::SeqCst) + 1]);
        Ok(*lock(&self.mapped).entry(ip).or_insert_with(next))
    }

    async fn unmap_endpoint_ip(&self, _cluster_id: &str, ip: IpAddr) -> Result<(), Refusal> {
        lock(&self.mapped).remove(&ip);
        Ok(())
    }

    async fn home_pod_ip(&self, _cluster_id: &str, ip: IpAddr) -> Result<IpAddr, Refusal> {
        Err(Refusal::NotYet(format!("{ip}: the networks of the peer are not known yet")))
    }

    fn belongs_to_pod_cidr(&self, _ip: IpAddr) -> impl Future<Output = Result<bool, Refusal>> + Send {
        std::future::ready(Ok(false))
    }
}

struct Bench {
    plan: Arc<Plan>,
    asker: Arc<Asker>,
    names: Queue<String>,
}

async fn bench(way: Way) -> Bench {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let plan = Arc::new(Plan::default());
    let front = Grpc::new(Answers::new(Arc::clone(&plan)), files(), Arc::clone(&plan)).unwrap();
    tokio::spawn(front.serve(listener, None, Drain::default()));
    let ipam = IpamClient::new(&address.to_string()).unwrap().with_deadline(DEADLINE);
    let asker = Arc::new(Asker::new(way, ipam, "peer"));
    let driven = Arc::clone(&asker);
    tokio::spawn(async move { drive("test", driven.queue().clone(), 4, |ip| driven.settle(ip)).await });
    Bench { plan, asker, names: Queue::new() }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_is_wanted_is_asked_for_and_its_user_hears_of_the_answer() {
    let Bench { asker, names, plan, .. } = bench(Way::Out).await;
    let wishes = Wishes::new(&asker, "slices/demo", &names);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (ears, queue) = (Arc::clone(&heard), names.clone());
    tokio::spawn(async move {
        let listen = |name: String| {
            lock(&ears).push(name);
            std::future::ready(Ok::<_, Infallible>(None))
        };
        drive("listener", queue, 1, listen).await;
    });
    wishes.set("web", BTreeSet::from([ip("10.244.0.7"), ip("172.30.0.5")]));
    assert_eq!(wishes.answer(ip("10.244.0.7")), Answer::Asking);
    until("both are answered", || {
        wishes.answer(ip("10.244.0.7")) == Answer::Known(ip("10.245.0.7"))
            && wishes.answer(ip("172.30.0.5")) == Answer::Known(ip("10.98.0.1"))
    })
    .await;
    until("the user hears of it", || lock(&heard).contains(&"web".to_owned())).await;
    wishes.set("six", BTreeSet::from([ip("fd00::1")]));
    until("what is refused is known to be", || wishes.answer(ip("fd00::1")) == Answer::Failed).await;
    assert_eq!(plan.mapped(), ["172.30.0.5"]);
}

#[tokio::test]
async fn what_nobody_wants_any_more_is_given_back_and_a_successor_takes_over_the_rest() {
    let Bench { asker, names, plan, .. } = bench(Way::Out).await;
    let first = Wishes::new(&asker, "slices/demo", &names);
    first.set("web", BTreeSet::from([ip("172.30.0.5")]));
    first.set("db", BTreeSet::from([ip("172.30.0.6")]));
    until("both are mapped", || plan.mapped().len() == 2).await;
    let second = Wishes::new(&asker, "slices/demo", &names);
    drop(first);
    assert_eq!(second.of("web"), BTreeSet::from([ip("172.30.0.5")]), "wishes are carried over");
    second.set("db", BTreeSet::new());
    second.set("again", BTreeSet::from([ip("172.30.0.5")]));
    second.set("web", BTreeSet::new());
    until("what has no user is given back", || plan.mapped() == ["172.30.0.5"]).await;
}

#[tokio::test]
async fn the_end_of_the_last_gives_everything_back() {
    let Bench { asker, names, plan, .. } = bench(Way::Out).await;
    let wishes = Wishes::new(&asker, "slices/demo", &names);
    wishes.set("web", BTreeSet::from([ip("172.30.0.5")]));
    until("it is mapped", || plan.mapped().len() == 1).await;
    drop(wishes);
    until("nothing is left", || plan.mapped().is_empty()).await;
}

#[tokio::test]
async fn an_outage_ends_by_itself() {
    let Bench { asker, names, plan } = bench(Way::Out).await;
    let wishes = Wishes::new(&asker, "slices/demo", &names);
    wishes.set("web", BTreeSet::from([ip("172.30.0.5")]));
    until("it is mapped", || wishes.answer(ip("172.30.0.5")) != Answer::Asking).await;
    plan.out.store(true, Ordering::SeqCst);
    let many: BTreeSet<_> = (1..=50).map(|last| IpAddr::from([172, 30, 1, last])).collect();
    wishes.set("many", many.clone());
    until("nobody waits for an answer", || many.iter().all(|ip| wishes.answer(*ip) == Answer::Failed)).await;
    assert_eq!(wishes.answer(ip("172.30.0.5")), Answer::Known(ip("10.98.0.1")), "what is known stays known");
    assert_eq!(wishes.lasting_refusal(ip("172.30.1.1")), None, "an outage is no refusal");
    plan.out.store(false, Ordering::SeqCst);
    until("all are answered", || many.iter().all(|ip| matches!(wishes.answer(*ip), Answer::Known(_)))).await;
    assert_eq!(plan.mapped().len(), 51);
    let mut samples = Samples::default();
    asker.samples(&mut samples);
    let metrics = samples.text();
    assert!(metrics.contains("{kind=\"endpoints\",state=\"known\"} 51\n"), "{metrics}");
}

#[tokio::test]
async fn a_peer_whose_networks_are_not_known_yet_is_asked_about_again() {
    let Bench { asker, names, .. } = bench(Way::Home).await;
    let wishes = Wishes::new(&asker, "pods/demo", &names);
    wishes.set("a", BTreeSet::from([ip("10.244.0.7")]));
    until("it is refused", || wishes.answer(ip("10.244.0.7")) == Answer::Failed).await;
    until("the user learns why", || wishes.lasting_refusal(ip("10.244.0.7")).is_some()).await;
    let why = wishes.lasting_refusal(ip("10.244.0.7")).unwrap();
    assert!(why.contains("not known yet"), "{why}");
}
