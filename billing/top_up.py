"""Automatic top-up, and the mail that says credits run low.

A purchase's row is the intention: it is saved before Stripe is asked, and its id is the idempotency key, so a crash
or a lost answer leads to the same payment. How often a card was declined is counted from the rows, too.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.db import transaction
from django.db.models import Q, Sum
from django.utils import timezone

from accounts import audit
from accounts.audit import Deed
from accounts.models import Workspace
from billing import ledger, notifications, purchases, stripe_client
from billing.doorbells import Doorbell, ring
from billing.models import BillingAccount, Purchase

MAX_DECLINES: Final = 3
#: After a first and a second decline the next try waits: a card that is empty now may be filled tomorrow.
_PAUSES: Final = (timedelta(0), timedelta(hours=6), timedelta(hours=24))
_FOR_PERSON: Final = timedelta(days=7)
#: A top-up whose answer was lost is asked for again after this long.
_ANSWER_LOST: Final = timedelta(minutes=1)

Status = Purchase.Status


def watch(workspace_id: UUID | str, *, now: datetime | None = None) -> None:
    """Looks at a balance that changed: mails once when it crosses one mark, tops it up below another."""
    workspace = Workspace.objects.get(pk=workspace_id)
    purchases.account_of(workspace)
    _watch_low_mark(workspace)
    if stripe_client.is_configured():
        _stop(workspace)
        purchase = _begin(workspace, now or timezone.now())
        if purchase is not None:
            _pay(purchase)
            _stop(workspace)


def _watch_low_mark(workspace: Workspace) -> None:
    account = purchases.account_of(workspace)
    is_low = ledger.balance(workspace) < account.low_credits
    # Who turns the switch is the one that mails.
    turned = BillingAccount.objects.for_workspace(workspace).filter(is_low=not is_low).update(is_low=is_low)
    if turned and is_low:
        try:
            notifications.mail_low_balance(workspace)
        except OSError:  # smtplib's exceptions are OSErrors too
            BillingAccount.objects.for_workspace(workspace).update(is_low=False)
            raise


# --- Switching off ------------------------------------------------------------------------------------------


def _stop(workspace: Workspace) -> None:
    """Switches automatic top-up off when it must not go on, whenever Stripe has told that."""
    account = purchases.account_of(workspace)
    if not account.top_up_enabled:
        return
    if returned := _returned(account):
        _switch_off(account, returned, notifications.mail_top_up_returned)
    elif len(declined := _declined(account)) >= MAX_DECLINES:
        _switch_off(account, declined[0], notifications.mail_top_up_off)


def _returned(account: BillingAccount) -> Purchase | None:
    """Returns a top-up whose money went back since it was switched on: buying again would take it once more."""
    mine = Purchase.objects.for_workspace(account.workspace).filter(is_top_up=True, returned_at__isnull=False)
    return mine.filter(returned_at__gt=account.top_up_since).first() if account.top_up_since else mine.first()


def _switch_off(account: BillingAccount, purchase: Purchase, tell: Callable[[Purchase], None]) -> None:
    """Switches automatic top-up off because of a purchase; who does so is the one that mails."""
    mine = BillingAccount.objects.filter(pk=account.pk)
    if not mine.filter(top_up_enabled=True).update(top_up_enabled=False):
        return
    try:
        tell(purchase)
    except OSError:  # smtplib's exceptions are OSErrors too
        # The next look begins here, before anything is bought.
        mine.filter(top_up_since=account.top_up_since).update(top_up_enabled=True)
        raise
    with transaction.atomic():
        audit.record(workspace=purchase.workspace, deed=Deed.TOP_UP_CHANGED, is_on=False)


# --- Topping up ---------------------------------------------------------------------------------------------


@transaction.atomic
def _begin(workspace: Workspace, now: datetime) -> Purchase | None:
    """Returns the top-up to pay for now, saved; None when none is due."""
    workspace = Workspace.objects.select_for_update(no_key=True).get(pk=workspace.pk)  # one top-up at a time
    account = purchases.account_of(workspace)
    mine = Purchase.objects.for_workspace(workspace).filter(is_top_up=True)
    lost = mine.pending().first()
    if lost is not None:
        return lost if lost.created_at < now - _ANSWER_LOST else None
    if workspace.is_closing or not account.top_up_enabled or account.top_up_pack is None:
        return None
    if ledger.balance(workspace) >= account.top_up_threshold or _waits_for_person(workspace, now):
        return None
    declined = _declined(account)
    if declined and now < declined[0].created_at + _PAUSES[min(len(declined), MAX_DECLINES - 1)]:
        return None
    if _spent_this_month(workspace, now) + account.top_up_pack.price_cents > account.top_up_ceiling_cents:
        return None
    return purchases.new_purchase(
        workspace=workspace, pack=account.top_up_pack, is_top_up=True, created_at=now
    )


def _waits_for_person(workspace: Workspace, now: datetime) -> bool:
    asked = Purchase.objects.for_workspace(workspace).filter(
        status=Status.NEEDS_PERSON, created_at__gt=now - _FOR_PERSON
    )
    last = asked.order_by("-created_at").first()
    return last is not None and not _paid_since(workspace, last.created_at)


def _paid_since(workspace: Workspace, moment: datetime) -> bool:
    return Purchase.objects.for_workspace(workspace).filter(paid_at__gt=moment).exists()


def _declined(account: BillingAccount) -> list[Purchase]:
    """Returns the top-ups declined in a row, newest first: since it was switched on or anything was paid."""
    mine = Purchase.objects.for_workspace(account.workspace)
    paid = mine.filter(paid_at__isnull=False).order_by("-paid_at").first()
    failed = mine.filter(is_top_up=True, status=Status.FAILED)
    if account.top_up_since:
        failed = failed.filter(created_at__gte=account.top_up_since)
    if paid and paid.paid_at:
        failed = failed.filter(created_at__gt=paid.paid_at)
    return list(failed.order_by("-created_at"))


def _spent_this_month(workspace: Workspace, now: datetime) -> int:
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    counted = Purchase.objects.for_workspace(workspace).filter(
        Q(status=Status.PAID) | Q(status__in=Purchase.PENDING), is_top_up=True, created_at__gte=first
    )
    return counted.aggregate(total=Sum("price_cents"))["total"] or 0


def _pay(purchase: Purchase) -> None:
    if purchase.stripe_payment_id:
        # On its way for days, as debits are. Stripe forgets the key after one: asked again, it would pay once more.
        purchases.refresh(purchase)
        return
    account = purchases.account_of(purchase.workspace)
    try:
        payment = stripe_client.charge_saved_card(
            purchase_id=str(purchase.pk),
            customer_id=account.stripe_customer_id,
            cents=purchase.price_cents,
            currency=purchase.currency,
            metadata=purchases.facts(purchase),
        )
    except stripe_client.AuthenticationRequired:
        _ask_person(purchase)
    except (stripe_client.Declined, stripe_client.StripeRefused):
        Purchase.objects.pending().filter(pk=purchase.pk).update(status=Status.FAILED)
    else:
        # The webhook may come first, or never: both ways lead through the same door.
        purchases.refresh(purchase, payment_id=payment.id)


def _ask_person(purchase: Purchase) -> None:
    waiting = Purchase.objects.filter(pk=purchase.pk, status__in=(*Purchase.PENDING, Status.FAILED))
    if waiting.update(status=Status.NEEDS_PERSON):
        try:
            notifications.mail_bank_asks(purchase)
        except OSError:  # smtplib's exceptions are OSErrors too; Stripe gives the same answer to the same key
            Purchase.objects.filter(pk=purchase.pk).update(status=Status.OPEN)
            raise


def ring_again() -> None:
    """Rings for workspaces whose balance is to be looked at although nothing rang."""
    watched = BillingAccount.objects.filter(Q(top_up_enabled=True) | Q(is_low=True))
    for account in watched:
        ring(Doorbell.WATCH_BALANCE, workspace_id=account.workspace_id)
    for purchase in Purchase.objects.pending().filter(is_top_up=True):
        ring(Doorbell.WATCH_BALANCE, workspace_id=purchase.workspace_id)
