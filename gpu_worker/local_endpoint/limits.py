"""RunPod's request limits: sliding windows of ten seconds and caps on concurrent requests, by operation."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

WINDOW_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Limit:
    """How many requests an operation takes in one window, and at the same time."""

    per_window: int
    concurrent: int


#: The base limits of RunPod's documentation; operations that it does not list have none.
LIMITS: Final = {
    "run": Limit(1000, 200),
    "runsync": Limit(2000, 400),
    "status": Limit(2000, 400),
    "stream": Limit(2000, 400),
    "cancel": Limit(100, 20),
    "purge-queue": Limit(2, 10),
}


class TooManyRequestsError(Exception):
    """The operation's limit is reached; `retry_after` is in seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("rate limit exceeded")
        self.retry_after = retry_after


class Limiter:
    """Counts the requests of one endpoint. It keeps real time, for it protects a real process."""

    def __init__(self, limits: dict[str, Limit] | None = None) -> None:
        self._limits = LIMITS if limits is None else limits
        self._started_at: defaultdict[str, deque[float]] = defaultdict(deque)
        self._num_open: defaultdict[str, int] = defaultdict(int)

    @contextmanager
    def admit(self, operation: str) -> Iterator[None]:
        """Holds one place of the operation while the request runs; raises `TooManyRequestsError`."""
        self._check(operation)
        self._num_open[operation] += 1
        try:
            yield
        finally:
            self._num_open[operation] -= 1

    def _check(self, operation: str) -> None:
        limit = self._limits.get(operation)
        if limit is None:
            return
        now = time.monotonic()
        window = self._started_at[operation]
        while window and window[0] <= now - WINDOW_SECONDS:
            window.popleft()
        if len(window) >= limit.per_window:
            raise TooManyRequestsError(window[0] + WINDOW_SECONDS - now)
        if self._num_open[operation] >= limit.concurrent:
            raise TooManyRequestsError(1.0)
        window.append(now)
