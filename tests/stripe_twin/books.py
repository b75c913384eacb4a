"""What the twin knows: its objects, what can happen to them, and the events that tell of it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import stripe

from tests.stripe_twin.shapes import honest

Thing = dict[str, Any]

#: Stripe's own test numbers, and what happens to them: with the person there, and later without.
CARDS = {
    "4242424242424242": ("pays", "pays"),
    "4000000000000002": ("declined", "declined"),
    "4000000000000341": ("pays", "declined"),
    "4000002500003155": ("pays", "asks"),
    "000123456789": ("waits", "waits"),
}


class Refused(Exception):
    """An error answer, as Stripe writes them."""

    def __init__(self, status: int, kind: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"type": kind, "message": message, **more}}


class Books:
    """Objects by id, and every event in the order in which it happened."""

    def __init__(self, url: str = "") -> None:
        self.url = url
        self.things: dict[str, Thing] = {}
        self.cards: dict[str, str] = {}
        self.events: list[Thing] = []
        #: By idempotency key: what was sent with it, and what was answered.
        self.answers: dict[str, tuple[Thing, Any]] = {}
        self.on_event: Callable[[Thing], None] = lambda event: None
        self._numbers = itertools.count(1)

    def forget(self) -> None:
        """Begins anew."""
        for kept in (self.things, self.cards, self.events, self.answers):
            kept.clear()  # type: ignore[attr-defined]

    def add(self, shape: type, prefix: str, **values: Any) -> Thing:
        """Keeps a new object, with the fields that every one has."""
        number = next(self._numbers)
        thing = {
            "id": f"{prefix}_{number:04d}",
            "object": shape.OBJECT_NAME,  # type: ignore[attr-defined]
            "created": int(time.time()),
            **values,
        }
        if "livemode" in shape.__annotations__:  # not every object says so, such as a refund
            thing["livemode"] = False
        self.things[thing["id"]] = honest(shape, thing)
        return thing

    def get(self, thing_id: str) -> Thing:
        """Returns an object; 404 as Stripe says it."""
        try:
            return self.things[thing_id]
        except KeyError:
            message = f"No such object: '{thing_id}'"
            raise Refused(404, "invalid_request_error", message, code="resource_missing") from None

    def all(self, kind: str) -> list[Thing]:
        """Returns the objects of a kind, newest first."""
        return [thing for thing in reversed(self.things.values()) if thing["object"] == kind]

    def tell(self, kind: str, thing: Thing) -> Thing:
        """Records that something happened to an object, with the object as it is now."""
        event = self.add(
            stripe.Event,
            "evt",
            type=kind,
            api_version=stripe.api_version,
            data={"object": deepcopy(thing)},
            pending_webhooks=1,
            request=None,
        )
        self.events.append(event)
        self.on_event(event)
        return event

    # --- What people do -------------------------------------------------------------------------------------

    def pay_checkout(self, session: Thing, number: str) -> str:
        """Pays a session with a card; returns what happened."""
        if session["status"] != "open":
            return "over"
        outcome = CARDS.get(number, ("declined", "declined"))[0]
        payment = (
            self.get(session["payment_intent"]) if session["payment_intent"] else self._payment_of(session)
        )
        card = self.add(stripe.PaymentMethod, "pm", type="card", customer=session["customer"], metadata={})
        self.cards[card["id"]] = number
        if outcome == "declined":
            del self.things[card["id"]]
            self._decline(payment, "card_declined")
            return outcome
        payment["payment_method"] = card["id"]
        session["status"] = "complete"
        session["url"] = None
        if outcome == "waits":
            payment["status"] = "processing"
            self.tell("payment_intent.processing", payment)
            self.tell("checkout.session.completed", session)
            return outcome
        self._succeed(payment)
        self._finish(session)
        self.tell("checkout.session.completed", session)
        return outcome

    def settle(self, payment_id: str, *, pays: bool) -> None:
        """Ends a payment that takes days."""
        payment = self.get(payment_id)
        sessions = [s for s in self.all("checkout.session") if s["payment_intent"] == payment_id]
        if pays:
            self._succeed(payment)
        else:
            self._decline(payment, "debit_not_authorized")
        for session in sessions:  # one that was begun without the person has none
            if pays:
                self._finish(session)
            self.tell(f"checkout.session.async_payment_{'succeeded' if pays else 'failed'}", session)

    def expire(self, session: Thing) -> None:
        """Ends a session that nobody paid."""
        session.update(status="expired", url=None)
        self.tell("checkout.session.expired", session)

    def charge(self, payment: Thing, number: str) -> None:
        """Confirms a payment without the person."""
        outcome = CARDS[number][1]
        if outcome == "pays":
            self._succeed(payment)
            return
        if outcome == "waits":
            payment["status"] = "processing"
            self.tell("payment_intent.processing", payment)
            return
        code = "authentication_required" if outcome == "asks" else "card_declined"
        self._decline(payment, code)
        raise Refused(402, "card_error", "The card was not charged.", code=code, payment_intent=payment)

    def refund(self, payment_id: str, amount: int | None = None) -> Thing:
        """Gives a payment back, or a part of it."""
        charge = self._charge_of(payment_id)
        left = charge["amount"] - charge["amount_refunded"]
        amount = left if amount is None else amount
        if not 0 < amount <= left:
            raise Refused(400, "invalid_request_error", f"Refund amount is greater than {left}")
        charge["amount_refunded"] += amount
        charge["refunded"] = charge["amount_refunded"] == charge["amount"]
        refund = self.add(
            stripe.Refund,
            "re",
            amount=amount,
            currency=charge["currency"],
            charge=charge["id"],
            payment_intent=payment_id,
            status="succeeded",
            metadata={},
        )
        self.tell("refund.created", refund)
        self.tell("charge.refunded", charge)
        return refund

    def dispute(self, payment_id: str, amount: int | None = None, status: str = "needs_response") -> Thing:
        """Has the bank take a payment back."""
        charge = self._charge_of(payment_id)
        charge["disputed"] = True
        dispute = self.add(
            stripe.Dispute,
            "du",
            amount=amount or charge["amount"],
            currency=charge["currency"],
            charge=charge["id"],
            payment_intent=payment_id,
            reason="fraudulent",
            status=status,
            metadata={},
        )
        self.tell("charge.dispute.created", dispute)
        if not status.startswith("warning"):
            self.tell("charge.dispute.funds_withdrawn", dispute)
        return dispute

    def close_dispute(self, dispute: Thing, status: str) -> None:
        """Decides a dispute: won, lost or warning_closed."""
        honest(stripe.Dispute, {**dispute, "status": status})
        dispute["status"] = status
        self.tell("charge.dispute.closed", dispute)
        if status == "won":
            self.tell("charge.dispute.funds_reinstated", dispute)

    # --- Inside ---------------------------------------------------------------------------------------------

    def payment(self, *, amount: int, currency: str, customer: str, metadata: dict[str, str]) -> Thing:
        """Begins a payment."""
        return self.add(
            stripe.PaymentIntent,
            "pi",
            amount=amount,
            amount_received=0,
            currency=currency,
            customer=customer,
            metadata=dict(metadata),
            latest_charge=None,
            last_payment_error=None,
            payment_method=None,
            status="requires_payment_method",
        )

    def _payment_of(self, session: Thing) -> Thing:
        payment = self.payment(
            amount=session["amount_total"],
            currency=session["currency"],
            customer=session["customer"],
            metadata=session["metadata"],
        )
        session["payment_intent"] = payment["id"]
        return payment

    def _succeed(self, payment: Thing) -> None:
        charge = self.add(
            stripe.Charge,
            "ch",
            amount=payment["amount"],
            amount_refunded=0,
            currency=payment["currency"],
            customer=payment["customer"],
            disputed=False,
            metadata=dict(payment["metadata"]),
            paid=True,
            payment_intent=payment["id"],
            receipt_url="",
            refunded=False,
            status="succeeded",
        )
        charge["receipt_url"] = f"{self.url}/receipts/{charge['id']}"
        payment.update(
            status="succeeded",
            amount_received=payment["amount"],
            latest_charge=charge["id"],
            last_payment_error=None,
        )
        self.tell("charge.succeeded", charge)
        self.tell("payment_intent.succeeded", payment)

    def _finish(self, session: Thing) -> None:
        session["payment_status"] = "paid"
        invoice = self.add(
            stripe.Invoice,
            "in",
            customer=session["customer"],
            currency=session["currency"],
            amount_paid=session["amount_total"],
            hosted_invoice_url="",
            metadata=dict(session["metadata"]),
            status="paid",
        )
        invoice["hosted_invoice_url"] = f"{self.url}/invoices/{invoice['id']}"
        session["invoice"] = invoice["id"]
        self.tell("invoice.paid", invoice)

    def _decline(self, payment: Thing, code: str) -> None:
        payment.update(
            status="requires_payment_method", last_payment_error={"type": "card_error", "code": code}
        )
        self.tell("payment_intent.payment_failed", payment)

    def _charge_of(self, payment_id: str) -> Thing:
        charge_id = self.get(payment_id)["latest_charge"]
        if not charge_id:
            raise Refused(
                400, "invalid_request_error", "This PaymentIntent does not have a successful charge."
            )
        return self.get(charge_id)
