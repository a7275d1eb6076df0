//! The form of a replica, and the parts of a replica that are carried back to its original.

use kube::ResourceExt;
use liqo_api::{
    discovery::ResourceRequest,
    meta::{annotation, finalizer, label},
    net::NetworkConfig,
    sharing::ResourceOffer,
    virtualkubelet::NamespaceMap,
};
use liqo_core::mapping;
use liqo_kube::{
    Object, said,
    twin::{Back, Farewell, Forged, Reflect},
};
use serde_json::{Value, json};

use super::{Answers, Held, Original};

/// A status longer than this, in bytes of JSON, is not carried: nothing we ask for has so long an answer.
const LONGEST_STATUS: usize = 256 * 1024;
/// Namespaces named in one Event.
const NAMED: usize = 5;

/// A kind that is replicated.
pub(super) trait Replicated: Object {
    /// Whether a peer writes on the replica why the peer refuses what the original asks for.
    const IS_ANSWERED: bool = false;

    /// What a peer reports about the object, as far as the object asked for it; `report` is not longer than
    /// [`LONGEST_STATUS`].
    fn believed(&self, report: &Self) -> Value {
        part(report, "status")
    }

    /// A peer reports namespaces that the original never asked for.
    fn unasked(&self, _report: &Self) -> Option<String> {
        None
    }
}

impl Replicated for ResourceRequest {
    const IS_ANSWERED: bool = true;
}
impl Replicated for ResourceOffer {}
impl Replicated for NetworkConfig {}

impl Replicated for NamespaceMap {
    fn believed(&self, report: &Self) -> Value {
        let report = report.status.as_ref().map(|report| mapping::believed(self, report));
        serde_json::to_value(report).unwrap_or_default()
    }

    fn unasked(&self, report: &Self) -> Option<String> {
        let all: Vec<_> = report.status.iter().flat_map(|report| mapping::unasked(self, report)).collect();
        let named = all.iter().take(NAMED).map(|name| format!("{name:.63?}")).collect::<Vec<_>>().join(", ");
        (!all.is_empty()).then(|| {
            format!(
                "the provider reports {} namespaces that it was not asked for under that name, among them {named}: \
                 they are ignored",
                all.len()
            )
        })
    }
}

/// Whether what a peer reports is short enough to be carried.
fn is_short(status: &Value) -> bool {
    serde_json::to_vec(status).is_ok_and(|bytes| bytes.len() <= LONGEST_STATUS)
}

/// Whether a network configuration was made by the network manager, as it does for out-of-band peerings only.
pub(super) fn is_out_of_band(original: &NetworkConfig) -> bool {
    original.labels().contains_key(label::OWNERSHIP)
}

/// The form of replicas of `K`, and what is carried back from them.
pub(super) struct Replica<K> {
    home_id: String,
    remote_id: String,
    held: Held<K>,
    /// Where words of the peer about an original are left.
    answers: Option<Answers>,
}

impl<K> Replica<K> {
    pub(super) fn new(home_id: &str, remote_id: &str, held: Held<K>) -> Self {
        Self { home_id: home_id.to_owned(), remote_id: remote_id.to_owned(), held, answers: None }
    }

    /// Leaves words of the peer about an original in `answers`.
    pub(super) fn leaving_answers_in(self, answers: &Answers) -> Self {
        Self { answers: Some(answers.clone()), ..self }
    }
}

/// What the peer says about an object, as the object shows it.
pub(super) fn said_about<K: Object>(object: &K) -> Option<&str> {
    object.annotations().get(annotation::REFUSAL).map(String::as_str)
}

/// The words of the peer on the replica, if the original shows others: the words, or nothing when there are none any more.
fn answer<K: Replicated>(here: &K, there: Option<&K>) -> Option<Option<String>> {
    let words = there.and_then(said_about).map(said::printable).filter(|words| !words.is_empty());
    let is_news = K::IS_ANSWERED && here.meta().deletion_timestamp.is_none() && words.as_deref() != said_about(here);
    is_news.then_some(words)
}

