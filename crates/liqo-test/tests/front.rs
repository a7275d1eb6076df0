//! The front and the status page on it, as people and programs meet them: on real clusters, with real users and rights.

mod front {
    pub(crate) mod browser;
    pub(crate) mod http;
}

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use front::{
    browser,
    http::{Answer, Site},
};
use liqo_api::role::Runs;
use liqo_test::{Cluster, ClusterSpec, Stage, metrics, stage::LONG, story::Suite, wait_for};
use serde_json::{Value, json};

static SUITE: Suite<Front> = Suite::new("front", raise);

/// Two peered clusters; rome has the status page and three users.
struct Front {
    stage: Stage,
    site: Site,
    /// May list everything that the page shows.
    viewer: String,
    /// May list pods and offloadings in the namespace demo.
    tenant: String,
    /// May list nothing.
    nobody: String,
}

impl AsMut<Stage> for Front {
    fn as_mut(&mut self) -> &mut Stage {
        &mut self.stage
    }
}

const USERS: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: viewer, namespace: default}}
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: tenant, namespace: default}}
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: nobody, namespace: default}}
- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRole
  metadata: {name: viewer}
  rules:
  - {apiGroups: [''], resources: [nodes, pods], verbs: [list]}
  - {apiGroups: [discovery.liqo.io], resources: [foreignclusters], verbs: [list]}
  - {apiGroups: [net.liqo.io], resources: [tunnelendpoints], verbs: [list]}
  - {apiGroups: [offloading.liqo.io], resources: [namespaceoffloadings], verbs: [list]}
- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRoleBinding
  metadata: {name: viewer}
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: viewer}
  subjects: [{kind: ServiceAccount, name: viewer, namespace: default}]
- apiVersion: rbac.authorization.k8s.io/v1
  kind: RoleBinding
  metadata: {name: tenant, namespace: demo}
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: viewer}
  subjects: [{kind: ServiceAccount, name: tenant, namespace: default}]
";

/// Anybody may read the keys with which tokens are signed.
const KEYS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: keys-for-all}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: 'system:service-account-issuer-discovery'}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'system:unauthenticated'}]
";

fn raise() -> Result<Front> {
    let stage = Stage::of("front", vec![ClusterSpec::new("rome", 1), ClusterSpec::new("milan", 2).own_issuer()])?;
    stage.cluster("milan").apply(KEYS)?;
    stage.cluster("rome").trusts(stage.cluster("milan"))?;
    let jobs = "jobs.enabled=true,jobs.store.persistence.enabled=false";
    stage.install_all(&["--set", "status.enabled=true", "--set", "status.service.type=NodePort", "--set", jobs])?;
    let rome = stage.cluster("rome");
    stage.peer(rome, stage.cluster("milan"))?;
    for namespace in ["demo", "other"] {
        stage.offload(rome, namespace, &["--pod-offloading-strategy", "Remote"])?;
        rome.web(namespace, "web", 1, "")?;
    }
    rome.apply(USERS)?;
    let token = |name: &str| Ok::<_, anyhow::Error>(rome.kubectl(&["create", "token", name])?.trim().to_owned());
    let (viewer, tenant, nobody) = (token("viewer")?, token("tenant")?, token("nobody")?);
    for namespace in ["demo", "other"] {
        rome.rolled_out(namespace, "web")?;
    }
    rome.rolled_out("liqo", "liqo-status")?;
    let service = rome.json(&["service", "-n", "liqo", "liqo-status"])?;
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().context("no node port")?;
    let site = Site::new(format!("https://{}:{port}", rome.node_ip()));
    wait_for("the page counts both pods", LONG, || {
        let status = site.get("/api/v1/status", &viewer)?.json()?;
        Ok((status["podsElsewhere"] == 2 && status["peersEstablished"] == 1).then_some(()))
    })?;
    Ok(Front { stage, site, viewer, tenant, nobody })
}

