"""django-allauth's hooks, nothing else."""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.db import transaction
from django.http import HttpRequest

from accounts.models import User
from accounts.workspaces import personal_workspace


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """Gives each new person a personal workspace, in the transaction that saves the person."""

    @transaction.atomic
    def save_user(self, request: HttpRequest, user: User, form: Any, commit: bool = True) -> User:
        """Saves the person and the workspace."""
        saved: User = super().save_user(request, user, form, commit)
        if commit:
            personal_workspace(saved)
        return saved
