//! `liqoctl status peer`: each peer, and what is taken from it and given to it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use liqo_api::{
    discovery::{ForeignCluster, PeeringConditionStatus},
    meta::label,
    sharing::ResourceOffer,
};
use liqo_core::decision;
use liqo_kube::Cluster;
use serde::Serialize;

use crate::{
    here,
    out::{Format, Out, Told},
    status::{
        frame::{Section, boxed},
        missing,
        network::{NetworkView, Objects},
    },
    tenant::stranger::{self, Stranger},
    uninstall::absent,
    view::{ConditionView, PeerView},
};

const TITLE: &str = "Peered Cluster Information";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    peers: Vec<PeerView>,
    /// Clusters that were let in and have no ForeignCluster.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    strangers: Vec<Stranger>,
    /// Names that were asked for and belong to no peer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_found: Vec<String>,
}

/// Shows the peers of these names, or all.
pub(crate) async fn run(
    cluster: &Cluster,
    namespace: &str,
    names: &[String],
    verbose: bool,
    output: Option<Format>,
    out: Out,
) -> anyhow::Result<()> {
    if let Some(why) = missing(cluster, namespace).await? {
        anyhow::bail!("Liqo is not installed: {why}");
    }
    let local = here::identity(cluster, namespace).await?.cluster_name;
    let known: Vec<ForeignCluster> = cluster.list("", "").await.or_else(absent)?;
    let offers: Vec<ResourceOffer> = cluster.list("", "").await.or_else(absent)?;
    let network = Objects {
        configs: cluster.list("", "").await.or_else(absent)?,
        tunnels: cluster.list("", "").await.or_else(absent)?,
    };
    let strangers = stranger::list(cluster, &known).await?;
    let report = report(&known, &offers, &network, names).with(strangers, names);
    match output {
        Some(format) => out.value(&report, format)?,
        None => out.plain(boxed(TITLE, &text(&report, &local, verbose))),
    }
    if report.not_found.is_empty() { Ok(()) } else { Err(Told.into()) }
}

/// Pure: the peers with their resources.
fn report(known: &[ForeignCluster], offers: &[ResourceOffer], network: &Objects, names: &[String]) -> Report {
    let wanted = |one: &&ForeignCluster| names.is_empty() || names.contains(&one.name_any());
    let peers = known.iter().filter(wanted).map(|one| {
        let mut view = PeerView::of(one);
        let of =
            |key: &str| offers.iter().find(|offer| offer.labels().get(key) == Some(&view.cluster_id)).map(resources);
        let (acquired, shared) = (of(label::ORIGIN_ID), of(label::REMOTE_ID));
        view.acquired = acquired.filter(|_| is_enabled(&view, "OutgoingPeering"));
        view.shared = shared.filter(|_| is_enabled(&view, "IncomingPeering"));
        let is_ours = view.status("NetworkStatus") != PeeringConditionStatus::External;
        view.network = is_ours.then(|| NetworkView::of(network, &view.cluster_id));
        view
    });
    let mut peers: Vec<_> = peers.collect();
    peers.sort_by(|a, b| a.name.cmp(&b.name));
    let unknown = |name: &&String| !known.iter().any(|one| one.name_any() == **name);
    Report { peers, strangers: Vec::new(), not_found: names.iter().filter(unknown).cloned().collect() }
}

impl Report {
    /// The same with the clusters that have no ForeignCluster, as far as they were asked for.
    fn with(mut self, all: Vec<Stranger>, names: &[String]) -> Self {
        self.not_found.retain(|name| !all.iter().any(|one| one.is_called(name)));
        let is_wanted = |one: &Stranger| names.is_empty() || names.iter().any(|name| one.is_called(name));
        self.strangers = all.into_iter().filter(is_wanted).collect();
        self
    }
}

/// A cluster that has no ForeignCluster.
fn stranger_section(one: &Stranger) -> Section {
    let mut all = Section::new(format!("{} - {}", one.cluster_name, one.cluster_id));
    all.entry("Type", "Identity without a ForeignCluster");
    all.entry("Tenant Namespace", &one.tenant_namespace);
    all.entry("Certificate Ends", one.certificate_ends.as_deref().unwrap_or("unknown"));
    all.entry("End It", format!("liqoctl evict tenant {}", one.cluster_id));
    all
}

fn is_enabled(view: &PeerView, direction: &str) -> bool {
    view.status(direction) != PeeringConditionStatus::None
}

fn resources(offer: &ResourceOffer) -> BTreeMap<String, String> {
    let hard = offer.spec.resource_quota.as_ref().and_then(|quota| quota.hard.as_ref());
    hard.into_iter().flatten().map(|(name, Quantity(value))| (name.clone(), value.clone())).collect()
}

