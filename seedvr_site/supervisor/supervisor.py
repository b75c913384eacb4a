"""Starts the parts in order, keeps them running, stops them in reverse order."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from seedvr_site.supervisor.child import Child, Part
from seedvr_site.supervisor.guard import GRACE_SECONDS, Guard
from seedvr_site.supervisor.terminal import LogWatch, MailWatch, rotate, say

#: Seconds between two looks at the children, and between two looks at logs and mails.
TICK_SECONDS: Final = 0.05
NEWS_SECONDS: Final = 0.5
#: Seconds in which a tier of parts has to be ready.
READY_SECONDS: Final = 120.0


class CannotServe(Exception):
    """The product cannot start, or did not come up; the message says what a person can do."""


class StopRequested(Exception):
    """Somebody asked the supervisor to stop."""


class Supervisor:
    """Runs the tiers of parts until a signal comes: SIGINT, SIGTERM or SIGHUP."""

    def __init__(
        self,
        *,
        tiers: Sequence[Sequence[Part]],
        folder: Path,
        var_dir: Path,
        guard: Guard,
        migrate: Callable[[], None],
    ) -> None:
        """`folder` is where the parts run; `migrate` is called when the first tier is ready."""
        logs = var_dir / "log"
        logs.mkdir(exist_ok=True)
        self._log_dir = logs
        self._guard = guard
        self._migrate = migrate
        self._tiers = [
            [Child(part, folder=folder, log=logs / f"{part.name}.log", guard=guard) for part in tier]
            for tier in tiers
        ]
        self._running: list[Child] = []
        self._watches: list[MailWatch | LogWatch] = [
            MailWatch(var_dir / "mail"),
            *(
                LogWatch(child.part.name, child.log)
                for child in self._children()
                if child.part.shows_warnings
            ),
        ]
        self._num_requests = 0
        self._news_at = 0.0

    def run(self, *, ready_line: str) -> None:
        """Starts everything, prints `ready_line`, and returns after everything has stopped on request.

        Raises `CannotServe` when a part does not come up.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note_request)
        try:
            self._start()
            say(ready_line)
            while True:
                self._tick()
        except StopRequested:
            say("Stopping (once more to stop at once)")
        finally:
            self._stop()

    def _children(self) -> Iterator[Child]:
        for tier in self._tiers:
            yield from tier

    def _note_request(self, _number: int, _frame: FrameType | None) -> None:
        self._num_requests += 1

    # --- Start ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        for child in self._children():
            rotate(child.log)
        for number, tier in enumerate(self._tiers):
            self._start_tier(tier)
            if number == 0:
                self._migrate()

    def _start_tier(self, tier: Sequence[Child]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        for child in tier:
            self._running.append(child)
            child.start()
        waiting = list(tier)
        while waiting:
            self._tick()
            waiting = [child for child in waiting if not child.is_ready]
            for child in self._running:
                if child.fell_too_often:
                    raise CannotServe(f"{child.part.name} does not start:\n{self._last_words(child)}")
            if waiting and time.monotonic() > deadline:
                names = ", ".join(child.part.name for child in waiting)
                raise CannotServe(f"{names} did not get ready in {READY_SECONDS:.0f} s; see {self._log_dir}")

    def _last_words(self, child: Child) -> str:
        lines = child.log.read_text(errors="replace").splitlines()[-15:]
        return "\n".join([*(f"    {line}" for line in lines), f"All of it is in {child.log}"])

    # --- Run ------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        if self._num_requests:
            raise StopRequested
        self._guard.tend()
        for child in self._running:
            if news := child.tend():
                say(f"{news}. Its log: {child.log}")
        if time.monotonic() >= self._news_at:
            self._tell_news()
            self._news_at = time.monotonic() + NEWS_SECONDS
        time.sleep(TICK_SECONDS)

    def _tell_news(self) -> None:
        for watch in self._watches:
            for line in watch.news():
                say(line)

    # --- Stop -----------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        num_requests = self._num_requests
        for tier in reversed(self._tiers):
            self._stop_tier(tier, is_hurried=lambda: self._num_requests > num_requests)

    def _stop_tier(self, tier: Sequence[Child], *, is_hurried: Callable[[], bool]) -> None:
        """Sends each child its signals in turn, all children at the same time; kills what is left."""
        steps = {child: list(child.part.stop_signals) for child in tier}
        deadlines = dict.fromkeys(tier, 0.0)
        left = [child for child in tier if not child.has_stopped()]
        while left and not is_hurried():
            now = time.monotonic()
            for child in left:
                if now < deadlines[child]:
                    continue
                if not steps[child]:
                    child.kill()
                    continue
                number, seconds = steps[child].pop(0)
                child.ask_to_stop(number)
                deadlines[child] = now + seconds
            time.sleep(TICK_SECONDS)
            left = [child for child in left if not child.has_stopped()]
        for child in left:
            child.kill()


def require_free_port(host: str, port: int) -> None:
    """Raises `CannotServe` when somebody listens on this address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers do: connections of a former run that the kernel still remembers do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            raise CannotServe(
                f"Port {port} on {host} cannot be used: {exc.strerror}. Stop the program that listens there, "
                f"or choose another port: make run PORT={port + 1}"
            ) from exc


@contextmanager
def installation_lock(var_dir: Path) -> Iterator[int]:
    """Holds this installation's lock, so that two supervisors never share `var_dir`; yields its file descriptor.

    The guard of a killed supervisor holds the lock until that one's children are gone, so a start right after
    waits for a moment. Raises `CannotServe` when the other one is alive and well.
    """
    path = var_dir / "serve.lock"
    with path.open("a+") as lock:
        deadline = time.monotonic() + GRACE_SECONDS + 5
        while not _take(lock.fileno()):
            lock.seek(0)
            owner = lock.read().strip()
            if time.monotonic() > deadline or _is_alive(owner):
                raise CannotServe(
                    f"This installation runs already (process {owner}, data in {var_dir}). Stop that one with Ctrl-C, "
                    "or give this one a folder of its own: VAR_DIR=/some/folder make run PORT=8001"
                )
            time.sleep(0.1)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock.fileno()


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(process: str) -> bool:
    if not process.isdigit():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
