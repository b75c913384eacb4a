"""What ffmpeg says about a file, in the worker's own codes."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import av.error

from gpu_worker.contract import ErrorCode, WorkerError

#: What decoders say of a packet that is damaged; PNG's leaves it to zlib to complain. Other packets follow.
UNDECODABLE: Final = (av.error.InvalidDataError, av.error.ExternalError)


@contextmanager
def reading() -> Iterator[None]:
    """Turns ffmpeg's complaints about a file into `SOURCE_UNREADABLE`."""
    try:
        yield
    except av.error.FFmpegError as error:
        raise WorkerError(ErrorCode.SOURCE_UNREADABLE, f"{type(error).__name__}: {error.strerror}") from error


@contextmanager
def writing() -> Iterator[None]:
    """Turns complaints about the result into `OUT_OF_DISK` or `ENGINE_FAILED`."""
    try:
        yield
    # PyAV's errors are OSErrors as well; the ZIP of a PNG sequence raises bare ones.
    except (av.error.FFmpegError, OSError) as error:
        code = ErrorCode.OUT_OF_DISK if error.errno == errno.ENOSPC else ErrorCode.ENGINE_FAILED
        raise WorkerError(code, f"{type(error).__name__}: {error.strerror}") from error
