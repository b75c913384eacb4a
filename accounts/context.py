"""What the page frame shows about the person's workspaces."""

from __future__ import annotations

from collections.abc import Iterable

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from accounts.models import Membership, User, Workspace
from accounts.permissions import Permission, may


def workspaces(request: HttpRequest) -> dict[str, object]:
    """Returns the workspace in the address, the person's workspaces, and what is allowed here.

    The queries run when a template first uses their values. Outside of a workspace the last used one stands in.
    """
    user = getattr(request, "user", None)
    if not isinstance(user, User):
        return {}
    mine = SimpleLazyObject(lambda: list(Workspace.objects.for_member(user).filter(deleted_at=None)))
    membership: Membership | None = getattr(request, "membership", None)
    return {
        "workspace": getattr(request, "workspace", None) or SimpleLazyObject(lambda: _last_used(user, mine)),
        "my_workspaces": mine,
        **rights(membership),
    }


def rights(membership: Membership | None) -> dict[str, object]:
    """Returns what a member may do, for templates: `can.buy` and so on, and `can_edit` for short."""
    role = membership.role if membership else ""
    can = {permission.value: may(role, permission) for permission in Permission}
    return {"membership": membership, "can": can, "can_edit": can[Permission.RESTORE.value]}


def _last_used(user: User, mine: Iterable[Workspace]) -> Workspace | None:
    return next((one for one in mine if one.pk == user.last_workspace_id), next(iter(mine), None))
