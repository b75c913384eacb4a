"""The only file that imports stripe: every call to Stripe, with our values in and our values out.

Amounts are in the currency's smallest unit. Nothing here touches the database, so no call holds a lock.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, ParamSpec, TypeVar, cast

import stripe
from django.conf import settings

P = ParamSpec("P")
R = TypeVar("R")

_TIMEOUT_SECONDS: Final = 20
#: A dispute in one of these has taken the money; inquiries ("warning_...") and won disputes have not.
_MONEY_IS_GONE: Final = frozenset(
    {"needs_response", "under_review", "lost", "appeal_needs_response", "appeal_under_review"}
)


class StripeProblem(Exception):
    """Stripe could not do what was asked."""


class StripeUnavailable(StripeProblem):
    """Stripe did not answer, or had trouble of its own: the same request may be sent again."""


class StripeRefused(StripeProblem):
    """Stripe does not accept the request; sending it again does not help."""


class NotAtStripe(StripeRefused):
    """Stripe knows nothing by this id: it belongs to another account, or to the other mode of ours."""


class Declined(StripeProblem):
    """The bank did not pay."""


class AuthenticationRequired(Declined):
    """The bank wants to hear from the card's owner first."""


class BadSignature(StripeProblem):
    """A webhook was not signed with our secret, or too long ago."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Payment:
    """A payment as Stripe knows it now. `returned` is what refunds and disputes have taken of `paid`."""

    id: str
    status: str
    paid: int
    returned: int
    receipt_url: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkout:
    """A Checkout session as Stripe knows it now."""

    id: str
    status: str
    payment_status: str
    payment_id: str
    url: str
    invoice_url: str
    metadata: Mapping[str, str] = field(default_factory=dict)


def missing_settings() -> list[str]:
    """Returns the variables that have to be set before anything can be bought."""
    wanted = ("STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET")
    return [name for name in wanted if not getattr(settings, name)]


def is_configured() -> bool:
    """Returns whether credits can be bought here."""
    return not missing_settings()


@functools.cache
def _client_for(key: str, address: str) -> stripe.StripeClient:
    return stripe.StripeClient(
        key,
        base_addresses={"api": address},
        max_network_retries=2,
        http_client=stripe.RequestsClient(timeout=_TIMEOUT_SECONDS),
    )


def _v1() -> Any:
    return _client_for(settings.STRIPE_SECRET_KEY, settings.STRIPE_API_BASE).v1


def _our_errors(call: Callable[P, R]) -> Callable[P, R]:
    """Turns the SDK's exceptions into ours, so that nobody else has to know them."""

    @functools.wraps(call)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(*args, **kwargs)
        except stripe.CardError as exc:
            kind = AuthenticationRequired if exc.code == "authentication_required" else Declined
            raise kind(exc.code or "declined") from exc
        except (stripe.InvalidRequestError, stripe.AuthenticationError, stripe.PermissionError) as exc:
            refused = NotAtStripe if exc.code == "resource_missing" else StripeRefused
            raise refused(str(exc)) from exc
        except stripe.StripeError as exc:
            raise StripeUnavailable(str(exc)) from exc

    return wrapped


# --- Customers and what is on sale --------------------------------------------------------------------------


@_our_errors
def create_customer(*, name: str, email: str, workspace_id: str) -> str:
    """Makes the workspace's customer, once; returns its id."""
    customer = _v1().customers.create(
        params={"name": name, "email": email, "metadata": {"workspace": workspace_id}},
        options={"idempotency_key": f"customer:{workspace_id}"},
    )
    return cast(str, customer.id)


@_our_errors
def save_product(*, product_id: str, name: str, is_active: bool, key: str) -> str:
    """Makes or changes a product; returns its id."""
    params = {"name": name, "active": is_active}
    if product_id:
        return cast(str, _v1().products.update(product_id, params=params).id)
    return cast(str, _v1().products.create(params=params, options={"idempotency_key": key}).id)


@_our_errors
def create_price(*, product_id: str, cents: int, currency: str, key: str) -> str:
    """Makes a price, which at Stripe never changes; returns its id."""
    params = {"product": product_id, "unit_amount": cents, "currency": currency}
    return cast(str, _v1().prices.create(params=params, options={"idempotency_key": key}).id)


@_our_errors
def retire_price(price_id: str) -> None:
    """Takes a price off sale."""
    _v1().prices.update(price_id, params={"active": False})


# --- Paying -------------------------------------------------------------------------------------------------


