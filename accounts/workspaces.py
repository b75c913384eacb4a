"""Make workspaces. Other apps hear of a new one by `workspace_created`, inside the same transaction."""

from __future__ import annotations

from django.db import transaction
from django.dispatch import Signal
from django.utils.crypto import get_random_string
from django.utils.text import slugify
from django.utils.translation import gettext as _

from accounts.models import Membership, User, Workspace

#: Sent with `workspace` when one was made. A signal, because accounts may not import the app that gives credits.
workspace_created = Signal()


@transaction.atomic
def personal_workspace(user: User) -> Workspace:
    """Returns the person's own workspace; makes it on the first call."""
    # The person's row is the lock: two first requests at once make one workspace.
    User.objects.select_for_update().get(pk=user.pk)
    own = Workspace.objects.for_member(user).filter(is_personal=True).first()
    return own or _create(name=_("My videos"), owner=user, is_personal=True)


def _create(*, name: str, owner: User, is_personal: bool) -> Workspace:
    stem = slugify(owner.email.partition("@")[0])[:40] or "workspace"
    slug = f"{stem}-{get_random_string(6, 'abcdefghjkmnpqrstuvwxyz23456789')}"
    workspace = Workspace.objects.create(name=name, slug=slug, is_personal=is_personal)
    Membership.objects.create(workspace=workspace, user=owner, role=Membership.Role.OWNER)
    workspace_created.send(sender=Workspace, workspace=workspace)
    return workspace
