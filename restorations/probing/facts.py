"""What a probe says about a file: facts, or the reason why it cannot be restored."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass, field
from typing import Any, Final, Self

#: No picture that is restored has a longer side; `gpu_worker.contract` has the same bound.
MAX_SIDE: Final = 8192
MIN_SIDE: Final = 16
_MAX_TRACKS: Final = 64


class Unrestorable(Exception):
    """A file cannot be restored; `reason` is a value of `restorations.rejections.Rejection`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a probe found; the names are those of `Video`'s fields."""

    container: str
    codec: str
    coded_width: int
    coded_height: int
    width: int
    height: int
    rotation: int
    sample_aspect_ratio: str
    frame_rate: str
    is_variable_frame_rate: bool
    num_frames: int
    duration_seconds: float
    is_interlaced: bool
    is_image: bool
    has_alpha: bool
    pixel_format: str
    bit_depth: int
    color: dict[str, int]
    audio_tracks: list[dict[str, Any]] = field(default_factory=list)
    subtitle_tracks: list[dict[str, Any]] = field(default_factory=list)
    is_playable: bool

    def to_json(self) -> dict[str, Any]:
        """Returns the facts as a JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> Self:
        """Reads what a probe wrote; raises `ValueError` for facts that no honest probe finds.

        The process that wrote them has read a stranger's file: nothing that it says is believed unseen.
        """
        if not isinstance(said, dict) or set(said) != {item.name for item in dataclasses.fields(cls)}:
            raise ValueError("the fields are not those of Facts")
        facts = cls(**said)
        for name in ("container", "codec", "pixel_format"):
            _require(isinstance(said[name], str) and len(said[name]) <= 60, name)
        for name in ("coded_width", "coded_height"):
            _require_number(said[name], name, low=MIN_SIDE, high=MAX_SIDE)
        for name in ("width", "height"):
            _require_number(said[name], name, low=1, high=2**20)
        _require(said["rotation"] in (0, 90, 180, 270), "rotation")
        _require_number(said["num_frames"], "num_frames", low=1, high=2**31 - 1)
        _require_number(said["bit_depth"], "bit_depth", low=1, high=32)
        seconds = said["duration_seconds"]
        _require(isinstance(seconds, float | int) and math.isfinite(seconds) and seconds >= 0, "duration")
        for name in ("frame_rate", "sample_aspect_ratio"):
            _require(bool(re.fullmatch(r"[1-9]\d{0,13}/[1-9]\d{0,13}", str(said[name]))), name)
        for name in ("is_variable_frame_rate", "is_interlaced", "is_image", "has_alpha", "is_playable"):
            _require(isinstance(said[name], bool), name)
        for name in ("audio_tracks", "subtitle_tracks"):
            _require(isinstance(said[name], list) and len(said[name]) <= _MAX_TRACKS, name)
        _require(isinstance(said["color"], dict) and len(said["color"]) <= 8, "color")
        return facts


def _require(condition: bool, name: str) -> None:
    if not condition:
        raise ValueError(f"{name} is not what a probe finds")


def _require_number(value: object, name: str, *, low: int, high: int) -> None:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    _require(is_number and low <= value <= high, name)  # type: ignore[operator]
