//! From what `schemars` says of our types to what the API server wants and Liqo 0.8.3 said.

use serde_json::{Map, Value, json};

/// The pattern of quantities, as controller-gen writes it.
const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

/// One thing the types cannot say.
enum Amend {
    /// This field is always there (it may have a default all the same).
    Require(&'static str),
    /// This keyword has this value.
    Set(&'static str, &'static str),
    /// This keyword has this number.
    Most(&'static str, u32),
    /// This keyword is not said.
    Omit(&'static str),
    /// Kubernetes' own types are documented by Kubernetes; without their text, `kubectl apply` can hold the definition.
    Quiet,
}

/// Kind, where (`*` stands for the items of a list or the values of a map), and what.
const AMENDMENTS: &[(&str, &str, Amend)] = &[
    ("ForeignCluster", "spec.ttl", Amend::Omit("format")),
    ("ForeignCluster", "status.peeringConditions.*", Amend::Require("status")),
    ("IpamStorage", "spec.prefixes.*", Amend::Set("format", "byte")),
    ("Job", "spec.envFrom.*.configMapRef.name", Amend::Most("maxLength", 253)),
    ("Job", "spec.envFrom.*.secretRef.name", Amend::Most("maxLength", 253)),
    ("Job", "spec.template.outputSize", Amend::Most("maxLength", 64)),
    ("Job", "spec.template.resources", Amend::Most("maxProperties", 16)),
    ("Job", "spec.template.resources.*", Amend::Most("maxLength", 64)),
    ("JobTemplate", "spec.outputSize", Amend::Most("maxLength", 64)),
    ("JobTemplate", "spec.resources", Amend::Most("maxProperties", 16)),
    ("JobTemplate", "spec.resources.*", Amend::Most("maxLength", 64)),
    ("NamespaceOffloading", "spec.clusterSelector", Amend::Set("x-kubernetes-map-type", "atomic")),
    ("NetworkConfig", "status", Amend::Require("processed")),
    ("ResourceOffer", "status", Amend::Require("phase")),
    ("ResourceRequest", "status", Amend::Require("offerState")),
    ("ShadowEndpointSlice", "spec.template.endpoints.*.addresses", Amend::Set("x-kubernetes-list-type", "set")),
    ("ShadowPod", "spec.pod", Amend::Quiet),
    ("ShadowPod", "status", Amend::Require("phase")),
    ("TunnelEndpoint", "status.tunnelIFaceIndex", Amend::Omit("format")),
    ("TunnelEndpoint", "status.vethIFaceIndex", Amend::Omit("format")),
];

/// Kind, where (the empty path is the whole object), and what has to hold there (Common Expression Language), with the sentence
/// for the user who breaks it.
const RULES: &[(&str, &str, &str, &str)] = &[
    (
        "Job",
        "",
        "self.metadata.name.size() <= 52",
        "the name of a job has at most 52 characters, because the names of its pods are longer",
    ),
    (
        "Job",
        "spec",
        "has(self.templateName) != has(self.template)",
        "a job has either templateName (the name of a JobTemplate) or template (the worker itself)",
    ),
    (
        "Job",
        "spec",
        "(has(self.templateName) ? self.templateName : '') == (has(oldSelf.templateName) ? oldSelf.templateName : '') && \
         has(self.template) == has(oldSelf.template) && (!has(self.template) || self.template == oldSelf.template) && \
         has(self.env) == has(oldSelf.env) && (!has(self.env) || self.env == oldSelf.env) && \
         self.placement == oldSelf.placement && \
         (has(self.resultStore) ? self.resultStore : '') == (has(oldSelf.resultStore) ? oldSelf.resultStore : '')",
        "what a job does cannot be changed: cancel the job and submit another",
    ),
    (
        "Job",
        "spec",
        "!has(oldSelf.cancel) || !oldSelf.cancel || (has(self.cancel) && self.cancel)",
        "a job that was cancelled stays cancelled: run the job again",
    ),
    (
        "Job",
        "spec.envFrom.*",
        "has(self.configMapRef) != has(self.secretRef)",
        "name either a ConfigMap (configMapRef) or a Secret (secretRef)",
    ),
    (
        "Job",
        "spec.envFrom.*",
        "!has(self.secretRef) || !has(self.secretRef.name) || !self.secretRef.name.startsWith('liqo-')",
        "Secrets whose names begin with liqo- belong to Liqo: no worker gets their values",
    ),
    ("Job", "spec.template.resources", RESOURCE_NAMES, "the name of a resource has at most 253 characters"),
    ("JobTemplate", "spec.resources", RESOURCE_NAMES, "the name of a resource has at most 253 characters"),
    // `LARGEST_SPEC`. What is not counted here is bounded by its own limits, and counted by the controller.
    (
        "Job",
        "spec",
        "(has(self.env) ? self.env.map(v, bytes(v.name).size() + (has(v.value) ? bytes(v.value).size() : 0)).sum() : 0) + \
         (has(self.template) && has(self.template.env) ? \
         self.template.env.map(v, bytes(v.name).size() + (has(v.value) ? bytes(v.value).size() : 0)).sum() : 0) + \
         (has(self.template) && has(self.template.command) ? self.template.command.map(w, bytes(w).size()).sum() : 0) + \
         (has(self.template) && has(self.template.args) ? self.template.args.map(w, bytes(w).size()).sum() : 0) <= 65536",
        TOO_LARGE,
    ),
    (
        "JobTemplate",
        "spec",
        "(has(self.env) ? self.env.map(v, bytes(v.name).size() + (has(v.value) ? bytes(v.value).size() : 0)).sum() : 0) + \
         (has(self.command) ? self.command.map(w, bytes(w).size()).sum() : 0) + \
         (has(self.args) ? self.args.map(w, bytes(w).size()).sum() : 0) <= 65536",
        TOO_LARGE,
    ),
    (
        "ProviderProfile",
        "",
        "self.metadata.name == self.spec.clusterID",
        "the name of a ProviderProfile is the cluster ID of the provider",
    ),
    ("ProviderProfile", "spec", "self.clusterID == oldSelf.clusterID", "the cluster ID cannot be changed"),
    ("Reservation", "", "self.metadata.name.size() <= 63", "the name of a reservation has at most 63 characters"),
    ("Reservation", "spec", "self.provider != self.consumer", "a cluster does not reserve what it has itself"),
    (
        "ResultStore",
        "spec",
        "has(self.assumeRole) != (has(self.shareKeys) && self.shareKeys)",
        "say how movers get keys: assumeRole (keys for one job), or shareKeys: true (the keys of the Secret, in every cluster that runs a worker)",
    ),
    (
        "ResultStore",
        "spec",
        "self.endpoint == oldSelf.endpoint && self.bucket == oldSelf.bucket && \
         (has(self.prefix) ? self.prefix : '') == (has(oldSelf.prefix) ? oldSelf.prefix : '')",
        "where results are cannot be changed, or those of earlier jobs would be lost: make another ResultStore",
    ),
    (
        "Reservation",
        "spec",
        "self.provider == oldSelf.provider && self.consumer == oldSelf.consumer && self.resources == oldSelf.resources",
        "only until can be changed: release the reservation and make another",
    ),
    (
        "PeeringRequest",
        "",
        "self.metadata.name.size() <= 63",
        "the name of a request for a peering has at most 63 characters",
    ),
    (
        "PeeringRequest",
        "spec",
        "self.selection == oldSelf.selection",
        "what was asked for cannot be changed: delete the request and make another",
    ),
    (
        "PeeringRequest",
        "spec",
        "!has(self.selection.placement) || !has(self.selection.placement.mode) || \
         self.selection.placement.mode == 'Single'",
        "a request for a peering is for one provider: make several requests, each for a part of the resources, and exclude the \
         providers of the others",
    ),
    (
        "PeeringRequest",
        "spec",
        "!has(self.policy) || !(has(self.selection.criteria) || has(self.selection.weights) || has(self.selection.missing) || \
         has(self.selection.placement) || has(self.selection.stability))",
        "with a policy the selection says request and largestPod only",
    ),
    (
        "SelectionPolicy",
        "spec.placement",
        "!has(self.mode) || self.mode != 'Single' || !(has(self.parts) || has(self.maxProviders))",
        "parts and maxProviders are for the modes Pack and Spread",
    ),
    (
        "SelectionPolicy",
        "spec.placement",
        "!has(self.minRegions) || (has(self.mode) && self.mode == 'Spread')",
        "minRegions is for the mode Spread",
    ),
    (
        "SelectionPolicy",
        "spec.placement",
        "!has(self.minRegions) || self.minRegions <= (has(self.maxProviders) ? self.maxProviders : 4)",
        "minRegions is not more than maxProviders, which is 4 when it is left out",
    ),
];

const RESOURCE_NAMES: &str = "self.all(name, name.size() <= 253)";
const TOO_LARGE: &str = "command, args and env have at most 64 KiB (65536 bytes) in total: \
    keep more in a ConfigMap and name it in envFrom, or in a file that the worker fetches";

/// Makes the schema of a kind what it has to be.
pub(super) fn settle(kind: &str, root: &mut Value) {
    tidy(root, "");
    require_spec(kind, root);
    for (_, path, rule, message) in RULES.iter().filter(|(of, ..)| *of == kind) {
        let node = find(root, path).unwrap_or_else(|| panic!("{kind} has no {path}"));
        let mut rules = node["x-kubernetes-validations"].as_array().cloned().unwrap_or_default();
        rules.push(json!({"rule": rule, "message": message}));
        node["x-kubernetes-validations"] = json!(rules);
    }
    for (_, path, amend) in AMENDMENTS.iter().filter(|(of, ..)| *of == kind) {
        let node = find(root, path).unwrap_or_else(|| panic!("{kind} has no {path}"));
        apply(node, amend);
    }
}

/// Says everything in the words of structural schemas, here and in everything below.
fn tidy(schema: &mut Value, name: &str) {
    let Some(node) = schema.as_object_mut() else { return };
    node.remove("nullable");
    node.remove("title");
    if node.get("default").is_some_and(|value| !is_scalar(value)) {
        node.remove("default");
    }
    if let Some(words) = node.get_mut("enum").and_then(Value::as_array_mut) {
        words.retain(|word| !word.is_null());
    }
    if let Some(text) = node.get_mut("description") {
        *text = json!(text.as_str().unwrap_or_default().replace('\n', " "));
    }
    if node.contains_key("x-kubernetes-int-or-string") {
        node.insert("anyOf".to_owned(), json!([{"type": "integer"}, {"type": "string"}]));
        // Besides quantities, only the ports of probes are both.
        if name != "port" {
            node.insert("pattern".to_owned(), json!(QUANTITY));
        }
    }
    if name == "ports" {
        default_protocol(node);
    }
    for (name, property) in properties(node) {
        tidy(property, name);
    }
    for key in ["items", "additionalProperties"] {
        node.get_mut(key).into_iter().for_each(|inner| tidy(inner, ""));
    }
}

fn is_scalar(value: &Value) -> bool {
    value.is_boolean() || value.is_number() || value.as_str().is_some_and(|text| !text.is_empty())
}

/// Ports speak TCP unless they say otherwise.
fn default_protocol(ports: &mut Map<String, Value>) {
    if let Some(protocol) = ports.get_mut("items").and_then(|items| items.pointer_mut("/properties/protocol")) {
        protocol["default"] = json!("TCP");
    }
}

fn properties(node: &mut Map<String, Value>) -> impl Iterator<Item = (&String, &mut Value)> {
    node.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten()
}

/// A missing `spec` means an empty one; where an empty one is not allowed, neither is a missing one.
fn require_spec(kind: &str, root: &mut Value) {
    let spec = &mut root["properties"]["spec"];
    if ["Job", "NamespaceOffloading"].contains(&kind) || spec.get("required").is_some() {
        root["required"] = json!(["spec"]);
    } else {
        spec["default"] = json!({});
        root.as_object_mut().into_iter().for_each(|root| _ = root.remove("required"));
    }
}

fn find<'a>(root: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    path.split('.').filter(|step| !step.is_empty()).try_fold(root, |node, step| match step {
        "*" if node.get("items").is_some() => node.get_mut("items"),
        "*" => node.get_mut("additionalProperties"),
        name => node.get_mut("properties")?.get_mut(name),
    })
}

