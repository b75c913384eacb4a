"""Whatever happens in whatever order, the books are right: purchases, refunds, disputes, crashes, repeats."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from billing import ledger, purchases
from billing.models import CreditEntry, CreditPack, DebtEntry, Purchase
from billing.pricing import returned_credits
from billing.stripe_client import Payment
from tests.factories import WorkspaceFactory


class Crash(Exception):
    """The process dies before its commit."""


class Books(RuleBasedStateMachine):
    """A workspace whose payments change at Stripe while readings of them arrive late, twice and out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.outer = transaction.atomic()
        self.outer.__enter__()
        self.workspace = WorkspaceFactory()
        self.pack = CreditPack.objects.order_by("price_cents")[2]  # one with a bonus
        self.paid: dict[int, int] = {}
        self.returned: dict[int, int] = {}
        self.bought: list[Purchase] = []
        self.readings: list[tuple[int, purchases.Reading]] = []
        self.charged: dict[str, int] = {}
        self.refunded: dict[str, int] = {}
        self.granted = 0

    def teardown(self) -> None:
        transaction.set_rollback(True)
        self.outer.__exit__(None, None, None)

    def happens(self, change: Callable[[], object], crashes: bool) -> None:
        """Runs a change, which may crash before its commit and is then repeated."""
        if crashes:
            with contextlib.suppress(Crash), transaction.atomic():
                change()
                raise Crash
        change()

    @rule(credits=st.integers(1, 300), crashes=st.booleans())
    def give(self, credits: int, crashes: bool) -> None:
        key = f"gift:{self.workspace.pk}:{self.granted}"
        self.happens(lambda: ledger.grant(workspace=self.workspace, credits=credits, key=key), crashes)
        self.granted += credits

    @rule()
    def begin_a_purchase(self) -> None:
        self.bought.append(purchases.new_purchase(workspace=self.workspace, pack=self.pack))

    @precondition(lambda self: self.bought)
    @rule(data=st.data())
    def pay_at_stripe(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.bought) - 1))
        self.paid.setdefault(number, self.pack.price_cents)

    @precondition(lambda self: self.paid)
    @rule(data=st.data(), cents=st.integers(0, 3000))
    def money_returns_or_comes_back(self, data: st.DataObject, cents: int) -> None:
        """Refunds and disputes move the returned part up, a won dispute moves it down."""
        self.returned[data.draw(st.sampled_from(sorted(self.paid)))] = cents

    @precondition(lambda self: self.bought)
    @rule(data=st.data())
    def read_stripe(self, data: st.DataObject) -> None:
        """A webhook's reading begins and ends now; it may be applied later, or never."""
        number = data.draw(st.integers(0, len(self.bought) - 1))
        self.readings.append((number, self.reading(number)))

    @precondition(lambda self: self.readings)
    @rule(data=st.data(), crashes=st.booleans())
    def apply_a_reading(self, data: st.DataObject, crashes: bool) -> None:
        number, reading = data.draw(st.sampled_from(self.readings))
        self.happens(lambda: purchases.apply(self.bought[number].pk, reading), crashes)

    @rule(credits=st.integers(1, 1500), crashes=st.booleans())
    def spend(self, credits: int, crashes: bool) -> None:
        reference = f"job:{self.workspace.pk}:{len(self.charged)}"
        before = ledger.balance(self.workspace)
        try:
            self.happens(
                lambda: ledger.charge(workspace=self.workspace, credits=credits, reference=reference), crashes
            )
        except ledger.InsufficientCredits:
            assert credits > before
            return
        self.charged[reference] = credits

    @precondition(lambda self: self.charged)
    @rule(data=st.data(), crashes=st.booleans())
    def a_job_fails(self, data: st.DataObject, crashes: bool) -> None:
        reference = data.draw(st.sampled_from(sorted(self.charged)))
        price = self.charged[reference]
        self.happens(
            lambda: ledger.refund(workspace=self.workspace, credits=price, reference=reference), crashes
        )
        self.refunded[reference] = price

    def reading(self, number: int) -> purchases.Reading:
        purchase = self.bought[number]
        purchase.refresh_from_db()
        purchase.readings_begun += 1
        purchase.save(update_fields=["readings_begun"])
        is_paid = number in self.paid
        payment = Payment(
            id=f"pi_{purchase.pk}",
            status="succeeded" if is_paid else "requires_payment_method",
            paid=self.paid.get(number, 0),
            returned=self.returned.get(number, 0),
            receipt_url="",
            metadata={},
        )
        return purchases.Reading(number=purchase.readings_begun, checkout=None, payment=payment)

    @invariant()
    def nothing_is_below_zero(self) -> None:
        assert ledger.balance(self.workspace) >= 0
        assert ledger.debt(self.workspace) >= 0

    @invariant()
    def nothing_is_lost(self) -> None:
        """Balance minus debt is what came in minus what went out, whatever was known when."""
        rows = Purchase.objects.for_workspace(self.workspace).filter(status="paid")
        bought = sum(row.total_credits - row.reversed_credits for row in rows)
        spent = sum(self.charged.values()) - sum(self.refunded.values())
        worth = ledger.balance(self.workspace) - ledger.debt(self.workspace)
        assert worth == self.granted + bought - spent

    @invariant()
    def each_key_is_there_once(self) -> None:
        for model in (CreditEntry, DebtEntry):
            keys = list(model.objects.for_workspace(self.workspace).values_list("key", flat=True))
            assert len(keys) == len(set(keys))

    @precondition(lambda self: self.bought)
    @rule()
    def the_last_readings_arrive(self) -> None:
        """Once the newest reading of each purchase is applied, the books stand where Stripe stands."""
        for number, purchase in enumerate(self.bought):
            purchases.apply(purchase.pk, self.reading(number))
            purchase.refresh_from_db()
            gone = returned_credits(
                credits=self.pack.total_credits,
                paid=self.paid.get(number, 0),
                returned=self.returned.get(number, 0),
            )
            assert (purchase.status == "paid") == (number in self.paid)
            assert purchase.reversed_credits == (gone if number in self.paid else 0)


@pytest.mark.django_db
def test_the_books_are_right_under_every_order_of_events() -> None:
    run_state_machine_as_test(
        Books,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            suppress_health_check=list(HealthCheck),
        ),
    )
