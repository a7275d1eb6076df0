use super::*;

fn meta(more: Value) -> Value {
    let mut labels =
        json!({"virtualkubelet.liqo.io/origin": PEER, "virtualkubelet.liqo.io/destination": HOME, "app": "web"});
    for (key, value) in more.as_object().unwrap() {
        labels[key] = value.clone();
    }
    json!({"name": "web", "namespace": "demo-consumer-ed03b8", "labels": labels})
}

fn service(kind: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": meta(json!({})), "spec": {
        "type": kind, "selector": {"app": "web"}, "sessionAffinity": "None", "clusterIP": "10.96.3.4",
        "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
    }})
}

fn slice() -> Value {
    let labels = json!({
        "kubernetes.io/service-name": "web", "endpointslice.kubernetes.io/managed-by": "endpointslice.reflection.liqo.io",
    });
    let mut metadata = meta(labels);
    metadata["annotations"] = json!({"endpoints.kubernetes.io/last-change-trigger-time": "2026-11-20T23:23:26Z"});
    json!({"apiVersion": "virtualkubelet.liqo.io/v1alpha1", "kind": "ShadowEndpointSlice", "metadata": metadata, "spec": {
        "template": {
            "addressType": "IPv4", "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
            "endpoints": [{
                "addresses": ["10.245.0.43"], "conditions": {"ready": true}, "nodeName": "consumer",
                "targetRef": {"kind": "RemotePod", "name": "web-69bb7bfc6c-j2zfg", "namespace": "demo"},
            }],
        },
    }})
}

fn secret() -> Value {
    let labels = json!({
        "virtualkubelet.liqo.io/service-account-for-pod-name": "web-69bb7bfc6c-267gx",
        "virtualkubelet.liqo.io/service-account-name": "default",
    });
    let mut metadata = meta(labels);
    metadata["annotations"] = json!({
        "virtualkubelet.liqo.io/service-account-expiration": "2026-11-21T00:23:32Z",
        "virtualkubelet.liqo.io/service-account-for-pod-uid": "d8002c5d-4995-435d-9b75-732819c6dc12",
    });
    let data = json!({"kube-api-access-hm45r-3c469e": "eA=="});
    json!({"metadata": metadata, "type": "Opaque", "immutable": false, "data": data})
}

fn shadow_pod() -> Value {
    let mut metadata = meta(json!({"pod-template-hash": "69bb7bfc6c"}));
    metadata["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": "{}\n"});
    json!({"metadata": metadata, "spec": {"pod": {"containers": [{"name": "busybox", "image": "localhost/busybox:1"}]}}})
}

fn claim() -> Value {
    let resources = json!({"requests": {"storage": "1Gi"}});
    json!({"metadata": meta(json!({})), "spec": {
        "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem", "resources": resources, "storageClassName": "fast",
    }})
}

fn ingress() -> Value {
    let paths =
        json!([{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}}]);
    json!({"metadata": meta(json!({})), "spec": {
        "rules": [{"host": "shop.peer.example", "http": {"paths": paths}}],
        "tls": [{"hosts": ["shop.peer.example"], "secretName": "s"}],
    }})
}

const PEERS_DOMAIN: &[(&str, &str)] = &[("ingressHostSuffixes", "a.example peer.example")];

