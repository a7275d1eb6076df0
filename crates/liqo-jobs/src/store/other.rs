//! Stores that the operator names: their keys, what a mover gets, and whether they are fit.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::ResourceExt;
use liqo_api::jobs::{Addressing, AssumeRole, Job, READY, ResultStore, ResultStoreStatus};
use liqo_kube::now;
use liqo_results::{Assumed, Location, Role, Unfit, Why, assume};

use super::{JobStore, StoreError};
use crate::state::short;

/// How often a store is tried that was fit, and one that was not.
const FIT: Duration = Duration::from_secs(300);
const UNFIT: Duration = Duration::from_secs(10);
/// Keys of the Secret.
const ACCESS_KEY_ID: &str = "accessKeyId";
const SECRET_ACCESS_KEY: &str = "secretAccessKey";
const SESSION_TOKEN: &str = "sessionToken";

impl JobStore {
    /// A place below the prefix of a store, with the keys of its Secret.
    pub(super) async fn own(&self, store: &ResultStore, below: &str) -> Result<Location, StoreError> {
        const DOING: &str = "reading the keys of a ResultStore";
        let (namespace, name) = (store.namespace().unwrap_or_default(), &store.spec.secret_name);
        let secret = self.cluster.get::<Secret>(&namespace, name).await;
        let secret = secret.map_err(|error| StoreError::of(DOING, &error))?;
        let why = || format!("there is no Secret {name:?} in namespace {namespace}");
        let secret = secret.ok_or_else(|| StoreError { doing: DOING, why: why() })?;
        located(store, below, secret.data.unwrap_or_default()).map_err(|why| StoreError { doing: DOING, why })
    }

    /// What the mover of a job gets: keys for the prefix of the job, or where the operator says so those of the Secret.
    pub(super) async fn lent(&self, store: &ResultStore, job: &Job) -> Result<Location, StoreError> {
        let own = self.own(store, &job.uid().unwrap_or_default()).await?;
        let Some(role) = &store.spec.assume_role else { return Ok(own) };
        let assumed = assume(&own, role_of(store, role)).await;
        assumed.map(|assumed| assumed.location).map_err(|error| StoreError::of("getting keys for a mover", &error))
    }
}

fn role_of<'a>(store: &'a ResultStore, role: &'a AssumeRole) -> Role<'a> {
    let endpoint = role.endpoint.as_ref().unwrap_or(&store.spec.endpoint);
    Role { endpoint, arn: &role.role_arn, seconds: role.session_seconds }
}

fn located(store: &ResultStore, below: &str, data: BTreeMap<String, ByteString>) -> Result<Location, String> {
    let spec = &store.spec;
    let key = |name: &str| -> Result<Option<String>, String> {
        let Some(bytes) = data.get(name) else { return Ok(None) };
        let text =
            str::from_utf8(&bytes.0).ok().map(str::trim).filter(|text| text.bytes().all(|b| b.is_ascii_graphic()));
        let wrong = || format!("the key {name:?} of Secret {:?} is no printable text", spec.secret_name);
        Ok(Some(text.ok_or_else(wrong)?.to_owned()).filter(|text| !text.is_empty()))
    };
    let needed = |name: &str| -> Result<String, String> {
        key(name)?.ok_or_else(|| format!("Secret {:?} has no key {name:?}", spec.secret_name))
    };
    let prefix = [spec.prefix.as_str(), below].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
    let location = Location {
        endpoint: spec.endpoint.clone(),
        virtual_host: spec.addressing == Addressing::VirtualHost,
        region: spec.region.clone(),
        bucket: spec.bucket.clone(),
        prefix: prefix.join("/"),
        access_key_id: needed(ACCESS_KEY_ID)?,
        secret_access_key: needed(SECRET_ACCESS_KEY)?,
        session_token: key(SESSION_TOKEN)?,
        ca: spec.ca_bundle.clone(),
    };
    // The mover parses the same files: a location that the mover would refuse is refused here.
    Location::from_files(&location.files()).map_err(|error| error.to_string())
}

/// Tries a store and says how it stands; and when to try again.
pub(crate) async fn check(jobs: &JobStore, name: &str) -> Result<Option<Duration>, liqo_kube::KubeError> {
    let Some(store) = jobs.other(name) else { return Ok(None) };
    let outcome = tried(jobs, &store).await;
    let pause = if outcome.is_ok() { FIT } else { UNFIT };
    let status = status(&store, outcome, &now());
    if store.status.as_ref() != Some(&status) {
        jobs.cluster.put_status(&*store, &status).await?;
    }
    Ok(Some(pause))
}

/// Reason and sentence, where the store is not fit.
type Outcome = Result<(), (&'static str, String)>;

async fn tried(jobs: &JobStore, store: &ResultStore) -> Outcome {
    // The place of a job that there is not.
    let own = jobs.own(store, &format!("check-{}", store.uid().unwrap_or_default())).await;
    let own = own.map_err(|error| ("SecretUnusable", error.why))?;
    open(&own)?.probe().await.map_err(told)?;
    let Some(role) = &store.spec.assume_role else { return Ok(()) };
    let Assumed { location, expiration } = assume(&own, role_of(store, role)).await.map_err(told_of_role)?;
    lasts(&expiration, role.session_seconds, &now())?;
    let probed = open(&location)?.probe().await;
    probed.map_err(|unfit| ("RoleUnusable", format!("with the keys that a mover would get: {unfit}")))
}

fn open(location: &Location) -> Result<liqo_results::Store, (&'static str, String)> {
    liqo_results::Store::new(location).map_err(|error| ("Unusable", error.chain()))
}

fn told(unfit: Unfit) -> (&'static str, String) {
    (word(unfit.why), unfit.to_string())
}

fn told_of_role(unfit: Unfit) -> (&'static str, String) {
    let reason = if unfit.why == Why::Unreachable { "Unreachable" } else { "RoleUnusable" };
    (reason, unfit.to_string())
}

fn word(why: Why) -> &'static str {
    match why {
        Why::Unreachable => "Unreachable",
        Why::CredentialsRefused => "CredentialsRefused",
        Why::BucketNotFound => "BucketNotFound",
        Why::AccessDenied => "AccessDenied",
        Why::WrongRegion => "WrongRegion",
        Why::OtherBytes => "OtherBytes",
        Why::Refused => "Refused",
    }
}

