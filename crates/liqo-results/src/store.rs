//! The client: one job's results in an S3 store.

use std::{io, ops::Range, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    Certificate, ClientOptions, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
    signer::Signer,
};
use tokio::sync::mpsc;

use crate::{
    Location,
    manifest::{self, BadManifest, File, Head, Manifest},
    path::{BadPath, RESERVED, check, check_key},
};

/// Time limit of a connection, of silence in an answer, and of all tries of one request.
const CONNECT: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(60);
const TRIES: Duration = Duration::from_secs(10);
/// Pieces of a manifest that wait for their reader.
const PIECES: usize = 4;
/// Writing this object, below the prefix, closes the prefix.
pub const CLOSED: &str = "closed";
/// Object of the manifest, below the prefix.
const MANIFEST: &str = "manifest.json";

/// The results of one job. Copies share connections.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) s3: Arc<AmazonS3>,
    prefix: Path,
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The job has no such result, or no manifest yet.
    #[error("there is no {0:?} in the store")]
    NotFound(String),
    /// The credentials do not open it, or have expired.
    #[error("the store refuses access to {0:?}")]
    Refused(String, #[source] object_store::Error),
    /// No result can have this path.
    #[error("{0:?}: {1}")]
    Path(String, #[source] BadPath),
    /// What is stored as manifest is none.
    #[error("reading the manifest")]
    Manifest(#[from] BadManifest),
    /// Everything else: connections, errors of the store.
    #[error("asking the store")]
    Store(#[source] object_store::Error),
}

impl From<object_store::Error> for StoreError {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { path, .. } => Self::NotFound(path),
            object_store::Error::PermissionDenied { ref path, .. }
            | object_store::Error::Unauthenticated { ref path, .. } => Self::Refused(path.clone(), error),
            error => Self::Store(error),
        }
    }
}

impl StoreError {
    /// The error with its causes, in one line.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

/// An object below the prefix of the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Path below the prefix.
    pub path: String,
    /// Bytes.
    pub size: u64,
}

/// A result that is being read.
pub struct Opened {
    /// Bytes of the whole result.
    pub size: u64,
    /// The part of it that `bytes` gives.
    pub range: Range<u64>,
    /// Changes when the object changes.
    pub etag: Option<String>,
    /// The bytes, as they come.
    pub bytes: BoxStream<'static, Result<Bytes, StoreError>>,
}

/// A body, for a reader that waits where nobody else does.
struct Pieces {
    coming: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl io::Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            let Some(next) = self.coming.blocking_recv() else { return Ok(0) };
            self.piece = next;
        }
        let part = self.piece.split_to(buffer.len().min(self.piece.len()));
        buffer.iter_mut().zip(&part).for_each(|(to, from)| *to = *from);
        Ok(part.len())
    }
}

/// How stores are reached: a bounded time for connections and for silence, and the certificates that a server is verified with.
///
/// # Errors
/// When the certificates cannot be read.
pub(crate) fn options(plain: bool, ca: Option<&str>) -> Result<ClientOptions, object_store::Error> {
    let options = ClientOptions::new().with_read_timeout(SILENCE).with_connect_timeout(CONNECT);
    // The image has no certificates of the system, and a client that looks for them in vain is none.
    let options = options.with_no_system_certificates(plain || ca.is_some()).with_allow_http(plain);
    let certificates = Certificate::from_pem_bundle(ca.unwrap_or_default().as_bytes())?;
    Ok(certificates.into_iter().fold(options, ClientOptions::with_root_certificate))
}

impl Store {
    /// A client for this location. Nothing is sent yet.
    ///
    /// # Errors
    /// When certificates or the endpoint of the location cannot be used.
    pub fn new(location: &Location) -> Result<Self, StoreError> {
        let plain = location.is_plain();
        let mut builder = AmazonS3Builder::new()
            .with_endpoint(location.host())
            .with_region(&location.region)
            .with_bucket_name(&location.bucket)
            .with_access_key_id(&location.access_key_id)
            .with_secret_access_key(&location.secret_access_key)
            .with_virtual_hosted_style_request(location.virtual_host)
            // TLS protects what is sent; without TLS, the signature covers the body.
            .with_unsigned_payload(!plain)
            .with_retry(RetryConfig { retry_timeout: TRIES, ..RetryConfig::default() })
            .with_client_options(options(plain, location.ca.as_deref())?.with_timeout_disabled());
        if let Some(token) = &location.session_token {
            builder = builder.with_token(token);
        }
        let prefix = Path::parse(&location.prefix).map_err(object_store::Error::from)?;
        Ok(Self { s3: Arc::new(builder.build()?), prefix })
    }

    /// The manifest; none as long as the results are not complete.
    ///
    /// # Errors
    /// When the store cannot be asked, or has something else there.
    pub async fn manifest(&self) -> Result<Option<Manifest>, StoreError> {
        let found = self.scan(Vec::new(), Vec::push).await?;
        Ok(found.map(|(head, files)| Manifest::of(head, files)))
    }

