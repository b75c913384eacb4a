"""A Stripe twin for all tests, and the site set up for it. Models are imported late, as in tests/conftest.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.stripe_twin.books import Books
from tests.stripe_twin.server import KEY, WEBHOOK_SECRET, stripe_twin

if TYPE_CHECKING:
    from django.conf import LazySettings

    from accounts.models import User, Workspace
    from billing.models import CreditPack, Purchase


@pytest.fixture(scope="session")
def running_twin() -> Iterator[Books]:
    with stripe_twin() as books:
        yield books


@pytest.fixture
def twin(running_twin: Books, settings: LazySettings) -> Books:
    """Stripe's stand-in; what it did in other tests is forgotten."""
    settings.STRIPE_SECRET_KEY = KEY
    settings.STRIPE_WEBHOOK_SECRET = WEBHOOK_SECRET
    settings.STRIPE_API_BASE = running_twin.url
    running_twin.forget()
    return running_twin


@pytest.fixture
def pack(db: None) -> CreditPack:
    """2,500 credits and 100 on top for 25 dollars."""
    from billing.models import CreditPack

    return CreditPack.objects.get(credits=2500)


@pytest.fixture
def begin(twin: Books, workspace: Workspace, alice: User, pack: CreditPack) -> Callable[[], Purchase]:
    """Returns how Alice begins a purchase."""
    from billing import purchases
    from billing.models import Purchase

    def begin_one() -> Purchase:
        purchases.begin_checkout(workspace=workspace, user=alice, pack=pack, return_path="")
        return Purchase.objects.for_workspace(workspace).latest("created_at")

    return begin_one


@pytest.fixture
def buy(begin: Callable[[], Purchase], twin: Books) -> Callable[..., Purchase]:
    """Returns how Alice buys: the payment is made at Stripe, and no event has arrived here."""

    def buy_one(card: str = "4242424242424242") -> Purchase:
        purchase = begin()
        twin.pay_checkout(twin.get(purchase.stripe_session_id), card)
        return purchase

    return buy_one
