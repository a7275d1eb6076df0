//! Object names other programs look for.

/// Default installation namespace.
pub const LIQO_NAMESPACE: &str = "liqo";
/// Default namespace of real volumes.
pub const STORAGE_NAMESPACE: &str = "liqo-storage";
/// `ConfigMap` with `CLUSTER_ID` and `CLUSTER_NAME`.
pub const CLUSTER_ID_CONFIG_MAP: &str = "liqo-clusterid-configmap";
/// `Secret` with the cluster-wide join token.
pub const AUTH_TOKEN_SECRET: &str = "auth-token";
/// Key of [`AUTH_TOKEN_SECRET`] and of remote token secrets.
pub const TOKEN_KEY: &str = "token";
/// Prefix of secrets with a token that one cluster may use: `auth-token-once-<digits>`. Not of Liqo 0.8.3.
pub const ONE_TIME_TOKEN_PREFIX: &str = "auth-token-once-";
/// `Secret` with key and certificate of the authentication service; while it exists, tokens carry the pin of its key.
/// Not of Liqo 0.8.3.
pub const AUTH_CERTIFICATE_SECRET: &str = "liqo-auth-certificate";
/// Key of a certificate in a secret of type `kubernetes.io/tls`.
pub const TLS_CERTIFICATE: &str = "tls.crt";
/// Key of its private key.
pub const TLS_KEY: &str = "tls.key";
/// Prefix of secrets with the token of a peer: `remote-token-<cluster ID>`.
pub const REMOTE_TOKEN_PREFIX: &str = "remote-token-";
/// Prefix of secrets with our identity on a peer.
pub const IDENTITY_SECRET_PREFIX: &str = "liqo-identity-";
/// `Secret` with what was signed for a peer.
pub const REMOTE_CERTIFICATE_SECRET: &str = "liqo-remote-certificate";
/// `Secret` with the webhook certificates.
pub const WEBHOOK_CERTS_SECRET: &str = "liqo-webhook-certs";
/// Both webhook configurations.
pub const WEBHOOK_CONFIGURATION: &str = "liqo-webhook";
/// Service of the authentication endpoint.
pub const AUTH_SERVICE: &str = "liqo-auth";
/// `ServiceAccount` of the authentication service.
pub const AUTH_ACCOUNT: &str = "liqo-auth";
/// Audience of the tokens the authentication service shows the controller manager.
pub const IDENTITY_AUDIENCE: &str = "liqo-identity";
/// Where the authentication service finds that token.
pub const IDENTITY_TOKEN: &str = "/var/run/secrets/liqo-identity/token";
/// Service of the webhooks, and of what the authentication service asks.
pub const CONTROLLER_MANAGER_SERVICE: &str = "liqo-controller-manager";
/// `Deployment` and `ServiceAccount` of the replicator.
pub const CRD_REPLICATOR: &str = "liqo-crd-replicator";
/// Cluster role of the replicator in each tenant namespace, and its binding there.
pub const CRD_REPLICATOR_TENANT_ROLE: &str = "liqo-crd-replicator-tenant";
/// `Deployment` and `ServiceAccount` of the virtual kubelet, in the tenant namespace.
pub const VIRTUAL_KUBELET: &str = "virtual-kubelet";
/// The lease the active gateway holds.
pub const GATEWAY_LEASE: &str = "1d5hml1.gateway.net.liqo.io";
/// The lease that the network manager holds which decides.
pub const NETWORK_MANAGER_LEASE: &str = "network-manager.net.liqo.io";
/// Audience of the tokens virtual kubelets show the IPAM, and name of the volume they are in.
pub const IPAM_AUDIENCE: &str = "liqo-ipam";
/// Directory in which a virtual kubelet finds its token for the IPAM.
pub const IPAM_TOKEN_DIRECTORY: &str = "/var/run/secrets/liqo-ipam";
/// Its file there.
pub const IPAM_TOKEN_FILE: &str = "token";
/// Cluster role of virtual kubelets in their own cluster, besides that of their node.
pub const VIRTUAL_KUBELET_CLUSTER_ROLE: &str = "liqo-virtual-kubelet-cluster";
/// Cluster role of virtual kubelets in the tenant namespace of their provider.
pub const VIRTUAL_KUBELET_TENANT_ROLE: &str = "liqo-virtual-kubelet-tenant";
/// Cluster role of a virtual kubelet in each namespace offloaded to its provider.
pub const VIRTUAL_KUBELET_NAMESPACE_ROLE: &str = "liqo-virtual-kubelet-namespace";
/// Cluster role of virtual kubelets in the remote namespaces.
pub const VIRTUAL_KUBELET_REMOTE_ROLE: &str = "liqo-virtual-kubelet-remote";
/// Cluster role every authenticated peer has in its tenant namespace.
pub const PEERING_BASIC_ROLE: &str = "liqo-remote-peering-basic";
/// Cluster role of peers that consume from us.
pub const PEERING_INCOMING_ROLE: &str = "liqo-remote-peering-incoming";
/// Cluster role of peers we consume from.
pub const PEERING_OUTGOING_ROLE: &str = "liqo-remote-peering-outgoing";
/// Cluster role of a peer after its withdrawal deadline: the peer may see and delete its remaining objects. Not in Liqo 0.8.3.
pub const PEERING_LEAVING_ROLE: &str = "liqo-remote-peering-leaving";
/// The only accepted name of a `NamespaceOffloading`.
pub const NAMESPACE_OFFLOADING: &str = "offloading";
/// The virtual storage class.
pub const VIRTUAL_STORAGE_CLASS: &str = "liqo";
/// Prefix of virtual nodes: `liqo-<cluster name>`.
pub const VIRTUAL_NODE_PREFIX: &str = "liqo-";
/// Prefix of tenant namespaces: `liqo-tenant-<unique name>`.
pub const TENANT_NAMESPACE_PREFIX: &str = "liqo-tenant-";
/// Prefix of role bindings of a peer in its tenant namespace: `liqo-binding-<cluster role>`.
pub const PEERING_BINDING_PREFIX: &str = "liqo-binding-";
/// Prefix of the cluster role (and binding) that lets a peer read its own metrics.
pub const TENANT_REMOTE_PREFIX: &str = "liqo-tenant-remote-";
/// Prefix of the cluster role of a virtual kubelet for its own node, and of its cluster role bindings.
pub const VIRTUAL_NODE_ROLE_PREFIX: &str = "liqo-virtual-node-";
/// Prefix of the role bindings of a virtual kubelet; before, of its cluster role binding, too.
pub const VIRTUAL_KUBELET_BINDING_PREFIX: &str = "liqo-virtual-kubelet-";
