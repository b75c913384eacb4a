"""Who belongs to a workspace, as what, and how much they may spend."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from accounts import audit
from accounts.audit import Deed
from accounts.models import Membership, User, Workspace
from accounts.permissions import GIVEN_ROLES, Role


class Refused(ValueError):
    """A member cannot be changed like this; the message is for the person."""


@transaction.atomic
def change(member: Membership, *, role: str, limit: int | None) -> None:
    """Gives a member a role, and a limit in credits a month; None is no limit.

    Raises `Refused` for another role of the owner: owning is handed over instead.
    """
    member = _locked(member)
    if role != member.role and (member.is_owner or role not in GIVEN_ROLES):
        raise Refused(_("The owner's role changes only when the workspace is handed over."))
    Membership.objects.filter(pk=member.pk).update(role=role, monthly_limit=limit)
    if role != member.role:
        _record(member, Deed.ROLE_CHANGED, role=[member.role, role])
    if limit != member.monthly_limit:
        _record(member, Deed.LIMIT_CHANGED, credits_a_month=[member.monthly_limit, limit])


@transaction.atomic
def remove(member: Membership) -> None:
    """Takes somebody out of the workspace. Raises `Refused` for the owner."""
    member = _locked(member)
    if member.is_owner:
        raise Refused(_("The owner cannot be removed."))
    _record(member, Deed.MEMBER_REMOVED, role=member.role)
    member.delete()


@transaction.atomic
def leave(member: Membership) -> None:
    """Leaves the workspace. Raises `Refused` for the owner, who hands it over or deletes it."""
    member = _locked(member)
    if member.is_owner:
        raise Refused(_("You own this workspace. Hand it over or delete it instead."))
    _record(member, Deed.MEMBER_LEFT, role=member.role)
    member.delete()


def join(workspace: Workspace, user: User, *, role: str) -> bool:
    """Makes somebody a member, inside the caller's transaction; False when they are one already."""
    assert role != Role.OWNER
    _lock(workspace)
    member, is_new = Membership.objects.get_or_create(workspace=workspace, user=user, defaults={"role": role})
    if is_new:
        audit.record(
            workspace=workspace, deed=Deed.MEMBER_JOINED, subject=user.email, actor=user, role=member.role
        )
    return is_new


def _locked(member: Membership) -> Membership:
    # Under the workspace's lock, so that a charge sees the old limit or the new one, and never two owners.
    _lock(member.workspace)
    mine = Membership.objects.for_workspace(member.workspace).select_related("user", "workspace")
    found = mine.filter(pk=member.pk).first()
    if found is None:
        raise Refused(_("This person does not belong to the workspace any more."))
    return found


def _lock(workspace: Workspace) -> None:
    Workspace.objects.select_for_update(no_key=True).get(pk=workspace.pk)


def _record(member: Membership, deed: Deed, **details: Any) -> None:
    audit.record(workspace=member.workspace, deed=deed, subject=member.user.email, **details)
