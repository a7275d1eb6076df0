//! What the description of a service says: names of services, and paths of calls.

use std::collections::BTreeSet;

use prost_types::{FileDescriptorSet, ServiceDescriptorProto};

/// The services, each with its package.
fn all(files: &FileDescriptorSet) -> impl Iterator<Item = (String, &ServiceDescriptorProto)> {
    files.file.iter().flat_map(|file| {
        file.service.iter().map(|service| {
            let package = file.package().to_owned();
            let dot = if package.is_empty() { "" } else { "." };
            (format!("{package}{dot}{}", service.name()), service)
        })
    })
}

/// The full names of the services.
pub(super) fn services(files: &FileDescriptorSet) -> Vec<String> {
    all(files).map(|(name, _)| name).collect()
}

/// The paths of all calls, as they are in requests.
pub(super) fn calls(files: &FileDescriptorSet) -> BTreeSet<String> {
    let paths = |(name, service): (String, &ServiceDescriptorProto)| {
        service.method.iter().map(|method| format!("/{name}/{}", method.name())).collect::<Vec<_>>()
    };
    all(files).flat_map(paths).collect()
}

#[cfg(test)]
mod tests {
    use prost_types::{FileDescriptorProto, MethodDescriptorProto};

    use super::*;

    #[test]
    fn paths_are_those_of_the_wire() {
        let method = |name: &str| MethodDescriptorProto { name: Some(name.to_owned()), ..Default::default() };
        let file = |package: Option<&str>, name: &str| FileDescriptorProto {
            package: package.map(str::to_owned),
            service: vec![ServiceDescriptorProto {
                name: Some(name.to_owned()),
                method: vec![method("A"), method("B")],
                ..Default::default()
            }],
            ..Default::default()
        };
        let files = FileDescriptorSet { file: vec![file(None, "plain"), file(Some("a.v1"), "Full")] };
        assert_eq!(services(&files), ["plain", "a.v1.Full"]);
        let paths: Vec<_> = calls(&files).into_iter().collect();
        assert_eq!(paths, ["/a.v1.Full/A", "/a.v1.Full/B", "/plain/A", "/plain/B"]);
    }
}
