//! Everything that runs for one pair of namespaces.
//!
//! Six watches there and five here; pods here come from the one watch of the node. Dropping a [`Pair`]
//! stops all of it.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::api::{
    core::v1::{ConfigMap, Pod, Secret, Service},
    discovery::v1::EndpointSlice,
};
use kube::ResourceExt;
use liqo_api::virtualkubelet::{ShadowEndpointSlice, ShadowPod};
use liqo_kube::{
    Queue, Store, drive, strip,
    twin::{Mirror, Parts, Reflect},
};
use tokio::task::JoinHandle;

use super::{
    ApiSupport, Cx, Place, complaint, component,
    config_map::ConfigMaps,
    endpoint_slice::{EndpointSlices, has_address, service_of},
    ingress::Ingresses,
    needs::Needs,
    pod::Pods,
    secret::Secrets,
    service::Services,
    token::{self, Sent, Tokens},
    twin_meta::{is_skipped, keep_ours, trim_config_map, trim_pod, trim_secret},
    users::{Users, is_on_demand},
};

/// What runs for one pair of namespaces.
pub(super) struct Pair {
    there: String,
    pods_there: Option<Store<Pod>>,
    slices: Option<Slices>,
    pods: Queue<String>,
    tokens: Option<Queue<String>>,
    users: Option<Arc<Users>>,
    _mirrors: Vec<Mirror>,
    _tasks: Vec<Task>,
}

/// Endpoint slices here, and their twins.
#[derive(Clone)]
pub(super) struct Slices {
    here: Store<EndpointSlice>,
    there: Store<ShadowEndpointSlice>,
}

impl Slices {
    /// Returns when all of them are known.
    pub(super) async fn ready(&self) {
        self.here.ready().await;
        self.there.ready().await;
    }

    /// Whether an endpoint here has this address.
    pub(super) fn have(&self, ip: IpAddr) -> bool {
        !self.here.filter(|slice| has_address(slice, ip)).is_empty()
    }
}

/// A task that ends with what it belongs to.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Pair {
    /// A pod of the namespace came, changed or went.
    pub(super) fn saw(&self, pod: String) {
        if let Some(users) = &self.users {
            users.saw(&pod);
        }
        if let Some(tokens) = &self.tokens {
            tokens.push(pod.clone());
        }
        if self.pods_there.is_some() {
            self.pods.push(pod);
        }
    }

    /// Name of the namespace there.
    pub(super) fn there(&self) -> &str {
        &self.there
    }

    /// The endpoint slices of the pair; none while they are not reflected.
    pub(super) fn slices(&self) -> Option<&Slices> {
        self.slices.as_ref()
    }

    pub(super) fn place(&self) -> Place {
        Place { namespace: self.there.clone(), pods: self.pods_there.clone() }
    }
}

/// Starts all mirrors of a pair of namespaces. `pods` are those of the node, in all namespaces.
pub(super) fn start(cx: &Arc<Cx>, pods: &Store<Pod>, here: &str, there: &str) -> Pair {
    let mut build = Build { cx, here, there, secrets_here: None, users: None, mirrors: Vec::new(), tasks: Vec::new() };
    let workers = &cx.workers;
    let config_maps = build.plain(
        "ConfigMap",
        ConfigMaps(Arc::clone(&cx.link)),
        workers.config_map,
        trim_config_map as fn(&mut ConfigMap),
    );
    build.plain("Ingress", Ingresses(Arc::clone(&cx.link)), workers.ingress, keep_ours);
    let slices = build.services();
    let queue = Queue::new();
    let (secrets, tokens) = build.secrets(pods, &queue);
    let secrets_here = build.secrets_here.take();
    let needs = Needs { link: Arc::clone(&cx.link), namespace: here.to_owned(), secrets: secrets_here, config_maps };
    let (tokens, sent) = tokens.unzip();
    let secrets = (secrets, sent);
    let pods_there = (workers.pod > 0).then(|| build.pods(pods, &queue, secrets, needs));
    let Build { mirrors, tasks, users, .. } = build;
    Pair { there: there.to_owned(), pods_there, slices, pods: queue, tokens, users, _mirrors: mirrors, _tasks: tasks }
}

