"""What the worker asks its ranks for, and what they tell while they work.

Shared by the parent, which has no PyTorch, and by the ranks: only the standard library and the contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol, Self

from gpu_worker.contract import MAX_STRENGTH, ColorFix, Document, Frames, Output, SegmentPlan

#: Frames of a segment where a request does not say.
SEGMENT_FRAMES: Final = 120


class Cancelled(Exception):
    """The job was cancelled; raised by `Events.check` and passed through to whoever called."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentSpan(Document):
    """A segment's number and its frames, `start` to `end` (exclusive), counted in the whole video."""

    index: int
    start: int
    end: int

    @property
    def num_frames(self) -> int:
        """How many frames the segment has."""
        return self.end - self.start


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineJob(Document):
    """One video for all ranks: source, settings, segment plan.

    Segments go into `folder`. Those of `done` exist already: a rank leaves a segment out when its number, start
    and end equal one of them. `span` makes these frames alone; `pins` are ranges at whose ends segments end as
    well. `sp_size` is how many ranks may share one job. `memory_gib` bounds the memory instead of what is free.
    `plan` is how the last segment of `done` was made, for the others to look like it.
    """

    source: Path
    folder: Path
    model: str
    width: int
    height: int
    seed: int = 0
    strength: int = MAX_STRENGTH
    color_fix: ColorFix = ColorFix.WAVELET
    output: Output = Output.H264
    sp_size: int = 1
    segment_frames: int = SEGMENT_FRAMES
    span: Frames | None = None
    pins: tuple[Frames, ...] = ()
    done: tuple[SegmentSpan, ...] = ()
    memory_gib: float | None = None
    plan: SegmentPlan | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the job as a JSON object."""
        paths = {"source": str(self.source), "folder": str(self.folder)}
        return {**Document.to_json(self), **paths}

    @classmethod
    def from_json(cls, document: object) -> Self:
        """Reads a job. Raises `ContractError`."""
        if isinstance(document, Mapping):
            paths = {name: Path(str(document.get(name))) for name in ("source", "folder")}
            document = {**document, **paths}
        return cls(**cls.read_fields(document))

    def without(self, done: tuple[SegmentSpan, ...]) -> Self:
        """Returns the same job with other segments that exist already."""
        return replace(self, done=done)


@dataclass(frozen=True, kw_only=True, slots=True)
class Done(Document):
    """What a rank knows when a job is at its end.

    `segments` are all of the job, in order: those left out and those of other ranks as well. `span_ticks` is the
    job's `span` in ticks of the result, for the join. `seconds` are the busy seconds of the stages, `bottleneck`
    is a sentence when one of them held up the others, `peak_bytes` the most memory held on the device.
    """

    segments: tuple[SegmentSpan, ...]
    num_frames: int
    span_ticks: Frames | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    bottleneck: str = ""
    peak_bytes: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class JoinJob(Document):
    """What is to be joined: all segments of a result, in order, and the source with its sound.

    The result's name is `result` with the ending that its format has. `span_ticks` as in `Done`.
    """

    source: Path
    result: Path
    segments: tuple[str, ...]
    width: int
    height: int
    output: Output
    span_ticks: Frames | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the job as a JSON object."""
        return {**Document.to_json(self), "source": str(self.source), "result": str(self.result)}

    @classmethod
    def from_json(cls, document: object) -> Self:
        """Reads a job. Raises `ContractError`."""
        if isinstance(document, Mapping):
            paths = {name: Path(str(document.get(name))) for name in ("source", "result")}
            document = {**document, **paths}
        return cls(**cls.read_fields(document))


@dataclass(frozen=True, kw_only=True, slots=True)
class JoinReport(Document):
    """The result as measured; the fields are those of the contract's `Manifest`."""

    path: str
    media_type: str
    bit_depth: int
    width: int
    height: int
    num_frames: int
    frame_rate: str
    duration_seconds: float
    num_audio_tracks: int
    num_audio_tracks_lost: int
    num_subtitle_tracks: int
    num_subtitle_tracks_lost: int
    lost: tuple[str, ...]
    start_seconds: float


class Events(Protocol):
    """What an engine's job on one rank calls; all methods may be called from any thread."""

    def expect(self, num_frames: int) -> None:
        """Tells how many frames will come out of a whole video, as soon as it has been looked through."""

    def frames(self, num_done: int) -> None:
        """Tells how many frames of this job this rank has finished; those left out do not count."""

    def segment(self, span: SegmentSpan, path: Path, plan: SegmentPlan | None) -> None:
        """Tells that a segment's file is complete and closed, and how it was fitted into the memory."""

    def check(self) -> None:
        """Tells that this rank moves on, and raises `Cancelled` when the job was cancelled.

        A rank that neither checks nor tells of frames for minutes counts as stuck, so call this where the work
        is done, not where a thread waits for another. Threads that wait look at `is_cancelled`.
        """

    @property
    def is_cancelled(self) -> bool:
        """True once the job was cancelled."""