    /// Reads the manifest as it comes and gives each file to `take`, with `kept`, which comes back with the head. Memory holds what
    /// `take` keeps. None as long as the results are not complete.
    ///
    /// # Errors
    /// When the store cannot be asked, or has something else there.
    pub async fn scan<T: Send + 'static>(
        &self,
        mut kept: T,
        mut take: impl FnMut(&mut T, File) + Send + 'static,
    ) -> Result<Option<(Head, T)>, StoreError> {
        let got = match self.s3.get(&self.own_key(MANIFEST)?).await {
            Ok(got) => got,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let (sender, coming) = mpsc::channel(PIECES);
        let reading = tokio::task::spawn_blocking(move || {
            let head = manifest::scan(Pieces { coming, piece: Bytes::new() }, &mut |file| take(&mut kept, file))?;
            Ok::<_, BadManifest>((head, kept))
        });
        let sending = async move {
            let (mut bytes, mut length) = (got.into_stream(), 0);
            while let Some(piece) = bytes.try_next().await? {
                length += piece.len();
                if length > manifest::LONGEST {
                    return Err(StoreError::Manifest(BadManifest::Long));
                }
                if sender.send(piece).await.is_err() {
                    // The reader has seen enough, and says why.
                    break;
                }
            }
            Ok(())
        };
        let (sent, read) = tokio::join!(sending, reading);
        sent?;
        let read = read.map_err(|error| object_store::Error::Generic { store: "S3", source: error.into() })?;
        Ok(Some(read?))
    }

    /// All objects below the prefix, those of Liqo itself left out.
    pub fn list(&self) -> BoxStream<'static, Result<Stored, StoreError>> {
        let below = format!("{}/", self.prefix);
        let own = format!("{RESERVED}/");
        let objects = self.s3.list(Some(&self.prefix));
        let stored = move |object: object_store::ObjectMeta| {
            let path = object.location.as_ref().strip_prefix(&below)?.to_owned();
            (!path.starts_with(&own)).then_some(Stored { path, size: object.size })
        };
        objects
            .map_err(StoreError::from)
            .try_filter_map(move |object| futures::future::ready(Ok(stored(object))))
            .boxed()
    }

    /// Begins to read a result, or `range` of its bytes.
    ///
    /// # Errors
    /// When there is none, or the store cannot be asked.
    pub async fn open(&self, path: &str, range: Option<Range<u64>>) -> Result<Opened, StoreError> {
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let got = self.s3.get_opts(&self.result(path)?, options).await?;
        let (size, range, etag) = (got.meta.size, got.range.clone(), got.meta.e_tag.clone());
        Ok(Opened { size, range, etag, bytes: got.into_stream().map_err(StoreError::from).boxed() })
    }

    /// A URL with which everybody can read the result for `ttl`, as long as the credentials hold.
    ///
    /// # Errors
    /// When no result can have this path.
    pub async fn signed_url(&self, path: &str, ttl: Duration) -> Result<String, StoreError> {
        Ok(self.s3.signed_url(http::Method::GET, &self.result(path)?, ttl).await?.into())
    }

    /// Removes every object below the prefix, the manifest first; says how many there were.
    ///
    /// # Errors
    /// When the store cannot be asked; some objects may be left.
    pub async fn delete_all(&self) -> Result<u64, StoreError> {
        self.remove_own(MANIFEST).await?;
        let objects = self.s3.list(Some(&self.prefix));
        let mut removed = self.s3.delete_stream(objects.map_ok(|object| object.location).boxed());
        let mut count = 0;
        while removed.try_next().await?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// Ends the keys of movers for this prefix before their time, and what such a mover began to upload. Only the embedded store does
    /// that; other stores get an empty object, which goes with the results.
    ///
    /// # Errors
    /// When the store cannot be asked, or the credentials are those of a mover.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.put_own(CLOSED, Vec::new()).await
    }

    /// Key of a result.
    pub(crate) fn result(&self, path: &str) -> Result<Path, StoreError> {
        check(path).map_err(|why| StoreError::Path(path.to_owned(), why))?;
        self.key(path)
    }

    /// Key of an object of Liqo itself.
    pub(crate) fn own_key(&self, name: &str) -> Result<Path, StoreError> {
        self.key(&format!("{RESERVED}/{name}"))
    }

    fn key(&self, path: &str) -> Result<Path, StoreError> {
        let key = format!("{}/{path}", self.prefix);
        check_key(&key).map_err(|why| StoreError::Path(key.clone(), why))?;
        Ok(Path::parse(&key).map_err(object_store::Error::from)?)
    }

    /// An object of Liqo itself, if there is one, of at most `limit` bytes.
    pub(crate) async fn own(&self, name: &str, limit: usize) -> Result<Option<Bytes>, StoreError> {
        let got = match self.s3.get(&self.own_key(name)?).await {
            Ok(got) => got,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let (mut bytes, mut all) = (got.into_stream(), BytesMut::new());
        while let Some(piece) = bytes.try_next().await? {
            if all.len() + piece.len() > limit {
                return Err(BadManifest::Long.into());
            }
            all.extend_from_slice(&piece);
        }
        Ok(Some(all.freeze()))
    }

    pub(crate) async fn put_own(&self, name: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        self.s3.put(&self.own_key(name)?, PutPayload::from(bytes)).await?;
        Ok(())
    }

    pub(crate) async fn remove_own(&self, name: &str) -> Result<(), StoreError> {
        match self.s3.delete(&self.own_key(name)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Stores the manifest; from then on the results are complete.
    pub(crate) async fn put_manifest(&self, manifest: &Manifest, part: usize) -> Result<(), StoreError> {
        let mut pieces = manifest.pieces(part).peekable();
        let first = pieces.next().unwrap_or_default();
        if pieces.peek().is_none() {
            return self.put_own(MANIFEST, first).await;
        }
        let mut upload = self.s3.put_multipart(&self.own_key(MANIFEST)?).await?;
        for piece in std::iter::once(first).chain(pieces) {
            upload.put_part(piece.into()).await?;
        }
        upload.complete().await?;
        Ok(())
    }

    pub(crate) async fn remove_manifest(&self) -> Result<(), StoreError> {
        self.remove_own(MANIFEST).await
    }
}
