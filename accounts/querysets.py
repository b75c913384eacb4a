"""The base of every query for a tenant's rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, TypeVar

from django.db import models

if TYPE_CHECKING:
    from accounts.models import Workspace

M = TypeVar("M", bound=models.Model)


class TenantQuerySet(models.QuerySet[M]):
    """A queryset of a model that belongs to a workspace: views start from `for_workspace`, always."""

    def for_workspace(self, workspace: Workspace) -> Self:
        """Returns the rows that this workspace owns."""
        return self.filter(workspace=workspace)
