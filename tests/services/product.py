"""The whole product as `make run` starts it: the supervisor and everything below it, on free ports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.services.processes import free_port, stop, wait_until

ROOT: Final = Path(__file__).resolve().parent.parent.parent
#: Seconds until the product says that it is ready; an idle laptop needs about five.
READY_SECONDS: Final = 90
#: What a test's own environment has to say to the product: nothing else of it goes through.
_KEPT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ")


class Product:
    """A running supervisor: its process, what it prints, where its site is."""

    def __init__(self, process: subprocess.Popen[str], *, port: int, var_dir: Path) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.var_dir = var_dir
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for_line(self, text: str, *, seconds: float = READY_SECONDS) -> str:
        """Returns the first line that contains `text`, waiting for it if need be."""
        wait_until(
            lambda: any(text in line for line in self.lines),
            seconds=seconds,
            otherwise=lambda: AssertionError(
                f"{text!r} was not printed within {seconds} s, but:\n{self.printed}"
            ),
            give_up=lambda: self.process.poll() is not None and not self._reader.is_alive(),
        )
        return next(line for line in self.lines if text in line)

    @property
    def printed(self) -> str:
        """Everything that the supervisor has printed."""
        return "\n".join(self.lines)

    def interrupt(self, *, seconds: float = 30) -> float:
        """Presses Ctrl-C and waits for the end; returns the seconds that it took."""
        started_at = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(seconds)
        self._reader.join(5)
        return time.monotonic() - started_at

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))


@contextmanager
def product(
    var_dir: Path,
    *,
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
    waits: bool = True,
) -> Iterator[Product]:
    """Runs the product with its data in `var_dir`, ready for use unless `waits` is False."""
    port = port or free_port()
    process = subprocess.Popen(
        [sys.executable, "manage.py", "serve", "--port", str(port)],
        cwd=ROOT,
        env={
            **{name: os.environ[name] for name in _KEPT if name in os.environ},
            "VAR_DIR": str(var_dir),
            **(environment or {}),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # a Ctrl-C at the test run is not one at the product
    )
    try:
        running = Product(process, port=port, var_dir=var_dir)
        if waits:
            running.wait_for_line("is ready")
        yield running
    finally:
        stop(process, signal.SIGTERM, seconds=30)
        assert process.stdout is not None
        running._reader.join(5)
        process.stdout.close()