/// A pair that is being started.
struct Build<'a> {
    cx: &'a Arc<Cx>,
    here: &'a str,
    there: &'a str,
    /// Secrets here, once they are reflected.
    secrets_here: Option<Store<Secret>>,
    /// Who uses them, once they are reflected.
    users: Option<Arc<Users>>,
    mirrors: Vec<Mirror>,
    tasks: Vec<Task>,
}

impl Build<'_> {
    /// A kind whose twins are watched for nothing but themselves.
    fn plain<R>(
        &mut self,
        kind: &'static str,
        reflector: R,
        workers: usize,
        trim: fn(&mut R::There),
    ) -> Option<Store<R::Here>>
    where
        R: Reflect<Seen = <R as Reflect>::There> + Clone,
    {
        if workers == 0 {
            return None;
        }
        let queue = Queue::new();
        let sources = self.cx.home.watch::<R::Here>(self.here).start(push(&queue));
        let twins = self.twins(&reflector, &queue, trim);
        self.mirror(kind, workers, Kinds { reflector, queue, sources: sources.clone(), twins, seen: None });
        Some(sources)
    }

    /// Twins of a kind, which wake up their sources.
    fn twins<R: Reflect + Clone>(
        &self,
        reflector: &R,
        queue: &Queue<String>,
        trim: fn(&mut R::There),
    ) -> Store<R::There> {
        let (reflector, queue) = (reflector.clone(), queue.clone());
        self.cx.there.watch::<R::There>(self.there).trim(trim).start(move |twin| {
            if let Some(name) = reflector.name_here(&twin.name_any()) {
                queue.push(name);
            }
        })
    }

    fn mirror<R: Reflect>(&mut self, kind: &'static str, workers: usize, kinds: Kinds<R>) {
        let Kinds { reflector, queue, sources, twins, seen } = kinds;
        let (counters, namespace) = (Arc::clone(&self.cx.counters), self.here.to_owned());
        self.mirrors.push(Mirror::start(Parts {
            reflector,
            here: self.cx.home.clone(),
            there: self.cx.there.clone(),
            namespace_here: self.here.to_owned(),
            namespace_there: self.there.to_owned(),
            sources,
            twins,
            seen,
            queue,
            workers,
            component: component(kind),
            peer: self.cx.link.there.cluster_name.clone(),
            settled: Some(Box::new(move |well| counters.add(kind, &namespace, well))),
        }));
    }

    fn task(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(Task(tokio::spawn(task)));
    }

    /// Services, and their endpoints, which a Service can take out of reflection.
    fn services(&mut self) -> Option<Slices> {
        let workers = &self.cx.workers;
        let queue = Queue::new();
        if workers.endpoint_slice == 0 || self.cx.addresses.are_hidden() {
            self.plain("Service", Services::new(self.cx, self.here, self.there), workers.service, keep_ours);
            return None;
        }
        let slice_queue = Queue::new();
        let slices: Store<EndpointSlice> = self.cx.home.watch(self.here).start(push(&slice_queue));
        let services: Store<Service> = self.cx.home.watch(self.here).start({
            let (queue, slice_queue, slices) = (queue.clone(), slice_queue.clone(), slices.clone());
            move |service: &Service| {
                let name = service.name_any();
                if is_skipped(service) {
                    let its = slices.filter(|slice| service_of(slice) == Some(&name));
                    its.iter().for_each(|slice| slice_queue.push(slice.name_any()));
                }
                queue.push(name);
            }
        });
        let slices = self.slices(slices, services.clone(), slice_queue);
        if self.cx.workers.service > 0 {
            let reflector = Services::new(self.cx, self.here, self.there);
            let twins = self.twins(&reflector, &queue, keep_ours);
            self.mirror(
                "Service",
                self.cx.workers.service,
                Kinds { reflector, queue, sources: services, twins, seen: None },
            );
        }
        Some(slices)
    }

    fn slices(&mut self, slices: Store<EndpointSlice>, services: Store<Service>, queue: Queue<String>) -> Slices {
        let (known, here) = (services.clone(), self.here.to_owned());
        let skipped = move |name: &str| {
            let service = known.is_ready().then(|| known.get(&here, name))?;
            Some(service.is_some_and(|service| is_skipped(&*service)))
        };
        let view = Arc::new(self.cx.addresses.endpoints(&format!("slices/{}", self.here), &queue));
        let reflector = EndpointSlices {
            link: Arc::clone(&self.cx.link),
            service_skipped: Arc::new(skipped),
            view: Arc::clone(&view),
            complain: complaint::by_event(&self.cx.home, "EndpointSlice", complaint::FAILED),
        };
        let twins = self.twins(&reflector, &queue, keep_ours as fn(&mut ShadowEndpointSlice));
        let both = Slices { here: slices.clone(), there: twins.clone() };
        let (all, again) = (both.clone(), queue.clone());
        self.task(async move {
            // Slices seen before the Services were left alone; some that wanted addresses may be gone on both sides.
            services.ready().await;
            all.ready().await;
            all.here.all().iter().for_each(|slice| again.push(slice.name_any()));
            view.wishes().iter().flat_map(|wishes| wishes.names()).for_each(|name| again.push(name));
        });
        let kinds = Kinds { reflector, queue, sources: slices, twins, seen: None };
        self.mirror("EndpointSlice", self.cx.workers.endpoint_slice, kinds);
        both
    }

    /// Secrets, and secrets with tokens for pods: both look at the secrets there. Gives the secrets there, the queue of the tokens,
    /// and which tokens were written lately.
    fn secrets(&mut self, pods: &Store<Pod>, pod_queue: &Queue<String>) -> (Option<Store<Secret>>, Option<Tokened>) {
        let workers = &self.cx.workers;
        let with_tokens = self.cx.support != ApiSupport::Disabled && workers.service_account > 0;
        if !with_tokens && workers.secret == 0 {
            return (None, None);
        }
        let (queue, tokens) = (Queue::new(), Queue::new());
        if workers.secret > 0 {
            let sources = self.cx.home.watch::<Secret>(self.here).trim(strip).start(push(&queue));
            self.secrets_here = Some(sources.clone());
            self.users = Some(Arc::new(Users::new(self.here, pods.clone(), sources, queue.clone())));
        }
        let twins: Store<Secret> = self.cx.there.watch(self.there).trim(trim_secret).start({
            let (queue, tokens, pod_queue, users) =
                (queue.clone(), tokens.clone(), pod_queue.clone(), self.users.clone());
            move |secret: &Secret| {
                if let Some(pod) = token::pod_of(secret) {
                    tokens.push(pod.to_owned());
                    pod_queue.push(pod.to_owned());
                }
                if let Some(users) = users.as_ref().filter(|_| is_on_demand(secret)) {
                    users.of(&secret.name_any()).into_iter().for_each(|pod| pod_queue.push(pod));
                }
                queue.push(secret.name_any());
            }
        });
        if let (Some(sources), Some(users)) = (self.secrets_here.clone(), self.users.clone()) {
            let reflector =
                Secrets { link: Arc::clone(&self.cx.link), needed: Arc::new(move |secret| users.need(secret)) };
            let (all, known, again) = (pods.clone(), sources.clone(), queue.clone());
            self.task(async move {
                // Before the pods were known, secrets that are there on demand were left alone.
                all.ready().await;
                known.ready().await;
                known.filter(is_on_demand).iter().for_each(|secret| again.push(secret.name_any()));
            });
            let kinds = Kinds { reflector, queue, sources, twins: twins.clone(), seen: None };
            self.mirror("Secret", workers.secret, kinds);
        }
        let tokens = with_tokens.then(|| {
            let sent = self.tokens(pods, twins.clone(), (tokens.clone(), pod_queue.clone()));
            (tokens, sent)
        });
        (Some(twins), tokens)
    }

    fn tokens(
        &mut self,
        pods: &Store<Pod>,
        secrets: Store<Secret>,
        (queue, pods_queue): (Queue<String>, Queue<String>),
    ) -> Arc<Sent> {
        let sent = Arc::new(Sent::default());
        let tokens = Tokens {
            cx: Arc::clone(self.cx),
            namespace_here: self.here.to_owned(),
            namespace_there: self.there.to_owned(),
            pods: pods.clone(),
            secrets: secrets.clone(),
            told: Default::default(),
            sent: Arc::clone(&sent),
            pods_queue,
        };
        let (workers, swept, namespace) = (self.cx.workers.service_account, queue.clone(), self.here.to_owned());
        let all = pods.clone();
        self.task(async move {
            loop {
                tokio::time::sleep(token::SWEEP).await;
                let pods = all.filter(|pod| pod.metadata.namespace.as_deref() == Some(&namespace));
                pods.iter().for_each(|pod| swept.push(pod.name_any()));
            }
        });
        let all = pods.clone();
        self.task(async move {
            all.ready().await;
            secrets.ready().await;
            drive("token", queue, workers, |pod| tokens.settle(pod)).await;
        });
        sent
    }

    /// Pods: a shadow goes out, the status of the pod made from it comes back.
    fn pods(
        &mut self,
        pods: &Store<Pod>,
        queue: &Queue<String>,
        (secrets, sent): (Option<Store<Secret>>, Option<Arc<Sent>>),
        needs: Needs,
    ) -> Store<Pod> {
        let shadows: Store<ShadowPod> = self.cx.there.watch(self.there).trim(keep_ours).start(push(queue));
        let seen: Store<Pod> = self.cx.there.watch(self.there).trim(trim_pod).start(push(queue));
        let (all, here, there) = (pods.clone(), self.here.to_owned(), self.there.to_owned());
        let users = self.users.clone();
        let provided = move |pod: &Pod| {
            let Some(secrets) = &secrets else { return true };
            let token = || secrets.get(&there, &token::secret_name(&pod.name_any()));
            let is_there = |name: &str| secrets.get(&there, name).is_some();
            sent.as_ref().is_none_or(|sent| sent.lately(pod) || token::are_there(pod, token().as_deref()))
                && users.as_ref().is_none_or(|users| users.are_served(pod, is_there))
        };
        self.remapped(&all, queue);
        let exists = move |name: &str| all.get(&here, name).is_some();
        let kinds = Kinds {
            reflector: Pods::new(self.cx, (self.here, queue), needs, provided, exists),
            queue: queue.clone(),
            sources: pods.clone(),
            twins: shadows,
            seen: Some(seen.clone()),
        };
        self.mirror("Pod", self.cx.workers.pod, kinds);
        seen
    }
}

impl Build<'_> {
    /// Looks at all pods again when the networks of the tunnel change, since their addresses change with them.
    fn remapped(&mut self, pods: &Store<Pod>, queue: &Queue<String>) {
        let Some(mut remappings) = self.cx.addresses.remappings() else { return };
        let (pods, queue, namespace) = (pods.clone(), queue.clone(), self.here.to_owned());
        self.task(async move {
            while remappings.changed().await.is_ok() {
                let ours = pods.filter(|pod| pod.metadata.namespace.as_deref() == Some(&namespace));
                ours.iter().for_each(|pod| queue.push(pod.name_any()));
            }
        });
    }
}

/// The queue of tokens, and which were written lately.
type Tokened = (Queue<String>, Arc<Sent>);

/// What a mirror is made of.
struct Kinds<R: Reflect> {
    reflector: R,
    queue: Queue<String>,
    sources: Store<R::Here>,
    twins: Store<R::There>,
    seen: Option<Store<R::Seen>>,
}

/// Pushes the names of objects.
fn push<K: kube::Resource>(queue: &Queue<String>) -> impl Fn(&K) + Send + Sync + 'static {
    let queue = queue.clone();
    move |object| queue.push(object.name_any())
}
