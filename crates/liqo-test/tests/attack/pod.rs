//! The man in the pod: what pods of a peer reach through the tunnel, and pods of home inside, says no.

use std::{
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use liqo_test::{
    Cluster,
    netns::Netns,
    run::{feed, inside_of, output},
    stage::LONG,
    wait_for,
};
use serde_json::{Value, json};

use super::{
    holes, metrics, powers,
    raid::{Raid, tenant, text},
    reviews,
    root::{few, pod, shadow},
    tunnels,
};

/// Connections to the port of the webhooks that send nothing.
const STALLED: usize = 400;

pub(crate) fn story(raid: &Raid) -> Result<()> {
    let (rome, turin) = (raid.rome(), raid.hostile_cluster());
    let burglar = turin.pods("default", "app=burglar")?;
    let (burglar, _) = burglar.first().context("turin has no pod")?;
    let process = turin.container_process("default", burglar, "web")?;
    let here = PathBuf::from(format!("/proc/{}/ns/net", process.pid));
    // The way through the tunnel is open for pods of rome, and closed for those of Liqo.
    let client = rome.json(&["pods", "-n", "shop", "-l", "app=client"])?;
    let target = format!("http://{}:8080/", text(&client, "/items/0/status/podIP"));
    let page = inside(&here, "curl", &["-s", "-S", "--max-time", "10", &target])?;
    ensure!(page.starts_with("client-"), "a pod of turin gets {page:?} from a pod of rome");
    let kubelets = tenant(rome, &raid.milan.id)?;
    for (namespace, start, port) in [
        ("liqo", "liqo-network-manager", 6000),
        ("liqo", "liqo-controller-manager", 9443),
        (&kubelets, "virtual-kubelet", 10250),
        (&kubelets, "virtual-kubelet", 8081),
    ] {
        let target = format!("http://{}:{port}/", address(rome, namespace, start)?);
        let said = inside(&here, "curl", &["-s", "-S", "--max-time", "3", &target]).err();
        // curl's words for an answer that does not come.
        let said = said.map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(said.contains("curl: (28)"), "a pod of turin reaches {target}: {said:?}");
    }
    in_rome(raid)?;
    powers::are_small(rome)
}

/// A pod of turin that runs in rome reaches the servers of Liqo, and each server refuses it.
fn in_rome(raid: &Raid) -> Result<()> {
    let (rome, turin) = (raid.rome(), &raid.turin);
    let there = turin.offloaded(rome)?;
    turin.tries(&shadow(turin, &there, "lodger", &pod(&few(), &json!({}))))?.done("a pod like any")?;
    wait_for("turin's pod runs in rome", LONG, || {
        Ok((rome.json(&["pod", "-n", &there, "lodger"])?["status"]["phase"] == "Running").then_some(()))
    })?;
    let here = PathBuf::from(format!("/proc/{}/ns/net", rome.container_process(&there, "lodger", "c")?.pid));
    ipam(raid, &here)?;
    kubelets(raid, &here)?;
    nodes(rome, &here)?;
    stalled(raid, &here)?;
    tunnels::story(raid, &here)?;
    reviews::story(raid, &here)?;
    metrics::story(raid, &there)?;
    turin.runs(&["delete", "shadowpod", "-n", &there, "lodger", "--wait=false"])?.done("its own pod").map(drop)
}

pub(crate) fn inside(netns: &std::path::Path, program: &str, args: &[&str]) -> Result<String> {
    output(inside_of(netns, program).args(args))
}

/// One of our pods in rome.
fn ours(rome: &Cluster, namespace: &str, start: &str) -> Result<Value> {
    let pods = rome.items(&["pods", "-n", namespace])?;
    let mut pods = pods.into_iter();
    let pod = pods.find(|one| text(one, "/metadata/name").starts_with(start) && one["status"]["phase"] == "Running");
    pod.with_context(|| format!("rome runs no {start}"))
}

/// The address of one of our pods in rome.
pub(crate) fn address(rome: &Cluster, namespace: &str, start: &str) -> Result<String> {
    Ok(text(&ours(rome, namespace, start)?, "/status/podIP").to_owned())
}

/// The name of one of our pods in rome.
pub(crate) fn named(rome: &Cluster, namespace: &str, start: &str) -> Result<String> {
    Ok(text(&ours(rome, namespace, start)?, "/metadata/name").to_owned())
}

/// A field of a protobuf message: its number, a length and a text.
fn field(number: u8, value: &str) -> Vec<u8> {
    [&[number << 3 | 2, value.len().to_be_bytes()[7]], value.as_bytes()].concat()
}

/// Asks rome's IPAM from a network namespace; gives the head and the trailers of the answer, empty without an answer. The call is
/// the method, the ID of the peer and the address.
pub(crate) fn ask_ipam(
    raid: &Raid,
    netns: &std::path::Path,
    (method, id, ip): (&str, &str, &str),
    token: Option<&str>,
) -> Result<String> {
    let message = [field(1, id), field(2, ip)].concat();
    let length = u32::try_from(message.len())?.to_be_bytes();
    let file = raid.stage.bed.dir().join("call");
    liqo_test::run::write(&file, [&[0][..], &length, &message].concat())?;
    let body = format!("@{}", file.display());
    let manager = address(raid.rome(), "liqo", "liqo-network-manager")?;
    let url = format!("http://{manager}:6000/ipam/{method}");
    let grpc = ["-H", "content-type: application/grpc", "-H", "te: trailers", "--http2-prior-knowledge"];
    let mut args = vec!["-s", "--max-time", "5", "-D", "-", "-o", "/dev/null", "--data-binary", &body];
    args.extend(grpc);
    let token = token.map(|token| format!("authorization: Bearer {token}"));
    args.extend(token.iter().flat_map(|token| ["-H", token]));
    args.push(&url);
    Ok(inside(netns, "curl", &args).unwrap_or_default())
}

/// Whether the IPAM did what it was asked.
pub(crate) fn is_answered(said: &str) -> bool {
    said.contains("grpc-status: 0")
}

/// A caller without a token exports no address and releases no address of a peer.
fn ipam(raid: &Raid, here: &std::path::Path) -> Result<()> {
    let rome = raid.rome();
    let before = rome.items(&["ipamstorages"])?;
    for (method, id, ip) in [
        ("MapEndpointIP", &raid.turin.id, rome.node_ip()),
        ("MapEndpointIP", &raid.milan.id, rome.node_ip()),
        ("UnmapEndpointIP", &raid.milan.id, rome.dns_ip()),
    ] {
        let said = ask_ipam(raid, here, (method, id, &ip), None)?;
        if is_answered(&said) {
            holes::found(format!("{method} for {id} with {ip} was done for somebody without a token"));
        } else {
            // 16 is UNAUTHENTICATED: the server was reached, and refused.
            ensure!(said.contains("grpc-status: 16"), "{method} for {id} with {ip}: {said:?}");
        }
    }
    let after = rome.items(&["ipamstorages"])?;
    // Other addresses come and go with the pods and endpoints of honest peers.
    let knows = |all: &[Value], ip: &str| all.iter().any(|one| one["spec"].to_string().contains(&format!("\"{ip}\"")));
    for ip in [rome.node_ip(), rome.dns_ip()] {
        if knows(&before, &ip) != knows(&after, &ip) {
            holes::found(format!("somebody without a token has exported or released {ip}"));
        }
    }
    Ok(())
}

/// The kubelet API of a virtual node answers whom the API server vouches for, and only where they have rights on the node.
fn kubelets(raid: &Raid, here: &std::path::Path) -> Result<()> {
    let rome = raid.rome();
    let account = rome.kubectl(&["create", "token", "default", "-n", &raid.turin.offloaded(rome)?])?;
    let account = format!("Authorization: Bearer {}", account.trim());
    let [certificate, key] = raid.turin.certificate();
    let kubelet = address(rome, &tenant(rome, &raid.milan.id)?, "virtual-kubelet")?;
    for path in ["/pods", "/containerLogs/shop/web/web", "/exec/shop/web/web?command=id&output=1"] {
        for (who, shown, expected) in [
            ("nobody", vec![], "401"),
            ("a made-up token", vec!["-H", "Authorization: Bearer nonsense"], "401"),
            ("the token of the pod's account", vec!["-H", &account], "403"),
            ("the certificate of the peer", vec!["--cert", &certificate, "--key", &key], "403"),
        ] {
            let url = format!("https://{kubelet}:10250{path}");
            let plain = ["-k", "-s", "--max-time", "5", "-o", "/dev/null", "-w", "%{http_code}", &url];
            let code = inside(here, "curl", &[&shown[..], &plain].concat());
            let code = code.with_context(|| format!("{path} of a virtual kubelet does not answer {who}"))?;
            ensure!(code.trim() == expected, "{path} with {who}: {code} instead of {expected}");
        }
    }
    Ok(())
}

/// Ports of the nodes of rome: nothing of Liqo answers there, and a kubelet knows neither the pod nor its peer.
fn nodes(rome: &Cluster, here: &std::path::Path) -> Result<()> {
    for node in rome.nodes() {
        for (port, answer) in
            [(10250, Some("401")), (10255, None), (9443, None), (8118, None), (6000, None), (8081, None)]
        {
            let scheme = if port == 10250 { "https" } else { "http" };
            let url = format!("{scheme}://{}:{port}/pods", node.ip);
            let words =
                ["-k", "-s", "--noproxy", "*", "--max-time", "3", "-o", "/dev/null", "-w", "%{http_code}", &url];
            let code = inside(here, "curl", &words).ok();
            let code = code.as_deref().map(str::trim);
            ensure!(code == answer, "{url} answers a guest {code:?} instead of {answer:?}");
        }
    }
    Ok(())
}

/// Connections that send nothing do not delay admission.
fn stalled(raid: &Raid, here: &std::path::Path) -> Result<()> {
    let rome = raid.rome();
    let webhooks: SocketAddr = format!("{}:9443", address(rome, "liqo", "liqo-controller-manager")?).parse()?;
    let netns = Netns::open(here)?;
    let held = netns.run(move || {
        let open = |_| TcpStream::connect_timeout(&webhooks, Duration::from_secs(2)).ok();
        (0..STALLED).map_while(open).collect::<Vec<_>>()
    })?;
    ensure!(held.len() > STALLED / 2, "only {} of {STALLED} connections were taken", held.len());
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "asked", "namespace": "shop"},
        "spec": {"containers": [{"name": "c", "image": "localhost/busybox:1"}]}});
    for _ in 0..5 {
        let began = Instant::now();
        rome.kubectl(&["get", "namespace", "shop"])?;
        let look = began.elapsed();
        let began = Instant::now();
        let mut create = rome.kubectl_command();
        feed(create.args(["create", "--dry-run=server", "-f", "-"]), &pod.to_string()).context("admission of a pod")?;
        let took = began.elapsed().saturating_sub(look);
        ensure!(
            took < Duration::from_secs(1),
            "with {} silent connections a pod is admitted after {took:?}",
            held.len()
        );
    }
    drop(held);
    Ok(())
}
