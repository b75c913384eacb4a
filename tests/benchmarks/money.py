"""How fast money moves: orders of one workspace at once, and webhooks from signature to ledger."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from django.conf import settings
from django.db import connection
from django.test import override_settings

from tests.stripe_twin.books import Books
from tests.stripe_twin.server import KEY, WEBHOOK_SECRET, stripe_twin

ORDERS = 200
THREADS = 20
PURCHASES = 20


def measure_money() -> dict[str, float]:
    """Returns submissions per second under contention and webhook events per second; needs a set-up database."""
    with (
        stripe_twin() as twin,
        override_settings(
            STRIPE_SECRET_KEY=KEY, STRIPE_WEBHOOK_SECRET=WEBHOOK_SECRET, STRIPE_API_BASE=twin.url
        ),
    ):
        assert twin.url == settings.STRIPE_API_BASE
        return {
            f"orders of one workspace from {THREADS} threads, per second": _orders(),
            "webhook events stored and applied, per second": _events(twin),
        }


def _orders() -> float:
    from accounts import scope
    from billing import ledger
    from restorations import submission
    from restorations.options import Options
    from tests.factories import UserFactory, VideoFactory

    video, user = VideoFactory(), UserFactory()
    ledger.grant(workspace=video.workspace, credits=10_000, key="bench")

    def order(number: int) -> None:
        with scope.inside(video.workspace):
            submission.submit(video=video, user=user, options=Options(preset="720p", seed=number))
        connection.close()

    started_at = time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(order, range(ORDERS)))
    return ORDERS / (time.monotonic() - started_at)


def _events(twin: Books) -> float:
    from billing import purchases
    from billing.models import CreditPack, Purchase
    from tests.billing.delivery import deliver
    from tests.factories import UserFactory, WorkspaceFactory

    workspace, user, pack = WorkspaceFactory(), UserFactory(), CreditPack.objects.earliest("price_cents")
    for _ in range(PURCHASES):
        purchases.begin_checkout(workspace=workspace, user=user, pack=pack, return_path="")
    for purchase in Purchase.objects.for_workspace(workspace):
        twin.pay_checkout(twin.get(purchase.stripe_session_id), "4242424242424242")
    with override_settings(ALLOWED_HOSTS=["*"]):
        started_at = time.monotonic()
        deliver(*twin.events)
        return len(twin.events) / (time.monotonic() - started_at)
