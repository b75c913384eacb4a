"""One file from beginning to end in this process: all segments on one rank, then the join."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from gpu_worker.contract import SegmentPlan
from gpu_worker.engine.job import Done, EngineJob, JoinJob, JoinReport, SegmentSpan
from gpu_worker.engine.joining import join_result
from gpu_worker.engine.work import Engine, run


@dataclass(frozen=True, slots=True)
class Alone:
    """Tells one listener of the frames and keeps the segments' files; nobody cancels."""

    on_frame: Callable[[int], None]
    paths: dict[SegmentSpan, Path] = field(default_factory=dict)
    is_cancelled: bool = False

    def expect(self, num_frames: int) -> None:
        """Whoever listens knows the source."""

    def frames(self, num_done: int) -> None:
        """Passes the number on."""
        self.on_frame(num_done)

    def segment(self, span: SegmentSpan, path: Path, plan: SegmentPlan | None) -> None:
        """Keeps the file until the join."""
        self.paths[span] = path

    def check(self) -> None:
        """Goes on."""


def restore_alone(
    job: EngineJob, result: Path, engine: Engine, *, on_frame: Callable[[int], None] = lambda _num: None
) -> tuple[Done, JoinReport]:
    """Restores a job's source into one file beside a temporary folder of segments. Raises `WorkerError`."""
    with tempfile.TemporaryDirectory(dir=result.parent, prefix=".segments-") as folder:
        job, events = replace(job, folder=Path(folder)), Alone(on_frame)
        done = run(job, engine, rank=0, world=1, events=events)
        return done, join_result(join_job(job, done, events.paths, result), lambda _num: None)


def join_job(job: EngineJob, done: Done, paths: Mapping[SegmentSpan, Path], result: Path) -> JoinJob:
    """Returns what joins a job's segments, once all ranks are done."""
    return JoinJob(
        source=job.source,
        result=result,
        segments=tuple(str(paths[span]) for span in done.segments),
        width=job.width,
        height=job.height,
        output=job.output,
        span_ticks=done.span_ticks,
    )
