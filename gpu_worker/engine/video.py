"""Streams a video file's frames, one at a time, whatever their number.

Reading keeps what the file says about its frames: which way is up, how they stand in time, what their colors
mean.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import av.error
from av.container import InputContainer
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from gpu_worker.contract import ErrorCode, Frames, WorkerError
from gpu_worker.engine.colors import Colors, Hdr
from gpu_worker.engine.containers import open_source, video_stream
from gpu_worker.engine.cuts import Luma
from gpu_worker.engine.errors import UNDECODABLE, reading
from gpu_worker.engine.fields import Scan, find_fields
from gpu_worker.engine.filters import Shape
from gpu_worker.engine.pictures import Picture, read_pictures
from gpu_worker.engine.progressive import Moment, num_progressive, upright_frames
from gpu_worker.engine.recordings import read_packets
from gpu_worker.engine.side_data import Orientation, orientation, side_data, turned
from gpu_worker.engine.stills import Still, read_still
from gpu_worker.engine.timeline import Timeline, find_timeline

logger = logging.getLogger(__name__)

#: Formats of single pictures; ffmpeg calls the others `<codec>_pipe`.
_TELECINE_RATE: Final = 30
_STILLS: Final = frozenset({"image2", "ico"})


class VideoSource:
    """A video file's frames with their moments. Raises `SOURCE_UNREADABLE` for what is no readable video."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading():
            self._container: InputContainer = open_source(path)
            try:
                self._stream = video_stream(self._container)
                self.start_seconds = _start_seconds(self._container, self._stream)
                timestamps, last_length = _timestamps(path)
                first = _first_frame(path)
                self.fields = find_fields(path)
            except BaseException:
                self._container.close()
                raise
        self._stream.thread_type = "AUTO"
        assert self._stream.time_base is not None
        self.timeline: Timeline = find_timeline(
            timestamps,
            unit=self._stream.time_base,
            declared_rates=[self._stream.average_rate, self._stream.guessed_rate, self._stream.base_rate],
            start_seconds=self.start_seconds,
            last_length=last_length,
        )
        if self.fields.scan is Scan.TELECINED:
            self._take_for_film()
        self.num_frames = num_progressive(len(timestamps), self.fields)
        self.colors = Colors.of(first)
        attached = side_data(first, self._stream.codec_context.codec.canonical_name)
        self.hdr = Hdr.of(attached)
        self._first_rotation = round(first.rotation) % 360
        bits = max(component.bits for component in first.format.components)
        # Telecined film is put together in 8 bits.
        self.is_deep = bits > 8 and self.fields.scan is not Scan.TELECINED
        self.has_alpha = has_alpha(first.format)
        self.width, self.height = first.width, first.height
        names = set(self._container.format.name.split(","))
        self.is_image = bool(names & _STILLS) or any(name.endswith("_pipe") for name in names)
        self.still = read_still(path) if self.is_image else Still()
        self._orientation = orientation(attached, self._first_rotation)
        told = self.still.orientation
        # Both have to agree which side is up or down: the result has the size of ffmpeg's answer.
        if told is not None and (told[0] == 0) == (self._orientation[0] == 0):
            self._orientation = told

    def progressive(self, frames: Frames) -> Frames:
        """Returns which progressive frames come of a range of the file's."""
        start, end = (num_progressive(number, self.fields) for number in frames)
        return start, max(start + 1, end)

    def pictures(self) -> Iterator[tuple[Picture, Luma]]:
        """Yields each frame as a picture and as a small frame of brightness. Raises `WorkerError`."""
        return read_pictures(self.frames(), self.colors, is_deep=self.is_deep, has_alpha=self.has_alpha)

    def frames(self) -> Iterator[Moment]:
        """Yields the frames, upright and progressive, each with its moment in ticks; moments always grow."""
        return upright_frames(
            self._coded_frames(),
            self.fields,
            frame_ticks=self.timeline.frame_ticks,
            orientation_of=self._orientation_of,
        )

    def _orientation_of(self, shape: Shape) -> Orientation:
        """The first frame tells for all that are turned as much; reading it from each frame is not safe."""
        return self._orientation if shape.rotation == self._first_rotation else turned(shape.rotation)

    def _coded_frames(self) -> Iterator[Moment]:
        last = -1
        for frame in self._decode():
            if frame.pts is not None:
                ticks = max(self.timeline.ticks(frame.pts), last + 1)
            else:
                ticks = last + self.timeline.frame_ticks if last >= 0 else 0
            last = ticks
            yield frame, ticks

    def close(self) -> None:
        """Closes the file."""
        self._container.close()

    def _take_for_film(self) -> None:
        """Film at 24 frames a second was telecined to 30, at an even rate; anything else is just interlaced."""
        rate = self.timeline.rate
        if rate is not None and round(rate) == _TELECINE_RATE:
            film = rate * 4 / 5
            self.timeline = replace(self.timeline, rate=film, mean_rate=film)
        else:
            self.fields = replace(self.fields, scan=Scan.INTERLACED)

    def _decode(self) -> Iterator[VideoFrame]:
        num_frames = num_broken = 0
        with reading():
            for packet in read_packets(self._container, self._stream, [self._stream]):
                try:
                    frames = packet.decode()
                except UNDECODABLE:
                    num_broken += 1
                    continue
                for frame in frames:
                    num_frames += 1
                    yield frame
        if num_broken:
            logger.warning("%d packets of the source cannot be decoded", num_broken)
        if not num_frames:
            raise WorkerError(ErrorCode.SOURCE_UNREADABLE, "no frame of the video can be decoded")


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What a finished file really holds."""

    width: int
    height: int
    num_frames: int
    frame_rate: Fraction
    duration_seconds: float
    num_audio_tracks: int


def measure(path: Path) -> Measured:
    """Counts a file's frames and reads its rate and length. Raises `SOURCE_UNREADABLE`."""
    with reading(), open_source(path) as container:
        stream = video_stream(container)
        duration = container.duration / av.time_base if container.duration else 0.0
        return Measured(
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            num_frames=len(_timestamps(path)[0]),
            frame_rate=stream.average_rate or Fraction(0),
            duration_seconds=duration,
            num_audio_tracks=len(container.streams.audio),
        )


def has_alpha(pixel_format: VideoFormat) -> bool:
    """True when a format's pixels can be transparent; a palette's colors can."""
    return pixel_format.has_palette or any(part.is_alpha for part in pixel_format.components)


def _first_frame(path: Path) -> VideoFrame:
    with open_source(path) as container:
        stream = video_stream(container)
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except UNDECODABLE:
                continue
            for frame in frames:
                return frame
    raise WorkerError(ErrorCode.SOURCE_UNREADABLE, "no frame of the video can be decoded")


def _start_seconds(container: InputContainer, video: VideoStream) -> Fraction:
    """Returns the file's start: the earliest start of its video and sound."""
    starts = [
        stream.start_time * stream.time_base
        for stream in (video, *container.streams.audio)
        if stream.start_time is not None and stream.time_base is not None
    ]
    return min(starts, default=Fraction(0))


def _timestamps(path: Path) -> tuple[list[int], int]:
    """Reads the timestamps of a video's frames, and how long the last is shown, without decoding them."""
    with open_source(path) as container:
        stream = video_stream(container)
        timestamps, last, last_length = list[int](), -math.inf, 0
        for packet in read_packets(container, stream, [stream]):
            timestamp = packet.pts if packet.pts is not None else packet.dts
            if timestamp is not None and packet.size and not packet.is_discard:
                if timestamp > last:
                    last, last_length = timestamp, packet.duration or 0
                timestamps.append(timestamp)
    return timestamps, last_length
