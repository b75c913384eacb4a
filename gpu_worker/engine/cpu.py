"""The CPU engine: removes block edges and noise, enlarges, sharpens. It uses no GPU and no model.

It exists so that the whole way of a video runs on any machine; it is not SeedVR2 and does not pretend to be.
Run it by hand with `python -m gpu_worker.engine.cpu IN OUT --res-w 1280 --res-h 720`.

As the worker's child process it reports by the lines of `report.py`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from av.video.frame import VideoFrame

from gpu_worker.contract import ErrorCode, Output, WorkerError
from gpu_worker.engine.errors import writing
from gpu_worker.engine.filters import Filter, FilterChain, Shape
from gpu_worker.engine.formats import ResultFormat
from gpu_worker.engine.join import join
from gpu_worker.engine.lifeline import die_with_parent
from gpu_worker.engine.report import Restored, report_to_worker
from gpu_worker.engine.segment_writer import SegmentWriter
from gpu_worker.engine.video import VideoSource

#: ffmpeg's number for a range of 0..255; anything else is 16..235.
_FULL_RANGE: Final = 2
#: Formats that every filter of the chain takes; ffmpeg converts the rest to the nearest of these.
_WORKING_FORMATS: Final = "yuv420p|yuv422p|yuv444p|yuv420p10le|yuv422p10le|yuv444p10le"

# Measured against plain enlarging on three clips that were halved, noised and compressed (x264, crf 28):
# VMAF +2.5, +5.9 and +2.9, PSNR -0.3, 0.0 and -0.2 dB. `fftdnoiz` over three frames gains up to +0.8 dB at a
# quarter of the speed; `hqdn3d` is no better and missing in PyAV's ffmpeg.

#: Softens the 8 x 8 block edges of MPEG and H.26x.
_DEBLOCK: Final[Filter] = ("deblock", "filter=weak:block=8")
#: Averages over nine frames what stands still: noise goes, edges stay.
_DENOISE: Final[Filter] = ("atadenoise", "0a=0.04:0b=0.12:1a=0.05:1b=0.15:2a=0.05:2b=0.15:s=9")
_SHARPEN: Final[Filter] = ("unsharp", "5:5:0.6:3:3:0")


def restore(
    source_path: Path,
    result_path: Path,
    *,
    width: int,
    height: int,
    on_frame: Callable[[int], None],
    output: Output = Output.H264,
) -> Restored:
    """Restores a file to exactly `width` x `height` square pixels, upright.

    `on_frame` hears the number of frames done. Memory does not grow with the video's length. Raises
    `WorkerError`.
    """
    segment = result_path.with_name(result_path.name + ".segment")
    with closing(VideoSource(source_path)) as source:
        result_format = ResultFormat.of(source, output, width=width, height=height)
        try:
            with writing(), closing(SegmentWriter(segment, result_format)) as writer:
                restored = _restored(source.frames(), width=width, height=height)
                for num_done, (frame, ticks) in enumerate(restored, start=1):
                    writer.write(frame, ticks)
                    on_frame(num_done)
                writer.finish()
            joined = join([segment], result_path, source=source, result_format=result_format)
        finally:
            segment.unlink(missing_ok=True)
    return Restored(measured=joined.measured, num_audio_tracks_lost=joined.num_audio_tracks_lost)


def filters(shape: Shape, *, width: int, height: int) -> list[Filter]:
    """Returns the chain for one shape. Noise goes before enlarging, while it is still single pixels."""
    value_range = "full" if shape.color_range == _FULL_RANGE else "limited"
    scale = f"w={width}:h={height}:flags=lanczos:in_range={value_range}:out_range={value_range}"
    if shape.is_rgb:
        scale = f"w={width}:h={height}:flags=lanczos:out_color_matrix=bt709:out_range=limited"
    return [
        ("format", f"pix_fmts={_WORKING_FORMATS}"),
        _DEBLOCK,
        _DENOISE,
        ("scale", scale),
        ("format", "pix_fmts=yuv420p"),
        _SHARPEN,
    ]


def _restored(
    frames: Iterable[tuple[VideoFrame, int]], *, width: int, height: int
) -> Iterator[tuple[VideoFrame, int]]:
    chain = FilterChain(lambda shape: filters(shape, width=width, height=height))
    # Filters hold frames back but keep their order and number, so the moments wait in a line.
    moments: deque[int] = deque()
    for frame, ticks in frames:
        moments.append(ticks)
        for restored in chain.push(frame):
            yield restored, moments.popleft()
    for restored in chain.finish():
        yield restored, moments.popleft()
    if moments:
        raise WorkerError(ErrorCode.ENGINE_FAILED, f"the filters kept {len(moments)} frames")


def main(arguments: list[str] | None = None) -> int:
    """Runs one restoration; returns 0 when it succeeded."""
    options = _parser().parse_args(arguments)
    if options.parent_pid is not None:
        die_with_parent(options.parent_pid)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    return report_to_worker(
        lambda on_frame: restore(
            options.source, options.result, width=options.res_w, height=options.res_h, on_frame=on_frame
        )
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gpu_worker.engine.cpu", description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--res-w", type=int, required=True, help="width of the result in pixels, even")
    parser.add_argument("--res-h", type=int, required=True, help="height of the result in pixels, even")
    parser.add_argument("--parent-pid", type=int, help="die when this process, our parent, dies")
    return parser


if __name__ == "__main__":
    sys.exit(main())
