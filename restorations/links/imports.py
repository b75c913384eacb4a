"""Import a video from a link: begin, fetch in a task, cancel, and go on after a crash."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import IO, Any, Final, cast
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone
from django.utils.module_loading import import_string

from accounts.models import User, Workspace
from restorations import objects, uploads
from restorations.arrivals import LinkImport
from restorations.doorbells import Doorbell, ring
from restorations.links.fetching import Rules, checked, fetch
from restorations.links.problems import LinkRefused, Problem

logger = logging.getLogger(__name__)

Status = LinkImport.Status

MAX_TRIES: Final = 3
#: Imports of one workspace that may be under way: each holds a worker for as long as it lasts.
MAX_UNDER_WAY: Final = 5
#: An import whose worker has shown no sign of life for so long has lost it.
LOST: Final = timedelta(minutes=2)
_PROGRESS_SECONDS: Final = 1.0
#: What another try may change.
_TRANSIENT: Final = frozenset({Problem.UNREACHABLE, Problem.BROKEN_OFF})


class TooMany(Exception):
    """A workspace has enough imports under way."""


class _Stopped(Exception):
    """The import was cancelled, or somebody else has taken it."""


def rules() -> Rules:
    """Returns what links may lead to here."""
    return Rules(
        is_allowed=import_string(settings.IMPORT_ADDRESS_POLICY),
        schemes=tuple(settings.IMPORT_SCHEMES),
        max_bytes=settings.UPLOAD_MAX_BYTES,
    )


@transaction.atomic
def begin(*, workspace: Workspace, user: User, link: str) -> LinkImport:
    """Begins an import; raises `LinkRefused` for what is no link, or `TooMany`."""
    parts = checked(link, rules())
    # One at a time, so that the count holds.
    Workspace.objects.select_for_update().get(pk=workspace.pk)
    if LinkImport.objects.for_workspace(workspace).under_way().count() >= MAX_UNDER_WAY:
        raise TooMany
    begun = LinkImport.objects.create(
        workspace=workspace,
        created_by=user,
        link=link.strip(),
        host=(parts.hostname or "")[:255],
        storage_key=uploads.source_key(workspace, parts.path),
    )
    ring(Doorbell.IMPORT_LINK, import_id=begun.pk)
    return begun


def cancel(begun: LinkImport) -> bool:
    """Stops an import; its worker notices with the next bytes. False when it had ended."""
    under_way = LinkImport.objects.under_way().filter(pk=begun.pk)
    return under_way.update(status=Status.CANCELLED, link="", touched_at=timezone.now()) == 1


def run(import_id: UUID | str) -> None:
    """Fetches one import and makes its video; once, however often it is called."""
    begun = _claim(import_id)
    if begun is None:
        return
    try:
        _fetch(begun)
    except LinkRefused as exc:
        _give_up(begun, exc.problem)
    except objects.StorageUnavailable:
        # Found by `repair` as one that has lost its worker, and tried again.
        logger.warning("import waits for the storage import=%s", begun.pk)
    except _Stopped:
        objects.delete([begun.storage_key])


def _claim(import_id: UUID | str) -> LinkImport | None:
    waiting = LinkImport.objects.filter(pk=import_id, status=Status.WAITING)
    if not waiting.update(
        status=Status.FETCHING, num_tries=F("num_tries") + 1, received_bytes=0, touched_at=timezone.now()
    ):
        return None
    return LinkImport.objects.select_related("workspace", "created_by").get(pk=import_id)


def _fetch(begun: LinkImport) -> None:
    with fetch(begun.link, rules()) as fetched:
        _note(begun, file_name=fetched.file_name, size_bytes=fetched.announced)
        body = _Body(begun, fetched.chunks)
        saved = objects.save(begun.storage_key, cast(IO[bytes], body))
    with transaction.atomic():
        mine = _mine(begun)
        if not mine.update(
            status=Status.DONE, link="", received_bytes=saved.size_bytes, touched_at=timezone.now()
        ):
            raise _Stopped
        video = uploads.make_video(
            workspace=begun.workspace,
            user=begun.created_by,
            file_name=fetched.file_name,
            key=begun.storage_key,
            size_bytes=saved.size_bytes,
            sha256=saved.sha256,
        )
        LinkImport.objects.filter(pk=begun.pk).update(video=video)


def _mine(begun: LinkImport) -> Any:
    """Returns the row as long as this worker is the one that fetches it."""
    return LinkImport.objects.filter(pk=begun.pk, status=Status.FETCHING, num_tries=begun.num_tries)


def _note(begun: LinkImport, **values: Any) -> None:
    """Shows a sign of life; raises `_Stopped` when the import is not this worker's any more."""
    if not _mine(begun).update(touched_at=timezone.now(), **values):
        raise _Stopped


class _Body:
    """A file that reads what comes, and tells of it once a second."""

    def __init__(self, begun: LinkImport, chunks: Iterator[bytes]) -> None:
        self._begun = begun
        self._chunks = chunks
        self._held = bytearray()
        self._num_bytes = 0
        self._noted_at = time.monotonic()

    def read(self, num_bytes: int = -1) -> bytes:
        """Returns exactly so many bytes, fewer only at the end: a store makes a part of each."""
        while num_bytes < 0 or len(self._held) < num_bytes:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._held += chunk
            self._num_bytes += len(chunk)
            if time.monotonic() - self._noted_at >= _PROGRESS_SECONDS:
                self._noted_at = time.monotonic()
                _note(self._begun, received_bytes=self._num_bytes)
        end = len(self._held) if num_bytes < 0 else num_bytes
        piece = bytes(self._held[:end])
        del self._held[:end]
        return piece


def _give_up(begun: LinkImport, problem: Problem) -> None:
    objects.delete([begun.storage_key])
    if problem in _TRANSIENT and begun.num_tries < MAX_TRIES:
        # `repair` rings for what waits.
        _mine(begun).update(status=Status.WAITING, touched_at=timezone.now())
        return
    logger.info("import refused import=%s problem=%s", begun.pk, problem)
    _mine(begun).update(status=Status.FAILED, problem=problem, link="", touched_at=timezone.now())


def repair(ring_lost: timedelta) -> None:
    """Rings again for imports that wait or have lost their worker, and gives up those that were tried enough."""
    now = timezone.now()
    for begun in LinkImport.objects.filter(status=Status.FETCHING, touched_at__lt=now - LOST):
        if begun.num_tries >= MAX_TRIES:
            _give_up(begun, Problem.INTERRUPTED)
        else:
            _mine(begun).update(status=Status.WAITING, touched_at=now)
            ring(Doorbell.IMPORT_LINK, import_id=begun.pk)
    for begun in LinkImport.objects.filter(status=Status.WAITING, touched_at__lt=now - ring_lost):
        LinkImport.objects.filter(pk=begun.pk, status=Status.WAITING).update(touched_at=now)
        ring(Doorbell.IMPORT_LINK, import_id=begun.pk)
