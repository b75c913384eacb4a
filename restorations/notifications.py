"""What a change tells browsers (a hint on commit; the row is the truth) and mailboxes (once)."""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import Final, TypedDict
from uuid import UUID

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from accounts import mails
from accounts.mail_preferences import Kind
from restorations.failures import explain
from restorations.models import Restoration, Video

logger = logging.getLogger(__name__)

HINT_SECONDS: Final = 3.0


class Hint(TypedDict):
    """A message to a group of sockets: something changed, look at the row."""

    type: str
    kind: str
    id: str


def restoration_group(restoration_id: UUID) -> str:
    """Names the group of sockets that watch one restoration."""
    return f"restoration.{restoration_id}"


def video_group(video_id: UUID) -> str:
    """Names the group of sockets that watch one video."""
    return f"video.{video_id}"


def workspace_group(workspace_id: UUID) -> str:
    """Names the group of sockets that watch a workspace's pages."""
    return f"workspace.{workspace_id}"


def restoration_changed(restoration: Restoration) -> None:
    """Tells the pages that show a restoration, once the change is committed."""
    groups = [restoration_group(restoration.pk), workspace_group(restoration.workspace_id)]
    _hint(groups, {"type": "changed", "kind": "restoration", "id": str(restoration.pk)})


def video_changed(video: Video) -> None:
    """Tells the pages that show a video, once the change is committed."""
    groups = [video_group(video.pk), workspace_group(video.workspace_id)]
    _hint(groups, {"type": "changed", "kind": "video", "id": str(video.pk)})


def _hint(groups: list[str], hint: Hint) -> None:
    # robust: with the channel layer away, pages poll; the change itself is committed.
    transaction.on_commit(functools.partial(_send, groups, hint), robust=True)


@async_to_sync
async def _send(groups: list[str], hint: Hint) -> None:
    layer = get_channel_layer()
    # A hint is worth a moment, never a task that hangs on a silent server.
    async with asyncio.timeout(HINT_SECONDS):
        for group in groups:
            await layer.group_send(group, hint)


# --- Mail ---------------------------------------------------------------------------------------------------


def mail_finish(restoration_id: UUID | str) -> None:
    """Mails whoever ordered a restoration that it is ready, has failed, or that its file was lost, once.

    The row is claimed before the mail leaves: a second call finds it claimed. When the mail server refuses, the
    claim is given back and the error goes to the caller, who tries again.
    """
    claimed = Restoration.objects.filter(
        pk=restoration_id,
        finish_mailed_at=None,
        status__in=(Restoration.Status.SUCCEEDED, Restoration.Status.FAILED, Restoration.Status.LOST),
    )
    if not claimed.update(finish_mailed_at=timezone.now()):
        return
    restoration = _with_people(restoration_id)
    try:
        _mail_finish(restoration)
    except OSError:  # smtplib's exceptions are OSErrors too
        Restoration.objects.filter(pk=restoration_id).update(finish_mailed_at=None)
        raise


def _mail_finish(restoration: Restoration) -> None:
    if restoration.status == Restoration.Status.SUCCEEDED:
        _mail(restoration, Kind.SUCCESS, _("Your video is ready: %(title)s"), "succeeded.txt")
    elif restoration.status == Restoration.Status.LOST:
        _mail(restoration, Kind.FAILURE, _("We have lost a file of yours: %(title)s"), "lost.txt")
    else:
        subject = _("Your video could not be restored: %(title)s")
        _mail(restoration, Kind.FAILURE, subject, "failed.txt", failure=explain(restoration))


def mail_expiry(restoration_id: UUID | str) -> None:
    """Mails that a result is deleted soon, once."""
    claimed = Restoration.objects.filter(
        pk=restoration_id, expiry_mailed_at=None, status=Restoration.Status.SUCCEEDED
    )
    if not claimed.update(expiry_mailed_at=timezone.now()):
        return
    restoration = _with_people(restoration_id)
    try:
        _mail(restoration, Kind.EXPIRY, _("Deleted soon: %(title)s"), "expiring.txt")
    except OSError:
        Restoration.objects.filter(pk=restoration_id).update(expiry_mailed_at=None)
        raise


def _with_people(restoration_id: UUID | str) -> Restoration:
    return Restoration.objects.select_related("video", "workspace", "created_by").get(pk=restoration_id)


def _mail(restoration: Restoration, kind: Kind, subject: Promise, template: str, **context: object) -> None:
    user = restoration.created_by
    if user is None:
        return
    context |= {
        "restoration": restoration,
        "video": restoration.video,
        "title": restoration.video.title,
        "link": f"{settings.SITE_URL}{restoration.get_absolute_url()}",
    }
    mails.send(user, subject, f"restorations/mail/{template}", context, kind=kind)
