"""Joins the finished segments of a job to its result, and says what came out.

`python -m gpu_worker.engine.joining` joins the first segments of a job that will not be finished: it reads a
`JoinJob` from standard input and writes a `JoinReport`; sound ends where the last segment does.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import av

from gpu_worker.contract import ContractError, Output, WorkerError
from gpu_worker.engine.containers import open_source, video_stream
from gpu_worker.engine.errors import reading
from gpu_worker.engine.formats import ResultFormat
from gpu_worker.engine.job import JoinJob, JoinReport
from gpu_worker.engine.join import Joined, Span, join
from gpu_worker.engine.video import VideoSource


def join_result(job: JoinJob, on_segment: Callable[[int], None]) -> JoinReport:
    """Joins the segments; `on_segment` hears how many are joined. Raises `WorkerError`."""
    with closing(VideoSource(job.source)) as source:
        result_format = ResultFormat.of(source, job.output, width=job.width, height=job.height)
        result = job.result.with_suffix(result_format.result_suffix)
        joined = join(
            [Path(segment) for segment in job.segments],
            result,
            source=source,
            result_format=result_format,
            span=None if job.span_ticks is None else Span(*job.span_ticks),
            on_segment=on_segment,
        )
    start_ticks = job.span_ticks[0] if job.span_ticks else 0
    return _report(result, result_format, joined, start_seconds=float(start_ticks * result_format.time_base))


def _report(result: Path, result_format: ResultFormat, joined: Joined, *, start_seconds: float) -> JoinReport:
    measured, lost = joined.measured, Counter(one.kind for one in joined.lost)
    return JoinReport(
        path=str(result),
        media_type=result_format.media_type,
        bit_depth=_bit_depth(result_format),
        width=measured.width,
        height=measured.height,
        num_frames=measured.num_frames,
        frame_rate=str(measured.frame_rate),
        duration_seconds=measured.duration_seconds,
        num_audio_tracks=measured.num_audio_tracks,
        num_audio_tracks_lost=lost["audio"],
        num_subtitle_tracks=_num_subtitle_tracks(result, result_format),
        num_subtitle_tracks_lost=lost["subtitles"] + lost["subtitle"],
        lost=tuple(f"{one.kind}: {one.name}" for one in joined.lost),
        start_seconds=start_seconds,
    )


def _bit_depth(result_format: ResultFormat) -> int:
    pixels = av.VideoFormat(result_format.pixel_format, 16, 16)
    return max(component.bits for component in pixels.components)


def _num_subtitle_tracks(result: Path, result_format: ResultFormat) -> int:
    if result_format.output is Output.PNG:
        return 0
    with reading(), open_source(result) as container:
        return len(container.streams.subtitles)


def join_part(job: JoinJob) -> JoinReport:
    """Joins the first segments of a job; its other tracks end with their last frame. Raises `WorkerError`."""
    if job.output is Output.PNG:
        return join_result(job, lambda _: None)
    with closing(VideoSource(job.source)) as source:
        unit = source.timeline.time_base
    with reading(), open_source(Path(job.segments[-1])) as last:
        ends = [
            (packet.pts + (packet.duration or 0)) * packet.time_base
            for packet in last.demux(video_stream(last))
            if packet.pts is not None
        ]
    return join_result(dataclasses.replace(job, span_ticks=(0, round(max(ends) / unit))), lambda _: None)


def main() -> int:
    """Joins what standard input says; returns 1 with a line on standard error when that cannot be done."""
    try:
        report = join_part(JoinJob.from_json(json.load(sys.stdin)))
    except (ContractError, WorkerError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    print(json.dumps(report.to_json()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
