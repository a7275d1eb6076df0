//! What our own components may do.
//!
//! The kinds that peers exchange are not here: every component that touches them is bound to the three
//! peering roles, which it needs anyway in order to grant them.

use liqo_api::names;

use super::{CHANGE, RO, RW, Rule, STATUS, named, rule};

const CLUSTER_ID: &[&str] = &[names::CLUSTER_ID_CONFIG_MAP];

/// The Service at which peers find the gateway.
const GATEWAY_SERVICE: &[&str] = &["liqo-gateway"];
/// The lease that says which gateway is active.
const GATEWAY_LEASE: &[&str] = &[names::GATEWAY_LEASE];
/// The lease that says which network manager decides.
const NETWORK_LEASE: &[&str] = &[names::NETWORK_MANAGER_LEASE];
/// The Secret with the cluster's WireGuard keys. This rule also grants lists and watches of this one name.
const WIREGUARD_KEY: &[&str] = &["wireguard-pubkey"];

/// The signer of peers' identities.
const CLIENT_SIGNER: &[&str] = &["kubernetes.io/kube-apiserver-client"];
/// The signers of virtual kubelets' serving certificates.
const SERVING_SIGNERS: &[&str] = &["beta.eks.amazonaws.com/app-serving", "kubernetes.io/kubelet-serving"];

/// The configuration of the webhooks. Lists and watches of this one name are granted by it, too.
const WEBHOOKS: &[&str] = &[liqo_api::names::WEBHOOK_CONFIGURATION];

/// Authentication service. It answers anybody, so it may nothing but learn whose certificates the controller manager shows.
pub(super) const AUTH: &[Rule] =
    &[named("admissionregistration.k8s.io", &["validatingwebhookconfigurations"], WEBHOOKS, RO)];

