"""One file from beginning to end in this process: all segments on one rank, then the join."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from gpu_worker.engine.formats import ResultFormat
from gpu_worker.engine.job import Done, EngineJob, SegmentSpan
from gpu_worker.engine.join import Joined, Span, join
from gpu_worker.engine.video import VideoSource
from gpu_worker.engine.work import Engine, run


@dataclass(frozen=True, slots=True)
class Alone:
    """Tells one listener of the frames; nobody cancels, and the segments are known at the end."""

    on_frame: Callable[[int], None]
    is_cancelled: bool = False

    def frames(self, num_done: int) -> None:
        """Passes the number on."""
        self.on_frame(num_done)

    def segment(self, span: SegmentSpan, path: Path) -> None:
        """Does nothing: the files are joined at the end."""

    def check(self) -> None:
        """Goes on."""


def restore_alone(
    job: EngineJob, result: Path, engine: Engine, *, on_frame: Callable[[int], None] = lambda _num: None
) -> tuple[Done, Joined]:
    """Restores a job's source into one file beside a temporary folder of segments. Raises `WorkerError`."""
    with tempfile.TemporaryDirectory(dir=result.parent, prefix=".segments-") as folder:
        job = replace(job, folder=Path(folder))
        done = run(job, engine, rank=0, world=1, events=Alone(on_frame))
        return done, join_job(job, done, result)


def join_job(job: EngineJob, done: Done, result: Path) -> Joined:
    """Joins the segments that lie in a job's folder. Raises `WorkerError`."""
    with closing(VideoSource(job.source)) as source:
        result_format = ResultFormat.of(source, job.output, width=job.width, height=job.height)
        files = [job.folder / f"{one.index:05d}{result_format.segment_suffix}" for one in done.segments]
        span = None if done.span_ticks is None else Span(*done.span_ticks)
        return join(files, result, source=source, result_format=result_format, span=span)
