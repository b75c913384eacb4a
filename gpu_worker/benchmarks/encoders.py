"""Measures what encoding a result costs the CPU: core-seconds per frame for every output and size.

    python -m gpu_worker.benchmarks.encoders --size 1280x720 --size 1920x1080 --frames 48

One run, outputs in turn, on the worker's own writer. Core-seconds are the process's CPU time over all threads, so
a busy machine changes them little; ratios within a run hardly at all. Needs neither a GPU nor PyTorch.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpu_worker.benchmarks import on_cpu
from gpu_worker.benchmarks.material import frames, write_clip
from gpu_worker.contract import Output
from gpu_worker.engine.formats import ResultFormat
from gpu_worker.engine.pictures import Pixels
from gpu_worker.engine.segment_writer import SegmentWriter
from gpu_worker.engine.video import VideoSource

#: What one frame's encoding, conversion included, takes of a core for each 10^6 pixels, the most of 720p and 1080p:
#: docs/benchmarks/encoders_cpu_2026-11-24.md. x264 on quiet pictures takes half as much.
CORE_SECONDS_PER_MEGAPIXEL: Final = {
    Output.H264: 0.04,
    Output.H265: 0.29,
    Output.PRORES: 0.12,
    Output.PNG: 0.07,
}


def encoder_cores(output: Output, width: int, height: int, frames_per_second: float) -> int:
    """CPU cores that an encoder needs to keep up with so many frames per second; at least 1."""
    seconds_per_frame = CORE_SECONDS_PER_MEGAPIXEL[output] * width * height / 1e6
    return max(1, math.ceil(seconds_per_frame * frames_per_second))


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What one output costs at one size. `ratio` is to H.264 at the same size in the same run."""

    output: str
    width: int
    height: int
    core_seconds_per_frame: float
    core_seconds_per_megapixel: float
    megabits_per_second: float
    ratio: float


def measure(sizes: list[tuple[int, int]], *, num_frames: int, repeats: int) -> list[Cost]:
    """Encodes the same frames with every output; medians of the repeats."""
    costs: list[Cost] = []
    with tempfile.TemporaryDirectory(prefix="encoders-") as name:
        folder = Path(name)
        for width, height in sizes:
            clip, pictures = folder / "source.mp4", list(frames(width, height, num_frames))
            write_clip(clip, width=width, height=height, num_frames=2)
            seconds: dict[Output, list[float]] = {output: [] for output in Output}
            sizes_in_bytes: dict[Output, int] = {}
            with closing(VideoSource(clip)) as source:
                for _ in range(repeats):
                    # In turn, so that a change of the machine's speed meets all of them.
                    for output in Output:
                        found, num_bytes = _encode(source, output, pictures, folder)
                        seconds[output].append(found / num_frames)
                        sizes_in_bytes[output] = num_bytes
            medians = {output: statistics.median(found) for output, found in seconds.items()}
            for output, median in medians.items():
                costs.append(
                    Cost(
                        output=output.value,
                        width=width,
                        height=height,
                        core_seconds_per_frame=median,
                        core_seconds_per_megapixel=median / (width * height / 1e6),
                        megabits_per_second=sizes_in_bytes[output] * 8 / 1e6 / (num_frames / 30),
                        ratio=median / medians[Output.H264],
                    )
                )
    return costs


def _encode(source: VideoSource, output: Output, pictures: list[Pixels], folder: Path) -> tuple[float, int]:
    """CPU seconds and bytes of one segment."""
    height, width, _ = pictures[0].shape
    result_format = ResultFormat.of(source, output, width=width, height=height)
    path = folder / f"segment{result_format.segment_suffix}"
    started_at = time.process_time()
    with closing(SegmentWriter(path, result_format)) as writer:
        for number, picture in enumerate(pictures):
            writer.write(picture, number * result_format.frame_ticks)
        writer.finish()
    return time.process_time() - started_at, path.stat().st_size


def report(costs: list[Cost], *, num_frames: int, repeats: int) -> str:
    """A Markdown table, then one JSON line."""
    rows = [
        "| output | size | core-s per frame | per megapixel | ratio to h264 | Mbit/s at 30 fps |",
        "|---|---|---:|---:|---:|---:|",
        *(
            f"| {cost.output} | {cost.width}x{cost.height} | {cost.core_seconds_per_frame:.3f} "
            f"| {cost.core_seconds_per_megapixel:.3f} | {cost.ratio:.2f} | {cost.megabits_per_second:.0f} |"
            for cost in costs
        ),
    ]
    return on_cpu.report("encoders", rows, costs, num_frames=num_frames, repeats=repeats)


def main() -> int:
    """Measures what the command line asks for and prints the report."""
    asked = on_cpu.programme(__doc__, sizes=[(1280, 720), (1920, 1080)], num_frames=48)
    costs = measure(asked.sizes, num_frames=asked.num_frames, repeats=asked.repeats)
    sys.stdout.write(report(costs, num_frames=asked.num_frames, repeats=asked.repeats))
    return 0


if __name__ == "__main__":
    sys.exit(main())
