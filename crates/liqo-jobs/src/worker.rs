//! What is made for a job that has its turn: a `batch/v1` Job and the Secret with the place of its results.
//!
//! The pod has two containers: the worker, and the mover, a native side-car that carries the results to the store once the worker
//! has ended. Only the mover sees the key of the store. Neither gets a token of the API server.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    ByteString,
    api::{
        batch::v1::{Job as Batch, JobSpec as BatchSpec},
        core::v1::{
            Affinity, Capabilities, Container, EmptyDirVolumeSource, EnvFromSource, EnvVar, NodeAffinity, NodeSelector,
            NodeSelectorRequirement, NodeSelectorTerm, PodSpec, PodTemplateSpec, ResourceRequirements, Secret,
            SecretVolumeSource, SecurityContext, Volume, VolumeMount,
        },
    },
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{ResourceExt, core::ObjectMeta};
use liqo_api::{
    jobs::{
        JOB_LABEL, Job, JobSpec, JobTemplate, JobTemplateSpec, LARGEST_SPEC, Placement, QUEUE_LABEL, RESERVED_PREFIX,
    },
    meta::{annotation, label},
};
use liqo_core::quantity::Amount;
use liqo_kube::owner_reference;

use crate::{JobsArgs, brief};

/// The container that does the work.
pub(crate) const WORKER: &str = "worker";
/// The container that carries the results to the store.
pub(crate) const MOVER: &str = "mover";
/// Seconds for the results to get to the store after the worker has ended; providers grant no more than this.
const TIME_TO_STORE: i64 = 600;
/// Labels of Kueue, which admits `batch/v1` Jobs of its queues: a job that has them hands them on.
const QUEUE_LABELS: [&str; 2] = [QUEUE_LABEL, "kueue.x-k8s.io/priority-class"];
/// Where the mover finds the place of the results.
const LOCATION: &str = "/etc/liqo/results";

/// The worker of a job: its template with what the job adds, and the store that the job chooses.
///
/// # Errors
/// The reason and a sentence for the user.
pub(crate) fn resolve(
    job: &Job,
    named: impl FnOnce(&str) -> Option<Arc<JobTemplate>>,
) -> Result<JobTemplateSpec, (&'static str, String)> {
    let (spec, too_large) = (&job.spec, |what: &str| {
        let why = format!(
            "{what} has more than {LARGEST_SPEC} bytes of text: keep more in a ConfigMap and name it in envFrom"
        );
        ("TooLarge", why)
    });
    // The API server refuses such jobs and templates; those from before that rule must not get their way here.
    if brief::is_too_large(job) {
        return Err(too_large("the job"));
    }
    let mut worker = match (&spec.template, &spec.template_name) {
        (Some(template), None) => template.clone(),
        (None, Some(name)) => {
            let unknown = || format!("there is no JobTemplate {name:?} in this namespace; create it or cancel the job");
            let found = named(name).ok_or_else(|| ("TemplateNotFound", unknown()))?;
            if brief::is_too_large(&*found) {
                return Err(too_large(&format!("JobTemplate {name:?}")));
            }
            found.spec.clone()
        }
        _ => return Err(("InvalidTemplate", "the job needs either templateName or template".to_owned())),
    };
    let mut secrets = spec.env_from.iter().filter_map(|source| source.secret_ref.as_ref());
    // The API server refuses such a job; a job from before that rule must not get its way here.
    if secrets.any(|secret| secret.name.starts_with(RESERVED_PREFIX)) {
        let why =
            format!("Secrets whose names begin with {RESERVED_PREFIX} belong to Liqo: no worker gets their values");
        return Err(("ReservedSecret", why));
    }
    worker.env.retain(|one| spec.env.iter().all(|other| other.name != one.name));
    worker.env.extend(spec.env.iter().cloned());
    worker.result_store = spec.result_store.clone().or(worker.result_store);
    Ok(worker)
}

