"""Objects on this machine's file system, under signed addresses that `restorations.object_server` serves."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

from django.core import signing
from django.core.files.storage.filesystem import FileSystemStorage

from restorations.stores import BegunUpload, ObjectMissing, Part, SignedPart, StoredObject
from restorations.stores.parts import PartsFolder

GET: Final = "get"
PUT: Final = "put"
PART: Final = "part"
JOIN: Final = "join"

_PARTS: Final = ".parts"
_STAGING: Final = ".staging"
_COPY_BYTES: Final = 2**22


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What a signed address permits: one verb on one object, until a moment.

    `upload_id` and `number` name a part; `num_bytes` and `sha256` (Base64) are what exactly it has to be.
    """

    verb: str
    key: str
    expires: int
    max_bytes: int = 0
    download_name: str = ""
    upload_id: str = ""
    number: int = 0
    num_bytes: int | None = None
    sha256: str = ""

    def sign(self) -> str:
        """Returns the claim as a token. The same claim gives the same token, so that browsers can cache."""
        values = [getattr(self, name) for name in self.__slots__]
        return signing.Signer(salt="objects").sign_object(values)

    @classmethod
    def read(cls, token: str, *verbs: str) -> Claim:
        """Returns the claim of a token; raises `BadSignature` for a forged, expired or misused one."""
        values = signing.Signer(salt="objects").unsign_object(token)
        claim = cls(**dict(zip(cls.__slots__, values, strict=True)))
        if claim.verb not in verbs or claim.expires < time.time():
            raise signing.SignatureExpired("this address is no longer valid for this")
        return claim


