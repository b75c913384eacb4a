"""Deletion receipts: what was deleted, when, and that storage holds nothing of it any more.

The rows of a video and of its restorations stay when their files go, and are the receipt.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from smtplib import SMTPException
from typing import Final

from django.conf import settings
from django.db.models import Q, QuerySet
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts import mails
from accounts.mail_preferences import Kind
from accounts.models import User, Workspace
from restorations.models import Restoration, RestorationEvent, Video

logger = logging.getLogger(__name__)

#: A receipt that could not be mailed for so long is on its page only.
MAIL_LIMIT: Final = timedelta(hours=24)
_SUBJECT: Final = _("Your files are deleted")


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One deleted file. `gone_at` is None while storage is still being asked; `by` is None where its time was up."""

    name: str
    num_bytes: int
    ordered_at: datetime
    gone_at: datetime | None
    by: User | None


def with_deletions(workspace: Workspace) -> QuerySet[Video]:
    """Returns the workspace's videos of which something was deleted, the last uploaded first."""
    deleted = Q(restorations__status=Restoration.Status.EXPIRED) | Q(deleted_at__isnull=False)
    return Video.objects.for_workspace(workspace).filter(deleted).order_by("-created_at").distinct()


def lines(video: Video) -> list[Line]:
    """Returns what was deleted of a video: its source with what was made of it for players, and its results."""
    return [*_source(video), *_results(video)]


def _source(video: Video) -> Iterator[Line]:
    if video.deleted_at is not None:
        yield Line(
            name=video.file_name,
            num_bytes=video.size_bytes,
            ordered_at=video.deleted_at,
            gone_at=video.purged_at,
            by=video.deleted_by,
        )


def _results(video: Video) -> Iterator[Line]:
    expired = RestorationEvent.objects.filter(
        restoration__video=video, kind=RestorationEvent.Kind.EXPIRED
    ).select_related("restoration__video", "actor")
    for event in expired:
        restoration = event.restoration
        yield Line(
            name=restoration.download_name,
            num_bytes=restoration.result_bytes,
            ordered_at=event.created_at,
            gone_at=restoration.purged_at,
            by=event.actor,
        )


def mail_receipts() -> None:
    """Mails each person what has been deleted of theirs since the last time, in one mail, once.

    When the mail server refuses one, its rows are given back for the next time, and the others are mailed. When it is
    away, the error goes to the caller.
    """
    fresh = Q(receipt_mailed_at=None, purged_at__gte=timezone.now() - MAIL_LIMIT, created_by__isnull=False)
    sources = Video.objects.filter(fresh)
    # A preview alone is no reason for a mail; in the receipt of its video it is.
    results = Restoration.objects.filter(fresh, range_start=None)
    people = {*sources.values_list("created_by", flat=True), *results.values_list("created_by", flat=True)}
    for user in User.objects.filter(pk__in=people):
        try:
            _mail_receipt(user, sources.filter(created_by=user), results.filter(created_by=user))
        except SMTPException:
            logger.exception("no receipt user=%s", user.pk)


def _mail_receipt(user: User, sources: QuerySet[Video], results: QuerySet[Restoration]) -> None:
    videos = {video.pk: video for video in sources.select_related("workspace")}
    videos |= {one.video_id: one.video for one in results.select_related("video__workspace")}
    claims = (
        Video.objects.filter(pk__in=list(sources.values_list("pk", flat=True))),
        Restoration.objects.filter(pk__in=list(results.values_list("pk", flat=True))),
    )
    for rows in claims:
        rows.update(receipt_mailed_at=timezone.now())
    links = [(video, f"{settings.SITE_URL}{_address(video)}") for video in videos.values()]
    try:
        mails.send(user, _SUBJECT, "restorations/mail/deleted.txt", {"videos": links}, kind=Kind.EXPIRY)
    except OSError:
        for rows in claims:
            rows.update(receipt_mailed_at=None)
        raise


def _address(video: Video) -> str:
    return reverse("deletion-receipt", args=[video.workspace.slug, video.pk])
