"""What a store of objects can do; `restorations.objects` is the only caller.

Two stores speak the same protocol of signed addresses and uploads in parts: `files` keeps objects on this machine,
`s3` in a bucket of S3, R2 or anything that speaks like them. Browsers and workers cannot tell them apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final, Protocol

#: S3 takes parts with these numbers, and none above.
MAX_PARTS: Final = 10_000


class ObjectMissing(Exception):
    """Storage holds no object, or knows no upload, under this name."""


class PartsMismatch(Exception):
    """The parts named by a client are not the parts that arrived."""


class StorageUnavailable(Exception):
    """Storage did not answer, or not as it should; another try may succeed."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an upload, as S3 lists it."""

    number: int
    size: int
    etag: str
    #: Base64, where the part was signed with it.
    sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns the part with S3's names."""
        return {"PartNumber": self.number, "Size": self.size, "ETag": f'"{self.etag}"'}


@dataclass(frozen=True, slots=True)
class SignedPart:
    """Where one part goes by PUT, and the headers that the signature covers."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Saved:
    """What was stored: bytes, and their SHA-256 in hexadecimal."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object in a listing."""

    key: str
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class BegunUpload:
    """One multipart upload that was neither completed nor aborted."""

    key: str
    upload_id: str
    begun_at: datetime


class Ranges(Protocol):
    """An object that is read in pieces."""

    @property
    def size_bytes(self) -> int:
        """How long the object is."""

    def read_at(self, offset: int, num_bytes: int) -> bytes:
        """Returns the bytes from `offset` on, fewer at the end."""


class Store(Protocol):
    """Keeps objects under keys. Every method raises `StorageUnavailable` when the store does not answer."""

    def address_to_read(self, key: str, *, seconds: int, download_name: str) -> str:
        """Returns an address that answers GET and HEAD, ranges included."""

    def address_to_write(self, key: str, *, max_bytes: int, seconds: int) -> str:
        """Returns an address that takes one object by PUT."""

    def save(self, key: str, content: IO[bytes]) -> None:
        """Stores a stream: readers see the old object or the whole new one."""

    def save_file(self, key: str, path: Path) -> None:
        """Stores a local file and removes it here."""

    def copy(self, source: str, target: str) -> None:
        """Stores an object under a second key; its bytes stay where they are. Raises `ObjectMissing`."""

    def size(self, key: str) -> int:
        """Returns an object's bytes; raises `ObjectMissing`."""

    def confirm(self, key: str) -> None:
        """Raises `ObjectMissing`, or within seconds `StorageUnavailable`: somebody waits for the answer."""

    def ranges(self, key: str) -> AbstractContextManager[Ranges]:
        """Opens an object for reading in pieces; raises `ObjectMissing`."""

    def local_copy(self, key: str) -> AbstractContextManager[Path]:
        """Gives an object as a file, to be read and not changed; raises `ObjectMissing`."""

    def delete(self, keys: Sequence[str]) -> None:
        """Deletes objects; those already gone are no error."""

    def walk(self) -> Iterator[StoredObject]:
        """Lists every object."""

    def create_multipart(self, key: str, *, part_bytes: int, has_checksums: bool) -> str:
        """Begins an upload in parts of `part_bytes` and a last one of at most that, and returns its id.

        With checksums, each part has to come with its own.
        """

    def address_of_part(
        self, key: str, upload_id: str, number: int, *, num_bytes: int | None, seconds: int, sha256: str
    ) -> SignedPart:
        """Returns where one part goes: of exactly `num_bytes` and this Base64 SHA-256, where they are given."""

    def address_to_complete(self, key: str, upload_id: str, *, seconds: int) -> str:
        """Returns an address that joins the parts by POST of S3's `CompleteMultipartUpload` document."""

    def put_part(self, key: str, upload_id: str, number: int, content: bytes) -> Part:
        """Stores one part from here; raises `ObjectMissing` for an upload that is over."""

    def list_parts(self, key: str, upload_id: str) -> list[Part]:
        """Returns the parts that arrived whole, in order; raises `ObjectMissing` for an upload that is over."""

    def join_parts(self, key: str, upload_id: str, parts: Sequence[Part]) -> None:
        """Makes one object of these parts; raises `PartsMismatch` for one that did not arrive like this."""

    def abort_multipart(self, key: str, upload_id: str) -> None:
        """Deletes the parts of an upload; one that is over is no error."""

    def multiparts(self) -> Iterator[BegunUpload]:
        """Lists the uploads in parts that are under way or forgotten."""
