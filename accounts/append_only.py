"""Rows that are added and read, never changed: the ledger of credits and the audit log.

The model refuses, and so does a trigger in the database (`refuse_changes` in a migration).
"""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

from django.db import models

from accounts.querysets import TenantQuerySet

M = TypeVar("M", bound=models.Model)


class IsAppendOnly(TypeError):
    """Somebody tried to change or delete a row that stands for good; add a new one instead."""


class AppendOnlyQuerySet(TenantQuerySet[M]):
    """Rows that can be read and added, nothing else."""

    def update(self, **kwargs: Any) -> NoReturn:
        raise IsAppendOnly(f"{self.model._meta.verbose_name_plural} are never updated")

    def delete(self) -> NoReturn:
        raise IsAppendOnly(f"{self.model._meta.verbose_name_plural} are never deleted")


class AppendOnlyRow(models.Model):
    """A row that stands as it was written."""

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise IsAppendOnly(f"{self._meta.verbose_name_plural} are never updated")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise IsAppendOnly(f"{self._meta.verbose_name_plural} are never deleted")
