"""The same calls against the twin and, with a key of a test account in STRIPE_TEST_KEY, against Stripe itself."""

from __future__ import annotations

import os
import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from billing import stripe_client

pytestmark = pytest.mark.django_db
SITE = "https://restore.example.com"
VENDORS = ["twin", "stripe"] if os.environ.get("STRIPE_TEST_KEY") else ["twin"]


@pytest.fixture(params=VENDORS)
def vendor(request, monkeypatch, settings):
    if request.param == "twin":
        return request.getfixturevalue("twin")
    settings.STRIPE_SECRET_KEY = os.environ["STRIPE_TEST_KEY"]
    assert settings.STRIPE_SECRET_KEY.startswith("sk_test_"), "never with a key that moves money"
    monkeypatch.undo()  # the only test that may leave this machine
    return None


def test_what_the_site_asks_for_is_understood(vendor):
    mark = uuid.uuid4().hex
    customer = stripe_client.create_customer(name="Alice", email="alice@example.com", workspace_id=mark)
    again = stripe_client.create_customer(name="Alice", email="alice@example.com", workspace_id=mark)
    assert customer == again

    product = stripe_client.save_product(product_id="", name="500 credits", is_active=True, key=f"p:{mark}")
    price = stripe_client.create_price(product_id=product, cents=500, currency="usd", key=f"c:{mark}")
    facts = {"purchase": mark, "workspace": mark, "credits": "500", "bonus_credits": "0"}
    wanted = {
        "purchase_id": mark,
        "customer_id": customer,
        "price_id": price,
        "success_url": f"{SITE}/paid/",
        "cancel_url": f"{SITE}/buy/",
        "metadata": facts,
    }
    checkout = stripe_client.create_checkout(**wanted)
    assert (checkout.status, checkout.payment_status, checkout.metadata) == ("open", "unpaid", facts)
    assert checkout.url.startswith("http")
    assert stripe_client.create_checkout(**wanted).id == checkout.id
    assert stripe_client.read_checkout(checkout.id).status == "open"

    with pytest.raises(stripe_client.Declined, match="no_saved_card"):
        stripe_client.charge_saved_card(
            purchase_id=mark, customer_id=customer, cents=500, currency="usd", metadata=facts
        )
    recent = stripe_client.payments_since(timezone.now() - timedelta(minutes=1))
    assert all(payment.id.startswith("pi_") for payment in recent)
    stripe_client.retire_price(price)


def test_what_it_does_not_know_is_refused(vendor):
    with pytest.raises(stripe_client.StripeRefused):
        stripe_client.read_payment("pi_never")
    with pytest.raises(stripe_client.StripeRefused):
        stripe_client.create_price(product_id="prod_never", cents=1, currency="usd", key=uuid.uuid4().hex)


def test_a_wrong_key_is_refused(twin, settings):
    settings.STRIPE_SECRET_KEY = "sk_test_wrong"
    with pytest.raises(stripe_client.StripeRefused):
        stripe_client.read_payment("pi_1")