/// Label of the pods of a `batch/v1` Job: the name of the Job. Kubernetes sets it. Providers refuse labels of Liqo on pods of peers, so
/// pods have none of ours.
pub(crate) const POD_LABEL: &str = "batch.kubernetes.io/job-name";

/// Name of the Secret with the place of a job's results. No worker may name such a Secret: the prefix is reserved.
pub(crate) fn location_name(job: &str) -> String {
    format!("{RESERVED_PREFIX}results-{job}")
}

fn metadata(job: &Job, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: job.namespace(),
        owner_references: Some(vec![owner_reference(job, true)]),
        ..ObjectMeta::default()
    }
}

/// The Secret with the place of a job's results, and the key that opens this place and no other. Only the cluster that runs the worker
/// gets a copy, while the worker runs.
pub(crate) fn location(job: &Job, files: BTreeMap<String, String>) -> Secret {
    let on_demand = (annotation::REFLECTION.to_owned(), annotation::REFLECTION_NEEDED.to_owned());
    let data = files.into_iter().map(|(file, text)| (file, ByteString(text.into_bytes())));
    Secret {
        metadata: ObjectMeta {
            annotations: Some(BTreeMap::from([on_demand])),
            ..metadata(job, location_name(&job.name_any()))
        },
        data: Some(data.collect()),
        ..Secret::default()
    }
}

/// The `batch/v1` Job that runs the worker of a job.
pub(crate) fn forge(job: &Job, worker: &JobTemplateSpec, args: &JobsArgs) -> Batch {
    let wanted = Some(worker.timeout_seconds).filter(|seconds| *seconds > 0);
    let spec = BatchSpec {
        active_deadline_seconds: Some(wanted.map_or(args.longest_turn, |seconds| seconds.min(args.longest_turn))),
        backoff_limit: Some(worker.retries),
        // One worker at a time writes results: the next one starts when the last one is gone.
        pod_replacement_policy: Some("Failed".to_owned()),
        template: PodTemplateSpec { metadata: None, spec: Some(pod(job, worker, &args.mover_image)) },
        ..BatchSpec::default()
    };
    let own = (JOB_LABEL.to_owned(), job.name_any());
    let queue = QUEUE_LABELS.iter().filter_map(|&key| Some((key.to_owned(), job.labels().get(key)?.clone())));
    let labels = queue.chain([own]).collect();
    let metadata = ObjectMeta { labels: Some(labels), ..metadata(job, job.name_any()) };
    Batch { metadata, spec: Some(spec), status: None }
}

fn pod(job: &Job, worker: &JobTemplateSpec, mover_image: &str) -> PodSpec {
    let results =
        EmptyDirVolumeSource { size_limit: Some(worker.output_size.clone()), ..EmptyDirVolumeSource::default() };
    let location =
        SecretVolumeSource { secret_name: Some(location_name(&job.name_any())), ..SecretVolumeSource::default() };
    PodSpec {
        init_containers: Some(vec![mover(job, worker, mover_image)]),
        containers: vec![container(&job.spec, worker)],
        volumes: Some(vec![
            Volume { name: "results".to_owned(), empty_dir: Some(results), ..Volume::default() },
            Volume { name: "location".to_owned(), secret: Some(location), ..Volume::default() },
        ]),
        affinity: affinity(job.spec.placement, &job.spec.clusters),
        restart_policy: Some("Never".to_owned()),
        termination_grace_period_seconds: Some(TIME_TO_STORE),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        ..PodSpec::default()
    }
}

