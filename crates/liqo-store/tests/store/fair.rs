//! What one client does keeps no other client waiting.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::Duration,
};

use liqo_results::{Store, keys::Access};
use object_store::{
    ObjectStoreExt,
    multipart::{MultipartStore, PartId},
    path::Path,
};
use rustix::fs::{CWD, Mode, mkfifoat};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::{
    bed::Bed,
    refused::{client, client_of},
};

/// Fewest bytes of a part that is not the last.
const PART: usize = 5 << 20;
/// Longer than any of these requests takes alone.
const SOON: Duration = Duration::from_secs(20);

/// The file of a part, wherever the store has it at the moment.
fn part(bed: &Bed, number: u8) -> Option<PathBuf> {
    let uploads = fs::read_dir(bed.root.join("data/.liqo-store/uploads")).unwrap();
    uploads.map(|upload| upload.unwrap().path().join(number.to_string())).find(|path| path.exists())
}

/// While the parts of a large upload are put together, prefixes are closed and objects are written. The second part is a pipe, from
/// which bytes come when the others are done.
#[test]
fn nobody_waits_until_parts_are_together() {
    let bed = Bed::new();
    let s3 = std::sync::Arc::new(client(&bed));
    let path = Path::from("team-a/1/big");
    let id = bed.wait(s3.create_multipart(&path)).unwrap();
    let first = bed.wait(s3.put_part(&path, &id, 0, vec![b'x'; PART].into())).unwrap();
    let pipe = part(&bed, 1).unwrap().with_file_name("2");
    mkfifoat(CWD, &pipe, Mode::RUSR | Mode::WUSR).unwrap();
    let data = fs::metadata(&pipe).unwrap();
    let time = i128::from(data.mtime()) * 1_000_000_000 + i128::from(data.mtime_nsec());
    let second = PartId { content_id: format!("{:x}-{time:x}-{:x}", data.ino(), data.len()) };
    let manager = Store::new(&bed.key("team-b/2", "team-b/2", Access::Manage, 60)).unwrap();
    let other = client_of(&bed, "team-c/3");
    bed.wait(async {
        let (s3, path) = (s3.clone(), path.clone());
        let ending = tokio::spawn(async move { s3.complete_multipart(&path, &id, vec![first, second]).await });
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!ending.is_finished(), "the parts are being put together");
        tokio::time::timeout(SOON, manager.close()).await.expect("a prefix is closed meanwhile").unwrap();
        let small = Path::from("team-c/3/x");
        let written = other.put(&small, "x".into());
        tokio::time::timeout(SOON, written).await.expect("an object is written meanwhile").unwrap();
        let mut pipe = OpenOptions::new().write(true).open(part(&bed, 2).unwrap()).unwrap();
        pipe.write_all(b"end").unwrap();
        drop(pipe);
        ending.await.unwrap().unwrap();
    });
    let bytes = fs::read(bed.object("team-a/1/big")).unwrap();
    assert_eq!((bytes.len(), &bytes[PART..]), (PART + 3, &b"end"[..]));
}

/// Four sources that have taken all connections, and let nothing move on them, keep no other source out.
#[test]
fn four_sources_do_not_take_the_store() {
    let bed = Bed::new();
    let address: SocketAddr = bed.endpoint.trim_start_matches("http://").parse().unwrap();
    bed.wait(async {
        let mut held = Vec::new();
        for source in 1..=4_u8 {
            for _ in 0..128 {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind((Ipv4Addr::new(127, 0, 1, source), 0).into()).unwrap();
                held.push(socket.connect(address).await.unwrap());
            }
        }
        // No client that tries again until the store has given up on silent connections.
        let mut fifth = TcpStream::connect(address).await.unwrap();
        fifth.write_all(b"GET /liqo-jobs HTTP/1.1\r\nHost: store\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        let read = tokio::time::timeout(SOON, fifth.read_exact(&mut answer)).await.expect("an answer in time");
        assert!(read.is_ok() && &answer == b"HTTP/1.1 403", "a fifth source is served: {read:?}");
        drop(held);
    });
}
