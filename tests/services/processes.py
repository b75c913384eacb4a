"""Starting and stopping the servers' processes."""

from __future__ import annotations

import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

#: Linux gives ports from 32768 on to whoever asks for any.
_PORTS: Final = range(20_000, 32_768)


class ServerDidNotStart(RuntimeError):
    """A server ended or stayed silent; the message holds what it wrote."""


@contextmanager
def server(
    command: Sequence[str],
    *,
    log: Path,
    is_ready: Callable[[], bool],
    stop_signal: signal.Signals = signal.SIGTERM,
    **options: Any,
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a server until the block ends. `options` go to Popen. Raises `ServerDidNotStart`."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, **options
        )
    try:
        wait_until(
            is_ready,
            seconds=30,
            otherwise=lambda: ServerDidNotStart(f"{command[0]}: {log.read_text(errors='replace')[-2000:]}"),
            give_up=lambda: process.poll() is not None,
        )
        yield process
    finally:
        stop(process, stop_signal)


def stop(process: subprocess.Popen[Any], number: signal.Signals, *, seconds: float = 10) -> None:
    """Asks a process to stop, and kills it when it does not."""
    process.send_signal(number)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until(
    condition: Callable[[], Any],
    *,
    seconds: float,
    otherwise: Callable[[], Exception],
    give_up: Callable[[], bool] = lambda: False,
) -> None:
    """Returns when the condition holds; raises what `otherwise` makes after `seconds`, or once `give_up` says so."""
    deadline = time.monotonic() + seconds
    while not condition():
        if give_up() or time.monotonic() > deadline:
            raise otherwise()
        time.sleep(0.02)


def accepts_connections(address: str | tuple[str, int]) -> bool:
    """Returns whether somebody listens on a socket's path, or on a host and port."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as client:
        try:
            client.connect(address)
        except OSError:
            return False
        return True


def free_port() -> int:
    """Returns a port of the loopback address that nobody listens on at this moment.

    It lies below those that systems give to whoever asks for any: nobody gets it by chance before it is used.
    """
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
