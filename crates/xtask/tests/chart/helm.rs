//! The real helm, and what it renders as values.

#![expect(clippy::disallowed_methods, reason = "a test may run programs")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// `Kind/name` to object.
pub(crate) type Objects = BTreeMap<String, Value>;

/// The chart.
pub(crate) fn path() -> PathBuf {
    Path::new("../../deploy/chart").to_owned()
}

/// Helm: `LIQO_HELM`, else the test bed's, else the one in the path.
pub(crate) fn command() -> Command {
    let testbed = || {
        let paths =
            String::from_utf8(Command::new("../../testbed/install").arg("--paths").output().ok()?.stdout).ok()?;
        Some(PathBuf::from(paths.lines().next()?).join("helm")).filter(|helm| helm.is_file())
    };
    let helm = env::var_os("LIQO_HELM").map(PathBuf::from).or_else(testbed).unwrap_or_else(|| "helm".into());
    let version = Command::new(&helm).arg("version").output();
    assert!(
        version.is_ok_and(|output| output.status.success()),
        "there is no helm: run testbed/install, or set LIQO_HELM to one"
    );
    Command::new(helm)
}

/// The cluster helm pretends to see, unless the arguments say another.
const KUBERNETES: &str = "--kube-version=1.34.4";

/// What `helm template` prints, or why it does not.
pub(crate) fn template(args: &[&str]) -> Result<String, String> {
    let output =
        command().args(["template", "liqo", "--namespace", "liqo", KUBERNETES]).arg(path()).args(args).output();
    let output = output.expect("helm runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// The objects rendered; two of the same kind and name are an error.
pub(crate) fn rendered(args: &[&str]) -> Objects {
    read(&template(args).unwrap_or_else(|error| panic!("{error}")))
}

/// The objects of a manifest; two of the same kind and name are an error.
pub(crate) fn read(text: &str) -> Objects {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).expect("YAML");
    let mut objects = Objects::new();
    for object in documents.into_iter().filter(|object| !object.is_null()) {
        let part = |value: &Value| value.as_str().expect("kind and name").to_owned();
        let name = format!("{}/{}", part(&object["kind"]), part(&object["metadata"]["name"]));
        assert!(objects.insert(name.clone(), object).is_none(), "{name} is rendered twice");
    }
    objects
}

/// Why it does not render.
pub(crate) fn refused(args: &[&str]) -> String {
    template(args).expect_err("it renders")
}

/// The names of the objects.
pub(crate) fn names(objects: &Objects) -> BTreeSet<String> {
    objects.keys().cloned().collect()
}