/// A refusal is a problem document with this status, and the same status in its words.
fn problem(answer: &Answer, status: u16) -> Result<Value> {
    ensure!(answer.status == status, "{} instead of {status}: {}", answer.status, answer.body);
    ensure!(answer.header("content-type") == Some("application/problem+json"), "{}", answer.head);
    let problem = answer.json()?;
    ensure!(problem["status"] == status && problem["type"] == "about:blank", "{problem}");
    ensure!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
    Ok(problem)
}

fn names(answer: &Answer) -> Result<Vec<String>> {
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
    let items = answer.json()?["items"].as_array().cloned().context("no items")?;
    Ok(items.iter().map(|item| item["name"].as_str().unwrap_or_default().to_owned()).collect())
}

#[test]
fn each_caller_sees_what_the_caller_may_list() -> Result<()> {
    SUITE.tell(|front| {
        let Front { site, viewer, tenant, nobody, stage } = front;
        // Nobody known: one refusal for whatever there is or not.
        for path in ["/", "/api/v1/peers", "/openapi.json", "/no/such/path"] {
            let answer = site.get(path, "")?;
            problem(&answer, 401)?;
            ensure!(answer.header("www-authenticate").is_some(), "{}", answer.head);
            problem(&site.get(path, "not.a.token")?, 401)?;
        }
        // Who may list everything.
        ensure!(names(&site.get("/api/v1/peers", viewer)?)? == ["milan"]);
        ensure!(names(&site.get("/api/v1/namespaces", viewer)?)? == ["demo", "other"]);
        let peer = site.get("/api/v1/peers/milan", viewer)?.json()?;
        ensure!(peer["state"] == "Established" && peer["gives"]["cpuMilli"].as_u64() > Some(0), "{peer}");
        problem(&site.get("/api/v1/peers/paris", viewer)?, 404)?;
        problem(&site.get("/no/such/path", viewer)?, 404)?;
        // Who may list in one namespace.
        problem(&site.get("/api/v1/peers", tenant)?, 403)?;
        ensure!(names(&site.get("/api/v1/namespaces", tenant)?)? == ["demo"]);
        let pods = site.get("/api/v1/pods", tenant)?.json()?;
        let shown = pods["items"].as_array().cloned().context("no items")?;
        ensure!(!shown.is_empty() && shown.iter().all(|pod| pod["namespace"] == "demo"), "{pods}");
        ensure!(pods["onlyIn"] == json!(["demo"]), "{pods}");
        problem(&site.get("/api/v1/pods?namespace=other", tenant)?, 403)?;
        let status = site.get("/api/v1/status", tenant)?;
        ensure!(status.json()?["podsElsewhere"] == shown.len() && !status.body.contains("milan"), "{}", status.body);
        // Who may list nothing.
        for kind in ["peers", "namespaces", "pods"] {
            let refusal = problem(&site.get(&format!("/api/v1/{kind}"), nobody)?, 403)?;
            let detail = refusal["detail"].as_str().unwrap_or_default();
            ensure!(detail.contains("system:serviceaccount:default:nobody"), "{refusal}");
        }
        let hidden = site.get("/api/v1/status", nobody)?.json()?["hidden"].as_array().map(Vec::len);
        ensure!(hidden == Some(5), "{hidden:?} kinds are hidden");
        // A client certificate of the cluster counts, too.
        let administrator = site.with_certificate("/api/v1/peers", &stage.cluster("rome").kubeconfig())?;
        ensure!(names(&administrator)? == ["milan"]);
        decisions_are_in_the_log(stage.cluster("rome"))
    })
}

fn decisions_are_in_the_log(rome: &Cluster) -> Result<()> {
    let log = rome.kubectl(&["logs", "-n", "liqo", "deployment/liqo-status"])?;
    for words in [
        &["request answered", "user=\"system:serviceaccount:default:nobody\"", "/api/v1/peers", "status=403"][..],
        &["access reviewed", "user=\"system:serviceaccount:default:viewer\"", "foreignclusters", "allowed=true"],
        &["request answered", "user=\"\"", "status=401"],
    ] {
        let told = log.lines().any(|line| line.contains("audit") && words.iter().all(|word| line.contains(word)));
        ensure!(told, "{words:?} is not in the log:\n{log}");
    }
    ensure!(!log.contains("eyJ"), "a token is in the log");
    Ok(())
}

