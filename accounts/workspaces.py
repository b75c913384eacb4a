"""Make, change, hand over, close and delete workspaces.

Other apps hear of a new one by `workspace_created` and of one whose time is up by `workspace_purged`, inside the
same transaction. A workspace whose deletion was ordered is closed at once and purged after a grace period.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from django.db import transaction
from django.dispatch import Signal
from django.utils import timezone
from django.utils.crypto import get_random_string
from django.utils.text import slugify
from django.utils.translation import gettext as _

from accounts import audit, scope
from accounts.audit import Deed
from accounts.models import Invitation, Membership, User, Workspace
from accounts.permissions import Role

#: Sent with `workspace`. Signals, because accounts may not import the apps that give credits and keep files.
workspace_created = Signal()
workspace_purged = Signal()
retention_changed = Signal()

GRACE: Final = timedelta(days=14)
MAX_OWNED: Final = 20


class Refused(ValueError):
    """A workspace cannot be changed like this; the message is for the person."""


@transaction.atomic
def personal_workspace(user: User) -> Workspace:
    """Returns the person's own workspace; makes it on the first call."""
    # The person's row is the lock: two first requests at once make one workspace.
    User.objects.select_for_update().get(pk=user.pk)
    # In one filter: being a guest in another person's workspace does not make it one's own.
    own = Workspace.objects.filter(
        is_personal=True, memberships__user=user, memberships__role=Role.OWNER
    ).first()
    return own or _create(name=_("My videos"), owner=user, is_personal=True)


@transaction.atomic
def landing(user: User) -> Workspace:
    """Returns the workspace that the person used last, or their own."""
    open_ones = Workspace.objects.for_member(user).filter(delete_after=None)
    last = open_ones.filter(pk=user.last_workspace_id).first() if user.last_workspace_id else None
    return last or personal_workspace(user)


@transaction.atomic
def create(*, name: str, owner: User) -> Workspace:
    """Makes a workspace that several people share. Raises `Refused` for somebody who has very many."""
    User.objects.select_for_update().get(pk=owner.pk)
    if Membership.objects.filter(user=owner, role=Role.OWNER).count() >= MAX_OWNED:
        raise Refused(_("You own %(n)s workspaces already. Delete one first.") % {"n": MAX_OWNED})
    return _create(name=name, owner=owner, is_personal=False)


def _create(*, name: str, owner: User, is_personal: bool) -> Workspace:
    stem = slugify(owner.email.partition("@")[0] if is_personal else name)[:40] or "workspace"
    slug = f"{stem}-{get_random_string(6, 'abcdefghjkmnpqrstuvwxyz23456789')}"
    workspace = Workspace.objects.create(name=name, slug=slug, is_personal=is_personal)
    with scope.inside(workspace):
        Membership.objects.create(workspace=workspace, user=owner, role=Role.OWNER)
        audit.record(workspace=workspace, deed=Deed.WORKSPACE_CREATED, subject=name, actor=owner)
        workspace_created.send(sender=Workspace, workspace=workspace)
    return workspace


@transaction.atomic
def change(workspace: Workspace, **values: Any) -> None:
    """Saves new settings; the log keeps what each was before."""
    locked = Workspace.objects.select_for_update(no_key=True).get(pk=workspace.pk)
    before = {name: getattr(locked, name) for name in values}
    changed: dict[str, Any] = {
        name: [before[name], value] for name, value in values.items() if before[name] != value
    }
    if not changed:
        return
    Workspace.objects.filter(pk=workspace.pk).update(**values)
    if "retention_hours" in changed:
        locked.retention_hours = values["retention_hours"]
        retention_changed.send(sender=Workspace, workspace=locked)
    if "requires_second_factor" in changed:
        required = changed.pop("requires_second_factor")[1]
        audit.record(workspace=workspace, deed=Deed.SIGN_IN_POLICY, requires_second_factor=required)
    if changed:
        audit.record(workspace=workspace, deed=Deed.WORKSPACE_CHANGED, **changed)


@transaction.atomic
def hand_over(workspace: Workspace, *, to: Membership) -> None:
    """Makes a member the owner; who owned it becomes an admin. Raises `Refused`."""
    if workspace.is_personal:
        raise Refused(_("This is your personal workspace. Make another one for what you share."))
    # The person's row is the lock: an account that closes before this is refused, and for one after this is in the way.
    person = User.objects.select_for_update(no_key=True).get(pk=to.user_id)
    if person.is_closing:
        raise Refused(
            _("%(email)s is leaving: the account is about to be deleted.") % {"email": person.email}
        )
    owner = _locked_owner(workspace)
    new = Membership.objects.for_workspace(workspace).select_related("user").filter(pk=to.pk).first()
    if new is None or new.pk == owner.pk:
        raise Refused(_("Choose a member of this workspace."))
    Membership.objects.filter(pk=owner.pk).update(role=Role.ADMIN)
    Membership.objects.filter(pk=new.pk).update(role=Role.OWNER)
    audit.record(workspace=workspace, deed=Deed.HANDED_OVER, subject=new.user.email)


def _locked_owner(workspace: Workspace) -> Membership:
    # The workspace's row is the lock of its members: there is one owner at every moment.
    Workspace.objects.select_for_update(no_key=True).get(pk=workspace.pk)
    return Membership.objects.for_workspace(workspace).get(role=Role.OWNER)


# --- Deleting -----------------------------------------------------------------------------------------------


@transaction.atomic
def schedule_deletion(workspace: Workspace, *, actor: User | None = None) -> None:
    """Orders the deletion: nobody gets in any more, and after the grace period it is purged."""
    closing = Workspace.objects.filter(pk=workspace.pk, delete_after=None)
    if closing.update(delete_after=timezone.now() + GRACE):
        audit.record(workspace=workspace, deed=Deed.WORKSPACE_CLOSING, subject=workspace.name, actor=actor)


@transaction.atomic
def undo_deletion(workspace: Workspace, *, actor: User | None = None) -> None:
    """Takes the deletion back, as long as it was not carried out."""
    closing = Workspace.objects.filter(pk=workspace.pk, deleted_at=None).exclude(delete_after=None)
    if closing.update(delete_after=None):
        audit.record(workspace=workspace, deed=Deed.WORKSPACE_KEPT, subject=workspace.name, actor=actor)


def purge_due() -> None:
    """Deletes the contents and the members of workspaces whose grace period is over."""
    for workspace in Workspace.objects.due():
        with scope.inside(workspace):
            _purge(workspace)


@transaction.atomic
def _purge(workspace: Workspace) -> None:
    # Conditional: the owner may have taken it back a moment ago.
    if not Workspace.objects.due().filter(pk=workspace.pk).update(deleted_at=timezone.now()):
        return
    audit.record(workspace=workspace, deed=Deed.WORKSPACE_DELETED, subject=workspace.name)
    workspace_purged.send(sender=Workspace, workspace=workspace)
    Invitation.objects.for_workspace(workspace).delete()
    Membership.objects.for_workspace(workspace).delete()
