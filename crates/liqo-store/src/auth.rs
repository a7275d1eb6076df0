//! Who may do what: keys are judged by what their identifiers say, see [`liqo_results::keys`].
//!
//! Keeps true: what is not named here is refused, so that operations of later versions of the S3 library are, too. Every key of an
//! object that a request names is compared with the prefix that its access key opens.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use http::StatusCode;
use liqo_results::{
    CLOSED, RESERVED,
    keys::{self, Refused, Scope},
};
use s3s::{
    S3Error, S3Request, S3Result,
    access::{S3Access, S3AccessContext},
    auth::{S3Auth, SecretKey},
    dto::{DeleteObjectsInput, ListObjectsInput, ListObjectsV2Input},
    path::S3Path,
    s3_error,
};

use crate::disk::Disk;

/// What keys are judged with.
pub(crate) struct Keys {
    master: Vec<u8>,
    bucket: String,
}

/// Whose signature a request must carry.
pub(crate) struct Authentication(pub(crate) Arc<Keys>);
/// What its holder may do.
pub(crate) struct Access(pub(crate) Arc<Keys>, pub(crate) Arc<Disk>);

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// Reads the object that the path names.
    Read,
    /// Writes or removes the object that the path names.
    Write,
    /// Reads keys; which ones, the parameters say.
    List,
    /// Removes objects; which ones, the body says.
    Remove,
    /// Asks whether the bucket is there.
    Ask,
}

impl Keys {
    pub(crate) fn new(master: Vec<u8>, bucket: &str) -> Self {
        Self { master, bucket: bucket.to_owned() }
    }

    fn judge(&self, id: &str) -> S3Result<(Scope, String)> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |since| since.as_secs());
        keys::judge(&self.master, id, now).map_err(|refused| match refused {
            Refused::Unknown => s3_error!(InvalidAccessKeyId, "{refused}"),
            Refused::Expired => {
                let mut error = s3_error!(ExpiredToken, "{refused}");
                error.set_status_code(StatusCode::FORBIDDEN);
                error
            }
        })
    }

    /// Whether a key with this scope may do this at this path. What the parameters or the body say is judged later.
    fn may(&self, scope: &Scope, deed: Deed, path: &S3Path) -> Result<(), &'static str> {
        let bucket = match path {
            S3Path::Root => return Err("this key opens no list of buckets"),
            S3Path::Bucket { bucket } | S3Path::Object { bucket, .. } => bucket,
        };
        if **bucket != *self.bucket {
            return Err("this key opens another bucket");
        }
        if matches!(deed, Deed::Write | Deed::Remove) && scope.access == keys::Access::ReadOnly {
            return Err("this key opens objects for reading only");
        }
        match (deed, path) {
            (Deed::Read | Deed::Write, S3Path::Object { key, .. }) if scope.covers(key) => Ok(()),
            (Deed::Read | Deed::Write, _) => Err(FOREIGN),
            (Deed::List | Deed::Remove | Deed::Ask, _) => Ok(()),
        }
    }
}

const FOREIGN: &str = "this key opens another prefix";

fn deed(operation: &str) -> Option<Deed> {
    Some(match operation {
        "GetObject" | "HeadObject" => Deed::Read,
        "PutObject" | "DeleteObject" | "CreateMultipartUpload" | "UploadPart" | "ListParts" => Deed::Write,
        "CompleteMultipartUpload" | "AbortMultipartUpload" => Deed::Write,
        "ListObjects" | "ListObjectsV2" => Deed::List,
        "DeleteObjects" => Deed::Remove,
        "HeadBucket" | "GetBucketLocation" => Deed::Ask,
        _ => return None,
    })
}

fn denied(why: &str) -> S3Error {
    s3_error!(AccessDenied, "{why}")
}

/// The prefix that must not be closed for this request to write.
pub(crate) fn writer<T>(request: &S3Request<T>) -> Option<String> {
    let scope = request.extensions.get::<Scope>()?;
    (scope.access == keys::Access::ReadWrite).then(|| scope.prefix.clone())
}

/// The prefix that this request closes, if the request is that.
pub(crate) fn closes<T>(request: &S3Request<T>, key: &str) -> Option<String> {
    let scope = request.extensions.get::<Scope>().filter(|scope| scope.access == keys::Access::Manage)?;
    (key == format!("{}/{RESERVED}/{CLOSED}", scope.prefix)).then(|| scope.prefix.clone())
}

/// The scope that [`Access::check`] found.
fn scope<T>(request: &S3Request<T>) -> S3Result<&Scope> {
    request.extensions.get::<Scope>().ok_or_else(|| denied("this request was not judged"))
}

fn listing<T>(request: &S3Request<T>, prefix: Option<&String>) -> S3Result<()> {
    let covered = scope(request)?.covers_listing(prefix.map_or("", String::as_str));
    if covered { Ok(()) } else { Err(denied("this key opens lists of its own prefix only; the list must name it")) }
}

