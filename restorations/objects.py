"""The only door to stored objects: videos, posters, results, manifests.

Whoever moves bytes gets a signed address for one object and one purpose: browsers and workers alike. The
addresses of this file-system store are served by `restorations.object_server` with the protocol of S3
multipart uploads, so that clients need not know which store they talk to.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from django.conf import settings
from django.core import signing
from django.core.files.storage import storages
from django.core.files.storage.filesystem import FileSystemStorage

GET: Final = "get"
PUT: Final = "put"
PART: Final = "part"

#: How long an address works: long enough to watch a film, or to upload what a worker restored for hours.
BROWSER_SECONDS: Final = 6 * 3600
WORKER_SECONDS: Final = 24 * 3600


class ObjectMissing(Exception):
    """Storage holds no object under this key."""


class PartsMismatch(Exception):
    """The parts named by a client are not the parts that arrived."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an upload, as S3 lists it."""

    number: int
    size: int
    etag: str

    def to_json(self) -> dict[str, Any]:
        """Returns the part with S3's names."""
        return {"PartNumber": self.number, "Size": self.size, "ETag": f'"{self.etag}"'}


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What a signed address permits: one verb on one object, until a moment."""

    verb: str
    key: str
    expires: int
    max_bytes: int = 0
    download_name: str = ""

    def sign(self) -> str:
        """Returns the claim as a token. The same claim gives the same token, so that browsers can cache."""
        values = [self.verb, self.key, self.expires, self.max_bytes, self.download_name]
        return signing.Signer(salt="objects").sign_object(values)

    @classmethod
    def read(cls, token: str, *verbs: str) -> Claim:
        """Returns the claim of a token; raises `BadSignature` for a forged, expired or misused one."""
        values = signing.Signer(salt="objects").unsign_object(token)
        claim = cls(
            verb=values[0], key=values[1], expires=values[2], max_bytes=values[3], download_name=values[4]
        )
        if claim.verb not in verbs or claim.expires < time.time():
            raise signing.SignatureExpired("this address is no longer valid for this")
        return claim


def _storage() -> FileSystemStorage:
    storage = storages["default"]
    assert isinstance(storage, FileSystemStorage)
    return storage


def path(key: str) -> Path:
    """Returns where an object lies on this machine; the storage refuses keys that leave its folder."""
    return Path(_storage().path(key))


def _address(claim: Claim, name: str) -> str:
    return f"/objects/{claim.sign()}/{name}"


def _expiry(seconds: int) -> int:
    """Returns a moment at least `seconds` away, on the hour: addresses stay the same for an hour."""
    return (int(time.time()) + seconds) // 3600 * 3600 + 3600


def address_to_read(key: str, *, seconds: int = BROWSER_SECONDS, download_name: str = "") -> str:
    """Returns an address that reads an object; with a name, the browser saves it under that name."""
    claim = Claim(verb=GET, key=key, expires=_expiry(seconds), download_name=download_name)
    return _address(claim, key.rpartition("/")[2])


def address_to_write(key: str, *, max_bytes: int, seconds: int = WORKER_SECONDS) -> str:
    """Returns an address that takes one object by PUT."""
    claim = Claim(verb=PUT, key=key, expires=_expiry(seconds), max_bytes=max_bytes)
    return _address(claim, key.rpartition("/")[2])


def for_worker(address: str) -> str:
    """Returns an address as a GPU worker has to call it."""
    return f"{settings.SITE_URL}{address}"


# --- Whole objects ------------------------------------------------------------------------------------------


def save(key: str, content: IO[bytes]) -> int:
    """Stores a stream under a key and returns its bytes."""
    return commit(key, stage(content))


def stage(content: IO[bytes]) -> Path:
    """Writes a stream into a file beside the objects, from where `commit` moves it in one step."""
    staged = staging_path()
    with staged.open("wb") as file:
        shutil.copyfileobj(content, file, 2**22)
    return staged


def staging_path() -> Path:
    """Returns a new path on the objects' file system, outside of what can be read."""
    folder = path(".staging")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / uuid.uuid4().hex


def commit(key: str, staged: Path) -> int:
    """Moves a staged file to its key: readers see the old object or the whole new one."""
    target = path(key)
    target.parent.mkdir(parents=True, exist_ok=True)
    size = staged.stat().st_size
    staged.replace(target)
    return size


def size(key: str) -> int:
    """Returns an object's bytes; raises `ObjectMissing`."""
    try:
        return path(key).stat().st_size
    except FileNotFoundError:
        raise ObjectMissing(key) from None


def read_json(key: str) -> Any:
    """Returns a JSON object; raises `ObjectMissing`, or `ValueError` for anything else."""
    try:
        return json.loads(path(key).read_bytes())
    except FileNotFoundError:
        raise ObjectMissing(key) from None


def delete(keys: Iterable[str]) -> None:
    """Deletes objects; those already gone are no error."""
    for key in keys:
        path(key).unlink(missing_ok=True)


# --- Multipart uploads --------------------------------------------------------------------------------------


def create_multipart() -> str:
    """Returns the id of a new upload in parts."""
    upload_id = uuid.uuid4().hex
    _parts_folder(upload_id).mkdir(parents=True)
    return upload_id


def address_of_part(upload_id: str, number: int, *, max_bytes: int) -> str:
    """Returns an address that takes one part by PUT."""
    claim = Claim(
        verb=PART, key=f"{upload_id}/{number}", expires=_expiry(BROWSER_SECONDS), max_bytes=max_bytes
    )
    return _address(claim, str(number))


def save_part(upload_id: str, number: int, staged: Path, etag: str) -> None:
    """Keeps a staged part; a part sent again replaces the first."""
    folder = _parts_folder(upload_id)
    if not folder.is_dir():
        staged.unlink()
        raise ObjectMissing(upload_id)
    target = folder / f"{number:05d}.{etag}"
    staged.replace(target)
    for other in folder.glob(f"{number:05d}.*"):
        if other != target:
            other.unlink(missing_ok=True)


def list_parts(upload_id: str) -> list[Part]:
    """Returns the parts that arrived whole, in order."""
    found = sorted(_parts_folder(upload_id).glob("*.*"))
    return [Part(int(file.name[:5]), file.stat().st_size, file.name[6:]) for file in found]


def complete_multipart(upload_id: str, key: str, *, parts: list[tuple[int, str]]) -> None:
    """Joins the parts to one object. Safe to repeat: the parts go only after the object is there.

    Raises `PartsMismatch` unless `parts` names every part that arrived, from 1 on, by number and ETag.
    """
    arrived = list_parts(upload_id)
    if not arrived and path(key).is_file():
        return
    if parts != [(part.number, part.etag) for part in arrived] or [n for n, _ in parts] != [
        *range(1, len(arrived) + 1)
    ]:
        raise PartsMismatch(f"upload {upload_id}: {len(parts)} parts named, {len(arrived)} arrived")
    staged = staging_path()
    with staged.open("wb") as whole:
        for part in arrived:
            with (_parts_folder(upload_id) / f"{part.number:05d}.{part.etag}").open("rb") as file:
                shutil.copyfileobj(file, whole, 2**22)
    commit(key, staged)
    abort_multipart(upload_id)


def abort_multipart(upload_id: str) -> None:
    """Deletes the parts of an upload."""
    shutil.rmtree(_parts_folder(upload_id), ignore_errors=True)


def _parts_folder(upload_id: str) -> Path:
    return path(f".parts/{upload_id}")