#[test]
fn what_recorded_clusters_reflected_passes() {
    let judge = Judge::new();
    let empty = with(&slice(), &[("spec|template", json!({"addressType": "IPv4", "endpoints": []}))]);
    let config = json!({"metadata": meta(json!({})), "data": {"ca.crt": "x"}});
    for (kind, object) in [
        ("shadowpods", shadow_pod()),
        ("shadowendpointslices", slice()),
        ("shadowendpointslices", empty),
        ("secrets", secret()),
        ("secrets", with(&secret(), &[("type", Value::Null)])),
        ("configmaps", config),
        ("services", service("ClusterIP")),
        ("services", with(&service("ClusterIP"), &[("spec|clusterIP", json!("None")), ("spec|type", Value::Null)])),
        ("persistentvolumeclaims", claim()),
        ("persistentvolumeclaims", with(&claim(), &[("spec|storageClassName", Value::Null)])),
        // Made for a peer of the peer, and passed on.
        ("shadowpods", with(&shadow_pod(), &[("metadata|labels|liqo.io/managed-by", json!("shadowpod"))])),
    ] {
        judge.passes_all(kind, kind, &object);
    }
    let faster = with(&claim(), &[("spec|volumeAttributesClassName", json!("gold"))]);
    judge.refuses_all("attributes", "persistentvolumeclaims", &claim(), &faster, "spec.volumeAttributesClassName");
    let bound = with(&claim(), &[("spec|volumeName", json!("pvc-1"))]);
    judge.passes("a claim that was bound", &asked("persistentvolumeclaims", bound.clone(), bound), &[]);
    let protected = [("metadata|finalizers", json!(["kubernetes.io/pvc-protection"]))];
    judge.passes_all("a claim the API server protects", "persistentvolumeclaims", &with(&claim(), &protected));
    judge.refuses_all("not a Secret", "secrets", &secret(), &with(&secret(), &protected), "metadata.finalizers");
    let cloud = [("metadata|finalizers", json!(["service.kubernetes.io/load-balancer-cleanup"]))];
    judge.passes_later("a finalizer of the cloud", "services", &with(&service("ClusterIP"), &cloud));
}

#[test]
fn only_what_the_peer_made_is_changed_and_nothing_steers_this_cluster() {
    let judge = Judge::new();
    for (kind, good) in [
        ("shadowpods", shadow_pod()),
        ("shadowendpointslices", slice()),
        ("secrets", secret()),
        ("services", service("ClusterIP")),
        ("persistentvolumeclaims", claim()),
        ("ingresses", ingress()),
    ] {
        let label = |key: &str, value: Value| with(&good, &[(&format!("metadata|labels|{key}"), value)]);
        for bad in [
            label("virtualkubelet.liqo.io/origin", json!(OTHER)),
            label("virtualkubelet.liqo.io/origin", Value::Null),
            with(&good, &[("metadata|labels", Value::Null)]),
        ] {
            judge.refuses_all("origin", kind, &good, &bad, "virtualkubelet.liqo.io/origin");
            judge.refuses("taken", &asked(kind, bad.clone(), good.clone()), "was not reflected by that cluster", &[]);
            judge.refuses("deleted", &asked(kind, bad, Value::Null), "was not reflected by that cluster", &[]);
        }
        for (what, bad, words) in [
            ("identity", label("discovery.liqo.io/local-identity", json!("true")), "steer the components"),
            ("pod", label("liqo.io/shadowPod", json!("true")), "steer the components"),
            ("gateway", label("net.liqo.io/gateway", json!("active")), "steer the components"),
            (
                "copied everywhere",
                with(&good, &[("metadata|annotations", json!({"replicator.v1.mittwald.de/replicate-to": "*"}))]),
                "beyond the namespace",
            ),
            ("finalizer", with(&good, &[("metadata|finalizers", json!(["p.io/never"]))]), "metadata.finalizers"),
            ("owner", with(&good, &[("metadata|ownerReferences", json!([{"uid": "1"}]))]), "ownerReferences"),
        ] {
            judge.refuses_all(what, kind, &good, &bad, words);
        }
    }
}

#[test]
fn services_stay_within_the_cluster() {
    let judge = Judge::new();
    let good = service("ClusterIP");
    for kind in ["NodePort", "LoadBalancer", "ExternalName"] {
        judge.refuses_all(kind, "services", &good, &service(kind), "peerPolicy.allowedServiceTypes");
        judge.passes_later("one of before", "services", &service(kind));
        let allowed: &[(&str, &str)] = &[("allowedServiceTypes", "ClusterIP NodePort LoadBalancer ExternalName")];
        judge.passes(kind, &asked("services", Value::Null, service(kind)), allowed);
        judge.passes(kind, &asked("services", Value::Null, service(kind)), &[("allowedServiceTypes", "*")]);
    }
    judge.refuses(
        "Node",
        &asked("services", Value::Null, service("Node")),
        "of this type",
        &[("allowedServiceTypes", "NodePort")],
    );
    let external = with(&good, &[("spec|externalIPs", json!(["192.0.2.1"]))]);
    judge.refuses_all("externalIPs", "services", &good, &external, "spec.externalIPs");
    judge.passes("given", &asked("services", good.clone(), external.clone()), &[("allowedExternalIPs", "192.0.2.1")]);
    let other: &[(&str, &str)] = &[("allowedExternalIPs", "192.0.2.10 192.0.2.2")];
    judge.refuses("another", &asked("services", good.clone(), external), "spec.externalIPs", other);
    let address = with(&good, &[("spec|loadBalancerIP", json!("192.0.2.1"))]);
    judge.refuses_all("loadBalancerIP", "services", &good, &address, "spec.loadBalancerIP");
    let name = json!({"external-dns.alpha.kubernetes.io/hostname": "v.example"});
    let named = |service: Value| with(&service, &[("metadata|annotations", name.clone())]);
    judge.passes_all("no name", "services", &named(good.clone()));
    let headless = with(&named(good.clone()), &[("spec|clusterIP", json!("None"))]);
    judge.refuses_all("names of pods", "services", &good, &headless, "external-dns");
    let balancer = asked("services", Value::Null, named(service("LoadBalancer")));
    judge.refuses("a balancer's name", &balancer, "external-dns", &[("allowedServiceTypes", "ClusterIP LoadBalancer")]);
}

