//! Does a `ForeignCluster` make sense beside the others?

use std::{borrow::Borrow, net::IpAddr};

use http::Uri;
use kube::ResourceExt;
use liqo_api::{ClusterIdentity, discovery::ForeignCluster};
use liqo_core::{
    decision::{age, id_of, is_banned, precedence},
    naming::dns_label_error,
};

use super::super::condition::{Fact, not_processable};

const INVALID_PROXY: &str = "InvalidProxyURL";

/// Why it makes no sense, if it does not. Of two with one name the older one counts; of two with one ID the banned one, then
/// the older one.
pub(crate) fn unprocessable(
    one: &ForeignCluster,
    all: &[impl Borrow<ForeignCluster>],
    here: &ClusterIdentity,
) -> Option<Fact> {
    let identity = one.spec.cluster_identity.clone().unwrap_or_default();
    if identity.cluster_id == here.cluster_id {
        let message = "This cluster has the same clusterID of the local cluster";
        return Some(not_processable("LocalCluster", message.to_owned()));
    }
    for (what, value) in [("ID", &identity.cluster_id), ("name", &identity.cluster_name)] {
        if let Some(why) = dns_label_error(value) {
            return Some(not_processable("InvalidClusterIdentity", format!("The cluster {what} {value:?} {why}")));
        }
    }
    let others = || all.iter().map(Borrow::borrow).filter(|other| other.uid() != one.uid());
    let mut same_id = others().filter(|other| id_of(other) == identity.cluster_id);
    if let Some(other) = same_id.find(|other| precedence(other) < precedence(one)) {
        let name = other.name_any();
        let message = format!("The same clusterID is already present in another ForeignCluster ({name})");
        return Some(not_processable("ClusterIDRepetition", message));
    }
    let name_of = |other: &ForeignCluster| other.spec.cluster_identity.clone().unwrap_or_default().cluster_name;
    // A banned cluster has no virtual node that could take over another one.
    let mut same_name = others().filter(|other| !is_banned(one) && name_of(other) == identity.cluster_name);
    if let Some(other) = same_name.find(|other| age(other) < age(one)) {
        let message = format!(
            "The same clusterName is already present in another ForeignCluster ({}): its virtual node would be taken \
             over. Make a new ForeignCluster with another clusterName for this peer",
            other.name_any()
        );
        return Some(not_processable("ClusterNameRepetition", message));
    }
    let url = one.spec.foreign_proxy_url.as_deref().filter(|url| !url.is_empty())?;
    let why = proxy_error(url)?;
    Some(not_processable(INVALID_PROXY, format!("Invalid Proxy URL {url}: ({why})")))
}

/// Whether it stands for no peer of its own: nothing may be done, or undone, in its name. (With a proxy that
/// cannot be used, what exists stays, and can be taken down.)
pub(crate) fn is_nobody(one: &ForeignCluster, all: &[impl Borrow<ForeignCluster>], here: &ClusterIdentity) -> bool {
    unprocessable(one, all, here).is_some_and(|fact| fact.reason != INVALID_PROXY)
}

