"""Divides a video into segments while its frames stream by: the unit of work, of upload and of going on later.

The division follows from the frames and the job alone, so every process that reads the same file finds the same
segments, whoever computes which of them. Frames are counted from 0 through the whole video.

- A segment ends at the first cut once it has `segment_frames` frames.
- Without a cut it ends in mid-shot after twice as many, where a latent of the shot ends: a shot's first frame is
  one latent, each further four frames are one more.
- Segments end as well at the ends of `pins` and of `span`, moved on to where a latent ends.

The frames of a segment come in parts, one for each shot, for nothing crosses a cut. Where a border lies in
mid-shot, the part before it and the part after it are given frames beyond it, as context: engines compute the
same values around the border on both sides, and leave the context out of the result.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from gpu_worker.contract import ErrorCode, Frames, WorkerError
from gpu_worker.engine.job import EngineJob, SegmentSpan
from gpu_worker.engine.planner import FRAMES_PER_LATENT, num_latents

Item = TypeVar("Item")

#: Latents on each side of a border in mid-shot that both its sides compute from the same frames.
JOINT_LATENTS: Final = 4
#: Latents before those, from which the encoder's memory fills.
_WARM_UP_LATENTS: Final = 3
#: The first latent of a stream is a single frame.
CONTEXT_BEFORE: Final = 1 + FRAMES_PER_LATENT * (_WARM_UP_LATENTS + JOINT_LATENTS)
CONTEXT_AFTER: Final = FRAMES_PER_LATENT * JOINT_LATENTS
#: Shorter segments would be more context than result.
MIN_SEGMENT_FRAMES: Final = 16


class Role(enum.Enum):
    """What a frame is to a part: context on either side, or a frame that the part brings into the result."""

    BEFORE = "before"
    OWN = "own"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Placed(Generic[Item]):
    """A frame with its place: number, the shot's first frame and latent, the segment's number and first frame.

    Latents are counted through the whole video. `is_wanted` is False for frames outside of the job's span.
    """

    item: Item
    number: int
    shot_start: int
    shot_first_latent: int
    segment: int
    segment_start: int
    is_wanted: bool

    def shares_shot(self, other: Placed[Item]) -> bool:
        """True when no cut lies between two frames."""
        return self.shot_start == other.shot_start


def place(frames: Iterable[tuple[Item, Hashable]], job: EngineJob) -> Iterator[Placed[Item]]:
    """Yields each frame with its place, from frames with a key of their shot; ends soon after the job's span.

    Raises `WorkerError` when the span lies behind the end of the video.
    """
    borders = _Borders(job)
    shot_start = shot_first_latent = segment_start = 0
    segment, number, key = 0, -1, None
    num_wanted = num_after = 0
    for number, (item, its_key) in enumerate(frames):
        starts_shot = number == 0 or its_key != key
        if starts_shot:
            shot_first_latent += num_latents(number - shot_start) if number else 0
            shot_start, key = number, its_key
        can_end = starts_shot or (number - shot_start) % FRAMES_PER_LATENT == 1
        if can_end and borders.is_due(number, starts_shot=starts_shot, segment_start=segment_start):
            segment, segment_start = segment + 1, number
        is_wanted = borders.is_inside(segment_start)
        num_wanted += is_wanted
        num_after += num_wanted > 0 and not is_wanted
        if num_after > CONTEXT_AFTER:
            return
        yield Placed(item, number, shot_start, shot_first_latent, segment, segment_start, is_wanted)
    if not num_wanted:
        raise WorkerError(ErrorCode.INVALID_REQUEST, f"no frame of {job.span}; the video has {number + 1}")


class _Borders:
    """Says where segments end, one frame after the other."""

    def __init__(self, job: EngineJob) -> None:
        ranges = [*job.pins, *([job.span] if job.span else [])]
        self._pinned = deque(sorted({end for pair in ranges for end in pair}))
        self._span: Frames | None = job.span
        self._least = max(MIN_SEGMENT_FRAMES, job.segment_frames)

    def is_due(self, number: int, *, starts_shot: bool, segment_start: int) -> bool:
        """True when a segment begins with this frame, at which the one before can end."""
        is_pinned = False
        while self._pinned and self._pinned[0] <= number:
            self._pinned.popleft()
            is_pinned = True
        length = number - segment_start
        is_long_enough = length >= (self._least if starts_shot else 2 * self._least)
        return length > 0 and (is_pinned or is_long_enough)

    def is_inside(self, segment_start: int) -> bool:
        """True for a segment of the job's span; both ends of the span are ends of segments."""
        return self._span is None or self._span[0] <= segment_start < self._span[1]


