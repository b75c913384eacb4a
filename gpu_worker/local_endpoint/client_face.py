"""The face that clients see: `/v2/<endpoint>/run`, `/status/<id>` and the rest of RunPod's job API."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as StarletteRoute

from gpu_worker.local_endpoint.faults import FaultKind
from gpu_worker.local_endpoint.jobs import Job
from gpu_worker.local_endpoint.limits import Limiter, TooManyRequestsError
from gpu_worker.local_endpoint.options import (
    MAX_POLICY_SECONDS,
    MAX_RUN_BYTES,
    MAX_RUNSYNC_BYTES,
    MIN_EXECUTION_TIMEOUT_SECONDS,
    MIN_TTL_SECONDS,
)
from gpu_worker.local_endpoint.queue import Queue, Submission
from gpu_worker.local_endpoint.replies import (
    CutConnection,
    Route,
    is_authorized,
    problem,
    read_body,
    until_disconnected,
    with_faults,
)

_DEFAULT_WAIT_MS: Final = 90_000
_MIN_WAIT_MS: Final = 1_000
_MAX_WAIT_MS: Final = 300_000


class ClientFace:
    """The client API of one endpoint."""

    def __init__(self, queue: Queue, *, limiter: Limiter, cut: CutConnection) -> None:
        self._queue = queue
        self._limiter = limiter
        self._cut = cut

    def routes(self) -> list[StarletteRoute]:
        """Returns the routes, each behind authorization, limits and faults."""
        return [
            self._route("run", "/run", "POST", self.run),
            self._route("runsync", "/runsync", "POST", self.runsync),
            self._route("status", "/status/{job_id}", "GET", self.status),
            self._route("stream", "/stream/{job_id}", "GET", self.stream),
            self._route("cancel", "/cancel/{job_id}", "POST", self.cancel),
            self._route("retry", "/retry/{job_id}", "POST", self.retry),
            self._route("purge-queue", "/purge-queue", "POST", self.purge),
            self._route("health", "/health", "GET", self.health),
        ]

    async def run(self, request: Request) -> Response:
        """Queues a job and answers its id at once."""
        body = await read_body(request, max_bytes=MAX_RUN_BYTES)
        job = self._queue.submit(read_submission(body, is_sync=False))
        return _state(job)

    async def runsync(self, request: Request) -> Response:
        """Queues a job and waits for its end, at most `wait` milliseconds."""
        wait_seconds = _wait_seconds(request.query_params.get("wait"))
        body = await read_body(request, max_bytes=MAX_RUNSYNC_BYTES)
        job = self._queue.submit(read_submission(body, is_sync=True))
        gone = asyncio.ensure_future(until_disconnected(request))
        try:
            found = await self._until_final(job.id, wait_seconds, gone)
        finally:
            gone.cancel()
        if found is None:
            return problem(404, "job not found")
        return self._document(found)

    async def status(self, request: Request) -> Response:
        """Answers the job's state; `?ttl=` changes how long it lives."""
        job = self._job(request)
        if (ttl := request.query_params.get("ttl")) is not None:
            seconds = _policy_seconds("ttl", _number(ttl), MIN_TTL_SECONDS)
            assert seconds is not None  # only a missing number has no span
            self._queue.set_ttl(job, seconds)
        return self._document(job)

    async def stream(self, request: Request) -> Response:
        """Answers the chunks that have not been read yet."""
        job = self._job(request)
        chunks = [json.loads(chunk) for chunk in self._queue.store.take_chunks(job.id)]
        status = job.shown_status(self._queue.clock.now())
        return JSONResponse({"status": status.value, "stream": chunks})

    async def cancel(self, request: Request) -> Response:
        """Cancels a job; a final one keeps its state, and cancelling twice is harmless."""
        job = self._job(request)
        self._queue.cancel(job)
        return _state(job)

    async def retry(self, request: Request) -> Response:
        """Queues a failed job again."""
        job = self._job(request)
        if not self._queue.retry(job):
            return problem(400, f"job is {job.status}; only FAILED and TIMED_OUT jobs can be retried")
        return _state(job)

    async def purge(self, _request: Request) -> Response:
        """Drops the queued jobs."""
        return JSONResponse({"removed": self._queue.purge(), "status": "completed"})

    async def health(self, _request: Request) -> Response:
        """Counts jobs and workers."""
        return JSONResponse(self._queue.health())

    def _route(self, operation: str, path: str, verb: str, route: Route) -> StarletteRoute:
        faulty = with_faults(operation, route, faults=self._queue.faults, cut=self._cut)

        async def guarded(request: Request) -> Response:
            if not is_authorized(request, self._queue.options.api_key):
                return problem(401, "unauthorized")
            if request.path_params["endpoint_id"] != self._queue.options.endpoint_id:
                return problem(404, "endpoint not found")
            try:
                with self._limiter.admit(operation):
                    return await faulty(request)
            except TooManyRequestsError as error:
                return problem(429, str(error), retry_after=error.retry_after)

        # Starlette adds HEAD to GET; the hosted service answers 405 to every other verb.
        return StarletteRoute("/v2/{endpoint_id}" + path, guarded, methods=[verb], name=operation)

    def _job(self, request: Request) -> Job:
        job = self._queue.store.job(request.path_params["job_id"])
        if job is None or self._is_unseen(job):
            raise HTTPException(404, "job not found")
        return job

    def _is_unseen(self, job: Job) -> bool:
        fault = self._queue.faults.find(FaultKind.UNSEEN)
        return fault is not None and self._queue.clock.now() < job.submitted_at + fault.seconds

    def _document(self, job: Job) -> Response:
        return JSONResponse(job.status_document(self._queue.clock.now()))

    async def _until_final(self, job_id: str, seconds: float, gone: asyncio.Future[None]) -> Job | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            job = self._queue.store.job(job_id)
            left = deadline - loop.time()
            if job is None or job.is_final or left <= 0 or gone.done():
                return job
            await self._queue.wait_for_change(min(left, 1.0))


