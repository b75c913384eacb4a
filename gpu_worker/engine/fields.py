"""Is a video interlaced, or film that was brought to 30 frames a second by repeating fields (telecine)?

What a file says about itself is often wrong in both directions, so the pictures decide. An interlaced frame is
two fields of different moments: its upper lines fit the lower lines of a neighboring frame as well as its own.
In telecined film every fifth frame or so repeats a field: of five frames one has the upper lines of the frame
before, and two or three frames on one has the lower lines.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import av.error
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from gpu_worker.engine.containers import open_source, video_stream
from gpu_worker.engine.errors import UNDECODABLE

#: The file is looked at in so many places, this many frames each: five rounds of the telecine's pattern.
_NUM_WINDOWS: Final = 8
_WINDOW_FRAMES: Final = 26
#: Nothing taller was ever interlaced.
_MAX_HEIGHT: Final = 1152
_PROGRESSIVE_CODECS: Final = frozenset({"vp8", "vp9", "av1", "gif", "png", "apng", "webp", "theora"})
#: Pixels compared in a frame; all lines are needed, columns are left out.
_MAX_SAMPLES: Final = 150_000
#: A pixel moves when it changes by more than this (of 255); a frame that hardly moves says nothing.
_MOVES: Final = 10
_LEAST_MOTION: Final = 0.002

Samples = NDArray[np.int16]


class Scan(enum.StrEnum):
    """How a video's frames were taken."""

    PROGRESSIVE = "progressive"
    INTERLACED = "interlaced"
    TELECINED = "telecined"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fields:
    """How the frames were taken, and which field of an interlaced frame came first."""

    scan: Scan = Scan.PROGRESSIVE
    is_top_first: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a frame and the next one say. `repeated` names the field that the next one has again."""

    is_progressive: bool
    is_top_first: bool
    repeated: str


def find_fields(path: Path) -> Fields:
    """Looks at some places of a file. Raises what ffmpeg raises for a file that cannot be read."""
    with open_source(path) as container:
        stream = video_stream(container)
        context = stream.codec_context
        if context.height > _MAX_HEIGHT or context.codec.canonical_name in _PROGRESSIVE_CODECS:
            return Fields()
        stream.thread_type = "AUTO"
        windows = [list(_verdicts(frames)) for frames in _windows(container, stream)]
    verdicts = [verdict for window in windows for verdict in window if verdict is not None]
    interlaced = [verdict for verdict in verdicts if not verdict.is_progressive]
    # Some frames of progressive video look interlaced by chance: stripes, flashes, the joints of shots.
    if len(interlaced) < max(3, 0.15 * len(verdicts)):
        return Fields()
    is_top_first = Counter(verdict.is_top_first for verdict in interlaced).most_common(1)[0][0]
    telling = [window for window in windows if sum(verdict is not None for verdict in window) > 10]
    telecined = [is_telecined(window) for window in telling]
    scan = Scan.TELECINED if telecined and sum(telecined) >= 0.75 * len(telecined) else Scan.INTERLACED
    return Fields(scan=scan, is_top_first=is_top_first)


def is_telecined(window: list[Verdict | None]) -> bool:
    """True when repeated fields stand in the telecine's pattern: one kind every five frames, the other between."""
    repeated = [(number, one.repeated) for number, one in enumerate(window) if one and one.repeated]
    fits = 0
    for phase in range(5):
        for distance in (2, 3):
            for first, second in (("top", "bottom"), ("bottom", "top")):
                expected = {phase: first, (phase + distance) % 5: second}
                fits = max(fits, sum(expected.get(number % 5) == field for number, field in repeated))
    # Two in five frames repeat a field, less those that do not move.
    num_told = sum(one is not None for one in window)
    return fits >= 0.8 * len(repeated) and fits >= 0.25 * num_told


def _windows(container: InputContainer, stream: VideoStream) -> Iterator[Iterable[VideoFrame]]:
    duration = container.duration or 0
    start = container.start_time or 0
    if duration < 30 * av.time_base:
        # Short enough to be read from its beginning.
        yield _frames(container, stream, _NUM_WINDOWS * _WINDOW_FRAMES)
        return
    for number in range(_NUM_WINDOWS):
        try:
            container.seek(start + duration * (2 * number + 1) // (2 * _NUM_WINDOWS))
        except av.error.FFmpegError:
            continue
        yield _frames(container, stream, _WINDOW_FRAMES)


def _frames(container: InputContainer, stream: VideoStream, count: int) -> Iterator[VideoFrame]:
    stream.codec_context.flush_buffers()
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except UNDECODABLE:
            continue
        for frame in frames:
            yield frame
            count -= 1
            if not count:
                return


def _verdicts(frames: Iterable[VideoFrame]) -> Iterator[Verdict | None]:
    samples = (_samples(frame) for frame in frames)
    for frame, following in pairwise(samples):
        yield judge(frame, following) if frame.shape == following.shape else None


def _samples(frame: VideoFrame) -> Samples:
    gray = frame.to_ndarray(format="gray")
    step = max(1, gray.size // _MAX_SAMPLES)
    even = gray[: gray.shape[0] // 2 * 2, ::step]
    return even.astype(np.int16)


def judge(frame: Samples, following: Samples) -> Verdict | None:
    """Compares a frame with the next one; None where that says nothing."""
    top, bottom, next_top, next_bottom = frame[::2], frame[1::2], following[::2], following[1::2]
    top_change, bottom_change = np.abs(next_top - top), np.abs(next_bottom - bottom)
    moves = (top_change > _MOVES) | (bottom_change > _MOVES)
    if moves[:-1].mean() < _LEAST_MOTION:
        return None
    own = _combing(top, bottom, moves)
    early = _combing(next_top, bottom, moves)
    late = _combing(top, next_bottom, moves)
    top_mean, bottom_mean = float(top_change.mean()), float(bottom_change.mean())
    is_progressive = own < 0.85 * min(early, late)
    if not is_progressive and max(early, late) < 1.2 * min(early, late):
        # With noise alone, or a flash, nothing fits better than anything else.
        return None
    repeated = "top" if 4 * top_mean < bottom_mean else "bottom" if 4 * bottom_mean < top_mean else ""
    return Verdict(is_progressive=is_progressive, is_top_first=early < late, repeated=repeated)


def _combing(top: Samples, bottom: Samples, moves: NDArray[np.bool_]) -> float:
    """How much the lower lines stand out between the upper lines around them, where something moves."""
    between = np.abs(top[:-1] + top[1:] - 2 * bottom[:-1])
    return float(between[moves[:-1]].mean()) + 1.0
