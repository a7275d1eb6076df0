//! Who and what the store refuses.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use futures::TryStreamExt;
use liqo_results::keys::Access;
use object_store::{ObjectStoreExt, aws::AmazonS3Builder, multipart::MultipartStore, path::Path, signer::Signer};

use crate::bed::{BUCKET, Bed};

#[test]
fn strangers_and_administrators_are_refused() {
    let bed = Bed::new();
    let status = |method: reqwest::Method, path: &str| {
        let url = format!("{}{path}", bed.endpoint);
        bed.wait(async { reqwest::Client::new().request(method, url).send().await.unwrap().status().as_u16() })
    };
    for path in ["/", "/liqo-jobs", "/liqo-jobs/?list-type=2&prefix=team-a/1/", "/liqo-jobs/team-a/1/x", "/other/x"] {
        assert_eq!(status(reqwest::Method::GET, path), 403, "{path}");
    }
    assert_eq!(status(reqwest::Method::PUT, "/other"), 403);
    let s3 = client(&bed);
    for (method, path) in [("PUT", "../2/x"), ("GET", "%2e%2e/2/x"), ("PUT", ".."), ("PUT", "a//b"), ("PUT", "a\u{1}")]
    {
        let url = format!("{}/{BUCKET}/team-a/1/{path}", bed.endpoint);
        let signed = bed
            .wait(s3.signed_url(method.parse().unwrap(), &Path::from("team-a/1/x"), Duration::from_secs(60)))
            .unwrap();
        let query = signed.query().unwrap();
        let answer = bed.wait(async {
            let request = reqwest::Client::new().request(method.parse().unwrap(), format!("{url}?{query}"));
            request.body("x").send().await.unwrap().status().as_u16()
        });
        assert_eq!(answer, 403, "{method} {path}");
    }
    assert!(fs::read_dir(bed.object("")).unwrap().next().is_none());
}

/// Nobody's bytes are taken: a form with a file, and any request without a signature, are answered before their body has come.
#[test]
fn nothing_of_a_stranger_is_read() {
    let bed = Bed::new();
    let address = bed.endpoint.trim_start_matches("http://").to_owned();
    let form = "Content-Type: multipart/form-data; boundary=x\r\n";
    let signed = "Authorization: AWS4-HMAC-SHA256 Credential=x\r\n";
    for (method, path, more) in [
        ("POST", "/liqo-jobs", form.to_owned()),
        ("POST", "/liqo-jobs", format!("{form}{signed}")),
        ("PUT", "/liqo-jobs/team-a/1/x", String::new()),
    ] {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 5368709120\r\n{more}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        // Not a byte of the body was sent, so an answer means that none was waited for.
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("AccessDenied"), "{method} {more:?}: {answer}");
    }
}

/// A chunk of a body, which the S3 library keeps in memory whole, has a limit; chunks of a usual size are taken.
#[test]
fn a_chunk_has_a_limit() {
    let bed = Bed::new();
    let location = bed.location("team-a/1");
    let key = format!("{}:{}", location.access_key_id, location.secret_access_key);
    let put = |name: &str, length: usize, body: &[u8]| {
        let file = bed.root.join(name);
        fs::write(&file, body).unwrap();
        let upload = format!("@{}", file.display());
        let url = format!("{}/{BUCKET}/team-a/1/{name}", bed.endpoint);
        let mut curl = std::process::Command::new("curl");
        curl.args(["-s", "--max-time", "60", "-w", "%{http_code}", "-o", "/dev/null", "-X", "PUT"]);
        curl.args(["--aws-sigv4", "aws:amz:us-east-1:s3", "--user", &key, "--data-binary", &upload]);
        curl.args(["-H", "x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER"]);
        curl.args(["-H", "x-amz-trailer: x-amz-checksum-crc32"]);
        curl.args([
            "-H",
            &format!("x-amz-decoded-content-length: {length}"),
            "-H",
            "content-encoding: aws-chunked",
            &url,
        ]);
        String::from_utf8(curl.output().unwrap().stdout).unwrap()
    };
    // One chunk of zeros, with the CRC-32 of all of them behind it.
    let chunk = |length: usize, sum: &str| {
        let end = format!("\r\n0\r\nx-amz-checksum-crc32:{sum}\r\n\r\n");
        [format!("{length:x}\r\n").as_bytes(), &vec![0; length], end.as_bytes()].concat()
    };
    let (small, large) = (1 << 20, 9 << 20);
    assert_eq!(put("small", small, &chunk(small, "pzjqHA==")), "200");
    assert_eq!(fs::metadata(bed.object("team-a/1/small")).unwrap().len(), small as u64);
    // The connection may end before curl has sent all: there is no status then.
    let refused = put("large", large, &chunk(large, "YyFLrQ=="));
    assert!(refused != "200" && !bed.object("team-a/1/large").exists(), "{refused}");
}

/// When the controller has closed a job, the key of its mover writes nothing more, and unfinished uploads are gone.
#[test]
fn a_closed_job_takes_nothing_more() {
    let bed = Bed::new();
    let s3 = client(&bed);
    let path = |name: &str| Path::from(format!("team-a/1/{name}"));
    bed.wait(s3.put(&path("x"), "x".into())).unwrap();
    let begun = bed.wait(s3.create_multipart(&path("big"))).unwrap();
    let uploads = bed.root.join("data/.liqo-store/uploads");
    assert_eq!(fs::read_dir(&uploads).unwrap().count(), 1);
    let mover = bed.store("team-a/1");
    bed.wait(mover.close()).unwrap();
    bed.wait(s3.put(&path("y"), "y".into())).expect("a mover closes nothing");
    let manager = liqo_results::Store::new(&bed.key("team-a/1", "team-a/1", Access::Manage, 60)).unwrap();
    bed.wait(manager.close()).unwrap();
    assert_eq!(fs::read_dir(&uploads).unwrap().count(), 0);
    let refused =
        |outcome: Result<(), object_store::Error>| matches!(outcome, Err(object_store::Error::PermissionDenied { .. }));
    assert!(refused(bed.wait(s3.put(&path("z"), "z".into())).map(drop)));
    assert!(refused(bed.wait(s3.put_part(&path("big"), &begun, 0, "z".into())).map(drop)));
    assert!(refused(bed.wait(s3.create_multipart(&path("more"))).map(drop)));
    assert!(refused(bed.wait(s3.delete(&path("x")))));
    assert_eq!(bed.wait(mover.open("x", None)).unwrap().size, 1, "what is there can be read");
    assert!(bed.wait(bed.store("team-a/11").list().try_collect::<Vec<_>>()).unwrap().is_empty());
    bed.wait(client_of(&bed, "team-a/11").put(&Path::from("team-a/11/x"), "x".into())).expect("another job goes on");
    assert_eq!(bed.wait(manager.delete_all()).unwrap(), 3);
}

pub(crate) fn client(bed: &Bed) -> object_store::aws::AmazonS3 {
    client_of(bed, "team-a/1")
}

pub(crate) fn client_of(bed: &Bed, prefix: &str) -> object_store::aws::AmazonS3 {
    let location = bed.location(prefix);
    AmazonS3Builder::new()
        .with_endpoint(&location.endpoint)
        .with_region(&location.region)
        .with_bucket_name(&location.bucket)
        .with_access_key_id(&location.access_key_id)
        .with_secret_access_key(&location.secret_access_key)
        .with_allow_http(true)
        .build()
        .unwrap()
}
