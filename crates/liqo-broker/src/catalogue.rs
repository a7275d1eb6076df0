//! The catalogue: providers with a filter, and the peers of this cluster as programs of the first generation read them.

use http::StatusCode;
use liqo_api::{discovery::ForeignCluster, market::ProviderProfile};
use liqo_front::{page::parameter, problem::Problem};
use serde_json::Value;

/// What a caller wants to see of the catalogue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    region: Option<String>,
    fresh: Option<bool>,
    labels: Vec<(String, String)>,
}

impl Filter {
    /// Reads the parameters `region`, `fresh` (true or false) and `labels` (`key=value,key=value`).
    ///
    /// # Errors
    /// 400 with what is allowed.
    pub(crate) fn read(query: Option<&str>) -> Result<Self, Problem> {
        let wrong = |detail: &str| Problem::new(StatusCode::BAD_REQUEST, detail);
        let fresh = match parameter(query, "fresh").as_deref() {
            None => None,
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(_) => return Err(wrong("fresh must be true or false")),
        };
        let labels = parameter(query, "labels").unwrap_or_default();
        let pair = |text: &str| text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        let labels: Option<Vec<_>> = labels.split(',').filter(|text| !text.is_empty()).map(pair).collect();
        let labels = labels.ok_or_else(|| wrong("labels must look like key=value,key=value"))?;
        Ok(Self { region: parameter(query, "region"), fresh, labels })
    }

    /// Whether the caller wants to see this provider.
    pub(crate) fn takes(&self, profile: &ProviderProfile, is_fresh: bool) -> bool {
        let spec = &profile.spec;
        self.region.as_ref().is_none_or(|region| *region == spec.region)
            && self.fresh.is_none_or(|fresh| fresh == is_fresh)
            && self.labels.iter().all(|(key, value)| spec.labels.get(key) == Some(value))
    }
}

/// A peer as a program of the first generation reads it: the object, without where its authentication service is unless the caller
/// `may_see_addresses`.
pub(crate) fn legacy(peer: &ForeignCluster, may_see_addresses: bool) -> Value {
    let mut value = serde_json::to_value(peer).expect("an object is JSON");
    value["apiVersion"] = "discovery.liqo.io/v1alpha1".into();
    value["kind"] = "ForeignCluster".into();
    if !may_see_addresses && let Some(spec) = value["spec"].as_object_mut() {
        spec.remove("foreignAuthUrl");
        spec.remove("foreignProxyUrl");
    }
    value
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_filter_leaves_out_what_is_not_wanted() {
        let profile: ProviderProfile = serde_json::from_value(json!({
            "apiVersion": "market.liqo.io/v1alpha1", "kind": "ProviderProfile", "metadata": {"name": "a"},
            "spec": {"clusterID": "a", "region": "eu", "labels": {"tier": "gold", "gpu": "no"}}
        }))
        .unwrap();
        for (query, takes) in [
            ("", true),
            ("region=eu", true),
            ("region=us", false),
            ("fresh=true", true),
            ("fresh=false", false),
            ("labels=tier%3Dgold,gpu%3Dno", true),
            ("labels=tier%3Dsilver", false),
            ("region=eu&labels=x%3Dy", false),
        ] {
            assert_eq!(Filter::read(Some(query)).unwrap().takes(&profile, true), takes, "{query}");
        }
        for query in ["fresh=maybe", "labels=gold"] {
            assert_eq!(Filter::read(Some(query)).unwrap_err().status, 400, "{query}");
        }
    }

    #[test]
    fn addresses_are_for_those_who_may_see_them() {
        let peer: ForeignCluster = serde_json::from_value(json!({
            "apiVersion": "discovery.liqo.io/v1alpha1", "kind": "ForeignCluster", "metadata": {"name": "milan"},
            "spec": {"clusterIdentity": {"clusterID": "id", "clusterName": "milan"}, "foreignAuthUrl": "https://a.b"}
        }))
        .unwrap();
        let (open, closed) = (legacy(&peer, true), legacy(&peer, false));
        assert_eq!(
            (open["kind"].as_str(), open["spec"]["foreignAuthUrl"].as_str()),
            (Some("ForeignCluster"), Some("https://a.b"))
        );
        assert_eq!(closed["spec"].get("foreignAuthUrl"), None);
        assert_eq!(closed["spec"]["clusterIdentity"]["clusterID"], "id");
    }
}
