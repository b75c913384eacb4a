"""Webhooks with real signatures from a Stripe that keeps its own books: replayed, reordered, lost."""

from __future__ import annotations

import itertools
import random
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from billing import inbox, ledger, purchases, reconciliation, stripe_client
from billing.models import CreditEntry, Purchase, StripeEvent
from billing.tasks import sweep_billing
from tests.billing.delivery import HOOK, deliver, post

pytestmark = pytest.mark.django_db
TOTAL = 2600


@pytest.fixture
def start(workspace):
    return ledger.balance(workspace)


def gained(workspace, start):
    return ledger.balance(workspace) - start


def payment_of(twin, purchase):
    return twin.get(purchase.stripe_session_id)["payment_intent"]


def test_a_payment_adds_credits_bonus_and_receipts(twin, buy, workspace, start):
    purchase = buy()
    deliver(*twin.events)
    purchase.refresh_from_db()
    assert gained(workspace, start) == TOTAL
    kinds = CreditEntry.objects.for_workspace(workspace).filter(reference=purchase.reference)
    assert sorted(kinds.values_list("kind", "credits")) == [("bonus", 100), ("purchase", 2500)]
    assert (purchase.status, purchase.paid_cents) == ("paid", 2500)
    assert purchase.receipt_url.startswith(f"{twin.url}/receipts/")
    assert purchase.invoice_url.startswith(f"{twin.url}/invoices/")


def test_ten_replays_out_of_order_add_credits_once(twin, buy, workspace, start):
    buy()
    events = twin.events * 10
    random.Random(7).shuffle(events)
    deliver(*events)
    assert gained(workspace, start) == TOTAL
    assert StripeEvent.objects.count() == len(twin.events)


def test_each_single_event_of_a_payment_is_enough(twin, buy, workspace, start):
    for number, kind in enumerate(["checkout.session.completed", "payment_intent.succeeded", "invoice.paid"]):
        twin.events.clear()
        buy()
        deliver(next(event for event in twin.events if event["type"] == kind))
        assert gained(workspace, start) == TOTAL * (number + 1), kind


def test_a_refund_that_overtakes_its_payment_leaves_nothing(twin, buy, workspace, start):
    purchase = buy()
    twin.refund(payment_of(twin, purchase))
    deliver(*reversed(twin.events))
    assert gained(workspace, start) == 0
    assert ledger.debt(workspace) == 0


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_partial_refunds_take_their_share_in_any_order(twin, buy, workspace, start, order):
    purchase = buy()
    deliver(*twin.events)
    twin.events.clear()
    payment = payment_of(twin, purchase)
    for cents in (500, 1000, 250):
        twin.refund(payment, cents)
    refunds = [event for event in twin.events if event["type"] == "charge.refunded"]
    deliver(*(refunds[n] for n in order), *refunds)
    assert gained(workspace, start) == TOTAL - TOTAL * 1750 // 2500


@pytest.mark.parametrize(
    ("outcome", "left"), [("lost", 0), ("won", TOTAL), ("under_review", 0), ("warning_closed", TOTAL)]
)
def test_a_dispute_takes_credits_until_it_is_won(twin, buy, workspace, start, outcome, left):
    purchase = buy()
    status = "warning_needs_response" if outcome.startswith("warning") else "needs_response"
    dispute = twin.dispute(payment_of(twin, purchase), status=status)
    deliver(*twin.events)
    assert gained(workspace, start) == (0 if status == "needs_response" else TOTAL)
    twin.close_dispute(dispute, outcome)
    deliver(*reversed(twin.events), *twin.events)
    assert gained(workspace, start) == left
    purchase.refresh_from_db()
    assert purchase.reversed_credits == TOTAL - left


def test_spent_credits_become_a_debt_that_the_next_purchase_pays(twin, buy, workspace, start):
    first = buy()
    deliver(*twin.events)
    ledger.charge(workspace=workspace, credits=start + 2000, reference="job")
    twin.refund(payment_of(twin, first))
    deliver(*twin.events)
    assert (ledger.balance(workspace), ledger.debt(workspace)) == (0, 2000)
    buy()
    deliver(*twin.events)
    assert (ledger.balance(workspace), ledger.debt(workspace)) == (TOTAL - 2000, 0)


def test_a_declined_card_can_be_replaced_in_the_same_checkout(twin, buy, workspace, start):
    purchase = buy("4000000000000002")
    deliver(*twin.events)
    purchase.refresh_from_db()
    assert (purchase.status, gained(workspace, start)) == ("open", 0)
    twin.pay_checkout(twin.get(purchase.stripe_session_id), "4242424242424242")
    deliver(*twin.events)
    assert gained(workspace, start) == TOTAL


@pytest.mark.parametrize(("pays", "status", "credits"), [(True, "paid", TOTAL), (False, "failed", 0)])
def test_a_payment_that_takes_days_adds_credits_when_it_arrives(
    twin, buy, workspace, start, pays, status, credits
):
    purchase = buy("000123456789")
    deliver(*twin.events)
    purchase.refresh_from_db()
    assert (purchase.status, gained(workspace, start)) == ("processing", 0)
    twin.settle(payment_of(twin, purchase), pays=pays)
    deliver(*reversed(twin.events))
    purchase.refresh_from_db()
    assert (purchase.status, gained(workspace, start)) == (status, credits)


