//! Bytes of objects on their way between client and disk.
//!
//! Keeps true: the thread that serves everybody does not wait for the disk, and memory for one object is bounded.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use s3s::{
    S3Error, S3Result, TrailingHeaders,
    checksum::ChecksumHasher,
    crypto::{Checksum as _, Md5},
    dto::{Checksum, StreamingBlob},
    s3_error,
};
use tokio::task::spawn_blocking;

use crate::disk::{Disk, Draft, failed};

/// Bytes that are written or read at once.
const PIECE: usize = 256 * 1024;

/// What a client says about the bytes that it sends, besides its signature.
#[derive(Default)]
pub(crate) struct Claims {
    /// MD5, in Base64.
    pub(crate) md5: Option<String>,
    /// Digests in headers.
    pub(crate) checksum: Checksum,
    /// The algorithm of a digest that comes after the bytes.
    pub(crate) algorithm: Option<String>,
    /// Where that digest is then.
    pub(crate) trailers: Option<TrailingHeaders>,
}

/// Work for the disk, where nobody waits for it.
pub(crate) async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> S3Result<T> + Send + 'static) -> S3Result<T> {
    spawn_blocking(work).await.map_err(S3Error::internal_error)?
}

/// Writes a body into a new file. What the client claims about the bytes is compared.
pub(crate) async fn receive(disk: &Arc<Disk>, body: Option<StreamingBlob>, claims: Claims) -> S3Result<Draft> {
    let disk = Arc::clone(disk);
    let mut draft = on_disk(move || disk.draft().map_err(failed)).await?;
    let (mut digests, mut pending, mut length) = (Digests::new(&claims)?, Vec::new(), 0);
    if let Some(mut body) = body {
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| broken(&*error))?;
            digests.update(&piece);
            length += piece.len();
            pending.push(piece);
            if length >= PIECE {
                draft = write(draft, std::mem::take(&mut pending)).await?;
                length = 0;
            }
        }
    }
    let draft = if pending.is_empty() { draft } else { write(draft, pending).await? };
    digests.compare(claims)?;
    Ok(draft)
}

async fn write(mut draft: Draft, pieces: Vec<Bytes>) -> S3Result<Draft> {
    on_disk(move || {
        for piece in pieces {
            draft.file.write_all(&piece).map_err(failed)?;
        }
        Ok(draft)
    })
    .await
}

/// A body that did not come as announced.
fn broken(error: &(dyn std::error::Error + Send + Sync)) -> S3Error {
    let text = error.to_string();
    if text.contains("Sha256Mismatch") {
        s3_error!(BadDigest, "the bytes have another digest than the signature says")
    } else {
        s3_error!(IncompleteBody, "the body did not come as announced: {text}")
    }
}

/// Digests of the bytes so far, those that the client gives.
struct Digests {
    md5: Option<Md5>,
    others: ChecksumHasher,
}

impl Digests {
    fn new(claims: &Claims) -> S3Result<Self> {
        let Checksum { checksum_crc32, checksum_crc32c, checksum_sha1, checksum_sha256, checksum_crc64nvme, .. } =
            &claims.checksum;
        let algorithm = claims.algorithm.as_deref();
        if let Some(other) = algorithm
            && !["CRC32", "CRC32C", "SHA1", "SHA256", "CRC64NVME"].contains(&other)
        {
            return Err(s3_error!(NotImplemented, "digests of the kind {other:?} cannot be compared"));
        }
        let named = |name| algorithm == Some(name);
        let others = ChecksumHasher {
            crc32: (checksum_crc32.is_some() || named("CRC32")).then(Default::default),
            crc32c: (checksum_crc32c.is_some() || named("CRC32C")).then(Default::default),
            sha1: (checksum_sha1.is_some() || named("SHA1")).then(Default::default),
            sha256: (checksum_sha256.is_some() || named("SHA256")).then(Default::default),
            crc64nvme: (checksum_crc64nvme.is_some() || named("CRC64NVME")).then(Default::default),
        };
        Ok(Self { md5: claims.md5.is_some().then(Md5::new), others })
    }

    fn update(&mut self, bytes: &[u8]) {
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        self.others.update(bytes);
    }

    fn compare(self, claims: Claims) -> S3Result<()> {
        let Claims { md5, mut checksum, trailers, .. } = claims;
        let trailers = trailers.and_then(|trailers| trailers.take()).unwrap_or_default();
        let late = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        for (name, place) in [
            ("x-amz-checksum-crc32", &mut checksum.checksum_crc32),
            ("x-amz-checksum-crc32c", &mut checksum.checksum_crc32c),
            ("x-amz-checksum-sha1", &mut checksum.checksum_sha1),
            ("x-amz-checksum-sha256", &mut checksum.checksum_sha256),
            ("x-amz-checksum-crc64nvme", &mut checksum.checksum_crc64nvme),
        ] {
            *place = place.take().or_else(|| late(name));
        }
        let found = self.others.finalize();
        let md5 = (md5, self.md5.map(|md5| STANDARD.encode(md5.finalize())));
        for (claim, found) in [
            md5,
            (checksum.checksum_crc32, found.checksum_crc32),
            (checksum.checksum_crc32c, found.checksum_crc32c),
            (checksum.checksum_sha1, found.checksum_sha1),
            (checksum.checksum_sha256, found.checksum_sha256),
            (checksum.checksum_crc64nvme, found.checksum_crc64nvme),
        ] {
            if claim.is_some() && claim != found {
                return Err(s3_error!(BadDigest, "the bytes have another digest than the client says"));
            }
        }
        Ok(())
    }
}

/// `length` bytes of a file, from `begin` on.
pub(crate) fn send(
    file: File,
    begin: u64,
    length: u64,
) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static {
    let file = Arc::new(file);
    stream::try_unfold((begin, length), move |(begin, left)| {
        let file = Arc::clone(&file);
        async move {
            if left == 0 {
                return Ok(None);
            }
            let size = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let piece = spawn_blocking(move || {
                let mut bytes = vec![0; size];
                file.read_exact_at(&mut bytes, begin)?;
                Ok::<_, io::Error>(Bytes::from(bytes))
            });
            let piece = piece.await??;
            let read = u64::try_from(piece.len()).map_err(io::Error::other)?;
            Ok(Some((piece, (begin + read, left - read))))
        }
    })
}