def read_submission(body: bytes, *, is_sync: bool) -> Submission:
    """Checks a request body; raises HTTPException 400 that says what is wrong. Unknown keys are dropped."""
    try:
        document = json.loads(body)
    except ValueError:
        raise HTTPException(400, "bad request: body: not JSON") from None
    if not isinstance(document, dict) or not isinstance(document.get("input"), dict):
        raise HTTPException(400, "bad request: body: input is required and must be an object")
    policy = document.get("policy") or {}
    if not isinstance(policy, Mapping):
        raise HTTPException(400, "bad request: policy: must be an object")
    webhook = document.get("webhook")
    if webhook is not None and not (isinstance(webhook, str) and webhook.startswith(("http://", "https://"))):
        raise HTTPException(400, "bad request: webhook: must be an http or https address")
    s3_config = document.get("s3Config")
    return Submission(
        input_json=json.dumps(document["input"]),
        is_sync=is_sync,
        webhook=webhook,
        s3_config_json=None if s3_config is None else json.dumps(s3_config),
        execution_timeout_seconds=_policy_seconds(
            "executionTimeout", policy.get("executionTimeout"), MIN_EXECUTION_TIMEOUT_SECONDS
        ),
        ttl_seconds=_policy_seconds("ttl", policy.get("ttl"), MIN_TTL_SECONDS),
        low_priority=policy.get("lowPriority") is True,
    )


def _policy_seconds(name: str, milliseconds: Any, low: float) -> float | None:
    if milliseconds is None:
        return None
    is_number = isinstance(milliseconds, int | float) and not isinstance(milliseconds, bool)
    if not is_number or not low <= milliseconds / 1000 <= MAX_POLICY_SECONDS:
        accepted = f"{low * 1000:.0f} to {MAX_POLICY_SECONDS * 1000:.0f} ms"
        raise HTTPException(400, f"bad request: {name}: must be {accepted}")
    return float(milliseconds) / 1000


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise HTTPException(400, f"bad request: {text!r} is not a number")
    return number


def _wait_seconds(text: str | None) -> float:
    milliseconds = _DEFAULT_WAIT_MS if text is None else _number(text)
    if not _MIN_WAIT_MS <= milliseconds <= _MAX_WAIT_MS:
        raise HTTPException(400, f"bad request: wait: must be {_MIN_WAIT_MS} to {_MAX_WAIT_MS} ms")
    return milliseconds / 1000


def _state(job: Job) -> Response:
    return JSONResponse({"id": job.id, "status": job.status.value})
