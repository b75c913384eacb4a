"""A web server in a thread of the test's own process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from tests.services.processes import accepts_connections, wait_until


@contextmanager
def served(application: Any, *, port: int, **options: Any) -> Iterator[None]:
    """Serves an ASGI application on this machine until the block ends. `options` go to `uvicorn.Config`."""
    server = uvicorn.Server(uvicorn.Config(application, port=port, lifespan="off", ws="none", **options))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(
        lambda: accepts_connections(("127.0.0.1", port)),
        seconds=10,
        otherwise=lambda: AssertionError(f"nothing answers on port {port}"),
    )
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(10)
