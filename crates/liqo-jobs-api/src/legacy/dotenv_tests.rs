use super::*;

fn value(text: &str) -> Result<String, String> {
    read(text.as_bytes()).map_err(|wrong| wrong.to_string()).map(|all| all.get("A").unwrap_or("none").to_owned())
}

#[test]
fn values_are_those_of_the_rules() {
    for (text, wanted) in [
        ("A=b", "b"),
        ("\u{feff}A=b\r\nB=c\r\n", "b"),
        ("export A=b", "b"),
        ("  export\tA = b  ", "b"),
        ("A=", "none-empty"),
        ("A= # comment", "none-empty"),
        ("A=#b", "#b"),
        ("A=b#c", "b#c"),
        ("A=b # c", "b"),
        ("A=b\t# c", "b"),
        ("A=b c", "b c"),
        ("A=b=c", "b=c"),
        ("# A=x\n\nA=b", "b"),
        ("A=b\nA=c", "c"),
        ("A='b # c'  # d", "b # c"),
        (r"A='b\'c\\d\n'", r"b'c\d\n"),
        ("A='b\nc'", "b\nc"),
        (r#"A="b\n\t\"c\" \\ \$d \x""#, "b\n\t\"c\" \\ $d \\x"),
        ("A=\"b\r\nc\"", "b\nc"),
        ("A=b'c", "b'c"),
        // Nothing is replaced, so that a cycle is three values.
        ("A=${B}\nB=${A}\nC=$(A)", "${B}"),
        ("A=$HOME", "$HOME"),
        ("A=`id`", "`id`"),
        ("export=x\nA=b", "b"),
    ] {
        let wanted = if wanted == "none-empty" { "" } else { wanted };
        assert_eq!(value(text), Ok(wanted.to_owned()), "{text:?}");
    }
}

#[test]
fn what_breaks_a_rule_is_refused_with_its_line() {
    let long = format!("B=c\nA={}", "x".repeat(LONGEST));
    let many: String = (0..=MOST).map(|number| format!("A{number}=\n")).collect();
    for (text, line, words) in [
        ("A", 1, "NAME=VALUE"),
        ("A=b\nB C=d", 2, "NAME=VALUE"),
        ("A=b\n\n1A=c", 3, "a name is"),
        ("=b", 1, "a name is"),
        ("Ä=b", 1, "a name is"),
        ("A='b", 1, "not closed"),
        ("\nA=\"b\nc\\", 2, "not closed"),
        ("A='b' c", 1, "closing quote"),
        ("A=b\0", 1, "NUL"),
        (long.as_str(), 2, "131,071"),
        (many.as_str(), MOST + 1, "4096 variables"),
    ] {
        let why = value(text).expect_err(text);
        assert!(why.starts_with(&format!("line {line}: ")) && why.contains(words), "{why}");
    }
    assert_eq!(read(b"A=b\nB=\xff").map_err(|wrong| wrong.line), Err(2));
}

#[test]
fn secrets_are_kept_apart() {
    let all = read(b"A=1\n# secret\nB=2\nC=3\nDB_PASSWORD=4\napi_key=5\nMONKEY=6\nC=7\n# secret\nA=8\n# secrets\nD=9")
        .unwrap();
    let names =
        |map: &BTreeMap<String, String>| map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
    assert_eq!(names(&all.secret), ["A=8", "B=2", "DB_PASSWORD=4", "api_key=5"]);
    assert_eq!(names(&all.plain), ["C=7", "D=9", "MONKEY=6"]);
}

/// Variables written with double quotes are read as they were; names are keys of a ConfigMap; no name is in both places.
#[test]
fn fuzz_dotenv() {
    let written = |all: &Variables| {
        let line = |(name, value): (&String, &String)| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\r', "\\r");
            format!("{name}=\"{value}\"\n")
        };
        let secret = all.secret.iter().map(|one| format!("# secret\n{}", line(one)));
        all.plain.iter().map(line).chain(secret).collect::<String>()
    };
    liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "dotenv", |bytes| {
        let Ok(all) = read(bytes) else { return };
        assert!(all.plain.keys().chain(all.secret.keys()).all(|name| is_name(name)));
        assert!(all.plain.keys().all(|name| !all.secret.contains_key(name)));
        assert_eq!(read(written(&all).as_bytes()), Ok(all));
    });
}
