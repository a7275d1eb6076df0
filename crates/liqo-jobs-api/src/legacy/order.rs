//! What a caller of the facade orders: which worker, with which variables.
//!
//! Keeps true: an order names an image only where the operator allows that image; secret variables are in a Secret and nowhere else;
//! what is made for a job goes with the job.

use std::collections::BTreeMap;

use http::StatusCode;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, ConfigMapEnvSource, Secret, SecretEnvSource},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use liqo_api::{
    jobs::{EnvSource, JobTemplateSpec},
    meta::annotation,
};
use liqo_front::problem::Problem;

use super::dotenv::Variables;

/// The resource that `GPU=true` asks for.
pub(super) const GPU: &str = "nvidia.com/gpu";

/// The worker that a description asks for, based on the template of the facade.
///
/// # Errors
/// 400 when the description makes no sense, 403 when its image is not among `allowed`.
pub(super) fn worker(
    base: Option<&JobTemplateSpec>,
    description: &Variables,
    allowed: &[String],
) -> Result<Option<JobTemplateSpec>, Problem> {
    let image = description.get("WORKER_IMAGE").filter(|image| !image.is_empty());
    let Some(mut worker) = base.cloned().or_else(|| image.map(only)) else { return Ok(None) };
    if let Some(image) = image {
        let is_known = base.is_some_and(|base| base.image == image) || allowed.iter().any(|one| covers(one, image));
        if !is_known {
            let why = format!("the image {image:?} is not among those that the operator allows");
            return Err(Problem::new(StatusCode::FORBIDDEN, why)
                .with_remedy("ask the operator for the value jobs.api.legacy.images"));
        }
        image.clone_into(&mut worker.image);
    }
    if let Some(directory) = description.get("RESULT_DIRECTORY").filter(|directory| !directory.is_empty()) {
        worker.output_dir = directory.trim_end_matches('/').to_owned();
    }
    match description.get("GPU").unwrap_or_default().to_ascii_lowercase().as_str() {
        "" => {}
        "true" => drop(worker.resources.insert(GPU.to_owned(), Quantity("1".to_owned()))),
        "false" => drop(worker.resources.remove(GPU)),
        _ => return Err(Problem::new(StatusCode::BAD_REQUEST, "GPU is true or false")),
    }
    Ok(Some(worker))
}

/// A worker that is an image and nothing else, with what the API server fills in for other workers.
fn only(image: &str) -> JobTemplateSpec {
    serde_json::from_value(serde_json::json!({"image": image})).expect("only the image is required")
}

/// Whether a name of images, which may end with `*`, is that of an image.
fn covers(pattern: &str, image: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == image, |start| image.starts_with(start))
}

/// Label of ConfigMaps that callers of the facade have sent.
pub(super) const RESOURCE_LABEL: &str = "jobs.liqo.io/resource";
/// Annotation of such a ConfigMap: a Secret of the same name has its secret variables.
pub(super) const SECRETS_ANNOTATION: &str = "jobs.liqo.io/secrets";

/// Where variables come from: the ConfigMap of this name, and the Secret of this name if there is one.
pub(super) fn sources(name: &str, plain: bool, secret: bool) -> impl Iterator<Item = EnvSource> {
    let config_map_ref = plain.then(|| ConfigMapEnvSource { name: name.to_owned(), optional: None });
    let secret_ref = secret.then(|| SecretEnvSource { name: name.to_owned(), optional: None });
    let config_map = config_map_ref.map(|one| EnvSource { config_map_ref: Some(one), secret_ref: None });
    config_map.into_iter().chain(secret_ref.map(|one| EnvSource { config_map_ref: None, secret_ref: Some(one) }))
}

/// The ConfigMap with the variables that are no secret.
pub(super) fn config_map(metadata: ObjectMeta, plain: BTreeMap<String, String>) -> ConfigMap {
    ConfigMap { metadata, data: Some(plain), immutable: Some(true), ..ConfigMap::default() }
}

/// The Secret with the others. Only a cluster that runs a worker with these variables gets a copy, while the worker runs.
pub(super) fn secret(mut metadata: ObjectMeta, values: BTreeMap<String, String>) -> Secret {
    let on_demand = (annotation::REFLECTION.to_owned(), annotation::REFLECTION_NEEDED.to_owned());
    metadata.annotations.get_or_insert_default().extend([on_demand]);
    let data = values.into_iter().map(|(name, value)| (name, ByteString(value.into_bytes())));
    Secret { metadata, data: Some(data.collect()), immutable: Some(true), ..Secret::default() }
}

/// Metadata of an object that goes with its owner.
pub(super) fn metadata(namespace: &str, name: &str, owner: Option<OwnerReference>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        owner_references: owner.map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::dotenv, *};

    fn base() -> JobTemplateSpec {
        JobTemplateSpec {
            image: "registry/a:1".to_owned(),
            output_dir: "/output".to_owned(),
            ..JobTemplateSpec::default()
        }
    }

    fn ordered(description: &str, allowed: &[&str]) -> Result<JobTemplateSpec, u16> {
        let allowed: Vec<_> = allowed.iter().map(|&one| one.to_owned()).collect();
        let description = dotenv::read(description.as_bytes()).unwrap();
        worker(Some(&base()), &description, &allowed).map(Option::unwrap).map_err(|problem| problem.status)
    }

    #[test]
    fn a_description_is_a_worker() {
        let all = "WORKER_IMAGE=registry/b@sha256:11\nGPU=True\nRESULT_DIRECTORY=/data/out/\nUNKNOWN=x";
        let worker = ordered(all, &["registry/b@sha256:*"]).unwrap();
        assert_eq!((worker.image.as_str(), worker.output_dir.as_str()), ("registry/b@sha256:11", "/data/out"));
        assert_eq!(worker.resources[GPU], Quantity("1".to_owned()));
        assert_eq!(ordered("GPU=false", &[]), Ok(base()));
        assert_eq!(ordered("GPU=maybe", &[]), Err(400));
        assert_eq!(super::worker(None, &Variables::default(), &[]), Ok(None));
    }

    #[test]
    fn an_image_that_the_operator_does_not_allow_is_refused() {
        for (image, allowed, is_allowed) in [
            ("registry/a:1", &[][..], true),
            ("registry/a:2", &[], false),
            ("registry/a:2", &["registry/a:2"], true),
            ("registry/a:22", &["registry/a:2"], false),
            ("registry/a:22", &["registry/a:*"], true),
            ("evil/registry/a:1", &["registry/*"], false),
            ("anything", &["*"], true),
        ] {
            let outcome = ordered(&format!("WORKER_IMAGE={image}"), allowed);
            assert_eq!(outcome.map(drop).err(), (!is_allowed).then_some(403), "{image} {allowed:?}");
        }
    }

    #[test]
    fn secrets_are_in_a_secret_that_leaves_on_demand_only() {
        let all = dotenv::read(b"A=1\nTOKEN=2").unwrap();
        let (plain, values) =
            (config_map(metadata("ns", "n", None), all.plain), secret(metadata("ns", "n", None), all.secret));
        assert_eq!(plain.data.unwrap().into_keys().collect::<Vec<_>>(), ["A"]);
        assert_eq!(values.metadata.annotations.unwrap()[annotation::REFLECTION], annotation::REFLECTION_NEEDED);
        assert_eq!(values.data.unwrap().into_keys().collect::<Vec<_>>(), ["TOKEN"]);
        assert_eq!(sources("n", true, true).count(), 2);
        assert_eq!(sources("n", false, true).next().unwrap().config_map_ref, None);
    }
}
