//! S3 clients that nobody here wrote, on the store and on what the mover wrote: boto3, the AWS CLI, rclone; and our client on a store that
//! nobody here wrote. Versions are pinned by `testbed/install` and `testbed/python-tool`, which install them.

#![expect(clippy::unwrap_used, reason = "helpers of tests: whatever fails here fails the test")]
#![expect(clippy::disallowed_methods, reason = "clients are processes")]

#[path = "store/bed.rs"]
#[expect(dead_code, reason = "the suite `store` uses the rest")]
mod bed;
#[path = "s3_clients/moto.rs"]
mod moto;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use bed::{BUCKET, Bed, digest_of};
use clap::Parser;
use liqo_results::{
    Location,
    mover::{self, MoverArgs},
};

/// Arguments of a mover, one a line.
const ARGS: &str = "LIQO_TEST_MOVER";
const PREFIX: &str = "team-a/1";
/// Names of files that clients escape, each in its own way.
const NAMES: [&str; 8] =
    ["plain", "with space", "ü/日本", "a+b=c&d", "100%/%2e%2e", "semi;colon,comma", "d/e/e/p", "~tilde!(x)"];
const MIB: usize = 1 << 20;

#[test]
#[ignore = "no test: the process of a mover, which tests start"]
fn mover() {
    let args = std::env::var_os(ARGS).unwrap().into_string().unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args = MoverArgs::parse_from(["liqo-mover"].into_iter().chain(args.lines()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(mover::run(args)).unwrap();
}

/// A program of the clients' environment, with a key of the store.
fn client(program: &str, location: &Location) -> Command {
    let paths = Command::new("../../testbed/install").arg("--paths").stderr(Stdio::inherit()).output().unwrap();
    let paths = String::from_utf8(paths.stdout).unwrap();
    let program = Path::new(paths.lines().nth(2).unwrap()).join(program);
    assert!(program.is_file(), "there is no {}: run testbed/install", program.display());
    let mut command = Command::new(program);
    command.env("AWS_ACCESS_KEY_ID", &location.access_key_id);
    command.env("AWS_SECRET_ACCESS_KEY", &location.secret_access_key);
    command.env("AWS_DEFAULT_REGION", &location.region).env("AWS_EC2_METADATA_DISABLED", "true");
    command.env("AWS_ENDPOINT_URL", &location.endpoint).env("AWS_PAGER", "").env("AWS_MAX_ATTEMPTS", "1");
    // The CLI of the first generation signs URLs in a form that stores refuse today, unless this file says otherwise.
    command.env("AWS_CONFIG_FILE", "tests/s3_clients/aws.ini").env_remove("AWS_CA_BUNDLE");
    command
}

/// The AWS CLI.
fn aws(location: &Location, args: &[&str]) -> Command {
    let mut command = client("aws", location);
    command.args(args);
    command
}

/// rclone, to which the store is `store:`.
fn rclone(location: &Location, args: &[&str]) -> Command {
    let mut command = Command::new("rclone");
    for (key, value) in [
        ("TYPE", "s3"),
        ("PROVIDER", "Other"),
        ("ENDPOINT", &location.endpoint),
        ("REGION", &location.region),
        ("ACCESS_KEY_ID", &location.access_key_id),
        ("SECRET_ACCESS_KEY", &location.secret_access_key),
        ("FORCE_PATH_STYLE", "true"),
        // A key of a job makes no buckets.
        ("NO_CHECK_BUCKET", "true"),
    ] {
        command.env(format!("RCLONE_CONFIG_STORE_{key}"), value);
    }
    // With a bundle, the library of rclone 1.60 refuses the transport of rclone.
    command.env_remove("AWS_CA_BUNDLE").env("RCLONE_CONFIG", "/dev/null");
    command.args(["--retries", "1", "--low-level-retries", "1"]).args(args);
    command
}

/// What a client says that must succeed.
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; run testbed/install"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {out}{err}");
    out.into_owned()
}

/// What a client says that must fail.
fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; run testbed/install"));
    assert!(!output.status.success(), "{command:?} was not refused");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Files with every name, and one of several parts.
fn files(directory: &Path) {
    for (number, name) in NAMES.iter().enumerate() {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, (0..=255_u8).cycle().take(1000 + number).collect::<Vec<_>>()).unwrap();
    }
    fs::write(directory.join("large"), (0..=255_u8).cycle().take(20 * MIB + 1).collect::<Vec<_>>()).unwrap();
}

/// The files are in both directories, and the same.
fn compare(one: &Path, other: &Path) {
    for name in NAMES.iter().chain(&["large"]) {
        assert_eq!(digest_of(&one.join(name)), digest_of(&other.join(name)), "{name}");
    }
}

