//! What a request to the kubelet API means, and what it becomes there.

use http::Method;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// The pods of the node.
    Pods,
    /// The log of a container.
    Logs(Target),
    /// A connection to a pod, with the subresource it is made through.
    Stream(&'static str, Target),
    /// Use of resources by pods.
    Summary,
    /// Metrics, by the path at the peer's metric agent.
    Metrics(&'static str),
    /// Whether this process lives.
    Health,
}

/// A pod here, and one of its containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) container: Option<String>,
}

/// What a path means; `None` if nothing.
pub(super) fn route(path: &str) -> Option<Route> {
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
    let target = |namespace: &str, pod: &str, container: Option<&str>| Target {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        container: container.map(str::to_owned),
    };
    Some(match parts[..] {
        ["pods"] | ["runningpods"] => Route::Pods,
        ["healthz"] => Route::Health,
        ["stats", "summary"] => Route::Summary,
        ["metrics"] => Route::Metrics("metrics"),
        ["metrics", "resource"] => Route::Metrics("metrics/resource"),
        ["metrics", "cadvisor"] => Route::Metrics("metrics/cadvisor"),
        ["metrics", "probes"] => Route::Metrics("metrics/probes"),
        ["containerLogs", namespace, pod, container] => Route::Logs(target(namespace, pod, Some(container))),
        // Callers may name the UID of the pod too.
        ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container] => {
            Route::Stream("exec", target(namespace, pod, Some(container)))
        }
        ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container] => {
            Route::Stream("attach", target(namespace, pod, Some(container)))
        }
        ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
            Route::Stream("portforward", target(namespace, pod, None))
        }
        _ => return None,
    })
}

/// The path there of something about a pod. Values of the query stay as they are encoded.
pub(super) fn path_there(namespace: &str, target: &Target, subresource: &str, query: Option<&str>) -> String {
    let parts = query.unwrap_or_default().split('&').filter(|part| !part.is_empty());
    let mut parts: Vec<_> =
        parts.map(|part| if subresource == "log" { part.to_owned() } else { renamed(part) }).collect();
    if let Some(container) = &target.container {
        parts.push(format!("container={container}"));
    }
    let mark = if parts.is_empty() { "" } else { "?" };
    format!("/api/v1/namespaces/{namespace}/pods/{}/{subresource}{mark}{}", target.pod, parts.join("&"))
}

/// A parameter of a kubelet as the API server calls it.
fn renamed(part: &str) -> String {
    let (key, value) = part.split_once('=').unwrap_or((part, ""));
    let yes = if matches!(value, "1" | "true") { "true" } else { "false" };
    match key {
        "input" => format!("stdin={yes}"),
        "output" => format!("stdout={yes}"),
        "error" => format!("stderr={yes}"),
        "tty" => format!("tty={yes}"),
        "port" => format!("ports={value}"),
        _ => part.to_owned(),
    }
}

