"""Import a video from a link: begin, fetch in a task, cancel, and go on after a crash."""

from __future__ import annotations

import logging
import threading
import time
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone
from django.utils.module_loading import import_string

from accounts.models import User, Workspace
from restorations import objects, uploads
from restorations.arrivals import LinkImport, LinkImportQuerySet
from restorations.doorbells import Doorbell, ring
from restorations.links import intake
from restorations.links.fetching import Fetched, Rules, checked, fetch
from restorations.links.intake import Intake
from restorations.links.problems import LinkRefused, Problem

logger = logging.getLogger(__name__)

Status = LinkImport.Status

MAX_TRIES: Final = 3
#: Imports of one workspace that may be under way: each holds a worker for as long as it lasts.
MAX_UNDER_WAY: Final = 5
#: An import whose worker has shown no sign of life for so long has lost it.
LOST: Final = timedelta(minutes=2)
#: However far the tries of an import get, it is given up after so long.
LONGEST: Final = timedelta(days=1)
_PROGRESS_SECONDS: Final = 1.0
#: What another try may change.
_TRANSIENT: Final = frozenset({Problem.UNREACHABLE, Problem.BROKEN_OFF, Problem.INTERRUPTED})
_stopping: Final = threading.Event()


class TooMany(Exception):
    """A workspace has enough imports under way."""


class _Stopped(Exception):
    """The import was cancelled, or somebody else has taken it."""


class _Interrupted(Exception):
    """This process was asked to end."""


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
    """Stops an import and deletes what has come of it; its worker notices with the next bytes. False when it had
    ended."""
    if not _cancel(LinkImport.objects.filter(pk=begun.pk)):
        return False
    begun.refresh_from_db()
    intake.forget(begun)
    return True


def cancel_all(workspace: Workspace) -> None:
    """Stops a workspace's imports; what has come of them goes when their workers notice, or with the next sweep."""
    _cancel(LinkImport.objects.for_workspace(workspace))


def _cancel(imports: LinkImportQuerySet) -> int:
    return imports.under_way().update(status=Status.CANCELLED, link="", touched_at=timezone.now())


# --- In the worker --------------------------------------------------------------------------------------------


def stop() -> None:
    """Has this process leave its imports to others with the next bytes: it was asked to end."""
    _stopping.set()


def run(import_id: UUID | str) -> None:
    """Fetches one import and makes its video; once, however often it is called.

    A try that comes to nothing leaves what it has stored to the next one.
    """
    begun = None if _stopping.is_set() else _claim(import_id)
    if begun is None:
        return
    try:
        _fetch(begun)
    except (objects.StorageUnavailable, _Interrupted) as exc:
        logger.warning("import waits import=%s for=%s", begun.pk, type(exc).__name__)
        _give_up(begun, Problem.INTERRUPTED, is_excused=True)
    except (objects.ObjectMissing, objects.PartsMismatch):
        # Cancelled, or the storage gave the upload up by its own rule: then the next try begins anew.
        _give_up(begun, Problem.INTERRUPTED)
    except _Stopped:
        _leave(begun)


def _claim(import_id: UUID | str) -> LinkImport | None:
    waiting = LinkImport.objects.filter(pk=import_id, status=Status.WAITING)
    if not waiting.update(status=Status.FETCHING, num_tries=F("num_tries") + 1, touched_at=timezone.now()):
        return None
    return LinkImport.objects.select_related("workspace", "created_by").get(pk=import_id)


def _fetch(begun: LinkImport) -> None:
    stored = Intake(begun)
    _note(begun, received_bytes=stored.num_bytes)
    if not stored.is_whole:
        try:
            with fetch(begun.link, rules(), stored.held) as fetched:
                if fetched.start == 0:
                    _begin(begun, stored, fetched)
                _receive(begun, stored, fetched)
        except LinkRefused as exc:
            # A bad line and a long file: as long as each try gets further, there is another.
            _give_up(begun, exc.problem, is_excused=stored.has_gone_on)
            return
    _finish(begun, stored)


