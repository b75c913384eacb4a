"""What a bucket has to be set up for, and a check that it is: by using it as browsers and workers do."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
from botocore.exceptions import BotoCoreError, ClientError

from restorations import objects
from restorations.stores.s3 import S3Store

#: Parts of an upload that nobody completes are deleted by the bucket itself; the site forgets them a day earlier.
UNFINISHED_DAYS: Final = 3
#: S3 takes no smaller parts but the last.
_PART_BYTES: Final = 5 * 2**20
_RULE: Final = "unfinished-uploads"
_FOREIGN_ORIGIN: Final = "https://elsewhere.example"
#: What a store answers for a request that it knows but does not offer.
_NOT_OFFERED: Final = frozenset({"NotImplemented", "MethodNotAllowed", "XNotImplemented", "InvalidRequest"})


class NotConfigured(Exception):
    """The bucket could not be set up; the message is for operators."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: what was tried, and what went wrong; empty when it went well."""

    what: str
    problem: str = ""


def configure(store: S3Store, *, origins: Sequence[str], create: bool = False) -> None:
    """Sets the bucket's rules; other lifecycle rules stay. Raises `NotConfigured`."""
    if create:
        _create(store)
    _apply(
        "the CORS rules",
        store.client.put_bucket_cors,
        Bucket=store.bucket,
        CORSConfiguration={
            "CORSRules": [
                {
                    "AllowedOrigins": list(origins),
                    "AllowedMethods": ["GET", "HEAD", "PUT"],
                    "AllowedHeaders": ["content-type", "range", "x-amz-checksum-sha256"],
                    # The tag of each part is what it is named by when the parts are joined.
                    "ExposeHeaders": ["ETag", "Content-Length", "Content-Range"],
                    "MaxAgeSeconds": 3600,
                }
            ]
        },
    )
    rule = {
        "ID": _RULE,
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": UNFINISHED_DAYS},
    }
    others = [other for other in _lifecycle_rules(store) if other.get("ID") != _RULE]
    _apply(
        "the lifecycle rule",
        store.client.put_bucket_lifecycle_configuration,
        Bucket=store.bucket,
        LifecycleConfiguration={"Rules": [*others, rule]},
    )
    _block_public_access(store)


def _create(store: S3Store) -> None:
    try:
        store.client.head_bucket(Bucket=store.bucket)
    except ClientError:
        _apply("the bucket", store.client.create_bucket, Bucket=store.bucket)


def _apply(what: str, call: Callable[..., Any], **values: Any) -> None:
    try:
        call(**values)
    except (ClientError, BotoCoreError) as exc:
        raise NotConfigured(f"{what} could not be set: {exc}") from None


def _lifecycle_rules(store: S3Store) -> list[dict[str, Any]]:
    try:
        answer = store.client.get_bucket_lifecycle_configuration(Bucket=store.bucket)
    except ClientError:
        return []  # a bucket without rules answers with an error
    except BotoCoreError as exc:
        raise objects.StorageUnavailable(type(exc).__name__) from None
    return list(answer.get("Rules", []))


def _block_public_access(store: S3Store) -> None:
    blocked = dict.fromkeys(
        ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
    )
    try:
        store.client.put_public_access_block(Bucket=store.bucket, PublicAccessBlockConfiguration=blocked)
    except ClientError as exc:
        # Only AWS has it. Whether strangers can read is found out by trying.
        if exc.response.get("Error", {}).get("Code") not in _NOT_OFFERED:
            raise NotConfigured(f"public access could not be blocked: {exc}") from None


def check(store: S3Store, *, origins: Sequence[str]) -> Iterator[Finding]:
    """Uses the bucket as browsers and workers do, in a folder of its own that is emptied afterwards."""
    key = f"checks/{uuid.uuid4()}.mp4"
    with httpx.Client(timeout=30, follow_redirects=False) as http:
        yield _try("the site can write and read", lambda: _round_trip(key))
        for name, attempt in (
            ("a signed address reads a range", lambda: _range(http, key)),
            ("a signed address takes a result", lambda: _put(http, key)),
            ("an upload in parts, with checksums", lambda: _parts(http, key)),
            ("a part with a wrong checksum is refused", lambda: _wrong_part(http, key)),
            ("strangers read nothing", lambda: _strangers(http, store, key)),
            ("pages elsewhere may not upload", lambda: _preflight(http, key, _FOREIGN_ORIGIN, False)),
            ("unfinished uploads are deleted", lambda: _has_rule(store)),
        ):
            yield _try(name, attempt)
        for origin in origins:
            preflight = functools.partial(_preflight, http, key, origin, True)
            yield _try(f"pages of {origin} may upload", preflight)
    yield _try("the site can delete", lambda: objects.delete([key]))


