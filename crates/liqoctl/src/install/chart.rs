//! The chart inside this program.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::helm::RELEASE;

/// Every file of the chart, by its path in it.
static FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/chart.rs"));

/// Writes the chart below `directory`, for Helm to read.
pub(crate) async fn unpack(directory: &Path) -> anyhow::Result<PathBuf> {
    let root = directory.join("chart");
    for (name, content) in FILES {
        let path = root.join(name);
        let failed = || format!("writing {}", path.display());
        let parent = path.parent().expect("a file of the chart is in its directory");
        tokio::fs::create_dir_all(parent).await.with_context(failed)?;
        tokio::fs::write(&path, content).await.with_context(failed)?;
    }
    Ok(root)
}

/// Name and version of the chart, as Helm prints them: `liqo-0.1.0`.
pub(crate) fn version() -> String {
    let text = FILES.iter().find(|(name, _)| *name == "Chart.yaml").map_or(&b""[..], |(_, content)| *content);
    let text = String::from_utf8_lossy(text);
    let version = text.lines().find_map(|line| line.strip_prefix("version:")).unwrap_or_default();
    format!("{RELEASE}-{}", version.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_has_a_version() {
        let version = version();
        assert!(super::super::source::is_release(version.strip_prefix("liqo-").unwrap()), "{version}");
    }

    #[test]
    fn the_chart_is_whole() {
        for wanted in ["Chart.yaml", "values.yaml", "values.schema.json", "templates/_helpers.tpl"] {
            assert!(FILES.iter().any(|(name, content)| *name == wanted && !content.is_empty()), "{wanted}");
        }
        assert!(FILES.iter().any(|(name, _)| name.starts_with("files/rbac/")));
    }
}
