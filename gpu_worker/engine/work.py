"""One job on one rank, whatever the engine: read, divide into segments, restore, encode, all at the same time.

    reader thread --pictures--> segments --parts--> engine (this thread) --frames--> one encoder thread a segment

Queues between the threads are short, so memory does not grow with the video, and a slow stage holds up the one
before it and nothing else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from av.video.frame import VideoFrame

from gpu_worker.contract import ErrorCode, Frames, SegmentPlan, WorkerError
from gpu_worker.engine.cuts import number_shots
from gpu_worker.engine.errors import writing
from gpu_worker.engine.formats import ResultFormat
from gpu_worker.engine.handover import Abandoned, Handover
from gpu_worker.engine.job import Done, EngineJob, Events, SegmentSpan
from gpu_worker.engine.pictures import Picture, Pixels
from gpu_worker.engine.segment_writer import SegmentWriter
from gpu_worker.engine.segments import Part, Placed, Segment, Segments, Turns, assigned, place
from gpu_worker.engine.video import VideoSource

logger = logging.getLogger(__name__)

#: Attempts with plans of less and less memory, each of which reads the video anew.
_MAX_PLANS: Final = 4
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


class PlanFailed(Exception):
    """The engine's plan needs more memory than there is; the engine has a smaller one for the next attempt."""


class PartRestorer(Protocol):
    """An engine set up for one job."""

    @property
    def peak_bytes(self) -> int:
        """The most memory that the job has held on the device so far."""

    @property
    def plan(self) -> SegmentPlan | None:
        """How parts are fitted into the memory by now; None where that does not show."""

    def restore(self, part: Part[Picture], *, check: Callable[[], None]) -> Generator[Made]:
        """Yields the part's own frames restored, in order; calls `check` whenever work was done.

        Raises `PlanFailed` where a smaller plan may do, `WorkerError` where nothing else is left.
        """


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

    An engine whose plan fails goes on with a smaller one, with the segments that are not finished. All threads have
    ended when this returns or raises: `WorkerError`, or `Cancelled` from `events.check`.
    """
    progress = _Progress(events)
    for _ in range(_MAX_PLANS):
        done = _attempt(job, engine, rank=rank, world=world, events=events, progress=progress)
        if done is not None:
            return done
        progress.forget_unfinished()
    raise WorkerError(ErrorCode.OUT_OF_MEMORY, f"{_MAX_PLANS} plans, each smaller than the last, did not fit")


def _attempt(
    job: EngineJob, engine: Engine, *, rank: int, world: int, events: Events, progress: _Progress
) -> Done | None:
    """One pass over the video; None when the plan failed, and then nothing of it is held."""
    with closing(VideoSource(job.source)) as source:
        result_format = ResultFormat.of(source, job.output, width=job.width, height=job.height)
        job = _in_result(job, source)
        # A range moves to the borders of latents, which are known when it was read.
        if job.span is None and source.num_frames:
            events.expect(source.num_frames)
        restorer = engine.begin(job, source, result_format)
        try:
            with _reading(source, job, events, Turns(job, rank=rank, world=world)) as reading:
                work = _Work(job, restorer, result_format, events, reading, progress)
                segments = Segments(reading.pictures)
                with work.encoding():
                    for segment, is_mine in assigned(segments, Turns(job, rank=rank, world=world)):
                        work.do(segment, is_mine=is_mine)
        except PlanFailed as failed:
            # The text alone: a record that is kept would keep the error's frames, and their tensors with them.
            logger.warning("%s", str(failed))
            return None
        return work.done()


def _in_result(job: EngineJob, source: VideoSource) -> EngineJob:
    """Returns the job with its ranges counted in frames of the result: whoever asked counted those of the file."""
    span = None if job.span is None else source.progressive(job.span)
    return replace(job, span=span, pins=tuple(source.progressive(pin) for pin in job.pins))


class _Reading:
    """The reader's thread: decodes, finds cuts, says where each picture belongs, makes the pixels that are needed."""

    def __init__(self, source: VideoSource, job: EngineJob, events: Events, turns: Turns) -> None:
        self.pictures: Handover[Placed[Picture]] = Handover(
            _num_waiting(source), is_cancelled=lambda: events.is_cancelled
        )
        self.seconds = 0.0
        self._started_at = time.perf_counter()
        self.thread = threading.Thread(
            target=self._read, args=(source, job, turns), name="reader", daemon=True
        )

    @property
    def total_seconds(self) -> float:
        """The time since reading began."""
        return time.perf_counter() - self._started_at

    def _read(self, source: VideoSource, job: EngineJob, turns: Turns) -> None:
        error: BaseException | None = None
        try:
            numbered = number_shots(source.pictures())
            # A picture of another size cannot share a shot, whatever it shows.
            for placed in place(((picture, (shot, picture.size)) for picture, shot in numbered), job):
                # The engine makes the few that it needs of others' segments, as context.
                if turns.is_mine(placed.segment, placed.segment_start, is_wanted=placed.is_wanted):
                    placed.item.develop()
                self.pictures.put(placed)
        except Abandoned:
            pass
        except BaseException as raised:  # whatever it is, it is raised again where the pictures are read
            error = raised
        self.seconds = self.total_seconds - self.pictures.waited_to_put
        self.pictures.end(error)


