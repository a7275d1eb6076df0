//! What reflection has done, counted, in the words of Liqo 0.8.3.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Mutex, PoisonError},
};

use crate::link::Link;

/// Handled names by kind and namespace.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<BTreeMap<(&'static str, String), Count>>);

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    settled: u64,
    failed: u64,
}

/// A counter: what it counts, its help text, and where its value is.
type Family = (&'static str, &'static str, fn(&Count) -> u64);

impl Counters {
    /// A name of a kind was handled, well or not.
    pub(crate) fn add(&self, kind: &'static str, namespace: &str, well: bool) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry((kind, namespace.to_owned())).or_default();
        if well { count.settled += 1 } else { count.failed += 1 }
    }

    /// A namespace is not reflected any more: its counters end.
    pub(crate) fn forget(&self, namespace: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(_, counted), _| counted != namespace);
    }

    /// In the Prometheus text format.
    pub(crate) fn text(&self, link: &Link) -> String {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut text = String::new();
        let families: [Family; 2] = [
            ("item", "Names handled by a reflector.", |count| count.settled),
            ("error", "Names a reflector could not handle and tried again.", |count| count.failed),
        ];
        for (what, help, value) in families {
            let name = format!("liqo_virtual_kubelet_reflection_{what}_counter");
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
            for ((kind, namespace), count) in &counts {
                let _ = writeln!(
                    text,
                    "{name}{{namespace=\"{namespace}\",reflector_resource=\"{kind}\",cluster_id=\"{}\",cluster_name=\"{}\",node_name=\"{}\"}} {}",
                    link.there.cluster_id,
                    link.there.cluster_name,
                    link.node,
                    value(count)
                );
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_carry_the_labels_of_0_8_3() {
        let counters = Counters::default();
        counters.add("Pod", "demo", true);
        counters.add("Pod", "demo", true);
        counters.add("Pod", "demo", false);
        let text = counters.text(&Link::example());
        let labels = "{namespace=\"demo\",reflector_resource=\"Pod\",cluster_id=\"16fbeaec-e4e4-41dc-9eea-170ce95d7dd9\",cluster_name=\"provider\",node_name=\"liqo-provider\"}";
        assert!(text.contains(&format!("liqo_virtual_kubelet_reflection_item_counter{labels} 2\n")), "{text}");
        assert!(text.contains(&format!("liqo_virtual_kubelet_reflection_error_counter{labels} 1\n")), "{text}");
        counters.add("Pod", "shop", true);
        counters.forget("demo");
        let text = counters.text(&Link::example());
        assert!(text.contains("namespace=\"shop\"") && !text.contains("namespace=\"demo\""), "{text}");
    }
}