fn container(job: &JobSpec, worker: &JobTemplateSpec) -> Container {
    let some = |words: &[String]| (!words.is_empty()).then(|| words.to_vec());
    // Values are taken as they are: a `$` is doubled, or Kubernetes would replace references to variables.
    let env = worker.env.iter().map(|one| EnvVar {
        name: one.name.clone(),
        value: Some(one.value.replace('$', "$$")),
        value_from: None,
    });
    let sources = job.env_from.iter().map(|one| EnvFromSource {
        config_map_ref: one.config_map_ref.clone(),
        secret_ref: one.secret_ref.clone(),
        prefix: None,
    });
    Container {
        name: WORKER.to_owned(),
        image: Some(worker.image.clone()),
        command: some(&worker.command),
        args: some(&worker.args),
        env: Some(env.collect()),
        env_from: Some(sources.collect()),
        resources: Some(ResourceRequirements {
            requests: Some(worker.resources.clone()),
            limits: Some(worker.resources.clone()),
            claims: None,
        }),
        volume_mounts: Some(vec![mount("results", &worker.output_dir, false)]),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

fn mover(job: &Job, worker: &JobTemplateSpec, image: &str) -> Container {
    let quantities = |pairs: &[(&str, &str)]| {
        Some(pairs.iter().map(|(key, value)| ((*key).to_owned(), Quantity((*value).to_owned()))).collect())
    };
    // The volume ends a pod that fills it, but not at once, and counts the blocks of a file and not its length.
    let most = format!("--max-size={}", Amount::of(&worker.output_size).units());
    let words = ["store", "--results=/results", "--location", LOCATION, &most, "--job"];
    Container {
        name: MOVER.to_owned(),
        image: Some(image.to_owned()),
        command: Some(vec!["/usr/bin/liqo-mover".to_owned()]),
        args: Some(words.iter().map(|&word| word.to_owned()).chain(job.uid()).collect()),
        // A native side-car: the kubelet ends it with SIGTERM once the worker has ended.
        restart_policy: Some("Always".to_owned()),
        resources: Some(ResourceRequirements {
            requests: quantities(&[("cpu", "10m"), ("memory", "32Mi")]),
            limits: quantities(&[("memory", "64Mi")]),
            claims: None,
        }),
        volume_mounts: Some(vec![mount("results", "/results", true), mount("location", LOCATION, true)]),
        security_context: Some(SecurityContext {
            // Workers write as any user and with any mode; the mover reads it all, and nothing but that.
            run_as_user: Some(0),
            run_as_non_root: Some(false),
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                add: Some(vec!["DAC_OVERRIDE".to_owned()]),
            }),
            ..SecurityContext::default()
        }),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(read_only),
        ..VolumeMount::default()
    }
}

