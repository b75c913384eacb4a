"""The parts of one upload on this machine: each is written at its place in one file, so that joining is a rename.

A folder for each upload holds `about.json`, the file `whole`, and an empty file for each part that arrived, whose name
says number, bytes and MD5. A part's mark is removed before its place is written and made once its bytes are on the
disk: whatever falls in between, what is marked is there. Without `whole` the upload is over.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

from restorations.stores import BegunUpload, ObjectMissing, Part, PartsMismatch

_COPY_BYTES: Final = 2**22


@dataclass(frozen=True, slots=True)
class PartsFolder:
    """One upload in parts; every method raises `ObjectMissing` when it is over."""

    path: Path

    def create(self, *, key: str, part_bytes: int, staged: Path) -> None:
        """Makes the folder at once, from one that is filled elsewhere."""
        staged.mkdir()
        (staged / "about.json").write_text(json.dumps({"key": key, "part_bytes": part_bytes}))
        (staged / "whole").touch()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        staged.rename(self.path)

    def begun(self) -> BegunUpload:
        """Returns what is told of the upload in a listing, also when it is over and only this folder is left."""
        try:
            touched_at = datetime.fromtimestamp(self.path.stat().st_mtime, UTC)
            return BegunUpload(str(self._about["key"]), self.path.name, touched_at)
        except FileNotFoundError:
            raise ObjectMissing(self.path.name) from None

    def parts(self) -> list[Part]:
        """Returns the parts that arrived whole, in order."""
        if not self._whole.exists():
            raise ObjectMissing(self.path.name)
        return [Part(int(number), int(size), etag) for number, size, etag in self._marks()]

    def save(self, number: int, content: IO[bytes], *, size: int, etag: str) -> None:
        """Writes one part at its place; one that is sent again replaces the first. Raises `PartsMismatch`."""
        with self._locked() as whole:
            part_bytes = int(self._about["part_bytes"])
            if size > part_bytes:
                raise PartsMismatch(
                    f"upload {self.path.name}: part {number} has {size} of {part_bytes} bytes"
                )
            mark = self.path / f"{number:05d}.{size}.{etag}"
            if mark.exists():
                return
            for other in self.path.glob(f"{number:05d}.*"):
                other.unlink()
            whole.seek((number - 1) * part_bytes)
            shutil.copyfileobj(content, whole, _COPY_BYTES)
            _to_disk(whole)
            mark.touch()

    def join(self, parts: Sequence[Part], keep: Callable[[Path], None]) -> None:
        """Has `keep` move the file away as the whole; raises `PartsMismatch` unless these parts fill it."""
        with self._locked() as whole:
            arrived = {part.number: part for part in self.parts()}
            part_bytes = int(self._about["part_bytes"])
            for number, part in enumerate(parts, 1):
                here = arrived.get(part.number)
                if here is None or part.number != number or here.etag != part.etag:
                    raise PartsMismatch(f"upload {self.path.name}: a part has another tag")
                if here.size != part_bytes and number != len(parts):
                    raise PartsMismatch(f"upload {self.path.name}: part {number} has {here.size} bytes")
            # A longer part may have been the last one before.
            whole.truncate(sum(arrived[part.number].size for part in parts))
            _to_disk(whole)
            keep(self._whole)

    def delete(self) -> None:
        """Forgets the upload; one that is over is no error."""
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def _whole(self) -> Path:
        return self.path / "whole"

    @property
    def _about(self) -> dict[str, str | int]:
        about: dict[str, str | int] = json.loads((self.path / "about.json").read_text())
        return about

    def _marks(self) -> list[list[str]]:
        return sorted(file.name.split(".") for file in self.path.glob("[0-9]*"))

    @contextmanager
    def _locked(self) -> Iterator[IO[bytes]]:
        """Gives the file to one process at a time, and never after it has become an object."""
        try:
            with self._whole.open("r+b") as whole:
                fcntl.flock(whole, fcntl.LOCK_EX)
                if not os.path.samestat(os.fstat(whole.fileno()), self._whole.stat()):
                    raise ObjectMissing(self.path.name)
                yield whole
        except FileNotFoundError:
            raise ObjectMissing(self.path.name) from None


def _to_disk(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
