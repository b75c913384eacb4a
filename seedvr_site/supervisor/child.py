"""One part at work: its process, its log, its restarts."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from seedvr_site.supervisor.guard import Guard, signal_group

#: Seconds before a part that ended is started again: doubled each time, until it ran this long without a fall.
FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 30.0
STEADY_SECONDS: Final = 60.0
#: A part that falls this often within `STEADY_SECONDS` will not come up by itself.
MANY_FALLS: Final = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What is started. `is_ready` gets the child; `stop_signals` are sent in turn, each with seconds to obey."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    is_ready: Callable[[Child], bool]
    stop_signals: tuple[tuple[signal.Signals, float], ...] = ((signal.SIGTERM, 5.0),)
    #: Whether warnings in the log are worth a person's attention.
    shows_warnings: bool = True


class Child:
    """Keeps one part running: a part that ends is started again after a pause that grows with each fall."""

    def __init__(self, part: Part, *, folder: Path, log: Path, guard: Guard) -> None:
        self.part = part
        self.log = log
        self._folder = folder
        self._guard = guard
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._falls: deque[float] = deque(maxlen=MANY_FALLS)
        self._pause = FIRST_PAUSE_SECONDS
        self._start_at = 0.0
        self._started_at = 0.0

    @property
    def is_running(self) -> bool:
        """True while the process lives, as far as `tend` has seen."""
        return self._process is not None

    @property
    def is_ready(self) -> bool:
        """True when the part does its work."""
        return self.is_running and self.part.is_ready(self)

    @property
    def fell_too_often(self) -> bool:
        """True when the part ended many times within a short span."""
        return len(self._falls) == MANY_FALLS and self._falls[-1] - self._falls[0] < STEADY_SECONDS

    def output(self) -> str:
        """Returns what this process has written so far."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def start(self) -> None:
        """Starts the process as leader of a session of its own."""
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                self.part.command,
                cwd=self._folder,
                env=self.part.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=death_with_parent(),
            )
        self._guard.watch(self._process.pid)
        self._started_at = time.monotonic()

    def tend(self) -> str:
        """Restarts the process when it has ended and its pause is over; returns news for people, or ""."""
        now = time.monotonic()
        if self._process is None:
            if now >= self._start_at:
                self.start()
            return ""
        status = self._process.poll()
        if status is None:
            return ""
        self._bury()
        self._note_fall(now)
        return (
            f"{self.part.name} ended {_describe(status)}; starting it again in {self._start_at - now:.0f} s"
        )

    def ask_to_stop(self, number: signal.Signals) -> None:
        """Sends a signal to the process alone: it knows best how to stop what it started."""
        if self._process is not None:
            self._process.send_signal(number)

    def has_stopped(self) -> bool:
        """Returns whether the process has ended; takes what it left behind with it."""
        if self._process is not None and self._process.poll() is not None:
            self._bury()
        return self._process is None

    def kill(self) -> None:
        """Ends the process and all that it started, at once."""
        if self._process is not None:
            self._bury()

    def _bury(self) -> None:
        """Ends the rest of the process group, then the guard's promise."""
        assert self._process is not None
        signal_group(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._guard.forget(self._process.pid)
        self._process = None

    def _note_fall(self, now: float) -> None:
        if now - self._started_at > STEADY_SECONDS:
            self._pause = FIRST_PAUSE_SECONDS
        self._falls.append(now)
        self._start_at = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)


def _describe(status: int) -> str:
    return f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"


def death_with_parent() -> Callable[[], None] | None:
    """Returns what a process calls so that the kernel stops it when its parent dies; None outside of Linux.

    Call it in the parent. The kernel ties the signal to the thread that starts the process: start from the main one.
    """
    if sys.platform != "linux":
        return None
    # The library is loaded before the fork: between fork and exec a process should do next to nothing.
    return functools.partial(_ask_for_death_signal, ctypes.CDLL(None, use_errno=True), os.getpid())


def die_with_caller() -> None:
    """Has the kernel stop this process when the one that called it ends; does nothing outside of Linux."""
    if sys.platform == "linux":
        _ask_for_death_signal(ctypes.CDLL(None, use_errno=True), os.getppid())


_PR_SET_PDEATHSIG: Final = 1


def _ask_for_death_signal(libc: ctypes.CDLL, parent: int) -> None:
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0 or os.getppid() != parent:
        # The parent died before the kernel was asked: nobody is left who would stop this process.
        os._exit(1)
