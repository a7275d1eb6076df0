//! Our client and mover on a store that nobody here wrote: moto, over TLS, with its checks of keys and policies on, and its Security
//! Token Service.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use liqo_results::{Assumed, Location, Role, Store, Why, assume};

use crate::{aws, bed::Bed, compare, files, said};

const PREFIX: &str = "team-a/job-1";

struct Moto {
    child: Child,
    _output: BufReader<ChildStdout>,
    said: serde_json::Value,
    ca: PathBuf,
}

impl Drop for Moto {
    fn drop(&mut self) {
        // A process that has ended cannot be killed, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Moto {
    fn start(directory: &Path) -> Self {
        let program = said(Command::new("../../testbed/python-tool").arg("moto"));
        let mut python = Command::new(Path::new(program.trim()).with_file_name("python3"));
        python.args(["../../testbed/moto-store.py", "127.0.0.1"]).arg(directory);
        let log = fs::File::create(directory.join("moto.log")).unwrap();
        let mut child = python.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let (mut output, mut line) = (BufReader::new(child.stdout.take().unwrap()), String::new());
        output.read_line(&mut line).unwrap();
        let why = |error| panic!("{error}: {}", fs::read_to_string(directory.join("moto.log")).unwrap());
        let said = serde_json::from_str(&line).unwrap_or_else(why);
        Self { child, _output: output, said, ca: directory.join("ca.pem") }
    }

    fn text(&self, field: &str) -> String {
        self.said[field].as_str().unwrap().to_owned()
    }

    /// A place in the store with the keys of the operator.
    fn location(&self) -> Location {
        Location {
            endpoint: self.text("endpoint"),
            virtual_host: false,
            region: "us-east-1".into(),
            bucket: self.text("bucket"),
            prefix: PREFIX.into(),
            access_key_id: self.text("accessKeyId"),
            secret_access_key: self.text("secretAccessKey"),
            session_token: None,
            ca: Some(fs::read_to_string(&self.ca).unwrap()),
        }
    }
}

/// Why a store at this location is not fit.
fn unfit(bed: &Bed, location: Location) -> Why {
    bed.wait(Store::new(&location).unwrap().probe()).unwrap_err().why
}

#[test]
fn the_mover_stores_with_keys_for_one_job() {
    let bed = Bed::new();
    let moto = Moto::start(&bed.root);
    let own = moto.location();
    let (endpoint, arn) = (own.endpoint.clone(), moto.text("role"));
    let role = Role { endpoint: &endpoint, arn: &arn, seconds: 900 };
    bed.wait(Store::new(&own).unwrap().probe()).unwrap();
    let Assumed { location: lent, expiration } = bed.wait(assume(&own, role)).unwrap();
    assert!(lent.session_token.is_some() && lent.access_key_id != own.access_key_id && expiration.ends_with('Z'));

    files(&bed.results());
    let mut mover = bed.mover(&lent, &[]);
    mover.begin();
    let (summary, ..) = mover.end();
    assert_eq!((&summary["stored"], &summary["complete"]), (&true.into(), &true.into()), "{summary}");
    let (there, inputs) = (bed.root.join("there"), bed.root.join("inputs"));
    let from = format!("s3://{}/{PREFIX}/", own.bucket);
    let mut copy = aws(&own, &["s3", "cp", "--recursive", "--quiet", &from, there.to_str().unwrap()]);
    said(copy.env("AWS_CA_BUNDLE", &moto.ca));
    compare(&bed.results(), &there);
    bed.fetch(&lent, &inputs).unwrap();
    compare(&bed.results(), &inputs);
    assert_eq!(bed.wait(Store::new(&lent).unwrap().delete_all()).unwrap(), 9);
    assert!(bed.wait(Store::new(&own).unwrap().manifest()).unwrap().is_none());
}

#[test]
fn a_store_that_is_not_fit_says_why() {
    let bed = Bed::new();
    let moto = Moto::start(&bed.root);
    let own = moto.location();
    let weak = |field: &str| moto.said["weak"][field].as_str().unwrap().to_owned();
    let (access_key_id, secret_access_key) = (weak("accessKeyId"), weak("secretAccessKey"));
    assert_eq!(unfit(&bed, Location { access_key_id, secret_access_key, ..own.clone() }), Why::AccessDenied);
    assert_eq!(unfit(&bed, Location { secret_access_key: "x".into(), ..own.clone() }), Why::CredentialsRefused);
    assert_eq!(unfit(&bed, Location { access_key_id: "AKIA0".into(), ..own.clone() }), Why::CredentialsRefused);
    assert_eq!(unfit(&bed, Location { bucket: "nobody-made-this".into(), ..own.clone() }), Why::BucketNotFound);
    assert_eq!(unfit(&bed, Location { endpoint: "https://127.0.0.1:9".into(), ..own.clone() }), Why::Unreachable);
    // Another authority than that of the store.
    let other = bed.root.join("other");
    fs::create_dir(&other).unwrap();
    let ca = Moto::start(&other).location().ca;
    assert_eq!(unfit(&bed, Location { ca, ..own.clone() }), Why::Unreachable);
    let role = Role { endpoint: &own.endpoint, arn: "arn:aws:iam::123456789012:role/mover", seconds: 1 };
    let refused = bed.wait(assume(&Location { secret_access_key: "x".into(), ..own.clone() }, role)).err().unwrap();
    assert_eq!(refused.why, Why::CredentialsRefused, "{refused}");
}
