"""Opens files of unknown origin and finds the stream to restore."""

from __future__ import annotations

from pathlib import Path

import av
from av.codec.context import Flags
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from gpu_worker.contract import ErrorCode, WorkerError


def open_source(path: Path) -> InputContainer:
    """Opens a file of unknown origin: nothing that it names is opened with it."""
    return av.open(str(path), options={"protocol_whitelist": "file"})


def video_stream(container: InputContainer) -> VideoStream:
    """Returns the stream to restore: ffmpeg's choice, but no cover art. Raises `SOURCE_UNREADABLE`."""
    moving = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    stream = best if best in moving else next(iter(moving), None)
    if not isinstance(stream, VideoStream) or stream.codec_context is None:
        raise WorkerError(ErrorCode.SOURCE_UNREADABLE, "the file has no video that can be decoded")
    # Theora's picture may begin inside a block; without this flag ffmpeg leaves the hidden columns in.
    stream.codec_context.flags |= Flags.unaligned
    return stream
