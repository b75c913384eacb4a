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
from django.core.mail import EmailMessage
from django.db import transaction
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts.localization import as_seen_by
from accounts.mail_preferences import Kind, unsubscribe_address, unsubscribe_headers
from accounts.models import User
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
    """Mails whoever ordered a restoration that it is ready or has failed, once.

    The row is claimed before the mail leaves: a second call finds it claimed. When the mail server refuses, the
    claim is given back and the error goes to the caller, who tries again.
    """
    claimed = Restoration.objects.filter(
        pk=restoration_id,
        finish_mailed_at=None,
        status__in=(Restoration.Status.SUCCEEDED, Restoration.Status.FAILED),
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
    user = restoration.created_by
    if user is None:
        return
    with as_seen_by(user):
        if restoration.status == Restoration.Status.SUCCEEDED:
            subject = _("Your video is ready: %(title)s") % {"title": restoration.video.title}
            _mail(user, Kind.SUCCESS, subject, "succeeded.txt", restoration)
        else:
            subject = _("Your video could not be restored: %(title)s") % {"title": restoration.video.title}
            _mail(user, Kind.FAILURE, subject, "failed.txt", restoration, failure=explain(restoration))


def mail_expiry(restoration_id: UUID | str) -> None:
    """Mails that a result is deleted soon, once."""
    claimed = Restoration.objects.filter(
        pk=restoration_id, expiry_mailed_at=None, status=Restoration.Status.SUCCEEDED
    )
    if not claimed.update(expiry_mailed_at=timezone.now()):
        return
    restoration = _with_people(restoration_id)
    user = restoration.created_by
    if user is None:
        return
    try:
        with as_seen_by(user):
            subject = _("Deleted soon: %(title)s") % {"title": restoration.video.title}
            _mail(user, Kind.EXPIRY, subject, "expiring.txt", restoration)
    except OSError:
        Restoration.objects.filter(pk=restoration_id).update(expiry_mailed_at=None)
        raise


def _with_people(restoration_id: UUID | str) -> Restoration:
    return Restoration.objects.select_related("video", "workspace", "created_by").get(pk=restoration_id)


def _mail(
    user: User, kind: Kind, subject: str, template: str, restoration: Restoration, **context: object
) -> None:
    if not getattr(user, kind.value):
        return
    context |= {
        "restoration": restoration,
        "video": restoration.video,
        "link": f"{settings.SITE_URL}{restoration.get_absolute_url()}",
        "preferences_link": f"{settings.SITE_URL}/settings/",
        "unsubscribe_link": unsubscribe_address(user, kind),
        "product_name": settings.PRODUCT_NAME,
    }
    # A file's name may hold a line break, a subject may not.
    EmailMessage(
        " ".join(subject.split()),
        render_to_string(f"restorations/mail/{template}", context),
        to=[user.email],
        headers=unsubscribe_headers(user, kind),
    ).send()