fn apply(node: &mut Value, amend: &Amend) {
    match amend {
        Amend::Require(field) => require(node, field),
        Amend::Set(key, value) => node[*key] = json!(value),
        Amend::Most(key, value) => node[*key] = json!(value),
        Amend::Omit(key) => _ = node.as_object_mut().and_then(|node| node.remove(*key)),
        Amend::Quiet => {
            let title = node["description"].clone();
            quiet(node);
            node["description"] = title;
        }
    }
}

fn require(node: &mut Value, field: &str) {
    let mut fields: Vec<Value> = node["required"].as_array().cloned().unwrap_or_default();
    fields.push(json!(field));
    fields.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    fields.dedup();
    node["required"] = json!(fields);
}

fn quiet(schema: &mut Value) {
    let Some(node) = schema.as_object_mut() else { return };
    node.remove("description");
    for (_, property) in properties(node) {
        quiet(property);
    }
    for key in ["items", "additionalProperties"] {
        node.get_mut(key).into_iter().for_each(quiet);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{QUANTITY, tidy};

    #[test]
    fn properties_named_like_keywords_stay() {
        let mut schema = json!({"nullable": true, "properties": {"default": {"type": "boolean", "default": {}}, "title": {"type": "string"}}});
        tidy(&mut schema, "");
        assert_eq!(schema, json!({"properties": {"default": {"type": "boolean"}, "title": {"type": "string"}}}));
    }

    #[test]
    fn a_probe_port_is_not_a_quantity() {
        let both = json!({"x-kubernetes-int-or-string": true});
        let mut schema = json!({"properties": {"port": both, "divisor": both}});
        tidy(&mut schema, "");
        assert_eq!(schema["properties"]["port"].get("pattern"), None);
        assert_eq!(schema["properties"]["divisor"]["pattern"], QUANTITY);
    }
}
