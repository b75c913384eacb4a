"""Delete files on time. Rows say what has to go; storage follows, and is tried again until it has."""

from __future__ import annotations

import logging
from datetime import timedelta
from smtplib import SMTPException
from typing import Any, Final

from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts import audit
from accounts.audit import Deed
from accounts.models import User, Workspace
from restorations import (
    data_export,
    lifecycle,
    notifications,
    objects,
    partial,
    receipts,
    segments,
    uploads,
)
from restorations.doorbells import Doorbell, ring
from restorations.links import imports
from restorations.models import LinkImport, Restoration, Upload, Video

logger = logging.getLogger(__name__)

EXPIRY_NOTICE: Final = timedelta(hours=24)
UNFINISHED_UPLOAD: Final = timedelta(days=2)
#: How long it can be read what became of an import; its link goes when it ends.
IMPORT_KEPT: Final = timedelta(days=7)


class StillInUse(ValueError):
    """A video cannot be deleted while it is being restored; the message is for the person."""


def enforce() -> None:
    """Expires what is due, forgets unfinished uploads, deletes files of what is gone, warns a day before.

    Raises `OSError` when the mail server is away, or `objects.StorageUnavailable`.
    """
    now = timezone.now()
    for restoration in Restoration.objects.filter(status=Restoration.Status.SUCCEEDED, expires_at__lt=now):
        lifecycle.expire(restoration)
    for restoration in Restoration.objects.exclude(partial_key="").filter(expires_at__lt=now):
        partial.forget(restoration)
    for video in _videos_due():
        _forget_unused(video)
    for upload in _uploads_due():
        uploads.abort(upload)
    data_export.delete_due()
    LinkImport.objects.filter(touched_at__lt=now - IMPORT_KEPT).delete()
    purge()
    _warn()
    receipts.mail_receipts()


def _uploads_due() -> list[Upload]:
    """Returns the unfinished uploads that nobody has gone on with for two days, or the workspace's own time."""
    now = timezone.now()
    idle = Upload.objects.unfinished().filter(touched_at__lt=now - timedelta(hours=1))
    return [
        upload
        for upload in idle.select_related("workspace")
        if upload.touched_at + min(UNFINISHED_UPLOAD, _kept(upload.workspace)) < now
    ]


def _kept(workspace: Workspace) -> timedelta:
    return timedelta(hours=workspace.retention_hours)


def apply_new_time(*, workspace: Workspace, **_signal: Any) -> None:
    """Gives what is there already, finished parts too, the workspace's new time, counted from when it was made.

    Who was warned before the old time is warned again before the new one.
    """
    there = Q(status=Restoration.Status.SUCCEEDED) | ~Q(partial_key="")
    made = Restoration.objects.for_workspace(workspace).filter(there)
    made.update(expires_at=F("finished_at") + _kept(workspace))
    made.filter(expires_at__gt=timezone.now() + EXPIRY_NOTICE).update(expiry_mailed_at=None)


def _videos_due() -> list[Video]:
    """Returns the sources past their workspace's time that nothing is being made of."""
    active = Restoration.objects.active().values("video")
    candidates = Video.objects.present().exclude(pk__in=active).select_related("workspace")
    now = timezone.now()
    due = []
    for video in candidates.filter(created_at__lt=now - timedelta(hours=1)):
        newest = video.restorations.order_by("-finished_at").values_list("finished_at", flat=True).first()
        if max(video.created_at, newest or video.created_at) + _kept(video.workspace) < now:
            due.append(video)
    return due


def _warn() -> None:
    now = timezone.now()
    soon = Restoration.objects.filter(
        status=Restoration.Status.SUCCEEDED,
        expiry_mailed_at=None,
        range_start=None,
        expires_at__range=(now, now + EXPIRY_NOTICE),
    )
    # With a retention below two days the notice would come with the result itself.
    for restoration in soon.filter(workspace__retention_hours__gte=48):
        try:
            notifications.mail_expiry(restoration.pk)
        except SMTPException:
            # The row is given back for the next time; a mailbox that is gone keeps nobody else's mail.
            logger.exception("no notice of expiry restoration=%s", restoration.pk)


@transaction.atomic
def delete_video(video: Video, *, actor: User) -> None:
    """Deletes a source because a person says so; raises `StillInUse` while it is being restored."""
    locked = Video.objects.select_for_update(of=("self",)).select_related("workspace").get(pk=video.pk)
    if Restoration.objects.active().filter(video=locked).exists():
        raise StillInUse(_("This video is being restored. Wait until that has ended, or cancel it."))
    _forget(locked, actor=actor)
    audit.record(workspace=locked.workspace, deed=Deed.VIDEO_DELETED, subject=locked.file_name)


@transaction.atomic
def empty_workspace(*, workspace: Workspace, **_signal: Any) -> None:
    """Gives up everything that a workspace holds, because it is deleted itself."""
    for restoration in Restoration.objects.for_workspace(workspace).active():
        lifecycle.cancel(restoration, actor=None)
    for restoration in Restoration.objects.for_workspace(workspace).filter(
        status=Restoration.Status.SUCCEEDED
    ):
        lifecycle.expire(restoration)
    for restoration in Restoration.objects.for_workspace(workspace).exclude(partial_key=""):
        partial.forget(restoration)
    imports.cancel_all(workspace)
    for video in Video.objects.for_workspace(workspace).present():
        _forget(video)


@transaction.atomic
def _forget_unused(video: Video) -> None:
    """Forgets a video whose time is up, unless it was ordered a moment ago: orders lock its row, too."""
    locked = Video.objects.select_for_update(of=("self",)).get(pk=video.pk)
    if not Restoration.objects.active().filter(video=locked).exists():
        _forget(locked)


@transaction.atomic
def _forget(video: Video, *, actor: User | None = None) -> None:
    if Video.objects.present().filter(pk=video.pk).update(deleted_at=Now(), deleted_by=actor):
        notifications.video_changed(video)
        ring(Doorbell.PURGE)


def purge() -> None:
    """Deletes the files of deleted videos and of ended restorations; a key is blanked when its file is gone."""
    for video in Video.objects.exclude(deleted_at=None).exclude(storage_key=""):
        objects.delete(video.objects_in_storage)
        Video.objects.filter(pk=video.pk).update(
            storage_key="", poster_key="", proxy_key="", purged_at=timezone.now()
        )
    for restoration in Restoration.objects.filter(status=Restoration.Status.EXPIRED).exclude(result_key=""):
        _delete_results(restoration)
        Restoration.objects.filter(pk=restoration.pk).update(
            result_key="", proxy_key="", purged_at=timezone.now()
        )
    done = Q(status__in=(Restoration.Status.EXPIRED, Restoration.Status.LOST))
    # The order of the whole may still go on after a preview's segments.
    done |= Q(status=Restoration.Status.SUCCEEDED, range_start=None)
    for restoration in Restoration.objects.filter(done, num_segment_objects__gt=0):
        segments.forget(restoration)


def _delete_results(restoration: Restoration) -> None:
    keys = restoration.attempts.values_list("result_key", "manifest_key")
    objects.delete([restoration.proxy_key, *(key for pair in keys for key in pair)])
