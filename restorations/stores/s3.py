"""Objects in a bucket of S3, R2 or anything that speaks like them, through django-storages and its boto3 client.

Addresses are signed here instead of by boto3's `generate_presigned_url`, which signs each second anew: a player whose
address changes with every refresh of the page would load its video again and again.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import quote, urlencode

from boto3.s3.transfer import TransferConfig
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from django.utils.http import content_disposition_header
from storages.backends.s3 import S3Storage

from restorations.stores import (
    BegunUpload,
    ObjectMissing,
    Part,
    PartsMismatch,
    SignedPart,
    StorageUnavailable,
    StoredObject,
)
from restorations.stores.media_types import media_type_of
from restorations.stores.scratch import scratch_folder

#: S3 takes at most a thousand keys in one request to delete.
_DELETED_AT_ONCE: Final = 1000
_MISSING: Final = frozenset({"404", "NoSuchKey", "NoSuchUpload", "NotFound"})
_OTHER_PARTS: Final = frozenset({"InvalidPart", "InvalidPartOrder", "EntityTooSmall"})
#: For whoever waits at a page: one try, a few seconds.
_AT_ONCE: Final = Config(
    retries={"mode": "standard", "total_max_attempts": 1}, connect_timeout=3, read_timeout=5
)
_TRANSFER: Final = TransferConfig(
    multipart_chunksize=16 * 2**20, multipart_threshold=16 * 2**20, max_concurrency=4
)
#: Streams are read where they are saved: who gives one need not expect another thread to read it.
_IN_THIS_THREAD: Final = TransferConfig(
    multipart_chunksize=16 * 2**20, multipart_threshold=16 * 2**20, use_threads=False
)


class S3Store:
    """A `Store` in one bucket. `public_url` is where browsers and workers reach the same storage."""

    def __init__(self, storage: S3Storage, *, public_url: str, has_part_checksums: bool) -> None:
        self._storage = storage
        self._public_url = public_url.rstrip("/")
        self._has_part_checksums = has_part_checksums

    @property
    def client(self) -> Any:
        """The boto3 client of this thread."""
        return self._storage.connection.meta.client

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return str(self._storage.bucket_name)

    # --- Addresses ------------------------------------------------------------------------------------------

    def address_to_read(self, key: str, *, seconds: int, download_name: str) -> str:
        # Attachments play in <video> all the same, and a file that somebody uploaded is never shown as a page.
        disposition = content_disposition_header(True, download_name) or "attachment"
        query = {
            "response-content-disposition": disposition,
            "response-content-type": media_type_of(key),
            "response-cache-control": "private, max-age=3600",
        }
        return self._sign("GET", key, seconds=seconds, query=query)

    def address_to_write(self, key: str, *, max_bytes: int, seconds: int) -> str:
        # A signed PUT cannot be bounded, other than to one exact length: who reads the object checks its size.
        return self._sign("PUT", key, seconds=seconds)

    def _sign(
        self,
        method: str,
        key: str,
        *,
        seconds: int,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        url = f"{self._public_url}/{self.bucket}/{quote(key, safe='/-_.~')}"
        # boto3 keeps the query's order in the address but sorts it in the signature, as servers do.
        if query:
            url += f"?{urlencode(query, quote_via=quote)}"
        request = AWSRequest(method=method, url=url, headers=dict(headers or {}))
        credentials = self.client._get_credentials()
        _HourlyAuth(credentials, "s3", self.client.meta.region_name, expires=seconds + 3600).add_auth(request)
        return str(request.url)

    # --- Whole objects --------------------------------------------------------------------------------------

    def save(self, key: str, content: IO[bytes]) -> None:
        with _errors(key):
            self.client.upload_fileobj(
                content,
                self.bucket,
                key,
                ExtraArgs={"ContentType": media_type_of(key)},
                Config=_IN_THIS_THREAD,
            )

    def save_file(self, key: str, path: Path) -> None:
        extra = {"ContentType": media_type_of(key)}
        with _errors(key):
            self.client.upload_file(str(path), self.bucket, key, ExtraArgs=extra, Config=_TRANSFER)
        path.unlink()

    def copy(self, source: str, target: str) -> None:
        found = {"Bucket": self.bucket, "Key": source}
        with _errors(source):
            self.client.copy(found, self.bucket, target, Config=_IN_THIS_THREAD)

    def size(self, key: str) -> int:
        return int(self._head(key)["ContentLength"])

    def _head(self, key: str) -> Any:
        with _errors(key):
            return self.client.head_object(Bucket=self.bucket, Key=key)

    def confirm(self, key: str) -> None:
        with _errors(key):
            self._client_at_once.head_object(Bucket=self.bucket, Key=key)

    @functools.cached_property
    def _client_at_once(self) -> Any:
        # Clients may be shared by threads, other than the resources that django-storages makes for each.
        storage = self._storage
        return storage._create_session().client(
            "s3",
            endpoint_url=storage.endpoint_url,
            region_name=storage.region_name,
            config=storage.client_config.merge(_AT_ONCE),
            verify=storage.verify,
        )

    @contextmanager
    def ranges(self, key: str) -> Iterator[_S3Ranges]:
        head = self._head(key)
        yield _S3Ranges(self, key, head["ContentLength"], head["ETag"])

    @contextmanager
    def local_copy(self, key: str) -> Iterator[Path]:
        with scratch_folder() as folder:
            path = (folder / "object").with_suffix(Path(key).suffix)
            with _errors(key):
                self.client.download_file(self.bucket, key, str(path), Config=_TRANSFER)
            yield path

    def delete(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            named = [{"Key": key} for key in keys[start : start + _DELETED_AT_ONCE]]
            with _errors(keys[start]):
                answer = self.client.delete_objects(
                    Bucket=self.bucket, Delete={"Objects": named, "Quiet": True}
                )
            if failed := answer.get("Errors"):
                raise StorageUnavailable(f"{len(failed)} objects were not deleted: {failed[0].get('Code')}")

    def walk(self) -> Iterator[StoredObject]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        with _errors(""):
            for page in pages:
                for found in page.get("Contents", []):
                    yield StoredObject(found["Key"], found["Size"], found["LastModified"])

    # --- Uploads in parts -----------------------------------------------------------------------------------

    def create_multipart(self, key: str, *, part_bytes: int, has_checksums: bool) -> str:
        checksums = {"ChecksumAlgorithm": "SHA256"} if has_checksums and self._has_part_checksums else {}
        with _errors(key):
            begun = self.client.create_multipart_upload(
                Bucket=self.bucket, Key=key, ContentType=media_type_of(key), **checksums
            )
        return str(begun["UploadId"])

    def address_of_part(
        self, key: str, upload_id: str, number: int, *, num_bytes: int | None, seconds: int, sha256: str
    ) -> SignedPart:
        # Signed headers have to be sent as they are: another length or another content is refused by the storage.
        checked = {"x-amz-checksum-sha256": sha256} if sha256 and self._has_part_checksums else {}
        length = {} if num_bytes is None else {"content-length": str(num_bytes)}
        url = self._sign(
            "PUT",
            key,
            seconds=seconds,
            query={"partNumber": str(number), "uploadId": upload_id},
            headers={**length, **checked},
        )
        # The length is the client's own business: browsers do not let scripts set it.
        return SignedPart(url, checked)

    def address_to_complete(self, key: str, upload_id: str, *, seconds: int) -> str:
        return self._sign("POST", key, seconds=seconds, query={"uploadId": upload_id})

    def put_part(self, key: str, upload_id: str, number: int, content: bytes) -> Part:
        with _errors(key):
            answer = self.client.upload_part(
                Bucket=self.bucket, Key=key, UploadId=upload_id, PartNumber=number, Body=content
            )
        return Part(number, len(content), answer["ETag"].strip('"'))

    def list_parts(self, key: str, upload_id: str) -> list[Part]:
        pages = self.client.get_paginator("list_parts").paginate(
            Bucket=self.bucket, Key=key, UploadId=upload_id
        )
        with _errors(key):
            found = [part for page in pages for part in page.get("Parts", [])]
        # A part sent again replaces the first; SeaweedFS lists both for a while.
        latest = {part["PartNumber"]: part for part in sorted(found, key=lambda part: part["LastModified"])}
        return [
            Part(number, part["Size"], part["ETag"].strip('"')) for number, part in sorted(latest.items())
        ]

    def join_parts(self, key: str, upload_id: str, parts: Sequence[Part]) -> None:
        named = [
            {"PartNumber": part.number, "ETag": f'"{part.etag}"'}
            | ({"ChecksumSHA256": part.sha256} if part.sha256 and self._has_part_checksums else {})
            for part in parts
        ]
        with _errors(key):
            self.client.complete_multipart_upload(
                Bucket=self.bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": named}
            )

    def abort_multipart(self, key: str, upload_id: str) -> None:
        try:
            with _errors(key):
                self.client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload_id)
        except ObjectMissing:
            pass

    def multiparts(self) -> Iterator[BegunUpload]:
        pages = self.client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket)
        with _errors(""):
            for page in pages:
                for found in page.get("Uploads", []):
                    yield BegunUpload(found["Key"], found["UploadId"], found["Initiated"])


class _HourlyAuth(S3SigV4QueryAuth):  # type: ignore[misc]  # botocore has no types
    """Signs as of the last full hour: the same claim gives the same address for an hour, and browsers can cache."""

    def _modify_request_before_signing(self, request: Any) -> None:
        hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        request.context["timestamp"] = hour.strftime("%Y%m%dT%H%M%SZ")
        super()._modify_request_before_signing(request)


@dataclass(frozen=True, slots=True)
class _S3Ranges:
    store: S3Store
    key: str
    size_bytes: int
    etag: str

    def read_at(self, offset: int, num_bytes: int) -> bytes:
        if offset >= self.size_bytes or num_bytes <= 0:
            return b""
        last = min(offset + num_bytes, self.size_bytes) - 1
        with _errors(self.key):
            # Another object under the same key would mix two files into one.
            answer = self.store.client.get_object(
                Bucket=self.store.bucket, Key=self.key, Range=f"bytes={offset}-{last}", IfMatch=self.etag
            )
            return bytes(answer["Body"].read())


@contextmanager
def _errors(key: str) -> Iterator[None]:
    """Raises our errors instead of boto3's, whose texts name addresses."""
    try:
        yield
    except ClientError as exc:
        code = str(exc.response.get("Error", {}).get("Code", ""))
        if code in _MISSING:
            raise ObjectMissing(key) from None
        if code in _OTHER_PARTS:
            raise PartsMismatch(f"the storage answered {code}") from None
        raise StorageUnavailable(f"the storage answered {code} to {exc.operation_name}") from None
    except BotoCoreError as exc:
        raise StorageUnavailable(type(exc).__name__) from None
