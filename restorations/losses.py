"""Rows whose object is gone: noted, confirmed by a second look, then told to their owner with the credits back.

A storage that does not answer, or is another one than yesterday (a disk that is not mounted, an empty bucket), has
lost nothing: only what is missing twice, from a storage that holds our sign, counts. When much is missing at once,
nothing happens by itself: a person looks first.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Collection, Iterable
from datetime import timedelta
from typing import Any, Final

from django.db import transaction
from django.utils import timezone

from accounts.models import User
from restorations import lifecycle, notifications, objects
from restorations.models import LostObject, Restoration, Video
from restorations.rejections import Rejection

logger = logging.getLogger(__name__)

#: An object by which we know our storage again. Written by sweeps that miss nothing, or that found it.
SIGN: Final = "checks/this-is-our-storage"
#: Between the two looks.
SECOND_LOOK: Final = timedelta(seconds=30)
#: With more than this missing at once, a person decides.
MAX_AT_ONCE: Final = 20


def is_ours() -> bool:
    """Returns whether the storage holds our sign; raises `StorageUnavailable`."""
    return objects.exists(SIGN)


def leave_sign() -> None:
    """Marks the storage as ours."""
    objects.save(
        SIGN, io.BytesIO(b"Do not delete this file: without it, lost files are not believed to be lost.\n")
    )


def note(rows: Iterable[Video | Restoration]) -> None:
    """Notes that the objects of these rows were missing just now; those known already stay as they are."""
    for row in rows:
        if isinstance(row, Restoration):
            key = row.result_key
            values: dict[str, Any] = {"video": row.video, "restoration": row}
        else:
            key, values = row.storage_key, {"video": row}
        LostObject.objects.get_or_create(
            storage_key=key, defaults={"workspace_id": row.workspace_id, **values}
        )


def forget_found(missing: Collection[str]) -> None:
    """Forgets what was noted and never confirmed, and that a look at everything did not miss."""
    LostObject.objects.filter(confirmed_at=None).exclude(storage_key__in=missing).delete()


def look_again() -> None:
    """Looks a second time for what was missing, and settles what still is; raises `StorageUnavailable`."""
    waiting = LostObject.objects.filter(confirmed_at=None)
    due = waiting.filter(created_at__lt=timezone.now() - SECOND_LOOK)
    if not due.exists():
        return
    if not is_ours():
        logger.error("nothing is given up: the storage is not the one that it was; sign=%s", SIGN)
        return
    if waiting.count() > MAX_AT_ONCE:
        logger.error("nothing is given up: %s files are missing at once", waiting.count())
        return
    for lost in due.select_related("video", "restoration"):
        settle(lost)


def settle(lost: LostObject) -> None:
    """Gives a file up that is missing now, forgets one that is there; raises `StorageUnavailable`."""
    if objects.exists(lost.storage_key):
        LostObject.objects.filter(pk=lost.pk, confirmed_at=None).delete()
    else:
        _give_up(lost)


@transaction.atomic
def _give_up(lost: LostObject) -> None:
    """Tells a file's owner, and gives back what its result cost; once."""
    claimed = LostObject.objects.filter(pk=lost.pk, confirmed_at=None)
    if not claimed.update(confirmed_at=timezone.now()):
        return
    if lost.restoration is not None:
        returned = lifecycle.lose(lost.restoration)
        LostObject.objects.filter(pk=lost.pk).update(returned_credits=returned)
    else:
        gone = Video.objects.present().filter(pk=lost.video_id, storage_key=lost.storage_key)
        gone.update(status=Video.Status.REJECTED, rejection=Rejection.LOST.value)
        notifications.video_changed(lost.video)
    logger.error("object lost for good key=%s", lost.storage_key)


def handle(lost: Iterable[LostObject], *, actor: User) -> int:
    """Marks what an operator has dealt with; returns how many."""
    keys = [one.pk for one in lost]
    open_now = LostObject.objects.filter(pk__in=keys, handled_at=None)
    return open_now.update(handled_at=timezone.now(), handled_by=actor)
