//! Paths of results, as callers of the first generation write them.

/// The path below the output directory that a caller names, by a path that begins there or with the directory itself; nothing where
/// the path leaves the directory. Parts are compared, so that `/output2` is not in `/output`.
pub(super) fn below(output_dir: &str, file: &str) -> Option<String> {
    let mut path: Vec<&str> = Vec::new();
    for part in parts(output_dir, file)? {
        match part {
            "" | "." => {}
            ".." => drop(path.pop()?),
            other => path.push(other),
        }
    }
    (!path.is_empty()).then(|| path.join("/"))
}

fn parts<'a>(output_dir: &str, file: &'a str) -> Option<impl Iterator<Item = &'a str>> {
    let is_part = |part: &&str| !part.is_empty();
    let mut parts = file.split('/').peekable();
    if file.starts_with('/') {
        while parts.next_if_eq(&"").is_some() {}
        for wanted in output_dir.split('/').filter(is_part) {
            parts.next_if_eq(&wanted)?;
        }
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_in_the_directory() {
        for (file, wanted) in [
            ("result", Some("result")),
            ("a/b", Some("a/b")),
            ("./a//b", Some("a/b")),
            ("a/../b", Some("b")),
            ("/output/a", Some("a")),
            ("//output/a", Some("a")),
            ("a..b", Some("a..b")),
            ("x; id", Some("x; id")),
            ("$(id)", Some("$(id)")),
            ("/output2/a", None),
            ("/outpu", None),
            ("/output", None),
            ("/output/../etc/passwd", None),
            ("../output2/a", None),
            ("../output/a", None),
            ("a/../../b", None),
            ("/etc/passwd", None),
            ("..", None),
            ("", None),
        ] {
            assert_eq!(below("/output", file).as_deref(), wanted, "{file}");
        }
        assert_eq!(below("/data/out", "/data/out/x").as_deref(), Some("x"));
        assert_eq!(below("/data/out", "/data/x"), None);
    }

    /// A path has no part that leads up, and names itself.
    #[test]
    fn fuzz_result_path() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "result-path", |bytes| {
            let Ok(file) = str::from_utf8(bytes) else { return };
            let Some(path) = below("/output", file) else { return };
            assert!(path.split('/').all(|part| !matches!(part, "" | "." | "..")), "{path:?}");
            assert_eq!(below("/output", &path).as_deref(), Some(path.as_str()));
            assert_eq!(below("/output", &format!("/output/{path}")), Some(path));
        });
    }
}
