"""The only door to stored objects: videos, posters, results, manifests.

Whoever moves bytes gets a signed address for one object and one purpose: browsers and workers alike. Where the
objects lie, the settings say: on this machine (`stores.files`) or in a bucket (`stores.s3`). Both speak the protocol
of S3 multipart uploads, so that clients need not know.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, cast

from django.conf import settings
from django.core.files.storage import storages
from django.core.files.storage.filesystem import FileSystemStorage
from django.core.signals import setting_changed

from restorations.stores import (
    MAX_PARTS,
    BegunUpload,
    ObjectMissing,
    Part,
    PartsMismatch,
    Ranges,
    Saved,
    SignedPart,
    StorageUnavailable,
    Store,
    StoredObject,
)
from restorations.stores.files import FileStore

__all__ = [
    "BegunUpload",
    "ObjectMissing",
    "Part",
    "PartsMismatch",
    "Saved",
    "SignedPart",
    "StorageUnavailable",
    "StoredObject",
]

#: How long an address works: long enough to watch the longest film, to save a result, or to upload what a worker
#: restored for hours. Each holds up to an hour longer, because addresses change on the hour.
BROWSER_SECONDS: Final = 6 * 3600
DOWNLOAD_SECONDS: Final = 10 * 60
WORKER_SECONDS: Final = 24 * 3600
#: S3 takes no more in one PUT; a larger result goes in parts.
MAX_PUT_BYTES: Final = 5 * 2**30
_MIN_WORKER_PART: Final = 64 * 2**20
_WORKER_PARTS: Final = 200


@functools.cache
def store() -> Store:
    """Returns the store that the settings name."""
    storage = storages["default"]
    if isinstance(storage, FileSystemStorage):
        return FileStore(storage)
    # Imported late: boto3 takes a while, and an installation without a bucket never needs it.
    from storages.backends.s3 import S3Storage

    from restorations.stores.s3 import S3Store

    assert isinstance(storage, S3Storage)
    return S3Store(
        storage, public_url=settings.S3_PUBLIC_ENDPOINT_URL, has_part_checksums=settings.S3_PART_CHECKSUMS
    )


def _forget_store(*, setting: str, **_kwargs: Any) -> None:
    if setting in {"STORAGES", "S3_PUBLIC_ENDPOINT_URL", "S3_PART_CHECKSUMS"}:
        store.cache_clear()


# Tests choose another store by its settings, as operators do.
setting_changed.connect(_forget_store, dispatch_uid="objects")


def file_store() -> FileStore:
    """Returns the store on this machine, for the server of its addresses."""
    return cast(FileStore, store())


# --- Addresses ----------------------------------------------------------------------------------------------


def address_to_read(key: str, *, seconds: int = BROWSER_SECONDS, download_name: str = "") -> str:
    """Returns an address that reads an object; with a name, the browser saves it under that name."""
    return store().address_to_read(key, seconds=seconds, download_name=download_name)


def address_to_write(key: str, *, max_bytes: int, seconds: int = WORKER_SECONDS) -> str:
    """Returns an address that takes one object by PUT."""
    return store().address_to_write(key, max_bytes=max_bytes, seconds=seconds)


def for_worker(address: str) -> str:
    """Returns an address as a GPU worker has to call it: the file store's are paths on this site."""
    return f"{settings.SITE_URL}{address}" if address.startswith("/") else address


# --- Whole objects ------------------------------------------------------------------------------------------


def save(key: str, content: IO[bytes]) -> Saved:
    """Stores a stream under a key; readers see the old object or the whole new one."""
    measured = _Measured(content)
    store().save(key, cast(IO[bytes], measured))
    return Saved(measured.size_bytes, measured.digest.hexdigest())


class _Measured:
    """A stream that counts and hashes what is read from it."""

    def __init__(self, content: IO[bytes]) -> None:
        self._content = content
        self.size_bytes = 0
        self.digest = hashlib.sha256()

    def read(self, num_bytes: int = -1) -> bytes:
        piece = self._content.read(num_bytes)
        self.size_bytes += len(piece)
        self.digest.update(piece)
        return piece


def save_file(key: str, path: Path) -> None:
    """Stores a file of this machine under a key and removes it here."""
    store().save_file(key, path)


def copy(source: str, target: str) -> None:
    """Stores an object under a second key, without its bytes passing through here; raises `ObjectMissing`."""
    store().copy(source, target)


def size(key: str) -> int:
    """Returns an object's bytes; raises `ObjectMissing`."""
    return store().size(key)


def exists(key: str) -> bool:
    """Returns whether storage holds an object under this key."""
    try:
        store().size(key)
    except ObjectMissing:
        return False
    return True


def confirm(key: str) -> None:
    """Raises `ObjectMissing`, or within seconds `StorageUnavailable`: for pages that lead to the object."""
    store().confirm(key)


def ranges(key: str) -> AbstractContextManager[Ranges]:
    """Opens an object for reading in pieces; raises `ObjectMissing`."""
    return store().ranges(key)


def local_copy(key: str) -> AbstractContextManager[Path]:
    """Gives an object as a file, to be read and not changed; raises `ObjectMissing`."""
    return store().local_copy(key)


