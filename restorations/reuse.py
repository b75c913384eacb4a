"""Find the result that an order would make again: the same content, settings and revision, in the same workspace.

Results of one workspace are never looked for in another: who has the same file elsewhere learns nothing of it.
"""

from __future__ import annotations

from typing import Final

from django.conf import settings
from django.db.models import F, Q
from django.utils import timezone

from gpu_worker.contract import Frames
from restorations.models import Restoration, RestorationQuerySet, Video
from restorations.options import Options, resolved_output
from restorations.presets import output_size

#: The columns that make two orders equal, beside content and revision. How many GPUs share the work makes no picture.
SETTINGS: Final = ("res_w", "res_h", "model", "strength", "color_fix", "output")


def revision() -> str:
    """Names what restores videos at the moment; results of another revision are not the same."""
    return f"{settings.RESTORATION_ENGINE}:{settings.ENGINE_REVISION}"


def find(video: Video, options: Options, *, frames: Frames | None = None) -> Restoration | None:
    """Returns the restoration that has this result or is making it; None when it would be a new one.

    A finished one comes before one that runs. Without a seed any seed will do: a random one would be drawn. One that
    failed, was cancelled or deleted is none. For a preview's `frames`, the whole will do as well.
    """
    there = Q(status=Restoration.Status.SUCCEEDED, expires_at__gt=timezone.now())
    coming = Q(status__in=Restoration.ACTIVE)
    shown = Q(range_start=None)
    if frames is not None:
        shown |= Q(range_start=frames[0], range_end=frames[1])
    same = _equal(video, options).filter(there | coming, shown, revision=revision())
    # The enum's order is not the one wanted here: a finished one has a moment of finishing, the others none. PostgreSQL
    # would put those without one first.
    order = (
        F("range_start").asc(nulls_first=True),
        F("finished_at").desc(nulls_last=True),
        "created_at",
    )
    return same.order_by(*order).first()


def previews(video: Video, options: Options) -> RestorationQuerySet:
    """Returns the previews of what an order is for that no order was lowered by yet, whatever their state."""
    return _equal(video, options).filter(range_start__isnull=False, credited_to=None)


def has_previews(video: Video) -> bool:
    """Returns whether a video has previews, of any settings."""
    mine = Restoration.objects.for_workspace(video.workspace)
    return mine.filter(_content(video), range_start__isnull=False).exists()


def paid_previews(video: Video, options: Options) -> list[Restoration]:
    """Returns the previews whose price comes off an order, the last one first.

    Without a seed it is the last one's. What they cost comes off also where their files are deleted, or where
    another revision of the engine makes the frames anew.
    """
    made = (Restoration.Status.SUCCEEDED, Restoration.Status.EXPIRED)
    found = list(previews(video, options).filter(status__in=made).order_by("-created_at"))
    return [preview for preview in found if preview.seed == found[0].seed]


def _equal(video: Video, options: Options) -> RestorationQuerySet:
    """Returns all orders of the same content with the same settings, in the video's workspace."""
    size = output_size(options.preset, width=video.width, height=video.height)
    wanted = {
        "res_w": size.width,
        "res_h": size.height,
        "model": options.model,
        "strength": options.strength,
        "color_fix": options.color_fix,
        "output": resolved_output(options.output, video),
    }
    assert set(wanted) == set(SETTINGS)
    if options.seed is not None:
        wanted["seed"] = options.seed
    return Restoration.objects.for_workspace(video.workspace).filter(_content(video), **wanted)


def _content(video: Video) -> Q:
    """Fits what was ordered of a video, and of copies of it in the same workspace."""
    content = Q(video=video)
    if video.sha256:
        content |= Q(video__sha256=video.sha256, video__workspace=video.workspace_id)
    return content
