//! The spec of a pod as it runs there: without what only means something here.
//!
//! Keeps true: the spec is forged once. Later only what Kubernetes itself lets users change in a running
//! pod is carried over, because a provider admits nothing else.
//!
//! A toleration with an empty key tolerates everything, also the taint of virtual nodes: such a pod may be
//! offloaded once more by the provider. It is kept, since leaving it out would refuse the pod nodes it is
//! meant to run on.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Container, EnvVar, HostAlias, KeyToPath, PodSpec, ProjectedVolumeSource, SecretProjection, Toleration,
    VolumeProjection,
};
use liqo_api::meta::TAINT_NOT_ALLOWED;

use super::{
    super::{config_map, token},
    fields,
};

/// How pods there reach their own API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ApiSupport {
    /// Not at all.
    #[default]
    Disabled,
    /// With tokens we ask for.
    Tokens(ApiServer),
}

/// The own API server, as pods there see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiServer {
    /// Host name or address.
    pub(crate) host: String,
    /// Port.
    pub(crate) port: String,
    /// Address behind the host name, if the host name is ours.
    pub(crate) alias: Option<String>,
}

/// The names under which a pod knows its API server; 0.8.3 leaves the last one to the provider, whose API server it then is.
pub(crate) const API_SERVER_NAMES: [&str; 3] =
    ["kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
/// Port of the Service `kubernetes`, after which kubelets name variables.
const API_SERVICE_PORT: &str = "443";

/// The spec of a new pod there. `pod` is its name.
pub(super) fn forge(pod: &str, spec: &PodSpec, home_cluster_id: &str, support: &ApiSupport) -> PodSpec {
    let account = service_account(spec);
    let container = |container: &Container| {
        let container = with_config_maps(container, home_cluster_id);
        match support {
            ApiSupport::Disabled => container,
            ApiSupport::Tokens(server) => with_api_server(&container, account, server),
        }
    };
    let mut volumes = spec.volumes.clone();
    for volume in volumes.iter_mut().flatten() {
        if let Some(map) = &mut volume.config_map {
            map.name = config_map::name_there(&map.name, home_cluster_id);
        }
        if let Some(projected) = &mut volume.projected {
            project(projected, pod, &volume.name, home_cluster_id, support);
        }
    }
    PodSpec {
        containers: spec.containers.iter().map(container).collect(),
        init_containers: spec.init_containers.as_ref().map(|all| all.iter().map(container).collect()),
        volumes,
        tolerations: spec.tolerations.as_deref().map(tolerations),
        automount_service_account_token: Some(false),
        host_aliases: host_aliases(spec, support),
        ..fields::carried(spec)
    }
}

/// The spec of a pod that is there already, with what may change in a running pod.
pub(super) fn refresh(there: &PodSpec, here: &PodSpec) -> PodSpec {
    let mut spec = there.clone();
    let images = here.init_containers.iter().flatten().chain(&here.containers);
    for container in images {
        let twins = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
        for twin in twins.filter(|twin| twin.name == container.name) {
            twin.image.clone_from(&container.image);
        }
    }
    spec.active_deadline_seconds = here.active_deadline_seconds.or(spec.active_deadline_seconds);
    let wanted = here.tolerations.as_deref().map(tolerations).unwrap_or_default();
    let missing: Vec<_> =
        wanted.into_iter().filter(|wanted| !spec.tolerations.iter().flatten().any(|one| one == wanted)).collect();
    if !missing.is_empty() {
        spec.tolerations.get_or_insert_default().extend(missing);
    }
    spec
}

/// The service account of a pod.
pub(in crate::reflect) fn service_account(spec: &PodSpec) -> &str {
    spec.service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default")
}

/// All tolerations but the one that lets pods onto virtual nodes.
fn tolerations(all: &[Toleration]) -> Vec<Toleration> {
    all.iter().filter(|one| one.key.as_deref() != Some(TAINT_NOT_ALLOWED)).cloned().collect()
}

fn host_aliases(spec: &PodSpec, support: &ApiSupport) -> Option<Vec<HostAlias>> {
    let mut aliases = spec.host_aliases.clone().unwrap_or_default();
    if let ApiSupport::Tokens(ApiServer { alias: Some(ip), .. }) = support {
        let hostnames = API_SERVER_NAMES.map(str::to_owned).to_vec();
        aliases.push(HostAlias { ip: ip.clone(), hostnames: Some(hostnames) });
    }
    (!aliases.is_empty()).then_some(aliases)
}

/// Points the environment of a container to the twins of its config maps.
fn with_config_maps(container: &Container, home_cluster_id: &str) -> Container {
    let mut container = container.clone();
    let variables = container.env.iter_mut().flatten().filter_map(|variable| variable.value_from.as_mut());
    let keys = variables.filter_map(|from| from.config_map_key_ref.as_mut()).map(|map| &mut map.name);
    let whole = container.env_from.iter_mut().flatten().filter_map(|from| from.config_map_ref.as_mut());
    for name in keys.chain(whole.map(|map| &mut map.name)) {
        *name = config_map::name_there(name, home_cluster_id);
    }
    container
}

/// Tells a container where its own API server is; what it says itself about that loses. The variables come first, because those
/// after them may refer to them.
fn with_api_server(container: &Container, account: &str, server: &ApiServer) -> Container {
    let mut env = api_server_variables(server);
    let ours: BTreeSet<_> = env.iter().map(|one| one.name.clone()).collect();
    for mut variable in container.env.iter().flatten().filter(|one| !ours.contains(&one.name)).cloned() {
        let field = variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
        if field.is_some_and(|field| field.field_path == "spec.serviceAccountName") {
            variable = literal(variable.name, account.to_owned());
        }
        env.push(variable);
    }
    Container { env: Some(env), ..container.clone() }
}

fn literal(name: String, value: String) -> EnvVar {
    EnvVar { name, value: Some(value), value_from: None }
}

/// Every variable in which a kubelet tells where the API server is.
fn api_server_variables(ApiServer { host, port, .. }: &ApiServer) -> Vec<EnvVar> {
    let url = format!("tcp://{host}:{port}");
    let by_port = |named: &str| {
        let prefix = format!("KUBERNETES_PORT_{named}_TCP");
        [
            (prefix.clone(), url.clone()),
            (format!("{prefix}_PROTO"), "tcp".to_owned()),
            (format!("{prefix}_ADDR"), host.clone()),
            (format!("{prefix}_PORT"), port.clone()),
        ]
    };
    let mut all = vec![
        ("KUBERNETES_SERVICE_HOST".to_owned(), host.clone()),
        ("KUBERNETES_SERVICE_PORT".to_owned(), port.clone()),
        ("KUBERNETES_PORT".to_owned(), url.clone()),
    ];
    all.extend(by_port(port));
    // Liqo 0.8.3 leaves the variables below to the provider's kubelet, which names the provider's API server.
    all.push(("KUBERNETES_SERVICE_PORT_HTTPS".to_owned(), port.clone()));
    if port != API_SERVICE_PORT {
        all.extend(by_port(API_SERVICE_PORT));
    }
    all.into_iter().map(|(name, value)| literal(name, value)).collect()
}

/// Points the sources of a projected volume to their twins.
fn project(volume: &mut ProjectedVolumeSource, pod: &str, name: &str, home_cluster_id: &str, support: &ApiSupport) {
    let Some(sources) = &mut volume.sources else { return };
    let project = |mut source: VolumeProjection| {
        if let Some(map) = &mut source.config_map {
            map.name = config_map::name_there(&map.name, home_cluster_id);
        }
        if let Some(wanted) = source.service_account_token.take() {
            if *support == ApiSupport::Disabled {
                return None;
            }
            let key = token::key(name, &wanted.path);
            source.secret = Some(SecretProjection {
                name: token::secret_name(pod),
                items: Some(vec![KeyToPath { key, path: wanted.path, ..KeyToPath::default() }]),
                optional: None,
            });
        }
        Some(source)
    };
    *sources = std::mem::take(sources).into_iter().filter_map(project).collect();
}

#[cfg(test)]
mod tests;