/// Why a report of a peer is not, or not wholly, carried back.
pub(super) fn refused<K: Replicated>(here: &K, there: &K) -> Option<String> {
    if !is_short(&part(there, "status")) {
        return Some(format!("the status the peer reports is longer than {LONGEST_STATUS} bytes: it is ignored"));
    }
    here.unasked(there)
}

impl<K: Replicated> Reflect for Replica<K> {
    const NAME: &'static str = "replica";
    type Here = K;
    type There = K;
    type Seen = K;
    const FAREWELL: Farewell = Farewell::Release(finalizer::CRD_REPLICATOR);
    /// A replica passes to the next original of its name (an original that was restored from a backup, say): removing the
    /// replica would end the peering, and every namespace of a map, for nothing.
    const RECORD: Option<&'static str> = None;

    fn farewell(&self, here: &K) -> Farewell {
        // An original that is held already is released when its replica is gone, also if an earlier version held it.
        let is_held = (self.held)(here) || here.finalizers().iter().any(|one| one == finalizer::CRD_REPLICATOR);
        if is_held { Self::FAREWELL } else { Farewell::Nothing }
    }

    fn look(&self, name: &str, here: Option<&K>, there: Option<&K>, _seen: Option<&K>) {
        let (Some(answers), Some(here)) = (&self.answers, here) else { return };
        let original = Original { namespace: here.namespace().unwrap_or_default(), name: name.to_owned() };
        match answer(here, there.filter(|one| self.ours(one))) {
            Some(words) => answers.push(self.remote_id.clone(), original, words),
            None => answers.withdraw(self.remote_id.clone(), original),
        }
    }

    fn forge(&self, here: &K, _there: Option<&K>) -> Forged<K> {
        if here.labels().get(label::REMOTE_ID) != Some(&self.remote_id) {
            return Forged::Nothing(None);
        }
        let mut labels = here.labels().clone();
        labels.remove(label::OWNERSHIP);
        labels.insert(label::REPLICATION.to_owned(), "false".to_owned());
        labels.insert(label::REPLICATED.to_owned(), "true".to_owned());
        labels.insert(label::ORIGIN_ID.to_owned(), self.home_id.clone());
        let mut annotations = here.annotations().clone();
        // The refusal is a text of the peer, which the peer wrote on the replica.
        annotations.remove(annotation::REFUSAL);
        let replica = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"labels": labels, "annotations": annotations},
            "spec": part(here, "spec"),
        });
        match serde_json::from_value(replica) {
            Ok(replica) => Forged::Make(Box::new(replica)),
            Err(_) => Forged::NotYet,
        }
    }

    fn ours(&self, there: &K) -> bool {
        there.labels().get(label::ORIGIN_ID) == Some(&self.home_id)
    }

    fn back(&self, here: &K, there: Option<&K>, _seen: Option<&K>) -> Back {
        let reported = there.filter(|there| is_short(&part(*there, "status"))).map(|there| here.believed(there));
        match reported {
            Some(news) if !news.is_null() && news != part(here, "status") => Back::Status(news),
            _ => Back::Nothing,
        }
    }
}