fn text(report: &Report, local: &str, verbose: bool) -> String {
    let mut all = Section::new("");
    for name in &report.not_found {
        all.section(Section::new(format!("{name} - Peer Not Found")));
    }
    for peer in &report.peers {
        all.section(section(peer, local, verbose));
    }
    for one in &report.strangers {
        all.section(stranger_section(one));
    }
    if report.peers.is_empty() && report.strangers.is_empty() && report.not_found.is_empty() {
        all.line(format!("Local cluster {local:?} is not peered with any remote cluster"));
    }
    all.text()
}

/// A tenant condition, and the effect of one that is unknown.
fn told(condition: &str) -> String {
    match decision::CONDITIONS.contains(&condition) {
        true => condition.to_owned(),
        false => format!("{condition} (unknown, counts as Cordoned; known are {})", decision::CONDITIONS.join(", ")),
    }
}

fn section(peer: &PeerView, local: &str, verbose: bool) -> Section {
    let status = |aspect: &str| format!("{:?}", peer.status(aspect));
    let mut all = Section::new(format!("{} - {}", peer.cluster_name, peer.cluster_id));
    all.entry("Type", format!("{:?}", peer.kind));
    if let Some(condition) = &peer.tenant_condition {
        all.entry("Tenant", told(condition));
    }
    let mut direction = Section::new("Direction");
    direction.entry("Outgoing", status("OutgoingPeering")).entry("Incoming", status("IncomingPeering"));
    let mut authentication = Section::new("Authentication");
    authentication.entry("Status", status("AuthenticationStatus"));
    if verbose {
        authentication.entry("Auth URL", &peer.auth_url);
        if let Some(proxy) = &peer.proxy_url {
            authentication.entry("Auth Proxy URL", proxy);
        }
    }
    let mut network = Section::new("Network");
    network.entry("Status", status("NetworkStatus"));
    if let Some(view) = &peer.network {
        match verbose {
            true => view.show(&mut network, local, &peer.cluster_name),
            false => view.show_connection(&mut network),
        }
    }
    all.section(direction).section(authentication).section(network);
    if verbose {
        all.entry("API Server", status("APIServerStatus"));
    }
    reasons(&mut all, peer);
    let given = [
        ("acquired", &peer.cluster_name, local, &peer.acquired),
        ("shared", &local.to_owned(), &peer.cluster_name, &peer.shared),
    ];
    if given.iter().any(|(.., resources)| resources.is_some()) {
        let mut section = Section::new("Resources");
        for (what, from, to, resources) in given {
            let Some(resources) = resources else { continue };
            let mut totals = Section::new(format!("Total {what} - resources offered by {from:?} to {to:?}"));
            for (name, value) in ordered(resources) {
                totals.entry(name, amount(name, value));
            }
            section.section(totals);
        }
        all.section(section);
    }
    all
}

/// Why an aspect is not as it should be.
fn reasons(all: &mut Section, peer: &PeerView) {
    use PeeringConditionStatus::{Established, External, None, Success};
    let is_bad = |one: &ConditionView| !matches!(one.status, Established | External | None | Success);
    let mut bad = peer.conditions.iter().filter(|(_, one)| is_bad(one)).peekable();
    if bad.peek().is_some() {
        let mut section = Section::new("Reasons");
        for (aspect, one) in bad {
            section.paragraph(aspect, &format!("{}: {}", one.reason, one.message));
        }
        all.section(section);
    }
}

