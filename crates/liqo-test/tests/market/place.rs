//! A market: a broker in milan, providers in milan and turin, a customer in rome.

use std::{fs, process::Stdio};

use anyhow::{Context, Result, ensure};
use liqo_test::{
    Cluster, Stage,
    run::{self, command, output},
};
use serde_json::Value;

/// Cluster IDs, given to the installations so that accounts can be made before there are clusters.
pub(crate) const ROME: &str = "11111111-1111-4111-8111-111111111111";
pub(crate) const MILAN: &str = "22222222-2222-4222-8222-222222222222";
pub(crate) const TURIN: &str = "33333333-3333-4333-8333-333333333333";
/// Namespace of the customer at the broker.
pub(crate) const NAMESPACE: &str = "rome";

/// Clusters with a market.
pub(crate) struct Market {
    pub(crate) stage: Stage,
    /// The broker, as rome asks it.
    pub(crate) customer: Site,
    /// The broker, as turin asks it.
    pub(crate) provider: Site,
    /// The agent of rome, as an administrator asks it.
    pub(crate) agent: Site,
}

impl AsMut<Stage> for Market {
    fn as_mut(&mut self) -> &mut Stage {
        &mut self.stage
    }
}

const ACCOUNTS: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: rome}}
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: rome, namespace: rome}}
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: turin, namespace: rome}}
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: milan, namespace: rome}}
";

/// Rights at the broker: rome is a customer and reserves for itself, the others speak as the provider that they are.
fn rights() -> String {
    let mut all = format!(
        "
apiVersion: v1
kind: List
items:
- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRole
  metadata: {{name: consumer-rome}}
  rules: [{{apiGroups: [market.liqo.io], resources: [consumers], resourceNames: ['{ROME}'], verbs: [use]}}]
- apiVersion: rbac.authorization.k8s.io/v1
  kind: RoleBinding
  metadata: {{name: customer, namespace: {NAMESPACE}}}
  roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: liqo-market-customer}}
  subjects: [{{kind: ServiceAccount, name: rome, namespace: {NAMESPACE}}}]
"
    );
    for (name, id) in [("milan", MILAN), ("turin", TURIN)] {
        all += &format!(
            "- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRole
  metadata: {{name: provider-{name}}}
  rules: [{{apiGroups: [market.liqo.io], resources: [providerprofiles/heartbeat], resourceNames: ['{id}'], verbs: [update]}}]
"
        );
    }
    for (role, account) in [
        ("liqo-market-catalog", "rome"),
        ("consumer-rome", "rome"),
        ("provider-milan", "milan"),
        ("provider-turin", "turin"),
    ] {
        all += &format!(
            "- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRoleBinding
  metadata: {{name: {role}-{account}}}
  roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {role}}}
  subjects: [{{kind: ServiceAccount, name: {account}, namespace: {NAMESPACE}}}]
"
        );
    }
    all
}

/// An authority and a certificate of the broker, in a directory of their own.
const CERTIFICATES: &str = r#"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=market
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout tls.key -out tls.csr -subj /CN=broker
printf 'subjectAltName=IP:%s,DNS:liqo-broker.liqo' "$1" > names
openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out tls.crt
"#;