/// A bed with results that a mover stored, and the place for a client.
fn stored() -> (Bed, Location, PathBuf) {
    let bed = Bed::new();
    files(&bed.results());
    let location = bed.location(PREFIX);
    let mut mover = bed.mover(&location, &[]);
    mover.begin();
    mover.end();
    let here = bed.root.join("client");
    fs::create_dir(&here).unwrap();
    (bed, location, here)
}

#[test]
fn boto3_does_what_it_does_elsewhere() {
    let bed = Bed::new();
    let location = bed.location(PREFIX);
    let script = ["tests/s3_clients/boto.py", &location.endpoint, PREFIX];
    assert!(said(client("python3", &location).args(script)).contains("came and went"));
}

#[test]
fn the_aws_cli_does_what_it_does_elsewhere() {
    let (bed, location, here) = stored();
    let url = |name: &str| format!("s3://{BUCKET}/{PREFIX}/{name}");
    let into = here.to_str().unwrap();
    said(&mut aws(&location, &["s3", "cp", "--recursive", "--quiet", &url(""), into]));
    compare(&bed.results(), &here);
    assert!(fs::read_to_string(here.join(".liqo/manifest.json")).unwrap().contains("\"complete\":true"));

    said(&mut aws(&location, &["s3", "sync", "--quiet", "--exclude", ".liqo/*", into, &url("again/")]));
    let copy = bed.root.join("copy");
    said(&mut aws(&location, &["s3", "sync", "--quiet", &url("again/"), copy.to_str().unwrap()]));
    compare(&here, &copy);

    let listed = said(&mut aws(&location, &["s3", "ls", "--recursive", "--page-size", "3", &url("again/")]));
    assert_eq!(listed.lines().count(), NAMES.len() + 1, "{listed}");
    let part = bed.root.join("part");
    let key = format!("{PREFIX}/plain");
    let get =
        ["s3api", "get-object", "--bucket", BUCKET, "--key", &key, "--range", "bytes=250-259", part.to_str().unwrap()];
    said(&mut aws(&location, &get));
    assert_eq!(fs::read(&part).unwrap(), [250, 251, 252, 253, 254, 255, 0, 1, 2, 3]);

    let signed = said(&mut aws(&location, &["s3", "presign", "--expires-in", "60", &url(NAMES[3])]));
    let signed = signed.trim();
    let got = said(Command::new("curl").args(["-sS", "-o", part.to_str().unwrap(), "-w", "%{http_code}", signed]));
    assert_eq!((got.as_str(), digest_of(&part)), ("200", digest_of(&here.join(NAMES[3]))));

    let wrong = Location { secret_access_key: "x".repeat(43), ..location.clone() };
    let why = refused(&mut aws(&wrong, &["s3api", "head-object", "--bucket", BUCKET, "--key", &key]));
    assert!(why.contains("403"), "{why}");
    let why = refused(&mut aws(&wrong, &["s3", "ls", &url("")]));
    assert!(why.contains("SignatureDoesNotMatch"), "{why}");
    let why = refused(&mut aws(&location, &["s3", "ls", &format!("s3://{BUCKET}/team-b/")]));
    assert!(why.contains("AccessDenied"), "{why}");

    said(&mut aws(&location, &["s3", "rm", "--recursive", "--quiet", &url("again/")]));
    assert!(!bed.object(&format!("{PREFIX}/again")).exists() && bed.object(&key).exists());
}

#[test]
fn rclone_does_what_it_does_elsewhere() {
    let (bed, location, here) = stored();
    let at = |name: &str| format!("store:{BUCKET}/{PREFIX}/{name}");
    let into = here.to_str().unwrap();
    said(&mut rclone(&location, &["copy", &at(""), into]));
    compare(&bed.results(), &here);
    let large = ["--s3-upload-cutoff", "5M", "--s3-chunk-size", "5M", "--exclude", ".liqo/**"];
    said(&mut rclone(&location, &[&["copy", into, &at("again")], &large[..]].concat()));
    said(&mut rclone(&location, &["check", "--download", "--one-way", &at("again"), into]));
    let listed = said(&mut rclone(&location, &["lsf", "-R", "--files-only", "--s3-list-chunk", "3", &at("again")]));
    assert_eq!(listed.lines().count(), NAMES.len() + 1, "{listed}");
    let part = said(&mut rclone(&location, &["cat", "--offset", "97", "--count", "3", &at("again/plain")]));
    assert_eq!(part, "abc");
    let wrong = Location { secret_access_key: "x".repeat(43), ..location.clone() };
    let why = refused(&mut rclone(&wrong, &["lsf", &at("")]));
    assert!(why.contains("SignatureDoesNotMatch"), "{why}");
    said(&mut rclone(&location, &["delete", &at("again")]));
    assert!(!bed.object(&format!("{PREFIX}/again")).exists() && bed.object(&format!("{PREFIX}/plain")).exists());
}