/// Keys are replaced after half of the time that was asked for, and a try may fail: the service must have granted three quarters.
fn lasts(expiration: &str, wanted: u32, now: &Time) -> Outcome {
    let end: Timestamp = expiration
        .parse()
        .map_err(|_| ("RoleUnusable", format!("keys of movers end at {expiration:?}, which is no time")))?;
    let granted = end.as_second().saturating_sub(now.0.as_second());
    if granted * 4 >= i64::from(wanted) * 3 {
        return Ok(());
    }
    let why = format!("keys of movers end after {granted} s: ask for no more than that in assumeRole.sessionSeconds");
    Err(("SessionTooShort", why))
}

fn status(store: &ResultStore, outcome: Outcome, now: &Time) -> ResultStoreStatus {
    let before = store.ready();
    let message = match &store.spec.assume_role {
        Some(_) => "the bucket takes and gives objects, also with keys for one job",
        None => "the bucket takes and gives objects; movers get the keys of the Secret",
    };
    let (value, reason, message) = match outcome {
        Ok(()) => ("True", "Reachable", message.to_owned()),
        Err((reason, why)) => ("False", reason, why),
    };
    let since = before.filter(|one| one.status == value).map(|one| one.last_transition_time.clone());
    let condition = Condition {
        type_: READY.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: short(&message),
        last_transition_time: since.unwrap_or_else(|| now.clone()),
        observed_generation: store.metadata.generation,
    };
    ResultStoreStatus { observed_generation: store.metadata.generation, conditions: vec![condition] }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn store(spec: serde_json::Value) -> ResultStore {
        let mut all =
            json!({"endpoint": "https://s3.example.com", "bucket": "results", "secretName": "keys", "shareKeys": true});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        ResultStore::new("s", serde_json::from_value(all).unwrap())
    }

    fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, ByteString> {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), ByteString((*text).into()))).collect()
    }

    #[test]
    fn the_keys_of_the_secret_open_the_place_of_a_job() {
        let keys = [("accessKeyId", "id\n"), ("secretAccessKey", "hush"), ("other", "x")];
        let spec = json!({"prefix": "team/a", "addressing": "VirtualHost", "caBundle": "PEM", "region": "eu"});
        let location = located(&store(spec), "u", data(&keys)).unwrap();
        assert_eq!((location.prefix.as_str(), location.access_key_id.as_str()), ("team/a/u", "id"));
        assert!(location.virtual_host && location.ca.as_deref() == Some("PEM") && location.session_token.is_none());
        assert_eq!(located(&store(json!({})), "u", data(&keys)).unwrap().prefix, "u");
        for (keys, said) in [
            (&[][..], "no key \"accessKeyId\""),
            (&[("accessKeyId", "id")], "no key \"secretAccessKey\""),
            (&[("accessKeyId", " "), ("secretAccessKey", "x")], "no key \"accessKeyId\""),
            (&[("accessKeyId", "a\nb"), ("secretAccessKey", "x")], "no printable text"),
        ] {
            let why = located(&store(json!({})), "u", data(keys)).unwrap_err();
            assert!(why.contains(said), "{keys:?}: {why}");
        }
    }

    #[test]
    fn keys_of_movers_must_last_until_they_are_replaced() {
        let now = Time(Timestamp::from_second(1_800_000_000).unwrap());
        let outcome = |seconds: i64| {
            let end = Timestamp::from_second(1_800_000_000 + seconds).unwrap().to_string();
            lasts(&end, 3600, &now).map_err(|(reason, _)| reason)
        };
        assert_eq!([3600, 2700].map(outcome), [Ok(()), Ok(())]);
        assert_eq!([2699, 0, -5].map(outcome), [Err("SessionTooShort"); 3]);
        assert_eq!(lasts("soon", 3600, &now).map_err(|(reason, _)| reason), Err("RoleUnusable"));
    }

    #[test]
    fn the_time_of_a_condition_changes_with_its_status_only() {
        let at = |second| Time(Timestamp::from_second(second).unwrap());
        let mut tried = store(json!({}));
        assert!(tried.fit().unwrap_err().contains("nobody"));
        tried.status = Some(status(&tried, Err(("Unreachable", "no\nroute".to_owned())), &at(1)));
        assert_eq!(tried.fit(), Err("Unreachable: no route".to_owned()));
        tried.status = Some(status(&tried, Err(("BucketNotFound", "none".to_owned())), &at(2)));
        let since = |store: &ResultStore| store.status.as_ref().unwrap().conditions[0].last_transition_time.clone();
        assert_eq!(since(&tried), at(1));
        tried.status = Some(status(&tried, Ok(()), &at(3)));
        assert_eq!((since(&tried), tried.fit()), (at(3), Ok(())));
    }
}