class FileStore:
    """A `Store` in one folder. Parts of uploads and files on their way lie below it, outside of every key."""

    def __init__(self, storage: FileSystemStorage) -> None:
        self._storage = storage

    def path(self, key: str) -> Path:
        """Returns where an object lies; the storage refuses keys that leave its folder."""
        return Path(self._storage.path(key))

    def staging_path(self) -> Path:
        """Returns a new path on the objects' file system, from where `save_file` is one step."""
        folder = self.path(_STAGING)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / uuid.uuid4().hex

    # --- Addresses ------------------------------------------------------------------------------------------

    def address_to_read(self, key: str, *, seconds: int, download_name: str) -> str:
        claim = Claim(verb=GET, key=key, expires=_expiry(seconds), download_name=download_name)
        return _address(claim, key.rpartition("/")[2])

    def address_to_write(self, key: str, *, max_bytes: int, seconds: int) -> str:
        claim = Claim(verb=PUT, key=key, expires=_expiry(seconds), max_bytes=max_bytes)
        return _address(claim, key.rpartition("/")[2])

    # --- Whole objects --------------------------------------------------------------------------------------

    def save(self, key: str, content: IO[bytes]) -> None:
        staged = self.staging_path()
        try:
            with staged.open("wb") as file:
                shutil.copyfileobj(content, file, _COPY_BYTES)
            self.save_file(key, staged)
        finally:
            staged.unlink(missing_ok=True)

    def save_file(self, key: str, path: Path) -> None:
        target = self.path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.replace(target)
        except OSError:
            # Another file system: the copy takes its time, so it is made beside the objects first.
            staged = self.staging_path()
            shutil.move(path, staged)
            staged.replace(target)

    def copy(self, source: str, target: str) -> None:
        # A second name for the same bytes is enough: an object is replaced, never written again.
        staged, path = self.staging_path(), self.path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(self.path(source), staged)
            staged.replace(path)
        except FileNotFoundError:
            raise ObjectMissing(source) from None
        finally:
            # It stays where both names meant the same bytes already.
            staged.unlink(missing_ok=True)

    def size(self, key: str) -> int:
        try:
            return self.path(key).stat().st_size
        except FileNotFoundError:
            raise ObjectMissing(key) from None

    def confirm(self, key: str) -> None:
        self.size(key)

    @contextmanager
    def ranges(self, key: str) -> Iterator[FileRanges]:
        with self.local_copy(key) as path, path.open("rb") as file:
            yield FileRanges(file.fileno())

    @contextmanager
    def local_copy(self, key: str) -> Iterator[Path]:
        path = self.path(key)
        if not path.is_file():
            raise ObjectMissing(key)
        yield path

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.path(key).unlink(missing_ok=True)

    def walk(self) -> Iterator[StoredObject]:
        root = self.path("")
        for folder, folders, names in os.walk(root):
            # Parts and files on their way are no objects.
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                path = Path(folder, name)
                try:
                    found = path.stat()
                except FileNotFoundError:
                    continue
                yield StoredObject(path.relative_to(root).as_posix(), found.st_size, _moment(found))

    # --- Uploads in parts -----------------------------------------------------------------------------------

    def create_multipart(self, key: str, *, part_bytes: int, has_checksums: bool) -> str:
        upload_id = uuid.uuid4().hex
        self._parts(upload_id).create(key=key, part_bytes=part_bytes, staged=self.staging_path())
        return upload_id

    def address_of_part(
        self, key: str, upload_id: str, number: int, *, num_bytes: int | None, seconds: int, sha256: str
    ) -> SignedPart:
        claim = Claim(
            verb=PART,
            key=key,
            expires=_expiry(seconds),
            upload_id=upload_id,
            number=number,
            num_bytes=num_bytes,
            sha256=sha256,
        )
        headers = {"x-amz-checksum-sha256": sha256} if sha256 else {}
        return SignedPart(_address(claim, str(number)), headers)

    def address_to_complete(self, key: str, upload_id: str, *, seconds: int) -> str:
        claim = Claim(verb=JOIN, key=key, expires=_expiry(seconds), upload_id=upload_id)
        return _address(claim, "complete")

    def save_part(self, upload_id: str, number: int, staged: Path, etag: str) -> None:
        """Keeps a staged part, which goes; a part sent again replaces the first.

        Raises `ObjectMissing` after an abort, `PartsMismatch` for one that is too large.
        """
        try:
            with staged.open("rb") as content:
                size = os.fstat(content.fileno()).st_size
                self._parts(upload_id).save(number, content, size=size, etag=etag)
        finally:
            staged.unlink()

    def put_part(self, key: str, upload_id: str, number: int, content: bytes) -> Part:
        part = Part(number, len(content), hashlib.md5(content, usedforsecurity=False).hexdigest())
        self._parts(upload_id).save(number, io.BytesIO(content), size=part.size, etag=part.etag)
        return part

    def list_parts(self, key: str, upload_id: str) -> list[Part]:
        return self._parts(upload_id).parts()

    def join_parts(self, key: str, upload_id: str, parts: Sequence[Part]) -> None:
        self._parts(upload_id).join(parts, lambda whole: self.save_file(key, whole))
        # What is left of the folder; after a crash in between, the sweep finds it.
        self.abort_multipart(key, upload_id)

    def abort_multipart(self, key: str, upload_id: str) -> None:
        self._parts(upload_id).delete()

    def multiparts(self) -> Iterator[BegunUpload]:
        for folder in self.path(_PARTS).glob("*"):
            try:
                yield PartsFolder(folder).begun()
            except ObjectMissing:
                continue

    def sweep_staging(self, older_than: datetime) -> int:
        """Deletes files that a killed process left on their way; returns how many."""
        num_deleted = 0
        for file in self.path(_STAGING).glob("*"):
            try:
                touched_at = _moment(file.stat())
            except FileNotFoundError:
                # It has arrived meanwhile.
                continue
            if touched_at < older_than:
                if file.is_dir():
                    shutil.rmtree(file, ignore_errors=True)
                else:
                    file.unlink(missing_ok=True)
                num_deleted += 1
        return num_deleted

    def _parts(self, upload_id: str) -> PartsFolder:
        return PartsFolder(self.path(f"{_PARTS}/{upload_id}"))


@dataclass(frozen=True, slots=True)
class FileRanges:
    """An open file, read in pieces."""

    descriptor: int

    @property
    def size_bytes(self) -> int:
        return os.fstat(self.descriptor).st_size

    def read_at(self, offset: int, num_bytes: int) -> bytes:
        return os.pread(self.descriptor, num_bytes, offset)


def _address(claim: Claim, name: str) -> str:
    return f"/objects/{claim.sign()}/{name}"


def _expiry(seconds: int) -> int:
    """Returns a moment at least `seconds` away, on the hour: addresses stay the same for an hour."""
    return (int(time.time()) + seconds) // 3600 * 3600 + 3600


def _moment(found: os.stat_result) -> datetime:
    return datetime.fromtimestamp(found.st_mtime, UTC)
