"""Close an account, take that back, delete it for good.

    open -- close --> closed -- 14 days --> deleted
      ^-- keep -------- |

Closing locks the person out of everything but the way back. The workspaces that they own alone close with the
account and go with it; a shared one has to be handed over first, because others work there. What runs goes on to its
end, as it is paid for. Deleting removes whatever tells who it was; the row stays without it, because the books and
the audit logs of others point to it.
"""

from __future__ import annotations

import logging
from typing import Final

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.db import transaction
from django.db.models import QuerySet
from django.dispatch import Signal
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts import mails, members, scope, workspaces
from accounts.doorbells import Doorbell, ring
from accounts.models import Invitation, Membership, User, Workspace
from accounts.permissions import Role

logger = logging.getLogger(__name__)

GRACE: Final = workspaces.GRACE
#: Sent with `user` inside the transaction that deletes an account: other apps delete what they keep of the person.
account_deleted = Signal()


class Refused(ValueError):
    """An account cannot be closed like this; the message is for the person."""


def owned(user: User) -> list[Workspace]:
    """Returns the workspaces that the person owns and that are still there."""
    with scope.person(user):
        mine = Membership.objects.filter(user=user, role=Role.OWNER, workspace__deleted_at=None)
        return [member.workspace for member in mine.select_related("workspace").order_by("workspace__name")]


def in_the_way(user: User) -> list[Workspace]:
    """Returns the shared workspaces that have to be handed over or deleted first, because others work there."""
    return [
        workspace
        for workspace in owned(user)
        if not workspace.is_personal and not workspace.is_closing and _has_others(workspace, user)
    ]


def _has_others(workspace: Workspace, user: User) -> bool:
    with scope.inside(workspace):
        return Membership.objects.for_workspace(workspace).exclude(user=user).exists()


@transaction.atomic
def close(user: User, *, session_key: str | None = None) -> None:
    """Closes an account: all its sessions but this one end, its own workspaces close, a mail says how to undo it.

    Raises `Refused` while others work in a workspace that the person owns.
    """
    locked = User.objects.select_for_update().get(pk=user.pk)
    if locked.is_closing:
        return
    if obstacles := in_the_way(locked):
        names = ", ".join(workspace.name for workspace in obstacles)
        raise Refused(_("Others work in %(names)s. Hand it over or delete it first.") % {"names": names})
    moment = timezone.now() + GRACE
    for workspace in owned(locked):
        if not workspace.is_closing:
            with scope.inside(workspace):
                workspaces.schedule_deletion(workspace, actor=locked)
            # The same moment, by which `keep` knows which ones closed with the account.
            Workspace.objects.filter(pk=workspace.pk).update(delete_after=moment)
    User.objects.filter(pk=user.pk).update(delete_after=moment)
    user.delete_after = moment
    _end_sessions(user, but=session_key)
    ring(Doorbell.MAIL_CLOSING, user_id=user.pk)


@transaction.atomic
def keep(user: User) -> None:
    """Takes the closing back: the account and what closed with it are as before."""
    locked = User.objects.select_for_update().get(pk=user.pk)
    if not locked.is_closing or locked.deleted_at:
        return
    for workspace in owned(locked):
        if workspace.delete_after == locked.delete_after:
            with scope.inside(workspace):
                workspaces.undo_deletion(workspace, actor=locked)
    User.objects.filter(pk=user.pk).update(delete_after=None, closing_mailed_at=None)
    user.delete_after = None


def _end_sessions(user: User, *, but: str | None) -> None:
    for session in UserSession.objects.filter(user=user):
        if session.session_key != but:
            session.end()


# --- The end ------------------------------------------------------------------------------------------------


def delete_due() -> None:
    """Deletes the accounts whose grace period is over. The workspaces that close with them were purged before."""
    for user in User.objects.filter(delete_after__lte=timezone.now(), deleted_at=None):
        if not _delete(user):
            continue
        try:  # The row knows the address no more; this object still does.
            mails.send(user, _("Your account is deleted"), "accounts/mail/deleted.txt", {})
        except OSError:
            # The promise is that nothing is kept, the address to try again neither.
            logger.warning("farewell not sent", exc_info=True)


@transaction.atomic
def _delete(user: User) -> bool:
    now = timezone.now()
    # Conditional: the person may have taken it back a moment ago.
    still = User.objects.filter(pk=user.pk, delete_after__lte=now, deleted_at=None)
    if not still.update(
        deleted_at=now,
        email=f"deleted-{user.pk}@deleted.invalid",
        password=make_password(None),
        **dict.fromkeys(("first_name", "last_name", "time_zone", "language"), ""),
        **dict.fromkeys(("is_active", "is_staff", "is_superuser"), False),
        **dict.fromkeys(("mail_on_success", "mail_on_failure", "mail_on_expiry"), False),
        last_workspace=None,
    ):
        return False
    with scope.across_workspaces():
        for member in Membership.objects.filter(user=user).select_related("workspace"):
            _take_out(member)
        Invitation.objects.filter(email__iexact=user.email).delete()
        account_deleted.send(sender=User, user=user)
    _end_sessions(user, but=None)
    for model in (EmailAddress, SocialAccount, Authenticator, UserSession):
        model.objects.filter(user=user).delete()
    return True


def _take_out(member: Membership) -> None:
    with scope.inside(member.workspace):
        if member.is_owner:
            member.delete()  # of a workspace that is being purged: nobody is left to hand it to
        else:
            members.leave(member)


# --- Mail ---------------------------------------------------------------------------------------------------


def ring_again() -> None:
    """Rings for mails that a lost ring or a mail server has left unsent."""
    for user in _unmailed():
        ring(Doorbell.MAIL_CLOSING, user_id=user.pk)


def _unmailed() -> QuerySet[User]:
    return User.objects.filter(deleted_at=None, closing_mailed_at=None).exclude(delete_after=None)


def mail_closing(user_id: int | str) -> None:
    """Mails when a closed account is deleted, and the way back, once.

    The row is claimed before the mail leaves; when the mail server refuses, the claim is given back.
    """
    if not _unmailed().filter(pk=user_id).update(closing_mailed_at=timezone.now()):
        return
    user = User.objects.get(pk=user_id)
    link = f"{settings.SITE_URL}{reverse('account-delete')}"
    try:
        mails.send(user, _("Your account will be deleted"), "accounts/mail/closing.txt", {"link": link})
    except OSError:
        User.objects.filter(pk=user_id).update(closing_mailed_at=None)
        raise