def read_bytes(key: str) -> bytes:
    """Returns a small object; raises `ObjectMissing`."""
    with ranges(key) as opened:
        return opened.read_at(0, opened.size_bytes)


def read_json(key: str) -> Any:
    """Returns a JSON object; raises `ObjectMissing`, or `ValueError` for anything else."""
    return json.loads(read_bytes(key))


def sha256(key: str) -> str:
    """Returns the SHA-256 of an object in hexadecimal; reads it once from end to end."""
    digest, offset = hashlib.sha256(), 0
    with ranges(key) as opened:
        while piece := opened.read_at(offset, 16 * 2**20):
            digest.update(piece)
            offset += len(piece)
    return digest.hexdigest()


def delete(keys: Iterable[str]) -> None:
    """Deletes objects; those already gone are no error."""
    if wanted := [key for key in keys if key]:
        store().delete(wanted)


def walk() -> Iterator[StoredObject]:
    """Lists every object."""
    return store().walk()


# --- Multipart uploads --------------------------------------------------------------------------------------


def part_bytes_for(num_bytes: int, *, at_least: int) -> int:
    """Returns the size of the parts of an upload: whole MiB, and few enough parts for S3."""
    needed = -(-num_bytes // MAX_PARTS)
    return at_least if needed <= at_least else -(-needed // 2**20) * 2**20


def create_multipart(key: str, *, part_bytes: int, has_checksums: bool = False) -> str:
    """Begins an upload in parts of `part_bytes` and a last one of at most that, and returns its id.

    With checksums, each part has to be signed with its own.
    """
    return store().create_multipart(key, part_bytes=part_bytes, has_checksums=has_checksums)


def address_of_part(
    key: str, upload_id: str, number: int, *, num_bytes: int | None = None, sha256: str = ""
) -> SignedPart:
    """Returns where one part goes by PUT: of exactly `num_bytes`, and this Base64 SHA-256, where they are given."""
    return store().address_of_part(
        key, upload_id, number, num_bytes=num_bytes, seconds=BROWSER_SECONDS, sha256=sha256
    )


def put_part(key: str, upload_id: str, number: int, content: bytes) -> Part:
    """Stores one part of an upload from here; raises `ObjectMissing` when the upload is over."""
    return store().put_part(key, upload_id, number, content)


def list_parts(key: str, upload_id: str) -> list[Part]:
    """Returns the parts that arrived whole, in order; none when the upload is over."""
    try:
        return store().list_parts(key, upload_id)
    except ObjectMissing:
        return []


def is_begun(key: str, upload_id: str) -> bool:
    """Returns whether an upload in parts still takes parts: the storage may have given it up on its own."""
    try:
        store().list_parts(key, upload_id)
    except ObjectMissing:
        return False
    return True


def complete_multipart(
    key: str, upload_id: str, *, parts: list[tuple[int, str]], checksums: Mapping[int, str] | None = None
) -> None:
    """Joins the parts to one object. Safe to repeat: who comes second finds the object.

    `checksums` are those that the parts were signed with, by number. Raises `PartsMismatch` unless `parts` names
    every part that arrived, from 1 on, by number and ETag.
    """
    arrived = list_parts(key, upload_id)
    if not arrived and exists(key):
        return
    if not arrived or [number for number, _etag in parts] != [*range(1, len(arrived) + 1)]:
        raise PartsMismatch(f"upload {upload_id}: {len(parts)} parts named, {len(arrived)} arrived")
    signed = checksums or {}
    named = [
        Part(number, part.size, etag, signed.get(number, ""))
        for (number, etag), part in zip(parts, arrived, strict=True)
    ]
    try:
        store().join_parts(key, upload_id, named)
    except ObjectMissing:
        # Somebody else was quicker: with the object there all is well.
        if not exists(key):
            raise


def abort_multipart(key: str, upload_id: str) -> None:
    """Deletes the parts of an upload."""
    store().abort_multipart(key, upload_id)


def multiparts() -> Iterator[BegunUpload]:
    """Lists the uploads in parts that are under way or forgotten."""
    return store().multiparts()


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerMultipart:
    """Where a worker sends a result in parts: PUT each part, then POST S3's completion document."""

    upload_id: str
    part_bytes: int
    part_urls: list[str]
    complete_url: str


def worker_multipart(key: str, *, num_bytes: int) -> WorkerMultipart:
    """Begins an upload in parts for a result of up to `num_bytes`; without a completion it is aborted in time."""
    part_bytes = max(_MIN_WORKER_PART, -(-num_bytes // (_WORKER_PARTS * 2**20)) * 2**20)
    upload_id = create_multipart(key, part_bytes=part_bytes)
    numbers = range(1, -(-num_bytes // part_bytes) + 1)
    signed = (
        store().address_of_part(key, upload_id, number, num_bytes=None, seconds=WORKER_SECONDS, sha256="")
        for number in numbers
    )
    complete = store().address_to_complete(key, upload_id, seconds=WORKER_SECONDS)
    return WorkerMultipart(
        upload_id=upload_id,
        part_bytes=part_bytes,
        part_urls=[for_worker(part.url) for part in signed],
        complete_url=for_worker(complete),
    )
