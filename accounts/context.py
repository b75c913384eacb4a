"""What the page frame shows about the person's workspaces."""

from __future__ import annotations

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from accounts.models import User, Workspace


def workspaces(request: HttpRequest) -> dict[str, object]:
    """Returns the workspace in the address and all of the person's workspaces, both read on first use."""
    user = getattr(request, "user", None)
    if not isinstance(user, User):
        return {}
    return {
        "workspace": getattr(request, "workspace", None)
        or SimpleLazyObject(lambda: Workspace.objects.for_member(user).first()),
        "my_workspaces": SimpleLazyObject(lambda: list(Workspace.objects.for_member(user))),
    }
