use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use liqo_kube::twin::{Here, There, decide};
use serde_json::{from_value, json};

use super::*;

fn pods(provided: bool) -> Pods {
    Pods {
        link: Arc::new(Link::example()),
        support: ApiSupport::Disabled,
        here_view: Some(View::Same),
        there_view: View::Same,
        complain: Arc::new(|_, _| {}),
        provided: Box::new(move |_| provided),
        exists: Box::new(|_| true),
        restarts: Mutex::default(),
    }
}

fn here() -> Pod {
    from_value(json!({
        "metadata": {"name": "a", "namespace": "demo", "uid": "h", "labels": {"app": "web", "liqo.io/shadowPod": "true"}},
        "spec": {"containers": [{"name": "c", "image": "i:1"}]},
        "status": {"phase": "Pending"},
    }))
    .unwrap()
}

fn shadow() -> ShadowPod {
    let Forged::Make(shadow) = pods(true).forge(&here(), None) else { panic!("it is made") };
    *shadow
}

fn seen() -> Pod {
    let mut seen = Pod { status: from_value(json!({"phase": "Running"})).unwrap(), ..Pod::default() };
    seen.metadata.labels = Some(Link::example().labels());
    seen.metadata.uid = Some("t".into());
    seen
}

fn leaving<K: kube::Resource + Clone>(object: &K) -> K {
    let mut object = object.clone();
    object.meta_mut().deletion_timestamp = Some(Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
    object
}

fn plan(here: Option<&Pod>, there: Option<&ShadowPod>, seen: Option<&Pod>) -> (Here, &'static str) {
    let plan = decide(&pods(true), here, there, seen);
    let there = match plan.there {
        There::Keep => "keep",
        There::Taken => "taken",
        There::Refused(_) => "refused",
        There::Apply(_) => "apply",
        There::Remove => "remove",
        There::Wait => "wait",
    };
    (plan.here, there)
}

fn running() -> Here {
    Here::Status(json!({"phase": "Running"}))
}

#[test]
fn the_decision_table() {
    let (l, s, r) = (here(), shadow(), seen());
    let (foreign_s, foreign_r) = (ShadowPod::default(), Pod::default());
    assert_eq!(plan(Some(&l), Some(&foreign_s), None), (Here::Keep, "taken"), "1");
    assert_eq!(plan(Some(&l), None, Some(&foreign_r)), (Here::Keep, "taken"), "1");
    assert_eq!(plan(None, Some(&s), Some(&r)), (Here::Keep, "remove"), "2");
    assert_eq!(plan(None, Some(&foreign_s), Some(&foreign_r)), (Here::Keep, "keep"), "2, not ours");
    assert_eq!(plan(None, None, Some(&r)), (Here::Keep, "keep"), "3");
    assert_eq!(plan(Some(&leaving(&l)), None, None), (Here::Delete, "keep"), "4");
    assert_eq!(
        plan(Some(&leaving(&l)), None, Some(&foreign_r)),
        (Here::Delete, "keep"),
        "a conflict does not hold the end"
    );
    assert_eq!(
        plan(Some(&leaving(&l)), Some(&foreign_s), None),
        (Here::Delete, "keep"),
        "a conflict does not hold the end"
    );
    assert_eq!(plan(Some(&leaving(&l)), Some(&s), Some(&r)), (Here::Keep, "remove"), "5");
    assert_eq!(plan(Some(&leaving(&l)), Some(&leaving(&s)), Some(&r)), (running(), "wait"), "6");
    assert_eq!(plan(Some(&leaving(&l)), None, Some(&leaving(&r))), (running(), "wait"), "6");
    let mut aborted = l.clone();
    aborted.status = from_value(json!({"phase": "Failed", "reason": "OffloadingAborted"})).unwrap();
    assert_eq!(plan(Some(&aborted), Some(&s), Some(&r)), (Here::Keep, "remove"), "7");
    assert_eq!(plan(Some(&aborted), None, None), (Here::Keep, "keep"), "7");
    assert_eq!(plan(Some(&l), None, None), (Here::Keep, "apply"), "8");
    let soon = Here::Soon(json!({"phase": "Running"}));
    assert_eq!(plan(Some(&l), Some(&s), Some(&r)), (soon, "keep"), "8, nobody waits for that");
    for urgent in
        [json!({"phase": "Failed"}), json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})]
    {
        let seen = Pod { status: from_value(urgent.clone()).unwrap(), ..r.clone() };
        assert_eq!(plan(Some(&l), Some(&s), Some(&seen)), (Here::Status(urgent), "keep"), "8, at once");
    }
    let mut told = l.clone();
    told.status = r.status.clone();
    assert_eq!(plan(Some(&told), Some(&s), Some(&r)), (Here::Keep, "keep"), "nothing changed, nothing written");
}

#[test]
fn a_pod_is_sent_when_it_is_marked_and_provided_for() {
    let mut unmarked = here();
    unmarked.labels_mut().remove("liqo.io/shadowPod");
    assert_eq!(pods(true).forge(&unmarked, None), Forged::NotYet);
    assert_eq!(pods(false).forge(&here(), None), Forged::NotYet);
    assert!(matches!(pods(false).forge(&unmarked, Some(&shadow())), Forged::Make(_)), "it is there already");
}

#[test]
fn metadata_follows_and_the_spec_stays() {
    let mut changed = here();
    changed.labels_mut().insert("app".into(), "other".into());
    changed.annotations_mut().insert("note".into(), "x".into());
    changed.spec.as_mut().unwrap().hostname = Some("y".into());
    let Forged::Make(twin) = pods(true).forge(&changed, Some(&shadow())) else { panic!("it is made") };
    assert_eq!(twin.spec, shadow().spec);
    let mut labels = Link::example().labels();
    labels.insert("app".into(), "other".into());
    assert_eq!((twin.labels(), twin.annotations().len()), (&labels, 1));
}

#[test]
fn the_api_server_is_known_there_by_its_address_there() {
    let own = || ApiServer { host: "kubernetes.default".into(), port: "443".into(), alias: Some("10.96.0.1".into()) };
    let known = |_| Answer::Known("10.98.0.2".parse().unwrap());
    let translated = ApiServer { alias: Some("10.98.0.2".into()), ..own() };
    assert_eq!(support_there(&ApiSupport::Tokens(own()), known), Some(ApiSupport::Tokens(translated)));
    for unknown in [Answer::Asking, Answer::Failed] {
        assert_eq!(support_there(&ApiSupport::Tokens(own()), |_| unknown), None, "the pod waits");
    }
    let named = ApiServer { host: "api.example.org".into(), alias: None, ..own() };
    for support in [ApiSupport::Disabled, ApiSupport::Tokens(named)] {
        assert_eq!(support_there(&support, |_| Answer::Failed), Some(support.clone()), "nothing to translate");
    }
}

#[test]
fn without_ip_reflection_a_pod_has_no_address() {
    let pods = Pods { here_view: None, ..pods(true) };
    let mut seen = seen();
    seen.status =
        from_value(json!({"phase": "Running", "podIP": "10.244.0.7", "podIPs": [{"ip": "10.244.0.7"}]})).unwrap();
    assert_eq!(pods.back(&here(), Some(&shadow()), Some(&seen)), Back::Soon(json!({"phase": "Running"})));
}
