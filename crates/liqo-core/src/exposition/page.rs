//! Pages of metrics about some pods, made from pages of kubelets.
//!
//! Keeps true: a sample passes only when its labels name one of the pods, and those labels come first: readers that look for
//! `pod="` without reading the line find them; each family appears once, with the type and the help of the first kubelet that has the
//! family; a page has no more than its limit of bytes. Samples of nodes are sums that this module makes; samples of nodes on the
//! pages of kubelets are left out.

use std::collections::{BTreeMap, BTreeSet};

use super::Sample;

/// The pods whose samples pass, by the namespace that a sample names.
pub type Spaces = BTreeMap<String, Space>;

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// The name of the namespace on the page that is made.
    pub name: String,
    /// The pods whose samples pass.
    pub pods: BTreeSet<String>,
}

/// Families whose samples, added up, say what the pods use of their nodes: the family of a pod, and that of a node with its help and
/// type. A virtual node has these pods and nothing else.
const SUMS: [(&str, &str, &str, &str); 2] = [
    (
        "pod_cpu_usage_seconds_total",
        "node_cpu_usage_seconds_total",
        "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
        "counter",
    ),
    (
        "pod_memory_working_set_bytes",
        "node_memory_working_set_bytes",
        "[STABLE] Current working set of the node in bytes",
        "gauge",
    ),
];

/// A page that is being put together.
pub struct Page {
    families: BTreeMap<String, Family>,
    /// Sums of [`SUMS`], with the latest time of a summand in milliseconds.
    sums: [(f64, i64); SUMS.len()],
    /// Bytes that may still be added.
    room: usize,
}

struct Family {
    /// The `# TYPE` and `# HELP` lines.
    head: Vec<String>,
    samples: Vec<String>,
}

/// The page is longer than its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl Page {
    /// An empty page of no more than `longest` bytes.
    pub fn new(longest: usize) -> Self {
        Self { families: BTreeMap::new(), sums: [(0.0, 0); SUMS.len()], room: longest }
    }

    /// Adds the samples of `spaces` that the page of a kubelet has.
    ///
    /// # Errors
    /// When the limit is reached; what fits is added.
    pub fn add(&mut self, text: &str, spaces: &Spaces) -> Result<(), TooLong> {
        let (mut heads, mut current) = (BTreeMap::<&str, Vec<&str>>::new(), "");
        for line in text.lines() {
            if let Some(family) = described(line) {
                current = family;
                heads.entry(family).or_default().push(line);
                continue;
            }
            let Some(sample) = Sample::read(line) else { continue };
            let Some(written) = passed(&sample, spaces) else { continue };
            let name = if sample.name.starts_with(current) && !current.is_empty() { current } else { sample.name };
            let head = heads.get(name).into_iter().flatten().copied().filter(|_| !self.families.contains_key(name));
            let bytes: usize = head.clone().chain([&*written]).map(|line| line.len() + 1).sum();
            self.room = self.room.checked_sub(bytes).ok_or(TooLong)?;
            let head = head.map(str::to_owned).collect();
            let family = self.families.entry(name.to_owned()).or_insert_with(|| Family { head, samples: Vec::new() });
            family.samples.push(written);
            self.sum(&sample);
        }
        Ok(())
    }

    fn sum(&mut self, sample: &Sample<'_>) {
        let Some(place) = SUMS.iter().position(|(of_pod, ..)| *of_pod == sample.name) else { return };
        let (value, time) = sample.value();
        let (sum, latest) = &mut self.sums[place];
        *sum += value.unwrap_or_default();
        *latest = time.unwrap_or_default().max(*latest);
    }

    /// Adds what all pods use together, as the use of a node; `now` in milliseconds is the time where no sample has one.
    pub fn add_node(&mut self, now: i64) {
        for ((sum, latest), (_, name, help, kind)) in self.sums.into_iter().zip(SUMS) {
            let head = vec![format!("# HELP {name} {help}"), format!("# TYPE {name} {kind}")];
            let time = if latest == 0 { now } else { latest };
            self.families.insert(name.to_owned(), Family { head, samples: vec![format!("{name} {sum} {time}")] });
        }
    }

    /// The page as text.
    pub fn text(&self) -> String {
        let lines = self.families.values().flat_map(|family| family.head.iter().chain(&family.samples));
        lines.flat_map(|line| [line, "\n"]).collect()
    }
}

/// The family that a line describes.
fn described(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "))?;
    rest.split(' ').next().filter(|name| !name.is_empty())
}

/// Labels that say whose a sample is, in the order in which they are written.
const FIRST: [&str; 3] = ["namespace", "pod", "container"];

