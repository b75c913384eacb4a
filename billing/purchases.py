"""Purchases: begin one, and bring it up to date with Stripe.

What an event says is never believed, only that something happened: the purchase's Checkout session and payment
are read again from Stripe, and the ledger is moved to where they stand. So events may come late, twice, in any
order, or not at all. Readings are numbered when they begin, and a reading that began before the last applied one
is dropped: it may be older, and what came after it is applied already.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.urls import reverse
from django.utils import timezone

from accounts import audit
from accounts.audit import Deed
from accounts.models import User, Workspace
from billing import ledger, packs, stripe_client
from billing.doorbells import Doorbell, ring
from billing.models import BillingAccount, CreditPack, Purchase, StripeEvent
from billing.pricing import returned_credits

Status = Purchase.Status


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What Stripe says about a purchase at one moment."""

    number: int
    checkout: stripe_client.Checkout | None
    payment: stripe_client.Payment | None

    @property
    def payment_key(self) -> str:
        """The id that names the payment in the ledger; a purchase for nothing has only its session."""
        return self.payment.id if self.payment else self.checkout.id if self.checkout else ""

    @property
    def status(self) -> Purchase.Status:
        """What became of the purchase."""
        payment, checkout = self.payment, self.checkout
        if payment and payment.status == "succeeded":
            return Status.PAID
        if checkout and checkout.status == "complete" and checkout.payment_status == "no_payment_required":
            return Status.PAID
        if checkout and checkout.status == "expired":
            return Status.EXPIRED
        if payment and payment.status == "processing":
            return Status.PROCESSING
        if checkout and checkout.status == "open":
            return Status.OPEN
        # The session is over, or there was none: what is not paid now has failed.
        return Status.FAILED if payment else Status.OPEN


def account_of(workspace: Workspace) -> BillingAccount:
    """Returns how a workspace pays; makes it on the first call."""
    return BillingAccount.objects.get_or_create(workspace=workspace)[0]


def save_top_up(account: BillingAccount, *, ceiling_cents: int) -> None:
    """Saves what was chosen for automatic top-up, and looks at the balance by it.

    Declines count from here: who saves has looked at the card.
    """
    account.top_up_ceiling_cents = ceiling_cents
    account.top_up_since = timezone.now()
    with transaction.atomic():
        account.save()
        audit.record(
            workspace=account.workspace,
            deed=Deed.TOP_UP_CHANGED,
            is_on=account.top_up_enabled,
            below=account.top_up_threshold,
            pack=str(account.top_up_pack or ""),
            most_cents_a_month=ceiling_cents,
        )
        ring(Doorbell.WATCH_BALANCE, workspace_id=account.workspace_id)


def customer_of(workspace: Workspace, *, email: str) -> str:
    """Returns the workspace's customer at Stripe; makes it on the first call."""
    account = account_of(workspace)
    if not account.stripe_customer_id:
        account.stripe_customer_id = stripe_client.create_customer(
            name=workspace.name, email=email, workspace_id=str(workspace.pk)
        )
        account.save(update_fields=["stripe_customer_id"])
    return account.stripe_customer_id


def new_purchase(*, workspace: Workspace, pack: CreditPack, **values: object) -> Purchase:
    """Saves the intention to buy a pack, before Stripe hears of it."""
    return Purchase.objects.create(
        workspace=workspace,
        pack=pack,
        credits=pack.credits,
        bonus_credits=pack.bonus_credits,
        price_cents=pack.price_cents,
        currency=pack.currency,
        **values,
    )


def facts(purchase: Purchase) -> dict[str, str]:
    """Returns what Stripe keeps with a payment, so that the purchase can be made again from it."""
    return {
        "purchase": str(purchase.pk),
        "workspace": str(purchase.workspace_id),
        "credits": str(purchase.credits),
        "bonus_credits": str(purchase.bonus_credits),
    }


def begin_checkout(*, workspace: Workspace, user: User, pack: CreditPack, return_path: str) -> str:
    """Begins a purchase and returns the address of Stripe's page for it.

    Raises `stripe_client.StripeProblem`; then the purchase stays open and expires.
    """
    try:
        return _begin_checkout(workspace=workspace, user=user, pack=pack, return_path=return_path)
    except stripe_client.NotAtStripe:
        # Customer, product or price are of another account, such as that of the tests: they are made anew.
        BillingAccount.objects.for_workspace(workspace).update(stripe_customer_id="")
        packs.forget(pack)
        return _begin_checkout(workspace=workspace, user=user, pack=pack, return_path=return_path)


def _begin_checkout(*, workspace: Workspace, user: User, pack: CreditPack, return_path: str) -> str:
    customer_id = customer_of(workspace, email=user.email)
    price_id = packs.synchronise(pack)
    with transaction.atomic():
        purchase = new_purchase(workspace=workspace, pack=pack, created_by=user, return_path=return_path)
        audit.record(
            workspace=workspace,
            deed=Deed.PURCHASE_BEGUN,
            subject=pack.name,
            cents=pack.price_cents,
            actor=user,
        )
    here = f"{settings.SITE_URL}{reverse('purchase-detail', args=[workspace.slug, purchase.pk])}"
    session = stripe_client.create_checkout(
        purchase_id=str(purchase.pk),
        customer_id=customer_id,
        price_id=price_id,
        success_url=here,
        cancel_url=f"{settings.SITE_URL}{return_path or reverse('credit-buy', args=[workspace.slug])}",
        metadata=facts(purchase),
    )
    Purchase.objects.filter(pk=purchase.pk).update(stripe_session_id=session.id)
    return session.url


# --- Bringing up to date ------------------------------------------------------------------------------------