/// What somebody must be allowed to do with the node: verb and subresource. As kubelets ask, but for connections into
/// pods: those are made with GET, too, and reading is not enough for them.
pub(super) fn permission(method: &Method, path: &str) -> (&'static str, &'static str) {
    let verb = match *method {
        _ if matches!(route(path), Some(Route::Stream(..))) => "create",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    };
    let subresource = match path.split('/').find(|part| !part.is_empty()) {
        Some("stats") => "stats",
        Some("logs") => "log",
        Some("metrics") => "metrics",
        _ => "proxy",
    };
    (verb, subresource)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(container: Option<&str>) -> Target {
        Target { namespace: "demo".into(), pod: "web".into(), container: container.map(str::to_owned) }
    }

    #[test]
    fn paths_mean_what_kubelets_mean() {
        let cases = [
            ("/pods", Some(Route::Pods)),
            ("/runningpods/", Some(Route::Pods)),
            ("/containerLogs/demo/web/c", Some(Route::Logs(target(Some("c"))))),
            ("/exec/demo/web/c", Some(Route::Stream("exec", target(Some("c"))))),
            ("/exec/demo/web/uid/c", Some(Route::Stream("exec", target(Some("c"))))),
            ("/attach/demo/web/c", Some(Route::Stream("attach", target(Some("c"))))),
            ("/portForward/demo/web", Some(Route::Stream("portforward", target(None)))),
            ("/portForward/demo/web/uid", Some(Route::Stream("portforward", target(None)))),
            ("/stats/summary", Some(Route::Summary)),
            ("/metrics", Some(Route::Metrics("metrics"))),
            ("/metrics/resource", Some(Route::Metrics("metrics/resource"))),
            ("/metrics/other", None),
            ("/run/demo/web/c", None),
            ("/", None),
        ];
        for (path, expected) in cases {
            assert_eq!(route(path), expected, "{path}");
        }
    }

    #[test]
    fn parameters_are_called_as_there() {
        let path = |sub, container, query| path_there("there", &target(container), sub, query);
        assert_eq!(
            path("exec", Some("c"), Some("command=sh&command=-c&command=echo%20%26&input=1&output=1&error=1&tty=1")),
            "/api/v1/namespaces/there/pods/web/exec?command=sh&command=-c&command=echo%20%26&stdin=true&stdout=true&stderr=true&tty=true&container=c"
        );
        assert_eq!(
            path("attach", Some("c"), Some("output=1&tty=0")),
            "/api/v1/namespaces/there/pods/web/attach?stdout=true&tty=false&container=c"
        );
        assert_eq!(path("portforward", None, None), "/api/v1/namespaces/there/pods/web/portforward");
        assert_eq!(
            path("portforward", None, Some("port=80")),
            "/api/v1/namespaces/there/pods/web/portforward?ports=80"
        );
        assert_eq!(
            path("log", Some("c"), Some("follow=true&tailLines=5&sinceTime=2026-11-20T23%3A23%3A26Z")),
            "/api/v1/namespaces/there/pods/web/log?follow=true&tailLines=5&sinceTime=2026-11-20T23%3A23%3A26Z&container=c"
        );
    }

    #[test]
    fn permissions_are_those_kubelets_ask_for() {
        for path in ["/exec/a/b/c", "/exec/a/b/uid/c", "/attach/a/b/c", "/portForward/a/b"] {
            assert_eq!(permission(&Method::GET, path), ("create", "proxy"), "{path}");
        }
        assert_eq!(permission(&Method::POST, "/exec/a/b/c"), ("create", "proxy"));
        assert_eq!(permission(&Method::GET, "/containerLogs/a/b/c"), ("get", "proxy"));
        assert_eq!(permission(&Method::GET, "/stats/summary"), ("get", "stats"));
        assert_eq!(permission(&Method::GET, "/metrics/resource"), ("get", "metrics"));
        assert_eq!(permission(&Method::GET, "/pods"), ("get", "proxy"));
    }

    /// Every path that is asked of the other cluster names one pod in the remote namespace, whatever the request was.
    #[test]
    fn fuzz_kubelet_paths() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "kubelet_path", |bytes| {
            let Ok(uri) = http::Uri::try_from(bytes) else { return };
            let (target, subresource) = match route(uri.path()) {
                Some(Route::Logs(target)) => (target, "log"),
                Some(Route::Stream(subresource, target)) => (target, subresource),
                _ => return,
            };
            assert!(!target.pod.contains(['/', '?', '#']) && !target.namespace.contains('/'));
            let path = path_there("there", &target, subresource, uri.query());
            let rest = path.strip_prefix("/api/v1/namespaces/there/pods/").unwrap();
            assert_eq!(rest.split('?').next(), Some(&*format!("{}/{subresource}", target.pod)));
            assert_eq!(permission(&Method::GET, uri.path()).1, "proxy");
        });
    }
}