/// The sample with the new name of its namespace, if it is of one of the pods.
fn passed(sample: &Sample<'_>, spaces: &Spaces) -> Option<String> {
    let space = spaces.get(sample.label("namespace")?)?;
    let is_of_pod = space.pods.contains(sample.label("pod")?) && !sample.name.starts_with("node_");
    is_of_pod.then_some(())?;
    let first = FIRST.iter().filter_map(|key| Some((*key, sample.label(key)?)));
    let others = sample.labels.iter().copied().filter(|(key, _)| !FIRST.contains(key));
    let one = |(key, value)| match key {
        "namespace" => format!("namespace=\"{}\"", space.name),
        _ => format!("{key}=\"{value}\""),
    };
    let labels: Vec<_> = first.chain(others).map(one).collect();
    Some(format!("{}{{{}}} {}", sample.name, labels.join(","), sample.rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"# HELP container_cpu_usage_seconds_total [STABLE] Cumulative cpu time
# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{container="c",namespace="demo-rome-1",pod="web"} 1.5 1700000000000
container_cpu_usage_seconds_total{container="c",namespace="demo-rome-1",pod="other"} 7 1700000000000
container_cpu_usage_seconds_total{container="c",namespace="kube-system",pod="web"} 9 1700000000000
# HELP node_cpu_usage_seconds_total [STABLE] of the whole node
# TYPE node_cpu_usage_seconds_total counter
node_cpu_usage_seconds_total 1234.5 1700000000000
# HELP pod_cpu_usage_seconds_total [STABLE] of a pod
# TYPE pod_cpu_usage_seconds_total counter
pod_cpu_usage_seconds_total{namespace="demo-rome-1",pod="web"} 1.75 1700000000001
# TYPE pod_memory_working_set_bytes gauge
pod_memory_working_set_bytes{namespace="demo-rome-1",pod="web"} 1.048576e+06 1700000000000
# TYPE lat histogram
lat_bucket{namespace="demo-rome-1",pod="web",le="+Inf"} 3
lat_sum{namespace="demo-rome-1",pod="web"} 0.5
scrape_error 0
"#;

    fn spaces() -> Spaces {
        let space = Space { name: "demo".to_owned(), pods: BTreeSet::from(["web".to_owned(), "db".to_owned()]) };
        BTreeMap::from([("demo-rome-1".to_owned(), space)])
    }

    #[test]
    fn samples_of_the_pods_pass_under_the_new_name_of_their_namespace() {
        let mut page = Page::new(10_000);
        page.add(PAGE, &spaces()).unwrap();
        page.add("pod_cpu_usage_seconds_total{namespace=\"demo-rome-1\",pod=\"db\"} 2\n", &spaces()).unwrap();
        page.add_node(5);
        let text = page.text();
        assert_eq!(
            text,
            r#"# HELP container_cpu_usage_seconds_total [STABLE] Cumulative cpu time
# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{namespace="demo",pod="web",container="c"} 1.5 1700000000000
# TYPE lat histogram
lat_bucket{namespace="demo",pod="web",le="+Inf"} 3
lat_sum{namespace="demo",pod="web"} 0.5
# HELP node_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the node in core-seconds
# TYPE node_cpu_usage_seconds_total counter
node_cpu_usage_seconds_total 3.75 1700000000001
# HELP node_memory_working_set_bytes [STABLE] Current working set of the node in bytes
# TYPE node_memory_working_set_bytes gauge
node_memory_working_set_bytes 1048576 1700000000000
# HELP pod_cpu_usage_seconds_total [STABLE] of a pod
# TYPE pod_cpu_usage_seconds_total counter
pod_cpu_usage_seconds_total{namespace="demo",pod="web"} 1.75 1700000000001
pod_cpu_usage_seconds_total{namespace="demo",pod="db"} 2
# TYPE pod_memory_working_set_bytes gauge
pod_memory_working_set_bytes{namespace="demo",pod="web"} 1.048576e+06 1700000000000
"#
        );
    }

    #[test]
    fn a_node_without_pods_uses_nothing() {
        let mut page = Page::new(100);
        page.add_node(7);
        assert!(page.text().contains("node_cpu_usage_seconds_total 0 7\n"));
    }

    /// What programs find that look for the first `key="` of a line, as metrics-server does.
    fn found<'a>(line: &'a str, key: &str) -> Option<&'a str> {
        line.split_once(&format!("{key}=\""))?.1.split('"').next()
    }

    #[test]
    fn nothing_is_said_of_other_pods_or_of_the_node() {
        let mut page = Page::new(10_000);
        let lines = r#"# TYPE node counter
node_cpu_usage_seconds_total{namespace="demo-rome-1",pod="web"} 1
cpu{a_container="app",a_namespace="payments",a_pod="api-1",container="c",namespace="demo-rome-1",pod="web"} 2
cpu{namespace ="payments",namespace="demo-rome-1",pod="web"} 3
cpu{z} 9 #="",namespace="demo-rome-1",pod="web"} 4
"#;
        page.add(lines, &spaces()).unwrap();
        assert_eq!(
            page.text(),
            "cpu{namespace=\"demo\",pod=\"web\",container=\"c\",a_container=\"app\",a_namespace=\"payments\",a_pod=\"api-1\"} 2\n"
        );
    }

    #[test]
    fn a_page_is_bounded() {
        assert_eq!(Page::new(100).add(PAGE, &spaces()), Err(TooLong));
        assert_eq!(Page::new(100).add(PAGE, &Spaces::new()), Ok(()), "what does not pass takes no room");
    }

    /// Whatever a kubelet says, what passes names one of the pods, under the new name of its namespace.
    #[test]
    fn fuzz_kubelet_page() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "kubelet_page", |bytes| {
            let mut page = Page::new(4096);
            let _ = page.add(&String::from_utf8_lossy(bytes), &spaces());
            for line in page.families.values().flat_map(|family| &family.samples) {
                let sample = Sample::read(line).expect("a sample");
                assert_eq!(
                    (sample.label("namespace"), found(line, "namespace")),
                    (Some("demo"), Some("demo")),
                    "{line}"
                );
                assert!(matches!(found(line, "pod"), Some("web" | "db")), "{line}");
                assert_eq!(sample.label("pod"), found(line, "pod"), "{line}");
                assert!(!line.starts_with("node_"), "{line}");
            }
            assert!(page.text().len() <= 4096);
        });
    }
}
