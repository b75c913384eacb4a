"""Look into an uploaded file and store the verdict: its facts and a poster, or why it cannot be restored."""

from __future__ import annotations

import logging
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from restorations import notifications, objects, previews
from restorations.doorbells import Doorbell, ring
from restorations.models import Video
from restorations.probing import inspector
from restorations.probing.facts import Unrestorable
from restorations.rejections import Rejection

logger = logging.getLogger(__name__)

MAX_INSPECTIONS: Final = 2


def inspect(video_id: UUID | str) -> None:
    """Inspects an uploaded video and stores the verdict; a second call on the same video does nothing.

    Raises `objects.StorageUnavailable`, and then the attempt does not count.
    """
    video = _claim(video_id)
    if video is None:
        return
    try:
        verdict = _examine(video)
        poster_key = previews.save_poster(video, verdict.poster)
    except Unrestorable as refusal:
        reason = Rejection(refusal.reason)
        logger.info("video rejected video=%s reason=%s", video.pk, reason)
        _decide(video, Video.Status.REJECTED, rejection=reason.value)
        return
    except objects.StorageUnavailable:
        Video.objects.filter(pk=video.pk).update(num_inspections=F("num_inspections") - 1)
        raise
    values = verdict.facts.to_json()
    needs_proxy = not values.pop("is_playable")
    values |= {"poster_key": poster_key, "proxy_wanted_at": timezone.now() if needs_proxy else None}
    _decide(video, Video.Status.READY, **values)
    # Deleted meanwhile: nothing else would ever name the poster.
    if not Video.objects.filter(pk=video.pk, poster_key=poster_key).exists():
        objects.delete([poster_key])
    elif needs_proxy:
        ring(Doorbell.MAKE_PROXY, video_id=video.pk)


def _examine(video: Video) -> inspector.Verdict:
    if video.num_inspections > MAX_INSPECTIONS:
        raise Unrestorable(Rejection.TOO_DEMANDING.value)
    try:
        with objects.ranges(video.storage_key) as opened:
            return inspector.examine(opened, max_seconds=settings.MAX_DURATION_SECONDS)
    except objects.ObjectMissing:
        raise Unrestorable(Rejection.LOST.value) from None


def _claim(video_id: UUID | str) -> Video | None:
    """Counts the inspection before it begins: a file that kills its inspector is given up after a few."""
    waiting = Video.objects.filter(pk=video_id, status=Video.Status.INSPECTING, deleted_at=None)
    if not waiting.update(num_inspections=F("num_inspections") + 1):
        return None
    return waiting.first()


def _decide(video: Video, status: Video.Status, **values: Any) -> None:
    with transaction.atomic():
        undecided = Video.objects.present().filter(pk=video.pk, status=Video.Status.INSPECTING)
        if undecided.update(status=status, **values):
            notifications.video_changed(video)