fn part<K: Object>(object: &K, name: &str) -> Value {
    serde_json::to_value(object).map(|mut object| object[name].take()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use liqo_api::{
        ClusterIdentity,
        discovery::{OfferState, ResourceRequestSpec, ResourceRequestStatus},
    };

    use liqo_kube::KubeError;

    use super::*;

    fn original() -> ResourceRequest {
        let identity = ClusterIdentity::new("home", "rome");
        let spec =
            ResourceRequestSpec { cluster_identity: identity, auth_url: "https://a.b".into(), ..Default::default() };
        let mut original = ResourceRequest::new("rome", spec);
        for (key, value) in [(label::REPLICATION, "true"), (label::REMOTE_ID, "peer"), (label::OWNERSHIP, "x")] {
            original.labels_mut().insert(key.into(), value.into());
        }
        original.annotations_mut().insert("note".into(), "kept".into());
        original
    }

    fn forged(original: &ResourceRequest) -> Box<ResourceRequest> {
        match Replica::new("home", "peer", |_| true).forge(original, None) {
            Forged::Make(replica) => replica,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_replica_carries_the_labels_recorded_from_real_clusters() {
        let replica = forged(&original());
        let expected = [
            (label::ORIGIN_ID, "home"),
            (label::REMOTE_ID, "peer"),
            (label::REPLICATED, "true"),
            (label::REPLICATION, "false"),
        ];
        let labels: Vec<_> = replica.labels().iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(labels, expected);
        assert_eq!(replica.annotations().get("note").map(String::as_str), Some("kept"));
        assert_eq!(replica.spec, original().spec);
        assert!(replica.finalizers().is_empty() && replica.owner_references().is_empty());
    }

    #[test]
    fn an_original_for_somebody_else_is_not_sent() {
        let mut other = original();
        other.labels_mut().insert(label::REMOTE_ID.into(), "another".into());
        assert_eq!(Replica::new("home", "peer", |_| true).forge(&other, None), Forged::Nothing(None));
    }

    #[test]
    fn the_network_of_an_in_band_peering_is_followed_and_not_held() {
        use liqo_kube::{
            now,
            twin::{Here, Plan, There, decide},
        };
        let replica = Replica::new("home", "peer", is_out_of_band);
        let network = |endpoint: &str, owner: Option<&str>| {
            let spec = json!({
                "cluster": {"clusterID": "peer", "clusterName": "milan"}, "podCIDR": "10.244.0.0/16",
                "externalCIDR": "10.97.0.0/16", "endpointIP": endpoint, "backendType": "wireguard",
                "backend_config": {"publicKey": "k", "port": "5871"},
            });
            let labels = json!({label::REPLICATION: "true", label::REMOTE_ID: "peer", label::OWNERSHIP: owner});
            let mut value = json!({"metadata": {"name": "milan-57fb02", "labels": labels}, "spec": spec});
            if owner.is_none() {
                value["metadata"]["labels"].as_object_mut().unwrap().remove(label::OWNERSHIP);
            }
            serde_json::from_value::<NetworkConfig>(value).unwrap()
        };
        let out = network("1.2.3.4", Some("netcfgCreator"));
        assert!(matches!(decide(&replica, Some(&out), None, None).here, Here::Hold(_)), "made by the network manager");
        let made = network("1.2.3.4", None);
        let Forged::Make(copy) = replica.forge(&made, None) else { panic!("it is replicated") };
        let plan = decide(&replica, Some(&made), Some(&copy), Some(&copy));
        assert_eq!(plan, Plan { here: Here::Keep, there: There::Keep }, "the copy made by liqoctl is as it should be");
        let moved = network("5.6.7.8", None);
        let Plan { here, there: There::Apply(new) } = decide(&replica, Some(&moved), Some(&copy), Some(&copy)) else {
            panic!("a changed endpoint is sent")
        };
        assert_eq!((here, new.spec.endpoint_ip.as_str()), (Here::Keep, "5.6.7.8"));
        let mut leaving = made.clone();
        leaving.metadata.deletion_timestamp = Some(now());
        assert_eq!(decide(&replica, Some(&leaving), None, None).here, Here::Keep, "nothing of ours to release");
        leaving.finalizers_mut().push(finalizer::CRD_REPLICATOR.into());
        assert!(matches!(decide(&replica, Some(&leaving), None, None).here, Here::Release(_)));
    }

    #[test]
    fn only_what_was_asked_for_comes_back() {
        let map = |current: Value| -> NamespaceMap {
            let spec = json!({"desiredMapping": {"demo": "demo-rome"}});
            let status = json!({"currentMapping": current});
            serde_json::from_value(json!({"metadata": {"name": "map"}, "spec": spec, "status": status})).unwrap()
        };
        let (replica, here) = (Replica::new("home", "peer", |_| true), map(json!({})));
        let demo = json!({"remoteNamespace": "demo-rome", "phase": "Accepted"});
        let there = map(json!({"demo": demo, "liqo": {"remoteNamespace": "loot", "phase": "Accepted"}}));
        let believed = json!({"currentMapping": {"demo": demo}});
        assert_eq!(replica.back(&here, Some(&there), None), Back::Status(believed));
        assert!(refused(&here, &there).unwrap().contains("1 namespaces that it was not asked for"));
        assert_eq!(refused(&here, &map(json!({"demo": demo}))), None);
        let long = "n".repeat(LONGEST_STATUS);
        let there = map(json!({"demo": {"remoteNamespace": long, "phase": "Accepted"}}));
        assert_eq!(replica.back(&here, Some(&there), None), Back::Nothing);
        assert!(refused(&here, &there).unwrap().contains("longer than 262144 bytes"));
    }

    #[test]
    fn words_of_the_peer_come_back_on_requests_only_and_are_not_sent() {
        let says = |one: &ResourceRequest, words: &str| {
            let mut one = one.clone();
            one.annotations_mut().insert(annotation::REFUSAL.into(), words.into());
            one
        };
        let (here, there) = (original(), *forged(&original()));
        let cordoned = || Some("cordoned".to_owned());
        assert_eq!(answer(&here, Some(&there)), None);
        assert_eq!(answer(&here, Some(&says(&there, "cordo\nned"))), Some(Some("cordo ned".to_owned())));
        assert_eq!(answer(&here, Some(&says(&there, "cordoned"))), Some(cordoned()));
        assert_eq!(answer(&says(&here, "cordoned"), Some(&says(&there, "cordoned"))), None, "no news");
        assert_eq!(answer(&says(&here, "cordoned"), Some(&there)), Some(None));
        assert_eq!(answer(&says(&here, "cordoned"), None), Some(None));
        assert!(!forged(&says(&here, "cordoned")).annotations().contains_key(annotation::REFUSAL));
        let offer: ResourceOffer =
            serde_json::from_value(json!({"metadata": {"name": "o"}, "spec": {"clusterId": "x"}})).unwrap();
        let mut copy = offer.clone();
        copy.annotations_mut().insert(annotation::REFUSAL.into(), "x".into());
        assert_eq!(answer(&offer, Some(&copy)), None, "nobody answers an offer so");
    }

    #[tokio::test]
    async fn of_ever_changing_words_only_the_last_ones_are_written() {
        let says = |one: &ResourceRequest, words: &str| {
            let mut one = one.clone();
            one.metadata.namespace = Some("tenant".to_owned());
            one.annotations_mut().insert(annotation::REFUSAL.into(), words.into());
            one
        };
        let answers = Answers::new(Duration::from_millis(1));
        let replica = Replica::new("home", "peer", |_| true).leaving_answers_in(&answers);
        let (here, there) = (says(&original(), "no 0"), *forged(&original()));
        let written = async || {
            let all = Mutex::new(Vec::new());
            let write = |original: Original, words: Option<String>| {
                all.lock().unwrap().push((original.name, words.unwrap_or_default()));
                std::future::ready(Ok::<_, KubeError>(()))
            };
            let ends = tokio::time::timeout(Duration::from_millis(200), answers.drive("answers-test", write)).await;
            assert!(ends.is_err(), "it goes on for ever");
            all.into_inner().unwrap()
        };
        for number in 1..1_000 {
            replica.look("rome", Some(&here), Some(&says(&there, &format!("no {number}"))), None);
        }
        assert_eq!(written().await, [("rome".to_owned(), "no 999".to_owned())]);
        replica.look("rome", Some(&here), Some(&says(&there, "no 1")), None);
        replica.look("rome", Some(&here), Some(&says(&there, "no 0")), None);
        assert_eq!(written().await, [], "the original shows these words already");
    }

    #[test]
    fn status_comes_back_only_when_it_is_news() {
        let replica = Replica::new("home", "peer", |_| true);
        let mut here = original();
        let mut there = *forged(&here);
        assert_eq!(replica.back(&here, None, None), Back::Nothing);
        assert_eq!(replica.back(&here, Some(&there), None), Back::Nothing);
        there.status = Some(ResourceRequestStatus { offer_state: OfferState::Created, ..Default::default() });
        assert_eq!(replica.back(&here, Some(&there), None), Back::Status(json!({"offerState": "Created"})));
        here.status.clone_from(&there.status);
        assert_eq!(replica.back(&here, Some(&there), None), Back::Nothing);
    }
}
