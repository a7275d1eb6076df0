//! The real program, seen from outside: words, streams and exit codes. No cluster is needed.

use std::process::{Command, Output};

/// Runs liqoctl far from any cluster.
fn liqoctl(line: &str) -> Output {
    let words: Vec<_> = line.split_whitespace().collect();
    run(&words)
}

fn run(words: &[&str]) -> Output {
    program().args(words).output().expect("liqoctl runs")
}

#[expect(clippy::disallowed_methods, reason = "a test of a program runs it")]
fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_liqoctl"));
    command.env_clear().env("KUBECONFIG", "/nonexistent/kubeconfig").env("HOME", "/nonexistent");
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// Every visible command.
const COMMANDS: [&str; 35] = [
    "",
    "install",
    "install kubeadm",
    "install kind",
    "install k3s",
    "upgrade",
    "uninstall",
    "peer",
    "peer out-of-band",
    "peer oob",
    "peer in-band",
    "peer ib",
    "unpeer",
    "unpeer out-of-band",
    "unpeer oob",
    "unpeer in-band",
    "unpeer ib",
    "cordon",
    "cordon tenant",
    "uncordon",
    "uncordon tenant",
    "drain",
    "drain tenant",
    "evict",
    "evict tenant",
    "generate",
    "generate peer-command",
    "offload",
    "offload namespace",
    "unoffload",
    "unoffload namespace",
    "status",
    "status peer",
    "version",
    "completion",
];

#[test]
fn help_is_data_and_teaches() {
    for command in COMMANDS {
        let output = liqoctl(&format!("{command} --help"));
        assert!(output.status.success() && output.stderr.is_empty(), "{command}: {}", stderr(&output));
        let text = stdout(&output);
        assert!(text.contains("Usage: "), "{command}: {text}");
        assert!(text.contains("liqoctl ") && (text.contains("Example") || command.is_empty()), "{command}: {text}");
        assert!(text.contains("--kubeconfig") && text.contains("--context"), "{command}: {text}");
        assert!(!text.contains("--as-group") && !text.contains("--tls-server-name"), "{command}: {text}");
    }
}

#[test]
fn saying_nothing_asks_for_help() {
    for line in ["", "offload", "generate"] {
        let output = liqoctl(line);
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{line}");
        assert!(stdout(&output).contains("Commands:"), "{line}: {}", stdout(&output));
    }
}

#[test]
fn later_issues_are_not_declared() {
    for line in ["install aks", "install eks", "install gke", "move volume x"] {
        let output = liqoctl(line);
        assert_eq!(output.status.code(), Some(1), "{line}: {}", stdout(&output));
        assert!(stderr(&output).contains("unrecognized subcommand"), "{line}: {}", stderr(&output));
    }
}

#[test]
fn whatever_is_wrong_the_code_is_1() {
    for (line, told) in [
        ("nonsense", "unrecognized subcommand"),
        ("peer", "required"),
        ("peer oob milan", "--auth-url"),
        ("install", "--pod-cidr"),
        ("install kubeadm --sharing-percentage 101", "invalid percentage value: 101. It has to be in range [0 - 100]"),
        ("install kubeadm --service-type X", "X is not included in ClusterIP,NodePort,LoadBalancer"),
        ("install kubeadm --cluster-labels a", "invalid value a"),
        ("offload ns demo --pod-offloading-strategy X", "X is not included in LocalAndRemote,Remote,Local"),
        ("offload ns demo --timeout 10", "invalid duration"),
        ("offload ns demo -o yaml -l a+b", "invalid selector"),
        ("peer milan", "Failed peering clusters"),
        ("peer in-band milan", "unexpected argument 'milan'"),
        ("peer in-band", "Failed peering clusters: the local cluster: "),
        ("unpeer in-band --remote-request-timeout soon", "invalid duration"),
        ("generate peer-command --only-command", "Failed to retrieve peering information"),
    ] {
        let output = liqoctl(line);
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(stderr(&output).contains(told), "{line}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{line}: {}", stdout(&output));
    }
}

/// A kubeconfig with two contexts, neither of which leads anywhere.
fn two_contexts(directory: &tempfile::TempDir) -> String {
    let path = directory.path().join("config");
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: rome\n\
        contexts:\n- {name: rome, context: {cluster: rome, user: x}}\n- {name: milan, context: {cluster: milan, user: x}}\n\
        clusters:\n- {name: rome, cluster: {server: 'https://127.0.0.1:9'}}\n- {name: milan, cluster: {server: 'https://127.0.0.1:10'}}\n\
        users:\n- {name: x, user: {token: x}}\n";
    std::fs::write(&path, text).expect("written");
    path.display().to_string()
}

#[test]
fn two_clusters_must_be_two() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = two_contexts(&directory);
    for command in ["peer", "unpeer"] {
        for remote in [&[][..], &["--remote-context", "rome"], &["--remote-kubeconfig", &config]] {
            let mut words = vec![command, "in-band", "--kubeconfig", &config];
            words.extend(remote);
            if !remote.contains(&"--remote-kubeconfig") {
                words.extend(["--remote-kubeconfig", &config]);
            }
            let output = run(&words);
            assert_eq!(output.status.code(), Some(1), "{words:?}");
            let told = stderr(&output);
            assert!(told.contains("local and remote clusters must be different"), "{words:?}: {told}");
        }
        let output = run(&[
            command,
            "in-band",
            "--kubeconfig",
            &config,
            "--remote-kubeconfig",
            &config,
            "--remote-context",
            "nowhere",
        ]);
        assert!(
            stderr(&output).contains("the remote cluster: context \"nowhere\" does not exist"),
            "{}",
            stderr(&output)
        );
        let output = run(&[
            command,
            "in-band",
            "--kubeconfig",
            &config,
            "--remote-kubeconfig",
            &config,
            "--remote-context",
            "milan",
        ]);
        assert!(stderr(&output).contains("the local cluster: "), "{}", stderr(&output));
    }
}

