"""Upright, progressive frames out of a source's frames, in its own pixel format.

Interlaced frames are interpolated (bwdif), one for one. Telecined film gets its frames back: fields that belong
together are matched, and of every five frames the one that is there twice is left out. Then `5n + r` frames of
the file are `4n + r` frames of film, each at its moment on the film's own grid.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from gpu_worker.engine.fields import Fields, Scan
from gpu_worker.engine.filters import Filter, FilterChain, Shape, upright
from gpu_worker.engine.side_data import Orientation

#: A frame and its moment in ticks.
Moment = tuple[VideoFrame, int]
Luma = NDArray[Any]

_CYCLE: Final = 5
_BLOCK: Final = 32


def upright_frames(
    frames: Iterable[Moment],
    fields: Fields,
    *,
    frame_ticks: int,
    orientation_of: Callable[[Shape], Orientation],
) -> Iterator[Moment]:
    """Yields the frames upright and progressive. `frame_ticks` is how long a frame of the result lasts."""
    filtered = _filtered(frames, fields, orientation_of)
    if fields.scan is Scan.TELECINED:
        return without_repeats(filtered, frame_ticks=frame_ticks)
    return filtered


def num_progressive(num_frames: int, fields: Fields) -> int:
    """Returns how many progressive frames come of a source's frames."""
    if fields.scan is Scan.TELECINED:
        return num_frames - num_frames // _CYCLE
    return num_frames


def _filtered(
    frames: Iterable[Moment], fields: Fields, orientation_of: Callable[[Shape], Orientation]
) -> Iterator[Moment]:
    chain = FilterChain(
        lambda shape: [*_progressive(fields), *upright(orientation_of(shape))],
        num_repeats=1 if fields.scan is Scan.TELECINED else 0,
    )
    # Filters hold frames back but keep their order and number, so the moments wait in a line.
    moments: deque[int] = deque()
    for frame, ticks in frames:
        moments.append(ticks)
        for ready in chain.push(frame):
            yield ready, moments.popleft()
    for ready in chain.finish():
        yield ready, moments.popleft()


def _progressive(fields: Fields) -> list[Filter]:
    parity = "tff" if fields.is_top_first else "bff"
    if fields.scan is Scan.INTERLACED:
        return [("bwdif", f"mode=send_frame:parity={parity}:deint=all")]
    if fields.scan is Scan.TELECINED:
        # ffmpeg 8.1's fieldmatch knows 8 bits only; with `ppsrc` and a deeper clean source it leaves every fifth
        # frame combed. Where no match is clean (an edit within the pattern), what is left of the combs is interpolated.
        return [
            ("format", "pix_fmts=yuv420p|yuv422p|yuv444p"),
            ("fieldmatch", f"order={parity}:mode=pc_n:combmatch=full"),
            ("bwdif", f"mode=send_frame:parity={parity}:deint=interlaced"),
        ]
    return []


def without_repeats(frames: Iterator[Moment], *, frame_ticks: int) -> Iterator[Moment]:
    """Leaves out the most repeated of every five frames; the others stand evenly from the first one's moment."""
    previous: Luma | None = None
    free = 0
    while cycle := list(islice(frames, _CYCLE)):
        start = max(cycle[0][1], free)
        lumas: list[Luma] = [frame.to_ndarray(format="gray") for frame, _ in cycle]
        kept = [frame for frame, _ in cycle]
        if len(cycle) == _CYCLE:
            changes = [change(one, other) for one, other in zip([previous, *lumas], lumas, strict=False)]
            del kept[changes.index(min(changes))]
        previous = lumas[-1]
        for number, frame in enumerate(kept):
            yield frame, start + number * frame_ticks
        free = start + (len(kept) - 1) * frame_ticks + 1


def change(one: Luma | None, other: Luma) -> float:
    """The greatest change of a block: a small thing that moves counts as much as a whole picture."""
    if one is None or one.shape != other.shape:
        return float("inf")
    difference = np.abs(one.astype(np.int32) - other)
    rows, columns = (range(0, side, _BLOCK) for side in difference.shape)
    return float(np.add.reduceat(np.add.reduceat(difference, rows, axis=0), columns, axis=1).max())
