//! The names of `ForeignCluster`s that are made for peers that ask. All pure.
//!
//! Keeps true: a peer that calls itself as another cluster takes no `ForeignCluster` of the other cluster, and cannot keep the other
//! cluster from getting one.

use std::borrow::Borrow;

use kube::ResourceExt;
use liqo_api::{ClusterIdentity, discovery::ForeignCluster};
use liqo_core::{decision, naming};

/// Names for the `ForeignCluster` of a peer that asks, in order of preference; `request`: the UID of the request. The first name is
/// left out when another `ForeignCluster` has the name, or stands for a cluster with the name.
///
/// Other peers choose their names, too, and may take all that follow from what everybody knows of this peer: the last name follows from
/// the UID that this cluster gave the request.
pub(super) fn free(peer: &ClusterIdentity, request: &str, known: &[impl Borrow<ForeignCluster>]) -> Vec<String> {
    let unique = naming::unique_name(peer);
    let last = format!("{unique}-{}", naming::short_hash(request));
    let is_taken = known.iter().map(Borrow::borrow).any(|other| {
        let called = other.spec.cluster_identity.as_ref().map(|one| one.cluster_name.as_str());
        other.name_any() == peer.cluster_name || called == Some(&peer.cluster_name)
    });
    let own = (!is_taken).then(|| peer.cluster_name.clone());
    own.into_iter().chain([unique, last]).collect()
}

/// Whose `ForeignCluster` has a name that could not be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The object stands for the peer that asks.
    ThisPeer,
    /// The object stands for another cluster, or for one that is not known yet.
    Another,
    /// The object has gone meanwhile.
    Nobody,
}

/// The owner of a name, given what the API server has under the name.
pub(super) fn owner(peer: &str, found: Option<&ForeignCluster>) -> Owner {
    match found {
        None => Owner::Nobody,
        Some(found) if decision::id_of(found) == peer => Owner::ThisPeer,
        Some(_) => Owner::Another,
    }
}

#[cfg(test)]
mod tests {
    use liqo_api::discovery::ForeignClusterSpec;

    use super::*;

    const MILAN: &str = "16fbeaec-e4e4-41dc-9eea-170ce95d7dd9";

    /// A `ForeignCluster`; `identity`: the ID and the name of the cluster that it stands for.
    fn known(object: &str, identity: Option<(&str, &str)>) -> ForeignCluster {
        let cluster_identity = identity.map(|(id, name)| ClusterIdentity::new(id, name));
        ForeignCluster::new(object, ForeignClusterSpec { cluster_identity, ..ForeignClusterSpec::default() })
    }

    #[test]
    fn a_name_that_another_has_is_left_out() {
        let peer = ClusterIdentity::new(MILAN, "milan");
        for (what, known, is_free) in [
            ("nobody is known", vec![], true),
            ("another cluster", vec![known("turin", Some(("2", "turin")))], true),
            ("the name of an object", vec![known("milan", Some(("2", "turin")))], false),
            ("the name of an object without an identity", vec![known("milan", None)], false),
            ("the name of a cluster", vec![known("turin", None), known("other", Some(("2", "milan")))], false),
        ] {
            let names = free(&peer, "uid-1", &known);
            assert_eq!(names.first().is_some_and(|first| first == "milan"), is_free, "{what}: {names:?}");
            assert_eq!(names.len(), if is_free { 3 } else { 2 }, "{what}: {names:?}");
        }
    }

    #[test]
    fn the_last_name_for_a_peer_is_known_to_nobody_else() {
        let (peer, none): (_, [ForeignCluster; 0]) = (ClusterIdentity::new(MILAN, "milan"), []);
        let (first, second) = (free(&peer, "uid-1", &none), free(&peer, "uid-2", &none));
        let [own, unique, last] = &first[..] else { panic!("{first:?}") };
        assert_eq!((own.as_str(), unique.as_str()), ("milan", naming::unique_name(&peer).as_str()));
        assert!(last.starts_with(&format!("{unique}-")) && *last != second[2], "{last}");
    }

    #[test]
    fn a_taken_name_is_the_peers_own_anothers_or_free_again() {
        for (found, wanted) in [
            (None, Owner::Nobody),
            (Some(known("milan", Some((MILAN, "milan")))), Owner::ThisPeer),
            (Some(known("milan", Some((MILAN, "milano")))), Owner::ThisPeer),
            (Some(known("milan", Some(("2", "milan")))), Owner::Another),
            (Some(known("milan", None)), Owner::Another),
        ] {
            assert_eq!(owner(MILAN, found.as_ref()), wanted, "{found:?}");
        }
    }
}
