//! Labels, annotations, finalizers and taints: keys and values other programs rely on.
//!
//! Source: Liqo 0.8.3, confirmed by recordings of two real clusters.

/// Label keys and their fixed values.
pub mod label {
    /// Marks virtual nodes, with the value [`VIRTUAL_NODE`].
    pub const TYPE: &str = "liqo.io/type";
    /// Value of [`TYPE`] on virtual nodes.
    pub const VIRTUAL_NODE: &str = "virtual-node";
    /// The other cluster: on virtual nodes and namespace maps the provider, on remote namespaces the origin.
    pub const REMOTE_CLUSTER_ID: &str = "liqo.io/remote-cluster-id";
    /// `true` on namespaces whose pods pass through the pod webhook.
    pub const SCHEDULING_ENABLED: &str = "liqo.io/scheduling-enabled";
    /// `true` on the original to be replicated, `false` on the replica.
    pub const REPLICATION: &str = "liqo.io/replication";
    /// The cluster an original is replicated to.
    pub const REMOTE_ID: &str = "liqo.io/remoteID";
    /// The cluster a replica comes from.
    pub const ORIGIN_ID: &str = "liqo.io/originID";
    /// `true` on replicas.
    pub const REPLICATED: &str = "liqo.io/replicated";
    /// Dropped from replicas; only on `NetworkConfig` originals.
    pub const OWNERSHIP: &str = "liqo.io/ownership";
    /// `true` on local pods that run on a virtual node.
    pub const SHADOW_POD: &str = "liqo.io/shadowPod";
    /// Who made a remote pod or endpoint slice.
    pub const MANAGED_BY: &str = "liqo.io/managed-by";
    /// Value of [`MANAGED_BY`] on pods made from a shadow pod.
    pub const MANAGED_BY_SHADOW_POD: &str = "shadowpod";
    /// Value of [`MANAGED_BY`] on slices made from a shadow endpoint slice.
    pub const MANAGED_BY_SHADOW_ENDPOINT_SLICE: &str = "shadowendpointslice";
    /// On every reflected object: the cluster it comes from.
    pub const REFLECTION_ORIGIN: &str = "virtualkubelet.liqo.io/origin";
    /// On every reflected object: the cluster it was sent to.
    pub const REFLECTION_DESTINATION: &str = "virtualkubelet.liqo.io/destination";
    /// On remote token secrets: the local pod the tokens belong to.
    pub const SERVICE_ACCOUNT_FOR_POD_NAME: &str = "virtualkubelet.liqo.io/service-account-for-pod-name";
    /// On remote token secrets: the local service account.
    pub const SERVICE_ACCOUNT_NAME: &str = "virtualkubelet.liqo.io/service-account-name";
    /// On tenant namespaces, foreign clusters, identity and token secrets: the other cluster's ID.
    pub const CLUSTER_ID: &str = "discovery.liqo.io/cluster-id";
    /// `true` on tenant namespaces.
    pub const TENANT_NAMESPACE: &str = "discovery.liqo.io/tenant-namespace";
    /// Present (empty) on secrets that hold a peer's token.
    pub const AUTH_TOKEN: &str = "discovery.liqo.io/auth-token";
    /// How a foreign cluster became known: `Manual` when absent.
    pub const DISCOVERY_TYPE: &str = "discovery.liqo.io/discovery-type";
    /// Value of [`DISCOVERY_TYPE`] for clusters known by their request.
    pub const DISCOVERY_INCOMING: &str = "IncomingPeering";
    /// Value of [`DISCOVERY_TYPE`] for clusters found on the local network.
    pub const DISCOVERY_LAN: &str = "LAN";
    /// `true` on the secret that holds our identity on a peer.
    pub const LOCAL_IDENTITY: &str = "discovery.liqo.io/local-identity";
    /// `true` on identity secrets whose certificate has been issued.
    pub const CERTIFICATE_AVAILABLE: &str = "discovery.liqo.io/certificate-available";
    /// `true` on signing requests made for a peer.
    pub const REMOTE_TENANT_CSR: &str = "discovery.liqo.io/remote-tenant-csr";
    /// On secrets with a token that one cluster may use: `true`, the first that comes; `guest`, the one that [`CLUSTER_ID`] names.
    /// Not of Liqo 0.8.3.
    pub const ONE_TIME_TOKEN: &str = "liqo.io/one-time-token";
    /// On cluster roles bound to peers: `basic`, `incoming` or `outgoing`.
    pub const REMOTE_PEERING_PERMISSIONS: &str = "auth.liqo.io/remote-peering-permissions";
    /// On tunnel endpoints and NAT mappings: the other cluster's ID.
    pub const TUNNEL_CLUSTER_ID: &str = "clusterID";
    /// `true` or `false` on virtual nodes: does the provider offer storage classes?
    pub const STORAGE_AVAILABLE: &str = "storage.liqo.io/available";
    /// `true` on the namespace that holds real volumes.
    pub const STORAGE_PROVISIONER: &str = "liqo.io/storage-provisioner";
    /// The Kubernetes distribution, a cluster label set by `liqoctl install`.
    pub const PROVIDER: &str = "liqo.io/provider";
    /// Who manages an endpoint slice (well known to Kubernetes).
    pub const ENDPOINT_SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
    /// Value of [`ENDPOINT_SLICE_MANAGED_BY`] on what we reflect, so that Kubernetes leaves it alone.
    pub const ENDPOINT_SLICE_MANAGER: &str = "endpointslice.reflection.liqo.io";
    /// The Service an endpoint slice belongs to (well known to Kubernetes).
    pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
    /// On a namespace: the name of the namespace that the pods of the labelled namespace serve. A peer with which the served namespace is
    /// shared reaches these pods, too.
    pub const SERVES_NAMESPACE: &str = "liqo.io/serves-namespace";
    /// Modes of Pod Security on namespaces: `enforce`, `warn`, `audit` (well known to Kubernetes).
    pub const POD_SECURITY_PREFIX: &str = "pod-security.kubernetes.io/";
    /// Component name, on everything the chart makes.
    pub const APP_NAME: &str = "app.kubernetes.io/name";
    /// Part of which product, `liqo` on everything the chart makes.
    pub const APP_PART_OF: &str = "app.kubernetes.io/part-of";
    /// Which tool made the object.
    pub const APP_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
}

