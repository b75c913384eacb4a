"""The only module that imports the RunPod SDK: its loop, and a progress sender that can be awaited."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterable
from typing import Any

# The SDK's own checks import PyTorch here and keep memory of the GPU: `fitness.py` has ours.
os.environ.setdefault("RUNPOD_SKIP_AUTO_SYSTEM_CHECKS", "true")
os.environ.setdefault("RUNPOD_SKIP_GPU_CHECK", "true")

import runpod
from runpod.http_client import AsyncClientSession
from runpod.serverless.modules.rp_http import send_result
from runpod.serverless.modules.worker_state import IS_LOCAL_TEST, JobsProgress

from gpu_worker.engine.lifeline import die_with_parent
from gpu_worker.handler import Handler, Job
from gpu_worker.progress import SendProgress
from gpu_worker.supervisor import Supervisor

logger = logging.getLogger(__name__)


def progress_sender(job: Job) -> SendProgress:
    """Returns what posts a job's progress and comes back when the endpoint has answered.

    This is what the SDK's `progress_update` does, without the thread of its own for each call.
    """

    async def send(progress: dict[str, Any]) -> None:
        if IS_LOCAL_TEST:
            logger.info("progress: %s", progress)
            return
        async with AsyncClientSession() as session:
            await send_result(session, {"status": "IN_PROGRESS", "output": progress}, job)

    return send


def serve(handler: Handler, *, supervisor: Supervisor, checks: Iterable[Callable[[], None]]) -> None:
    """Takes jobs until SIGTERM or SIGINT, then finishes the running one and returns.

    A check that fails ends the process with status 1, before the first job. No job is taken while the ranks are
    not ready. Raises `GroupFailed` when they cannot be started.
    """
    for check in checks:
        runpod.serverless.register_fitness_check(check)
    # The SDK's heartbeat is a forked process that would go on telling RunPod that a killed worker lives.
    multiprocessing.set_start_method("fork")
    worker_pid = os.getpid()
    os.register_at_fork(after_in_child=lambda: die_with_parent(worker_pid))
    runpod.serverless.start({"handler": handler, "concurrency_modifier": _capacity(supervisor)})


def _capacity(supervisor: Supervisor) -> Callable[[int], int]:
    """Returns the SDK's `concurrency_modifier`: what the supervisor says, while no job is taken.

    A smaller number makes the SDK (1.12.0, `JobScaler.set_scale`) wait until the jobs that it has taken are over, and
    it starts none of them meanwhile. A rank that died between two jobs would stop the worker for ever.
    """
    taken = JobsProgress()

    def capacity(current: int) -> int:
        return current if taken.get_job_count() else supervisor.capacity()

    return capacity
