"""What several of the product's rows have in common."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.core.validators import MaxValueValidator
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.models import Workspace
from gpu_worker.contract import MAX_STRENGTH, Frames
from restorations.options import ColorFixChoice, ModelChoice
from restorations.presets import Preset


class TenantModel(models.Model):
    """A row that a workspace owns, with a public id."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="+")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(_("created"), default=timezone.now, editable=False)

    class Meta:
        abstract = True


class Recipe(models.Model):
    """The settings that an order and saved settings have in common."""

    preset = models.CharField(_("resolution"), max_length=5, choices=Preset.choices)
    model = models.CharField(
        _("model"), max_length=20, choices=ModelChoice.choices, default=ModelChoice.SEEDVR2_7B
    )
    strength = models.PositiveSmallIntegerField(
        _("strength"), default=MAX_STRENGTH, validators=[MaxValueValidator(MAX_STRENGTH)]
    )
    color_fix = models.CharField(
        _("colours"), max_length=10, choices=ColorFixChoice.choices, default=ColorFixChoice.WAVELET
    )

    class Meta:
        abstract = True


class MaybePreview(models.Model):
    """An order is for a whole video or, with a range, for a preview: a few seconds at the same price for each frame.

    What previews cost comes off the order of the whole with the same settings, each of them once.
    """

    #: Frames, counted from 0; the end is not among them.
    range_start = models.PositiveIntegerField(_("first frame"), null=True, blank=True, editable=False)
    range_end = models.PositiveIntegerField(_("frame behind the last"), null=True, blank=True, editable=False)
    credited_to = models.ForeignKey(
        "restorations.Restoration",
        verbose_name=_("comes off the price of"),
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        editable=False,
        related_name="previews",
    )
    preview_credits = models.PositiveIntegerField(
        _("credits that previews had paid"), default=0, editable=False
    )

    class Meta:
        abstract = True

    @property
    def is_preview(self) -> bool:
        """True for a preview."""
        return self.range_start is not None

    @property
    def frames(self) -> Frames | None:
        """A preview's range of frames; None for the whole."""
        if self.range_start is None or self.range_end is None:
            return None
        return self.range_start, self.range_end


class InParts(models.Model):
    """What is finished of a restoration before all of it is: parts while it runs, and what stays when it ends early."""

    num_segments = models.PositiveIntegerField(_("parts"), default=0)
    num_segments_done = models.PositiveIntegerField(_("parts done"), default=0)
    #: How many segments storage may hold for whoever takes the work over; 0 when there are none any more.
    num_segment_objects = models.PositiveSmallIntegerField(default=0, editable=False)
    partial_key = models.CharField(_("finished part"), max_length=255, blank=True)
    partial_bytes = models.BigIntegerField(_("bytes of the finished part"), default=0)
    partial_frames = models.PositiveIntegerField(_("frames of the finished part"), default=0)

    class Meta:
        abstract = True

    @property
    def has_partial(self) -> bool:
        """True while storage holds the finished part of what was cancelled or has failed."""
        return bool(self.partial_key)
