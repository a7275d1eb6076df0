//! Everything the values are forged from, learnt and checked.

use std::collections::BTreeMap;

use anyhow::{Context, anyhow};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use liqo_api::{meta::label, names};
use liqo_core::naming::dns_label_error;

use crate::{
    clusters::Connection,
    flag::Cidr,
    install::{
        CommonArgs, name,
        provider::{Provider, Ranges},
        set, validate,
    },
    out::Out,
};

/// The percentage of the free resources that is shared unless the user says another one.
const SHARED: u8 = 90;
const BAD_NAME: &str = "the cluster name must be DNS-compatible (e.g., lowercase letters, numbers and hyphens) and must be <= 63 characters. \
    Try using 'liqoctl --cluster-name' to set another name and overcome this error";
const WRONG_RANGE: &str =
    "Try setting the correct Pod CIDR using the vanilla *liqoctl install* command, or installing Liqo with Helm";

/// What the values are made of.
#[derive(Clone, Debug)]
pub(crate) struct Parameters {
    /// Empty: the one of the chart.
    pub(crate) tag: String,
    /// Empty: each component finds it out.
    pub(crate) api_server: String,
    pub(crate) cluster_name: String,
    pub(crate) cluster_labels: BTreeMap<String, String>,
    pub(crate) ranges: Ranges,
    pub(crate) reserved_subnets: Vec<Cidr>,
    pub(crate) sharing_percentage: u8,
    pub(crate) replicas: u8,
    pub(crate) metrics: bool,
    pub(crate) telemetry: bool,
    /// What peers connect to; `None` leaves it to the chart.
    pub(crate) service_type: Option<String>,
}

/// Learns what was not said and checks what was.
pub(crate) async fn gather(
    args: &CommonArgs,
    provider: &Provider,
    ranges: Ranges,
    connection: &Connection,
    out: Out,
) -> anyhow::Result<Parameters> {
    let checked = provider.check_api_server && !args.disable_api_server_sanity_check;
    let given = &provider.api_server_url;
    let api_server = validate::api_server(given, &connection.api_server, provider.default_api_server, checked);
    let api_server = api_server.map_err(|why| anyhow!(why))?;
    let cluster_name = cluster_name(args, connection, out).await?;
    if !args.skip_validation {
        if dns_label_error(&cluster_name).is_some() {
            return Err(anyhow!(BAD_NAME));
        }
        check_ranges(ranges, connection).await?;
    }
    let mut cluster_labels = args.cluster_labels.clone();
    if let Some(name) = provider.name {
        cluster_labels.insert(label::PROVIDER.to_owned(), name.to_owned());
    }
    let service_type = Some(args.service_type.as_str()).filter(|kind| !kind.is_empty()).or(provider.service_type);
    Ok(Parameters {
        tag: args.version.clone(),
        api_server,
        cluster_name,
        cluster_labels,
        ranges,
        reserved_subnets: args.reserved_subnets.clone(),
        sharing_percentage: args.sharing_percentage.unwrap_or(SHARED),
        replicas: if args.enable_ha { 2 } else { 1 },
        metrics: args.enable_metrics,
        telemetry: !args.disable_telemetry && args.local_chart_path.is_none(),
        service_type: service_type.map(str::to_owned),
    })
}

/// What was said, else what it was, else something new.
async fn cluster_name(args: &CommonArgs, connection: &Connection, out: Out) -> anyhow::Result<String> {
    let set = set::all(&args.set).map_err(|why| anyhow!(why))?;
    let set = set.pointer("/discovery/config/clusterName").and_then(|name| name.as_str());
    if let Some(name) = set.or(Some(args.cluster_name.as_str())).filter(|name| !name.is_empty()) {
        return Ok(name.to_owned());
    }
    let old: Option<ConfigMap> = connection.cluster.get(&args.liqo.namespace, names::CLUSTER_ID_CONFIG_MAP).await?;
    let old = old.and_then(|map| map.data?.remove("CLUSTER_NAME")).filter(|name| !name.is_empty());
    Ok(old.unwrap_or_else(|| {
        let name = name::generate();
        out.info(format!("No cluster name specified. Generated: {name:?}"));
        name
    }))
}

async fn check_ranges(ranges: Ranges, connection: &Connection) -> anyhow::Result<()> {
    let pods: Vec<Pod> =
        connection.cluster.list("", &format!("{}!=true", label::SHADOW_POD)).await.context("listing pods")?;
    let services: Vec<Service> = connection.cluster.list("", "").await.context("listing services")?;
    let Ranges { pods: pod_range, services: service_range } = ranges;
    let wrong = |what: &str, range: Cidr, why: String| {
        anyhow!("failed validating {what} \"{range}\": {why}. {}", WRONG_RANGE.replace("Pod CIDR", what))
    };
    validate::pods(&pods, pod_range).map_err(|why| wrong("Pod CIDR", pod_range, why))?;
    validate::services(&services, service_range).map_err(|why| wrong("Service CIDR", service_range, why))
}
