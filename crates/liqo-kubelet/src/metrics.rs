//! What reflection has done, counted, in the words of Liqo 0.8.3.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use liqo_kube::metrics::{Metric, Samples};

use crate::link::Link;

const LABELS: &[&str] = &["namespace", "reflector_resource", "cluster_id", "cluster_name", "node_name"];
const ITEMS: Metric =
    Metric::counter("liqo_virtual_kubelet_reflection_item_counter", "Names handled by a reflector.", LABELS);
const ERRORS: Metric = Metric::counter(
    "liqo_virtual_kubelet_reflection_error_counter",
    "Names a reflector could not handle and tried again.",
    LABELS,
);

/// Handled names by kind and namespace.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<BTreeMap<(&'static str, String), Count>>);

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    settled: u64,
    failed: u64,
}

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

    /// The counters of all reflectors.
    pub(crate) fn samples(&self, link: &Link, samples: &mut Samples) {
        samples.describe(&ITEMS);
        samples.describe(&ERRORS);
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for ((kind, namespace), count) in &counts {
            let labels = [namespace.as_str(), kind, &*link.there.cluster_id, &*link.there.cluster_name, &*link.node];
            samples.count(&ITEMS, &labels, count.settled);
            samples.count(&ERRORS, &labels, count.failed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(counters: &Counters) -> String {
        let mut samples = Samples::default();
        counters.samples(&Link::example(), &mut samples);
        samples.text()
    }

    #[test]
    fn counters_carry_the_labels_of_0_8_3() {
        let counters = Counters::default();
        counters.add("Pod", "demo", true);
        counters.add("Pod", "demo", true);
        counters.add("Pod", "demo", false);
        let found = text(&counters);
        let labels = "{namespace=\"demo\",reflector_resource=\"Pod\",cluster_id=\"16fbeaec-e4e4-41dc-9eea-170ce95d7dd9\",cluster_name=\"provider\",node_name=\"liqo-provider\"}";
        assert!(found.contains(&format!("liqo_virtual_kubelet_reflection_item_counter{labels} 2\n")), "{found}");
        assert!(found.contains(&format!("liqo_virtual_kubelet_reflection_error_counter{labels} 1\n")), "{found}");
        counters.add("Pod", "shop", true);
        counters.forget("demo");
        let found = text(&counters);
        assert!(found.contains("namespace=\"shop\"") && !found.contains("namespace=\"demo\""), "{found}");
    }
}
