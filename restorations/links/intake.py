"""What has come of an import: parts of one multipart upload, which stay there for the next try.

All parts of an upload are of the file in one state, so a file that changed on its site begins another upload.
"""

from __future__ import annotations

import hashlib
import itertools
import logging

from django.conf import settings

from restorations import objects
from restorations.arrivals import LinkImport
from restorations.links.fetching import Held

logger = logging.getLogger(__name__)


class Intake:
    """The file of one import on its way into storage. Whatever it does may raise `objects.StorageUnavailable`."""

    def __init__(self, begun: LinkImport) -> None:
        self._key = begun.storage_key
        self.upload_id = begun.storage_upload_id
        self.part_bytes = begun.part_bytes
        self._validator = begun.validator
        self._announced = begun.size_bytes
        self._parts = self._arrived() if self.upload_id else []
        #: Bytes that were here already.
        self.num_bytes_before = self.num_bytes
        # A digest cannot be taken up where another process has left it.
        self._digest = None if self._parts else hashlib.sha256()

    def _arrived(self) -> list[objects.Part]:
        parts = objects.list_parts(self._key, self.upload_id)
        if sum(part.size for part in parts) == self._announced:
            return parts
        # A shorter part is the last one of a file whose end was not known to be it: it is asked for again.
        return list(itertools.takewhile(lambda part: part.size == self.part_bytes, parts))

    @property
    def num_bytes(self) -> int:
        """How much is in storage."""
        return sum(part.size for part in self._parts)

    @property
    def held(self) -> Held | None:
        """What the rest can be asked for with; None when the file has to come from its beginning."""
        if not self._parts or not self._validator:
            return None
        return Held(self.num_bytes, self._announced, self._validator)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing: the last try was cut off right before its end."""
        if self._announced is None:
            return False
        return self.num_bytes == self._announced or self._is_joined

    @property
    def _is_joined(self) -> bool:
        return bool(self.upload_id) and not self._parts and objects.exists(self._key)

    @property
    def has_gone_on(self) -> bool:
        """Whether a try that found a beginning here has added to it."""
        return 0 < self.num_bytes_before < self.num_bytes

    @property
    def sha256(self) -> str:
        """The checksum in hexadecimal where all bytes passed through here, else nothing."""
        return self._digest.hexdigest() if self._digest is not None and self._parts else ""

    def begin(self, announced: int | None) -> None:
        """Begins an upload for a file of so many bytes; what was here of another state of it is deleted."""
        self.discard()
        self.part_bytes = objects.part_bytes_for(
            settings.UPLOAD_MAX_BYTES if announced is None else announced,
            at_least=settings.UPLOAD_PART_BYTES,
        )
        self.upload_id = objects.create_multipart(self._key, part_bytes=self.part_bytes)
        self._parts, self._digest = [], hashlib.sha256()
        self.num_bytes_before = 0

    def add(self, content: bytes) -> None:
        """Stores the next part; raises `objects.ObjectMissing` when the upload was given up meanwhile."""
        part = objects.put_part(self._key, self.upload_id, len(self._parts) + 1, content)
        self._parts.append(part)
        if self._digest is not None:
            self._digest.update(content)

    def join(self) -> int:
        """Makes the object of the parts and returns its bytes."""
        if self._parts:
            named = [(part.number, part.etag) for part in self._parts]
            objects.complete_multipart(self._key, self.upload_id, parts=named)
        return objects.size(self._key)

    def discard(self) -> None:
        """Deletes what has come."""
        if self.upload_id:
            objects.abort_multipart(self._key, self.upload_id)


def forget(begun: LinkImport) -> None:
    """Deletes what has come of an import that has ended; the hourly sweep does it should the storage be away."""
    try:
        if begun.storage_upload_id:
            objects.abort_multipart(begun.storage_key, begun.storage_upload_id)
        objects.delete([begun.storage_key])
    except objects.StorageUnavailable:
        logger.warning("what came of an import is left to the sweep import=%s", begun.pk)
