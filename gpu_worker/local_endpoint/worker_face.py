"""The face that the RunPod SDK's worker loop sees: job-take, job-done, job-stream, job-stop, ping.

Two rules of the SDK shape this file: it repeats a failed job-take at once and without end, and it forgets a
job whose result was answered with 4xx. So a worker that may not have a job waits for a 204, and one with a
wrong key waits before it hears 401.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as StarletteRoute

from gpu_worker.local_endpoint.jobs import Job
from gpu_worker.local_endpoint.options import MAX_RUN_BYTES, MAX_RUNSYNC_BYTES, MEBIBYTE
from gpu_worker.local_endpoint.queue import Queue
from gpu_worker.local_endpoint.replies import (
    CutConnection,
    Route,
    is_authorized,
    problem,
    read_body,
    until_disconnected,
    with_faults,
)

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

#: Above this the hosted service splits a streamed chunk; here it is refused.
_MAX_CHUNK_BYTES = MEBIBYTE
#: A cold start can end without any request that would wake the long poll, so it looks again this often.
_LOOK_SECONDS = 0.25


class WorkerFace:
    """The worker API of one endpoint."""

    def __init__(self, queue: Queue, *, cut: CutConnection, is_stopping: Callable[[], bool]) -> None:
        self._queue = queue
        self._cut = cut
        self._is_stopping = is_stopping
        self._num_polls: Counter[str] = Counter()

    def routes(self) -> list[StarletteRoute]:
        """Returns the routes, each behind authorization and faults."""
        return [
            self._route("job-take", "/job-take/{worker_id}", "GET", self.take),
            self._route("job-take-batch", "/job-take-batch/{worker_id}", "GET", self.take_batch),
            self._route("job-done", "/job-done/{worker_id}/{job_id}", "POST", self.done),
            self._route("job-stream", "/job-stream/{worker_id}/{job_id}", "POST", self.stream),
            self._route("job-stop", "/job-stop/{worker_id}", "GET", self.stop),
            self._route("ping", "/ping/{worker_id}", "GET", self.ping),
        ]

    async def take(self, request: Request) -> Response:
        """Gives one job, or 204 after the long poll."""
        self._greet(request)
        jobs = await self._poll(request, lambda: self._take(request, 1))
        return JSONResponse(jobs[0].worker_document()) if jobs else Response(status_code=204)

    async def take_batch(self, request: Request) -> Response:
        """Gives up to `batch_size` jobs as a list, or 204 after the long poll."""
        size = request.query_params.get("batch_size", "1")
        wanted = int(size) if size.isdecimal() else 1
        self._greet(request)
        jobs = await self._poll(request, lambda: self._take(request, wanted))
        return JSONResponse([job.worker_document() for job in jobs]) if jobs else Response(status_code=204)

    async def stop(self, request: Request) -> Response:
        """Names the jobs that the worker has to stop, or 204 after the long poll."""
        worker_id = request.path_params["worker_id"]
        self._queue.fleet.seen(worker_id)
        job_ids = await self._poll(request, lambda: self._queue.store.take_stops(worker_id))
        return JSONResponse({"jobsToStop": job_ids}) if job_ids else Response(status_code=204)

    async def done(self, request: Request) -> Response:
        """Takes a result or a progress report; one that cannot be read is 400, and the result is lost."""
        worker_id, job = request.path_params["worker_id"], self._job(request)
        if job is None:
            return problem(404, "job not found")
        limit = MAX_RUNSYNC_BYTES if job.is_sync else MAX_RUN_BYTES
        posted = await _read_json(request, max_bytes=limit)
        # The body took time to arrive: another request may have moved the job.
        job = self._job(request)
        if job is None:
            return problem(404, "job not found")
        if posted is None:
            logger.warning("job %s: %s posted a result that is too large or not JSON", job.id, worker_id)
            self._queue.lose_result(job, worker_id)
            return problem(400, "bad request: body: not JSON, or too large")
        if posted.get("status") == "IN_PROGRESS":
            self._queue.report_progress(job, worker_id, json.dumps(posted.get("output")))
        elif self._queue.lets_result_stick(job, worker_id):
            return problem(400, "injected fault")
        else:
            self._queue.complete(job, worker_id, posted)
        return JSONResponse({"id": job.id})

    async def stream(self, request: Request) -> Response:
        """Keeps one chunk of a running job."""
        posted = await _read_json(request, max_bytes=_MAX_CHUNK_BYTES)
        job = self._job(request)
        if job is None:
            return problem(404, "job not found")
        if posted is None:
            return problem(400, "bad request: body: not JSON, or too large")
        if job.is_held_by(request.path_params["worker_id"]):
            self._queue.store.add_chunk(job.id, json.dumps(posted))
            self._queue.announce()
        return JSONResponse({"id": job.id})

    async def ping(self, request: Request) -> Response:
        """Notes that a worker lives and what it runs."""
        query = request.query_params
        reason = None
        if query.get("status") == "unhealthy":
            reason = f"{query.get('check', 'unknown check')}: {query.get('reason', '')}"
            logger.warning("worker %s: unhealthy, %s", request.path_params["worker_id"], reason)
        job_ids = {job_id for job_id in query.get("job_id", "").split(",") if job_id}
        self._queue.ping(request.path_params["worker_id"], job_ids, unhealthy_reason=reason)
        return JSONResponse({})

    def _route(self, operation: str, path: str, verb: str, route: Route) -> StarletteRoute:
        faulty = with_faults(operation, route, faults=self._queue.faults, cut=self._cut)

        async def guarded(request: Request) -> Response:
            is_known = request.path_params["endpoint_id"] == self._queue.options.endpoint_id
            if is_known and is_authorized(request, self._queue.options.worker_key):
                return await faulty(request)
            if verb == "GET":
                await asyncio.sleep(self._queue.options.poll_seconds)
            return problem(401, "unauthorized") if is_known else problem(404, "endpoint not found")

        return StarletteRoute("/v2/{endpoint_id}" + path, guarded, methods=[verb], name=operation)

    def _greet(self, request: Request) -> None:
        is_idle = request.query_params.get("job_in_progress") == "0"
        self._queue.greet(request.path_params["worker_id"], is_idle=is_idle)

    def _job(self, request: Request) -> Job | None:
        return self._queue.store.job(request.path_params["job_id"])

    def _take(self, request: Request, wanted: int) -> list[Job]:
        taken: list[Job] = []
        while len(taken) < wanted and (job := self._queue.take(request.path_params["worker_id"])):
            taken.append(job)
        return taken

    async def _poll(self, request: Request, look: Callable[[], list[_T]]) -> list[_T]:
        """Looks after every change, until there is something, the poll is over or the worker is gone."""
        worker_id = request.path_params["worker_id"]
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._queue.options.poll_seconds
        gone = asyncio.ensure_future(until_disconnected(request))
        self._num_polls[worker_id] += 1
        try:
            while not self._is_stopping():
                if gone.done():
                    self._note_dropped_poll(worker_id)
                    return []
                if found := look():
                    return found
                if (left := deadline - loop.time()) <= 0:
                    return []
                await self._change_or_gone(gone, min(left, _LOOK_SECONDS))
            return []
        finally:
            self._num_polls[worker_id] -= 1
            gone.cancel()

    def _note_dropped_poll(self, worker_id: str) -> None:
        # A worker that has another poll open has only changed its connection.
        if self._num_polls[worker_id] == 1:
            logger.info("worker %s: dropped its poll", worker_id)
            self._queue.fleet.left(worker_id)

    async def _change_or_gone(self, gone: asyncio.Future[None], seconds: float) -> None:
        changed = asyncio.ensure_future(self._queue.wait_for_change(seconds))
        try:
            await asyncio.wait({changed, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()


async def _read_json(request: Request, *, max_bytes: int) -> dict[str, Any] | None:
    """Returns the posted object; None when it is too large or not a JSON object.

    The SDK's `NaN` and `Infinity` are not JSON, and the hosted service refuses them.
    """
    try:
        posted = json.loads(await read_body(request, max_bytes=max_bytes), parse_constant=_refuse_constant)
    except (ValueError, HTTPException):
        return None
    return posted if isinstance(posted, dict) else None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
