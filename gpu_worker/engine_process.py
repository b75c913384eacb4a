"""Runs an engine in a process of its own, so that a cancel ends it at once and a crash ends nothing else."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gpu_worker.contract import ErrorCode, WorkerError

logger = logging.getLogger(__name__)

_MAX_LINE_BYTES: Final = 64 * 1024
#: How much of what a crashed engine said is kept for operators.
_TAIL_CHARACTERS: Final = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineReport:
    """What an engine made, as it measured the finished file."""

    width: int
    height: int
    num_frames: int
    frame_rate: str
    duration_seconds: float
    num_audio_tracks: int
    num_audio_tracks_lost: int


def cpu_command(source: Path, result: Path, *, width: int, height: int) -> list[str]:
    """Returns the command line of the CPU engine."""
    size = ["--res-w", str(width), "--res-h", str(height)]
    module = ["-m", "gpu_worker.engine.cpu"]
    return [sys.executable, *module, str(source), str(result), *size, "--parent-pid", str(os.getpid())]


async def run_engine(command: Sequence[str], on_frames: Callable[[int], None]) -> EngineReport:
    """Runs an engine to its end and returns its report; `on_frames` hears how many frames are done.

    When the caller is cancelled, the engine's whole process group is killed before this returns. Raises
    `WorkerError`.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=_MAX_LINE_BYTES,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    errors = asyncio.create_task(_tail(process.stderr))
    try:
        report = await _listen(process.stdout, on_frames)
        await process.wait()
        if report is None:
            raise _crash(process.returncode, await errors)
        return report
    finally:
        await _end(process)
        errors.cancel()
        with suppress(asyncio.CancelledError):
            await errors


async def _listen(lines: asyncio.StreamReader, on_frames: Callable[[int], None]) -> EngineReport | None:
    """Reads the engine's lines to the last; returns its report, None when it went without one."""
    report = None
    async for line in lines:
        said = _parse(line)
        if "frames" in said:
            on_frames(int(said["frames"]))
        elif "error" in said:
            raise WorkerError(ErrorCode(said["error"]["code"]), str(said["error"]["detail"]))
        elif "report" in said:
            report = EngineReport(**said["report"])
    return report


def _parse(line: bytes) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        # A library that prints is no reason to lose a job.
        logger.warning("engine said: %r", line[:_TAIL_CHARACTERS])
        return {}
    return said


def _crash(return_code: int | None, said: str) -> WorkerError:
    if return_code == -signal.SIGKILL:
        # We kill only when cancelled, and then nobody reads this: it was the kernel, for want of memory.
        return WorkerError(ErrorCode.OUT_OF_MEMORY, "the engine's process was killed")
    return WorkerError(ErrorCode.ENGINE_FAILED, f"the engine ended with {return_code}: {said}")


async def _tail(errors: asyncio.StreamReader) -> str:
    """Reads standard error to its end and keeps the last of it."""
    tail = ""
    while chunk := await errors.read(4096):
        tail = (tail + chunk.decode(errors="replace"))[-_TAIL_CHARACTERS:]
    return tail.strip()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kills what is left of the engine's process group and waits for its leader."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # A second cancel must not leave before the process is gone.
    await asyncio.shield(process.wait())
