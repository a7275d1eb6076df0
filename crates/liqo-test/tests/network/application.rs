//! An application in three clusters: a namespace of `rome` offloaded to `milan` and `turin`, and Services over their pods.
//! `milan` and `turin` do not know each other: what they say to each other goes through `rome`.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
};

use anyhow::{Context, Result, ensure};
use liqo_test::{
    Cluster, Stage,
    echo::PORT,
    stage::{LONG, on},
    wait_for,
};
use serde_json::Value;

use super::places::{Finder, Place, running};

const HERE: &str = "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: \
                    [{matchExpressions: [{key: liqo.io/type, operator: NotIn, values: [virtual-node]}]}]}}},";

/// The pods and Services of the application.
#[derive(Debug)]
pub(crate) struct Application {
    /// The pod in the consumer.
    pub(crate) here: Place,
    /// The pod in `milan`, as `milan` knows it.
    pub(crate) there: Place,
    /// The pod in `turin`, as `turin` knows it.
    pub(crate) far: Place,
    /// The node of the pod that has no network of its own.
    pub(crate) host: String,
    /// The Services as the pods and nodes of each cluster see them.
    pub(crate) services: BTreeMap<String, Services>,
    /// The address under which the remote pod knows the API server of its home.
    pub(crate) api_server: Ipv4Addr,
}

/// The Services of one cluster.
#[derive(Debug)]
pub(crate) struct Services {
    /// The pods of all clusters.
    pub(crate) all: SocketAddr,
    /// The pod on the network of its node.
    pub(crate) host: SocketAddr,
    /// Node port whose only endpoint is the pod in `milan`.
    pub(crate) away: u16,
    /// Node port whose only endpoint is the pod in `turin`.
    pub(crate) distant: u16,
    /// Node port whose only endpoint is the pod in the consumer.
    pub(crate) home: u16,
}

/// Offloads the namespace and makes the application, or finds it.
pub(crate) fn perform(stage: &Stage, finder: &mut Finder) -> Result<Application> {
    let (rome, milan, turin) = (stage.cluster("rome"), stage.cluster("milan"), stage.cluster("turin"));
    if rome.items(&["namespaceoffloadings", "-n", "demo"])?.is_empty() {
        stage.offload(rome, "demo", &[])?;
    }
    rome.apply(&manifest())?;
    for name in ["here", "there", "far", "host"] {
        rome.rolled_out("demo", name)?;
    }
    let (in_milan, in_turin) = (twin(milan)?, twin(turin)?);
    let there = one(milan, &in_milan, "where=there")?;
    let api_server = there.pointer("/spec/hostAliases/0/ip").and_then(Value::as_str).context("no alias")?.parse()?;
    let host = one(rome, "demo", "where=host")?["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
    Ok(Application {
        here: finder.pod(rome, &one(rome, "demo", "where=here")?)?,
        there: finder.pod(milan, &there)?,
        far: finder.pod(turin, &one(turin, &in_turin, "where=far")?)?,
        host,
        services: [(rome, "demo"), (milan, &in_milan), (turin, &in_turin)]
            .into_iter()
            .map(|(cluster, namespace)| Ok((cluster.name().to_owned(), services(cluster, namespace)?)))
            .collect::<Result<_>>()?,
        api_server,
    })
}

/// The namespace that an offloaded one has in a provider.
fn twin(cluster: &Cluster) -> Result<String> {
    let twins = cluster.items(&["namespaces", "-l", "liqo.io/remote-cluster-id"])?;
    let name = twins.first().and_then(|one| one["metadata"]["name"].as_str());
    name.map(str::to_owned).with_context(|| format!("no remote namespace in {}", cluster.name()))
}

fn one(cluster: &Cluster, namespace: &str, selector: &str) -> Result<Value> {
    let pods = running(cluster, namespace, selector)?;
    ensure!(pods.len() == 1, "{} pods {selector} in {}", pods.len(), cluster.name());
    Ok(pods.into_iter().next().expect("one"))
}

fn services(cluster: &Cluster, namespace: &str) -> Result<Services> {
    let get = |name: &str| wait_for(name, LONG, || cluster.json(&["service", "-n", namespace, name]).map(Some));
    let address = |name: &str| -> Result<SocketAddr> {
        let ip = get(name)?["spec"]["clusterIP"].as_str().unwrap_or_default().parse()?;
        Ok(SocketAddr::new(ip, PORT))
    };
    let port = |name: &str| -> Result<u16> {
        let number = get(name)?["spec"]["ports"][0]["nodePort"].as_u64().context("no node port")?;
        Ok(u16::try_from(number)?)
    };
    Ok(Services {
        all: address("all")?,
        host: address("host")?,
        away: port("away")?,
        distant: port("distant")?,
        home: port("home")?,
    })
}

fn manifest() -> String {
    let deployments: String = [
        ("here", "all", HERE.to_owned()),
        ("there", "all", on("milan")),
        ("far", "all", on("turin")),
        ("host", "host", format!("hostNetwork: true, {HERE}")),
    ]
    .map(|(name, app, spec)| deployment(name, app, &spec))
    .concat();
    let services: String = [
        ("all", "ClusterIP", "app: all"),
        ("host", "ClusterIP", "app: host"),
        ("away", "NodePort", "where: there"),
        ("distant", "NodePort", "where: far"),
        ("home", "NodePort", "where: here"),
    ]
    .map(|(name, kind, selector)| service(name, kind, selector))
    .concat();
    deployments + &services
}

fn deployment(name: &str, app: &str, spec: &str) -> String {
    format!(
        "---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: demo}}
spec:
  replicas: 1
  strategy: {{type: Recreate}}
  selector: {{matchLabels: {{where: {name}}}}}
  template:
    metadata: {{labels: {{where: {name}, app: {app}}}}}
    spec: {{terminationGracePeriodSeconds: 0, {spec} containers: [{{name: web, image: 'localhost/busybox:1',
      imagePullPolicy: IfNotPresent, readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}},
      resources: {{requests: {{cpu: 1m, memory: 4Mi}}}}}}]}}
"
    )
}

fn service(name: &str, kind: &str, selector: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: demo}}
spec: {{type: {kind}, selector: {{{selector}}}, ports: [{{name: tcp, port: {PORT}}}, {{name: udp, port: {PORT}, protocol: UDP}}]}}
"
    )
}