#[test]
fn hosts_of_ingresses_are_given() {
    let judge = Judge::new();
    judge.refuses("by default", &asked("ingresses", Value::Null, ingress()), "peerPolicy.ingressHostSuffixes", &[]);
    let host = |host: &str| with(&ingress(), &[("spec|tls", Value::Null), ("spec|rules", json!([{ "host": host }]))]);
    for good in ["peer.example", "x.peer.example", "*.peer.example", "b.a.example"] {
        judge.passes(good, &asked("ingresses", Value::Null, host(good)), PEERS_DOMAIN);
    }
    let own: &[(&str, &str)] = &[("ingressHostSuffixes", "{peer}.example x.{peer}")];
    for good in [format!("{PEER}.example"), format!("a.{PEER}.example"), format!("a.x.{PEER}")] {
        judge.passes(&good, &asked("ingresses", Value::Null, host(&good)), own);
    }
    for bad in
        [format!("{OTHER}.example"), "example".to_owned(), "{peer}.example".to_owned(), format!("x{PEER}.example")]
    {
        judge.refuses(&bad, &asked("ingresses", Value::Null, host(&bad)), "ingressHostSuffixes", own);
    }
    let backend = json!({"service": {"name": "web"}});
    for (what, bad) in [
        ("another host", host("victim.example")),
        ("a like one", host("notpeer.example")),
        ("any host", with(&ingress(), &[("spec|rules", json!([{}]))])),
        ("an empty host", host("")),
        ("one of two", with(&ingress(), &[("spec|rules", json!([{"host": "peer.example"}, {"host": "v.example"}]))])),
        ("a certificate", with(&ingress(), &[("spec|tls", json!([{"hosts": ["victim.example"]}]))])),
        ("everything", with(&ingress(), &[("spec|defaultBackend", backend)])),
    ] {
        judge.refuses(what, &asked("ingresses", ingress(), bad.clone()), "ingressHostSuffixes", PEERS_DOMAIN);
        judge.passes(what, &asked("ingresses", ingress(), bad), &[("ingressHostSuffixes", "*")]);
    }
    let classes: &[(&str, &str)] = &[("ingressHostSuffixes", "peer.example"), ("ingressClasses", "public")];
    let class = |class: &str| with(&ingress(), &[("spec|ingressClassName", json!(class))]);
    judge.passes("class", &asked("ingresses", Value::Null, class("public")), classes);
    judge.refuses("class", &asked("ingresses", Value::Null, class("internal")), "peerPolicy.ingressClasses", classes);
    for (key, passes) in [
        ("kubectl.kubernetes.io/last-applied-configuration", true),
        ("virtualkubelet.liqo.io/original-uid", true),
        ("nginx.ingress.kubernetes.io/configuration-snippet", false),
        ("kubernetes.io/ingress.class", false),
    ] {
        let annotated = with(&ingress(), &[("metadata|annotations", json!({ key: "x" }))]);
        let one = asked("ingresses", Value::Null, annotated);
        match passes {
            true => judge.passes(key, &one, PEERS_DOMAIN),
            false => judge.refuses(key, &one, "peerPolicy.ingressAnnotations", PEERS_DOMAIN),
        }
    }
}

