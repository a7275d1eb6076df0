//! The operations of S3 that the store offers, on a [`Disk`].
//!
//! Not kept: content types, user metadata, tags. Objects are bytes; what they are is said by the manifest beside them.

use std::sync::Arc;

use async_trait::async_trait;
use liqo_results::CLOSED;
use s3s::{
    S3, S3Error, S3Request, S3Response, S3Result,
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, Checksum, CommonPrefix, CompleteMultipartUploadInput,
        CompleteMultipartUploadOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteObjectInput,
        DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, ETag, ETagCondition, Error,
        GetBucketLocationInput, GetBucketLocationOutput, GetObjectInput, GetObjectOutput, HeadBucketInput,
        HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input,
        ListObjectsV2Output, ListPartsInput, ListPartsOutput, Object, Part, PutObjectInput, PutObjectOutput, Range,
        StreamingBlob, Timestamp, UploadPartInput, UploadPartOutput,
    },
    s3_error,
};

use crate::{
    auth::{closes, writer},
    body::{Claims, on_disk, receive, send},
    disk::{Disk, Entry, Wanted, etag, failed},
};

/// Most entries of a page of a list, as everywhere.
const PAGE: usize = 1_000;
/// What objects are called to clients that do not know better.
const KIND: &str = "application/octet-stream";

/// The objects of the store.
#[derive(Debug)]
pub(crate) struct Objects(Arc<Disk>);

impl Objects {
    pub(crate) fn new(disk: Arc<Disk>) -> Self {
        Self(disk)
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Disk) -> S3Result<T> + Send + 'static,
    ) -> S3Result<T> {
        let disk = Arc::clone(&self.0);
        on_disk(move || work(&disk)).await
    }
}

impl Objects {
    /// Work that writes; refused when the prefix of the key that the request was signed with is closed meanwhile.
    async fn write<T: Send + 'static>(
        &self,
        writer: Option<String>,
        work: impl FnOnce(&Disk) -> S3Result<T> + Send + 'static,
    ) -> S3Result<T> {
        self.on_disk(move |disk| disk.writing(writer.as_deref(), || work(disk))).await
    }
}

fn answer<T>(output: T) -> S3Result<S3Response<T>> {
    Ok(S3Response::new(output))
}

fn signed(length: u64) -> S3Result<i64> {
    i64::try_from(length).map_err(S3Error::internal_error)
}

/// What the headers of a request say about its body.
macro_rules! claims {
    ($input:expr, $trailers:expr) => {
        Claims {
            md5: $input.content_md5,
            checksum: Checksum {
                checksum_crc32: $input.checksum_crc32,
                checksum_crc32c: $input.checksum_crc32c,
                checksum_sha1: $input.checksum_sha1,
                checksum_sha256: $input.checksum_sha256,
                checksum_crc64nvme: $input.checksum_crc64nvme,
                ..Checksum::default()
            },
            algorithm: $input.checksum_algorithm.map(|algorithm| algorithm.as_str().to_owned()),
            trailers: $trailers,
        }
    };
}

/// Whether a request that is bound to a version of the object may be answered with this one.
fn conditions(of: &ETag, matches: Option<&ETagCondition>, differs: Option<&ETagCondition>) -> S3Result<()> {
    let is = |condition: &ETagCondition| match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(etag) => etag.weak_cmp(of),
    };
    if matches.is_some_and(|condition| !is(condition)) {
        return Err(s3_error!(PreconditionFailed, "the object has changed"));
    }
    if differs.is_some_and(is) {
        return Err(s3_error!(NotModified));
    }
    Ok(())
}

#[async_trait]
impl S3 for Objects {
    async fn head_bucket(&self, _: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        answer(HeadBucketOutput::default())
    }