class Segments(Generic[Item]):
    """Yields the segments of a video in order; each has to be read, or is skipped, before the next one comes.

    It holds `CONTEXT_BEFORE` + `CONTEXT_AFTER` frames, however long the video is.
    """

    def __init__(self, frames: Iterable[Placed[Item]]) -> None:
        self._frames = iter(frames)
        self._ahead: deque[Placed[Item]] = deque()
        self._behind: deque[Placed[Item]] = deque(maxlen=CONTEXT_BEFORE)

    def __iter__(self) -> Iterator[Segment[Item]]:
        while (first := self.peek()) is not None:
            segment = Segment(self, first)
            yield segment
            segment.skip()

    def peek(self, index: int = 0) -> Placed[Item] | None:
        """Returns a frame that is still to come, None behind the last."""
        while len(self._ahead) <= index:
            frame = next(self._frames, None)
            if frame is None:
                return None
            self._ahead.append(frame)
        return self._ahead[index]

    def take(self) -> Placed[Item]:
        """Returns the next frame and keeps it for a while as context."""
        frame = self._ahead.popleft()
        self._behind.append(frame)
        return frame

    def before(self, first: Placed[Item]) -> list[Placed[Item]]:
        """The frames of the same shot in front of the next one: all of them, or `CONTEXT_BEFORE`."""
        return [frame for frame in self._behind if frame.shares_shot(first)]


class Segment(Generic[Item]):
    """One segment on its way. `index` and `start` are known from the beginning, `end` when all frames were read."""

    def __init__(self, frames: Segments[Item], first: Placed[Item]) -> None:
        self._frames = frames
        self.index = first.segment
        self.start = first.segment_start
        self.is_wanted = first.is_wanted
        self.end = self.start

    @property
    def span(self) -> SegmentSpan:
        """Its number and frames; complete when all of them were read or skipped."""
        return SegmentSpan(index=self.index, start=self.start, end=self.end)

    def parts(self) -> Iterator[Part[Item]]:
        """Yields its shots' parts in order; each has to be read before the next one comes."""
        while (first := self.next_own()) is not None:
            yield Part(self, first, self._frames.before(first))

    def skip(self) -> None:
        """Reads what is left and throws it away."""
        while self.next_own() is not None:
            self.take()

    @property
    def item_behind(self) -> Item | None:
        """The frame that follows the segment, once all of its own were read; None behind the last."""
        frame = self._frames.peek()
        return None if frame is None else frame.item

    def next_own(self) -> Placed[Item] | None:
        """Returns the next frame of this segment without taking it."""
        frame = self._frames.peek()
        return frame if frame is not None and frame.segment == self.index else None

    def take(self) -> Placed[Item]:
        """Takes the next frame of this segment."""
        frame = self._frames.take()
        self.end = frame.number + 1
        return frame

    def after(self, last: Placed[Item]) -> Iterator[Placed[Item]]:
        """The frames behind this segment that go on with the same shot, `CONTEXT_AFTER` at most."""
        for index in range(CONTEXT_AFTER):
            frame = self._frames.peek(index)
            if frame is None or not frame.shares_shot(last):
                return
            yield frame


class Part(Generic[Item]):
    """The frames of one shot in one segment, context included.

    `first_latent` is the number of the latent of its first frame, context included, in the whole video.
    `num_before` frames of context come first: none, or one more than a multiple of four.
    """

    def __init__(self, segment: Segment[Item], first: Placed[Item], before: list[Placed[Item]]) -> None:
        self._segment = segment
        self._first = first
        self._before = before
        self.num_before = len(before)
        # The stream begins with a single frame: the shot's first, or the last one of a latent.
        in_shot = first.number - self.num_before - first.shot_start
        self.first_latent = first.shot_first_latent + in_shot // FRAMES_PER_LATENT

    def frames(self) -> Iterator[tuple[Item, Role]]:
        """Yields each frame with its role: before, own, after."""
        for context in self._before:
            yield context.item, Role.BEFORE
        last = self._first
        while (frame := self._segment.next_own()) is not None and frame.shares_shot(last):
            last = self._segment.take()
            yield last.item, Role.OWN
        if self._segment.next_own() is None:
            for beyond in self._segment.after(last):
                yield beyond.item, Role.AFTER


class Turns:
    """Says which segments a rank computes: of those of the job's span that are not done, each rank in turn takes one.

    It has to be asked about the segments in their order, about each as often as one likes.
    """

    def __init__(self, job: EngineJob, *, rank: int, world: int) -> None:
        self._done = {(span.index, span.start): span.end for span in job.done}
        self._rank = rank
        self._world = world
        self._num_open = 0
        self._index = -1
        self._is_mine = False

    def is_mine(self, index: int, start: int, *, is_wanted: bool) -> bool:
        """True for a segment that this rank computes."""
        if index != self._index:
            is_open = is_wanted and self.known_end(index, start) is None
            self._index = index
            self._is_mine = is_open and self._num_open % self._world == self._rank
            self._num_open += is_open
        return self._is_mine

    def known_end(self, index: int, start: int) -> int | None:
        """The end of a segment that is done, None for the others."""
        return self._done.get((index, start))


def assigned(segments: Iterable[Segment[Item]], turns: Turns) -> Iterator[tuple[Segment[Item], bool]]:
    """Yields every segment of the job's span, and whether this rank computes it.

    Raises `WorkerError` when a segment that is done ends elsewhere than this video says.
    """
    for segment in segments:
        if not segment.is_wanted:
            continue
        yield segment, turns.is_mine(segment.index, segment.start, is_wanted=True)
        segment.skip()
        known_end = turns.known_end(segment.index, segment.start)
        if known_end not in (None, segment.end):
            raise WorkerError(
                ErrorCode.ENGINE_FAILED,
                f"segment {segment.index} ends at frame {segment.end}; what was done ends at {known_end}",
            )
