"""Finds the cuts of a video while it streams by; it holds two frames, however long the video is.

The measure: the mean difference in brightness between two small frames, 0..255. A frame starts a shot when
it differs from the frame before

- by at least `_LEAST`, which noise and grain do not reach once a frame is small,
- by `_FACTOR` times what is usual in this shot (the median of its last differences), which movement does
  not reach because it is usual then, and
- lastingly: the frame after it differs from the frame before as well, which a flash does not.

Dissolves are no cuts: no two frames of one differ enough, and the picture has no frame where it begins.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

#: A small frame `[height, width]` of brightness, 0..255.
Luma = NDArray[np.uint8]
Item = TypeVar("Item")

#: Width and height of a small frame: large enough for the picture, too small for its noise.
LUMA_SIZE: Final = (48, 27)
_LEAST: Final = 12.0
_FACTOR: Final = 4.0
#: What counts as usual at the start of a shot, before its own differences are known.
_USUAL_AT_FIRST: Final = 6.0
_NUM_REMEMBERED: Final = 12


def difference(one: Luma, other: Luma) -> float:
    """The mean absolute difference of two small frames, 0..255; frames of two sizes differ by 255."""
    if one.shape != other.shape:
        return 255.0
    return float(np.abs(one.astype(np.int16) - other).mean())


def number_shots(frames: Iterable[tuple[Item, Luma]]) -> Iterator[tuple[Item, int]]:
    """Yields each item with the number of its shot, from 0 on; it looks one frame ahead."""
    shot, usual = 0, _Usual()
    before: Luma | None = None
    for (item, luma), after in _with_next(frames):
        found = 0.0 if before is None else difference(before, luma)
        if before is None or found < usual.limit:
            before = luma
            usual.add(found)
        # Nothing follows the last frame: what it shows lasts to the end.
        elif after is None or difference(before, after[1]) >= usual.limit:
            shot, usual, before = shot + 1, _Usual(), luma
        # A flash is left out: the frame after it continues what was before.
        yield item, shot


class _Usual:
    """The differences that are usual in one shot."""

    def __init__(self) -> None:
        self._differences: deque[float] = deque([_USUAL_AT_FIRST] * 3, maxlen=_NUM_REMEMBERED)

    @property
    def limit(self) -> float:
        """A cut differs by at least this much."""
        return max(_LEAST, _FACTOR * statistics.median(self._differences))

    def add(self, found: float) -> None:
        """Notes the difference between two frames of the shot."""
        self._differences.append(found)


def _with_next(
    frames: Iterable[tuple[Item, Luma]],
) -> Iterator[tuple[tuple[Item, Luma], tuple[Item, Luma] | None]]:
    waiting: tuple[Item, Luma] | None = None
    for frame in frames:
        if waiting is not None:
            yield waiting, frame
        waiting = frame
    if waiting is not None:
        yield waiting, None
