"""What boto3 does with the store: arguments are endpoint and prefix; keys are in the environment."""

import hashlib
import io
import os
import sys
import urllib.error
import urllib.request

import boto3
import botocore
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

endpoint, prefix = sys.argv[1:]
bucket = "liqo-jobs"
MIB = 1 << 20
EVERY = bytes(range(256))


def client(**more):
    style = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}, signature_version="s3v4")
    return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=style, **more)


def refused(code, act):
    try:
        act()
    except botocore.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] in code, error.response
    else:
        raise AssertionError(f"not refused with {code}")


s3 = client()
names = ["plain", "with space", "ü/日本", "a+b=c&d?e#f", "100%/%2e%2e", "quote'\"<>", "deep/" * 20 + "leaf", ".hidden", "~"]
for name in names:
    s3.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=EVERY + name.encode())
for name in names:
    got = s3.get_object(Bucket=bucket, Key=f"{prefix}/{name}")
    assert got["Body"].read() == EVERY + name.encode(), name
    assert s3.head_object(Bucket=bucket, Key=f"{prefix}/{name}")["ContentLength"] == 256 + len(name.encode()), name

for asked, wanted in [("bytes=5-9", EVERY[5:10]), ("bytes=-5", b"plain"), ("bytes=256-", b"plain")]:
    part = s3.get_object(Bucket=bucket, Key=f"{prefix}/plain", Range=asked)
    assert part["Body"].read() == wanted and part["ResponseMetadata"]["HTTPStatusCode"] == 206, asked
refused({"InvalidRange"}, lambda: s3.get_object(Bucket=bucket, Key=f"{prefix}/plain", Range="bytes=9999-"))
refused({"NoSuchKey"}, lambda: s3.get_object(Bucket=bucket, Key=f"{prefix}/nothing"))

for algorithm in ["CRC32", "CRC32C", "SHA1", "SHA256", "CRC64NVME"]:
    try:
        s3.put_object(Bucket=bucket, Key=f"{prefix}/sum", Body=EVERY, ChecksumAlgorithm=algorithm)
    except botocore.exceptions.MissingDependencyException:
        assert algorithm in {"CRC32C", "CRC64NVME"}, algorithm

large = EVERY * (12 * MIB // 256) + b"end"
config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB, max_concurrency=4)
s3.upload_fileobj(io.BytesIO(large), bucket, f"{prefix}/large", Config=config)
into = io.BytesIO()
s3.download_fileobj(bucket, f"{prefix}/large", into, Config=config)
assert hashlib.sha256(into.getvalue()).digest() == hashlib.sha256(large).digest()

upload = s3.create_multipart_upload(Bucket=bucket, Key=f"{prefix}/parts")["UploadId"]
sent = [
    s3.upload_part(Bucket=bucket, Key=f"{prefix}/parts", UploadId=upload, PartNumber=number, Body=body)["ETag"]
    for number, body in [(1, large[: 5 * MIB]), (2, b"end")]
]
listed = s3.list_parts(Bucket=bucket, Key=f"{prefix}/parts", UploadId=upload)["Parts"]
assert [(part["PartNumber"], part["Size"]) for part in listed] == [(1, 5 * MIB), (2, 3)], listed
wrong = {"Parts": [{"PartNumber": 1, "ETag": sent[1]}]}
refused(
    {"InvalidPart"},
    lambda: s3.complete_multipart_upload(Bucket=bucket, Key=f"{prefix}/parts", UploadId=upload, MultipartUpload=wrong),
)
s3.abort_multipart_upload(Bucket=bucket, Key=f"{prefix}/parts", UploadId=upload)
refused({"NoSuchUpload"}, lambda: s3.list_parts(Bucket=bucket, Key=f"{prefix}/parts", UploadId=upload))

for number in range(25):
    s3.put_object(Bucket=bucket, Key=f"{prefix}/page/{number:02}", Body=b"")
pages = list(
    s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/page/", PaginationConfig={"PageSize": 10})
)
keys = [one["Key"] for page in pages for one in page["Contents"]]
assert len(pages) == 3 and keys == [f"{prefix}/page/{number:02}" for number in range(25)], (len(pages), keys)
groups = s3.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/", Delimiter="/")
assert {"Prefix": f"{prefix}/page/"} in groups["CommonPrefixes"] and len(groups["Contents"]) > 3

url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": f"{prefix}/{names[3]}"}, ExpiresIn=60)
with urllib.request.urlopen(url) as answer:
    assert answer.read() == EVERY + names[3].encode()
put = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": f"{prefix}/signed"}, ExpiresIn=60)
with urllib.request.urlopen(urllib.request.Request(put, data=EVERY, method="PUT", headers={"Content-Type": ""})) as answer:
    assert answer.status == 200
assert s3.get_object(Bucket=bucket, Key=f"{prefix}/signed")["Body"].read() == EVERY
assert "Signature=" in url.rsplit("&", 1)[1], url
try:
    urllib.request.urlopen(url[:-1] + ("1" if url[-1] == "0" else "0"))
    raise AssertionError("a changed signature is taken")
except urllib.error.HTTPError as error:
    assert error.code == 403, error.code

refused({"AccessDenied"}, lambda: s3.put_object(Bucket=bucket, Key="elsewhere/x", Body=b""))
refused({"AccessDenied"}, lambda: s3.list_objects_v2(Bucket=bucket))
stranger = client(aws_access_key_id="AKIAIOSFODNN7EXAMPLE", aws_secret_access_key="x" * 43)
refused({"InvalidAccessKeyId"}, lambda: stranger.get_object(Bucket=bucket, Key=f"{prefix}/plain"))
liar = client(aws_access_key_id=os.environ["AWS_ACCESS_KEY_ID"], aws_secret_access_key="x" * 43)
refused({"SignatureDoesNotMatch"}, lambda: liar.get_object(Bucket=bucket, Key=f"{prefix}/plain"))

everything = [one["Key"] for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/") for one in page["Contents"]]
gone = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in everything]})
assert len(gone["Deleted"]) == len(everything) and "Errors" not in gone, gone
assert s3.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")["KeyCount"] == 0
print(f"boto3 {boto3.__version__}: {len(everything)} objects came and went")
