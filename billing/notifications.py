"""Mails about credits, to those who may buy them."""

from __future__ import annotations

from django.conf import settings
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from accounts import mails
from accounts.models import User, Workspace
from accounts.permissions import Permission, roles_with
from billing import ledger
from billing.models import Purchase


def mail_low_balance(workspace: Workspace) -> None:
    """Mails that credits run low."""
    _mail(workspace, _("Your credits run low"), "billing/mail/low_balance.txt", n=ledger.balance(workspace))


def mail_bank_asks(purchase: Purchase) -> None:
    """Mails that an automatic purchase needs the person, with the link to it."""
    subject = _("Your bank asks you to confirm a payment")
    _mail(purchase.workspace, subject, "billing/mail/bank_asks.txt", purchase=purchase)


def mail_top_up_off(purchase: Purchase) -> None:
    """Mails that automatic top-up is off because the card was declined."""
    subject = _("Automatic top-up is off")
    _mail(purchase.workspace, subject, "billing/mail/top_up_off.txt", purchase=purchase)


def mail_top_up_returned(purchase: Purchase) -> None:
    """Mails that automatic top-up is off because the money of one went back."""
    subject = _("Automatic top-up is off")
    _mail(purchase.workspace, subject, "billing/mail/top_up_returned.txt", purchase=purchase)


def _mail(workspace: Workspace, subject: Promise, template: str, **context: object) -> None:
    link = f"{settings.SITE_URL}{reverse('credit-buy', args=[workspace.slug])}"
    context |= {"workspace": workspace, "link": link}
    owners = User.objects.filter(
        memberships__workspace=workspace, memberships__role__in=roles_with(Permission.BUY)
    )
    for owner in owners.distinct():
        mails.send(owner, subject, template, context)
