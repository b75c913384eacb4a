"""Where each frame stands in time, in exact fractions.

A stream whose frames stand on a regular grid (gaps allowed) leaves on that grid exactly, even when its
container could only round the moments (Matroska's milliseconds). Any other stream has a variable frame rate
and keeps every moment as it is.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

#: Rates that cameras and editors write; tried after what the file itself declares.
_COMMON_RATES: Final = tuple(
    Fraction(rate)
    for rate in (
        "24000/1001",
        "24",
        "25",
        "30000/1001",
        "30",
        "48",
        "50",
        "60000/1001",
        "60",
        "15",
        "12",
        "120",
    )
)
#: MP4 stores moments as multiples of a unit; this many units a second keep sound and picture together.
_MIN_UNITS: Final = 10_000
#: Nobody looks at a picture longer: files that say so have not been finished.
_MAX_LAST_SECONDS: Final = 60
#: A grid needs moments that are at least this much finer than its frames.
_MIN_TICKS_A_FRAME: Final = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """Turns a frame's timestamp in the source into ticks of `time_base` in the result.

    `source_unit` and `first` are the source's time base and its first frame's timestamp; `offset_seconds` is
    when that frame appears in the result. `rate` is None for a variable frame rate. `last_seconds` is how long the
    last frame is shown, 0 where the source does not say.
    """

    source_unit: Fraction
    first: int
    offset_seconds: Fraction
    rate: Fraction | None
    mean_rate: Fraction
    last_seconds: Fraction = Fraction(0)

    @property
    def time_base(self) -> Fraction:
        """The result's unit of time in seconds."""
        if self.rate is None:
            return self.source_unit
        units = self.rate.numerator
        return Fraction(1, units * -(-_MIN_UNITS // units))

    def ticks(self, timestamp: int) -> int:
        """Returns the frame's moment in the result, in units of `time_base`."""
        since_first = (timestamp - self.first) * self.source_unit
        if self.rate is not None:
            since_first = round(since_first * self.rate) / self.rate
        return round((self.offset_seconds + since_first) / self.time_base)

    @property
    def frame_ticks(self) -> int:
        """How long a frame lasts, for sources that give some of their frames no timestamp."""
        return max(1, round(1 / (self.mean_rate * self.time_base)))

    @property
    def last_frame_ticks(self) -> int:
        """How long the last frame is shown; as long as others where the source does not say."""
        if not 0 < self.last_seconds <= _MAX_LAST_SECONDS:
            return self.frame_ticks
        if self.rate is None:
            return max(1, round(self.last_seconds / self.time_base))
        return max(1, round(self.last_seconds * self.rate)) * self.frame_ticks


def find_timeline(
    timestamps: Iterable[int],
    *,
    unit: Fraction,
    declared_rates: Iterable[Fraction | None],
    start_seconds: Fraction,
    last_length: int = 0,
) -> Timeline:
    """Finds the grid on which the frames stand, if there is one.

    `timestamps` are those of all frames in units of `unit` seconds, in any order, and `last_length` is how long the
    last one is shown; `start_seconds` is the file's start, which becomes 0 in the result.
    """
    moments = array("q", sorted(timestamps))
    first = moments[0] if moments else 0
    declared = [rate for rate in declared_rates if rate]
    span = (moments[-1] - first) * unit if len(moments) > 1 else Fraction(0)
    mean = (len(moments) - 1) / span if span else (declared[0] if declared else Fraction(25))
    near = [rate for rate in _COMMON_RATES if abs(rate - mean) < mean / 500]
    grid = next((rate for rate in [*declared, *near] if _is_grid(moments, unit=unit, rate=rate)), None)
    return Timeline(
        source_unit=unit,
        first=first,
        offset_seconds=max(Fraction(0), first * unit - start_seconds),
        rate=grid,
        mean_rate=grid or mean,
        last_seconds=last_length * unit,
    )


def _is_grid(moments: array[int], *, unit: Fraction, rate: Fraction) -> bool:
    ticks_a_frame = 1 / (rate * unit)
    # A unit of exactly one frame (AVI) is a grid by itself.
    if ticks_a_frame != 1 and ticks_a_frame < _MIN_TICKS_A_FRAME:
        return False
    # Integers instead of fractions: this runs once for every frame of the file.
    top, bottom = ticks_a_frame.numerator, ticks_a_frame.denominator
    previous, filled = -1, 0
    for moment in moments:
        since_first = (moment - moments[0]) * bottom
        number = (2 * since_first + top) // (2 * top)
        # Both ends of a span may be rounded by half a tick.
        if abs(since_first - number * top) > bottom or number <= previous:
            return False
        previous, filled = number, filled + 1
    # A grid with mostly empty places (a slide show declared as 60 fps) is a variable rate.
    return previous < 2 * filled
