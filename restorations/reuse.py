"""Find the result that an order would make again: the same content, settings and revision, in the same workspace.

Results of one workspace are never looked for in another: who has the same file elsewhere learns nothing of it.
"""

from __future__ import annotations

from typing import Final

from django.conf import settings
from django.db.models import F, Q
from django.utils import timezone

from restorations.models import Restoration, Video
from restorations.options import Options, resolved_output
from restorations.presets import output_size

#: The columns that make two orders equal, beside content and revision. How many GPUs share the work makes no picture.
SETTINGS: Final = ("res_w", "res_h", "model", "strength", "color_fix", "output")


def revision() -> str:
    """Names what restores videos at the moment; results of another revision are not the same."""
    return f"{settings.RESTORATION_ENGINE}:{settings.ENGINE_REVISION}"


def find(video: Video, options: Options) -> Restoration | None:
    """Returns the restoration that has this result or is making it; None when it would be a new one.

    A finished one comes before one that runs. Without a seed any seed will do: a random one would be drawn. One that
    failed, was cancelled or deleted is none.
    """
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
    content = Q(video=video)
    if video.sha256:
        content |= Q(video__sha256=video.sha256, video__workspace=video.workspace_id)
    there = Q(status=Restoration.Status.SUCCEEDED, expires_at__gt=timezone.now())
    coming = Q(status__in=Restoration.ACTIVE)
    same = Restoration.objects.for_workspace(video.workspace).filter(content, revision=revision(), **wanted)
    # The enum's order is not the one wanted here: a finished one has a moment of finishing, the others none. PostgreSQL
    # would put those without one first.
    return same.filter(there | coming).order_by(F("finished_at").desc(nulls_last=True), "created_at").first()
