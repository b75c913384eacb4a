"""The handler's parts by themselves: progress in order, scratch space, settings, fitness."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gpu_worker.contract import Engine, Stage
from gpu_worker.progress import ProgressReporter, sending
from gpu_worker.scratch import Scratch
from gpu_worker.settings import SettingsError, WorkerSettings
from tests.gpu_worker.processes import REPOSITORY


class Wire:
    """Takes progress as slowly as a network and remembers its order."""

    def __init__(self, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.sent: list[tuple[int, str, int]] = []
        self.sent_at: list[float] = []
        self.is_used = asyncio.Event()
        self._seconds = seconds
        self.error = error

    async def __call__(self, document: dict[str, Any]) -> None:
        self.sent_at.append(time.monotonic())
        await asyncio.sleep(self._seconds)
        error = self.error
        self.is_used.set()
        if error is not None:
            raise error
        self.sent.append((document["sequence"], document["stage"], document["num_frames_done"]))


def reporter(wire: Wire, pause_seconds: float = 0.1) -> ProgressReporter:
    return ProgressReporter(attempt_id="a", num_frames=9, send=wire, pause_seconds=pause_seconds)


async def test_progress_is_sent_in_order_rarely_and_to_the_last() -> None:
    wire = Wire(seconds=0.03)
    async with sending(reporter(wire)) as progress:
        progress.report(Stage.DOWNLOADING)
        for number in range(100):
            progress.report(Stage.RESTORING, number)
            await asyncio.sleep(0.005)
        progress.report(Stage.UPLOADING, 100)
    sequences = [sequence for sequence, *_ in wire.sent]
    assert sequences == sorted(set(sequences))
    assert wire.sent[-1] == (102, "uploading", 100)
    pauses = [later - earlier for earlier, later in zip(wire.sent_at, wire.sent_at[1:], strict=False)]
    assert all(pause > 0.09 for pause in pauses[:-1])
    # However long it took: never more often than the pause allows, and one at each end.
    assert 3 <= len(wire.sent) <= (wire.sent_at[-1] - wire.sent_at[0]) / 0.09 + 2


async def test_the_end_does_not_wait_for_the_pause() -> None:
    started_at = time.monotonic()
    async with sending(reporter(Wire(), pause_seconds=30)) as progress:
        progress.report(Stage.DOWNLOADING)
        await asyncio.sleep(0.05)
        progress.report(Stage.UPLOADING)
    assert time.monotonic() - started_at < 2


async def test_no_progress_follows_a_cancel() -> None:
    wire = Wire(seconds=0.2)

    async def job() -> None:
        async with sending(reporter(wire)) as progress:
            progress.report(Stage.DOWNLOADING)
            await asyncio.sleep(60)

    task = asyncio.create_task(job())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.3)
    assert len(wire.sent_at) == 1
    assert wire.sent == []


async def test_a_job_does_not_fail_for_its_progress() -> None:
    async with sending(reporter(Wire(error=RuntimeError("network")))) as progress:
        progress.report(Stage.DOWNLOADING)
        await asyncio.sleep(0.05)


async def test_a_report_that_fails_is_not_the_last() -> None:
    wire = Wire(error=TimeoutError())
    async with sending(reporter(wire, pause_seconds=0.01)) as progress:
        progress.report(Stage.DOWNLOADING)
        await wire.is_used.wait()
        wire.error = None
        progress.report(Stage.UPLOADING)
    assert [stage for _, stage, _ in wire.sent] == ["uploading"]


def test_a_jobs_files_go_with_the_job_and_the_workers_with_the_worker(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)

    def job() -> None:
        with scratch.job() as directory:
            (directory / "source").write_bytes(b"1")
            raise ValueError("broke")

    with pytest.raises(ValueError, match="broke"):
        job()
    assert list(tmp_path.glob("worker-*/job-*")) == []
    scratch.close()
    assert list(tmp_path.glob("worker-*")) == []


def test_leftovers_of_dead_workers_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time; from gpu_worker.scratch import Scratch;"
        "s = Scratch(pathlib.Path(sys.argv[1])); c = s.job(); c.__enter__();"
        "print('ready', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        Scratch(tmp_path).close()
        assert len(list(tmp_path.glob("worker-*/job-*"))) == 1
        other.kill()
    Scratch(tmp_path).close()
    assert list(tmp_path.glob("worker-*")) == []


def test_settings_have_defaults_and_read_the_environment() -> None:
    assert WorkerSettings.from_environment({"WORKER_SCRATCH_DIR": ""}) == WorkerSettings()
    read = WorkerSettings.from_environment(
        {"WORKER_ENGINE": "cpu", "WORKER_SCRATCH_DIR": "/scratch", "WORKER_PROGRESS_SECONDS": "0.25"}
    )
    assert (read.engine, read.scratch_dir, read.progress_seconds) == (Engine.CPU, Path("/scratch"), 0.25)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKER_ENGINE", "gpu"),
        ("WORKER_MAX_SOURCE_BYTES", "-1"),
        ("WORKER_MAX_SOURCE_BYTES", "1e9"),
        ("WORKER_TRANSFER_TRIES", "0"),
        ("WORKER_PROGRESS_SECONDS", "nan"),
        ("WORKER_PROGRESS_SECONDS", "0"),
        ("WORKER_TRANSFER_TIMEOUT_SECONDS", "a minute"),
    ],
)
def test_a_bad_setting_names_the_variable_and_the_value(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as raised:
        WorkerSettings.from_environment({name: value})
    assert name in str(raised.value)
    assert repr(value) in str(raised.value)
