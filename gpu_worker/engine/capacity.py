"""Who holds up whom: busy seconds of the stages of a job, and the CPU cores that encoding needs."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from gpu_worker.contract import Output

Item = TypeVar("Item")

#: The stages of a job, each in a thread of its own.
DECODE: Final = "decode"
NETWORKS: Final = "networks"
ENCODE: Final = "encode"

#: What one frame's encoding, conversion included, takes of a core for each 10^6 pixels: measured on grain, which is
#: what encoders work for (docs/benchmarks/encoders_cpu_2026-11-24.md).
CORE_SECONDS_PER_MEGAPIXEL: Final = {
    Output.H264: 0.05,
    Output.H265: 0.25,
    Output.PRORES: 0.1,
    Output.PNG: 0.07,
}

#: A stage that is busy for so much of the time is what the others wait for.
_HOLDS_UP: Final = 0.9


def encoder_cores(output: Output, width: int, height: int, frames_per_second: float) -> int:
    """CPU cores that an encoder needs to keep up with so many frames per second; at least 1."""
    seconds_per_frame = CORE_SECONDS_PER_MEGAPIXEL[output] * width * height / 1e6
    return max(1, math.ceil(seconds_per_frame * frames_per_second))


class Occupancy:
    """Busy seconds of each stage; threads may add at any time. Waiting for another stage is not busy."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()
        self._started_at = time.perf_counter()

    @contextmanager
    def busy(self, stage: str) -> Iterator[None]:
        """Counts what runs inside."""
        started_at = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - started_at)

    def counted(self, stage: str, items: Iterator[Item]) -> Iterator[Item]:
        """Yields the items and counts what making them takes, not what is done with them."""
        while True:
            with self.busy(stage):
                item = next(items, _END)
            if item is _END:
                return
            yield item  # type: ignore[misc]  # the end was sorted out

    def add(self, stage: str, seconds: float) -> None:
        """Counts seconds that were measured elsewhere."""
        with self._lock:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds

    @property
    def seconds(self) -> dict[str, float]:
        """Busy seconds by stage."""
        with self._lock:
            return dict(self._seconds)

    def shares(self, wall_seconds: float | None = None) -> dict[str, float]:
        """Each stage's share of the time since the start, or of the seconds given."""
        wall = wall_seconds or time.perf_counter() - self._started_at
        return {stage: seconds / wall for stage, seconds in self.seconds.items()}

    def bottleneck(self, wall_seconds: float | None = None) -> str:
        """A sentence about the stage that the others waited for; empty when none stood out."""
        shares = self.shares(wall_seconds)
        stage = max(shares, key=lambda name: shares[name], default=NETWORKS)
        if shares.get(stage, 0.0) < _HOLDS_UP:
            return ""
        share = min(1.0, shares[stage])
        return f"busy {share:.0%} of the time, so that the rest waited: {_SAYINGS.get(stage, stage)}"


_END: Final = object()
_SAYINGS: Final = {
    DECODE: "the decoder of the source: give the worker faster CPU cores",
    NETWORKS: "the networks, as it should be",
    ENCODE: "the encoder of the result: give the worker more CPU cores or choose a cheaper output",
}
