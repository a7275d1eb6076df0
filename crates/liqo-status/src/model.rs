//! What is told, as programs read it.

use serde::Serialize;
use utoipa::ToSchema;

/// How good something is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
pub(crate) enum Level {
    /// As it should be.
    #[default]
    Good,
    /// On its way, or waits for somebody.
    Waiting,
    /// Not as it should be.
    Bad,
}

impl Level {
    /// The class of the style sheet, which adds a glyph.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Waiting => "wait",
            Self::Bad => "bad",
        }
    }
}

/// An amount of resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Capacity {
    /// Thousandths of a CPU core.
    pub(crate) cpu_milli: u64,
    /// Bytes.
    pub(crate) memory_bytes: u64,
}

/// A peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Peer {
    /// Name of the ForeignCluster.
    pub(crate) name: String,
    /// ID of the peer; empty while it is not known.
    pub(crate) cluster_id: String,
    /// `OutOfBand` or `InBand`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// How good the state is.
    pub(crate) level: Level,
    /// The state in a word.
    pub(crate) state: String,
    /// Why, unless all is good.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    /// Whether we consume from the peer: the status of the condition `OutgoingPeering`.
    pub(crate) outgoing: String,
    /// Whether the peer consumes from us: the status of the condition `IncomingPeering`.
    pub(crate) incoming: String,
    /// What the peer's virtual node offers; absent when there is none, or when the caller may not list nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gives: Option<Capacity>,
    /// What pods of this cluster request of it; absent when the caller may not list all pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) used: Option<Capacity>,
    /// Round trip time through the tunnel, with its unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) round_trip: Option<String>,
    /// When the state last changed, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<String>,
}

/// An offloaded namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Namespace {
    /// Its name here.
    pub(crate) name: String,
    /// Its name in the peers; empty while it is not known.
    pub(crate) remote_name: String,
    /// `Local`, `Remote` or `LocalAndRemote`.
    pub(crate) pods: String,
    /// How good the phase is.
    pub(crate) level: Level,
    /// The offloading phase.
    pub(crate) phase: String,
    /// What failed in which peer, unless all is good.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
}

/// A pod of this cluster that runs in another one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pod {
    /// Its namespace here.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// The virtual node it runs on.
    pub(crate) node: String,
    /// How good the phase is.
    pub(crate) level: Level,
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub(crate) phase: String,
    /// Why, where the pod says so.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
}

impl Pod {
    /// What orders pods and names one.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// Something that needs somebody.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Need {
    /// How urgent it is.
    pub(crate) level: Level,
    /// What it is about: a peer, a namespace or a pod.
    pub(crate) subject: String,
    /// What is wrong, in sentences.
    pub(crate) text: String,
    /// A command that tells more.
    pub(crate) command: String,
}

/// What the caller may not see.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Hidden {
    /// The kind.
    pub(crate) what: String,
    /// What is shown of it instead of all: nothing, or some namespaces.
    pub(crate) shown: String,
    /// A command that asks for the right.
    pub(crate) command: String,
}

/// The first page.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Overview {
    /// Name of this cluster.
    pub(crate) cluster_name: String,
    /// ID of this cluster.
    pub(crate) cluster_id: String,
    /// Peers in the state `Established`; absent when the caller may not list peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peers_established: Option<usize>,
    /// All peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peers: Option<usize>,
    /// Offloaded namespaces the caller may see.
    pub(crate) namespaces: usize,
    /// Pods that run elsewhere, as far as the caller may see them.
    pub(crate) pods_elsewhere: usize,
    /// Pods of peers that run here, as far as the caller may see them.
    pub(crate) pods_of_guests: usize,
    /// What all virtual nodes offer together; absent when the caller may not list nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) acquired: Option<Capacity>,
    /// What pods request of it; absent when the caller may not list all pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) used: Option<Capacity>,
    /// What needs somebody, worst first; empty most of the time.
    pub(crate) needs: Vec<Need>,
    /// What the caller may not see, whether or not there is any.
    pub(crate) hidden: Vec<Hidden>,
}
