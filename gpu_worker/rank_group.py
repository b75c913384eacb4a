"""One generation of ranks, from their start to their end: the processes, and the socket that reaches them."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gpu_worker.contract import ErrorCode, WorkerError

logger = logging.getLogger(__name__)

#: A rank's last word names every segment of its job.
_MAX_LINE_BYTES: Final = 8 * 1024**2
#: How much of what crashed ranks said is kept for operators.
_TAIL_CHARACTERS: Final = 500
#: torchrun notices a dead rank, ends the others and goes within so many seconds.
_END_SECONDS: Final = 10.0
_KILLED: Final = frozenset({-signal.SIGKILL, 128 + signal.SIGKILL})

Message = dict[str, Any]


class GroupFailed(Exception):
    """The ranks did not get ready; the message says why, for operators."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankCommand:
    """How the ranks are started: a command line, variables beside ours, and how many ranks will come."""

    arguments: tuple[str, ...]
    num_ranks: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Link:
    pid: int
    writer: asyncio.StreamWriter


class RankGroup:
    """Ranks that run. `messages` has what they say, each with the number of its rank."""

    def __init__(self, command: RankCommand) -> None:
        self._command = command
        self._links: dict[int, _Link] = {}
        self._tail = ""
        self._folder = Path(tempfile.mkdtemp(prefix="ranks-"))
        self._server: asyncio.Server | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.messages: asyncio.Queue[tuple[int, Message]] = asyncio.Queue()
        #: True once a rank is gone, or the group is not to be used any more.
        self.is_broken = False
        self.ready: Message = {}
        self.seconds_to_ready = 0.0

    @property
    def ranks(self) -> range:
        """The numbers of the ranks."""
        return range(self._command.num_ranks)

    async def start(self, *, seconds: float) -> None:
        """Starts the ranks and returns when all are ready. Raises `GroupFailed`."""
        started_at = time.monotonic()
        address = self._folder / "control"
        self._server = await asyncio.start_unix_server(self._accept, address, limit=_MAX_LINE_BYTES)
        self._process = await asyncio.create_subprocess_exec(
            *self._command.arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **self._command.environment, "WORKER_CONTROL": str(address)},
            start_new_session=True,
        )
        self._keep(self._pass_on(self._process))
        try:
            async with asyncio.timeout(seconds):
                await self._until_ready()
        except TimeoutError:
            raise GroupFailed(f"the ranks are not ready after {seconds:g} s: {self._tail}") from None
        # All have come: a worker that is killed, or ends, leaves no address behind.
        self._forget_address()
        self.seconds_to_ready = time.monotonic() - started_at

    async def _until_ready(self) -> None:
        waiting = set(self.ranks)
        while waiting:
            rank, message = await self.messages.get()
            if "unfit" in message:
                raise GroupFailed(str(message["unfit"]))
            if "gone" in message:
                error = await self.how_it_ended()
                raise GroupFailed(error.detail)
            if "ready" in message:
                waiting.discard(rank)
                if rank == 0:
                    self.ready = message["ready"]

    def send(self, message: Message, ranks: Iterable[int]) -> None:
        """Sends a message to some ranks; one that is gone is no error here."""
        line = json.dumps(message).encode() + b"\n"
        for rank in ranks:
            self._links[rank].writer.write(line)

    async def how_it_ended(self) -> WorkerError:
        """Returns why the ranks are gone."""
        self.is_broken = True
        assert self._process is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()
        if self._process.returncode in _KILLED:
            # We kill only groups that nobody listens to any more: it was the kernel, for want of memory.
            return WorkerError(ErrorCode.OUT_OF_MEMORY, "a rank was killed")
        return WorkerError(
            ErrorCode.ENGINE_FAILED, f"the ranks ended with {self._process.returncode}: {self._tail.strip()}"
        )

    async def close(self) -> None:
        """Kills what is left of the ranks and waits until they are gone."""
        self.kill()
        self._forget_address()
        if self._process is not None:
            await self._process.wait()
        for link in self._links.values():
            link.writer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _forget_address(self) -> None:
        """Lets no rank come any more; those that are there stay."""
        if self._server is not None:
            self._server.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def kill(self) -> None:
        """Kills the ranks without waiting for anything."""
        self.is_broken = True
        # torchrun gives each rank a session of its own.
        for link in self._links.values():
            if not link.writer.is_closing():
                with suppress(ProcessLookupError):
                    os.kill(link.pid, signal.SIGKILL)
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _keep(self, work: Any) -> None:
        self._tasks.add(asyncio.create_task(work))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes on what one rank says, until it is gone."""
        rank = -1
        try:
            hello = json.loads(await reader.readline())
            rank = int(hello["hello"])
            self._links[rank] = _Link(int(hello["pid"]), writer)
            async for line in reader:
                self.messages.put_nowait((rank, json.loads(line)))
        except (OSError, ValueError, KeyError) as error:
            logger.warning("rank %d broke off: %s", rank, type(error).__name__)
        finally:
            self._gone(rank)
            writer.close()

    async def _pass_on(self, process: asyncio.subprocess.Process) -> None:
        """Puts what the ranks print into our log and keeps the last of it; ends when all of them are gone."""
        assert process.stdout is not None
        while chunk := await process.stdout.read(4096):
            sys.stderr.write(text := chunk.decode(errors="replace"))
            self._tail = (self._tail + text)[-_TAIL_CHARACTERS:]
        await process.wait()
        self._gone(-1)

    def _gone(self, rank: int) -> None:
        self.is_broken = True
        self.messages.put_nowait((rank, {"gone": True}))
