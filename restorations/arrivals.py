"""The rows of files on their way in: uploads in parts, and imports from links."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.querysets import TenantQuerySet
from restorations.bases import TenantModel
from restorations.links.problems import Problem


class UploadQuerySet(TenantQuerySet["Upload"]):
    def unfinished(self) -> UploadQuerySet:
        """Returns the uploads that still take parts."""
        return self.filter(video__isnull=True)


class Upload(TenantModel):
    """A file on its way in parts into storage; becomes a video when it is complete."""

    file_name = models.CharField(_("file name"), max_length=255)
    size_bytes = models.BigIntegerField(_("bytes"))
    part_bytes = models.PositiveIntegerField(_("bytes in a part"))
    storage_key = models.CharField(_("storage key"), max_length=255)
    storage_upload_id = models.CharField(_("id of the multipart upload"), max_length=1024)
    touched_at = models.DateTimeField(_("last part asked for"), default=timezone.now, editable=False)
    has_checksums = models.BooleanField(
        _("parts come with checksums"),
        default=False,
        help_text=_("Browsers compute them on secure pages only."),
    )

    objects = UploadQuerySet.as_manager()

    class Meta:
        indexes = [
            # The same file dropped again goes on where it stopped.
            models.Index(fields=["workspace", "file_name", "size_bytes"], name="upload_resume"),
        ]

    def __str__(self) -> str:
        return self.file_name

    @property
    def num_parts(self) -> int:
        """How many parts make the whole file."""
        return -(-self.size_bytes // self.part_bytes)


class UploadPart(models.Model):
    """The checksum that one part of an upload was signed with: the storage wants them again to join the parts."""

    upload = models.ForeignKey(Upload, on_delete=models.CASCADE, related_name="parts")
    number = models.PositiveSmallIntegerField(_("number"))
    sha256 = models.CharField(_("SHA-256 in Base64"), max_length=44)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["upload", "number"], name="upload_part_once"),
        ]

    def __str__(self) -> str:
        return f"{self.upload_id}/{self.number}"


class LinkImportQuerySet(TenantQuerySet["LinkImport"]):
    def under_way(self) -> LinkImportQuerySet:
        """Returns the imports that have not ended."""
        return self.filter(status__in=LinkImport.UNDER_WAY)


class LinkImport(TenantModel):
    """A file that is fetched from a link; becomes a video when it is there.

    waiting -> fetching -> done | failed
       |          |
       +----------+------> cancelled
    """

    class Status(models.TextChoices):
        WAITING = "waiting", _("Waiting for its turn")
        FETCHING = "fetching", _("Being fetched")
        DONE = "done", _("Imported")
        FAILED = "failed", _("Not imported")
        CANCELLED = "cancelled", _("Cancelled")

    UNDER_WAY: ClassVar[tuple[str, ...]] = (Status.WAITING, Status.FETCHING)

    #: A secret as long as it works: blanked when the import has ended, and never logged.
    link = models.TextField(_("link"), blank=True)
    host = models.CharField(_("site"), max_length=255)
    file_name = models.CharField(_("file name"), max_length=255, blank=True)
    status = models.CharField(_("status"), max_length=10, choices=Status.choices, default=Status.WAITING)
    problem = models.CharField(_("problem"), max_length=20, choices=Problem.choices, blank=True)
    size_bytes = models.BigIntegerField(_("bytes"), null=True, blank=True)
    received_bytes = models.BigIntegerField(_("bytes received"), default=0)
    num_tries = models.PositiveSmallIntegerField(_("tries"), default=0)
    num_excused = models.PositiveSmallIntegerField(
        _("tries that do not count"),
        default=0,
        help_text=_("Those that we stopped ourselves, and those that went on and got further."),
    )
    storage_key = models.CharField(_("storage key"), max_length=255)
    #: What has come lies in parts of this upload; all of them are of the file in this one state.
    storage_upload_id = models.CharField(_("id of the multipart upload"), max_length=1024, blank=True)
    part_bytes = models.PositiveIntegerField(_("bytes in a part"), default=0)
    validator = models.CharField(
        _("state of the file"),
        max_length=255,
        blank=True,
        help_text=_("ETag or date by which the site tells whether the rest is of the same file."),
    )
    touched_at = models.DateTimeField(_("last sign of life"), default=timezone.now, editable=False)
    video = models.OneToOneField(
        "restorations.Video", on_delete=models.SET_NULL, null=True, blank=True, related_name="link_import"
    )

    objects = LinkImportQuerySet.as_manager()

    class Meta:
        indexes = [
            # The workspace's page, newest first.
            models.Index(fields=["workspace", "-created_at"], name="link_import_newest"),
            # The repairs.
            models.Index(fields=["status", "touched_at"], name="link_import_by_status"),
        ]

    def __str__(self) -> str:
        return f"{self.pk} {self.status}"

    @property
    def is_under_way(self) -> bool:
        """True until it has ended."""
        return self.status in self.UNDER_WAY

    @property
    def is_interrupted(self) -> bool:
        """True while it waits for another try."""
        return self.status == self.Status.WAITING and self.num_tries > 0

    @property
    def percent(self) -> int | None:
        """How much has come, from 0 to 100; None when the site does not say how much there is."""
        if not self.size_bytes:
            return None
        return min(100, 100 * self.received_bytes // self.size_bytes)
