"""The inbox of Stripe's webhooks: verify, store under the event's unique id, apply once.

An event is answered when it is stored, not when it is applied. One that cannot be applied keeps its error and is
tried again by the sweep.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from billing import purchases, stripe_client
from billing.doorbells import Doorbell, ring
from billing.models import Purchase, StripeEvent

#: The objects whose events can change a purchase, and the field that holds their payment.
_PAYMENT_FIELD: Final = {
    "checkout.session": "payment_intent",
    "payment_intent": "id",
    "charge": "payment_intent",
    "refund": "payment_intent",
    "dispute": "payment_intent",
    "invoice": "",
}
#: After n tries the next one is due n² times this after the event came: often at first, then for three days.
_PATIENCE: Final = timedelta(seconds=2)
MAX_TRIES: Final = 360


@transaction.atomic
def receive(payload: bytes, signature: str) -> StripeEvent:
    """Stores a signed event, once however often it comes, and rings for it.

    Raises `stripe_client.BadSignature`.
    """
    content = stripe_client.read_event(payload, signature)
    event, _is_new = StripeEvent.objects.get_or_create(
        event_id=content["id"], defaults={"type": content["type"], "payload": content}
    )
    if event.applied_at is None:
        ring(Doorbell.APPLY_EVENT, event_id=event.pk)
    return event


def apply(event_id: int | str) -> None:
    """Applies an event unless that was done; any failure is kept on its row and goes on to the caller."""
    waiting = StripeEvent.objects.filter(pk=event_id, applied_at=None)
    event = waiting.first()
    if event is None:
        return
    waiting.update(num_tries=F("num_tries") + 1)
    try:
        _apply(event)
    except Exception as exc:
        waiting.update(error=f"{type(exc).__name__}: {exc}")
        raise


def _apply(event: StripeEvent) -> None:
    thing: dict[str, Any] = event.payload["data"]["object"]
    kind = thing["object"]
    purchase = None
    if kind in _PAYMENT_FIELD:
        payment_id = thing.get(_PAYMENT_FIELD[kind]) or ""
        purchase = _purchase(thing, payment_id)
    if purchase is None:
        purchases.mark_applied(event)
        return
    session_id = thing["id"] if kind == "checkout.session" else ""
    purchases.refresh(purchase, session_id=session_id, payment_id=payment_id, event=event)


def _purchase(thing: dict[str, Any], payment_id: str) -> Purchase | None:
    """Returns whose event this is: by what we wrote into its metadata, or by its payment."""
    named = purchases.known_by(thing.get("metadata") or {})
    if named is not None or not payment_id:
        return named
    known = Purchase.objects.filter(stripe_payment_id=payment_id).first()
    # A dispute may overtake its payment.
    return known or purchases.known_by(dict(stripe_client.read_payment(payment_id).metadata))


def ring_again() -> None:
    """Rings for events whose first ring was lost or whose application failed: an outage may last for hours."""
    now = timezone.now()
    for event in StripeEvent.objects.filter(applied_at=None, num_tries__lt=MAX_TRIES):
        if event.received_at + event.num_tries**2 * _PATIENCE <= now:
            ring(Doorbell.APPLY_EVENT, event_id=event.pk)
