"""Composes the endpoint: store, queue, the three faces, and the task that lets time pass."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gpu_worker.local_endpoint.admin_face import AdminFace
from gpu_worker.local_endpoint.client_face import ClientFace
from gpu_worker.local_endpoint.clock import Clock
from gpu_worker.local_endpoint.faults import Faults
from gpu_worker.local_endpoint.limits import Limiter
from gpu_worker.local_endpoint.options import EndpointOptions
from gpu_worker.local_endpoint.queue import Queue
from gpu_worker.local_endpoint.replies import http_problem
from gpu_worker.local_endpoint.store import Store
from gpu_worker.local_endpoint.webhooks import Courier
from gpu_worker.local_endpoint.worker_face import WorkerFace

logger = logging.getLogger(__name__)

_SWEEP_SECONDS = 0.1


def _leave(_sign: int, _frame: object) -> None:
    sys.exit(0)


class LocalEndpoint:
    """One endpoint, served by uvicorn until it is told to stop."""

    def __init__(self, *, options: EndpointOptions, store_path: Path, speed: float = 1.0) -> None:
        self._store = Store(store_path)
        clock = Clock(speed=speed, advanced_seconds=self._store.figure("advanced_seconds"))
        self._queue = Queue(options=options, store=self._store, clock=clock, faults=Faults())
        self._courier = Courier(options=options, store=self._store, clock=clock)
        self._server: uvicorn.Server | None = None

    def serve(self, host: str, port: int) -> None:
        """Serves until SIGTERM or SIGINT. Raises SystemExit: 0 after a signal, 1 when the port is taken."""
        config = uvicorn.Config(
            self.app(),
            host=host,
            port=port,
            # This implementation names the connection's client, which `_cut` needs.
            http=HttpToolsProtocol,
            log_config=None,
            access_log=False,
            # Idle workers keep their connections; clients reconnect by themselves.
            timeout_keep_alive=75,
            # Open polls end by themselves when the server stops; a stuck client does not hold it up.
            timeout_graceful_shutdown=5,
        )
        self._server = uvicorn.Server(config)
        # uvicorn raises the signal again when it has stopped cleanly, which would look like a crash.
        for sign in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sign, _leave)
        self._server.run()

    def app(self) -> Starlette:
        """Returns the ASGI application."""
        queue = self._queue
        client = ClientFace(queue, limiter=Limiter(), cut=self._cut)
        worker = WorkerFace(queue, cut=self._cut, is_stopping=self._is_stopping)
        routes = [*client.routes(), *worker.routes()]
        if queue.options.has_admin:
            routes += AdminFace(queue).routes()
        return Starlette(
            routes=routes, lifespan=self._lifespan, exception_handlers={HTTPException: http_problem}
        )

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        self._queue.fleet.revive()
        time_task = asyncio.create_task(self._let_time_pass())
        try:
            yield
        finally:
            time_task.cancel()
            with suppress(asyncio.CancelledError):
                await time_task
            await self._courier.close()
            self._store.close()

    async def _let_time_pass(self) -> None:
        while True:
            try:
                self._queue.sweep()
                self._courier.send_due()
            except Exception:
                # The endpoint must not stand still because of one job: say so and go on.
                logger.exception("sweep failed")
            await asyncio.sleep(_SWEEP_SECONDS)

    def _is_stopping(self) -> bool:
        return self._server is not None and self._server.should_exit

    def _cut(self, request: Request) -> None:
        """Cuts the TCP connection of a request, as a broken network would."""
        if self._server is None or request.client is None:
            return
        for connection in self._server.server_state.connections:
            assert isinstance(connection, HttpToolsProtocol)
            if connection.client == tuple(request.client):
                connection.transport.abort()
