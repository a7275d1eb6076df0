use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use liqo_kube::twin::{Here, There, decide};
use serde_json::{from_value, json};

use super::*;

fn pods(provided: bool) -> Pods {
    Pods {
        link: Arc::new(Link::example()),
        support: ApiSupport::Disabled,
        downward_api: DownwardApi::Home,
        here_view: Some(View::Same),
        there_view: View::Same,
        complain: Arc::new(|_, _| {}),
        incomplete: Arc::new(|_, _| {}),
        refused: Arc::new(|_, _| {}),
        needs: Needs { link: Arc::new(Link::example()), namespace: "demo".into(), secrets: None, config_maps: None },
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
    let Forged::Make(mut shadow) = pods(true).forge(&here(), None) else { panic!("it is made") };
    shadow.annotations_mut().insert(annotation::ORIGINAL_UID.into(), "h".into());
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
        There::Tell(_) => "tell",
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
    let soon = Here::Soon(json!({"phase": "Running"}), PATIENCE);
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
fn the_twin_of_an_earlier_pod_goes_and_its_news_with_it() {
    let mut new = here();
    new.metadata.uid = Some("new".into());
    let (old, mut ran) = (shadow(), seen());
    ran.annotations_mut().insert(annotation::ORIGINAL_UID.into(), "h".into());
    assert_eq!(plan(Some(&new), Some(&old), Some(&ran)), (Here::Keep, "remove"));
    assert_eq!(plan(Some(&new), None, Some(&leaving(&ran))), (Here::Keep, "wait"), "the name is free when it is gone");
    assert_eq!(plan(Some(&new), None, None), (Here::Keep, "apply"));
    let mut unmarked = old.clone();
    unmarked.annotations_mut().remove(annotation::ORIGINAL_UID);
    assert_eq!(plan(Some(&here()), Some(&unmarked), None), (Here::Keep, "apply"), "adopted after an upgrade");
    unmarked.spec.pod.as_mut().unwrap().volumes = from_value(json!([{"name": "kube-api-access-x"}])).unwrap();
    assert_eq!(plan(Some(&here()), Some(&unmarked), None), (Here::Keep, "remove"), "another pod's volume");
}

#[test]
fn the_grace_of_the_caller_travels_before_the_twin_goes() {
    let mut going = leaving(&here());
    for (grace, does) in [(30, "remove"), (40, "remove"), (4, "tell"), (0, "tell")] {
        going.metadata.deletion_grace_period_seconds = Some(grace);
        assert_eq!(plan(Some(&going), Some(&shadow()), Some(&seen())).1, does, "{grace} s");
    }
    assert_eq!(plan(Some(&going), Some(&shadow()), Some(&leaving(&seen()))).1, "remove", "it is obeyed");
    assert_eq!(plan(Some(&going), Some(&shadow()), None).1, "remove", "nothing runs");
}

#[test]
fn a_pod_that_has_ended_stays_ended() {
    let at = |phase: &str, policy: &str| -> Pod {
        from_value(json!({"spec": {"containers": [], "restartPolicy": policy}, "status": {"phase": phase}})).unwrap()
    };
    for (here, there, leaves, policy, past) in [
        ("Failed", "Running", false, "Always", true),
        ("Failed", "Pending", false, "OnFailure", true),
        ("Failed", "Failed", false, "Always", false),
        ("Succeeded", "Failed", false, "Never", true),
        ("Running", "Failed", false, "Always", false),
        ("Running", "Failed", true, "Always", true),
        ("Running", "Succeeded", true, "Always", true),
        ("Running", "Failed", true, "OnFailure", true),
        ("Running", "Succeeded", true, "OnFailure", false),
        ("Running", "Failed", true, "Never", false),
        ("Running", "Running", true, "Always", false),
    ] {
        let (here, mut there) = (at(here, policy), at(there, policy));
        if leaves {
            there = leaving(&there);
        }
        assert_eq!(status::is_past(&here, &there), past, "{here:?} {there:?}");
    }
}

#[test]
fn what_the_twin_does_not_follow_is_told_and_not_claimed() {
    let mut debugged = here();
    debugged.spec.as_mut().unwrap().ephemeral_containers = from_value(json!([{"name": "debugger"}])).unwrap();
    debugged.metadata.generation = Some(2);
    debugged.status.as_mut().unwrap().observed_generation = Some(1);
    let mut seen = seen();
    seen.status.as_mut().unwrap().observed_generation = Some(7);
    let generation = |here: &Pod| match pods(true).back(here, Some(&shadow()), Some(&seen)) {
        Back::Status(status) | Back::Soon(status, _) => status["observedGeneration"].clone(),
        Back::Nothing => panic!("there are news"),
    };
    assert_eq!(generation(&debugged), 1);
    assert_eq!(generation(&Pod { metadata: debugged.metadata.clone(), ..here() }), 2);
    let spec = shadow().spec.pod.unwrap();
    let refused = |_: &Pod| vec!["Secret \"a\" is not there".to_owned()];
    assert!(lacks(&debugged, Some(&spec), |_| Vec::new()).unwrap().contains("debugger"));
    assert_eq!(lacks(&here(), Some(&spec), |_| Vec::new()), None);
    assert!(lacks(&here(), Some(&spec), refused).unwrap().contains("Secret"), "told to the pod that waits for it");
    let mut runs = here();
    runs.status.as_mut().unwrap().phase = Some("Running".into());
    assert_eq!(lacks(&runs, Some(&spec), refused), None);
}

#[test]
fn a_pod_is_sent_when_it_is_provided_for() {
    assert_eq!(pods(false).forge(&here(), None), Forged::NotYet);
    assert!(matches!(pods(true).forge(&here(), None), Forged::Make(_)));
    assert!(matches!(pods(false).forge(&here(), Some(&shadow())), Forged::Make(_)), "it is there already");
}

#[test]
fn a_pod_is_marked_with_the_status_that_is_told_of_it() {
    let mut told = Pod { status: seen().status, ..here() };
    assert_eq!(pods(true).mark(&told), None);
    assert_eq!(pods(true).back(&told, Some(&shadow()), Some(&seen())), Back::Nothing);
    told.labels_mut().remove(MARK.0);
    assert_eq!(pods(true).mark(&told), Some(MARK));
    let again = pods(true).back(&told, Some(&shadow()), Some(&seen()));
    assert_eq!(again, Back::Soon(json!({"phase": "Running"}), PATIENCE), "the mark is worth a status of its own");
    let Forged::Make(twin) = pods(true).forge(&here(), None) else { panic!("it is made") };
    assert!(!twin.labels().contains_key(MARK.0), "the pod there is none of ours");
}

#[test]
fn that_a_new_pod_is_being_started_can_wait() {
    let seen =
        Pod { status: from_value(json!({"phase": "Pending", "startTime": "2026-01-01T00:00:00Z"})).unwrap(), ..seen() };
    assert!(matches!(pods(true).back(&here(), Some(&shadow()), Some(&seen)), Back::Soon(_, PATIENCE_AT_START)));
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
fn a_pod_that_the_provider_does_not_make_says_why_until_it_is_made() {
    let mut refused = shadow();
    refused.annotations_mut().insert(annotation::REFUSAL.into(), "quota exceeded".into());
    let Back::Status(status) = pods(true).back(&here(), Some(&refused), None) else { panic!("there are news") };
    assert_eq!((&status["reason"], &status["phase"]), (&json!("OffloadingRefused"), &json!("Pending")));
    assert!(status["message"].as_str().unwrap().ends_with("says: quota exceeded"), "{status}");
    let mut told = here();
    told.status = from_value(status).unwrap();
    assert_eq!(pods(true).back(&told, Some(&refused), None), Back::Nothing);
    assert_eq!(pods(true).back(&told, None, None), Back::Nothing, "the API server there refused the twin");
    assert_eq!(pods(true).back(&told, Some(&shadow()), None), Back::Status(json!({"phase": "Pending"})));
    assert_eq!(pods(true).refused(&told, "cluster \"x\" says: other").unwrap()["message"], "cluster \"x\" says: other");
    let Back::Soon(made, _) = pods(true).back(&told, Some(&shadow()), Some(&seen())) else { panic!("there are news") };
    assert_eq!(made, json!({"phase": "Running"}));
}

#[test]
fn without_ip_reflection_a_pod_has_no_address() {
    let pods = Pods { here_view: None, ..pods(true) };
    let mut seen = seen();
    seen.status =
        from_value(json!({"phase": "Running", "podIP": "10.244.0.7", "podIPs": [{"ip": "10.244.0.7"}]})).unwrap();
    assert_eq!(pods.back(&here(), Some(&shadow()), Some(&seen)), Back::Soon(json!({"phase": "Running"}), PATIENCE));
}