def test_an_expired_checkout_ends_the_purchase(twin, begin, workspace, start):
    purchase = begin()
    twin.expire(twin.get(purchase.stripe_session_id))
    deliver(*twin.events)
    purchase.refresh_from_db()
    assert (purchase.status, gained(workspace, start)) == ("expired", 0)


@pytest.mark.parametrize("signature", ["", "t=1,v1=00", None])
def test_what_stripe_did_not_sign_is_refused_and_not_stored(twin, buy, signature):
    buy()
    headers = {} if signature is None else {"Stripe-Signature": signature}
    answer = Client().post(HOOK, b"{}", content_type="application/json", headers=headers)
    assert answer.status_code == 400
    assert not StripeEvent.objects.exists()


def test_an_event_that_cannot_be_applied_keeps_its_error_and_is_tried_again(
    twin, buy, workspace, start, settings
):
    buy()
    settings.STRIPE_API_BASE = "http://127.0.0.1:9"
    event = twin.events[-1]
    assert post(event).status_code == 200
    row = StripeEvent.objects.get(event_id=event["id"])
    with pytest.raises(stripe_client.StripeUnavailable):
        inbox.apply(row.pk)
    row.refresh_from_db()
    assert (row.applied_at, row.num_tries) == (None, 1)
    assert "StripeUnavailable" in row.error
    settings.STRIPE_API_BASE = twin.url
    inbox.apply(row.pk)
    row.refresh_from_db()
    assert (row.error, gained(workspace, start)) == ("", TOTAL)


def test_an_outage_of_hours_loses_no_event(twin, buy, settings, django_capture_on_commit_callbacks):
    buy()
    post(twin.events[-1])
    settings.STRIPE_API_BASE = "http://127.0.0.1:9"
    with pytest.raises(stripe_client.StripeUnavailable):
        inbox.apply(StripeEvent.objects.get().pk)

    def rings(num_tries=40, **age):
        StripeEvent.objects.update(num_tries=num_tries, received_at=timezone.now() - timedelta(**age))
        with django_capture_on_commit_callbacks() as rung:
            inbox.ring_again()
        return len(rung)

    assert [rings(minutes=10), rings(hours=1), rings(days=2)] == [0, 1, 1]
    # One that fails for days is for people to look at, under Operations.
    assert rings(num_tries=inbox.MAX_TRIES, days=4) == 0


def test_a_purchase_that_stripe_does_not_know_holds_up_no_other(twin, begin, buy, workspace, start):
    unknown, paid = begin(), buy()
    Purchase.objects.filter(pk=unknown.pk).update(stripe_session_id="cs_of_another_account")
    long_ago = timezone.now() - timedelta(days=2)
    Purchase.objects.update(created_at=long_ago)
    sweep_billing()
    unknown.refresh_from_db()
    paid.refresh_from_db()
    assert (unknown.status, paid.status, gained(workspace, start)) == ("expired", "paid", TOTAL)


def test_events_of_others_and_of_unknown_kinds_are_done_at_once(twin, workspace, start):
    stranger = twin.payment(amount=100, currency="usd", customer="cus_other", metadata={})
    deliver(
        twin.tell("payment_intent.succeeded", stranger),
        twin.tell("customer.updated", {"object": "customer", "id": "cus_1"}),
    )
    assert not StripeEvent.objects.filter(applied_at=None).exists()
    assert gained(workspace, start) == 0


def test_a_late_reading_does_not_undo_a_newer_one(twin, buy, workspace, start):
    purchase = buy()
    old = purchases._read(purchase, session_id="", payment_id="")
    twin.refund(payment_of(twin, purchase))
    purchases.refresh(purchase)
    purchases.apply(purchase.pk, old)
    assert gained(workspace, start) == 0


def test_reconciling_finds_and_repairs_what_webhooks_did_not_bring(twin, buy, workspace, start):
    lost, refunded = buy(), buy()
    deliver(
        *(
            e
            for e in twin.events
            if e["data"]["object"].get("metadata", {}).get("purchase") == str(refunded.pk)
        )
    )
    twin.refund(payment_of(twin, refunded), 500)
    found = reconciliation.reconcile(days=2, repairs=False)
    assert {finding.purchase_id for finding in found} == {lost.pk, refunded.pk}
    assert gained(workspace, start) == TOTAL
    reconciliation.reconcile(days=2, repairs=True)
    assert gained(workspace, start) == TOTAL + TOTAL - TOTAL // 5
    assert reconciliation.reconcile(days=2, repairs=False) == []


def test_a_purchase_whose_row_is_lost_is_made_again_from_its_payment(twin, buy, workspace, start):
    purchase = buy()
    Purchase.objects.filter(pk=purchase.pk).delete()
    reconciliation.reconcile(days=2, repairs=True)
    assert gained(workspace, start) == TOTAL


def test_a_crash_between_stripe_and_our_row_loses_nothing(twin, buy, workspace, start):
    purchase = buy()
    Purchase.objects.filter(pk=purchase.pk).update(stripe_session_id="")
    deliver(next(e for e in twin.events if e["type"] == "checkout.session.completed"))
    assert gained(workspace, start) == TOTAL
