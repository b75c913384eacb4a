"""Keeps a group of ranks: starts it once, gives it one request at a time, replaces it when it fails.

The parent never imports PyTorch: ranks are processes of their own (`rank.py`), started by torchrun, or alone for
the CPU engine, and reached over a Unix socket. Whatever ends a request leaves the group ready for the next one,
or begins to replace it.

    starting -> ready <-> working
        ^         |          |
        +---------+----------+      a rank died, is stuck, did not stop in time, or kept memory
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from gpu_worker.contract import Engine, ErrorCode, SegmentPlan, WorkerError
from gpu_worker.engine.job import Done, EngineJob, JoinJob, JoinReport, SegmentSpan
from gpu_worker.rank_group import GroupFailed, Message, RankCommand, RankGroup
from gpu_worker.settings import WorkerSettings

logger = logging.getLogger(__name__)

#: So often a group is started before the worker gives up.
_STARTS: Final = 3
_PAUSE_SECONDS: Final = 2.0

OnFrames = Callable[[int], None]
OnExpected = Callable[[int], None]
OnSegment = Callable[[SegmentSpan, Path, SegmentPlan | None], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long ranks may take, in seconds, and how many bytes a request may leave behind."""

    ready_seconds: float
    stuck_seconds: float
    cancel_seconds: float
    slack_bytes: int


def rank_command(settings: WorkerSettings) -> RankCommand:
    """Returns how this worker's ranks are started: one plain process for the CPU engine, torchrun otherwise."""
    environment = {
        "WORKER_ENGINE": settings.engine.value,
        "WORKER_MODEL": settings.model,
        "WORKER_MODEL_DIR": str(settings.model_dir),
    }
    if settings.engine is Engine.CPU:
        return RankCommand(arguments=(sys.executable, "-m", "gpu_worker.rank"), environment=environment)
    launch = ("-m", "gpu_worker.launch_ranks", str(settings.num_gpus), str(os.getpid()))
    return RankCommand(
        arguments=(sys.executable, *launch), num_ranks=settings.num_gpus, environment=environment
    )


def patience_of(settings: WorkerSettings) -> Patience:
    """Returns the settings that concern the ranks."""
    return Patience(
        ready_seconds=settings.ready_seconds,
        stuck_seconds=settings.stuck_seconds,
        cancel_seconds=settings.cancel_seconds,
        slack_bytes=settings.slack_bytes,
    )