/// Annotation keys.
pub mod annotation {
    /// Advertised host of a Service.
    pub const OVERRIDE_ADDRESS: &str = "liqo.io/override-address";
    /// Advertised port of a Service.
    pub const OVERRIDE_PORT: &str = "liqo.io/override-port";
    /// `<tenant namespace>/<name>` of the namespace map that owns a remote namespace.
    pub const MANAGED_BY_NAMESPACE_MAP: &str = "liqo.io/managed-by-namespace-map";
    /// Name of a remote namespace in the cluster it comes from.
    pub const ORIGINAL_NAME: &str = "liqo.io/original-name";
    /// The offer a virtual kubelet Deployment serves (instead of an owner reference).
    pub const RESOURCE_OFFER: &str = "liqo.io/resourceoffer";
    /// Unix seconds when an identity expires. On a tenant namespace, and on a foreign cluster that is or was banned, which is not of
    /// Liqo 0.8.3: when the last of all certificates expires that this cluster gave to the peer. There the value never goes down.
    pub const CERTIFICATE_EXPIRE_TIME: &str = "discovery.liqo.io/certificate-expire-time";
    /// On a foreign cluster that is or was banned: the certificate, in PEM, that this cluster gave to the peer last. The ID of the peer
    /// belongs to the key of the certificate while no certificate is stored in a tenant namespace. Not of Liqo 0.8.3.
    pub const LAST_CERTIFICATE: &str = "liqo.io/last-certificate";
    /// `true` keeps a Service's node port on the remote side.
    pub const FORCE_REMOTE_NODE_PORT: &str = "liqo.io/force-remote-node-port";
    /// Present: the object is never reflected.
    pub const SKIP_REFLECTION: &str = "liqo.io/skip-reflection";
    /// On a `Secret`, with the value [`REFLECTION_NEEDED`]: the `Secret` is in a provider only while a pod that runs there uses it. Not
    /// of Liqo 0.8.3.
    pub const REFLECTION: &str = "liqo.io/reflection";
    /// The value of [`REFLECTION`].
    pub const REFLECTION_NEEDED: &str = "needed";
    /// On a foreign cluster: why its network is not as it should be, in one sentence; absent when it is. The network
    /// manager says so, the conditions show it. Not of Liqo 0.8.3.
    pub const NETWORK_PROBLEM: &str = "net.liqo.io/problem";
    /// On a foreign cluster: `Cordoned`, `Drained` or `Banned`; absent while the peer may have what it is granted. Not
    /// of Liqo 0.8.3.
    pub const TENANT_CONDITION: &str = "liqo.io/tenant-condition";
    /// On a copy of a resource request or a shadow pod: the provider's sentence why it does not do, or no longer adds to, what
    /// the copy asks for; absent when it does. The replicator carries it to the original of a request. Not of Liqo 0.8.3.
    pub const REFUSAL: &str = "liqo.io/refusal";
    /// On a tenant namespace: since when (RFC 3339) the peer is to take back what it consumes here. Not of Liqo 0.8.3.
    pub const INCOMING_LEAVING_SINCE: &str = "liqo.io/incoming-leaving-since";
    /// On a tenant namespace: since when (RFC 3339) the peer is to take back what it provides. Not of Liqo 0.8.3.
    pub const OUTGOING_LEAVING_SINCE: &str = "liqo.io/outgoing-leaving-since";
    /// On every reflected object, and on what is made from one: UID of the original. Not of Liqo 0.8.3, as the three that
    /// follow.
    pub const ORIGINAL_UID: &str = "virtualkubelet.liqo.io/original-uid";
    /// On a shadow pod, and so on its pod, with a volume that tells the pod its namespace: the namespace of the original.
    pub const ORIGINAL_NAMESPACE: &str = "virtualkubelet.liqo.io/original-namespace";
    /// On a shadow pod that is about to be deleted: seconds its pod has to end, where these are fewer than the pod's own.
    pub const GRACE_SECONDS: &str = "virtualkubelet.liqo.io/deletion-grace-period-seconds";
    /// On a shadow pod: JSON object with the status (`True`, `False`, `Unknown`) of each readiness gate of the original.
    pub const READINESS_GATES: &str = "virtualkubelet.liqo.io/readiness-gates";
    /// On a virtual node: `true` when the node is not drained but ends at once, its pods deleted without asking their
    /// disruption budgets, since the provider is banned. On the node, because a provider has no rights there. Not of Liqo 0.8.3.
    pub const END_AT_ONCE: &str = "liqo.io/end-at-once";
    /// `soft`, `hard` or `propagate`.
    pub const ANTI_AFFINITY_PRESET: &str = "liqo.io/anti-affinity-preset";
    /// Comma separated label keys used by the preset.
    pub const ANTI_AFFINITY_LABELS: &str = "liqo.io/anti-affinity-labels";
    /// On remote token secrets: UID of the local pod.
    pub const SERVICE_ACCOUNT_FOR_POD_UID: &str = "virtualkubelet.liqo.io/service-account-for-pod-uid";
    /// On remote token secrets: name of the local pod, where it is too long for the label of the same key. Not of Liqo 0.8.3.
    pub const SERVICE_ACCOUNT_FOR_POD_NAME: &str = "virtualkubelet.liqo.io/service-account-for-pod-name";
    /// On secrets with a token of this cluster: RFC 3339, from when on it is refused; never when absent. Not of Liqo
    /// 0.8.3, as the two that follow.
    pub const TOKEN_EXPIRES: &str = "liqo.io/token-expires";
    /// On one-time tokens: ID of the cluster that has used the token; no other cluster may use it.
    pub const TOKEN_USED_BY: &str = "liqo.io/token-used-by";
    /// `first-contact` on tokens that this cluster gave to a peer, so that the peer can peer back with this cluster.
    pub const TOKEN_MADE_FOR: &str = "liqo.io/token-made-for";
    /// On remote token secrets: RFC 3339, the earliest expiration.
    pub const SERVICE_ACCOUNT_EXPIRATION: &str = "virtualkubelet.liqo.io/service-account-expiration";
}

