"""Measures what reading a frame costs the CPU: one that is passed by, and one whose pixels are made.

    python -m gpu_worker.benchmarks.reading --size 1280x720 --size 1920x1080 --frames 120

A preview, a job that goes on and a rank among others pass by the frames before their own. One run, both in turn, on
the worker's own reader. Core-seconds are the process's CPU time over all threads, so a busy machine changes them
little. Needs neither a GPU nor PyTorch.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from gpu_worker.benchmarks import on_cpu
from gpu_worker.benchmarks.material import write_clip
from gpu_worker.engine.video import VideoSource


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Core-seconds for a frame of one size, passed by and made; `ratio` is the second to the first."""

    width: int
    height: int
    passed_by: float
    made: float
    ratio: float


def measure(sizes: list[tuple[int, int]], *, num_frames: int, repeats: int) -> list[Cost]:
    """Reads the same clip both ways; medians of the repeats."""
    costs = []
    with tempfile.TemporaryDirectory(prefix="reading-") as name:
        for width, height in sizes:
            clip = Path(name) / f"{width}x{height}.mp4"
            write_clip(clip, width=width, height=height, num_frames=num_frames)
            pairs = [(_read(clip, makes=False), _read(clip, makes=True)) for _ in range(repeats)]
            passed_by, made = (
                statistics.median(seconds) / num_frames for seconds in zip(*pairs, strict=True)
            )
            costs.append(
                Cost(width=width, height=height, passed_by=passed_by, made=made, ratio=made / passed_by)
            )
    return costs


def _read(clip: Path, *, makes: bool) -> float:
    """CPU seconds of reading all frames."""
    with closing(VideoSource(clip)) as source:
        started_at = time.process_time()
        for picture, _luma in source.pictures():
            if makes:
                picture.develop()
        return time.process_time() - started_at


def report(costs: list[Cost], *, num_frames: int, repeats: int) -> str:
    """A Markdown table, then one JSON line."""
    rows = [
        "| size | core-s per frame passed by | core-s per frame made | ratio |",
        "|---|---:|---:|---:|",
        *(
            f"| {cost.width}x{cost.height} | {cost.passed_by:.4f} | {cost.made:.4f} | {cost.ratio:.1f} |"
            for cost in costs
        ),
    ]
    return on_cpu.report("reading", rows, costs, num_frames=num_frames, repeats=repeats)


def main() -> int:
    """Measures what the command line asks for and prints the report."""
    asked = on_cpu.programme(__doc__, sizes=[(720, 576), (1280, 720), (1920, 1080)], num_frames=120)
    costs = measure(asked.sizes, num_frames=asked.num_frames, repeats=asked.repeats)
    sys.stdout.write(report(costs, num_frames=asked.num_frames, repeats=asked.repeats))
    return 0


if __name__ == "__main__":
    sys.exit(main())