/// Controller manager, everywhere.
pub(super) const CONTROLLER_MANAGER: &[Rule] = &[
    rule("", &["namespaces"], RW),
    rule("", &["nodes"], CHANGE),
    rule("", &["nodes/finalizers"], STATUS),
    rule("", &["events"], &["create"]),
    rule("", &["pods"], RW),
    rule("", &["resourcequotas"], &["list", "watch", "create", "update", "patch"]),
    rule("", &["pods/eviction"], &["create"]),
    // Readiness gates of pods of peers; pods on virtual nodes that nobody runs.
    rule("", &["pods/status"], &["patch"]),
    rule("", &["secrets", "serviceaccounts"], RW),
    named(
        "admissionregistration.k8s.io",
        &["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
        WEBHOOKS,
        CHANGE,
    ),
    rule("apps", &["deployments"], RW),
    // Who asks for identities of peers?
    rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
    // Whose is the node that a virtual kubelet writes about? Asked before Kubernetes 1.30 only.
    rule("authorization.k8s.io", &["subjectaccessreviews"], &["create"]),
    rule("certificates.k8s.io", &["certificatesigningrequests"], &["get", "list", "watch", "create", "delete"]),
    rule("certificates.k8s.io", &["certificatesigningrequests/approval"], &["update", "patch"]),
    named("certificates.k8s.io", &["signers"], CLIENT_SIGNER, &["approve"]),
    named("certificates.k8s.io", &["signers"], SERVING_SIGNERS, &["approve"]),
    rule("discovery.k8s.io", &["endpointslices"], RW),
    rule("discovery.liqo.io", &["foreignclusters"], super::ALL),
    rule("discovery.liqo.io", &["foreignclusters/finalizers", "foreignclusters/status"], STATUS),
    rule("discovery.liqo.io", &["resourcerequests/finalizers", "resourcerequests/status"], STATUS),
    rule("metrics.liqo.io", &["scrape", "scrape/metrics"], &["get"]),
    rule("net.liqo.io", &["tunnelendpoints"], RO),
    rule("offloading.liqo.io", &["namespaceoffloadings"], CHANGE),
    rule("offloading.liqo.io", &["namespaceoffloadings/finalizers", "namespaceoffloadings/status"], STATUS),
    rule("rbac.authorization.k8s.io", &["clusterrolebindings", "clusterroles", "rolebindings"], RW),
    rule("sharing.liqo.io", &["resourceoffers/finalizers", "resourceoffers/status"], STATUS),
    rule("storage.k8s.io", &["storageclasses"], RO),
    rule("virtualkubelet.liqo.io", &["namespacemaps/finalizers", "namespacemaps/status"], STATUS),
    rule("virtualkubelet.liqo.io", &["shadowendpointslices"], RW),
    rule("virtualkubelet.liqo.io", &["shadowendpointslices/finalizers"], STATUS),
    rule("virtualkubelet.liqo.io", &["shadowpods"], &["get", "list", "watch", "update", "patch", "delete"]),
    rule("virtualkubelet.liqo.io", &["shadowpods/finalizers", "shadowpods/status"], STATUS),
];

/// Controller manager, in the Liqo namespace.
pub(super) const CONTROLLER_MANAGER_NAMESPACED: &[Rule] = &[
    rule("", &["configmaps"], &["get", "list", "watch", "create", "update", "patch"]),
    rule("", &["services"], RO),
    rule("coordination.k8s.io", &["leases"], RW),
];

/// Replicator, everywhere.
pub(super) const CRD_REPLICATOR: &[Rule] = &[
    rule("", &["namespaces"], RO),
    // Their addresses are of this cluster: no peer is reached there.
    rule("", &["nodes"], &["list", "watch"]),
    rule("", &["events"], &["create"]),
    rule("discovery.liqo.io", &["foreignclusters"], RO),
    // Statuses of originals, as the peers' copies have them.
    rule("discovery.liqo.io", &["resourcerequests/status"], STATUS),
    rule("net.liqo.io", &["networkconfigs/status"], STATUS),
    rule("sharing.liqo.io", &["resourceoffers/status"], STATUS),
    rule("virtualkubelet.liqo.io", &["namespacemaps/status"], STATUS),
];

/// Replicator, in the Liqo namespace.
pub(super) const CRD_REPLICATOR_NAMESPACED: &[Rule] =
    &[rule("", &["configmaps"], RO), named("", &["configmaps"], CLUSTER_ID, &["update", "patch"])];

/// Replicator, in each tenant namespace: the identities on the peer. The controller manager binds this role.
pub(super) const CRD_REPLICATOR_TENANT: &[Rule] = &[rule("", &["secrets"], RO)];

/// Gateway, everywhere.
pub(super) const GATEWAY: &[Rule] = &[
    // Addresses of virtual kubelets.
    rule("", &["nodes"], &["list", "watch"]),
    rule("net.liqo.io", &["natmappings", "tunnelendpoints"], RO),
    rule("net.liqo.io", &["tunnelendpoints/status"], &["patch"]),
];

/// Gateway, everywhere, in the segregated mode only: what is shared with peers.
pub(super) const GATEWAY_SEGREGATION: &[Rule] = &[
    rule("", &["namespaces", "pods"], &["list", "watch"]),
    rule("offloading.liqo.io", &["namespaceoffloadings"], &["list", "watch"]),
];

/// Gateway, in the Liqo namespace: its lease and key, who of its like is active, where peers find the active one.
pub(super) const GATEWAY_NAMESPACED: &[Rule] = &[
    rule("", &["pods"], &["get", "list", "watch", "patch"]),
    // Server-side apply of one name needs both; without a name, `create` would let the gateway make tokens.
    named("", &["secrets"], WIREGUARD_KEY, &["get", "list", "watch", "create", "patch"]),
    rule("", &["services"], RO),
    named("", &["services"], GATEWAY_SERVICE, &["patch"]),
    rule("coordination.k8s.io", &["leases"], &["create"]),
    named("coordination.k8s.io", &["leases"], GATEWAY_LEASE, CHANGE),
];

/// Route agent, everywhere.
pub(super) const ROUTE: &[Rule] = &[
    rule("", &["events"], &["create"]),
    rule("", &["nodes", "pods"], RO),
    rule("discovery.k8s.io", &["endpointslices"], RO),
    rule("net.liqo.io", &["tunnelendpoints"], RO),
];

/// Route agent, in the Liqo namespace.
pub(super) const ROUTE_NAMESPACED: &[Rule] =
    &[rule("", &["services"], RO), named("apps", &["daemonsets"], &["liqo-route"], &["get"])];

/// Metric agent, everywhere. `nodes/metrics` is asked for by kubelets; unlike `nodes/proxy` it runs nothing on them.
pub(super) const METRIC_AGENT: &[Rule] =
    &[rule("", &["namespaces", "nodes", "pods"], RO), rule("", &["nodes/metrics"], &["get"])];

/// Network manager, everywhere.
pub(super) const NETWORK_MANAGER: &[Rule] = &[
    rule("", &["events"], &["create"]),
    rule("", &["namespaces", "nodes"], RO),
    rule("", &["pods"], &["list"]),
    rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
    rule("discovery.k8s.io", &["endpointslices"], RO),
    rule("discovery.liqo.io", &["foreignclusters"], &["get", "list", "watch", "patch"]),
    rule("discovery.liqo.io", &["foreignclusters/finalizers"], &["update", "patch"]),
    rule("net.liqo.io", &["ipamstorages"], &["get", "list", "watch", "create", "patch"]),
    rule(
        "net.liqo.io",
        &["natmappings", "networkconfigs", "tunnelendpoints"],
        &["get", "list", "watch", "create", "patch", "delete"],
    ),
    rule("net.liqo.io", &["networkconfigs/status", "tunnelendpoints/status"], &["patch"]),
    rule("offloading.liqo.io", &["namespaceoffloadings"], &["list"]),
    rule("virtualkubelet.liqo.io", &["namespacemaps"], &["list"]),
];

/// Network manager, in the Liqo namespace.
pub(super) const NETWORK_MANAGER_NAMESPACED: &[Rule] = &[
    named("", &["secrets"], WIREGUARD_KEY, RO),
    rule("", &["services"], RO),
    rule("coordination.k8s.io", &["leases"], &["create"]),
    named("coordination.k8s.io", &["leases"], GATEWAY_LEASE, RO),
    named("coordination.k8s.io", &["leases"], NETWORK_LEASE, &["get", "patch"]),
];

/// The Secret with the master key of the embedded store of results.
const STORE_KEY: &[&str] = &["liqo-store-key"];
/// Making, changing and removing the quotas of jobs.
const QUOTAS: &[&str] = &["get", "create", "patch", "delete"];
/// The lease of the controllers of jobs.
const JOBS_LEASE: &[&str] = &["liqo-jobs"];

/// Controller of jobs, in the namespace of the jobs. The master key that was there before is removed.
pub(super) const JOBS: &[Rule] = &[
    rule("", &["pods"], &["get", "list", "watch", "delete"]),
    rule("", &["resourcequotas"], QUOTAS),
    rule("", &["secrets"], &["create", "patch", "delete"]),
    named("", &["secrets"], STORE_KEY, &["get"]),
    rule("batch", &["jobs"], &["get", "list", "watch", "create", "delete"]),
    rule("discovery.k8s.io", &["endpointslices"], &["create", "patch"]),
    rule("jobs.liqo.io", &["jobs"], &["get", "list", "watch", "update", "patch", "delete"]),
    rule("jobs.liqo.io", &["jobs/finalizers", "jobs/status"], STATUS),
    rule("jobs.liqo.io", &["jobtemplates"], RO),
];

/// Controller of jobs, in its own namespace: the master key, the lease, where the store is, the stores that the operator names with the
/// Secrets of their keys, whose names the operator chooses.
pub(super) const JOBS_OWN: &[Rule] = &[
    rule("", &["resourcequotas"], QUOTAS),
    rule("", &["secrets"], &["get", "create"]),
    rule("coordination.k8s.io", &["leases"], &["create"]),
    named("coordination.k8s.io", &["leases"], JOBS_LEASE, CHANGE),
    rule("discovery.k8s.io", &["endpointslices"], RO),
    rule("jobs.liqo.io", &["resultstores"], RO),
    rule("jobs.liqo.io", &["resultstores/status"], &["patch"]),
];

/// API of jobs, in the namespace of the jobs: what it does for callers who may do it.
pub(super) const JOBS_API: &[Rule] = &[
    rule("", &["pods/log"], &["get"]),
    rule("jobs.liqo.io", &["jobs"], &["get", "list", "watch", "create", "update", "patch", "delete"]),
    rule("jobs.liqo.io", &["jobtemplates"], RO),
];

/// API of jobs with the facade of older programs, in the namespace of the jobs: variables that callers of the facade send.
pub(super) const JOBS_API_LEGACY: &[Rule] =
    &[rule("", &["configmaps"], &["get", "create", "delete"]), rule("", &["secrets"], &["create"])];

/// API of jobs, in its own namespace, where no submitter reads Secrets: the master key, the key of links, which the API makes, and the
/// keys of the stores that the operator names.
pub(super) const JOBS_API_OWN: &[Rule] =
    &[rule("", &["secrets"], &["get", "create"]), rule("jobs.liqo.io", &["resultstores"], RO)];

/// API of jobs, everywhere: who calls, and may that caller do it?
pub(super) const JOBS_API_REVIEWS: &[Rule] = &[
    rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
    rule("authorization.k8s.io", &["subjectaccessreviews"], &["create"]),
];

/// Broker, everywhere: the market of all namespaces, the peers of this cluster for the catalogue, who calls and what that caller may.
pub(super) const BROKER: &[Rule] = &[
    rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
    rule("authorization.k8s.io", &["subjectaccessreviews"], &["create"]),
    rule("discovery.liqo.io", &["foreignclusters"], RO),
    rule("market.liqo.io", &["providerprofiles"], &["get", "list", "watch", "create", "update", "patch"]),
    rule("market.liqo.io", &["providerprofiles/status", "reservations/status"], STATUS),
    rule("market.liqo.io", &["reservations"], RW),
];

/// The Secret with the certificate of the authentication service, from which the pin of its key is made.
const AUTH_CERTIFICATE: &[&str] = &[names::AUTH_CERTIFICATE_SECRET];
/// The Service at which peers find the authentication service.
const AUTH_SERVICE: &[&str] = &[names::AUTH_SERVICE];

/// Agent, everywhere: what this cluster can offer, requests for peerings and what `liqoctl peer` writes, who calls and what that
/// caller may.
pub(super) const AGENT: &[Rule] = &[
    rule("", &["nodes", "pods"], RO),
    rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
    rule("authorization.k8s.io", &["subjectaccessreviews"], &["create"]),
    rule("discovery.liqo.io", &["foreignclusters"], RW),
    rule("market.liqo.io", &["peeringrequests"], RW),
    rule("market.liqo.io", &["selectionpolicies"], RO),
    rule("market.liqo.io", &["peeringrequests/status"], STATUS),
];

/// Agent, in the Liqo namespace: who this cluster is and where it is found; tokens for providers, and for consumers that were granted a
/// reservation. Unlike `list`, none of these verbs shows the Secrets of others.
pub(super) const AGENT_NAMESPACED: &[Rule] = &[
    named("", &["configmaps"], CLUSTER_ID, &["get"]),
    rule("", &["secrets"], &["create", "patch", "delete"]),
    named("", &["secrets"], AUTH_CERTIFICATE, &["get"]),
    named("", &["services"], AUTH_SERVICE, &["get"]),
];

/// Status page, everywhere: the right to read the kinds that the page shows, and to ask the API server who the caller is and what the
/// caller may list. The status page writes nothing.
pub(super) const STATUS_PAGE: &[Rule] = &[
    rule("", &["nodes", "pods"], RO),
    rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
    rule("authorization.k8s.io", &["subjectaccessreviews"], &["create"]),
    rule("discovery.liqo.io", &["foreignclusters"], RO),
    rule("net.liqo.io", &["tunnelendpoints"], RO),
    rule("offloading.liqo.io", &["namespaceoffloadings"], RO),
];

/// Status page, in the Liqo namespace: who this cluster is.
pub(super) const STATUS_PAGE_NAMESPACED: &[Rule] = &[named("", &["configmaps"], CLUSTER_ID, &["get"])];
