"""Two hundred orders at once for credits that cover ten: ten go through."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

from accounts import scope
from billing import ledger
from restorations import submission
from restorations.models import Restoration
from restorations.options import Options
from restorations.quotes import quote
from tests.factories import UserFactory, VideoFactory

ORDERS = 200
COVERED = 10
THREADS = 20


@pytest.mark.django_db(transaction=True)
def test_exactly_as_many_orders_go_through_as_are_covered() -> None:
    videos = [VideoFactory()]
    workspace, user = videos[0].workspace, UserFactory()
    # Several videos, so that their row locks do not make the orders queue before they reach the ledger.
    videos += [VideoFactory(workspace=workspace) for _ in range(4)]
    price = quote(videos[0], Options(preset="720p")).credits
    ledger.grant(workspace=workspace, credits=price * COVERED + price - 1, key="start")
    ready = threading.Barrier(THREADS)

    def orders(first: int) -> list[str]:
        ready.wait()
        try:
            with scope.inside(workspace):
                return [order(number) for number in range(first, ORDERS, THREADS)]
        finally:
            connection.close()

    def order(number: int) -> str:
        try:
            # Each with its own seed: an order that equals another one is that one.
            options = Options(preset="720p", seed=number)
            submission.submit(video=videos[number % len(videos)], user=user, options=options)
        except ledger.InsufficientCredits:
            return "refused"
        return "through"

    def books(_number: int) -> tuple[int, int]:
        try:
            with scope.inside(workspace):
                return ledger.balance(workspace), Restoration.objects.filter(workspace=workspace).count()
        finally:
            connection.close()

    with ThreadPoolExecutor(THREADS) as pool:
        answers = Counter(answer for part in pool.map(orders, range(THREADS)) for answer in part)
        [left] = pool.map(books, [0])
    assert answers == {"through": COVERED, "refused": ORDERS - COVERED}
    assert left == (price - 1, COVERED)
