use serde_json::json;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// What an API server issues; some tokens outlive what was asked for.
fn token(issued: i64, life: i64) -> ByteString {
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let claims = engine.encode(json!({"iat": issued, "exp": issued + life}).to_string());
    ByteString(format!("head.{claims}.signature").into_bytes())
}

fn pod(uid: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "web-0", "namespace": "demo", "uid": uid},
        "spec": {"containers": [], "serviceAccountName": "robot", "volumes": [
            {"name": "kube-api-access-x7k2p", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                {"configMap": {"name": "kube-root-ca.crt"}},
            ]}},
            {"name": "vault", "projected": {"sources": [{"serviceAccountToken": {"path": "vault", "audience": "vault"}}]}},
            {"name": "scratch", "emptyDir": {}},
        ]},
    }))
    .unwrap()
}

fn tokens(issued: i64) -> BTreeMap<String, ByteString> {
    wanted(&pod("u")).into_iter().map(|wanted| (wanted.key, token(issued, 31_536_000))).collect()
}

fn secret(uid: &str, issued: i64) -> Secret {
    forge(&Link::example(), &pod(uid), "demo-there", tokens(issued))
}

#[test]
fn names_are_those_of_0_8_3() {
    assert_eq!(secret_name("web-0"), "web-0-token");
    assert_eq!(key("kube-api-access-x7k2p", "token"), "kube-api-access-x7k2p-3c469e");
    let [first, second] = &wanted(&pod("u"))[..] else { panic!("two tokens") };
    assert_eq!((first.seconds, first.audience.as_deref()), (3607, None));
    assert_eq!((second.seconds, second.audience.as_deref()), (3600, Some("vault")));
}

#[test]
fn pods_and_accounts_with_the_longest_names_have_tokens() {
    for length in [62, 63, 64, 247, 248, 253] {
        let mut pod = pod("u");
        pod.metadata.name = Some("p".repeat(length));
        pod.spec.as_mut().unwrap().service_account_name = Some("s".repeat(length));
        let secret = forge(&Link::example(), &pod, "demo-there", tokens(0));
        assert!(secret.name_any().len() <= 253, "{length}");
        assert!(secret.labels().values().all(|value| value.len() <= 63), "{length}");
        assert_eq!(pod_of(&secret), pod.metadata.name.as_deref(), "{length}");
        assert!(are_there(&pod, Some(&secret)), "{length}");
    }
}

#[test]
fn the_secret_says_whose_tokens_these_are() {
    let secret = secret("u", 1_000_000);
    assert_eq!((secret.type_.as_deref(), secret.immutable), (Some("Opaque"), Some(false)));
    let mut labels = Link::example().labels();
    labels.insert("virtualkubelet.liqo.io/service-account-for-pod-name".into(), "web-0".into());
    labels.insert("virtualkubelet.liqo.io/service-account-name".into(), "robot".into());
    assert_eq!(*secret.labels(), labels);
    let end = at(1_003_600).to_string();
    assert_eq!(secret.annotations()["virtualkubelet.liqo.io/service-account-expiration"], end, "the earliest");
    assert_eq!(secret.annotations()["virtualkubelet.liqo.io/service-account-for-pod-uid"], "u");
}

#[test]
fn tokens_are_asked_for_kept_renewed_and_removed() {
    let link = Link::example();
    let plan = |pod: Option<&Pod>, secret: Option<&Secret>, now| super::plan(&link, pod, secret, at(now));
    let (this, fresh) = (pod("u"), secret("u", 0));
    assert_eq!(plan(None, None, 0), Plan::Keep);
    assert_eq!(plan(None, Some(&fresh), 0), Plan::Remove);
    assert_eq!(plan(None, Some(&Secret::default()), 0), Plan::Keep, "not ours");
    assert_eq!(plan(Some(&this), None, 0), Plan::Request(wanted(&this)));
    assert_eq!(plan(Some(&this), Some(&fresh), 2000), Plan::Keep, "also after a restart");
    assert_eq!(plan(Some(&this), Some(&fresh), 3000), Plan::Request(wanted(&this)), "a fifth is left");
    assert_eq!(plan(Some(&this), Some(&Secret::default()), 0), Plan::Taken);
    assert_eq!(plan(Some(&pod("other")), Some(&fresh), 0), Plan::Remove, "another pod of that name");

    let mut partial = fresh.clone();
    partial.data.as_mut().unwrap().retain(|key, _| key.starts_with("vault"));
    assert_eq!(
        plan(Some(&this), Some(&partial), 0),
        Plan::Request(wanted(&this)[..1].to_vec()),
        "only what is missing"
    );

    let mut leaving = this.clone();
    leaving.metadata.deletion_timestamp = Some(now());
    assert_eq!(plan(Some(&leaving), Some(&fresh), 3000), Plan::Keep);
    let mut plain = this.clone();
    plain.spec.as_mut().unwrap().volumes = None;
    assert_eq!((plan(Some(&plain), None, 0), plan(Some(&plain), Some(&fresh), 0)), (Plan::Keep, Plan::Remove));
}

#[test]
fn a_pod_is_provided_for_by_its_own_tokens_only() {
    let this = pod("u");
    assert!(are_there(&this, Some(&secret("u", 0))));
    assert!(!are_there(&this, Some(&secret("other", 0))));
    assert!(!are_there(&this, None));
    let mut plain = this;
    plain.spec.as_mut().unwrap().volumes = None;
    assert!(are_there(&plain, None));
}

#[test]
fn a_shorter_life_than_asked_for_counts() {
    assert_eq!(expires(&token(100, 600).0, 3600), Some(700));
    assert_eq!(expires(&token(100, 31_536_000).0, 3607), Some(3707));
    assert_eq!(expires(b"opaque", 3600), None);
}

/// Whatever a peer or this API server calls a token, it ends in time or is none.
#[test]
fn fuzz_tokens() {
    liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "token", |bytes| {
        for seconds in [0, 3600, i64::MAX] {
            let _ = expires(bytes, seconds);
        }
    });
}