#[test]
fn every_role_serves_the_metrics_of_the_guide() -> Result<()> {
    SUITE.tell(|front| {
        let rome = front.stage.cluster("rome");
        for name in ["liqo-jobs", "liqo-jobs-api"] {
            rome.rolled_out("liqo-jobs-system", name)?;
        }
        // The stories of networks and of the market look at the others.
        let is_elsewhere = |runs| {
            matches!(runs, Runs::Networks | Runs::NetworksOnEachNode | Runs::ForJob | Runs::Broker | Runs::Agent)
        };
        metrics::are_those_of_the_guide(rome, |runs| !is_elsewhere(runs))?;
        metrics::count_work(rome)
    })
}

#[test]
fn what_is_known_is_not_sent_again_and_lists_come_in_pages() -> Result<()> {
    SUITE.tell(|front| {
        let (site, viewer) = (&front.site, &front.viewer);
        let first = site.get("/api/v1/namespaces", viewer)?;
        let tag = first.header("etag").context("no tag")?.to_owned();
        let again = site.ask("/api/v1/namespaces", viewer, &["-H", &format!("If-None-Match: {tag}")])?;
        ensure!(again.status == 304 && again.body.is_empty() && again.header("etag") == Some(&*tag), "{}", again.head);
        problem(&site.ask("/api/v1/namespaces", viewer, &["-H", "If-Match: \"other\""])?, 412)?;
        ensure!(site.ask("/api/v1/namespaces", viewer, &["-H", &format!("If-Match: {tag}")])?.status == 200);

        let page = site.get("/api/v1/namespaces?limit=1", viewer)?.json()?;
        let next = page["next"].as_str().context("no next page")?;
        let rest = site.get(&format!("/api/v1/namespaces?limit=1&after={next}"), viewer)?;
        ensure!(names(&rest)? == ["other"] && rest.json()?.get("next").is_none(), "{}", rest.body);
        problem(&site.get("/api/v1/namespaces?limit=501", viewer)?, 400)?;
        problem(&site.get("/api/v1/namespaces?after=%25", viewer)?, 400)?;
        problem(&site.ask("/api/v1/peers", viewer, &["-H", "Accept: image/png"])?, 406)?;
        let refused = site.ask("/api/v1/peers", viewer, &["-X", "DELETE"])?;
        problem(&refused, 405)?;
        ensure!(refused.header("allow").is_some_and(|allow| allow.contains("GET")), "{}", refused.head);
        every_path_of_the_document_is_there(site, viewer)
    })
}

fn every_path_of_the_document_is_there(site: &Site, viewer: &str) -> Result<()> {
    let document = site.get("/openapi.json", viewer)?.json()?;
    ensure!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1.")), "{document}");
    let paths = document["paths"].as_object().context("no paths")?;
    ensure!(paths.len() == 6, "{:?}", paths.keys());
    for (path, item) in paths {
        ensure!(item["get"]["summary"].is_string() && item["get"]["responses"]["200"].is_object(), "{path}: {item}");
        let status = match path.as_str() {
            "/api/v1/events" => continue,
            path => site.get(&path.replace("{name}", "milan"), viewer)?.status,
        };
        ensure!(status == 200, "{path}: {status}");
    }
    // Every reference leads somewhere.
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        ensure!(document.pointer(reference).is_some(), "{reference} leads nowhere");
    }
    Ok(())
}

