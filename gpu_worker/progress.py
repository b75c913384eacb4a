"""Sends a job's progress: in order, not too often, and never after the job's end.

The SDK's own `progress_update` starts a thread for each call, so its reports overtake each other and the
result. Here one task sends one report at a time, always the newest; what came in between is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from gpu_worker.contract import Progress, Stage

logger = logging.getLogger(__name__)

#: Posts one progress document; returns when it was answered or given up.
SendProgress = Callable[[dict[str, Any]], Awaitable[None]]

#: How long a report may take: nobody wants to know after that.
_SEND_SECONDS: Final = 30.0
#: How long a job's end waits for its last report: the result is worth more than a report.
_FLUSH_SECONDS: Final = 5.0


class ProgressReporter:
    """The mailbox between a job and the task that sends its progress."""

    def __init__(
        self, *, attempt_id: str, num_frames: int | None, send: SendProgress, pause_seconds: float
    ) -> None:
        self._attempt_id = attempt_id
        self.num_frames = num_frames
        self._send = send
        self._pause_seconds = pause_seconds
        self._sequence = 0
        self._newest: Progress | None = None
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()

    def report(
        self,
        stage: Stage,
        num_frames_done: int = 0,
        *,
        num_segments_done: int = 0,
        num_segments: int | None = None,
    ) -> None:
        """Notes how far the job is; it is sent when its turn comes, unless a newer report replaces it."""
        self._sequence += 1
        self._newest = Progress(
            attempt_id=self._attempt_id,
            sequence=self._sequence,
            stage=stage,
            num_frames_done=num_frames_done,
            num_frames=self.num_frames,
            num_segments_done=num_segments_done,
            num_segments=num_segments,
        )
        self._wake.set()

    async def send_all(self) -> None:
        """Sends reports until `close` was called and the last one is out."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._newest is not None:
                progress, self._newest = self._newest, None
                await self._send_one(progress)
            if self._newest is None and self._closing.is_set():
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), self._pause_seconds)

    async def _send_one(self, progress: Progress) -> None:
        """Sends a report; one that fails, or takes too long, holds up no later one."""
        try:
            async with asyncio.timeout(_SEND_SECONDS):
                await self._send(progress.to_json())
        except Exception as error:
            logger.warning("progress could not be sent: %s", type(error).__name__)

    def close(self) -> None:
        """Lets `send_all` end after the last report."""
        self._closing.set()
        self._wake.set()


@asynccontextmanager
async def sending(reporter: ProgressReporter) -> AsyncIterator[ProgressReporter]:
    """Sends progress while the block runs. After it, no report is on its way any more."""
    task = asyncio.create_task(reporter.send_all())
    try:
        yield reporter
    except BaseException:
        # Nobody waits for the progress of a failed or cancelled job.
        task.cancel()
        raise
    finally:
        reporter.close()
        await _settle(task)


async def _settle(task: asyncio.Task[None]) -> None:
    done, _ = await asyncio.wait({task}, timeout=_FLUSH_SECONDS)
    if not done:
        logger.warning("the last progress report is given up after %g s", _FLUSH_SECONDS)
        task.cancel()
        await asyncio.wait({task})