#[test]
fn endpoints_are_somewhere() {
    let judge = Judge::new();
    let at = |address: &str| with(&slice(), &[("spec|template|endpoints", json!([{"addresses": [address]}]))]);
    for good in ["10.245.0.43", "172.16.0.1", "20.0.0.1", "200.1.2.3", "2001:db8::1", "fd00::1", "100.64.0.1"] {
        judge.passes(good, &asked("shadowendpointslices", slice(), at(good)), &[]);
    }
    for bad in [
        "127.0.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "fe80::1",
        "FF02::1",
        "febf::1",
    ] {
        judge.refuses_all(bad, "shadowendpointslices", &slice(), &at(bad), "an endpoint has a loopback");
    }
    let name = with(&at("0.pool.example"), &[("spec|template|addressType", json!("FQDN"))]);
    judge.passes("a name", &asked("shadowendpointslices", Value::Null, name), &[]);
    let many = |count: usize| {
        let endpoints = vec![json!({"addresses": ["10.0.0.1"]}); count];
        with(&slice(), &[("spec|template|endpoints", json!(endpoints))])
    };
    judge.passes("1000", &asked("shadowendpointslices", Value::Null, many(1000)), &[]);
    judge.refuses_all("1001", "shadowendpointslices", &slice(), &many(1001), "at most 1000 endpoints");
    let manager =
        [("metadata|labels|endpointslice.kubernetes.io/managed-by", json!("endpointslice-controller.k8s.io"))];
    judge.refuses_all("manager", "shadowendpointslices", &slice(), &with(&slice(), &manager), "managed-by");
}

#[test]
fn claims_and_secrets_take_nothing_of_this_cluster() {
    let judge = Judge::new();
    for (field, value) in [
        ("volumeName", json!("pv-of-another")),
        ("selector", json!({"matchLabels": {"a": "b"}})),
        ("dataSource", json!({"kind": "PersistentVolumeClaim", "name": "x"})),
        ("dataSourceRef", json!({"kind": "VolumeSnapshot", "name": "x", "namespace": "victim"})),
    ] {
        let bad = with(&claim(), &[(&format!("spec|{field}"), value)]);
        judge.refuses_all(field, "persistentvolumeclaims", &claim(), &bad, "names no volume");
    }
    let class = |class: &str| with(&claim(), &[("spec|storageClassName", json!(class))]);
    judge.refuses_all("by hand", "persistentvolumeclaims", &claim(), &class(""), "peerPolicy.storageClasses");
    let only: &[(&str, &str)] = &[("storageClasses", "slow faster")];
    judge.refuses("foreign", &asked("persistentvolumeclaims", Value::Null, claim()), "storageClasses", only);
    judge.passes("given", &asked("persistentvolumeclaims", Value::Null, class("slow")), only);
    for key in [
        "volume.beta.kubernetes.io/storage-class",
        "volume.beta.kubernetes.io/storage-provisioner",
        "volume.kubernetes.io/selected-node",
        "pv.kubernetes.io/bind-completed",
        "volume.alpha.kubernetes.io/anything",
    ] {
        let annotated = |value: &str| with(&claim(), &[("metadata|annotations", json!({"mine": value, (key): value}))]);
        let asked = |old: Value, new: Value| asked("persistentvolumeclaims", old, new);
        let words = "Name the class in spec.storageClassName";
        judge.refuses_all(key, "persistentvolumeclaims", &claim(), &annotated("faster"), words);
        judge.refuses("changed", &asked(annotated("slow"), annotated("faster")), words, &[]);
        judge.refuses("removed", &asked(annotated("slow"), claim()), words, &[]);
        judge.passes("what this cluster added stays", &asked(annotated("slow"), annotated("slow")), &[]);
    }
    for kind in ["kubernetes.io/service-account-token", "bootstrap.kubernetes.io/token"] {
        let bad = with(&secret(), &[("type", json!(kind))]);
        judge.refuses_all(kind, "secrets", &secret(), &bad, "hand out credentials");
    }
    for kind in ["kubernetes.io/tls", "kubernetes.io/dockerconfigjson", "helm.sh/release.v1"] {
        judge.passes_all(kind, "secrets", &with(&secret(), &[("type", json!(kind))]));
    }
}