def _begin(begun: LinkImport, stored: Intake, fetched: Fetched) -> None:
    stored.begin(fetched.announced)
    try:
        _note(
            begun,
            file_name=fetched.file_name,
            size_bytes=fetched.announced,
            validator=fetched.validator,
            storage_upload_id=stored.upload_id,
            part_bytes=stored.part_bytes,
            received_bytes=0,
        )
    except _Stopped:
        stored.discard()
        raise


def _receive(begun: LinkImport, stored: Intake, fetched: Fetched) -> None:
    """Stores what comes in parts, and tells of it once a second."""
    held, noted_at = bytearray(), time.monotonic()
    for chunk in fetched.chunks:
        if _stopping.is_set():
            raise _Interrupted
        held += chunk
        is_part = len(held) >= stored.part_bytes
        if is_part or time.monotonic() - noted_at >= _PROGRESS_SECONDS:
            noted_at = time.monotonic()
            _note(begun, received_bytes=stored.num_bytes + len(held))
        while len(held) >= stored.part_bytes:
            stored.add(bytes(held[: stored.part_bytes]))
            del held[: stored.part_bytes]
    if held:
        stored.add(bytes(held))


def _finish(begun: LinkImport, stored: Intake) -> None:
    _mark_done(begun, num_bytes=stored.join(), sha256=stored.sha256)


@transaction.atomic
def _mark_done(begun: LinkImport, *, num_bytes: int, sha256: str) -> None:
    if not _mine(begun).update(
        status=Status.DONE, link="", received_bytes=num_bytes, touched_at=timezone.now()
    ):
        raise _Stopped
    video = uploads.make_video(
        workspace=begun.workspace,
        user=begun.created_by,
        file_name=begun.file_name,
        key=begun.storage_key,
        size_bytes=num_bytes,
        sha256=sha256,
    )
    LinkImport.objects.filter(pk=begun.pk).update(video=video)


def _mine(begun: LinkImport) -> LinkImportQuerySet:
    """Returns the row as long as this worker is the one that fetches it."""
    return LinkImport.objects.filter(pk=begun.pk, status=Status.FETCHING, num_tries=begun.num_tries)


def _note(begun: LinkImport, **values: Any) -> None:
    """Shows a sign of life; raises `_Stopped` when the import is not this worker's any more."""
    if not _mine(begun).update(touched_at=timezone.now(), **values):
        raise _Stopped
    for name, value in values.items():
        setattr(begun, name, value)


# --- When it comes to nothing ---------------------------------------------------------------------------------


def _give_up(begun: LinkImport, problem: Problem, *, is_excused: bool = False) -> None:
    """Ends an import, or only this try at it where another may do better. An excused try does not count.

    `repair` rings for what waits.
    """
    has_tries = is_excused or begun.num_tries - begun.num_excused < MAX_TRIES
    if problem in _TRANSIENT and has_tries and timezone.now() - begun.created_at < LONGEST:
        excused = F("num_excused") + int(is_excused)
        _mine(begun).update(status=Status.WAITING, num_excused=excused, touched_at=timezone.now())
    else:
        logger.info("import refused import=%s problem=%s", begun.pk, problem)
        _mine(begun).update(status=Status.FAILED, problem=problem, link="", touched_at=timezone.now())
    _leave(begun)


def _leave(begun: LinkImport) -> None:
    """Deletes what has come, unless somebody goes on with it or has made a video of it."""
    to_nothing = (Status.FAILED, Status.CANCELLED)
    if not LinkImport.objects.filter(pk=begun.pk).exclude(status__in=to_nothing).exists():
        intake.forget(begun)


def repair(ring_lost: timedelta) -> None:
    """Rings again for imports that wait or have lost their worker, and gives up those that were tried enough."""
    now = timezone.now()
    for begun in LinkImport.objects.filter(status=Status.FETCHING, touched_at__lt=now - LOST):
        _give_up(begun, Problem.INTERRUPTED)
        ring(Doorbell.IMPORT_LINK, import_id=begun.pk)
    for begun in LinkImport.objects.filter(status=Status.WAITING, touched_at__lt=now - ring_lost):
        LinkImport.objects.filter(pk=begun.pk, status=Status.WAITING).update(touched_at=now)
        ring(Doorbell.IMPORT_LINK, import_id=begun.pk)