@contextmanager
def _reading(source: VideoSource, job: EngineJob, events: Events, turns: Turns) -> Iterator[_Reading]:
    reading = _Reading(source, job, events, turns)
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
        self,
        job: EngineJob,
        restorer: PartRestorer,
        result_format: ResultFormat,
        events: Events,
        reading: _Reading,
        progress: _Progress,
    ) -> None:
        self._job = job
        self._restorer = restorer
        self._format = result_format
        self._events = events
        self._reading = reading
        self._progress = progress
        self._spans: list[SegmentSpan] = []
        self._encoders: list[_Encoder] = []
        self._ticks: list[int] = []
        #: Inside the engine, waits for pictures left out; inside encoders; waits for either and for the device.
        self._restoring = self._encoding = 0.0
        self._waited_for_pictures = self._waited_for_encoder = self._waited_for_device = 0.0

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
        if is_mine and not self._progress.is_finished(segment.index):
            self._restore(segment)
        else:
            self._skip(segment)
        self._spans.append(segment.span)
        if self._ticks:
            # The next segment begins where the last frame of this one ends.
            behind = segment.item_behind
            self._ticks[1] = (
                self._ticks[1] + self._format.last_frame_ticks if behind is None else behind.ticks
            )

    def _restore(self, segment: Segment[Picture]) -> None:
        while len(self._encoders) >= _MAX_ENCODING:
            self._finish_oldest()
        path = self._job.folder / f"{segment.index:05d}{self._format.segment_suffix}"
        encoder = _Encoder(path, self._format, segment, self._progress, self._events)
        self._encoders.append(encoder)
        try:
            for part in segment.parts():
                # Closed at once when something fails: what it holds on the device is free then.
                with closing(self._restorer.restore(part, check=self._events.check)) as frames:
                    for made in self._timed(frames):
                        self._note_ticks(made.ticks)
                        encoder.frames.put(made)
        except Abandoned:
            # It gave up: raises what went wrong there.
            encoder.finish()
        behind = segment.item_behind
        encoder.end(end_ticks=None if behind is None else behind.ticks, plan=self._restorer.plan)

    def _skip(self, segment: Segment[Picture]) -> None:
        while (frame := segment.next_own()) is not None:
            self._note_ticks(frame.item.ticks)
            segment.take()
            # The engine rests, but this rank moves on.
            self._events.check()

    def _timed(self, frames: Iterator[Made]) -> Iterator[Made]:
        """Counts the time inside the engine, and in it the time that it waits for pictures."""
        pictures = self._reading.pictures
        while True:
            started_at, waited_before = time.perf_counter(), pictures.waited_to_get
            made = next(frames, None)
            waited = pictures.waited_to_get - waited_before
            self._waited_for_pictures += waited
            self._restoring += time.perf_counter() - started_at - waited
            if made is None:
                return
            yield made

    def _note_ticks(self, ticks: int) -> None:
        if not self._ticks:
            self._ticks = [ticks, ticks]
        self._ticks[1] = ticks

    def _finish_oldest(self) -> None:
        encoder = self._encoders[0]
        encoder.finish()
        self._encoders.pop(0)
        self._encoding += encoder.busy_seconds
        self._waited_for_encoder += encoder.frames.waited_to_put
        self._waited_for_device += encoder.device_seconds

    def done(self) -> Done:
        """What this rank knows at the end."""
        busy = {
            "decode": self._reading.seconds,
            # A device works on while this thread is ahead of it, and then the encoder waits.
            "restore": max(self._restoring, self._waited_for_device),
            "encode": self._encoding,
            "wait_for_pictures": self._waited_for_pictures,
            "wait_for_encoder": max(0.0, self._waited_for_encoder - self._waited_for_device),
            "total": self._reading.total_seconds,
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


class _Progress:
    """What this rank has finished, over all encoders and attempts."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._lock = threading.Lock()
        #: Frames of each segment, by its number.
        self._frames: Counter[int] = Counter()
        self._finished: set[int] = set()
        self._num_told = 0

    def add(self, segment: int) -> None:
        """Counts a frame that was encoded; frames that are done anew are not told again."""
        with self._lock:
            self._frames[segment] += 1
            num_done = self._frames.total()
            if num_done > self._num_told:
                self._num_told = num_done
                self._events.frames(num_done)

    def finish(self, span: SegmentSpan, path: Path, plan: SegmentPlan | None) -> None:
        """Notes a segment whose file is complete."""
        with self._lock:
            self._finished.add(span.index)
            self._events.segment(span, path, plan)

    def is_finished(self, segment: int) -> bool:
        """True for a segment that an earlier attempt completed."""
        return segment in self._finished

    def forget_unfinished(self) -> None:
        """Takes back the frames of segments that the next attempt does anew."""
        self._frames = Counter({index: self._frames[index] for index in self._finished})


class _Encoder:
    """One segment's encoder on a thread of its own."""

    def __init__(
        self,
        path: Path,
        result_format: ResultFormat,
        segment: Segment[Picture],
        progress: _Progress,
        events: Events,
    ) -> None:
        least, _most = _WAITING_PICTURES
        self.frames: Handover[Made] = Handover(2 * least, is_cancelled=lambda: events.is_cancelled)
        self.busy_seconds = self.device_seconds = 0.0
        self._path = path
        self._format = result_format
        self._segment = segment
        self._progress = progress
        self._end_ticks: int | None = None
        self._plan: SegmentPlan | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._encode, name=f"encoder-{path.stem}", daemon=True)
        self._thread.start()

    def end(self, *, end_ticks: int | None, plan: SegmentPlan | None) -> None:
        """Says that all frames were handed over, and made by `plan`; the last one lasts until `end_ticks`."""
        self._end_ticks, self._plan = end_ticks, plan
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
                    writer.write(self._picture(made), made.ticks, alpha=made.alpha)
                    self._progress.add(self._segment.index)
                writer.finish(self._end_ticks)
                self.busy_seconds = writer.busy_seconds
            self._progress.finish(self._segment.span, self._path, self._plan)
        except BaseException as raised:  # whatever it is, `finish` raises it again
            self._error = raised
            # The engine learns of it at its next frame.
            self.frames.abandon()

    def _picture(self, made: Made) -> Pixels | VideoFrame:
        started_at = time.perf_counter()
        picture = made.picture()
        self.device_seconds += time.perf_counter() - started_at
        return picture


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
