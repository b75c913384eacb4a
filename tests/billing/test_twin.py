"""The twin refuses what Stripe's own types do not know, at every depth."""

from __future__ import annotations

import pytest
import stripe
from stripe.params import RefundCreateParams
from stripe.params.checkout import SessionCreateParams

from tests.stripe_twin.shapes import NotInTheApi, check_request, decoded, honest


def test_forms_are_decoded_as_the_sdk_writes_them():
    pairs = [
        ("mode", "payment"),
        ("line_items[0][price]", "p1"),
        ("line_items[0][quantity]", "1"),
        ("expand[0]", "x"),
    ]
    assert decoded(pairs) == {
        "mode": "payment",
        "line_items": [{"price": "p1", "quantity": "1"}],
        "expand": ["x"],
    }


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"mod": "payment"}, "unknown parameter: mod"),
        ({"mode": "gift"}, "must be one of"),
        ({"line_items": [{"cost": "5"}]}, "unknown parameter: line_items.cost"),
        ({"line_items": {"price": "p1"}}, "Invalid object: line_items"),
        ({"mode": ["payment"]}, "Invalid array: mode"),
        ({"invoice_creation": {"invoice_data": {}}}, "Missing required param: invoice_creation.enabled"),
        ({"api_key": "sk"}, "unknown parameter: api_key"),
    ],
)
def test_what_stripe_does_not_know_is_refused(params, problem):
    with pytest.raises(NotInTheApi, match=problem):
        check_request(params, SessionCreateParams)


def test_what_stripe_knows_passes():
    check_request({"payment_intent": "pi_1", "amount": "5", "metadata": {"any": "thing"}}, RefundCreateParams)


def test_objects_have_only_the_fields_and_words_of_their_class():
    with pytest.raises(NotInTheApi, match="Refund has no"):
        honest(stripe.Refund, {"livemode": False})
    with pytest.raises(NotInTheApi, match="must be one of"):
        honest(stripe.Dispute, {"status": "gone"})
