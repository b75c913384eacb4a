"""Sends events to the site as Stripe does."""

from __future__ import annotations

from django.http import HttpResponse
from django.test import Client

from billing import inbox
from billing.models import StripeEvent
from tests.stripe_twin.books import Thing
from tests.stripe_twin.server import signed

HOOK = "/hooks/stripe/"


def post(event: Thing) -> HttpResponse:
    """Posts a signed event."""
    body, signature = signed(event)
    return Client().post(HOOK, body, content_type="application/json", headers={"Stripe-Signature": signature})


def deliver(*events: Thing) -> None:
    """Posts events and applies each, as the queue would."""
    for event in events:
        assert post(event).status_code == 200
        inbox.apply(StripeEvent.objects.get(event_id=event["id"]).pk)
