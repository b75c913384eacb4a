"""One job on one rank, whatever the engine: read, divide into segments, restore, encode, all at the same time.

    reader thread --pictures--> segments --parts--> engine (this thread) --frames--> one encoder thread a segment

Queues between the threads are short, so memory does not grow with the video, and a slow stage holds up the one
before it and nothing else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from av.video.frame import VideoFrame

from gpu_worker.contract import ErrorCode, Frames, WorkerError
from gpu_worker.engine.cuts import number_shots
from gpu_worker.engine.errors import writing
from gpu_worker.engine.formats import ResultFormat
from gpu_worker.engine.handover import Abandoned, Handover
from gpu_worker.engine.job import Done, EngineJob, Events, SegmentSpan
from gpu_worker.engine.pictures import Picture, Pixels
from gpu_worker.engine.segment_writer import SegmentWriter
from gpu_worker.engine.segments import Part, Placed, Segment, Segments, assigned, place
from gpu_worker.engine.video import VideoSource

#: Pictures that wait between two stages may take so many bytes, and are so many at the least and at the most.
_WAITING_BYTES: Final = 256 * 1024 * 1024
_WAITING_PICTURES: Final = (4, 32)
#: Segments whose last frames are being encoded while the engine is at a later one.
_MAX_ENCODING: Final = 2
#: A stage that is busy for this share of the time is what the others wait for.
_BUSY_SHARE: Final = 0.9


@dataclass(frozen=True, slots=True)
class Made:
    """A restored frame on its way to the encoder: `picture` waits for the device where it has to."""

    picture: Callable[[], Pixels | VideoFrame]
    ticks: int
    alpha: Pixels | None = None


class PartRestorer(Protocol):
    """An engine set up for one job."""

    @property
    def peak_bytes(self) -> int:
        """The most memory that the job has held on the device so far."""

    def restore(self, part: Part[Picture], *, check: Callable[[], None]) -> Iterator[Made]:
        """Yields the part's own frames restored, in order; calls `check` whenever work was done."""


class Engine(Protocol):
    """What restores pictures; made once per process by `load`, and used for one job after the other."""

    @property
    def cold_start(self) -> Mapping[str, float]:
        """The phases of its start in seconds, and what was loaded."""

    @property
    def gpu_name(self) -> str:
        """The device's name, empty without one."""

    @property
    def held_bytes(self) -> int:
        """Bytes of weights on the device."""

    def begin(self, job: EngineJob, source: VideoSource, result_format: ResultFormat) -> PartRestorer:
        """Prepares a job. Raises `WorkerError`."""


def load(
    engine: str, *, model: str, weights: Path | None, rank: int = 0, world: int = 1, local_rank: int = 0
) -> Engine:
    """Returns an engine that is ready to work: `cpu`, or `seedvr2` with a model's weights.

    Ranks need nothing of each other: `local_rank` is the number of this one's GPU. Raises `WorkerError`.
    """
    if engine == "cpu":
        from gpu_worker.engine.cpu import CpuEngine

        return CpuEngine()
    if engine == "seedvr2":
        # PyTorch is for ranks with networks only.
        from gpu_worker.engine.seedvr2 import SeedVR2Engine

        return SeedVR2Engine(model=model, weights=weights, local_rank=local_rank)
    raise WorkerError(ErrorCode.ENGINE_FAILED, f"the engine is {engine!r}; there are cpu and seedvr2")


def run(job: EngineJob, engine: Engine, *, rank: int, world: int, events: Events) -> Done:
    """Restores this rank's segments of a video into files.

    All threads have ended when this returns or raises: `WorkerError`, or `Cancelled` from `events.check`.
    """
    started_at = time.perf_counter()
    with closing(VideoSource(job.source)) as source:
        result_format = ResultFormat.of(source, job.output, width=job.width, height=job.height)
        restorer = engine.begin(job, source, result_format)
        work = _Work(job, restorer, result_format, events)
        with _reading(source, job, events) as reading:
            segments = Segments(reading.pictures)
            with work.encoding():
                for segment, is_mine in assigned(segments, job, rank=rank, world=world):
                    work.do(segment, is_mine=is_mine)
        return work.done(reading, seconds=time.perf_counter() - started_at)


