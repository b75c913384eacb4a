"""The rows of files that storage has lost: for operators to see, and so that credits go back once."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from accounts.querysets import TenantQuerySet
from restorations.bases import TenantModel


class LostObject(TenantModel):
    """A video's source or a restoration's result that was missing when it was looked for.

    seen missing -> confirmed by a second look, credits back -> handled by an operator
         |
         +--> deleted, when the object is there after all

    `restorations.losses` is the only writer. `created_at` is when it was seen missing first.
    """

    storage_key = models.CharField(_("storage key"), max_length=255, unique=True)
    video = models.ForeignKey("restorations.Video", on_delete=models.CASCADE, related_name="+")
    #: Empty where it is the source that is lost.
    restoration = models.ForeignKey(
        "restorations.Restoration", on_delete=models.CASCADE, null=True, blank=True, related_name="+"
    )
    confirmed_at = models.DateTimeField(_("confirmed"), null=True, blank=True)
    returned_credits = models.PositiveIntegerField(_("credits given back"), default=0)
    handled_at = models.DateTimeField(_("handled"), null=True, blank=True)
    handled_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    objects = TenantQuerySet.as_manager()

    class Meta:
        verbose_name = _("lost file")
        verbose_name_plural = _("lost files")
        indexes = [
            # The repairs: what was seen missing and not looked for again.
            models.Index(fields=["confirmed_at", "created_at"], name="lost_object_unconfirmed"),
        ]

    def __str__(self) -> str:
        return self.storage_key