    async fn get_bucket_location(
        &self,
        _: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        answer(GetBucketLocationOutput::default())
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let HeadObjectInput { key, if_match, if_none_match, .. } = request.input;
        let (_, data) = self.on_disk(move |disk| disk.read(&key)).await?;
        let etag = ETag::Strong(etag(&data));
        conditions(&etag, if_match.as_ref(), if_none_match.as_ref())?;
        answer(HeadObjectOutput {
            accept_ranges: Some("bytes".into()),
            content_length: Some(signed(data.len())?),
            content_type: Some(KIND.into()),
            last_modified: data.modified().ok().map(Timestamp::from),
            e_tag: Some(etag),
            ..HeadObjectOutput::default()
        })
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let GetObjectInput { key, range, if_match, if_none_match, .. } = request.input;
        let (file, data) = self.on_disk(move |disk| disk.read(&key)).await?;
        let etag = ETag::Strong(etag(&data));
        conditions(&etag, if_match.as_ref(), if_none_match.as_ref())?;
        let size = data.len();
        let part = match &range {
            Some(range) => Range::check(range, size)?,
            None => 0..size,
        };
        let length = part.end - part.start;
        let last = part.end.saturating_sub(1);
        answer(GetObjectOutput {
            accept_ranges: Some("bytes".into()),
            content_length: Some(signed(length)?),
            content_range: range.map(|_| format!("bytes {}-{last}/{size}", part.start)),
            content_type: Some(KIND.into()),
            last_modified: data.modified().ok().map(Timestamp::from),
            e_tag: Some(etag),
            body: Some(StreamingBlob::wrap(send(file, part.start, length))),
            ..GetObjectOutput::default()
        })
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let (writer, closes) = (writer(&request), closes(&request, &request.input.key));
        let input = request.input;
        if input.if_match.is_some() || input.if_none_match.is_some() || input.write_offset_bytes.is_some() {
            return Err(s3_error!(NotImplemented, "this store writes objects without conditions only"));
        }
        let (key, draft) = (input.key, receive(&self.0, input.body, claims!(input, request.trailing_headers)).await?);
        if let Some(prefix) = closes {
            self.on_disk(move |disk| disk.close(&prefix).map_err(failed)).await?;
            // Clients want a tag, although there is no object.
            return answer(PutObjectOutput { e_tag: Some(ETag::Strong(CLOSED.into())), ..PutObjectOutput::default() });
        }
        let etag = self.on_disk(move |disk| disk.keep(draft, &key, writer.as_deref())).await?;
        answer(PutObjectOutput { e_tag: Some(ETag::Strong(etag)), ..PutObjectOutput::default() })
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.write(writer(&request), move |disk| disk.remove(&request.input.key)).await?;
        answer(DeleteObjectOutput::default())
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let writer = writer(&request);
        let delete = request.input.delete;
        let quiet = delete.quiet.unwrap_or_default();
        let outcomes = self.write(writer, move |disk| {
            let keys = delete.objects.into_iter().map(|object| object.key);
            Ok(keys.map(|key| (disk.remove(&key), key)).collect::<Vec<_>>())
        });
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for (outcome, key) in outcomes.await? {
            match outcome {
                Ok(()) if quiet => {}
                Ok(()) => deleted.push(DeletedObject { key: Some(key), ..DeletedObject::default() }),
                Err(error) => errors.push(Error {
                    code: Some(error.code().as_str().to_owned()),
                    key: Some(key),
                    message: error.message().map(str::to_owned),
                    version_id: None,
                }),
            }
        }
        let some = |list: Vec<_>| (!list.is_empty()).then_some(list);
        let errors = (!errors.is_empty()).then_some(errors);
        answer(DeleteObjectsOutput { deleted: some(deleted), errors, ..DeleteObjectsOutput::default() })
    }