#[test]
fn a_stream_tells_changes_and_ends_with_the_right_to_see_them() -> Result<()> {
    SUITE.tell(|front| {
        let (site, rome) = (&front.site, front.stage.cluster("rome"));
        let stream = site.follow("/api/v1/events", &front.tenant)?;
        stream.has("event: begin", Duration::from_secs(10))?;
        let scale = |namespace: &str| {
            rome.kubectl(&["scale", "-n", namespace, "deployment/web", "--replicas=2"])?;
            rome.rolled_out(namespace, "web")
        };
        scale("other")?;
        scale("demo")?;
        stream.has("\"phase\":\"Running\"", Duration::from_secs(20))?;
        let told = stream.text()?;
        ensure!(told.contains("event: change") && told.contains("\"name\":\"demo/web-"), "{told}");
        ensure!(!told.contains("other") && !told.contains("milan\",\"state"), "the stream tells too much: {told}");
        // Without the token's user there is no stream any more.
        rome.kubectl(&["delete", "serviceaccount", "tenant"])?;
        stream.has("event: problem", Duration::from_secs(40))?;
        ensure!(stream.text()?.contains("\"status\":401"), "{}", stream.text()?);
        problem(&site.get("/api/v1/pods", &front.tenant)?, 401)?;
        rome.apply(USERS)?;
        front.tenant = rome.kubectl(&["create", "token", "tenant"])?.trim().to_owned();
        Ok(())
    })
}

#[test]
fn a_browser_gets_a_session_and_no_other_site_uses_it() -> Result<()> {
    SUITE.tell(|front| {
        let (site, viewer) = (&front.site, &front.viewer);
        let page = site.ask("/", "", &["-H", "Accept: text/html"])?;
        ensure!(page.status == 401 && page.body.contains("action=\"/front/sign-in\""), "{}", page.body);
        ensure!(!page.body.contains("rome"), "strangers are told which cluster this is");
        for header in ["content-security-policy", "x-content-type-options", "referrer-policy"] {
            ensure!(page.header(header).is_some(), "no {header}: {}", page.head);
        }
        let form = format!("token={viewer}");
        let sign_in = |origin: &str| site.ask("/front/sign-in", "", &["--data", &form, "-H", origin]);
        problem(&sign_in("Sec-Fetch-Site: cross-site")?, 403)?;
        problem(&sign_in("Origin: https://evil.example")?, 403)?;
        let wrong = site.ask("/front/sign-in", "", &["--data", "token=a.b.c", "-H", "Sec-Fetch-Site: same-origin"])?;
        ensure!(wrong.status == 401 && wrong.header("set-cookie").is_none(), "{}", wrong.head);
        let answer = sign_in("Sec-Fetch-Site: same-origin")?;
        let cookie = answer.header("set-cookie").context("no cookie")?;
        ensure!(answer.status == 303 && !cookie.contains(viewer.as_str()), "{}", answer.head);
        for part in ["__Host-", "Secure", "HttpOnly", "SameSite=Strict", "Max-Age=3600"] {
            ensure!(cookie.contains(part), "{cookie}");
        }
        let cookie = format!("Cookie: {}", cookie.split(';').next().unwrap_or_default());
        let page = site.ask("/", "", &["-H", "Accept: text/html", "-H", &cookie])?;
        for part in ["milan", "Established", "Nothing needs you.", "system:serviceaccount:default:viewer"] {
            ensure!(page.body.contains(part), "{part} is not on the page: {}", page.body);
        }
        ensure!(site.ask("/api/v1/peers", "", &["-H", &cookie])?.status == 200);
        let out = ["-X", "POST", "-H", &cookie, "-H", "Sec-Fetch-Site: same-origin"];
        ensure!(site.ask("/front/sign-out", "", &out)?.status == 303);
        problem(&site.ask("/api/v1/peers", "", &["-H", &cookie])?, 401)?;

        let long = std::env::temp_dir().join(format!("liqo-front-{}", std::process::id()));
        fs::write(&long, format!("token={}", "x".repeat(1 << 20)))?;
        let data = format!("@{}", long.display());
        let refused = site.ask("/front/sign-in", "", &["--data-binary", &data, "-H", "Sec-Fetch-Site: same-origin"]);
        fs::remove_file(&long)?;
        problem(&refused?, 413).map(drop)
    })
}