#[test]
fn flags_of_the_remote_cluster_are_shown_with_their_own_heading() {
    let text = stdout(&liqoctl("peer in-band --help"));
    for part in [
        "Options of the remote cluster",
        "--remote-kubeconfig <FILE>",
        "--remote-context <NAME>",
        "--remote-namespace <NAME>",
        "--bidirectional",
        "(in the remote cluster)",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("--remote-as-group"), "{text}");
    assert!(!stdout(&liqoctl("unpeer in-band --help")).contains("--bidirectional"));
}

#[test]
fn an_error_has_its_prefix_and_no_colour_in_a_pipe() {
    let text = stderr(&liqoctl("peer milan"));
    assert!(text.starts_with(" ERRO  Failed peering clusters: "), "{text:?}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn the_offloading_manifest_needs_no_cluster() {
    let output = run(&["offload", "namespace", "demo", "-o", "yaml", "--selector", "a in (b,c)", "-l", "!gpu,d=e"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let wanted = "\
apiVersion: offloading.liqo.io/v1alpha1
kind: NamespaceOffloading
metadata:
  creationTimestamp: null
  name: offloading
  namespace: demo
spec:
  clusterSelector:
    nodeSelectorTerms:
    - matchExpressions:
      - key: a
        operator: In
        values:
        - b
        - c
    - matchExpressions:
      - key: gpu
        operator: DoesNotExist
      - key: d
        operator: In
        values:
        - e
  namespaceMappingStrategy: DefaultName
  podOffloadingStrategy: LocalAndRemote
status: {}
";
    assert_eq!(stdout(&output), wanted);
    let json = stdout(&liqoctl("offload ns demo -o json"));
    let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(value["spec"]["clusterSelector"], serde_json::json!({"nodeSelectorTerms": []}));
}

#[test]
fn the_client_version_is_always_told() {
    let client = format!("Client version: v{}\n", env!("CARGO_PKG_VERSION"));
    let output = liqoctl("version --client");
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), client.clone()));
    let output = liqoctl("version");
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), client));
    assert!(
        stderr(&output).contains("Failed to retrieve release information from namespace \"liqo\""),
        "{}",
        stderr(&output)
    );
    assert_eq!(
        stdout(&liqoctl("version --client -o json")).trim(),
        format!("{{\n  \"clientVersion\": \"v{}\"\n}}", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn each_shell_gets_its_script() {
    for (shell, part) in [
        ("bash", "complete "),
        ("zsh", "#compdef liqoctl"),
        ("fish", "complete --"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let output = liqoctl(&format!("completion {shell}"));
        assert!(output.status.success() && stdout(&output).contains(part), "{shell}: {}", stdout(&output));
    }
    assert_eq!(liqoctl("completion tcsh").status.code(), Some(1));
}

#[test]
fn a_shell_is_offered_commands_and_contexts() {
    let directory = tempfile::tempdir().expect("a directory");
    let kubeconfig = directory.path().join("config");
    std::fs::write(
        &kubeconfig,
        "apiVersion: v1\nkind: Config\ncontexts:\n- {name: rome, context: {cluster: x, user: x}}\n",
    )
    .expect("written");
    let ask = |words: &[&str]| {
        let mut command = program();
        command.env("LIQOCTL_COMPLETE", "fish").arg("--").args(words);
        stdout(&command.output().expect("liqoctl runs"))
    };
    let commands = ask(&["liqoctl", ""]);
    assert!(commands.contains("install") && commands.contains("unpeer") && !commands.contains("docs"), "{commands}");
    let kubeconfig = kubeconfig.display().to_string();
    let contexts = ask(&["liqoctl", "--kubeconfig", &kubeconfig, "--context", "r"]);
    assert!(contexts.contains("rome"), "{contexts}");
}

#[test]
fn the_reference_has_a_page_for_each_command() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = run(&["docs", "--dir", &directory.path().display().to_string(), "--generate-headers"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).expect("a page");
    assert!(read("liqoctl_peer_out-of-band.md").starts_with("---\ntitle: \"liqoctl peer out-of-band\"\n---\n"));
    assert!(read("liqoctl.md").contains("](liqoctl_install.md)"));
    assert!(!directory.path().join("liqoctl_docs.md").exists());
}

#[test]
fn a_wrong_helm_is_named_before_anything_is_done() {
    let directory = tempfile::tempdir().expect("a directory");
    let kubeconfig = directory.path().join("config");
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: x\ncontexts:\n- {name: x, context: {cluster: x, user: x}}\n\
        clusters:\n- {name: x, cluster: {server: 'https://127.0.0.1:9'}}\nusers:\n- {name: x, user: {token: x}}\n";
    std::fs::write(&kubeconfig, text).expect("written");
    let kubeconfig = kubeconfig.display().to_string();
    let output = run(&["install", "kubeadm", "--kubeconfig", &kubeconfig, "--helm-path", "/nonexistent/helm"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).starts_with(" ERRO  Error initializing installer: --helm-path /nonexistent/helm"),
        "{}",
        stderr(&output)
    );
    let output = run(&["install", "kubeadm", "--kubeconfig", &kubeconfig]);
    assert!(stderr(&output).contains("is needed because Liqo is installed as a Helm release"), "{}", stderr(&output));
}
