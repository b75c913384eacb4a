"""What pages show: the contexts that views and sockets render the same fragments with."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from django.conf import settings
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import ngettext

from accounts.models import Workspace
from billing import ledger
from gpu_worker.contract import Engine
from restorations import lifecycle, objects, reuse, snippets
from restorations.failures import explain
from restorations.forecast import time_left
from restorations.forms import RestorationForm
from restorations.models import LinkImport, Restoration, SavedSettings, Video
from restorations.options import UNUSED_BY, to_run_again
from restorations.quotes import binding_quote, binding_quotes
from restorations.rejections import Rejection

#: How long the page says what became of an import.
_IMPORT_SHOWN: Final = timedelta(minutes=15)


def video_context(video: Video, form: RestorationForm | None = None) -> dict[str, Any]:
    """Returns what a video's page shows: its facts and what each resolution costs."""
    form = form or RestorationForm(video=video)
    is_ready = video.status == Video.Status.READY
    options, frames = form.options, form.preview_frames
    quotes, preview = binding_quotes(video, options, frames=frames) if is_ready else ([], None)
    return {
        "video": video,
        "form": form,
        "quotes": quotes,
        "quote": next((offer for offer in quotes if offer.preset == options.preset), None),
        "same": reuse.find(video, options) if is_ready else None,
        "preview": preview,
        "preview_seconds": snippets.SECONDS,
        "preview_from": float(frames[0] / video.rate) if frames else 0,
        "player_key": video.proxy_key or video.storage_key,
        "saved_settings": SavedSettings.objects.for_workspace(video.workspace),
        "rejection_sentence": Rejection(video.rejection).label if video.rejection else "",
    }


def restoration_context(restoration: Restoration) -> dict[str, Any]:
    """Returns what a restoration's page shows: its state, and the two videos once there are two."""
    video = restoration.video
    source_key = video.proxy_key or video.storage_key
    return {
        "restoration": restoration,
        "video": video,
        "history": _history(restoration),
        "failure": explain(restoration),
        "time_left": time_left(restoration),
        "cancel_refund": lifecycle.cancel_refund(restoration) if restoration.is_active else 0,
        "source_url": "" if video.deleted_at else _address(source_key),
        "result_url": _address(restoration.shown_key) if restoration.is_downloadable else "",
        "is_live": restoration.is_active,
        "is_watched": restoration.is_active or restoration.is_proxy_coming,
        **_whole_context(restoration),
        "again_url": f"{video.get_absolute_url()}?{urlencode(to_run_again(restoration).to_form())}",
        "unused_settings": UNUSED_BY[Engine(restoration.engine or settings.RESTORATION_ENGINE)],
    }


def _whole_context(restoration: Restoration) -> dict[str, Any]:
    """Returns, for a preview that is done, what the whole costs with its settings, or where that is already."""
    video = restoration.video
    if (
        not (restoration.is_preview and restoration.status == Restoration.Status.SUCCEEDED)
        or video.deleted_at
    ):
        return {}
    options = to_run_again(restoration)
    return {
        "whole": binding_quote(video, options),
        "same": reuse.find(video, options),
        "whole_settings": options.to_form(),
    }


def _history(restoration: Restoration) -> list[tuple[str, datetime]]:
    """Returns what happened and when, credits that came back included, oldest first."""
    lines = [(str(event.get_kind_display()), event.created_at) for event in restoration.events.all()]
    for refund in ledger.refunds_of(workspace=restoration.workspace, reference=restoration.reference):
        words = ngettext("%(n)s credit given back", "%(n)s credits given back", refund.credits)
        lines.append((words % {"n": refund.credits}, refund.created_at))
    return sorted(lines, key=lambda line: line[1])


def _address(key: str) -> str:
    return objects.address_to_read(key) if key else ""


def home_context(workspace: Workspace) -> dict[str, Any]:
    """Returns what a workspace's own page shows: how videos come in, and the newest videos and restorations."""
    videos = Video.objects.for_workspace(workspace).present().select_related("workspace")
    restorations = Restoration.objects.for_workspace(workspace).select_related("video", "workspace")
    return {
        "videos": videos.order_by("-created_at")[:12],
        "restorations": restorations.order_by("-created_at")[:6],
        "upload": {
            "max_bytes": settings.UPLOAD_MAX_BYTES,
            "single_max_bytes": settings.UPLOAD_MAX_BYTES_SINGLE,
            "part_bytes": settings.UPLOAD_PART_BYTES,
            "accept": "video/*,image/*,.mkv,.avi,.ts,.m2ts,.mts,.vob,.mxf,.ogv,.wmv,.flv,.dv,.mpg,.mod,.rmvb",
        },
    } | import_context(workspace)


def import_context(workspace: Workspace) -> dict[str, Any]:
    """Returns what the workspace's page shows of imports: those under way, and those that ended just now."""
    recent = Q(touched_at__gt=timezone.now() - _IMPORT_SHOWN) | Q(status__in=LinkImport.UNDER_WAY)
    shown = list(
        LinkImport.objects.for_workspace(workspace)
        .filter(recent)
        .select_related("video__workspace")
        .order_by("-created_at")[:10]
    )
    return {"imports": shown, "is_importing": any(begun.is_under_way for begun in shown)}
