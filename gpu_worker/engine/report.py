"""What an engine tells the worker: JSON lines on standard output.

`{"frames": 12}` while it works, then either `{"report": {...}}` or `{"error": {"code": ..., "detail": ...}}`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from gpu_worker.contract import WorkerError
from gpu_worker.engine.video import Measured

#: Standard output is read by the worker: more lines than this help nobody.
_REPORT_SECONDS: Final = 0.25

OnFrame = Callable[[int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Restored:
    """What came out: the file as measured, and how many sound tracks could not be brought along."""

    measured: Measured
    num_audio_tracks_lost: int

    def to_json(self) -> dict[str, Any]:
        """Returns the report for the worker."""
        return {
            "width": self.measured.width,
            "height": self.measured.height,
            "num_frames": self.measured.num_frames,
            "frame_rate": str(self.measured.frame_rate),
            "duration_seconds": self.measured.duration_seconds,
            "num_audio_tracks": self.measured.num_audio_tracks,
            "num_audio_tracks_lost": self.num_audio_tracks_lost,
        }


def report_to_worker(restore: Callable[[OnFrame], Restored]) -> int:
    """Runs a restoration and reports it line by line; returns 0 when it succeeded."""
    try:
        restored = restore(_reporter())
    except WorkerError as error:
        _say({"error": {"code": error.code.value, "detail": error.detail}})
        return 1
    _say({"report": restored.to_json()})
    return 0


def _reporter() -> OnFrame:
    said_at = 0.0

    def report(num_frames: int) -> None:
        nonlocal said_at
        now = time.monotonic()
        if now - said_at >= _REPORT_SECONDS:
            said_at = now
            _say({"frames": num_frames})

    return report


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
