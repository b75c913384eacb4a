"""`python -m gpu_worker restore IN OUT ...`: either engine on one file, for people."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final, TextIO

from gpu_worker.contract import MAX_STRENGTH, SP_SIZES, ColorFix, Engine, Output, WorkerError
from gpu_worker.engine.alone import join_job, restore_alone
from gpu_worker.engine.job import SEGMENT_FRAMES, Done, EngineJob, JoinReport, SegmentSpan
from gpu_worker.engine.memory import WEIGHTS
from gpu_worker.engine.video import VideoSource
from gpu_worker.engine.work import load
from gpu_worker.settings import WorkerSettings
from gpu_worker.supervisor import Supervisor, patience_of, rank_command

_BAR_WIDTH: Final = 30
#: A terminal is drawn anew at most so often.
_DRAW_SECONDS: Final = 0.1


def restore(arguments: list[str]) -> int:
    """Restores a file with a progress bar on standard error; returns 0 when it succeeded."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    started_at = time.monotonic()
    job = _job(options)
    try:
        bar = ProgressBar(_num_frames(job), sys.stderr)
        if job.sp_size > 1:
            done, report = asyncio.run(_by_ranks(job, options, bar.show))
        else:
            engine = load(_engine(job).value, model=job.model, weights=options.weights)
            done, report = restore_alone(job, options.result, engine, on_frame=bar.show)
    except WorkerError as error:
        sys.stderr.write(f"\n{error}\n")
        return 1
    bar.finish(report.num_frames)
    seconds = time.monotonic() - started_at
    print(f"{report.path}: {report.num_frames} frames of {report.width}x{report.height} in {seconds:.1f} s")
    print(", ".join(f"{stage} {spent:.1f} s" for stage, spent in done.seconds.items()))
    for lost in report.lost:
        print(f"not brought along: {lost}")
    if done.bottleneck:
        print(done.bottleneck)
    return 0


async def _by_ranks(
    job: EngineJob, options: argparse.Namespace, on_frames: Callable[[int], None]
) -> tuple[Done, JoinReport]:
    """Restores with the processes that serve jobs on a worker with so many GPUs. Raises `WorkerError`."""
    settings = WorkerSettings(
        engine=_engine(job), model=job.model, model_dir=options.weights or Path(), num_gpus=job.sp_size
    )
    supervisor = Supervisor(rank_command(settings), patience_of(settings))
    paths: dict[SegmentSpan, Path] = {}
    try:
        with tempfile.TemporaryDirectory(dir=options.result.parent, prefix=".segments-") as folder:
            job = replace(job, folder=Path(folder))
            done = await supervisor.restore(
                job, on_frames=on_frames, on_segment=lambda span, path, _plan: paths.update({span: path})
            )
            return done, await supervisor.join(join_job(job, done, paths, options.result))
    finally:
        await supervisor.close()


class ProgressBar:
    """One line of a terminal that fills up; `num_frames` is 0 when the file does not say how many it has."""

    def __init__(self, num_frames: int, terminal: TextIO) -> None:
        self._num_frames = num_frames
        self._terminal = terminal
        self._drawn_at = 0.0

    def show(self, num_done: int) -> None:
        """Draws the bar, unless it was drawn just now."""
        now = time.monotonic()
        if now - self._drawn_at >= _DRAW_SECONDS:
            self._drawn_at = now
            self._draw(num_done)

    def finish(self, num_done: int) -> None:
        """Draws the bar for the last time."""
        self._draw(num_done)
        self._terminal.write("\n")

    def _draw(self, num_done: int) -> None:
        share = min(1.0, num_done / self._num_frames) if self._num_frames else 0.0
        bar = ("#" * round(share * _BAR_WIDTH)).ljust(_BAR_WIDTH, ".")
        self._terminal.write(f"\r[{bar}] {num_done}/{self._num_frames or '?'} frames")
        self._terminal.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gpu_worker restore", description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument(
        "--model",
        choices=[Engine.CPU.value, *sorted(WEIGHTS)],
        required=True,
        help="cpu is the engine of filters; tiny-* have random weights: for tests only",
    )
    parser.add_argument("--res-w", type=int, required=True, help="width of the result in pixels")
    parser.add_argument("--res-h", type=int, required=True, help="height of the result in pixels")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same result (default 0)")
    parser.add_argument(
        "--strength",
        type=int,
        default=MAX_STRENGTH,
        help="0 is a plain resize, 100 the model's output (default)",
    )
    parser.add_argument(
        "--color-fix",
        type=ColorFix,
        choices=list(ColorFix),
        default=ColorFix.WAVELET,
        help="how colors are brought back to the source's (default wavelet)",
    )
    parser.add_argument(
        "--output", type=Output, choices=list(Output), default=Output.H264, help="format (default h264)"
    )
    parser.add_argument(
        "--sp-size",
        type=int,
        choices=SP_SIZES,
        default=1,
        help="processes, each with a GPU, that take segments in turn (default 1)",
    )
    parser.add_argument("--range", type=_frames, help="restore frames START:END only, END exclusive")
    parser.add_argument(
        "--segment-frames", type=int, default=SEGMENT_FRAMES, help=f"default {SEGMENT_FRAMES}"
    )
    parser.add_argument("--weights", type=Path, help="folder with the weights; cpu and tiny-* need none")
    parser.add_argument("--memory-gib", type=float, help="use at most so much memory instead of what is free")
    return parser


def _frames(text: str) -> tuple[int, int]:
    start, _, end = text.partition(":")
    if not (start.isdecimal() and end.isdecimal() and int(start) < int(end)):
        raise argparse.ArgumentTypeError(f"{text!r}; expected two numbers like 120:240, the second larger")
    return int(start), int(end)


def _job(options: argparse.Namespace) -> EngineJob:
    return EngineJob(
        source=options.source,
        folder=options.result.parent,
        model=options.model,
        width=options.res_w,
        height=options.res_h,
        seed=options.seed,
        strength=options.strength,
        color_fix=options.color_fix,
        output=options.output,
        sp_size=options.sp_size,
        segment_frames=options.segment_frames,
        span=options.range,
        memory_gib=options.memory_gib,
    )


def _engine(job: EngineJob) -> Engine:
    return Engine.CPU if job.model == Engine.CPU else Engine.SEEDVR2


def _num_frames(job: EngineJob) -> int:
    if job.span is not None:
        return job.span[1] - job.span[0]
    with closing(VideoSource(job.source)) as video:
        return video.num_frames