class _Reading:
    """The reader's thread: decodes, finds cuts, says where each picture belongs."""

    def __init__(self, source: VideoSource, job: EngineJob, events: Events) -> None:
        self.pictures: Handover[Placed[Picture]] = Handover(
            _num_waiting(source), is_cancelled=lambda: events.is_cancelled
        )
        self.seconds = 0.0
        self.thread = threading.Thread(target=self._read, args=(source, job), name="reader", daemon=True)

    def _read(self, source: VideoSource, job: EngineJob) -> None:
        started_at = time.perf_counter()
        error: BaseException | None = None
        try:
            numbered = number_shots(source.pictures())
            # A picture of another size cannot share a shot, whatever it shows.
            for placed in place(((picture, (shot, picture.size)) for picture, shot in numbered), job):
                self.pictures.put(placed)
        except Abandoned:
            pass
        except BaseException as raised:  # whatever it is, it is raised again where the pictures are read
            error = raised
        self.seconds = time.perf_counter() - started_at - self.pictures.waited_to_put
        self.pictures.end(error)


@contextmanager
def _reading(source: VideoSource, job: EngineJob, events: Events) -> Iterator[_Reading]:
    reading = _Reading(source, job, events)
    reading.thread.start()
    try:
        yield reading
    finally:
        reading.pictures.abandon()
        reading.thread.join()


