//! The store and the mover: real files, real sockets, real processes.

#![expect(clippy::unwrap_used, reason = "helpers of tests: whatever fails here fails the test")]
#![expect(clippy::disallowed_methods, reason = "movers are processes that tests start and kill")]

#[path = "store/bed.rs"]
mod bed;
#[path = "store/fair.rs"]
mod fair;
#[path = "store/refused.rs"]
mod refused;

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    net::TcpStream,
    os::unix::fs::symlink,
    time::{Duration, Instant},
};

use bed::{Bed, digest_of, inode};
use clap::Parser;
use futures::TryStreamExt;
use liqo_results::{
    Manifest, StoreError,
    keys::Access,
    mover::{self, MoverArgs},
};
use object_store::{path::Path, signer::Signer};
use refused::client;

/// Arguments of a mover, one a line.
const ARGS: &str = "LIQO_TEST_MOVER";
const MIB: usize = 1024 * 1024;

#[test]
#[ignore = "no test: the process of a mover, which tests start"]
fn mover() {
    let args = std::env::var_os(ARGS).unwrap().into_string().unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args = MoverArgs::parse_from(["liqo-mover"].into_iter().chain(args.lines()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(mover::run(args)).unwrap();
}

/// Every byte value, runs of CR and LF, and bytes that are no UTF-8.
fn bytes(length: usize) -> Vec<u8> {
    let every = (0..=255_u8).chain(*b"\r\n\r\n\n\r\r\n\xff\xfe\xc0\x80\xed\xa0\x80");
    let mut state = 1_u32;
    let noise = std::iter::from_fn(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        Some(state.to_le_bytes()[1])
    });
    every.chain(noise).take(length).collect()
}

/// A file of zeros besides its ends, which takes little space.
fn sparse(path: &std::path::Path, length: u64) {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).unwrap();
    file.write_all(b"begin").unwrap();
    file.seek(SeekFrom::Start(length - 3)).unwrap();
    file.write_all(b"end").unwrap();
}

#[test]
fn every_byte_arrives() {
    let bed = Bed::new();
    let results = bed.results();
    let deep = format!("{}/leaf", vec!["d".repeat(60); 14].join("/"));
    for path in
        ["small", "deep", "with space/ü/日本"].map(|path| results.join(path)).iter().chain([&results.join(&deep)])
    {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
    }
    fs::create_dir_all(results.join("small")).unwrap();
    for number in 0..1000 {
        fs::write(results.join(format!("small/{number}")), bytes(number)).unwrap();
    }
    let odd = r#"with space/ü/日本 % %2e%2e + & ? # ~ * " ' < > [ ] { } | \ ^ `"#;
    for (path, length) in [("bytes", 3 * MIB), ("parts", 11 * MIB + 1), ("empty", 0), (deep.as_str(), 10), (odd, 11)] {
        fs::write(results.join(path), bytes(length)).unwrap();
    }
    sparse(&results.join("sparse"), 200 << 20);
    symlink("/etc/passwd", results.join("link")).unwrap();

    let mut mover = bed.mover(&bed.location("team-a/1"), &[]);
    mover.begin();
    mover.hurry();
    let (summary, log, memory) = mover.end();
    assert!(memory < 30 * 1024, "the mover needed {memory} KiB: {log}");
    assert_eq!(
        (&summary["stored"], &summary["complete"], &summary["files"]),
        (&true.into(), &true.into(), &1006.into())
    );

    let store = bed.store("team-a/1");
    let manifest = bed.wait(store.manifest()).unwrap().unwrap();
    assert_eq!((manifest.job.as_str(), manifest.complete, manifest.files.len()), ("team-a/job", true, 1006));
    assert_eq!(manifest.skipped.iter().map(|skipped| skipped.path.as_str()).collect::<Vec<_>>(), ["link"]);
    for file in &manifest.files {
        let on_disk = (fs::metadata(results.join(&*file.path)).unwrap().len(), digest_of(&results.join(&*file.path)));
        assert_eq!((file.size, file.sha256), on_disk, "{}", file.path);
        assert_eq!(bed.digest(&store, &file.path), on_disk, "{}", file.path);
    }
    let listed: Vec<_> = bed.wait(store.list().try_collect()).unwrap();
    assert_eq!(listed.len(), 1006, "nothing but results is left");

    let part = bed.wait(store.open("parts", Some(5..300))).unwrap();
    assert_eq!((part.size, part.range.clone()), (11 * MIB as u64 + 1, 5..300));
    assert_eq!(bed.wait(part.bytes.try_collect::<Vec<_>>()).unwrap().concat(), bytes(300)[5..]);
    let url = bed.wait(store.signed_url(odd, Duration::from_secs(60))).unwrap();
    let body = bed.wait(async { reqwest::get(url).await.unwrap().error_for_status().unwrap().bytes().await.unwrap() });
    assert_eq!(body, bytes(11));

    let copy = bed.root.join("copy");
    bed.fetch(&bed.key("team-a/1", "team-a/1", Access::ReadOnly, 60), &copy).unwrap();
    for file in &manifest.files {
        assert_eq!(digest_of(&copy.join(&*file.path)), file.sha256, "{}", file.path);
    }

    assert_eq!(bed.wait(store.delete_all()).unwrap(), 1006);
    assert!(!bed.object("team-a").exists() && bed.wait(store.manifest()).unwrap().is_none());
}