def _try(what: str, attempt: Callable[[], object]) -> Finding:
    try:
        attempt()
    except AssertionError as exc:
        return Finding(what, str(exc))
    except (objects.StorageUnavailable, objects.ObjectMissing, objects.PartsMismatch) as exc:
        return Finding(what, f"{type(exc).__name__}: {exc}")
    except httpx.HTTPError as exc:
        # The text could name a signed address.
        return Finding(what, f"the storage cannot be reached from here: {type(exc).__name__}")
    return Finding(what)


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise AssertionError(problem)


def _round_trip(key: str) -> None:
    objects.save(key, io.BytesIO(b"0123456789"))
    _require(objects.read_bytes(key) == b"0123456789", "what was read is not what was written")


def _range(http: httpx.Client, key: str) -> None:
    answer = http.get(objects.address_to_read(key), headers={"Range": "bytes=2-4"})
    _require(answer.status_code == 206, f"expected 206, got {answer.status_code}: videos could not be seeked")
    _require(answer.content == b"234", "another range came than the one that was asked for")


def _put(http: httpx.Client, key: str) -> None:
    answer = http.put(objects.address_to_write(key, max_bytes=100), content=b"result")
    _require(answer.is_success, f"expected 200, got {answer.status_code}")


def _parts(http: httpx.Client, key: str) -> None:
    content = b"a part"
    upload_id = objects.create_multipart(key, part_bytes=_PART_BYTES, has_checksums=True)
    checksum = _sha256(content)
    signed = objects.address_of_part(key, upload_id, 1, num_bytes=len(content), sha256=checksum)
    answer = http.put(signed.url, content=content, headers=signed.headers)
    _require(answer.is_success, f"expected 200, got {answer.status_code}; S3_PART_CHECKSUMS=false may help")
    tag = answer.headers.get("etag", "").strip('"')
    objects.complete_multipart(key, upload_id, parts=[(1, tag)], checksums={1: checksum})
    _require(objects.read_bytes(key) == content, "the joined object is not what was sent")


def _wrong_part(http: httpx.Client, key: str) -> None:
    upload_id = objects.create_multipart(key, part_bytes=_PART_BYTES, has_checksums=True)
    try:
        signed = objects.address_of_part(key, upload_id, 1, num_bytes=6, sha256=_sha256(b"a part"))
        answer = http.put(signed.url, content=b"A part", headers=signed.headers)
        _require(
            answer.status_code >= 400 or not signed.headers, "a part that was changed on its way was taken"
        )
    finally:
        objects.abort_multipart(key, upload_id)


def _sha256(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


def _strangers(http: httpx.Client, store: S3Store, key: str) -> None:
    unsigned = objects.address_to_read(key).partition("?")[0]
    for address in (unsigned, unsigned.removesuffix(f"/{key}")):
        status = http.get(address).status_code
        _require(status in (400, 401, 403, 404), f"without a signature the storage answered {status}")


def _preflight(http: httpx.Client, key: str, origin: str, is_ours: bool) -> None:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "x-amz-checksum-sha256",
    }
    answer = http.options(objects.address_to_write(key, max_bytes=1), headers=asked)
    allowed = answer.is_success and answer.headers.get("access-control-allow-origin") in (origin, "*")
    if is_ours:
        _require(
            allowed, f"the preflight of an upload was answered {answer.status_code}; run configure_bucket"
        )
    else:
        _require(not allowed, "every page of the internet may upload with a signed address")


def _has_rule(store: S3Store) -> None:
    rules = [rule for rule in _lifecycle_rules(store) if rule.get("Status") == "Enabled"]
    _require(
        any("AbortIncompleteMultipartUpload" in rule for rule in rules),
        "no enabled rule aborts incomplete multipart uploads; run configure_bucket",
    )