#[async_trait]
impl S3Auth for Authentication {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        Ok(self.0.judge(access_key)?.1.into())
    }
}

#[async_trait]
impl S3Access for Access {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let credentials = cx.credentials().ok_or_else(|| denied("requests must be signed"))?;
        let (scope, _) = self.0.judge(&credentials.access_key)?;
        let deed = deed(cx.s3_op().name()).ok_or_else(|| denied("this store does not offer that"))?;
        self.0.may(&scope, deed, cx.s3_path()).map_err(denied)?;
        if matches!(deed, Deed::Write | Deed::Remove) && scope.access == keys::Access::ReadWrite {
            // Asked before the body is read, and again when the object comes to its place.
            self.1.writing(Some(&scope.prefix), || Ok(()))?;
        }
        cx.extensions_mut().insert(scope);
        Ok(())
    }

    async fn list_objects(&self, request: &mut S3Request<ListObjectsInput>) -> S3Result<()> {
        listing(request, request.input.prefix.as_ref())
    }

    async fn list_objects_v2(&self, request: &mut S3Request<ListObjectsV2Input>) -> S3Result<()> {
        listing(request, request.input.prefix.as_ref())
    }

    async fn delete_objects(&self, request: &mut S3Request<DeleteObjectsInput>) -> S3Result<()> {
        let scope = scope(request)?;
        let covered = request.input.delete.objects.iter().all(|object| scope.covers(&object.key));
        if covered { Ok(()) } else { Err(denied(FOREIGN)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_is_refused() {
        for (operation, expected) in [
            ("GetObject", Some(Deed::Read)),
            ("ListParts", Some(Deed::Write)),
            ("CopyObject", None),
            ("UploadPartCopy", None),
            ("PostObject", None),
            ("CreateBucket", None),
            ("DeleteBucket", None),
            ("ListBuckets", None),
            ("ListMultipartUploads", None),
            ("PutBucketPolicy", None),
            ("GetObjectAcl", None),
        ] {
            assert_eq!(deed(operation), expected, "{operation}");
        }
    }

    #[test]
    fn a_key_opens_its_prefix() {
        let keys = Keys::new(vec![7; 32], "liqo-jobs");
        let object = |bucket, key| S3Path::object(bucket, key);
        let (own, foreign, other) =
            (object("liqo-jobs", "a/1/x"), object("liqo-jobs", "a/2/x"), object("other", "a/1/x"));
        let bucket = S3Path::bucket("liqo-jobs");
        let traversal = object("liqo-jobs", "a/1/../2/x");
        for (access, deed, path, may) in [
            (keys::Access::ReadWrite, Deed::Read, &own, true),
            (keys::Access::ReadWrite, Deed::Write, &own, true),
            (keys::Access::ReadOnly, Deed::Read, &own, true),
            (keys::Access::ReadOnly, Deed::Write, &own, false),
            (keys::Access::ReadOnly, Deed::Remove, &bucket, false),
            (keys::Access::ReadOnly, Deed::List, &bucket, true),
            (keys::Access::ReadOnly, Deed::Ask, &bucket, true),
            (keys::Access::ReadWrite, Deed::Read, &foreign, false),
            (keys::Access::ReadWrite, Deed::Read, &other, false),
            (keys::Access::ReadWrite, Deed::Read, &traversal, false),
            (keys::Access::ReadWrite, Deed::Write, &bucket, false),
            (keys::Access::ReadWrite, Deed::Ask, &S3Path::Root, false),
            (keys::Access::Manage, Deed::Write, &own, true),
            (keys::Access::Manage, Deed::Remove, &bucket, true),
            (keys::Access::Manage, Deed::Write, &foreign, false),
        ] {
            let scope = Scope { prefix: "a/1".into(), access, expires: 0 };
            assert_eq!(keys.may(&scope, deed, path).is_ok(), may, "{access:?} {deed:?} {path:?}");
        }
    }

    /// What a key opens is a file below its prefix, whatever the path of the request (after the escapes were replaced).
    #[test]
    fn fuzz_path() {
        let keys = Keys::new(vec![7; 32], "liqo-jobs");
        let scope = |access| Scope { prefix: "a/1".into(), access, expires: 0 };
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "path", |bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            let Ok(path) = s3s::path::parse_path_style(text) else { return };
            for deed in [Deed::Read, Deed::Write] {
                let opened = keys.may(&scope(keys::Access::Manage), deed, &path).is_ok();
                let Some((bucket, key)) = path.as_object().filter(|_| opened) else {
                    assert!(!opened, "{deed:?} of no object");
                    continue;
                };
                let file = std::path::Path::new("/data").join(bucket).join(key);
                let plain = file.components().skip(1).all(|part| matches!(part, std::path::Component::Normal(_)));
                assert!(plain && file.starts_with("/data/liqo-jobs/a/1") && file.components().count() > 5, "{file:?}");
            }
            assert!(keys.may(&scope(keys::Access::ReadOnly), Deed::Write, &path).is_err());
        });
    }
}
