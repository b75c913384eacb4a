"""What the page frame shows about the person's workspaces."""

from __future__ import annotations

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from accounts.models import User, Workspace


def workspaces(request: HttpRequest) -> dict[str, object]:
    """Returns the workspace in the address, the person's workspaces, and whether changes are allowed here.

    The queries run when a template first uses their values. Outside of a workspace the first one stands in.
    """
    user = getattr(request, "user", None)
    if not isinstance(user, User):
        return {}
    mine = SimpleLazyObject(lambda: list(Workspace.objects.for_member(user)))
    return {
        "workspace": getattr(request, "workspace", None) or SimpleLazyObject(lambda: next(iter(mine), None)),
        "my_workspaces": mine,
        "can_edit": getattr(getattr(request, "membership", None), "can_edit", False),
    }