/// Tokens of an OpenID Connect issuer count where the API server takes them, for the user that the API server says.
#[test]
fn a_token_of_another_issuer_counts_as_the_api_server_says() -> Result<()> {
    SUITE.tell(|front| {
        let (site, rome, milan) = (&front.site, front.stage.cluster("rome"), front.stage.cluster("milan"));
        milan.kubectl(&["create", "serviceaccount", "ada"])?;
        let token = |audience: &str| milan.kubectl(&["create", "token", "ada", "--audience", audience]);
        let (ours, others) = (token("rome")?.trim().to_owned(), token("paris")?.trim().to_owned());
        let user = "milan:system:serviceaccount:default:ada";
        // The API server of rome reads the issuer's keys when it has the time.
        let refusal = wait_for("the issuer's tokens count", LONG, || {
            let answer = site.get("/api/v1/peers", &ours)?;
            ensure!(answer.status != 401, "{}", answer.body);
            problem(&answer, 403).map(Some)
        })?;
        ensure!(refusal["detail"].as_str().is_some_and(|detail| detail.contains(user)), "{refusal}");
        problem(&site.get("/api/v1/peers", &others)?, 401)?;
        rome.kubectl(&["create", "clusterrolebinding", "ada", "--clusterrole=viewer", &format!("--user={user}")])?;
        wait_for("ada sees the peers", LONG, || {
            let answer = site.get("/api/v1/peers", &ours)?;
            Ok((answer.status == 200 && names(&answer)? == ["milan"]).then_some(()))
        })
    })
}

/// Nobody is refused while the page is replaced, and a stream ends as if it had nothing more to say.
#[test]
fn a_page_that_is_replaced_refuses_nobody() -> Result<()> {
    SUITE.tell(|front| {
        let (site, rome) = (&front.site, front.stage.cluster("rome"));
        let stream = site.follow("/api/v1/events", &front.viewer)?;
        stream.has("event: begin", Duration::from_secs(10))?;
        rome.kubectl(&["rollout", "restart", "-n", "liqo", "deployment/liqo-status"])?;
        let (mut answers, mut refusals) = (0, Vec::new());
        wait_for("the page has been replaced and the stream has ended", LONG, || {
            match site.get("/api/v1/peers", &front.viewer).and_then(|answer| names(&answer)) {
                Ok(seen) if seen == ["milan"] => answers += 1,
                other => refusals.push(format!("{other:?}")),
            }
            stream.ended()
        })?;
        rome.rolled_out("liqo", "liqo-status")?;
        ensure!(answers > 5 && refusals.is_empty(), "{answers} answers, refusals: {refusals:?}");
        ensure!(names(&site.get("/api/v1/peers", &front.viewer)?)? == ["milan"]);
        Ok(())
    })
}

/// The last story of a session of tests may be this one: it leaves a user who has to wait for some seconds.
#[test]
fn one_user_who_asks_too_often_waits_and_others_do_not() -> Result<()> {
    SUITE.tell(|front| {
        let codes = front.site.often("/api/v1/namespaces", &front.nobody, 400)?;
        let limited = codes.iter().filter(|code| **code == 429).count();
        ensure!(limited > 0 && limited < codes.len() - 90, "{limited} of {} were limited", codes.len());
        ensure!(codes.iter().all(|code| [403, 429].contains(code)), "{codes:?}");
        let refusal = front.site.get("/api/v1/namespaces", &front.nobody)?;
        if refusal.status == 429 {
            problem(&refusal, 429)?;
            ensure!(refusal.header("retry-after").is_some(), "{}", refusal.head);
        }
        ensure!(front.site.get("/api/v1/peers", &front.viewer)?.status == 200);
        Ok(())
    })
}

/// In a real browser: sign in, look, follow a change, with axe finding nothing on any page.
#[test]
fn people_read_it_in_a_browser() -> Result<()> {
    SUITE.tell(|front| browser::story(&front.stage, &front.site, &front.viewer))
}