/// The nodes a worker may run on; `None`: the offloading of the namespace alone decides.
fn affinity(placement: Placement, clusters: &[String]) -> Option<Affinity> {
    let of = |key: &str, operator: &str, values: &[String]| NodeSelectorRequirement {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: Some(values.to_vec()),
    };
    let term = |requirements| NodeSelectorTerm { match_expressions: Some(requirements), match_fields: None };
    let (virtual_node, chosen) = ([label::VIRTUAL_NODE.to_owned()], !clusters.is_empty());
    let local = || term(vec![of(label::TYPE, "NotIn", &virtual_node)]);
    let remote = || {
        let some = chosen.then(|| of(label::REMOTE_CLUSTER_ID, "In", clusters));
        term([of(label::TYPE, "In", &virtual_node)].into_iter().chain(some).collect())
    };
    let node_selector_terms = match placement {
        Placement::Any if !chosen => return None,
        Placement::Any => vec![local(), remote()],
        Placement::Local => vec![local()],
        Placement::Remote => vec![remote()],
    };
    let required = Some(NodeSelector { node_selector_terms });
    let node_affinity = NodeAffinity {
        required_during_scheduling_ignored_during_execution: required,
        preferred_during_scheduling_ignored_during_execution: None,
    };
    Some(Affinity { node_affinity: Some(node_affinity), ..Affinity::default() })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::SecretEnvSource;
    use liqo_api::jobs::{EnvSource, STORE_KEY_SECRET};

    use super::*;

    fn job() -> Job {
        let mut job = Job::new("j", JobSpec::default());
        job.metadata.uid = Some("u".to_owned());
        job
    }

    fn args() -> JobsArgs {
        clap::Parser::parse_from(["liqo-jobs", "--longest-turn=600"])
    }

    #[test]
    fn no_worker_outlasts_the_longest_turn() {
        for (wanted, deadline) in [(0, 600), (60, 60), (601, 600)] {
            let worker = JobTemplateSpec { timeout_seconds: wanted, ..JobTemplateSpec::default() };
            assert_eq!(forge(&job(), &worker, &args()).spec.unwrap().active_deadline_seconds, Some(deadline));
        }
    }

    #[test]
    fn the_mover_stores_no_more_than_the_room_for_results() {
        for (size, words) in [("2Gi", "--max-size=2147483648"), ("1500k", "--max-size=1500000"), ("0", "--max-size=0")]
        {
            let worker = JobTemplateSpec { output_size: Quantity(size.to_owned()), ..JobTemplateSpec::default() };
            let batch = forge(&job(), &worker, &args());
            let pod = batch.spec.unwrap().template.spec.unwrap();
            let args = pod.init_containers.unwrap().remove(0).args.unwrap();
            assert!(args.iter().any(|word| word == words), "{args:?}");
            assert_eq!(args.last().map(String::as_str), Some("u"), "{args:?}");
        }
    }

    #[test]
    fn queues_are_handed_on_and_other_labels_are_not() {
        let mut job = job();
        let labels = [(QUEUE_LABEL, "gpu"), ("kueue.x-k8s.io/priority-class", "high"), ("other", "x")];
        job.labels_mut().extend(labels.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let made = forge(&job, &JobTemplateSpec::default(), &args());
        let mut wanted: Vec<_> = QUEUE_LABELS.iter().copied().chain([JOB_LABEL]).collect();
        wanted.sort_unstable();
        assert_eq!(made.labels().keys().map(String::as_str).collect::<Vec<_>>(), wanted);
        assert_eq!(forge(&self::job(), &JobTemplateSpec::default(), &args()).labels().len(), 1);
    }

    #[test]
    fn only_the_mover_sees_the_key_of_the_store() {
        let made = forge(&job(), &JobTemplateSpec::default(), &args());
        let pod = made.spec.unwrap().template.spec.unwrap();
        let mounts = |container: &Container| {
            let all = container.volume_mounts.iter().flatten();
            all.map(|one| one.name.clone()).collect::<Vec<_>>()
        };
        let [worker] = &pod.containers[..] else { panic!("more than a worker") };
        assert_eq!((worker.name.as_str(), mounts(worker)), (WORKER, vec!["results".to_owned()]));
        assert!(worker.env_from.iter().flatten().next().is_none() && worker.env.iter().flatten().next().is_none());
        assert_eq!(pod.automount_service_account_token, Some(false));
    }

    #[test]
    fn no_worker_gets_a_secret_of_ours() {
        let outcome = |name: &str| {
            let secret_ref = SecretEnvSource { name: name.to_owned(), optional: None };
            let source = EnvSource { config_map_ref: None, secret_ref: Some(secret_ref) };
            let spec =
                JobSpec { template: Some(JobTemplateSpec::default()), env_from: vec![source], ..JobSpec::default() };
            resolve(&Job::new("j", spec), |_| None).map(drop).map_err(|(reason, _)| reason)
        };
        assert_eq!(outcome(&location_name("other")), Err("ReservedSecret"));
        assert_eq!(outcome(STORE_KEY_SECRET), Err("ReservedSecret"));
        assert_eq!(outcome("mine"), Ok(()));
    }

    #[test]
    fn the_key_of_a_job_is_reserved_and_goes_where_a_pod_needs_it_only() {
        let secret = location(&job(), BTreeMap::from([("prefix".to_owned(), "u".to_owned())]));
        assert!(secret.name_any().starts_with(RESERVED_PREFIX) && secret.immutable.is_none());
        assert_eq!(secret.annotations().get(annotation::REFLECTION).map(String::as_str), Some("needed"));
        assert_eq!(secret.data.unwrap()["prefix"].0, b"u");
    }
}
