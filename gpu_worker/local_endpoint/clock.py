"""The endpoint's time: moments that tests can advance, and spans that tests can shorten."""

from __future__ import annotations

import time


class Clock:
    """Seconds since 1970, plus what was advanced; spans of the service are divided by `speed`.

    Clocks that the worker's SDK also counts (pings, long polls) are never divided: the SDK keeps real time.
    """

    def __init__(self, *, speed: float = 1.0, advanced_seconds: float = 0.0) -> None:
        if speed <= 0:
            raise ValueError(f"speed is {speed}; it must be greater than 0")
        self.speed = speed
        self.advanced_seconds = advanced_seconds

    def now(self) -> float:
        """Returns the current moment in seconds."""
        return time.time() + self.advanced_seconds

    def span(self, seconds: float) -> float:
        """Returns how long a documented span of `seconds` lasts here."""
        return seconds / self.speed