class Supervisor:
    """The ranks of this worker, whichever generation of them runs."""

    def __init__(self, command: RankCommand, patience: Patience) -> None:
        self._command = command
        self._patience = patience
        self._group: RankGroup | None = None
        self._starting: asyncio.Task[RankGroup] | None = None
        self._failure: GroupFailed | None = None
        self._number = 0

    def capacity(self) -> int:
        """Returns how many jobs may be taken now: one when the ranks are ready, none before.

        To be asked before each job. The first call starts the ranks. Raises `GroupFailed` when they cannot be
        started: the worker has to end.
        """
        if self._failure is not None:
            raise self._failure
        if self._is_ready:
            return 1
        self._begin()
        return 0

    @property
    def _is_ready(self) -> bool:
        return self._group is not None and not self._group.is_broken

    async def ready(self) -> RankGroup:
        """Starts the ranks where they do not run, and returns them when they are ready. Raises `GroupFailed`."""
        if self._group is not None and self._is_ready:
            return self._group
        return await asyncio.shield(self._begin())

    def _begin(self) -> asyncio.Task[RankGroup]:
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._start())
            # Whoever waits gets the error; `capacity` tells it to those who do not.
            self._starting.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._starting

    async def _start(self) -> RankGroup:
        """Ends what is left of the old group and starts a new one."""
        old, self._group = self._group, None
        if old is not None:
            logger.warning("the ranks are replaced")
            await old.close()
        for start in range(1, _STARTS + 1):
            group = RankGroup(self._command)
            try:
                await group.start(seconds=self._patience.ready_seconds)
            except GroupFailed as error:
                logger.error("start %d of %d of the ranks failed: %s", start, _STARTS, error)
                await group.close()
                if start == _STARTS:
                    self._failure = error
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)
            except BaseException:
                await group.close()
                raise
            else:
                logger.warning(
                    "ranks are ready after %.1f s: %s", group.seconds_to_ready, group.ready.get("cold_start")
                )
                self._group = group
                return group
        raise AssertionError("unreachable")

    async def restore(
        self,
        job: EngineJob,
        *,
        on_frames: OnFrames,
        on_segment: OnSegment,
        on_expected: OnExpected = lambda _num: None,
    ) -> Done:
        """Runs a job on all ranks. Raises `WorkerError`.

        `on_frames` hears how many frames they have finished, `on_expected` how many there will be.
        When the caller is cancelled, the ranks have stopped, or are gone, before this returns.
        """
        frames: dict[int, int] = {}

        def hear(rank: int, message: Message) -> None:
            if "expected" in message:
                on_expected(int(message["expected"]))
            frames[rank] = max(int(message.get("frames", 0)), frames.get(rank, 0))
            on_frames(sum(frames.values()))
            if "segment" in message:
                told = message["plan"]
                plan = None if told is None else SegmentPlan.from_json(told)
                on_segment(SegmentSpan.from_json(message["segment"]), Path(message["path"]), plan)

        answers = await self._ask({"job": job.to_json()}, None, hear)
        return _one_of([Done.from_json(answer["done"]) for answer in answers])

    async def join(self, job: JoinJob) -> JoinReport:
        """Joins segments on the first rank. Raises `WorkerError`."""
        (answer,) = await self._ask({"join": job.to_json()}, [0], lambda _rank, _message: None)
        return JoinReport.from_json(answer["done"])

    async def close(self) -> None:
        """Ends the ranks."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})
        if self._group is not None:
            await self._group.close()

    def kill(self) -> None:
        """Kills the ranks when no event loop runs any more."""
        if self._group is not None:
            self._group.kill()

    async def _ask(
        self, request: Message, ranks: Collection[int] | None, hear: Callable[[int, Message], None]
    ) -> list[Message]:
        """Sends a request to some or all ranks, and returns their last words."""
        try:
            group = await self.ready()
        except GroupFailed as error:
            raise WorkerError(ErrorCode.ENGINE_FAILED, f"the ranks cannot be started: {error}") from error
        self._number += 1
        asked = _Asked(group, self._number, group.ranks if ranks is None else ranks, self._patience)
        try:
            asked.send(request)
            await asked.listen(hear)
        except BaseException:
            # A second cancel must not leave before the ranks have stopped: the next job would hear of this one.
            settling = asyncio.create_task(self._settle(asked))
            while not settling.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({settling})
            settling.result()
            raise
        await self._settle(asked)
        return [asked.answers[rank] for rank in sorted(asked.answers)]

    async def _settle(self, asked: _Asked) -> None:
        """Stops what still works on a request; a group that is not as it was before is gone after this."""
        await asked.stop()
        kept = max((int(answer["kept_bytes"]) for answer in asked.answers.values()), default=0)
        if kept > self._patience.slack_bytes:
            logger.warning("a rank kept %d bytes after its job", kept)
            asked.group.is_broken = True
        if asked.group.is_broken:
            await asked.group.close()
            self._begin()


class _Asked:
    """One request at some ranks of a group."""

    def __init__(self, group: RankGroup, number: int, ranks: Collection[int], patience: Patience) -> None:
        self.group = group
        self.answers: dict[int, Message] = {}
        self._number = number
        self._ranks = ranks
        self._patience = patience
        self._heard_at = dict.fromkeys(ranks, time.monotonic())

    def send(self, request: Message) -> None:
        """Sends the request."""
        self.group.send({"number": self._number, **request}, self._ranks)

    async def listen(self, hear: Callable[[int, Message], None]) -> None:
        """Waits for the last word of each rank. Raises `WorkerError` for the first that fails."""
        while waiting := self._waiting():
            silent_since = min(self._heard_at[rank] for rank in waiting)
            patience = silent_since + self._patience.stuck_seconds - time.monotonic()
            try:
                async with asyncio.timeout(patience):
                    rank, message = await self._next()
            except TimeoutError:
                self.group.is_broken = True
                raise WorkerError(
                    ErrorCode.ENGINE_STUCK, f"no word for {self._patience.stuck_seconds:g} s"
                ) from None
            if "error" in message:
                error = message["error"]
                raise WorkerError(ErrorCode(error["code"]), str(error["detail"]))
            if not _is_last(message):
                hear(rank, message)

    async def stop(self) -> None:
        """Cancels the request where it still runs; ranks that do not stop in time break their group."""
        if self.group.is_broken or not (waiting := self._waiting()):
            return
        self.group.send({"cancel": self._number}, waiting)
        try:
            async with asyncio.timeout(self._patience.cancel_seconds):
                while self._waiting():
                    await self._next()
        except TimeoutError:
            logger.warning("ranks did not stop within %g s", self._patience.cancel_seconds)
            self.group.is_broken = True
        except WorkerError as error:
            logger.warning("ranks ended instead of stopping: %s", error)

    def _waiting(self) -> list[int]:
        return [rank for rank in self._ranks if rank not in self.answers]

    async def _next(self) -> tuple[int, Message]:
        """Returns the next word on this request. Raises `WorkerError` when a rank is gone."""
        while True:
            rank, message = await self.group.messages.get()
            if "gone" in message:
                raise await self.group.how_it_ended()
            if message.get("number") == self._number:
                self._heard_at[rank] = time.monotonic()
                if _is_last(message):
                    self.answers[rank] = message
                return rank, message


def _is_last(message: Message) -> bool:
    return "kept_bytes" in message


def _one_of(done: list[Done]) -> Done:
    """Returns what all ranks say together. Raises `ENGINE_FAILED` when they saw different videos."""
    first = done[0]
    if any(other.segments != first.segments for other in done):
        raise WorkerError(ErrorCode.ENGINE_FAILED, "the ranks found different segments")
    stages = {stage for one in done for stage in one.seconds}
    return replace(
        first,
        seconds={stage: max(one.seconds.get(stage, 0.0) for one in done) for stage in sorted(stages)},
        bottleneck=next((one.bottleneck for one in done if one.bottleneck), ""),
        peak_bytes=max(one.peak_bytes for one in done),
    )