def _num_waiting(source: VideoSource) -> int:
    channels = 3 * (2 if source.is_deep else 1)
    least, most = _WAITING_PICTURES
    return max(least, min(most, _WAITING_BYTES // (source.width * source.height * channels)))


class _Work:
    """The rank's segments, one after the other; their encoders lag behind."""

    def __init__(
        self, job: EngineJob, restorer: PartRestorer, result_format: ResultFormat, events: Events
    ) -> None:
        self._job = job
        self._restorer = restorer
        self._format = result_format
        self._events = events
        self._spans: list[SegmentSpan] = []
        self._encoders: list[_Encoder] = []
        self._frames = _Frames(events)
        self._ticks: list[int] = []
        self._seconds = {"restore": 0.0, "encode": 0.0}

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """Waits at the end for the encoders; after an error it stops them."""
        try:
            yield
            while self._encoders:
                self._finish_oldest()
        finally:
            for encoder in self._encoders:
                encoder.stop()

    def do(self, segment: Segment[Picture], *, is_mine: bool) -> None:
        """Restores a segment, or leaves it out."""
        self._events.check()
        if is_mine:
            self._restore(segment)
        else:
            self._skip(segment)
        self._spans.append(segment.span)

    def _restore(self, segment: Segment[Picture]) -> None:
        while len(self._encoders) >= _MAX_ENCODING:
            self._finish_oldest()
        path = self._job.folder / f"{segment.index:05d}{self._format.segment_suffix}"
        encoder = _Encoder(path, self._format, segment, self._frames, self._events)
        self._encoders.append(encoder)
        try:
            for part in segment.parts():
                frames = self._restorer.restore(part, check=self._events.check)
                for made in self._timed(frames):
                    self._note_ticks(made.ticks)
                    encoder.frames.put(made)
        except Abandoned:
            # It gave up: raises what went wrong there.
            encoder.finish()
        behind = segment.item_behind
        encoder.end(end_ticks=None if behind is None else behind.ticks)

    def _skip(self, segment: Segment[Picture]) -> None:
        while (frame := segment.next_own()) is not None:
            self._note_ticks(frame.item.ticks)
            segment.take()
            # The engine rests, but this rank moves on.
            self._events.check()

    def _timed(self, frames: Iterable[Made]) -> Iterator[Made]:
        """Counts the time inside the engine; what it waits for pictures is taken off at the end."""
        iterator = iter(frames)
        while True:
            started_at = time.perf_counter()
            made = next(iterator, None)
            self._seconds["restore"] += time.perf_counter() - started_at
            if made is None:
                return
            yield made

    def _note_ticks(self, ticks: int) -> None:
        if not self._ticks:
            self._ticks = [ticks, ticks]
        self._ticks[1] = ticks + self._format.frame_ticks

    def _finish_oldest(self) -> None:
        encoder = self._encoders[0]
        encoder.finish()
        self._encoders.pop(0)
        self._seconds["encode"] += encoder.busy_seconds

    def done(self, reading: _Reading, *, seconds: float) -> Done:
        """What this rank knows at the end."""
        busy = {
            "decode": reading.seconds,
            "restore": self._seconds["restore"] - reading.pictures.waited_to_get,
            "encode": self._seconds["encode"],
            "total": seconds,
        }
        span: Frames | None = None
        if self._job.span is not None and self._ticks:
            span = (self._ticks[0], self._ticks[1])
        return Done(
            segments=tuple(self._spans),
            num_frames=sum(one.num_frames for one in self._spans),
            span_ticks=span,
            seconds={name: round(max(0.0, value), 3) for name, value in busy.items()},
            bottleneck=bottleneck(busy),
            peak_bytes=self._restorer.peak_bytes,
        )


class _Frames:
    """Counts the frames that this rank has finished, over all encoders."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._lock = threading.Lock()
        self._num_done = 0

    def add(self) -> None:
        with self._lock:
            self._num_done += 1
            self._events.frames(self._num_done)


class _Encoder:
    """One segment's encoder on a thread of its own."""

    def __init__(
        self,
        path: Path,
        result_format: ResultFormat,
        segment: Segment[Picture],
        done: _Frames,
        events: Events,
    ) -> None:
        least, _most = _WAITING_PICTURES
        self.frames: Handover[Made] = Handover(2 * least, is_cancelled=lambda: events.is_cancelled)
        self.busy_seconds = 0.0
        self._path = path
        self._format = result_format
        self._segment = segment
        self._done = done
        self._events = events
        self._end_ticks: int | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._encode, name=f"encoder-{path.stem}", daemon=True)
        self._thread.start()

    def end(self, *, end_ticks: int | None) -> None:
        """Says that all frames were handed over; the last one lasts until `end_ticks`."""
        self._end_ticks = end_ticks
        self.frames.end()

    def finish(self) -> None:
        """Waits until the file is complete. Raises what went wrong."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Ends the thread, whatever it is at."""
        self.frames.abandon()
        self.frames.end(Abandoned())
        self._thread.join()

    def _encode(self) -> None:
        try:
            with (
                writing(),
                closing(SegmentWriter(self._path, self._format, first_frame=self._segment.start)) as writer,
            ):
                for made in self.frames:
                    writer.write(made.picture(), made.ticks, alpha=made.alpha)
                    self._done.add()
                writer.finish(self._end_ticks)
                self.busy_seconds = writer.busy_seconds
            self._events.segment(self._segment.span, self._path)
        except BaseException as raised:  # whatever it is, `finish` raises it again
            self._error = raised
            # The engine learns of it at its next frame.
            self.frames.abandon()


def bottleneck(seconds: Mapping[str, float]) -> str:
    """Returns a sentence when reading or encoding held up the engine; empty otherwise.

    `seconds` are the busy seconds of `decode`, `restore` and `encode`, and `total`.
    """
    for stage, sentence in (
        ("encode", "the encoder held up the rest: more CPU cores for each GPU would make it faster"),
        ("decode", "reading the source held up the rest: more CPU cores would make it faster"),
    ):
        is_busiest = seconds[stage] > seconds["restore"]
        if is_busiest and seconds[stage] >= _BUSY_SHARE * seconds["total"]:
            return sentence
    return ""