#[test]
fn a_killed_mover_is_gone_on_with() {
    let bed = Bed::new();
    for number in 0..200 {
        fs::write(bed.results().join(format!("a{number:03}")), bytes(1000 + number)).unwrap();
    }
    sparse(&bed.results().join("large"), 200 << 20);
    let mut first = bed.mover(&bed.location("team-a/1"), &[]);
    first.begin();
    let (uploads, began) = (bed.root.join("data/.liqo-store/uploads"), Instant::now());
    // Part 1 is the file that becomes the object.
    let part = loop {
        assert!(began.elapsed() < Duration::from_secs(60), "no record");
        let begun = fs::read_dir(&uploads).unwrap().next().map(|upload| upload.unwrap().path().join("1"));
        if bed.object("team-a/1/.liqo/progress/0.json").exists()
            && let Some(part) = begun.filter(|part| part.exists())
        {
            break inode(&part);
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    first.kill();
    let store = bed.store("team-a/1");
    assert!(!bed.object("team-a/1/large").exists() && bed.wait(store.manifest()).unwrap().is_none());
    let before: Vec<_> =
        (0..200).map(|number| bed.object(&format!("team-a/1/a{number:03}"))).map(|path| inode(&path)).collect();

    // A file that changed meanwhile is sent again.
    fs::write(bed.results().join("a007"), bytes(1007).iter().rev().copied().collect::<Vec<_>>()).unwrap();
    let mut second = bed.mover(&bed.location("team-a/1"), &[]);
    second.begin();
    let (_, log, _) = second.end();
    assert!(log.contains("going on where a mover was ended"), "{log}");
    let manifest = bed.wait(store.manifest()).unwrap().unwrap();
    assert!(manifest.complete && manifest.files.len() == 201);
    for file in &manifest.files {
        let on_disk = digest_of(&bed.results().join(&*file.path));
        assert_eq!((file.sha256, bed.digest(&store, &file.path).1), (on_disk, on_disk), "{}", file.path);
    }
    let after = (0..200).map(|number| bed.object(&format!("team-a/1/a{number:03}"))).map(|path| inode(&path));
    let sent_again: Vec<_> =
        before.iter().zip(after).enumerate().filter(|(_, (a, b))| *a != b).map(|(n, _)| n).collect();
    assert_eq!(sent_again, [7]);
    assert_eq!(inode(&bed.object("team-a/1/large")), part, "the parts that were stored were used");
    assert!(!bed.object("team-a/1/.liqo/progress").exists() && fs::read_dir(uploads).unwrap().next().is_none());
}

#[test]
fn what_is_too_large_is_reported_and_not_cut() {
    let bed = Bed::new();
    for (path, length) in [("a", 100), ("b", 1000), ("c", 100)] {
        fs::write(bed.results().join(path), bytes(length)).unwrap();
    }
    let mut mover = bed.mover(&bed.location("team-a/1"), &["--max-size", "250"]);
    mover.begin();
    let (summary, _, _) = mover.end();
    let manifest = bed.wait(bed.store("team-a/1").manifest()).unwrap().unwrap();
    let why = "1 result is not stored: the results are larger than 250 bytes";
    assert_eq!((manifest.complete, manifest.reason.as_deref(), manifest.total), (false, Some(why), 200));
    assert_eq!(manifest.files.iter().map(|file| &*file.path).collect::<String>(), "ac");
    assert_eq!((&summary["stored"], &summary["reason"]), (&true.into(), &why.into()));
    assert!(!bed.object("team-a/1/b").exists());
}

#[test]
fn inputs_are_there_with_the_bytes_that_their_list_says() {
    let bed = Bed::new();
    for (path, length) in [("a/large", 3 * MIB), ("a/same", 10), ("a/again", 10)] {
        fs::create_dir_all(bed.results().join("a")).unwrap();
        fs::write(bed.results().join(path), bytes(length)).unwrap();
    }
    let location = bed.location("team-a/1");
    let mut mover = bed.mover(&location, &[]);
    mover.begin();
    mover.end();
    let into = bed.root.join("inputs");
    bed.fetch(&location, &into).unwrap();
    let names = |directory: &std::path::Path| {
        let mut names: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&into.join("a")), ["again", "large", "same"]);

    // A download goes on where another one ended.
    let manifest = bed.wait(bed.store("team-a/1").manifest()).unwrap().unwrap();
    let large = manifest.files.iter().find(|file| &*file.path == "a/large").unwrap();
    fs::remove_file(into.join("a/large")).unwrap();
    let partial = into.join("a").join(liqo_results::partial_name(large));
    fs::write(&partial, &bytes(3 * MIB)[..MIB]).unwrap();
    bed.fetch(&location, &into).unwrap();
    assert_eq!(fs::read(into.join("a/large")).unwrap(), bytes(3 * MIB));
    fs::remove_file(into.join("a/large")).unwrap();
    fs::write(&partial, vec![0; MIB]).unwrap();
    bed.fetch(&location, &into).unwrap();
    assert_eq!(fs::read(into.join("a/large")).unwrap(), bytes(3 * MIB), "what is no beginning of the file is not used");
    assert_eq!(names(&into.join("a")), ["again", "large", "same"]);

    // A link at the place of a file is replaced, a link at the place of a directory is not followed.
    fs::remove_file(into.join("a/same")).unwrap();
    fs::write(bed.root.join("outside"), "outside").unwrap();
    symlink(bed.root.join("outside"), into.join("a/same")).unwrap();
    bed.fetch(&location, &into).unwrap();
    assert_eq!(
        (fs::read(into.join("a/same")).unwrap(), fs::read(bed.root.join("outside")).unwrap()),
        (bytes(10), b"outside".into())
    );
    fs::remove_dir_all(into.join("a")).unwrap();
    fs::create_dir(bed.root.join("elsewhere")).unwrap();
    symlink(bed.root.join("elsewhere"), into.join("a")).unwrap();
    let error = bed.fetch(&location, &into).unwrap_err();
    assert!(error.contains("writing") && fs::read_dir(bed.root.join("elsewhere")).unwrap().next().is_none(), "{error}");

    // Bytes that changed in the store are not taken.
    fs::write(bed.object("team-a/1/a/same"), "0123456789").unwrap();
    let error = bed.fetch(&location, &bed.root.join("others")).unwrap_err();
    assert!(error.contains("has the digest") && !bed.root.join("others/a/same").exists(), "{error}");
}

#[test]
fn keys_open_their_prefix_for_their_time() {
    let bed = Bed::new();
    fs::write(bed.results().join("x"), "x").unwrap();
    let mut mover = bed.mover(&bed.location("team-a/1"), &[]);
    mover.begin();
    mover.end();
    let refused = |prefix, opened, access, seconds| {
        let store = liqo_results::Store::new(&bed.key(prefix, opened, access, seconds)).unwrap();
        let read = bed.wait(store.open("x", None)).map(|opened| opened.size);
        let list = bed.wait(store.list().try_collect::<Vec<_>>()).map(|list| list.len());
        let remove = bed.wait(store.delete_all());
        [read.is_err(), list.is_err(), remove.is_err()]
            .map(|refused| if refused { 'n' } else { 'y' })
            .iter()
            .collect::<String>()
    };
    assert_eq!(refused("team-a/1", "team-a/1", Access::ReadOnly, 60), "yyn");
    for (prefix, opened, seconds) in [
        ("team-a/1", "team-a/2", 60),
        ("team-a/1", "team-a/11", 60),
        ("team-a/1", "team-b/1", 60),
        ("team-a/1", "team-a/1", -1),
        ("team-a", "team-a/1", 60),
    ] {
        assert_eq!(refused(prefix, opened, Access::ReadWrite, seconds), "nnn", "{opened} {seconds}");
    }
    assert!(bed.object("team-a/1/x").exists());
    let expired = liqo_results::Store::new(&bed.key("team-a/1", "team-a/1", Access::ReadWrite, -1)).unwrap();
    let error = bed.wait(expired.manifest()).unwrap_err();
    assert!(matches!(error, StoreError::Refused(..)) && error.chain().contains("expired"), "{}", error.chain());
    let wrong = bed.location("team-a/1");
    let wrong = liqo_results::Location { secret_access_key: "x".repeat(43), ..wrong };
    let error = bed.wait(liqo_results::Store::new(&wrong).unwrap().manifest()).unwrap_err();
    assert!(matches!(error, StoreError::Refused(..)), "{}", error.chain());

    let mut mover = bed.mover(&bed.key("team-a/1", "team-a/1", Access::ReadOnly, 60), &[]);
    mover.begin();
    let summary = mover.summary();
    mover.kill();
    assert!(summary["stored"] == false && summary["reason"].as_str().unwrap().contains("reading only"), "{summary}");
}

#[test]
fn a_cut_upload_leaves_nothing() {
    let bed = Bed::new();
    let s3 = client(&bed);
    let put = |path: &str, announced: usize, sent: &[u8]| {
        let url = bed.wait(s3.signed_url(reqwest::Method::PUT, &Path::from(path), Duration::from_secs(60))).unwrap();
        let (address, query) = (url.authority().to_owned(), url.query().unwrap().to_owned());
        let mut stream = TcpStream::connect(&address).unwrap();
        let head =
            format!("PUT {}?{query} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {announced}\r\n\r\n", url.path());
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(sent).unwrap();
        stream
    };
    let drafts = || fs::read_dir(bed.root.join("data/.liqo-store/new")).unwrap().count();
    let until = |what: &str, is: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !is() {
            assert!(began.elapsed() < Duration::from_secs(30), "{what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let cut = put("team-a/1/cut", 2 * MIB, &bytes(MIB));
    until("the upload begins", &|| drafts() == 1);
    drop(cut);
    until("what arrived goes", &|| drafts() == 0);
    assert!(!bed.object("team-a").exists());
    let mut whole = put("team-a/1/whole", MIB, &bytes(MIB));
    let mut answer = [0; 12];
    whole.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    assert_eq!(fs::read(bed.object("team-a/1/whole")).unwrap(), bytes(MIB));
}

#[test]
fn a_full_store_says_so_and_the_mover_waits_for_room() {
    let bed = Bed::of_size(4 * MIB);
    fs::write(bed.results().join("small"), bytes(1000)).unwrap();
    fs::write(bed.results().join("large"), bytes(8 * MIB)).unwrap();
    let mut mover = bed.mover(&bed.location("team-a/1"), &[]);
    mover.begin();
    let summary = mover.summary();
    assert!(summary["stored"] == false && summary["reason"].as_str().unwrap().contains("is full"), "{summary}");
    assert!(bed.wait(bed.store("team-a/1").manifest()).unwrap().is_none());
    bed.resize(64 * MIB);
    let (summary, log, _) = mover.end();
    assert_eq!(summary["complete"], true, "{log}");
    assert_eq!(fs::read(bed.object("team-a/1/large")).unwrap(), bytes(8 * MIB));
}

#[test]
fn a_manifest_that_is_none_is_not_believed() {
    let bed = Bed::new();
    fs::create_dir_all(bed.object("team-a/1/.liqo")).unwrap();
    let manifest = Manifest::new("j", Vec::new(), None);
    let lie = serde_json::to_string(&manifest).unwrap().replace("\"total\":0", "\"total\":1");
    File::create(bed.object("team-a/1/.liqo/manifest.json")).unwrap().write_all(lie.as_bytes()).unwrap();
    let error = bed.wait(bed.store("team-a/1").manifest()).unwrap_err();
    assert!(matches!(error, StoreError::Manifest(_)), "{}", error.chain());
    // The mover replaces it.
    let mut mover = bed.mover(&bed.location("team-a/1"), &[]);
    mover.begin();
    mover.end();
    assert!(bed.wait(bed.store("team-a/1").manifest()).unwrap().unwrap().complete);
}
