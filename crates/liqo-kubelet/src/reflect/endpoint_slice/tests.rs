use serde_json::{Value, json};

use super::*;
use crate::translate::Addresses;

fn slices(skipped: Option<bool>) -> EndpointSlices {
    EndpointSlices {
        link: Arc::new(Link::example()),
        service_skipped: Arc::new(move |_| skipped),
        view: Arc::new(View::Same),
        complain: Arc::new(|_, _| {}),
    }
}

/// The slice the recorded twin was made from: two pods here, one on the virtual node.
fn here() -> EndpointSlice {
    let endpoint = |ip: &str, node: &str, pod: &str, uid: &str| {
        json!({
            "addresses": [ip], "conditions": {"ready": true, "serving": true, "terminating": false}, "nodeName": node,
            "targetRef": {"kind": "Pod", "name": pod, "namespace": "demo", "uid": uid},
        })
    };
    serde_json::from_value(json!({
        "metadata": {
            "name": "web-9mskk", "namespace": "demo",
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-11-20T23:23:26Z"},
            "labels": {
                "app": "web", "kubernetes.io/service-name": "web",
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
        },
        "addressType": "IPv4",
        "endpoints": [
            endpoint("10.245.0.43", "c1", "web-69bb7bfc6c-j2zfg", "c1c13a53-34d6-4530-8bfa-0ee2c0736526"),
            endpoint("10.244.0.99", "liqo-provider", "web-69bb7bfc6c-267gx", "x"),
            endpoint("10.245.0.44", "c1", "web-69bb7bfc6c-m26kt", "fc7a1ba3-0f69-4766-924e-9fba057acbf2"),
        ],
        "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
    }))
    .unwrap()
}

#[test]
fn the_twin_is_the_recorded_one() {
    let Forged::Make(twin) = slices(Some(false)).forge(&here(), None) else { panic!("reflected") };
    let recorded: Value =
        serde_json::from_str(include_str!("../../../tests/recorded/shadow_endpoint_slice.json")).unwrap();
    let twin = serde_json::to_value(&twin).unwrap();
    assert_eq!(twin["spec"], recorded["spec"]);
    for field in ["labels", "annotations"] {
        assert_eq!(twin["metadata"][field], recorded["metadata"][field], "{field}");
    }
}

#[test]
fn the_time_of_a_change_is_told_with_a_change_of_the_twin_only() {
    let forge = |here: &EndpointSlice, there: Option<&ShadowEndpointSlice>| {
        let Forged::Make(twin) = slices(Some(false)).forge(here, there) else { panic!("reflected") };
        *twin
    };
    let first = forge(&here(), None);
    let mut later = here();
    later.annotations_mut().insert(LAST_CHANGE.to_owned(), "2026-11-20T23:24:00Z".to_owned());
    later.endpoints.as_mut().unwrap().remove(1);
    assert_eq!(forge(&later, Some(&first)), first, "the endpoint on the virtual node is none of the twin's");
    later.endpoints.as_mut().unwrap().remove(0);
    assert_eq!(forge(&later, Some(&first)).annotations()[LAST_CHANGE], "2026-11-20T23:24:00Z");
}

/// The IPAM has IPv4 addresses only. The other half of a dual-stack Service is left out, with a reason, and nothing is asked for it.
#[tokio::test]
async fn the_ipv6_half_of_a_dual_stack_service_is_left_out_where_addresses_are_translated() {
    let addresses = Addresses::translated("127.0.0.1:9", "peer").unwrap();
    let view = addresses.endpoints("slices/demo", &liqo_kube::Queue::new());
    let translated = EndpointSlices { view: Arc::new(view), ..slices(Some(false)) };
    let mut six = here();
    six.address_type = "IPv6".into();
    for endpoint in six.endpoints.iter_mut().flatten() {
        endpoint.addresses = vec!["fd00::7".into()];
    }
    assert_eq!(translated.forge(&six, None), Forged::Nothing(Some(ONLY_IPV4.into())));
    translated.look("web-six", Some(&six), None, None);
    assert!(translated.view.wishes().unwrap().of("web-six").is_empty());
    translated.look("web-9mskk", Some(&here()), None, None);
    assert_eq!(translated.view.wishes().unwrap().of("web-9mskk").len(), 2);
    assert!(matches!(slices(Some(false)).forge(&six, None), Forged::Make(_)), "as it is, where nothing is translated");
}

#[test]
fn the_service_decides_with() {
    assert!(matches!(slices(Some(true)).forge(&here(), None), Forged::Nothing(Some(_))));
    assert_eq!(slices(None).forge(&here(), None), Forged::NotYet);
    let mut own = here();
    own.metadata.namespace = Some("default".into());
    own.labels_mut().insert(label::SERVICE_NAME.into(), "kubernetes".into());
    assert_eq!(slices(Some(false)).forge(&own, None), Forged::Nothing(None));
}

#[test]
fn every_family_of_addresses_goes_through_where_something_else_connects_the_networks() {
    for (family, address) in [("IPv6", "fd00::7"), ("FQDN", "db.example.org")] {
        let mut slice = here();
        slice.address_type = family.into();
        slice.endpoints.as_mut().unwrap()[0].addresses = vec![address.into()];
        let Forged::Make(twin) = slices(Some(false)).forge(&slice, None) else { panic!("reflected") };
        let template = &twin.spec.template;
        assert_eq!(
            (template.address_type.as_str(), template.endpoints[0].addresses.as_slice()),
            (family, &[address.to_owned()][..])
        );
    }
}

fn endpoint(value: Value) -> Endpoint {
    serde_json::from_value(value).unwrap()
}

/// Translates `10.244.0.1`, waits for `10.244.0.2`, has nothing for anything else.
fn answer(ip: IpAddr) -> Answer {
    match ip.to_string().as_str() {
        "10.244.0.1" => Answer::Known("10.245.0.1".parse().unwrap()),
        "10.244.0.2" => Answer::Asking,
        _ => Answer::Failed,
    }
}

#[test]
fn addresses_are_those_the_peer_must_use() {
    let link = Link::example();
    let twin = |addresses: &[&str], shown: &[Endpoint]| {
        let target = json!({"kind": "Pod", "name": "a", "uid": "u"});
        let one = endpoint(json!({"addresses": addresses, "targetRef": target}));
        super::twin(&one, &link, shown, answer).map(|twin| twin.map(|twin| twin.addresses))
    };
    let some = |address: &str| Some(Some(vec![address.to_owned()]));
    assert_eq!(twin(&["10.244.0.1"], &[]), some("10.245.0.1"));
    assert_eq!(twin(&["10.244.0.1", "10.244.0.9"], &[]), some("10.245.0.1"), "any one of them will do");
    assert_eq!(twin(&["10.244.0.2"], &[]), None, "in a moment");
    assert_eq!(twin(&["10.244.0.9"], &[]), Some(None), "without an address it is left out");
    assert_eq!(twin(&["db.example.org"], &[]), some("db.example.org"), "a name needs no address");

    let shown = |uid: &str| {
        let target = json!({"kind": "RemotePod", "name": "a", "uid": uid});
        [endpoint(json!({"addresses": ["10.245.0.9"], "targetRef": target}))]
    };
    assert_eq!(twin(&["10.244.0.9"], &shown("u")), some("10.245.0.9"), "it keeps what the twin shows");
    assert_eq!(twin(&["10.244.0.9"], &shown("other")), Some(None), "that was another pod");
    assert_eq!(twin(&["10.244.0.1"], &shown("u")), some("10.245.0.1"), "an answer counts more");
}

#[test]
fn endpoints_on_their_way_out_are_told_with_all_their_conditions() {
    for (conditions, told) in [
        (json!({"ready": true, "serving": true, "terminating": false}), json!({"ready": true})),
        (json!({"ready": false, "serving": false, "terminating": false}), json!({"ready": false})),
        (json!({}), json!({})),
        (
            json!({"ready": false, "serving": true, "terminating": true}),
            json!({"ready": false, "serving": true, "terminating": true}),
        ),
        (
            json!({"ready": true, "serving": false, "terminating": false}),
            json!({"ready": true, "serving": false, "terminating": false}),
        ),
    ] {
        let one = endpoint(json!({"addresses": ["10.244.0.1"], "conditions": conditions}));
        assert_eq!(serde_json::to_value(super::conditions(&one)).unwrap(), told);
    }
}
