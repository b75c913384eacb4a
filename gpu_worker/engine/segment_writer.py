"""Writes one segment of a result: a file that plays by itself, its frames at their moments of the result.

A segment's groups of pictures are closed, so `join.py` puts segments together without encoding anew.
"""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
from av.container import OutputContainer
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from gpu_worker.contract import Output
from gpu_worker.engine.decoding_order import DecodingOrder
from gpu_worker.engine.formats import ResultFormat
from gpu_worker.engine.pictures import FrameMaker, Pixels
from gpu_worker.engine.png import PngFile


class SegmentFile(Protocol):
    """Where a segment's frames go. `ticks` are the frame's moment and its length."""

    def write(self, frame: VideoFrame, ticks: int, length: int) -> None:
        """Encodes a frame."""

    def finish(self) -> None:
        """Writes what is held back and closes the file."""

    def close(self) -> None:
        """Closes the file; one that is not finished is of no use."""


class SegmentWriter:
    """Encodes the frames of one segment as they come.

    `first_frame` is the number of the segment's first frame in the result. `busy_seconds` is the time spent
    in here, encoder and conversion to its pixel format together: where it comes near to the time that a
    segment takes in all, the encoder is what the rest waits for. A frame is written when the next one is
    known, because only then is it known how long it lasts. Use it from one thread at a time, and call
    `close` in any case.
    """

    def __init__(self, path: Path, result_format: ResultFormat, *, first_frame: int = 0) -> None:
        self._format = result_format
        self._maker = FrameMaker(result_format.colors, result_format.pixel_format)
        self._file: SegmentFile = (
            PngFile(path, result_format, first_frame=first_frame)
            if result_format.output is Output.PNG
            else _MovieFile(path, result_format)
        )
        self._waiting: tuple[VideoFrame, int] | None = None
        self.num_frames = 0
        self.busy_seconds = 0.0

    def write(self, picture: Pixels | VideoFrame, ticks: int, *, alpha: Pixels | None = None) -> None:
        """Takes the next frame, which appears at `ticks`.

        A `VideoFrame` has the result's size, matrix and range already. Raises ValueError for a picture of
        another size or one that does not come after the last.
        """
        started_at = time.perf_counter()
        self._check(picture, ticks)
        maker = self._maker
        frame = maker.converted(picture) if isinstance(picture, VideoFrame) else maker.frame(picture, alpha)
        # ProRes and PNG take their tags from each frame.
        colors = self._format.written_colors
        frame.color_primaries, frame.color_trc = colors.primaries, colors.transfer
        frame.colorspace, frame.color_range = colors.matrix, colors.color_range
        self._flush(ticks)
        self._waiting = (frame, ticks)
        self.num_frames += 1
        self.busy_seconds += time.perf_counter() - started_at

    def finish(self, end_ticks: int | None = None) -> None:
        """Writes what is held back; its last frame lasts until `end_ticks`, or as long as the source's last one."""
        started_at = time.perf_counter()
        if self._waiting is not None:
            self._flush(self._waiting[1] + self._format.last_frame_ticks if end_ticks is None else end_ticks)
        self._file.finish()
        self.busy_seconds += time.perf_counter() - started_at

    def close(self) -> None:
        """Closes the file; without `finish` before, it is of no use."""
        self._file.close()

    def _check(self, picture: Pixels | VideoFrame, ticks: int) -> None:
        size = (
            (picture.height, picture.width) if isinstance(picture, VideoFrame) else tuple(picture.shape[:2])
        )
        if size != (self._format.height, self._format.width):
            raise ValueError(
                f"a picture of {size[1]}x{size[0]}; the result has {self._format.width}x{self._format.height}"
            )
        if self._waiting is not None and ticks <= self._waiting[1]:
            raise ValueError(f"a frame at {ticks} after one at {self._waiting[1]}")

    def _flush(self, next_ticks: int) -> None:
        if self._waiting is not None:
            frame, ticks = self._waiting
            self._waiting = None
            self._file.write(frame, ticks, next_ticks - ticks)


class _MovieFile:
    """MP4 or MOV."""

    def __init__(self, path: Path, result_format: ResultFormat) -> None:
        self._time_base = result_format.time_base
        encoder = result_format.encoder
        self._order = DecodingOrder(encoder.reordering, result_format.frame_ticks)
        #: How long each frame lasts that the encoder holds, by its moment: encoders only tell what is usual.
        self._lengths: dict[int, int] = {}
        # The moment at which the segment begins is counted in units of the movie: milliseconds would round it.
        options = {"movflags": "+faststart", "movie_timescale": str(self._time_base.denominator)}
        self._container: OutputContainer = av.open(str(path), "w", format=encoder.container, options=options)
        stream = self._container.add_stream(
            encoder.codec, rate=result_format.rate, options=result_format.options()
        )
        assert isinstance(stream, VideoStream)
        self._stream = stream
        context = stream.codec_context
        context.width, context.height = result_format.width, result_format.height
        context.pix_fmt = result_format.pixel_format
        context.time_base = self._time_base
        context.sample_aspect_ratio = Fraction(1)
        colors = result_format.written_colors
        context.color_primaries, context.color_trc = colors.primaries, colors.transfer
        context.colorspace, context.color_range = colors.matrix, colors.color_range
        if encoder.codec_tag is not None:
            context.codec_tag = encoder.codec_tag

    def write(self, frame: VideoFrame, ticks: int, length: int) -> None:
        frame.pts, frame.time_base = ticks, self._time_base
        self._lengths[ticks] = length
        # The source's own I and B frames are no advice for this encoder.
        frame.pict_type = PictureType.NONE
        self._order.expect([ticks])
        self._mux(frame)

    def finish(self) -> None:
        self._mux(None)
        self._container.close()

    def close(self) -> None:
        self._container.close()

    def _mux(self, frame: VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            assert packet.pts is not None
            packet.dts, packet.duration = self._order.decoded_at(packet.pts), self._lengths.pop(packet.pts)
            self._container.mux(packet)
