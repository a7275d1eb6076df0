//! The contract, by hand. A field is one line: path, type, then what else is said of it.

/// Name, JSON path, type, priority.
pub(crate) type Column<'a> = (&'a str, &'a str, &'a str, i32);

/// One kind.
pub(crate) struct Kind {
    pub(crate) group: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) short: &'static [&'static str],
    pub(crate) namespaced: bool,
    pub(crate) category: &'static [&'static str],
    pub(crate) status: bool,
    pub(crate) columns: &'static [Column<'static>],
    pub(crate) fields: &'static str,
    /// Below these, the fields are Kubernetes' own and only those listed are compared.
    pub(crate) foreign: &'static [&'static str],
}

const LIQO: &[&str] = &["liqo"];
const AGE: Column<'static> = ("Age", ".metadata.creationTimestamp", "date", 0);
const LOCAL: Column<'static> = ("Local", r".metadata.labels.liqo\.io/replication", "string", 0);

pub(crate) const TABLE: &[Kind] = &[
    Kind {
        group: "discovery.liqo.io",
        kind: "ForeignCluster",
        plural: "foreignclusters",
        short: &[],
        namespaced: false,
        category: LIQO,
        status: true,
        columns: &[
            ("Type", ".spec.peeringType", "string", 0),
            ("ClusterID", ".spec.clusterIdentity.clusterID", "string", 1),
            ("ClusterName", ".spec.clusterIdentity.clusterName", "string", 1),
            ("Outgoing peering", ".status.peeringConditions[?(@.type == 'OutgoingPeering')].status", "string", 0),
            ("Incoming peering", ".status.peeringConditions[?(@.type == 'IncomingPeering')].status", "string", 0),
            ("Networking", ".status.peeringConditions[?(@.type == 'NetworkStatus')].status", "string", 0),
            ("API Server", ".status.peeringConditions[?(@.type == 'APIServerStatus')].status", "string", 1),
            ("Authentication", ".status.peeringConditions[?(@.type == 'AuthenticationStatus')].status", "string", 0),
            AGE,
        ],
        fields: r"
            spec object required
            spec.peeringType string default=OutOfBand enum=OutOfBand|InBand
            spec.clusterIdentity object
            spec.clusterIdentity.clusterID string required
            spec.clusterIdentity.clusterName string required
            spec.outgoingPeeringEnabled string default=Auto enum=Auto|No|Yes
            spec.incomingPeeringEnabled string default=Auto enum=Auto|No|Yes
            spec.foreignAuthUrl string required pattern=^https:\/\/(www\.)?[-a-zA-Z0-9@:%._\+~#=]{1,256}\.[a-zA-Z0-9]{1,6}\b([-a-zA-Z0-9()@:%_\+.~#?&//=]*)
            spec.foreignProxyUrl string
            spec.insecureSkipTLSVerify boolean default=true
            spec.ttl integer minimum=0
            status object
            status.tenantNamespace object
            status.tenantNamespace.local string
            status.tenantNamespace.remote string
            status.peeringConditions array
            status.peeringConditions.* object
            status.peeringConditions.*.type string required enum=OutgoingPeering|IncomingPeering|NetworkStatus|APIServerStatus|AuthenticationStatus|ProcessForeignClusterStatus
            status.peeringConditions.*.status string required default=None enum=None|Pending|Established|Disconnecting|Denied|EmptyDenied|Error|Success|External
            status.peeringConditions.*.lastTransitionTime string format=date-time
            status.peeringConditions.*.reason string
            status.peeringConditions.*.message string",
        foreign: &[],
    },
    Kind {
        group: "discovery.liqo.io",
        kind: "ResourceRequest",
        plural: "resourcerequests",
        short: &[],
        namespaced: true,
        category: LIQO,
        status: true,
        columns: &[LOCAL, AGE],
        fields: r"
            spec object required
            spec.clusterIdentity object required
            spec.clusterIdentity.clusterID string required
            spec.clusterIdentity.clusterName string required
            spec.authUrl string required
            spec.withdrawalTimestamp string format=date-time
            status object
            status.offerState string required default=None enum=None|Created
            status.offerWithdrawalTimestamp string format=date-time",
        foreign: &[],
    },
    Kind {
        group: "sharing.liqo.io",
        kind: "ResourceOffer",
        plural: "resourceoffers",
        short: &["offer"],
        namespaced: true,
        category: LIQO,
        status: true,
        columns: &[
            ("Status", ".status.phase", "string", 0),
            ("VirtualKubeletStatus", ".status.virtualKubeletStatus", "string", 0),
            LOCAL,
            AGE,
        ],
        fields: r"
            spec object required
            spec.clusterId string required
            spec.images array
            spec.images.* object
            spec.images.*.names array
            spec.images.*.names.* string
            spec.images.*.sizeBytes integer format=int64
            spec.resourceQuota object
            spec.resourceQuota.hard map
            spec.resourceQuota.hard.* int-or-string pattern=^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$
            spec.labels map
            spec.labels.* string
            spec.prices map
            spec.prices.* int-or-string pattern=^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$
            spec.withdrawalTimestamp string format=date-time
            spec.storageClasses array
            spec.storageClasses.* object
            spec.storageClasses.*.storageClassName string required
            spec.storageClasses.*.default boolean
            status object
            status.phase string required default=Pending enum=Pending|ManualActionRequired|Accepted|Refused
            status.virtualKubeletStatus string default=None enum=None|Created|Deleting",
        foreign: &["spec.resourceQuota"],
    },
    Kind {
        group: "net.liqo.io",
        kind: "NetworkConfig",
        plural: "networkconfigs",
        short: &[],
        namespaced: true,
        category: LIQO,
        status: true,
        columns: &[
            ("Peering Cluster", ".spec.cluster.clusterName", "string", 0),
            ("Endpoint IP", ".spec.endpointIP", "string", 1),
            ("VPN Backend", ".spec.backendType", "string", 1),
            ("Processed", ".status.processed", "boolean", 0),
            LOCAL,
            AGE,
        ],
        fields: r"
            spec object required
            spec.cluster object required
            spec.cluster.clusterID string required
            spec.cluster.clusterName string required
            spec.podCIDR string required
            spec.externalCIDR string required
            spec.endpointIP string required
            spec.backendType string required
            spec.backend_config map required
            spec.backend_config.* string
            status object
            status.processed boolean required default=false
            status.podCIDRNAT string
            status.externalCIDRNAT string",
        foreign: &[],
    },
    Kind {
        group: "net.liqo.io",
        kind: "TunnelEndpoint",
        plural: "tunnelendpoints",
        short: &[],
        namespaced: true,
        category: LIQO,
        status: true,
        columns: &[
            ("Peering Cluster", ".spec.clusterIdentity.clusterName", "string", 0),
            ("Endpoint IP", ".spec.endpointIP", "string", 1),
            ("Backend type", ".spec.backendType", "string", 0),
            ("Latency", ".status.connection.latency.value", "string", 1),
            ("Connection status", ".status.connection.status", "string", 0),
            AGE,
        ],
        fields: r"
            spec object required
            spec.clusterIdentity object required
            spec.clusterIdentity.clusterID string required
            spec.clusterIdentity.clusterName string required
            spec.localPodCIDR string required
            spec.localExternalCIDR string required
            spec.remotePodCIDR string required
            spec.remoteExternalCIDR string required
            spec.localNATPodCIDR string default=None
            spec.localNATExternalCIDR string default=None
            spec.remoteNATPodCIDR string default=None
            spec.remoteNATExternalCIDR string default=None
            spec.endpointIP string required
            spec.backendType string required
            spec.backend_config map required
            spec.backend_config.* string
            status object
            status.tunnelIFaceIndex integer
            status.tunnelIFaceName string
            status.vethIFaceIndex integer
            status.vethIFaceName string
            status.vethIP string
            status.gatewayIP string
            status.connection object
            status.connection.status string
            status.connection.statusMessage string
            status.connection.peerConfiguration map
            status.connection.peerConfiguration.* string
            status.connection.latency object
            status.connection.latency.value string
            status.connection.latency.timestamp string format=date-time",
        foreign: &[],
    },
    Kind {
        group: "net.liqo.io",
        kind: "IpamStorage",
        plural: "ipamstorages",
        short: &[],
        namespaced: false,
        category: LIQO,
        status: false,
        columns: &[],
        fields: r"
            spec object required
            spec.prefixes map required
            spec.prefixes.* string format=byte
            spec.pools array required
            spec.pools.* string
            spec.reservedSubnets array required
            spec.reservedSubnets.* string
            spec.clusterSubnets map required
            spec.clusterSubnets.* object
            spec.clusterSubnets.*.localNATPodCIDR string required
            spec.clusterSubnets.*.remotePodCIDR string required
            spec.clusterSubnets.*.localNATExternalCIDR string required
            spec.clusterSubnets.*.remoteExternalCIDR string required
            spec.externalCIDR string required
            spec.endpointMappings map required
            spec.endpointMappings.* object
            spec.endpointMappings.*.ExternalCIDROriginalIP string required
            spec.endpointMappings.*.clusterMappings map required
            spec.endpointMappings.*.clusterMappings.* object
            spec.endpointMappings.*.clusterMappings.*.ExternalCIDRNattedIP string required
            spec.natMappingsConfigured map required
            spec.natMappingsConfigured.* object
            spec.podCIDR string required
            spec.serviceCIDR string required",
        foreign: &[],
    },
    Kind {
        group: "net.liqo.io",
        kind: "NatMapping",
        plural: "natmappings",
        short: &[],
        namespaced: false,
        category: LIQO,
        status: true,
        columns: &[],
        fields: r"
            spec object required
            spec.clusterID string required
            spec.podCIDR string required
            spec.externalCIDR string required
            spec.clusterMappings map required
            spec.clusterMappings.* string
            status object",
        foreign: &[],
    },
    Kind {
        group: "offloading.liqo.io",
        kind: "NamespaceOffloading",
        plural: "namespaceoffloadings",
        short: &["nsof"],
        namespaced: true,
        category: LIQO,
        status: true,
        columns: &[
            ("NamespaceMappingStrategy", ".spec.namespaceMappingStrategy", "string", 0),
            ("PodOffloadingStrategy", ".spec.podOffloadingStrategy", "string", 0),
            ("OffloadingPhase", ".status.offloadingPhase", "string", 0),
            ("RemoteNamespaceName", ".status.remoteNamespaceName", "string", 10),
            AGE,
        ],
        fields: r"
            spec object required
            spec.namespaceMappingStrategy string default=DefaultName enum=EnforceSameName|DefaultName
            spec.podOffloadingStrategy string default=LocalAndRemote enum=Local|Remote|LocalAndRemote
            spec.clusterSelector object x-kubernetes-map-type=atomic
            spec.clusterSelector.nodeSelectorTerms array required
            spec.clusterSelector.nodeSelectorTerms.* object
            spec.clusterSelector.nodeSelectorTerms.*.matchExpressions array
            spec.clusterSelector.nodeSelectorTerms.*.matchFields array
            status object
            status.remoteNamespaceName string
            status.offloadingPhase string
            status.remoteNamespacesConditions map
            status.remoteNamespacesConditions.* array
            status.remoteNamespacesConditions.*.* object
            status.remoteNamespacesConditions.*.*.type string required
            status.remoteNamespacesConditions.*.*.status string required
            status.remoteNamespacesConditions.*.*.lastTransitionTime string format=date-time
            status.remoteNamespacesConditions.*.*.reason string
            status.remoteNamespacesConditions.*.*.message string
            status.observedGeneration integer format=int64",
        foreign: &["spec.clusterSelector"],
    },
    Kind {
        group: "virtualkubelet.liqo.io",
        kind: "NamespaceMap",
        plural: "namespacemaps",
        short: &[],
        namespaced: true,
        category: LIQO,
        status: true,
        columns: &[LOCAL, AGE],
        fields: r"
            spec object default={}
            spec.desiredMapping map
            spec.desiredMapping.* string
            status object
            status.currentMapping map
            status.currentMapping.* object
            status.currentMapping.*.remoteNamespace string
            status.currentMapping.*.phase string enum=Accepted|CreationLoopBackOff|Terminating",
        foreign: &[],
    },
    Kind {
        group: "virtualkubelet.liqo.io",
        kind: "ShadowPod",
        plural: "shadowpods",
        short: &[],
        namespaced: true,
        category: &[],
        status: true,
        columns: &[("Status", ".status.phase", "string", 0), AGE],
        fields: r"
            spec object default={}
            spec.pod object
            spec.pod.containers array required
            spec.pod.containers.*.name string required
            spec.pod.containers.*.ports.*.containerPort integer required format=int32
            spec.pod.containers.*.ports.*.protocol string default=TCP
            spec.pod.initContainers.*.ports.*.protocol string default=TCP
            spec.pod.containers.*.livenessProbe.httpGet.port int-or-string required
            spec.pod.containers.*.resources.limits.* int-or-string pattern=^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$
            status object
            status.phase string required default=Unknown enum=Pending|Running|Succeeded|Failed|Unknown",
        foreign: &["spec.pod"],
    },
    Kind {
        group: "virtualkubelet.liqo.io",
        kind: "ShadowEndpointSlice",
        plural: "shadowendpointslices",
        short: &[],
        namespaced: true,
        category: &[],
        status: false,
        columns: &[],
        fields: r"
            spec object default={}
            spec.template object
            spec.template.endpoints array
            spec.template.endpoints.* object
            spec.template.endpoints.*.addresses array required x-kubernetes-list-type=set
            spec.template.endpoints.*.addresses.* string
            spec.template.ports array
            spec.template.ports.* object
            spec.template.ports.*.protocol string default=TCP
            spec.template.addressType string",
        foreign: &["spec.template.endpoints.*", "spec.template.ports.*"],
    },
];
