//! Rules for the objects that a peer's virtual kubelet writes into the namespaces made for the peer.

use super::{
    Place, Rule, Validation,
    copies::{FINALIZERS, OWNERS},
};

const ALL: &[&str] = &["CREATE", "UPDATE", "DELETE"];
const WRITE: &[&str] = &["CREATE", "UPDATE"];

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "reflected",
        place: Place::Offloaded,
        resources: &[
            ("", &["configmaps", "persistentvolumeclaims", "secrets", "services"]),
            ("networking.k8s.io", &["ingresses"]),
            ("virtualkubelet.liqo.io", &["shadowendpointslices", "shadowpods"]),
        ],
        operations: ALL,
        settings: true,
        variables: &[],
        validations: &[
            Validation {
                expression: "object == null || 'virtualkubelet.liqo.io/origin' in variables.labels && \
                             variables.labels['virtualkubelet.liqo.io/origin'] == request.userInfo.username",
                message: "what a peer writes here must have the label virtualkubelet.liqo.io/origin with its own cluster ID",
            },
            Validation {
                expression: "oldObject == null || 'virtualkubelet.liqo.io/origin' in variables.oldLabels && \
                             variables.oldLabels['virtualkubelet.liqo.io/origin'] == request.userInfo.username",
                message: "this object was not reflected by that cluster: only its owner changes or deletes it",
            },
            FINALIZERS,
            OWNERS,
            // What a chain of clusters passes on: pods and slices made for a peer say so.
            Validation {
                expression: "variables.labels.all(k, !(k.startsWith('liqo.io/') || k.startsWith('discovery.liqo.io/') || \
                             k.startsWith('net.liqo.io/') || k.startsWith('auth.liqo.io/')) || k == 'liqo.io/managed-by')",
                message: "labels of liqo.io, discovery.liqo.io, net.liqo.io and auth.liqo.io steer the components of this \
                          cluster: an object with one is not reflected. Remove the label from the original",
            },
            Validation {
                expression: "variables.settings.deniedMetadata.split(' ').all(p, p == '' || !variables.annotations.exists(k, \
                             k.startsWith(p)) && !variables.labels.exists(k, k.startsWith(p)))",
                message: "a label or annotation steers a controller of this cluster beyond the namespace (the list is \
                          peerPolicy.deniedMetadata): remove it from the original",
            },
        ],
    },
    // Of a ShadowPod the webhook judges the rest, see `offload::guest`.
    Rule {
        name: "shadows",
        place: Place::Offloaded,
        resources: &[("virtualkubelet.liqo.io", &["shadowendpointslices", "shadowpods"])],
        operations: WRITE,
        settings: false,
        variables: &[],
        validations: &[Validation {
            expression: "size(variables.labels) <= 128 && variables.annotations.map(k, size(k) + \
                         size(variables.annotations[k])).sum() <= 16384",
            message: "an object has at most 128 labels, and annotations of at most 16384 characters in all: shorten the \
                      annotations of the original",
        }],
    },
    Rule {
        name: "contents",
        place: Place::Offloaded,
        resources: &[("", &["configmaps", "secrets"])],
        operations: WRITE,
        settings: true,
        variables: &[
            ("most", "int(variables.settings.largestObject)"),
            ("data", "has(object.data) ? object.data : {}"),
            ("binary", "has(object.binaryData) ? object.binaryData : {}"),
            (
                "old",
                "oldObject == null ? [] : [has(oldObject.data) ? oldObject.data : {}, has(oldObject.binaryData) ? \
                 oldObject.binaryData : {}]",
            ),
            ("size", "[variables.data, variables.binary].map(m, m.map(k, size(k) + size(m[k])).sum()).sum()"),
        ],
        validations: &[
            // What is too much already may become less.
            Validation {
                expression: "variables.size <= variables.most || oldObject != null && variables.size <= variables.old.map(m, \
                             m.map(k, size(k) + size(m[k])).sum()).sum()",
                message: "the ConfigMap or Secret is larger than objects of peers may be here: annotate the original with \
                          liqo.io/skip-reflection, or ask the administrators of this cluster to raise \
                          peerPolicy.largestObject (characters; those of Secrets are base64)",
            },
        ],
    },
    Rule {
        name: "services",
        place: Place::Offloaded,
        resources: &[("", &["services"])],
        operations: WRITE,
        settings: true,
        variables: &[
            ("type", "has(object.spec.type) && object.spec.type != '' ? object.spec.type : 'ClusterIP'"),
            ("types", "variables.settings.allowedServiceTypes.split(' ')"),
        ],
        validations: &[
            // Where a mutating webhook runs, Services of other types are ClusterIP by now; a Service stored earlier keeps its
            // type.
            Validation {
                expression: "variables.type in variables.types || '*' in variables.types || oldObject != null && \
                             has(oldObject.spec.type) && oldObject.spec.type == variables.type",
                message: "Services of this type are not reflected into this cluster: annotate the original with \
                          liqo.io/skip-reflection, or ask the administrators of this cluster to add the type to \
                          peerPolicy.allowedServiceTypes",
            },
            Validation {
                expression: "!has(object.spec.externalIPs) || object.spec.externalIPs.all(ip, ip in \
                             variables.settings.allowedExternalIPs.split(' '))",
                message: "spec.externalIPs would take the traffic for these addresses from everybody: leave them out, or ask \
                          the administrators of this cluster to add them to peerPolicy.allowedExternalIPs",
            },
            Validation {
                expression: "!has(object.spec.loadBalancerIP) || object.spec.loadBalancerIP == ''",
                message: "spec.loadBalancerIP is for this cluster to choose: leave it out",
            },
            // external-dns publishes a name for the pods of a headless Service, or for the address of a load balancer.
            Validation {
                expression: "variables.annotations.all(k, !k.startsWith('external-dns.alpha.kubernetes.io/')) || \
                             variables.type == 'ClusterIP' && !(has(object.spec.clusterIP) && object.spec.clusterIP == 'None')",
                message: "an annotation of external-dns would give a DNS name of the choice of a peer to addresses of this \
                          cluster: remove the annotation from the original, or annotate it with liqo.io/skip-reflection",
            },
        ],
    },
    Rule {
        name: "ingresses",
        place: Place::Offloaded,
        resources: &[("networking.k8s.io", &["ingresses"])],
        operations: WRITE,
        settings: true,
        variables: &[
            // `{peer}` in a suffix stands for the ID of the peer, so that each peer has a domain of its own.
            (
                "suffixes",
                "variables.settings.ingressHostSuffixes.split(' ').map(s, size(s.split('{peer}')) == 2 ? \
                 s.split('{peer}')[0] + request.userInfo.username + s.split('{peer}')[1] : s)",
            ),
            ("rules", "has(object.spec.rules) ? object.spec.rules : []"),
            ("tls", "has(object.spec.tls) ? object.spec.tls : []"),
            ("class", "has(object.spec.ingressClassName) ? object.spec.ingressClassName : ''"),
            ("classes", "variables.settings.ingressClasses.split(' ')"),
        ],
        validations: &[
            Validation {
                expression: "'*' in variables.suffixes || !has(object.spec.defaultBackend) && variables.rules.all(r, \
                             has(r.host) && variables.suffixes.exists(s, s != '' && (r.host == s || r.host.endsWith('.' + \
                             s)))) && variables.tls.all(t, !has(t.hosts) || t.hosts.all(h, variables.suffixes.exists(s, s \
                             != '' && (h == s || h.endsWith('.' + s)))))",
                message: "every host of an Ingress must end in a suffix given to peers, and there is no default backend: \
                          annotate the original with liqo.io/skip-reflection, or ask the administrators of this cluster to \
                          add the suffix to peerPolicy.ingressHostSuffixes",
            },
            // An Ingress without a class has the default class of this cluster by now.
            Validation {
                expression: "variables.class == '' || variables.class in variables.classes || '*' in variables.classes",
                message: "Ingresses of this class are not for peers: ask the administrators of this cluster to add the class \
                          to peerPolicy.ingressClasses",
            },
            Validation {
                expression: "variables.annotations.all(k, k == 'virtualkubelet.liqo.io/original-uid' || \
                             variables.settings.ingressAnnotations.split(' ').exists(p, p != '' && \
                             (p == '*' || k.startsWith(p))))",
                message: "an annotation of the Ingress steers the ingress controller of this cluster: remove it, or ask the \
                          administrators of this cluster to add it to peerPolicy.ingressAnnotations",
            },
        ],
    },
    Rule {
        name: "endpoint-slices",
        place: Place::Offloaded,
        resources: &[("virtualkubelet.liqo.io", &["shadowendpointslices"])],
        operations: WRITE,
        settings: false,
        variables: &[
            (
                "endpoints",
                "has(object.spec.template) && has(object.spec.template.endpoints) ? object.spec.template.endpoints : []",
            ),
            // The characters of each endpoint.
            (
                "texts",
                "variables.endpoints.map(e, e.addresses.map(a, size(a)).sum() + (has(e.hostname) ? size(e.hostname) : 0) + \
                 (has(e.nodeName) ? size(e.nodeName) : 0) + (has(e.zone) ? size(e.zone) : 0) + \
                 (has(e.deprecatedTopology) ? e.deprecatedTopology.map(k, size(k) + size(e.deprecatedTopology[k])).sum() : 0) \
                 + (has(e.hints) && has(e.hints.forZones) ? e.hints.forZones.map(z, size(z.name)).sum() : 0) + \
                 (has(e.hints) && has(e.hints.forNodes) ? e.hints.forNodes.map(n, size(n.name)).sum() : 0) + \
                 (has(e.targetRef) ? (has(e.targetRef.name) ? size(e.targetRef.name) : 0) + (has(e.targetRef.namespace) ? \
                 size(e.targetRef.namespace) : 0) + (has(e.targetRef.uid) ? size(e.targetRef.uid) : 0) + \
                 (has(e.targetRef.kind) ? size(e.targetRef.kind) : 0) + (has(e.targetRef.apiVersion) ? \
                 size(e.targetRef.apiVersion) : 0) + (has(e.targetRef.resourceVersion) ? size(e.targetRef.resourceVersion) : \
                 0) + (has(e.targetRef.fieldPath) ? size(e.targetRef.fieldPath) : 0) : 0))",
            ),
        ],
        validations: &[
            Validation {
                expression: "'endpointslice.kubernetes.io/managed-by' in variables.labels && \
                             variables.labels['endpointslice.kubernetes.io/managed-by'] == \
                             'endpointslice.reflection.liqo.io'",
                message: "a ShadowEndpointSlice has the label \
                          endpointslice.kubernetes.io/managed-by=endpointslice.reflection.liqo.io",
            },
            Validation {
                expression: "size(variables.endpoints) <= 1000 && variables.endpoints.map(e, size(e.addresses)).sum() <= 1000 \
                             && (!has(object.spec.template.ports) || size(object.spec.template.ports) <= 100)",
                message: "a ShadowEndpointSlice has at most 1000 endpoints, 1000 addresses in all and 100 ports",
            },
            Validation {
                expression: "variables.texts.sum() <= 262144",
                message: "the addresses and names in a ShadowEndpointSlice have at most 262144 characters in all",
            },
            Validation {
                expression: "object.spec.template.addressType == 'FQDN' || variables.endpoints.all(e, e.addresses.all(a, \
                             !a.matches('^(0[.]|127[.]|169[.]254[.]|22[4-9][.]|2[345][0-9][.]|::|[fF][eE][89aAbB]|[fF][fF])')))",
                message: "an endpoint has a loopback, link-local, multicast, reserved or unspecified address: nothing a peer \
                          runs is reached there",
            },
        ],
    },
    Rule {
        name: "volume-claims",
        place: Place::Offloaded,
        resources: &[("", &["persistentvolumeclaims"])],
        operations: WRITE,
        settings: true,
        variables: &[
            ("volume", "has(object.spec.volumeName) ? object.spec.volumeName : ''"),
            ("oldVolume", "oldObject != null && has(oldObject.spec.volumeName) ? oldObject.spec.volumeName : ''"),
            ("classes", "variables.settings.storageClasses.split(' ')"),
            (
                "oldAnnotations",
                "oldObject != null && has(oldObject.metadata.annotations) ? oldObject.metadata.annotations : {}",
            ),
            (
                "steering",
                "['pv.kubernetes.io/', 'volume.kubernetes.io/', 'volume.alpha.kubernetes.io/', 'volume.beta.kubernetes.io/']",
            ),
        ],
        validations: &[
            // Kubernetes prefers the class in volume.beta.kubernetes.io/storage-class to the class in the specification, and
            // takes a claim with pv.kubernetes.io/bind-completed for one that has its volume. The virtual kubelet of Liqo
            // 0.8.3 leaves these annotations out; controllers of this cluster add theirs after the creation.
            Validation {
                expression: "variables.annotations.all(k, !variables.steering.exists(p, k.startsWith(p)) || k in \
                             variables.oldAnnotations && variables.oldAnnotations[k] == variables.annotations[k]) && \
                             variables.oldAnnotations.all(k, !variables.steering.exists(p, k.startsWith(p)) || k in \
                             variables.annotations)",
                message: "annotations of pv.kubernetes.io, volume.kubernetes.io and volume.beta.kubernetes.io say which class \
                          and volume a claim has: a peer neither adds, changes nor removes them. Name the class in \
                          spec.storageClassName",
            },
            Validation {
                expression: "variables.volume == variables.oldVolume && !has(object.spec.selector) && \
                             !has(object.spec.dataSource) && !has(object.spec.dataSourceRef) && \
                             !has(object.spec.volumeAttributesClassName)",
                message: "a claim of a peer names no volume, no source of data and no class of attributes: leave \
                          spec.volumeName, spec.selector, spec.dataSource, spec.dataSourceRef and \
                          spec.volumeAttributesClassName out",
            },
            // The empty class, unlike no class, selects volumes that an administrator created by hand.
            Validation {
                expression: "!has(object.spec.storageClassName) || object.spec.storageClassName != '' && \
                             (object.spec.storageClassName in variables.classes || '*' in variables.classes)",
                message: "a claim of a peer has a storage class that was offered to it: ask the administrators of this \
                          cluster to add the class to peerPolicy.storageClasses",
            },
        ],
    },
    Rule {
        name: "secrets",
        place: Place::Offloaded,
        resources: &[("", &["secrets"])],
        operations: WRITE,
        settings: false,
        variables: &[],
        validations: &[Validation {
            expression: "!has(object.type) || !(object.type in ['kubernetes.io/service-account-token', \
                         'bootstrap.kubernetes.io/token'])",
            message: "a Secret of this type makes this cluster hand out credentials of its own: peers write none",
        }],
    },
];