@_our_errors
def create_checkout(
    *,
    purchase_id: str,
    customer_id: str,
    price_id: str,
    success_url: str,
    cancel_url: str,
    metadata: Mapping[str, str],
) -> Checkout:
    """Begins a Checkout for one price, once per purchase. The card is kept for automatic top-up."""
    facts = dict(metadata)
    session = _v1().checkout.sessions.create(
        params={
            "mode": "payment",
            "customer": customer_id,
            "client_reference_id": purchase_id,
            "line_items": [{"price": price_id, "quantity": 1}],
            "success_url": success_url,
            "cancel_url": cancel_url,
            "metadata": facts,
            "payment_intent_data": {"metadata": facts, "setup_future_usage": "off_session"},
            "invoice_creation": {"enabled": True, "invoice_data": {"metadata": facts}},
            "allow_promotion_codes": True,
            "automatic_tax": {"enabled": settings.STRIPE_AUTOMATIC_TAX},
            # Tax ids and tax go with the customer's own name and address.
            "tax_id_collection": {"enabled": True},
            "customer_update": {"name": "auto", "address": "auto"},
        },
        options={"idempotency_key": f"checkout:{purchase_id}"},
    )
    return _checkout(session)


@_our_errors
def read_checkout(session_id: str) -> Checkout:
    """Returns a Checkout session as it is now."""
    return _checkout(_v1().checkout.sessions.retrieve(session_id, params={"expand": ["invoice"]}))


def _checkout(session: Any) -> Checkout:
    invoice = session.invoice
    return Checkout(
        id=session.id,
        status=session.status or "",
        payment_status=session.payment_status,
        payment_id=_id(session.payment_intent),
        url=session.url or "",
        invoice_url="" if invoice is None or isinstance(invoice, str) else invoice.hosted_invoice_url or "",
        metadata=_metadata(session),
    )


@_our_errors
def charge_saved_card(
    *, purchase_id: str, customer_id: str, cents: int, currency: str, metadata: Mapping[str, str]
) -> Payment:
    """Takes a payment from the customer's saved card without the person, once per purchase.

    Raises `Declined`, also when there is no card, or `AuthenticationRequired`.
    """
    card = _saved_card(customer_id)
    if not card:
        raise Declined("no_saved_card")
    payment = _v1().payment_intents.create(
        params={
            "amount": cents,
            "currency": currency,
            "customer": customer_id,
            "payment_method": card,
            "off_session": True,
            "confirm": True,
            "metadata": dict(metadata),
            "expand": ["latest_charge"],
        },
        options={"idempotency_key": f"top-up:{purchase_id}"},
    )
    return _payment(payment)


def _saved_card(customer_id: str) -> str:
    customer = _v1().customers.retrieve(customer_id)
    chosen = customer.invoice_settings.default_payment_method if customer.invoice_settings else None
    if chosen:
        return _id(chosen)
    cards = _v1().customers.payment_methods.list(customer_id, params={"type": "card", "limit": 1}).data
    return cards[0].id if cards else ""


@_our_errors
def read_payment(payment_id: str) -> Payment:
    """Returns a payment as it is now, with what refunds and disputes have taken."""
    return _payment(_v1().payment_intents.retrieve(payment_id, params={"expand": ["latest_charge"]}))


@_our_errors
def payments_since(moment: datetime) -> Iterator[Payment]:
    """Yields every payment that was begun since a moment, newest first."""
    params = {"created": {"gte": int(moment.timestamp())}, "limit": 100, "expand": ["data.latest_charge"]}
    found = _v1().payment_intents.list(params=params)
    return (_payment(payment) for payment in found.auto_paging_iter())


def _payment(payment: Any) -> Payment:
    charge = payment.latest_charge
    return Payment(
        id=payment.id,
        status=payment.status,
        paid=payment.amount_received or 0,
        returned=(charge.amount_refunded + _disputed(payment.id, charge)) if charge else 0,
        receipt_url=(charge.receipt_url or "") if charge else "",
        metadata=_metadata(payment),
    )


def _disputed(payment_id: str, charge: Any) -> int:
    if not charge.disputed:
        return 0
    disputes = _v1().disputes.list(params={"payment_intent": payment_id, "limit": 100}).data
    return sum(dispute.amount for dispute in disputes if dispute.status in _MONEY_IS_GONE)


@_our_errors
def portal_url(*, customer_id: str, return_url: str) -> str:
    """Returns the address of Stripe's pages for cards, tax ids and invoices."""
    params = {"customer": customer_id, "return_url": return_url}
    return cast(str, _v1().billing_portal.sessions.create(params=params).url)


# --- Webhooks -----------------------------------------------------------------------------------------------


def read_event(payload: bytes, signature: str) -> dict[str, Any]:
    """Returns a webhook's event as plain values. Raises `BadSignature`."""
    client = _client_for(settings.STRIPE_SECRET_KEY, settings.STRIPE_API_BASE)
    try:
        event = client.construct_event(payload, signature, settings.STRIPE_WEBHOOK_SECRET)
    except (stripe.SignatureVerificationError, ValueError) as exc:
        raise BadSignature(str(exc)) from exc
    return event.to_dict()


def _id(reference: Any) -> str:
    """Returns the id of what may be an id, an expanded object, or nothing."""
    if reference is None:
        return ""
    return reference if isinstance(reference, str) else cast(str, reference.id)


def _metadata(thing: Any) -> dict[str, str]:
    return dict(thing.metadata.to_dict()) if thing.metadata else {}
