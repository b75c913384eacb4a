"""Who may do what in a workspace: the one table that views, templates, sockets and tests read."""

from __future__ import annotations

import enum
from typing import Final

from django.db import models
from django.utils.translation import gettext_lazy as _


class Role(models.TextChoices):
    """What a person is in a workspace. Each workspace has one owner."""

    OWNER = "owner", _("Owner")
    ADMIN = "admin", _("Admin")
    MEMBER = "member", _("Member")
    VIEWER = "viewer", _("Viewer")


class Permission(enum.StrEnum):
    """One thing that a role allows or not; `DESCRIPTIONS` says it in words."""

    LOOK = "look"
    RESTORE = "restore"
    DELETE = "delete"
    BUY = "buy"
    MANAGE_MEMBERS = "manage_members"
    CHANGE_SETTINGS = "change_settings"
    SEE_AUDIT = "see_audit"
    OWN = "own"


DESCRIPTIONS: Final = {
    Permission.LOOK: _("See videos, results and credits, and download"),
    Permission.RESTORE: _("Upload videos, order and cancel restorations"),
    Permission.DELETE: _("Delete videos and results"),
    Permission.BUY: _("Buy credits, set up automatic top-up, see invoices"),
    Permission.MANAGE_MEMBERS: _("Invite people, change roles and limits, remove members"),
    Permission.CHANGE_SETTINGS: _("Change name, retention and sign-in rules"),
    Permission.SEE_AUDIT: _("Read the audit log"),
    Permission.OWN: _("Hand the workspace over, or delete it"),
}

_O, _A, _M, _V = Role.OWNER, Role.ADMIN, Role.MEMBER, Role.VIEWER

#: The table. What is not in it is not allowed.
ALLOWED: Final[dict[Permission, tuple[Role, ...]]] = {
    Permission.LOOK: (_O, _A, _M, _V),
    Permission.RESTORE: (_O, _A, _M),
    Permission.DELETE: (_O, _A, _M),
    Permission.BUY: (_O, _A),
    Permission.MANAGE_MEMBERS: (_O, _A),
    Permission.CHANGE_SETTINGS: (_O, _A),
    Permission.SEE_AUDIT: (_O, _A),
    Permission.OWN: (_O,),
}

#: Roles that can be given. There is one owner, and only handing over makes another one.
GIVEN_ROLES: Final = (Role.ADMIN, Role.MEMBER, Role.VIEWER)


def may(role: str, permission: Permission) -> bool:
    """Returns whether the role allows it."""
    return role in ALLOWED[permission]


def roles_with(permission: Permission) -> tuple[Role, ...]:
    """Returns the roles that allow it."""
    return ALLOWED[permission]


def table() -> list[tuple[str, list[bool]]]:
    """Returns the table for a page: what it is, and whether each role allows it, in the order of `Role`."""
    return [
        (str(DESCRIPTIONS[permission]), [may(role, permission) for role in Role]) for permission in Permission
    ]