/// Why a text is not the URL of an HTTP proxy.
fn proxy_error(text: &str) -> Option<String> {
    let url: Uri = match text.parse() {
        Ok(url) => url,
        Err(error) => return Some(error.to_string()),
    };
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Some("it must begin with http:// or https://".to_owned());
    }
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_name = !host.is_empty() && host.split('.').all(|part| dns_label_error(&part.to_lowercase()).is_none());
    if host.parse::<IpAddr>().is_err() && !is_name {
        return Some(format!("{host:?} is neither an IP address nor a host name"));
    }
    if url.path().len() > 1 || url.query().is_some() {
        return Some("it must have no path".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cluster(object: &str, id: &str, name: &str, age: u32, proxy: Option<&str>) -> ForeignCluster {
        serde_json::from_value(json!({
            "metadata": {"name": object, "uid": object, "creationTimestamp": format!("2026-01-01T00:00:{age:02}Z")},
            "spec": {
                "clusterIdentity": {"clusterID": id, "clusterName": name},
                "foreignAuthUrl": "https://1.2.3.4",
                "foreignProxyUrl": proxy,
            },
        }))
        .unwrap()
    }

    #[test]
    fn the_older_one_counts_and_the_younger_is_told_why_not() {
        let here = ClusterIdentity::new("1", "rome");
        let all = [
            cluster("milan", "2", "milan", 1, None),
            cluster("milan-again", "2", "milano", 2, None),
            cluster("other", "3", "milan", 3, None),
            cluster("turin", "4", "turin", 4, Some("http://10.0.0.1:8118")),
        ];
        let reason = |one: &ForeignCluster| unprocessable(one, &all, &here).map(|fact| (fact.reason, fact.message));
        assert_eq!(reason(&all[0]), None);
        assert_eq!(reason(&all[3]), None);
        let (reason_of_id, message) = reason(&all[1]).unwrap();
        assert_eq!(reason_of_id, "ClusterIDRepetition");
        assert_eq!(message, "The same clusterID is already present in another ForeignCluster (milan)");
        let (reason_of_name, message) = reason(&all[2]).unwrap();
        assert_eq!(reason_of_name, "ClusterNameRepetition");
        assert!(message.contains("(milan)"));
        let unusable = cluster("turin", "4", "turin", 9, Some("nonsense"));
        assert!(is_nobody(&all[2], &all, &here) && !is_nobody(&unusable, &all[..1], &here));
        for (one, expected) in [
            (cluster("a", "1", "a", 9, None), "LocalCluster"),
            (cluster("a", "Rome", "a", 9, None), "InvalidClusterIdentity"),
            (cluster("a", "7", "A b", 9, None), "InvalidClusterIdentity"),
            (cluster("a", "7", "a", 9, Some("nonsense")), "InvalidProxyURL"),
        ] {
            assert_eq!(reason(&one).unwrap().0, expected);
        }
    }

    #[test]
    fn a_banned_foreign_cluster_counts_before_all_others_of_its_id() {
        let here = ClusterIdentity::new("1", "rome");
        let banned = |object: &str, id: &str, name: &str, age| {
            let mut one = cluster(object, id, name, age, None);
            one.annotations_mut().insert("liqo.io/tenant-condition".to_owned(), "Banned".to_owned());
            one
        };
        let (old, new) = (|| cluster("milan", "2", "milan", 1, None), || cluster("again", "2", "milano", 9, None));
        for (what, all, refused) in [
            ("the ban is on the older", [banned("milan", "2", "milan", 1), new()], [false, true]),
            ("the ban is on the younger", [old(), banned("again", "2", "milano", 9)], [true, false]),
            ("both are banned", [banned("milan", "2", "milan", 1), banned("again", "2", "milano", 9)], [false, true]),
            ("the name of another cluster", [old(), banned("other", "3", "milan", 9)], [false, false]),
            ("no ban", [old(), new()], [false, true]),
        ] {
            let reasons = all.each_ref().map(|one| unprocessable(one, &all, &here).map(|fact| fact.reason));
            let wanted = refused.map(|refused| refused.then_some("ClusterIDRepetition"));
            assert_eq!(reasons, wanted, "{what}");
        }
    }

    #[test]
    fn a_proxy_has_a_scheme_and_a_host_and_no_path() {
        for good in ["http://10.0.0.1:8118", "https://proxy.rome.it", "http://[fd00::1]:8118", "http://a/"] {
            assert_eq!(proxy_error(good), None, "{good}");
        }
        for bad in ["a", "10.0.0.1:8118", "ftp://a", "http://a/b", "http://a_b", "http://a b"] {
            assert!(proxy_error(bad).is_some(), "{bad}");
        }
    }
}
