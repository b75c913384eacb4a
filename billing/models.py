"""Credits: an append-only ledger of whole numbers."""

from __future__ import annotations

from typing import Any, NoReturn

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.models import Workspace
from accounts.querysets import TenantQuerySet


class LedgerIsAppendOnly(TypeError):
    """Somebody tried to change or delete a movement of credits; correct it by a new entry instead."""


class CreditEntryQuerySet(TenantQuerySet["CreditEntry"]):
    """Movements of credits; they can be read and added, nothing else."""

    def update(self, **kwargs: Any) -> NoReturn:
        raise LedgerIsAppendOnly("ledger entries are never updated")

    def delete(self) -> NoReturn:
        raise LedgerIsAppendOnly("ledger entries are never deleted")


class CreditEntry(models.Model):
    """One movement of credits. `billing.ledger` is the only writer; a database trigger refuses all but INSERT."""

    class Kind(models.TextChoices):
        GRANT = "grant", _("Gift")
        CHARGE = "charge", _("Restoration")
        REFUND = "refund", _("Refund")

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT, related_name="+")
    kind = models.CharField(_("kind"), max_length=10, choices=Kind.choices)
    credits = models.BigIntegerField(_("credits"), help_text=_("What came in, or minus what went out."))
    key = models.CharField(
        _("key"), max_length=200, unique=True, help_text=_("Names the movement, so that it happens once.")
    )
    reference = models.CharField(_("reference"), max_length=100, blank=True, db_index=True)
    note = models.CharField(_("note"), max_length=200, blank=True)
    created_at = models.DateTimeField(_("time"), default=timezone.now, editable=False)

    objects = CreditEntryQuerySet.as_manager()

    class Meta:
        verbose_name = _("ledger entry")
        verbose_name_plural = _("ledger")
        indexes = [
            # Statement page and balance of one workspace.
            models.Index(fields=["workspace", "-created_at"], name="credit_entry_statement"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(kind="charge", credits__lt=0)
                | models.Q(kind__in=["grant", "refund"], credits__gt=0),
                name="credit_entry_sign_fits_kind",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.key} {self.credits:+d}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise LedgerIsAppendOnly("ledger entries are never updated")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise LedgerIsAppendOnly("ledger entries are never deleted")
