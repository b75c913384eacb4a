"""Posts the webhooks that are due: at most three tries, ten seconds apart, then silence."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import httpx

from gpu_worker.local_endpoint.clock import Clock
from gpu_worker.local_endpoint.jobs import Delivery
from gpu_worker.local_endpoint.options import EndpointOptions
from gpu_worker.local_endpoint.store import Store

logger = logging.getLogger(__name__)


class Courier:
    """Delivers webhooks from the store; what a stopping endpoint broke off is tried again at its start."""

    def __init__(self, *, options: EndpointOptions, store: Store, clock: Clock) -> None:
        self._options = options
        self._store = store
        self._clock = clock
        self._tasks: dict[int, asyncio.Task[None]] = {}
        # A redirect counts as a failure; the environment's proxies are not for loopback.
        self._http = httpx.AsyncClient(
            timeout=options.webhook_timeout_seconds, follow_redirects=False, trust_env=False
        )

    def send_due(self) -> None:
        """Starts the deliveries whose turn it is."""
        for delivery in self._store.due_deliveries(self._clock.now()):
            if delivery.number not in self._tasks:
                task = asyncio.create_task(self._send(delivery))
                self._tasks[delivery.number] = task
                task.add_done_callback(self._forget(delivery.number))

    async def close(self) -> None:
        """Stops what is on its way and closes the connections."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._http.aclose()

    def _forget(self, number: int) -> Callable[[asyncio.Task[None]], None]:
        def forget(task: asyncio.Task[None]) -> None:
            del self._tasks[number]
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.error("webhook %d: broke off", number, exc_info=error)

        return forget

    async def _send(self, delivery: Delivery) -> None:
        outcome = await self._post(delivery)
        delivery.num_tries += 1
        if outcome == "200":
            delivery.outcome = "delivered"
        elif delivery.num_tries >= self._options.webhook_tries:
            delivery.outcome = f"given up: {outcome}"
        else:
            delivery.due_at = self._clock.now() + self._clock.span(self._options.webhook_pause_seconds)
        self._store.save_delivery(delivery)
        logger.info("webhook of job %s: try %d, %s", delivery.job_id, delivery.num_tries, outcome)

    async def _post(self, delivery: Delivery) -> str:
        # The address holds a secret token: neither it nor an error's text, which may name it, is logged.
        try:
            reply = await asyncio.wait_for(
                self._http.post(
                    delivery.url, content=delivery.body, headers={"Content-Type": "application/json"}
                ),
                self._options.webhook_timeout_seconds,
            )
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            return type(error).__name__
        return str(reply.status_code)