    async fn list_objects(&self, request: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        let marker = request.input.marker.clone();
        let list = self.list_objects_v2(request.map_input(Into::into)).await?;
        Ok(list.map_output(|list| ListObjectsOutput {
            contents: list.contents,
            common_prefixes: list.common_prefixes,
            delimiter: list.delimiter,
            name: list.name,
            prefix: list.prefix,
            marker,
            max_keys: list.max_keys,
            is_truncated: list.is_truncated,
            next_marker: list.next_continuation_token,
            ..ListObjectsOutput::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let grouped = match input.delimiter.as_deref() {
            None | Some("") => false,
            Some("/") => true,
            Some(_) => return Err(s3_error!(NotImplemented, "lists are grouped by slashes only")),
        };
        let most = usize::try_from(input.max_keys.unwrap_or(i32::MAX)).unwrap_or_default().min(PAGE);
        // The token of the next page is the last key of this one, so pages need no memory.
        let after = input.continuation_token.clone().max(input.start_after.clone()).unwrap_or_default();
        let wanted = Wanted { prefix: input.prefix.clone().unwrap_or_default(), after, grouped, most };
        let page = self.on_disk(move |disk| disk.list(&wanted).map_err(failed)).await?;
        let next = page.entries.last().filter(|_| page.more).map(|last| last.key().to_owned());
        let count = i32::try_from(page.entries.len()).map_err(S3Error::internal_error)?;
        let (mut objects, mut groups) = (Vec::new(), Vec::new());
        for entry in page.entries {
            match entry {
                Entry::Group(prefix) => groups.push(CommonPrefix { prefix: Some(prefix) }),
                Entry::Object(key, data) => objects.push(Object {
                    key: Some(key),
                    size: Some(signed(data.len())?),
                    last_modified: data.modified().ok().map(Timestamp::from),
                    e_tag: Some(ETag::Strong(etag(&data))),
                    ..Object::default()
                }),
            }
        }
        answer(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            start_after: input.start_after,
            continuation_token: input.continuation_token,
            max_keys: i32::try_from(most).ok(),
            key_count: Some(count),
            is_truncated: Some(page.more && next.is_some()),
            next_continuation_token: next,
            contents: (!objects.is_empty()).then_some(objects),
            common_prefixes: (!groups.is_empty()).then_some(groups),
            ..ListObjectsV2Output::default()
        })
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let writer = writer(&request);
        let CreateMultipartUploadInput { bucket, key, .. } = request.input;
        let of = key.clone();
        let id = self.write(writer, move |disk| disk.begin_upload(&of)).await?;
        answer(CreateMultipartUploadOutput {
            bucket: Some(bucket),
            key: Some(key),
            upload_id: Some(id),
            ..CreateMultipartUploadOutput::default()
        })
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let writer = writer(&request);
        let input = request.input;
        let (key, id, number) = (input.key, input.upload_id, input.part_number);
        // Asked before the bytes are taken.
        let of = (id.clone(), key.clone());
        self.on_disk(move |disk| disk.has_upload(&of.0, &of.1)).await?;
        let draft = receive(&self.0, input.body, claims!(input, request.trailing_headers)).await?;
        let etag = self.on_disk(move |disk| disk.keep_part(draft, (&id, &key), number, writer.as_deref())).await?;
        answer(UploadPartOutput { e_tag: Some(ETag::Strong(etag)), ..UploadPartOutput::default() })
    }

    async fn list_parts(&self, request: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let ListPartsInput { bucket, key, upload_id, part_number_marker, .. } = request.input;
        let of = (upload_id.clone(), key.clone());
        let parts = self.on_disk(move |disk| disk.parts(&of.0, &of.1)).await?;
        let after = part_number_marker.unwrap_or_default();
        let mut parts = parts.into_iter().filter(|part| part.number > after).peekable();
        let mut page = Vec::new();
        for part in parts.by_ref().take(PAGE) {
            let (size, e_tag) = (Some(signed(part.size)?), Some(ETag::Strong(part.etag)));
            page.push(Part { part_number: Some(part.number), size, e_tag, ..Part::default() });
        }
        answer(ListPartsOutput {
            bucket: Some(bucket),
            key: Some(key),
            upload_id: Some(upload_id),
            is_truncated: Some(parts.peek().is_some()),
            next_part_number_marker: page.last().and_then(|part| part.part_number),
            parts: Some(page),
            ..ListPartsOutput::default()
        })
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let writer = writer(&request);
        let CompleteMultipartUploadInput { bucket, key, upload_id, multipart_upload, if_match, if_none_match, .. } =
            request.input;
        if if_match.is_some() || if_none_match.is_some() {
            return Err(s3_error!(NotImplemented, "this store writes objects without conditions only"));
        }
        let mut wanted = Vec::new();
        for part in multipart_upload.and_then(|parts| parts.parts).unwrap_or_default() {
            let number = part.part_number.ok_or_else(|| s3_error!(InvalidPart, "a part has no number"))?;
            let etag = part.e_tag.ok_or_else(|| s3_error!(InvalidPart, "part {number} has no entity tag"))?;
            wanted.push((number, etag.into_value()));
        }
        // Once an answer has begun, it is one of success to most clients.
        let of = (upload_id.clone(), key.clone());
        let wanted = self.on_disk(move |disk| disk.may_end((&of.0, &of.1), &wanted).map(|()| wanted)).await?;
        let disk = Arc::clone(&self.0);
        // Large uploads take long to put together: the client is kept waiting by an answer that begins at once.
        let end = async move {
            let of = key.clone();
            let end = move || disk.end_upload((&upload_id, &of), &wanted, writer.as_deref());
            let etag = on_disk(end).await?;
            let (bucket, key, e_tag) = (Some(bucket), Some(key), Some(ETag::Strong(etag)));
            Ok(CompleteMultipartUploadOutput { bucket, key, e_tag, ..CompleteMultipartUploadOutput::default() })
        };
        answer(CompleteMultipartUploadOutput {
            future: Some(Box::pin(end)),
            ..CompleteMultipartUploadOutput::default()
        })
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let AbortMultipartUploadInput { key, upload_id, .. } = request.input;
        self.on_disk(move |disk| disk.abort_upload(&upload_id, &key)).await?;
        answer(AbortMultipartUploadOutput::default())
    }
}
