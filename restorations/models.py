"""The product's rows: uploads, videos, restorations with their attempts and events."""

from __future__ import annotations

import secrets
from datetime import timedelta
from fractions import Fraction
from pathlib import PurePath
from typing import ClassVar, Final

from django.conf import settings
from django.db import models
from django.urls import reverse
from django.utils import timezone
from django.utils.text import get_valid_filename
from django.utils.translation import gettext_lazy as _

from accounts.models import User
from accounts.querysets import TenantQuerySet
from gpu_worker.contract import Engine, ErrorCode, Stage
from restorations.arrivals import LinkImport, Upload, UploadPart
from restorations.bases import InParts, MaybePreview, Recipe, TenantModel
from restorations.lost_objects import LostObject
from restorations.options import (
    AUTOMATIC,
    OutputChoice,
    is_played_by_browsers,
    result_suffix,
)
from restorations.presets import Preset

__all__ = [
    "Attempt",
    "LinkImport",
    "LostObject",
    "Restoration",
    "RestorationEvent",
    "SavedSettings",
    "TenantModel",
    "Upload",
    "UploadPart",
    "Video",
]

#: SMPTE ST 2084 (PQ) and ARIB STD-B67 (HLG), by ITU-T H.273's table of transfer functions.
_HDR_TRANSFERS: Final = frozenset({16, 18})


class VideoQuerySet(TenantQuerySet["Video"]):
    def present(self) -> VideoQuerySet:
        """Returns the videos whose file has not been deleted."""
        return self.filter(deleted_at=None)


class Video(TenantModel):
    """A source file and what inspection found in it. Restored as often as one likes, uploaded once."""

    class Status(models.TextChoices):
        INSPECTING = "inspecting", _("Being looked at")
        READY = "ready", _("Ready")
        REJECTED = "rejected", _("Cannot be restored")

    upload = models.OneToOneField(Upload, on_delete=models.SET_NULL, null=True, blank=True)
    status = models.CharField(_("status"), max_length=12, choices=Status.choices, default=Status.INSPECTING)
    rejection = models.CharField(_("why it cannot be restored"), max_length=40, blank=True)
    num_inspections = models.PositiveSmallIntegerField(
        _("inspections begun"),
        default=0,
        help_text=_("A file that kills its inspector is not tried for ever."),
    )
    file_name = models.CharField(_("file name"), max_length=255)
    size_bytes = models.BigIntegerField(_("bytes"))
    storage_key = models.CharField(_("storage key"), max_length=255)
    sha256 = models.CharField(
        _("SHA-256"), max_length=64, blank=True, help_text=_("Of the file; empty until it was computed.")
    )
    #: When the checksum was last asked for, so that a lost ring is rung again; None when there is nothing to compute.
    hash_wanted_at = models.DateTimeField(null=True, blank=True, editable=False)
    poster_key = models.CharField(_("poster"), max_length=255, blank=True)
    proxy_key = models.CharField(
        _("proxy"),
        max_length=255,
        blank=True,
        help_text=_("A copy that browsers play, when they cannot play the source."),
    )
    #: While its proxy is still to be made: since when.
    proxy_wanted_at = models.DateTimeField(null=True, blank=True, editable=False)

    container = models.CharField(_("container"), max_length=60, blank=True)
    codec = models.CharField(_("codec"), max_length=40, blank=True)
    coded_width = models.PositiveIntegerField(_("coded width"), default=0)
    coded_height = models.PositiveIntegerField(_("coded height"), default=0)
    width = models.PositiveIntegerField(
        _("width"), default=0, help_text=_("Of the upright picture with square pixels, as it is seen.")
    )
    height = models.PositiveIntegerField(_("height"), default=0)
    rotation = models.PositiveSmallIntegerField(_("rotation in degrees"), default=0)
    sample_aspect_ratio = models.CharField(_("sample aspect ratio"), max_length=20, default="1/1")
    frame_rate = models.CharField(
        _("frame rate"), max_length=30, default="0/1", help_text=_("An exact fraction.")
    )
    is_variable_frame_rate = models.BooleanField(_("variable frame rate"), default=False)
    num_frames = models.PositiveIntegerField(_("frames"), default=0)
    duration_seconds = models.FloatField(_("seconds"), default=0)
    is_interlaced = models.BooleanField(_("interlaced"), default=False)
    pixel_format = models.CharField(_("pixel format"), max_length=40, blank=True)
    bit_depth = models.PositiveSmallIntegerField(_("bits per channel"), default=8)
    color = models.JSONField(_("colour"), default=dict, help_text=_("Range, matrix, primaries, transfer."))
    is_image = models.BooleanField(_("still picture"), default=False)
    has_alpha = models.BooleanField(_("transparent in places"), default=False)
    audio_tracks = models.JSONField(_("sound tracks"), default=list)
    subtitle_tracks = models.JSONField(_("subtitle tracks"), default=list)
    deleted_at = models.DateTimeField(_("deleted"), null=True, blank=True)
    #: Empty where the retention's time was up. `purged_at` is when storage held nothing of it any more.
    deleted_by = models.ForeignKey(
        User, on_delete=models.SET_NULL, null=True, editable=False, related_name="+"
    )
    purged_at = models.DateTimeField(_("files gone"), null=True, blank=True, editable=False)
    receipt_mailed_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = VideoQuerySet.as_manager()

    class Meta:
        indexes = [
            # The workspace's page, newest first.
            models.Index(fields=["workspace", "-created_at"], name="video_newest_in_workspace"),
            # The same file uploaded again.
            models.Index(fields=["workspace", "sha256"], name="video_by_content"),
        ]

    def __str__(self) -> str:
        return self.file_name

    def get_absolute_url(self) -> str:
        return reverse("video-detail", args=[self.workspace.slug, self.pk])

    @property
    def title(self) -> str:
        """The file's name without its ending."""
        return PurePath(self.file_name).stem or self.file_name

    @property
    def is_hdr(self) -> bool:
        """True for pictures brighter than screens once were, which 8 bits cannot hold."""
        return self.color.get("transfer") in _HDR_TRANSFERS

    @property
    def rate(self) -> Fraction:
        """The exact frame rate in frames per second."""
        return Fraction(self.frame_rate)

    @property
    def objects_in_storage(self) -> list[str]:
        """The keys of everything that storage holds for this video."""
        return [key for key in (self.storage_key, self.poster_key, self.proxy_key) if key]


