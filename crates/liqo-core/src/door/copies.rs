//! What clusters agree on: requests, offers, maps of namespaces, networks, in tenant namespaces.
//!
//! Both clusters' objects lie side by side there. An original (`liqo.io/replication=true`) belongs to the cluster it is
//! in; a copy (`liqo.io/replicated=true`) belongs to the cluster named by `liqo.io/originID`. The owner of a copy writes
//! its spec; its status is written by the cluster the copy is in.

use super::{Place, Rule, Validation};

const ALL: &[&str] = &["CREATE", "UPDATE", "DELETE"];
const WRITE: &[&str] = &["CREATE", "UPDATE"];

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "copies",
        place: Place::Tenant,
        resources: &[
            ("discovery.liqo.io", &["resourcerequests"]),
            ("sharing.liqo.io", &["resourceoffers"]),
            ("virtualkubelet.liqo.io", &["namespacemaps"]),
            ("net.liqo.io", &["networkconfigs"]),
        ],
        operations: ALL,
        settings: false,
        variables: &[
            ("remote", "'liqo.io/remoteID' in variables.labels ? variables.labels['liqo.io/remoteID'] : ''"),
            ("oldRemote", "'liqo.io/remoteID' in variables.oldLabels ? variables.oldLabels['liqo.io/remoteID'] : ''"),
            (
                "oldAnnotations",
                "oldObject != null && has(oldObject.metadata.annotations) ? oldObject.metadata.annotations : {}",
            ),
        ],
        validations: &[
            Validation {
                expression: "object == null || ['liqo.io/originID', 'liqo.io/remoteID', 'liqo.io/replicated'].all(k, \
                             k in variables.labels) && variables.labels['liqo.io/originID'] == request.userInfo.username \
                             && variables.labels['liqo.io/replicated'] == 'true' && (!('liqo.io/replication' in \
                             variables.labels) || variables.labels['liqo.io/replication'] != 'true')",
                message: "a peer writes only copies of its own objects. The labels liqo.io/originID (its cluster ID), \
                          liqo.io/remoteID, liqo.io/replicated=true and liqo.io/replication=false say that an object is one",
            },
            Validation {
                expression: "oldObject == null || ['liqo.io/originID', 'liqo.io/replicated'].all(k, k in \
                             variables.oldLabels) && variables.oldLabels['liqo.io/originID'] == \
                             request.userInfo.username && variables.oldLabels['liqo.io/replicated'] == 'true' && \
                             (!('liqo.io/replication' in variables.oldLabels) || \
                             variables.oldLabels['liqo.io/replication'] != 'true')",
                message: "this object is no copy of one of its own: it belongs to this cluster or to another peer, and only \
                          its owner changes or deletes it",
            },
            Validation {
                expression: "object == null || variables.remote != request.userInfo.username && (variables.oldRemote == \
                             '' || variables.oldRemote == variables.remote)",
                message: "the label liqo.io/remoteID of a copy is the ID of the cluster the copy is in, and does not change",
            },
            Validation {
                expression: "variables.labels.all(k, !(k.startsWith('liqo.io/') || k.startsWith('discovery.liqo.io/') || \
                             k.startsWith('net.liqo.io/') || k.startsWith('auth.liqo.io/')) || k in ['liqo.io/originID', \
                             'liqo.io/remoteID', 'liqo.io/replicated', 'liqo.io/replication', \
                             'liqo.io/remote-cluster-id', 'discovery.liqo.io/cluster-id']) && \
                             ['liqo.io/remote-cluster-id', 'discovery.liqo.io/cluster-id'].all(k, !(k in variables.labels) \
                             || variables.labels[k] == variables.remote)",
                message: "a copy has no labels of Liqo but those of copies: leave the others out",
            },
            // Virtual kubelets of earlier versions read the annotation here; now it is on the node, where no peer has rights.
            Validation {
                expression: "object == null || ('liqo.io/end-at-once' in variables.annotations ? \
                             variables.annotations['liqo.io/end-at-once'] : '') == ('liqo.io/end-at-once' in \
                             variables.oldAnnotations ? variables.oldAnnotations['liqo.io/end-at-once'] : '')",
                message: "the annotation liqo.io/end-at-once is a decision of the cluster the object is in: leave it as it is",
            },
            Validation {
                expression: "size(variables.labels) <= 32 && size(variables.annotations) <= 16 && \
                             variables.annotations.all(k, size(variables.annotations[k]) <= 2048)",
                message: "a copy has at most 32 labels and 16 annotations, each annotation of at most 2048 characters",
            },
            FINALIZERS,
            OWNERS,
        ],
    },
    Rule {
        name: "status",
        place: Place::Tenant,
        resources: &[
            ("discovery.liqo.io", &["resourcerequests/status"]),
            ("sharing.liqo.io", &["resourceoffers/status"]),
            ("virtualkubelet.liqo.io", &["namespacemaps/status"]),
            ("net.liqo.io", &["networkconfigs/status"]),
        ],
        operations: WRITE,
        settings: false,
        variables: &[],
        validations: &[Validation {
            expression: "false",
            message: "the status of an object is written by the cluster the object is in, and carried to its peer from there",
        }],
    },
    Rule {
        name: "requests",
        place: Place::Tenant,
        resources: &[("discovery.liqo.io", &["resourcerequests"])],
        operations: WRITE,
        settings: false,
        variables: &[],
        validations: &[
            Validation {
                expression: "has(object.spec.clusterIdentity) && has(object.spec.clusterIdentity.clusterID) && \
                             object.spec.clusterIdentity.clusterID == request.userInfo.username",
                message: "a ResourceRequest is made in the name of the cluster that sends it: \
                          spec.clusterIdentity.clusterID must be its own ID",
            },
            Validation {
                expression: "(!has(object.spec.authUrl) || size(object.spec.authUrl) <= 2048) && \
                             (!has(object.spec.clusterIdentity.clusterName) || \
                             size(object.spec.clusterIdentity.clusterName) <= 253)",
                message: "spec.authUrl of a ResourceRequest has at most 2048 characters, the name of the cluster at most 253",
            },
        ],
    },
    Rule {
        name: "offers",
        place: Place::Tenant,
        resources: &[("sharing.liqo.io", &["resourceoffers"])],
        operations: WRITE,
        settings: false,
        variables: &[],
        validations: &[
            Validation {
                expression: "has(object.spec.clusterId) && object.spec.clusterId == request.userInfo.username",
                message: "a ResourceOffer is made in the name of the cluster that sends it: spec.clusterId must be its own ID",
            },
            Validation {
                expression: "(!has(object.spec.labels) || size(object.spec.labels) <= 128 && object.spec.labels.all(k, size(k) \
                             <= 317 && size(object.spec.labels[k]) <= 63)) && (!has(object.spec.storageClasses) || \
                             size(object.spec.storageClasses) <= 256 && object.spec.storageClasses.all(c, \
                             size(c.storageClassName) <= 253))",
                message: "a ResourceOffer has at most 128 labels and 256 storage classes, with names and values as \
                          Kubernetes has them",
            },
        ],
    },
    Rule {
        name: "namespace-maps",
        place: Place::Tenant,
        resources: &[("virtualkubelet.liqo.io", &["namespacemaps"])],
        operations: WRITE,
        settings: true,
        variables: &[
            ("wanted", "has(object.spec) && has(object.spec.desiredMapping) ? object.spec.desiredMapping : {}"),
            (
                "had",
                "oldObject != null && has(oldObject.spec) && has(oldObject.spec.desiredMapping) ? \
                 oldObject.spec.desiredMapping : {}",
            ),
        ],
        validations: &[
            // What is too much already may become less.
            Validation {
                expression: "size(variables.wanted) <= int(variables.settings.namespacesPerPeer) || size(variables.wanted) <= \
                             size(variables.had)",
                message: "the NamespaceMap asks for more namespaces than a peer may have here: offload fewer, or ask the \
                          administrators of this cluster to raise offloading.namespacesPerPeer",
            },
            Validation {
                expression: "variables.wanted.all(k, k in variables.had && variables.had[k] == variables.wanted[k] || \
                             [k, variables.wanted[k]].all(n, size(n) <= 253 && \
                             n.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')))",
                message: "the names of namespaces in a NamespaceMap consist of lower case letters, digits and dashes",
            },
        ],
    },
    Rule {
        name: "networks",
        place: Place::Tenant,
        resources: &[("net.liqo.io", &["networkconfigs"])],
        operations: WRITE,
        settings: false,
        variables: &[],
        validations: &[
            Validation {
                expression: "'liqo.io/remoteID' in variables.labels && object.spec.cluster.clusterID == \
                             variables.labels['liqo.io/remoteID']",
                message: "spec.cluster of a NetworkConfig is the cluster it was written for, the one named by its label \
                          liqo.io/remoteID",
            },
            Validation {
                expression: "size(object.spec.podCIDR) <= 64 && size(object.spec.externalCIDR) <= 64 && \
                             size(object.spec.endpointIP) <= 253 && (!has(object.spec.backend_config) || \
                             size(object.spec.backend_config) <= 16 && object.spec.backend_config.all(k, \
                             size(object.spec.backend_config[k]) <= 1024))",
                message: "a field of the NetworkConfig is longer than an address, a range or a key can be",
            },
        ],
    },
];

/// The API server itself protects new claims with a finalizer, before it asks.
pub(super) const FINALIZERS: Validation = Validation {
    expression: "object == null || variables.finalizers == variables.oldFinalizers || oldObject == null && \
                 request.resource.resource == 'persistentvolumeclaims' && variables.finalizers == \
                 ['kubernetes.io/pvc-protection']",
    message: "a peer neither adds nor removes finalizers: leave metadata.finalizers as it is",
};

pub(super) const OWNERS: Validation = Validation {
    expression: "object == null || variables.owners == variables.oldOwners",
    message: "a peer neither adds nor removes owner references: leave metadata.ownerReferences as it is",
};
