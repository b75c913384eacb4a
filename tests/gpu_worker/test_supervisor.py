"""The supervisor against ranks that die, hang, keep memory or do not come: each ends the job, never the worker."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gpu_worker.contract import ErrorCode, WorkerError
from gpu_worker.engine.job import Done, EngineJob, SegmentSpan
from gpu_worker.rank_group import GroupFailed, RankCommand
from gpu_worker.supervisor import Patience, Supervisor
from tests.gpu_worker.processes import is_running, until
from tests.gpu_worker.unruly_rank import SPANS

pytestmark = pytest.mark.services

PATIENCE = Patience(ready_seconds=30, stuck_seconds=1.5, cancel_seconds=1.0, slack_bytes=2**30)


def command(starts: Path, num_ranks: int = 1, **environment: str) -> RankCommand:
    """Returns the start of unruly ranks; two of them come from one process, as torchrun starts them."""
    alone = "-m tests.gpu_worker.unruly_rank"
    together = (
        "import os, subprocess, sys\n"
        "ranks = [subprocess.Popen([sys.executable, *sys.argv[1:]], env={**os.environ, 'RANK': str(rank)},"
        " start_new_session=True) for rank in (0, 1)]\n"
        "print(*(rank.pid for rank in ranks), flush=True)\n"
        "codes = [rank.wait() for rank in ranks[:1]]\n"
        "sys.exit(137 if -9 in codes else 1)"
    )
    arguments = (sys.executable, *alone.split())
    if num_ranks == 2:
        arguments = (sys.executable, "-c", together, *alone.split())
    return RankCommand(
        arguments=arguments, num_ranks=num_ranks, environment={"STARTS": str(starts), **environment}
    )


@pytest.fixture
def starts(tmp_path: Path) -> Path:
    """Grows by a byte with each rank that starts."""
    return tmp_path / "starts"


def count(starts: Path) -> int:
    """How many ranks were started."""
    return starts.stat().st_size


@pytest.fixture
async def supervisor(starts: Path) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(command(starts), PATIENCE)
    yield supervisor
    await supervisor.close()


@pytest.fixture
def restore(tmp_path: Path) -> Callable[..., object]:
    """Runs a job that does what its model says."""

    async def run(supervisor: Supervisor, model: str, **more: object) -> Done:
        heard: list[int] = []
        made: list[SegmentSpan] = []
        job = EngineJob(source=tmp_path, folder=tmp_path, model=model, width=2, height=2)
        done = await supervisor.restore(
            job, on_frames=heard.append, on_segment=lambda span, _path, _plan: made.append(span)
        )
        assert tuple(sorted(made, key=lambda span: span.index)) == SPANS
        return done

    return run


async def test_ranks_are_started_once_and_stay_warm(supervisor: Supervisor, restore, starts: Path) -> None:
    assert supervisor.capacity() == 0
    await supervisor.ready()
    assert supervisor.capacity() == 1
    for _ in range(3):
        assert (await restore(supervisor, "good")).num_frames == 30
    assert count(starts) == 1


async def test_ranks_that_are_ready_need_no_file(
    starts: Path, restore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The address of a socket has few letters, and a worker that is killed cannot remove it.
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        supervisor = Supervisor(command(starts), PATIENCE)
        await supervisor.ready()
        assert not list(Path(folder).iterdir())  # noqa: ASYNC240
        assert (await restore(supervisor, "good")).num_frames == 30
        await supervisor.close()


@pytest.mark.parametrize(
    ("model", "code", "detail"),
    [
        ("killed", ErrorCode.OUT_OF_MEMORY, "killed"),
        ("crashed", ErrorCode.ENGINE_FAILED, "something broke"),
        ("stuck", ErrorCode.ENGINE_STUCK, "1.5 s"),
    ],
)
async def test_a_rank_that_fails_ends_its_job_and_is_replaced(
    supervisor: Supervisor, restore, starts: Path, model: str, code: ErrorCode, detail: str
) -> None:
    with pytest.raises(WorkerError) as raised:
        await restore(supervisor, model)
    assert raised.value.code is code
    assert detail in raised.value.detail
    assert supervisor.capacity() == 0, "no job is taken before the new ranks are ready"
    assert (await restore(supervisor, "good")).num_frames == 30
    assert count(starts) == 2


async def test_a_rank_that_keeps_memory_is_replaced(supervisor: Supervisor, restore, starts: Path) -> None:
    await restore(supervisor, "greedy")
    await restore(supervisor, "good")
    assert count(starts) == 2


async def test_a_rank_that_dies_between_jobs_is_replaced(
    supervisor: Supervisor, restore, starts: Path
) -> None:
    group = await supervisor.ready()
    group.kill()
    await asyncio.sleep(0.1)
    assert supervisor.capacity() == 0
    await restore(supervisor, "good")
    assert count(starts) == 2


@pytest.mark.parametrize(("model", "groups"), [("endless", 1), ("deaf", 2), ("stuck", 2)])
async def test_a_cancel_ends_the_work_in_time(
    supervisor: Supervisor, restore, starts: Path, model: str, groups: int
) -> None:
    """A rank that listens stays warm; one that does not is replaced."""
    await supervisor.ready()
    job = asyncio.create_task(restore(supervisor, model))
    await asyncio.sleep(0.3)
    started_at = time.monotonic()
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert time.monotonic() - started_at < 10
    await restore(supervisor, "good")
    assert count(starts) == groups


async def test_a_second_cancel_waits_for_the_ranks_as_well(
    supervisor: Supervisor, restore, starts: Path
) -> None:
    await supervisor.ready()
    job = asyncio.create_task(restore(supervisor, "deaf"))
    await asyncio.sleep(0.3)
    while not job.done():
        job.cancel()
        await asyncio.sleep(0.1)
    assert job.cancelled()
    # The ranks that do not stop are gone, and no job is given to them.
    await restore(supervisor, "good")
    assert count(starts) == 2


async def test_two_ranks_work_together_and_one_that_dies_ends_both(
    tmp_path: Path, restore, starts: Path
) -> None:
    supervisor = Supervisor(command(starts, num_ranks=2), PATIENCE)
    job = EngineJob(source=tmp_path, folder=tmp_path, model="good", width=2, height=2)
    try:
        done = await supervisor.restore(job, on_frames=lambda _: None, on_segment=lambda *_: None)
        assert done.seconds == {"decode": 2.0}
        with pytest.raises(WorkerError, match="different segments"):
            await restore(supervisor, "different@1")
        first = await supervisor.ready()
        with pytest.raises(WorkerError, match="killed"):
            await restore(supervisor, "killed@0")
        assert first.is_broken
        assert count(starts) == 2
        await supervisor.ready()
        with pytest.raises(WorkerError, match="no word"):
            await restore(supervisor, "stuck@1")
    finally:
        await supervisor.close()


async def test_ranks_die_with_the_supervisor(supervisor: Supervisor) -> None:
    group = await supervisor.ready()
    (link,) = group._links.values()
    await supervisor.close()
    await asyncio.to_thread(until, lambda: not is_running(link.pid))


async def test_ranks_that_cannot_be_started_end_the_worker(
    starts: Path, restore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpu_worker.supervisor._PAUSE_SECONDS", 0.01)
    supervisor = Supervisor(command(starts, UNFIT="1"), PATIENCE)
    with pytest.raises(WorkerError, match="there is no GPU"):
        await restore(supervisor, "good")
    with pytest.raises(GroupFailed, match="there is no GPU"):
        supervisor.capacity()
    assert count(starts) == 3
    await supervisor.close()
