//! What is written for an invitation, once it was found to make sense.

use kube::ResourceExt;
use liqo_api::discovery::ForeignCluster;
use liqo_core::{
    endpoint, join_token, naming,
    peering::{id_of, out_of_band::Ask},
};
use liqo_market::wire::Invitation;

/// What an invitation asks to write, once it was found to be that of the chosen provider and nothing else.
pub(crate) fn asked(id: &str, invitation: &Invitation, known: &[ForeignCluster]) -> Result<Ask, String> {
    let Invitation { cluster_name, auth_url, token, .. } = invitation;
    endpoint::introduced_url(auth_url)?;
    if join_token::split(token).1.is_none() {
        return Err("the token of the invitation does not name the key of the provider".to_owned());
    }
    let is_taken = known.iter().any(|one| one.name_any() == *cluster_name && id_of(one) != id);
    let is_name = naming::dns_label_error(cluster_name).is_none() && !is_taken;
    let name = if is_name { cluster_name } else { id };
    let ask =
        Ask { name: name.to_owned(), auth_url: auth_url.clone(), cluster_id: id.to_owned(), token: token.clone() };
    ask.check().map(|()| ask)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "16fbeaec-e4e4-41dc-9eea-170ce95d7dd9";

    fn invitation() -> Invitation {
        Invitation {
            reservation: "r".into(),
            cluster_name: "milan".into(),
            auth_url: "https://172.30.0.12:32137".into(),
            token: format!("abc.{}", "a".repeat(43)),
        }
    }

    #[test]
    fn an_invitation_is_checked_before_it_is_written() {
        let ask = asked(ID, &invitation(), &[]).unwrap();
        assert_eq!((ask.name.as_str(), ask.cluster_id.as_str()), ("milan", ID));
        let odd = Invitation { cluster_name: "../x".into(), ..invitation() };
        assert_eq!(asked(ID, &odd, &[]).unwrap().name, ID, "a name that cannot be one is not taken");
        for (wrong, words) in [
            (Invitation { auth_url: "http://a.b".into(), ..invitation() }, "must be https"),
            (Invitation { auth_url: "https://u@a.b".into(), ..invitation() }, "must be https"),
            (Invitation { auth_url: "https://a.b/path?x".into(), ..invitation() }, "must be https"),
            (Invitation { token: "abc".into(), ..invitation() }, "does not name the key"),
            (Invitation { token: format!("a b.{}", "a".repeat(43)), ..invitation() }, "white space"),
        ] {
            let why = asked(ID, &wrong, &[]).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn a_name_of_another_cluster_is_not_taken() {
        let known: ForeignCluster = serde_json::from_value(json!({
            "apiVersion": "discovery.liqo.io/v1alpha1", "kind": "ForeignCluster", "metadata": {"name": "milan"},
            "spec": {"clusterIdentity": {"clusterID": "other", "clusterName": "milan"}, "foreignAuthUrl": "https://a.b"}
        }))
        .unwrap();
        assert_eq!(asked(ID, &invitation(), &[known]).unwrap().name, ID);
    }
}
