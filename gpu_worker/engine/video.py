"""Streams frames out of and into video files, one at a time, whatever their length.

Reading keeps what the file says about its frames: which way is up, how they stand in time, what their colors
mean. Writing makes an MP4 that every browser plays: H.264 4:2:0, its index at the front, the source's sound
beside it.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import av.error
from av.container import InputContainer, OutputContainer
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from gpu_worker.contract import ErrorCode, WorkerError
from gpu_worker.engine.sound import SoundTracks
from gpu_worker.engine.timeline import Timeline, find_timeline

logger = logging.getLogger(__name__)

#: libx264: 17 is visually lossless for nearly everyone; veryfast keeps two cores ahead of the restoration.
_ENCODER: Final = {"preset": "veryfast", "crf": "17"}

# ITU-T H.273 numbers, as ffmpeg uses them.
_UNSPECIFIED: Final = 2
_BT709: Final = 1
_BT601: Final = 6
_LIMITED_RANGE: Final = 1
_SD_HEIGHT: Final = 576
_SD_WIDTH: Final = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Colors:
    """What a frame's numbers mean: H.273 code points, and ffmpeg's number for the range."""

    primaries: int
    transfer: int
    matrix: int
    color_range: int

    @classmethod
    def of(cls, frame: VideoFrame) -> Colors:
        """Reads a frame's colors; RGB is written as BT.709 of limited range.

        A matrix that the file leaves open becomes the one that players assume for its size: they would assume
        another one for the larger result.
        """
        matrix = int(frame.colorspace)
        color_range = int(frame.color_range)
        if frame.format.is_rgb:
            matrix, color_range = _BT709, _LIMITED_RANGE
        elif matrix == _UNSPECIFIED:
            is_sd = frame.height <= _SD_HEIGHT and frame.width <= _SD_WIDTH
            matrix = _BT601 if is_sd else _BT709
        return cls(
            primaries=int(frame.color_primaries),
            transfer=int(frame.color_trc),
            matrix=matrix,
            color_range=color_range,
        )


class VideoSource:
    """A video file's frames with their moments. Raises `SOURCE_UNREADABLE` for what is no readable video."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading():
            self._container: InputContainer = av.open(str(path))
            try:
                self._stream = _video_stream(self._container)
                self.start_seconds = _start_seconds(self._container, self._stream)
                timestamps = _timestamps(path, self._stream.index)
            except BaseException:
                self._container.close()
                raise
        self._stream.thread_type = "AUTO"
        self.num_frames = len(timestamps)
        assert self._stream.time_base is not None
        self.timeline: Timeline = find_timeline(
            timestamps,
            unit=self._stream.time_base,
            declared_rates=[self._stream.average_rate, self._stream.guessed_rate, self._stream.base_rate],
            start_seconds=self.start_seconds,
        )

    def frames(self) -> Iterator[tuple[VideoFrame, int]]:
        """Yields each frame with its moment in ticks of the timeline; moments always grow."""
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

    def _decode(self) -> Iterator[VideoFrame]:
        num_frames = num_broken = 0
        with reading():
            for packet in self._container.demux(self._stream):
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:
                    num_broken += 1
                    continue
                for frame in frames:
                    num_frames += 1
                    yield frame
        if num_broken:
            logger.warning("%d packets of the source cannot be decoded", num_broken)
        if not num_frames:
            raise WorkerError(ErrorCode.SOURCE_UNREADABLE, "no frame of the video can be decoded")


class VideoWriter:
    """Writes an MP4: frames as they come, and the source's sound in step with them."""

    def __init__(self, path: Path, *, source: VideoSource, width: int, height: int, colors: Colors) -> None:
        self._container: OutputContainer = av.open(
            str(path), "w", format="mp4", options={"movflags": "+faststart"}
        )
        self._time_base = source.timeline.time_base
        self._stream = self._container.add_stream("libx264", rate=source.timeline.mean_rate, options=_ENCODER)
        context = self._stream.codec_context
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.time_base = self._time_base
        context.sample_aspect_ratio = Fraction(1)
        context.color_primaries, context.color_trc = colors.primaries, colors.transfer
        context.colorspace, context.color_range = colors.matrix, colors.color_range
        self._sound = SoundTracks(source.path, self._container, start_seconds=source.start_seconds)

    @property
    def num_lost_sound_tracks(self) -> int:
        """How many sound tracks of the source are not in the result."""
        return self._sound.num_lost

    def write(self, frame: VideoFrame, ticks: int) -> None:
        """Encodes a frame that appears at `ticks`."""
        frame.pts, frame.time_base = ticks, self._time_base
        # The source's own I and B frames are no advice for this encoder.
        frame.pict_type = PictureType.NONE
        self._mux(frame)
        self._sound.advance(ticks * self._time_base)

    def finish(self) -> None:
        """Writes what is held back and the file's index."""
        self._mux(None)
        self._sound.finish()
        self._container.close()

    def close(self) -> None:
        """Closes both files; after an error the result is not playable."""
        self._sound.close()
        self._container.close()

    def _mux(self, frame: VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


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
    with reading(), av.open(str(path)) as container:
        stream = _video_stream(container)
        duration = container.duration / av.time_base if container.duration else 0.0
        return Measured(
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            num_frames=len(_timestamps(path, stream.index)),
            frame_rate=stream.average_rate or Fraction(0),
            duration_seconds=duration,
            num_audio_tracks=len(container.streams.audio),
        )


@contextmanager
def reading() -> Iterator[None]:
    """Turns ffmpeg's complaints about a file into `SOURCE_UNREADABLE`."""
    try:
        yield
    except av.error.FFmpegError as error:
        raise WorkerError(ErrorCode.SOURCE_UNREADABLE, f"{type(error).__name__}: {error.strerror}") from error


@contextmanager
def writing() -> Iterator[None]:
    """Turns ffmpeg's complaints about the result into `OUT_OF_DISK` or `ENGINE_FAILED`."""
    try:
        yield
    except av.error.FFmpegError as error:
        code = ErrorCode.OUT_OF_DISK if error.errno == errno.ENOSPC else ErrorCode.ENGINE_FAILED
        raise WorkerError(code, f"{type(error).__name__}: {error.strerror}") from error


def _video_stream(container: InputContainer) -> VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or stream.codec_context is None:
        raise WorkerError(ErrorCode.SOURCE_UNREADABLE, "the file has no video that can be decoded")
    return stream


def _start_seconds(container: InputContainer, video: VideoStream) -> Fraction:
    """Returns the file's start: the earliest start of its video and sound."""
    starts = [
        stream.start_time * stream.time_base
        for stream in (video, *container.streams.audio)
        if stream.start_time is not None and stream.time_base is not None
    ]
    return min(starts, default=Fraction(0))


def _timestamps(path: Path, index: int) -> list[int]:
    """Reads the timestamps of a stream's frames without decoding them."""
    with av.open(str(path)) as container:
        timestamps = []
        for packet in container.demux(container.streams[index]):
            timestamp = packet.pts if packet.pts is not None else packet.dts
            if timestamp is not None and packet.size and not packet.is_discard:
                timestamps.append(timestamp)
    return timestamps