pub(crate) fn raise() -> Result<Market> {
    let stage = Stage::raise("market", &["rome", "milan", "turin"])?;
    let (rome, milan, turin) = (stage.cluster("rome"), stage.cluster("milan"), stage.cluster("turin"));
    milan.apply(ACCOUNTS)?;
    let folder = std::env::temp_dir().join(format!("liqo-market-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let mut bash = command("bash");
    output(bash.args(["-euc", CERTIFICATES, "bash", &milan.node_ip()]).current_dir(&folder).stdin(Stdio::null()))?;
    let file = |name: &str| folder.join(name).display().to_string();
    let token = |name: &str| -> Result<String> {
        Ok(milan.kubectl(&["create", "token", "-n", NAMESPACE, name, "--duration=8h"])?.trim().to_owned())
    };
    for cluster in [rome, milan, turin] {
        cluster.kubectl(&["create", "namespace", "liqo"])?;
        let words = [
            &format!("--from-literal=token={}", token(cluster.name())?),
            &format!("--from-file=ca.crt={}", file("ca.crt")),
        ];
        cluster.kubectl(&["create", "secret", "generic", "-n", "liqo", "liqo-broker-access", words[0], words[1]])?;
    }
    let pair = [format!("--cert={}", file("tls.crt")), format!("--key={}", file("tls.key"))];
    milan.kubectl(&["create", "secret", "tls", "-n", "liqo", "liqo-broker-tls", &pair[0], &pair[1]])?;
    fs::remove_dir_all(&folder)?;

    let broker = "market.enabled=true,market.heartbeatSeconds=2,market.tlsSecretName=liqo-broker-tls,market.service.type=NodePort";
    install(&stage, milan, (MILAN, "https://liqo-broker.liqo"), &[broker, &provide("north", "0.05EUR")])?;
    milan.apply(&rights())?;
    milan.rolled_out("liqo", "liqo-broker")?;
    let url = node_port(milan, "liqo-broker")?;
    // Where its API server listens, somebody answers.
    let probe = format!("agent.provide.probe={}", turin.api_server().trim_start_matches("https://"));
    install(&stage, turin, (TURIN, &url), &[&provide("south", "0.03EUR"), &probe])?;
    install(&stage, rome, (ROME, &url), &["agent.broker.namespace=rome,agent.service.type=NodePort"])?;
    for cluster in [milan, turin, rome] {
        cluster.rolled_out("liqo", "liqo-agent")?;
    }
    rome.kubectl(&["create", "serviceaccount", "-n", "default", "operator"])?;
    let all = "--serviceaccount=default:operator";
    rome.kubectl(&["create", "clusterrolebinding", "operator", "--clusterrole=cluster-admin", all])?;
    let operator = rome.kubectl(&["create", "token", "-n", "default", "operator"])?.trim().to_owned();
    let agent = Site { url: node_port(rome, "liqo-agent")?, token: operator };
    let (customer, provider) = (token("rome")?, token("turin")?);
    let [customer, provider] = [customer, provider].map(|token| Site { url: url.clone(), token });
    Ok(Market { stage, customer, provider, agent })
}

fn install(stage: &Stage, cluster: &Cluster, (id, url): (&str, &str), more: &[&str]) -> Result<()> {
    let agent = format!("agent.enabled=true,agent.broker.url={url},agent.broker.secretName=liqo-broker-access");
    let own = format!("discovery.config.clusterIDOverride={id}");
    let mut words = vec!["--set", &own, "--set", &agent];
    words.extend(more.iter().flat_map(|one| ["--set", *one]));
    stage.install(cluster, cluster.name(), &words)
}

/// Values of a provider.
fn provide(region: &str, cpu: &str) -> String {
    format!(
        "agent.provide.enabled=true,agent.provide.region={region},agent.provide.labels.tier=gold,agent.provide.prices.cpu={cpu},\
         agent.provide.prices.memory=0.001EUR"
    )
}

fn node_port(cluster: &Cluster, service: &str) -> Result<String> {
    let found = cluster.json(&["service", "-n", "liqo", service])?;
    let port = found["spec"]["ports"][0]["nodePort"].as_u64().context("no node port")?;
    Ok(format!("https://{}:{port}", cluster.node_ip()))
}

/// An API, and the token that is shown there.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) url: String,
    pub(crate) token: String,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.text).with_context(|| format!("{} is no JSON: {}", self.code, self.text))
    }

    /// The JSON of an answer with this code.
    pub(crate) fn with(&self, code: u16) -> Result<Value> {
        ensure!(self.code == code, "{} instead of {code}: {}", self.code, self.text);
        self.json()
    }
}

impl Site {
    pub(crate) fn get(&self, path: &str) -> Result<Answer> {
        self.ask("GET", path, &Value::Null)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.ask("POST", path, body)
    }

    pub(crate) fn delete(&self, path: &str) -> Result<Answer> {
        self.ask("DELETE", path, &Value::Null)
    }

    /// What a stream says within so many seconds.
    pub(crate) fn follow(&self, path: &str, seconds: u32) -> Result<String> {
        let mut curl = run::command("curl");
        curl.args(["-sS", "--insecure", "--no-buffer", "--max-time", &seconds.to_string()]);
        curl.args(["-H", &format!("Authorization: Bearer {}", self.token)]);
        // curl ends with an error when its time is over: what was said is what counts.
        let output = curl.arg(format!("{}{path}", self.url)).output().context("cannot run curl")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Answer> {
        let mut curl = run::command("curl");
        curl.args(["-sS", "--insecure", "--max-time", "30", "-X", method, "-w", "%{stderr}%{http_code}"]);
        curl.args(["-H", &format!("Authorization: Bearer {}", self.token)]);
        if !body.is_null() {
            curl.args(["-H", "Content-Type: application/json", "--data-binary", &body.to_string()]);
        }
        let output = curl.arg(format!("{}{path}", self.url)).output().context("cannot run curl")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = said.trim().parse().with_context(|| format!("curl said {said:?} about {path}"))?;
        Ok(Answer { code, text: String::from_utf8_lossy(&output.stdout).into_owned() })
    }
}
