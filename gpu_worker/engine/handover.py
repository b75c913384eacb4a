"""Passes items from one thread to the next, a few at a time, and errors with them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

from gpu_worker.engine.job import Cancelled

Item = TypeVar("Item")

#: How often a waiting thread looks whether the job was cancelled.
_LOOK_SECONDS: Final = 0.2


class Abandoned(Exception):
    """The receiver has gone: whatever the sender does now is for nobody."""


class Handover(Generic[Item]):
    """A bounded queue between two threads: the sender waits when `limit` items lie there, the receiver when none does.

    `waited_to_put` and `waited_to_get` are the seconds that each side waited for the other.
    """

    def __init__(self, limit: int, *, is_cancelled: Callable[[], bool]) -> None:
        self._limit = limit
        self._is_cancelled = is_cancelled
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._has_ended = self._is_abandoned = False
        self._error: BaseException | None = None
        self.waited_to_put = self.waited_to_get = 0.0

    def put(self, item: Item) -> None:
        """Hands an item over. Raises `Abandoned`, or `Cancelled` while it waits."""
        with self._changed:
            self.waited_to_put += self._wait(lambda: len(self._items) < self._limit or self._is_abandoned)
            if self._is_abandoned:
                raise Abandoned
            self._items.append(item)
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """Says that nothing follows; an error is raised at the receiver's, behind the items before it."""
        with self._changed:
            self._has_ended, self._error = True, error
            self._changed.notify_all()

    def abandon(self) -> None:
        """Says that nobody receives any more; the sender learns of it at its next item."""
        with self._changed:
            self._is_abandoned = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        """Yields items until the sender has ended. Raises the sender's error, or `Cancelled` while it waits."""
        while True:
            with self._changed:
                self.waited_to_get += self._wait(lambda: bool(self._items) or self._has_ended)
                if not self._items:
                    break
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
        if self._error is not None:
            raise self._error

    def _wait(self, condition: Callable[[], bool]) -> float:
        started_at = time.perf_counter()
        while not self._changed.wait_for(condition, timeout=_LOOK_SECONDS):
            if self._is_cancelled():
                raise Cancelled
        return time.perf_counter() - started_at
