"""The only client of RunPod's job API (`/run`, `/status`, `/cancel`), over httpx.

Written against `https://api.runpod.ai/v2/{endpoint}`; any server with the same paths works, such as the local
endpoint. The SDK is not used: it hides failures' texts, wraps inputs and does not retry.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
from django.conf import settings

logger = logging.getLogger(__name__)

_TIMEOUT: Final = httpx.Timeout(30, connect=5)
#: Far below RunPod's cap of 400 concurrent status calls for a user and endpoint.
_CONCURRENT_STATUS_CALLS: Final = 32
#: However long the endpoint asks to be left alone, a sweep looks in again after this.
_MAX_PAUSE_SECONDS: Final = 60.0
_LONGEST_ID: Final = 128
_TOO_LONG: Final = 2**53


class JobState(enum.StrEnum):
    """RunPod's states, and GONE for a job that it no longer knows."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"
    GONE = "GONE"


@dataclass(frozen=True, kw_only=True, slots=True)
class JobStatus:
    """What RunPod says about a job. `output` is progress while IN_PROGRESS, a hint of the result afterwards."""

    state: JobState
    output: Any = None
    error: str = ""
    worker_id: str = ""
    delay_ms: int | None = None
    execution_ms: int | None = None


class NotTaken(Exception):
    """The endpoint did not take the job, and it does not run: it can be sent again."""

    def __init__(self, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Refused(Exception):
    """The endpoint refuses this job as it is; sending it again changes nothing."""


class AnswerLost(Exception):
    """The job was sent, the answer did not come: it may run or not."""


def submit(*, job_input: Mapping[str, Any], webhook: str, execution_seconds: int, ttl_seconds: int) -> str:
    """Posts a job and returns RunPod's id for it. Raises `NotTaken`, `Refused` or `AnswerLost`."""
    body = {
        "input": dict(job_input),
        "webhook": webhook,
        "policy": {"executionTimeout": execution_seconds * 1000, "ttl": ttl_seconds * 1000},
    }
    try:
        with httpx.Client(headers=_headers(), timeout=_TIMEOUT) as client:
            response = client.post(_url("run"), json=body)
    except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
        raise NotTaken(f"no connection to the endpoint: {exc}") from exc
    except httpx.HTTPError as exc:
        raise AnswerLost(f"{type(exc).__name__} after the job was sent") from exc
    return _job_id(response)


def _job_id(response: httpx.Response) -> str:
    # 504 comes from a gateway that gave up waiting: the job may run. The other faults come before that.
    if response.status_code == 504:
        raise AnswerLost("HTTP 504 after the job was sent")
    if response.status_code == 429 or response.status_code >= 500:
        raise NotTaken(f"HTTP {response.status_code}", retry_after=_retry_after(response))
    # 401 and 404 are an operator's mistake (key, endpoint id) that may be put right while the job waits.
    if response.status_code in (401, 403, 404):
        logger.error(
            "endpoint refuses us status=%s endpoint=%s", response.status_code, settings.RUNPOD_ENDPOINT_ID
        )
        raise NotTaken(f"HTTP {response.status_code}")
    if response.status_code != 200:
        raise Refused(f"HTTP {response.status_code}: {response.text[:300]}")
    try:
        return str(response.json()["id"])
    except (ValueError, KeyError, TypeError) as exc:
        raise AnswerLost("the answer to /run holds no id") from exc


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return float(response.headers["retry-after"])
    except (KeyError, ValueError):
        return None


def cancel(runpod_id: str) -> None:
    """Asks RunPod to stop a job; one that is final or unknown there needs no stopping.

    Raises `NotTaken` when it could not be asked.
    """
    try:
        with httpx.Client(headers=_headers(), timeout=_TIMEOUT) as client:
            response = client.post(_url(f"cancel/{runpod_id}"))
    except httpx.HTTPError as exc:
        raise NotTaken(f"cancel: {type(exc).__name__}") from exc
    # 401 and 403 are an operator's mistake: the job goes on, and costs, until the key is put right.
    if response.status_code in (401, 403, 429) or response.status_code >= 500:
        raise NotTaken(f"cancel: HTTP {response.status_code}", retry_after=_retry_after(response))


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """What a sweep learned. Jobs without a usable answer are missing from `statuses`.

    `pause_seconds` is set when the endpoint said "too many requests": nobody asks again before it is over.
    """

    statuses: Mapping[str, JobStatus]
    pause_seconds: float | None


def statuses(runpod_ids: Iterable[str]) -> Answers:
    """Asks for many jobs at once."""
    return asyncio.run(_Sweep().run(list(runpod_ids)))


class _Sweep:
    """One round of status calls, cut short by the first 429."""

    def __init__(self) -> None:
        self._gate = asyncio.Semaphore(_CONCURRENT_STATUS_CALLS)
        self._pause_seconds: float | None = None

    async def run(self, runpod_ids: list[str]) -> Answers:
        async with httpx.AsyncClient(headers=_headers(), timeout=_TIMEOUT) as client:
            found = await asyncio.gather(*(self._ask(client, runpod_id) for runpod_id in runpod_ids))
        pairs = zip(runpod_ids, found, strict=True)
        return Answers(
            statuses={runpod_id: status for runpod_id, status in pairs if status},
            pause_seconds=self._pause_seconds,
        )

    async def _ask(self, client: httpx.AsyncClient, runpod_id: str) -> JobStatus | None:
        async with self._gate:
            if self._pause_seconds is not None:
                return None
            try:
                response = await client.get(_url(f"status/{runpod_id}"))
            except httpx.HTTPError as exc:
                logger.warning("no status job=%s error=%s", runpod_id, type(exc).__name__)
                return None
        if response.status_code == 404:
            return JobStatus(state=JobState.GONE)
        if response.status_code == 429:
            self._pause_seconds = min(_retry_after(response) or 5.0, _MAX_PAUSE_SECONDS)
        if response.status_code != 200:
            logger.warning("no status job=%s http=%s", runpod_id, response.status_code)
            return None
        try:
            return _read_status(response.json())
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            logger.warning("unreadable status job=%s error=%r", runpod_id, exc)
            return None


def _read_status(document: dict[str, Any]) -> JobStatus:
    try:
        state = JobState(document["status"])
    except ValueError:
        # RUNNING, and words that RunPod may add: not final, so still at work.
        state = JobState.IN_PROGRESS
    return JobStatus(
        state=state,
        output=document.get("output"),
        error=_text(document.get("error")),
        worker_id=_text(document.get("workerId"))[:_LONGEST_ID],
        delay_ms=_milliseconds(document.get("delayTime")),
        execution_ms=_milliseconds(document.get("executionTime")),
    )


def _text(said: object) -> str:
    # No column of PostgreSQL holds this character.
    return str(said or "").replace("\0", "")


def _milliseconds(said: object) -> int | None:
    """Returns a duration that a column holds; None for anything else."""
    return int(said) if isinstance(said, int | float) and 0 <= said < _TOO_LONG else None


def _headers() -> dict[str, str]:
    return {"Authorization": f"Bearer {settings.RUNPOD_API_KEY}"}


def _url(path: str) -> str:
    return f"{settings.RUNPOD_BASE_URL}/{settings.RUNPOD_ENDPOINT_ID}/{path}"
