"""Runs the twin in a thread, and delivers its webhooks: signed, again until they are taken, twice, out of order."""

from __future__ import annotations

import json
import queue
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import stripe

from tests.services.processes import free_port
from tests.services.web import served
from tests.stripe_twin.api import application
from tests.stripe_twin.books import Books, Thing

KEY = "sk_test_twin"
WEBHOOK_SECRET = "whsec_twin"


def signed(event: Thing) -> tuple[bytes, str]:
    """Returns an event's body and its signature, as they come over HTTP."""
    body = json.dumps(event)
    return body.encode(), stripe.WebhookSignature.generate_signature_header(body, WEBHOOK_SECRET)


@contextmanager
def stripe_twin(*, port: int | None = None) -> Iterator[Books]:
    """Runs a twin until the block ends; its address is `books.url`."""
    port = port or free_port()
    books = Books(f"http://127.0.0.1:{port}")
    with served(application(books, key=KEY), port=port, log_level="error"):
        yield books


@contextmanager
def deliveries(books: Books, url: str, *, seed: int = 1) -> Iterator[None]:
    """Delivers each event to an address: twice, sometimes late, and again while it is not taken."""
    waiting: queue.Queue[Thing | None] = queue.Queue()
    chance = random.Random(seed)
    books.on_event = waiting.put

    def deliver() -> None:
        with httpx.Client(trust_env=False, timeout=10) as client:
            while (event := waiting.get()) is not None:
                batch = [event, event]
                time.sleep(0.05)
                while not waiting.empty():
                    if (more := waiting.get()) is None:
                        waiting.put(None)
                        break
                    batch += [more, more]
                chance.shuffle(batch)
                for each in batch:
                    _send(client, url, each)

    thread = threading.Thread(target=deliver, daemon=True)
    thread.start()
    try:
        yield
    finally:
        books.on_event = lambda event: None
        waiting.put(None)
        thread.join(10)


def _send(client: httpx.Client, url: str, event: Thing) -> None:
    for _attempt in range(20):
        body, signature = signed(event)
        try:
            answer = client.post(url, content=body, headers={"Stripe-Signature": signature})
        except httpx.TransportError:
            time.sleep(0.2)
            continue
        if answer.is_success:
            return
        time.sleep(0.2)