/// Finalizers.
pub mod finalizer {
    /// On everything that has, or may have, a replica in another cluster.
    pub const CRD_REPLICATOR: &str = "crdReplicator.liqo.io";
    /// On foreign clusters whose API server is being probed.
    pub const API_SERVER_CHECKER: &str = "APIServerChecker.liqo.io";
    /// On offers: the virtual node exists.
    pub const NODE: &str = "liqo.io/node";
    /// On offers: the virtual kubelet exists.
    pub const VIRTUAL_KUBELET: &str = "liqo.io/virtualkubelet";
    /// On namespace offloadings.
    pub const NAMESPACE_OFFLOADING: &str = "namespaceoffloading-controller.liqo.io/finalizer";
    /// On replicas of namespace maps.
    pub const NAMESPACE_MAP: &str = "namespacemap-controller.liqo.io/finalizer";
    /// On network configurations, ours and the peer's copies.
    pub const NETWORK: &str = "tunnelendpointcreator.net.liqo.io";
    /// On virtual nodes.
    pub const VIRTUAL_NODE: &str = "virtualnode-controller.liqo.io/finalizer";
    /// On the binding that gives a virtual kubelet its rights in an offloaded namespace: pods of the namespace are on the virtual node. Not
    /// of Liqo 0.8.3.
    pub const VIRTUAL_KUBELET_RIGHTS: &str = "liqo.io/virtual-kubelet-rights";
}

/// Key of the taint that keeps ordinary pods off virtual nodes; value `true`, effect `NoExecute`.
pub const TAINT_NOT_ALLOWED: &str = "virtual-node.liqo.io/not-allowed";

/// Field manager of everything written into another cluster by reflection.
pub const REFLECTION_MANAGER: &str = "reflection.liqo.io";

/// Reasons in the status of pods on virtual nodes.
pub mod reason {
    /// The namespace of the pod is not offloaded: the pod starts when the namespace is.
    pub const OFFLOADING_BACK_OFF: &str = "OffloadingBackOff";
    /// The namespace of the pod is no longer offloaded: the pod was given up.
    pub const OFFLOADING_ABORTED: &str = "OffloadingAborted";
}