class RestorationQuerySet(TenantQuerySet["Restoration"]):
    def active(self) -> RestorationQuerySet:
        """Returns the restorations that are not in a final state."""
        return self.filter(status__in=Restoration.ACTIVE)


def new_webhook_token() -> str:
    """Returns an unguessable piece of an address: RunPod does not sign its webhooks."""
    return secrets.token_urlsafe(32)


class Restoration(Recipe, InParts, MaybePreview, TenantModel):
    """One order: a video or a preview of it, settings, a price, and what became of it.

        queued -> submitted -> running -> succeeded -> expired | lost
           ^          |           |
           +----------+-----------+      another attempt after a machine's fault
           |          |           |
           +----------+-----------+--> failed | cancelled

    `restorations.lifecycle` is the only writer of `status`.
    """

    class Status(models.TextChoices):
        QUEUED = "queued", _("Queued")
        SUBMITTED = "submitted", _("Waiting for a machine")
        RUNNING = "running", _("Restoring")
        SUCCEEDED = "succeeded", _("Done")
        FAILED = "failed", _("Failed")
        CANCELLED = "cancelled", _("Cancelled")
        EXPIRED = "expired", _("Deleted")
        LOST = "lost", _("File lost")

    Preset = Preset

    ACTIVE: ClassVar[tuple[str, ...]] = (Status.QUEUED, Status.SUBMITTED, Status.RUNNING)
    ALLOWED: ClassVar[dict[str, tuple[str, ...]]] = {
        Status.QUEUED: (Status.SUBMITTED, Status.RUNNING, Status.SUCCEEDED, Status.FAILED, Status.CANCELLED),
        Status.SUBMITTED: (
            Status.RUNNING, Status.QUEUED, Status.SUCCEEDED, Status.FAILED, Status.CANCELLED,
        ),
        Status.RUNNING: (Status.QUEUED, Status.SUCCEEDED, Status.FAILED, Status.CANCELLED),
        Status.SUCCEEDED: (Status.EXPIRED, Status.LOST),
        Status.FAILED: (),
        Status.CANCELLED: (),
        Status.EXPIRED: (),
        Status.LOST: (),
    }  # fmt: skip

    video = models.ForeignKey(Video, on_delete=models.CASCADE, related_name="restorations")
    status = models.CharField(_("status"), max_length=10, choices=Status.choices, default=Status.QUEUED)
    status_at = models.DateTimeField(_("in this status since"), default=timezone.now)

    output = models.CharField(
        _("output"), max_length=10, choices=OutputChoice.choices, default=OutputChoice.H264
    )
    res_w = models.PositiveIntegerField(_("width"))
    res_h = models.PositiveIntegerField(_("height"))
    sp_size = models.PositiveSmallIntegerField(_("GPUs"))
    seed = models.BigIntegerField(_("seed"))
    price_credits = models.PositiveIntegerField(_("price in credits"))
    refunded_credits = models.PositiveIntegerField(_("credits given back"), default=0)
    expected_seconds = models.PositiveIntegerField(_("expected seconds"), default=0)

    stage = models.CharField(
        _("stage"), max_length=12, blank=True, choices=[(s.value, s.value) for s in Stage]
    )
    num_frames = models.PositiveIntegerField(_("frames"), default=0)
    num_frames_done = models.PositiveIntegerField(_("frames done"), default=0)
    started_at = models.DateTimeField(_("started"), null=True, blank=True)
    finished_at = models.DateTimeField(_("finished"), null=True, blank=True)

    error_code = models.CharField(
        _("error"), max_length=40, blank=True, choices=[(c.value, c.value) for c in ErrorCode]
    )
    revision = models.CharField(
        _("revision"),
        max_length=60,
        blank=True,
        help_text=_("Of the engine and its weights, when it was ordered."),
    )
    engine = models.CharField(
        _("engine"), max_length=10, blank=True, choices=[(e.value, e.value) for e in Engine]
    )
    result_key = models.CharField(_("result"), max_length=255, blank=True)
    result_bytes = models.BigIntegerField(_("bytes of the result"), default=0)
    proxy_key = models.CharField(
        _("proxy"),
        max_length=255,
        blank=True,
        help_text=_("A copy that browsers play, when they cannot play the result."),
    )
    #: While its proxy is still to be made: since when.
    proxy_wanted_at = models.DateTimeField(null=True, blank=True, editable=False)
    manifest = models.JSONField(_("manifest"), null=True, blank=True)
    expires_at = models.DateTimeField(_("files are deleted at"), null=True, blank=True)
    #: Mails are sent once: the moment of sending, set before the mail leaves.
    finish_mailed_at = models.DateTimeField(null=True, blank=True, editable=False)
    expiry_mailed_at = models.DateTimeField(null=True, blank=True, editable=False)
    receipt_mailed_at = models.DateTimeField(null=True, blank=True, editable=False)
    purged_at = models.DateTimeField(_("files gone"), null=True, blank=True, editable=False)

    objects = RestorationQuerySet.as_manager()

    class Meta:
        indexes = [
            # The workspace's list, newest first.
            models.Index(fields=["workspace", "-created_at"], name="restoration_newest"),
            # The poller and the repairs: what is in flight, oldest first.
            models.Index(fields=["status", "status_at"], name="restoration_by_status"),
            # Retention.
            models.Index(fields=["expires_at"], name="restoration_expiry"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(range_start=None, range_end=None)
                | models.Q(range_start__lt=models.F("range_end"), preview_credits=0),
                name="restoration_is_whole_or_range",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.pk} {self.status}"

    def get_absolute_url(self) -> str:
        return reverse("restoration-detail", args=[self.workspace.slug, self.pk])

    @property
    def reference(self) -> str:
        """The name under which the ledger knows this order."""
        return f"restoration:{self.pk}"

    @property
    def is_active(self) -> bool:
        """True until a final state is reached."""
        return self.status in self.ACTIVE

    @property
    def is_being_saved(self) -> bool:
        """True once all frames are done and the result is on its way into storage."""
        return self.stage in (Stage.JOINING.value, Stage.UPLOADING.value)

    @property
    def is_downloadable(self) -> bool:
        """True while storage holds the result."""
        return self.status == self.Status.SUCCEEDED

    @property
    def partial_name(self) -> str:
        """The file name of the finished part."""
        stem, _dot, suffix = self.download_name.rpartition(".")
        return f"{stem}_first_{self.partial_frames}_frames.{suffix}"

    @property
    def percent(self) -> int:
        """How much is done, from 0 to 100; 100 only when the result is there."""
        if self.status in (self.Status.SUCCEEDED, self.Status.EXPIRED, self.Status.LOST):
            return 100
        if not self.num_frames:
            return 0
        return min(99, 100 * self.num_frames_done // self.num_frames)

    @property
    def download_name(self) -> str:
        """The result's file name, such as `holiday_1080p_seed42.mp4`."""
        seconds = int(self.start_seconds)
        range_name = f"_preview_at_{seconds // 60}m{seconds % 60:02d}s" if self.is_preview else ""
        name = f"{self.video.title}_{self.preset}_seed{self.seed}{range_name}"
        return get_valid_filename(name) + self.result_suffix

    @property
    def start_seconds(self) -> float:
        """Where in the source the result begins: as the worker found it, before that as it was ordered."""
        if self.range_start is None:
            return 0.0
        if self.manifest is not None:
            return float(self.manifest.get("start_seconds", 0.0))
        return float(self.range_start / self.video.rate)

    @property
    def result_suffix(self) -> str:
        """How the result's file name ends, such as `.mp4`."""
        return result_suffix(self.output, is_image=self.video.is_image)

    @property
    def shown_key(self) -> str:
        """What a browser can show of the result; empty while its proxy is being made."""
        return self.proxy_key if self.needs_proxy else self.result_key

    @property
    def is_proxy_coming(self) -> bool:
        """True while a copy that browsers show is being made."""
        return self.is_downloadable and self.proxy_wanted_at is not None

    @property
    def needs_proxy(self) -> bool:
        """True when browsers cannot show the result itself."""
        return not (self.video.is_image or is_played_by_browsers(self.output))


class SavedSettings(Recipe, TenantModel):
    """Settings that a workspace keeps under a name, for everybody in it."""

    name = models.CharField(_("name"), max_length=60)
    output = models.CharField(
        _("output"),
        max_length=10,
        choices=[(AUTOMATIC, _("Automatic")), *OutputChoice.choices],
        default=AUTOMATIC,
    )

    objects = TenantQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        verbose_name_plural = _("saved settings")
        constraints = [
            models.UniqueConstraint(fields=["workspace", "name"], name="saved_settings_name_once"),
        ]

    def __str__(self) -> str:
        return self.name


class Attempt(models.Model):
    """One submission of a restoration to the endpoint: what was asked and what was said.

    sending -> in_flight -> succeeded | failed | cancelled
       |  \\-> unknown ---^      the answer was lost: it may run, its manifest or webhook will tell
       v
    refused -> sending           429 or 5xx: nothing runs, the same attempt is sent again
    """

    class Status(models.TextChoices):
        SENDING = "sending", _("Being sent")
        REFUSED = "refused", _("Not taken, sent again soon")
        IN_FLIGHT = "in_flight", _("At the endpoint")
        UNKNOWN = "unknown", _("Sent, answer lost")
        SUCCEEDED = "succeeded", _("Done")
        FAILED = "failed", _("Failed")
        CANCELLED = "cancelled", _("Cancelled")

    #: May still bring a result.
    OPEN: ClassVar[tuple[str, ...]] = (Status.SENDING, Status.REFUSED, Status.IN_FLIGHT, Status.UNKNOWN)

    restoration = models.ForeignKey(Restoration, on_delete=models.CASCADE, related_name="attempts")
    number = models.PositiveSmallIntegerField(_("number"))
    status = models.CharField(_("status"), max_length=10, choices=Status.choices, default=Status.SENDING)
    endpoint_id = models.CharField(_("endpoint"), max_length=128, blank=True)
    runpod_id = models.CharField(_("RunPod's id"), max_length=128, blank=True, db_index=True)
    runpod_status = models.CharField(_("RunPod's status"), max_length=20, blank=True)
    worker_id = models.CharField(_("worker"), max_length=128, blank=True)
    result_key = models.CharField(_("result"), max_length=255)
    manifest_key = models.CharField(_("manifest"), max_length=255)
    created_at = models.DateTimeField(_("asked"), default=timezone.now, editable=False)
    submitted_at = models.DateTimeField(_("accepted"), null=True, blank=True)
    started_at = models.DateTimeField(_("taken by a worker"), null=True, blank=True)
    finished_at = models.DateTimeField(_("finished"), null=True, blank=True)
    deadline_at = models.DateTimeField(_("given up at"))
    last_seen_at = models.DateTimeField(_("last answer"), null=True, blank=True)
    next_look_at = models.DateTimeField(_("asked about again at"), default=timezone.now)
    look_pause = models.DurationField(
        _("pause between looks"), default=timedelta(seconds=1), help_text=_("Short while somebody watches.")
    )
    progress_sequence = models.IntegerField(_("last progress"), default=-1)
    delay_ms = models.BigIntegerField(_("milliseconds waiting"), null=True, blank=True)
    execution_ms = models.BigIntegerField(_("milliseconds running"), null=True, blank=True)
    gpus = models.PositiveSmallIntegerField(_("GPUs"), default=0)
    cost_microdollars = models.BigIntegerField(_("cost in millionths of a dollar"), null=True, blank=True)
    next_try_at = models.DateTimeField(_("sent again at"), null=True, blank=True)
    webhook_token = models.CharField(max_length=64, unique=True, default=new_webhook_token, editable=False)
    cancel_wanted = models.BooleanField(_("to be cancelled at the endpoint"), default=False)
    error_code = models.CharField(_("error"), max_length=40, blank=True)
    error_detail = models.TextField(_("detail for operators"), blank=True)

    class Meta:
        ordering = ["number"]
        constraints = [
            models.UniqueConstraint(fields=["restoration", "number"], name="attempt_number_once"),
        ]
        indexes = [
            # The poller's sweep: the longest overdue first.
            models.Index(fields=["status", "next_look_at"], name="attempt_due"),
        ]

    def __str__(self) -> str:
        return f"{self.restoration_id}/{self.number} {self.status}"

    @property
    def contract_id(self) -> str:
        """The id under which the worker knows this attempt."""
        return f"{self.restoration_id}-{self.number}"


class RestorationEvent(models.Model):
    """The history of a restoration: one row for each thing that happened, never changed."""

    class Kind(models.TextChoices):
        CREATED = "created", _("Ordered")
        SUBMITTED = "submitted", _("Sent to a machine")
        STARTED = "started", _("A machine took it")
        RETRIED = "retried", _("Tried again")
        SUCCEEDED = "succeeded", _("Done")
        FAILED = "failed", _("Failed")
        CANCELLED = "cancelled", _("Cancelled")
        EXPIRED = "expired", _("Files deleted")
        LOST = "lost", _("The file was lost")

    restoration = models.ForeignKey(Restoration, on_delete=models.CASCADE, related_name="events")
    kind = models.CharField(_("what"), max_length=10, choices=Kind.choices)
    detail = models.CharField(_("detail"), max_length=300, blank=True)
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(_("time"), default=timezone.now, editable=False)

    class Meta:
        ordering = ["created_at", "pk"]

    def __str__(self) -> str:
        return f"{self.restoration_id} {self.kind}"
