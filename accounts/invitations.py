"""Invite people by mail, accept, send again, take back.

The link in the mail is a signature over the invitation's id, so nothing that opens a workspace lies in the database.
Whoever holds the link may accept it once, with any account. Nothing here tells whether an address has one.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from allauth.account.models import EmailAddress
from django.conf import settings
from django.core import signing
from django.core.mail import send_mail
from django.db import transaction
from django.db.models.functions import Lower
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts import audit, members, scope
from accounts.audit import Deed
from accounts.doorbells import Doorbell, ring
from accounts.models import Invitation, Membership, User, Workspace

LIFETIME: Final = timedelta(days=7)
#: A mail again at most this often, and not more open invitations than this: nobody's mailbox is flooded from here.
PAUSE: Final = timedelta(minutes=2)
MAX_OPEN: Final = 50

_signer = signing.Signer(salt="invitations")


class Refused(ValueError):
    """Somebody cannot be invited like this, or not now; the message is for the person."""


@transaction.atomic
def invite(*, workspace: Workspace, email: str, role: str, by: User) -> Invitation:
    """Offers a seat to an address and mails the link on commit. Raises `Refused`."""
    Workspace.objects.select_for_update(no_key=True).get(pk=workspace.pk)
    mine = Invitation.objects.for_workspace(workspace)
    if Membership.objects.for_workspace(workspace).filter(user__email__iexact=email).exists():
        raise Refused(_("%(email)s is a member already.") % {"email": email})
    # One that has expired makes room for a new one.
    mine.filter(
        email__iexact=email, accepted_at=None, revoked_at=None, expires_at__lte=timezone.now()
    ).delete()
    if mine.open().filter(email__iexact=email).exists():
        raise Refused(_("%(email)s is invited already. You can send the mail again.") % {"email": email})
    # One that was taken back, or used, has its mail in the mailbox all the same.
    if mine.filter(email__iexact=email, mailed_at__gt=timezone.now() - PAUSE).exists():
        raise Refused(_("The mail was sent a moment ago. Please wait two minutes."))
    if mine.open().count() >= MAX_OPEN:
        raise Refused(_("%(n)s invitations are open. Take some back first.") % {"n": MAX_OPEN})
    invitation = Invitation.objects.create(
        workspace=workspace, email=email, role=role, invited_by=by, expires_at=timezone.now() + LIFETIME
    )
    audit.record(workspace=workspace, deed=Deed.INVITED, subject=email, role=role)
    ring(Doorbell.MAIL_INVITATION, invitation_id=invitation.pk)
    return invitation


@transaction.atomic
def send_again(invitation: Invitation) -> None:
    """Mails the link once more and lets it live longer. Raises `Refused`."""
    invitation = (
        Invitation.objects.select_for_update(of=("self",)).select_related("workspace").get(pk=invitation.pk)
    )
    if invitation.accepted_at or invitation.revoked_at:
        raise Refused(_("This invitation is not open any more."))
    now = timezone.now()
    if invitation.mailed_at is not None and invitation.mailed_at > now - PAUSE:
        raise Refused(_("The mail was sent a moment ago. Please wait two minutes."))
    Invitation.objects.filter(pk=invitation.pk).update(mailed_at=None, expires_at=now + LIFETIME)
    audit.record(workspace=invitation.workspace, deed=Deed.INVITED_AGAIN, subject=invitation.email)
    ring(Doorbell.MAIL_INVITATION, invitation_id=invitation.pk)


@transaction.atomic
def revoke(invitation: Invitation) -> None:
    """Takes an invitation back: its link does nothing any more."""
    still_open = Invitation.objects.filter(pk=invitation.pk, accepted_at=None, revoked_at=None)
    if still_open.update(revoked_at=timezone.now()):
        audit.record(workspace=invitation.workspace, deed=Deed.INVITATION_REVOKED, subject=invitation.email)


def token_of(invitation: Invitation) -> str:
    """Returns what the link of an invitation ends with."""
    return _signer.sign(str(invitation.pk))


def find(token: str) -> Invitation | None:
    """Returns the open invitation of a link, or None: unknown, too old, used and revoked ones look the same."""
    try:
        invitation_id = _signer.unsign(token)
    except signing.BadSignature:
        return None
    found = Invitation.objects.open().select_related("workspace", "invited_by")
    return found.filter(pk=invitation_id, workspace__delete_after=None).first()


def waiting_for(user: User) -> Invitation | None:
    """Returns the newest open invitation to an address that this person has proved to read."""
    proved = EmailAddress.objects.filter(user=user, verified=True).values(lower=Lower("email"))
    found = Invitation.objects.open().filter(workspace__delete_after=None).annotate(lower=Lower("email"))
    with scope.across_workspaces():
        return found.filter(lower__in=proved).order_by("-created_at").first()


@transaction.atomic
def accept(invitation: Invitation, *, user: User) -> bool:
    """Makes the person a member and uses the invitation up; False when it was not open any more."""
    claimed = Invitation.objects.open().filter(pk=invitation.pk)
    if not claimed.update(accepted_at=timezone.now()):
        return False
    members.join(invitation.workspace, user, role=invitation.role)
    return True


# --- Mail ---------------------------------------------------------------------------------------------------


def mail(invitation_id: str) -> None:
    """Mails the link of an open invitation, once for each time that it was asked for.

    The row is claimed before the mail leaves; when the mail server refuses, the claim is given back.
    """
    claimed = Invitation.objects.open().filter(pk=invitation_id, mailed_at=None)
    if not claimed.update(mailed_at=timezone.now()):
        return
    invitation = Invitation.objects.select_related("workspace", "invited_by").get(pk=invitation_id)
    try:
        _mail(invitation)
    except OSError:  # smtplib's exceptions are OSErrors too
        Invitation.objects.filter(pk=invitation_id).update(mailed_at=None)
        raise


def _mail(invitation: Invitation) -> None:
    context = {
        "invitation": invitation,
        "workspace": invitation.workspace,
        "inviter": invitation.invited_by.email if invitation.invited_by else "",
        "link": f"{settings.SITE_URL}{reverse('invitation-detail', args=[token_of(invitation)])}",
        "product_name": settings.PRODUCT_NAME,
    }
    subject = _("You are invited to %(name)s") % {"name": invitation.workspace.name}
    text = render_to_string("accounts/mail/invitation.txt", context)
    send_mail(" ".join(subject.split()), text, None, [invitation.email])


def ring_again() -> None:
    """Rings for invitations whose mail was not sent."""
    forgotten = timezone.now() - timedelta(minutes=1)
    for invitation in Invitation.objects.open().filter(mailed_at=None, created_at__lt=forgotten):
        ring(Doorbell.MAIL_INVITATION, invitation_id=invitation.pk)
