"""What several of the product's rows have in common."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.core.validators import MaxValueValidator
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.models import Workspace
from gpu_worker.contract import MAX_STRENGTH
from restorations.options import ColorFixChoice, ModelChoice, Preset


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