/// The well known ones first, the others that are not zero after them.
fn ordered(resources: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
    const KNOWN: [&str; 4] = ["cpu", "memory", "pods", "ephemeral-storage"];
    let known = KNOWN.iter().filter_map(|name| resources.get_key_value(*name));
    let others = resources.iter().filter(|(name, value)| !KNOWN.contains(&name.as_str()) && value.as_str() != "0");
    known.chain(others).map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// A quantity for people: CPU in thousandths, memory and storage in GiB.
fn amount(name: &str, value: &str) -> String {
    let Some(number) = parse(value) else { return value.to_owned() };
    match name {
        "cpu" => format!("{}m", (number * 1000.0).round()),
        "memory" | "ephemeral-storage" => format!("{:.2}GiB", number / (1024.0 * 1024.0 * 1024.0)),
        _ => format!("{number}"),
    }
}

fn parse(value: &str) -> Option<f64> {
    let end = value.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-').unwrap_or(value.len());
    let (number, unit) = value.split_at(end);
    let factor = match unit {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "Ki" => 1024.0,
        "Mi" => 1024.0_f64.powi(2),
        "Gi" => 1024.0_f64.powi(3),
        "Ti" => 1024.0_f64.powi(4),
        "Pi" => 1024.0_f64.powi(5),
        exponent => 10.0_f64.powi(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn known() -> ForeignCluster {
        serde_json::from_value(json!({
            "apiVersion": "discovery.liqo.io/v1alpha1", "kind": "ForeignCluster", "metadata": {"name": "peer"},
            "spec": {"foreignAuthUrl": "https://a.b", "clusterIdentity": {"clusterID": "id", "clusterName": "milan"}},
            "status": {"peeringConditions": [
                {"type": "OutgoingPeering", "status": "Established"}, {"type": "NetworkStatus", "status": "External"},
                {"type": "AuthenticationStatus", "status": "Established"}]}}))
        .unwrap()
    }

    fn none() -> Objects {
        Objects { configs: Vec::new(), tunnels: Vec::new() }
    }

    #[test]
    fn an_in_band_peer_shows_its_proxy_and_its_network() {
        let mut one = known();
        one.spec.peering_type = liqo_api::discovery::PeeringType::InBand;
        one.spec.foreign_proxy_url = Some("http://10.98.0.3:8118".into());
        one.status.as_mut().unwrap().peering_conditions[1].status = PeeringConditionStatus::Established;
        let report = report(&[one], &[], &none(), &[]);
        let told = text(&report, "rome", true);
        for part in [
            "InBand\n",
            "        Auth Proxy URL: http://10.98.0.3:8118\n",
            "    Network\n        Status: Established\n        NetWorkConfig Not Found\n        TunnelEndpoint Not Found\n",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(!text(&report, "rome", false).contains("Not Found"));
    }

    #[test]
    fn what_is_not_as_it_should_be_comes_with_its_reason() {
        let mut one = known();
        let conditions = &mut one.status.as_mut().unwrap().peering_conditions;
        (conditions[0].status, conditions[0].reason) = (PeeringConditionStatus::Pending, "NotAccepted".into());
        conditions[0].message =
            "cluster \"milan\" says: the request waits for the approval of an administrator there".into();
        let shown = text(&report(&[one], &[], &none(), &[]), "rome", false);
        let wanted = "    Reasons\n        OutgoingPeering: NotAccepted: cluster \"milan\" says: the request waits\n                         \
            for the approval of an administrator there\n";
        assert!(shown.ends_with(wanted), "{shown}");
    }

    fn offer(key: &str) -> ResourceOffer {
        serde_json::from_value(json!({"apiVersion": "sharing.liqo.io/v1alpha1", "kind": "ResourceOffer",
            "metadata": {"name": "milan", "labels": {key: "id"}}, "spec": {"clusterId": "id",
                "resourceQuota": {"hard": {"cpu": "1500m", "memory": "1073741824", "pods": "75", "nvidia.com/gpu": "0"}}}}))
        .unwrap()
    }

    #[test]
    fn a_peer_is_shown_as_documented() {
        let report = report(&[known()], &[offer("liqo.io/originID"), offer("liqo.io/remoteID")], &none(), &[]);
        let wanted = "milan - id\n    Type: OutOfBand\n    Direction\n        Outgoing: Established\n        Incoming: None\n    \
            Authentication\n        Status: Established\n    Network\n        Status: External\n    Resources\n        \
            Total acquired - resources offered by \"milan\" to \"rome\"\n            cpu:    1500m\n            memory: 1.00GiB\n            pods:   75\n";
        assert_eq!(text(&report, "rome", false), wanted);
    }

    #[test]
    fn no_peer_and_an_unknown_one_are_told() {
        let nobody = report(&[], &[], &none(), &[]);
        assert_eq!(text(&nobody, "rome", false), "Local cluster \"rome\" is not peered with any remote cluster\n");
        let unknown = report(&[known()], &[], &none(), &["paris".to_owned()]);
        assert_eq!((unknown.not_found.as_slice(), unknown.peers.len()), (["paris".to_owned()].as_slice(), 0));
        assert_eq!(text(&unknown, "rome", false), "paris - Peer Not Found\n");
    }

    #[test]
    fn a_cluster_that_was_let_in_and_is_no_peer_is_shown_with_what_ends_it() {
        let stranger = || Stranger {
            cluster_id: "id-of-turin".to_owned(),
            cluster_name: "turin".to_owned(),
            tenant_namespace: "liqo-tenant-turin-0a1b2c".to_owned(),
            certificate_ends: Some("2026-01-02T00:00:00Z".to_owned()),
        };
        let told =
            |names: &[String]| text(&report(&[], &[], &none(), names).with(vec![stranger()], names), "rome", false);
        let shown = "turin - id-of-turin\n    Type:             Identity without a ForeignCluster\n    Tenant Namespace: \
            liqo-tenant-turin-0a1b2c\n    Certificate Ends: 2026-01-02T00:00:00Z\n    End It:           liqoctl evict tenant \
            id-of-turin\n";
        for names in [vec![], vec!["turin".to_owned()], vec!["id-of-turin".to_owned()]] {
            assert_eq!(told(&names), shown, "{names:?}");
        }
        assert_eq!(told(&["paris".to_owned()]), "paris - Peer Not Found\n");
    }

    #[test]
    fn quantities_are_for_people() {
        for (name, value, wanted) in [
            ("cpu", "2", "2000m"),
            ("cpu", "600m", "600m"),
            ("memory", "1Gi", "1.00GiB"),
            ("memory", "7551M", "7.03GiB"),
            ("pods", "75", "75"),
            ("x", "odd", "odd"),
        ] {
            assert_eq!(amount(name, value), wanted, "{name} {value}");
        }
    }
}