def refresh(
    purchase: Purchase, *, session_id: str = "", payment_id: str = "", event: StripeEvent | None = None
) -> None:
    """Reads a purchase from Stripe and applies what it says, with the event that asked for it.

    Raises `stripe_client.StripeProblem`; then nothing was applied.
    """
    reading = _read(purchase, session_id=session_id, payment_id=payment_id)
    if reading.payment_key:
        apply(purchase.pk, reading, event=event)
    elif event is not None:
        mark_applied(event)


def _read(purchase: Purchase, *, session_id: str, payment_id: str) -> Reading:
    mine = Purchase.objects.filter(pk=purchase.pk)
    mine.update(readings_begun=F("readings_begun") + 1)
    purchase.refresh_from_db()
    session_id = purchase.stripe_session_id or session_id
    checkout = stripe_client.read_checkout(session_id) if session_id else None
    payment_id = purchase.stripe_payment_id or payment_id or (checkout.payment_id if checkout else "")
    payment = stripe_client.read_payment(payment_id) if payment_id else None
    return Reading(number=purchase.readings_begun, checkout=checkout, payment=payment)


@transaction.atomic
def apply(purchase_id: UUID, reading: Reading, *, event: StripeEvent | None = None) -> None:
    """Moves a purchase and the ledger to where Stripe stands, and marks the event, all or nothing."""
    if event is not None and not mark_applied(event):
        return
    purchase = Purchase.objects.select_for_update().select_related("workspace").get(pk=purchase_id)
    if reading.number <= purchase.reading_applied:
        return
    purchase.reading_applied = reading.number
    if purchase.status != Status.PAID:
        _take_status(purchase, reading)
    if purchase.status == Status.PAID:
        _receive(purchase, reading)
        _follow_returns(purchase, reading)
    purchase.save()


def mark_applied(event: StripeEvent) -> bool:
    """Marks an event in the transaction that applies it; False when another process did so first."""
    waiting = StripeEvent.objects.filter(pk=event.pk, applied_at=None)
    return waiting.update(applied_at=timezone.now(), error="") == 1


def _take_status(purchase: Purchase, reading: Reading) -> None:
    # That the bank asks for the person is known from its answer to us; Stripe's status is that of a decline.
    if not (purchase.status == Status.NEEDS_PERSON and reading.status == Status.FAILED):
        purchase.status = reading.status
    if reading.checkout:
        purchase.stripe_session_id = reading.checkout.id
    if reading.payment:
        purchase.stripe_payment_id = reading.payment.id


def _receive(purchase: Purchase, reading: Reading) -> None:
    if purchase.paid_at is None:
        purchase.paid_at = timezone.now()
        audit.record(
            workspace=purchase.workspace,
            deed=Deed.PURCHASED,
            subject=purchase.pack.name if purchase.pack else "",
            actor=purchase.created_by,
            credits=purchase.total_credits,
            is_top_up=purchase.is_top_up,
        )
    if reading.payment:
        purchase.paid_cents = reading.payment.paid
        purchase.receipt_url = reading.payment.receipt_url
    if reading.checkout and reading.checkout.invoice_url:
        purchase.invoice_url = reading.checkout.invoice_url
    ledger.purchase(
        workspace=purchase.workspace,
        credits=purchase.credits,
        bonus=purchase.bonus_credits,
        key=f"stripe:{reading.payment_key}",
        reference=purchase.reference,
    )


def _follow_returns(purchase: Purchase, reading: Reading) -> None:
    """Takes back what went with refunds and disputes so far, or gives again what came back."""
    if reading.payment is None:
        return
    purchase.returned_cents = min(reading.payment.returned, reading.payment.paid)
    target = returned_credits(
        credits=purchase.total_credits, paid=reading.payment.paid, returned=reading.payment.returned
    )
    change = target - purchase.reversed_credits
    if change == 0:
        return
    if change > 0:
        purchase.returned_at = timezone.now()
    purchase.num_reversals += 1
    purchase.reversed_credits = target
    key = f"stripe:{reading.payment_key}:reversal:{purchase.num_reversals}"
    move = ledger.take_back if change > 0 else ledger.reinstate
    move(workspace=purchase.workspace, credits=abs(change), key=key, reference=purchase.reference)


def known_by(metadata: dict[str, str]) -> Purchase | None:
    """Returns the purchase that a payment's metadata names; made again from it when our row is lost.

    None for payments that are not for credits of this site.
    """
    try:
        purchase_id, workspace_id = UUID(metadata["purchase"]), UUID(metadata["workspace"])
        credits, bonus = int(metadata["credits"]), int(metadata["bonus_credits"])
    except (KeyError, ValueError):
        return None
    workspace = Workspace.objects.filter(pk=workspace_id).first()
    if workspace is None:
        return None
    values = {"workspace": workspace, "credits": credits, "bonus_credits": bonus}
    defaults = values | {"price_cents": 0, "currency": "usd"}
    return Purchase.objects.get_or_create(pk=purchase_id, defaults=defaults)[0]


def refresh_forgotten(*, before: datetime) -> None:
    """Asks Stripe for purchases that were begun before a moment and of which nothing was heard."""
    forgotten = Purchase.objects.pending().filter(created_at__lt=before, is_top_up=False)
    # Without a session Stripe never heard of it, or will tell by a webhook.
    forgotten.filter(stripe_session_id="", stripe_payment_id="").update(status=Status.EXPIRED)
    for purchase in forgotten.exclude(stripe_session_id="", stripe_payment_id=""):
        try:
            refresh(purchase)
        except stripe_client.NotAtStripe:
            # Begun with the key of another account, such as that of the tests before the first sale.
            Purchase.objects.pending().filter(pk=purchase.pk).update(status=Status.EXPIRED)
