"""A job as the endpoint keeps it, and the documents that clients and workers see of it."""

from __future__ import annotations

import enum
import json
import uuid
from dataclasses import dataclass
from typing import Any, Final


class Status(enum.StrEnum):
    """RunPod's job states.

    IN_QUEUE -> IN_PROGRESS -> COMPLETED | FAILED | TIMED_OUT
        \\___________\\______-> CANCELLED
    """

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"


FINAL: Final = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.TIMED_OUT})
RETRYABLE: Final = frozenset({Status.FAILED, Status.TIMED_OUT})


@dataclass(kw_only=True, slots=True)
class Job:
    """One job. Moments are seconds since 1970; `*_json` hold JSON text exactly as it arrived.

    `twin_worker_id` is a second worker that got the same job by the `duplicate_delivery` fault.
    `shown_from` hides a final state from `/status` until that moment (the webhook came first).
    """

    id: str
    is_sync: bool
    input_json: str
    status: Status
    submitted_at: float
    ttl_seconds: float
    execution_timeout_seconds: float
    low_priority: bool = False
    webhook: str | None = None
    s3_config_json: str | None = None
    taken_at: float | None = None
    finished_at: float | None = None
    shown_from: float | None = None
    worker_id: str | None = None
    twin_worker_id: str | None = None
    deliveries: int = 0
    num_missed_pings: int = 0
    output_json: str | None = None
    error: str | None = None

    @property
    def is_final(self) -> bool:
        """True when no worker can change the job any more."""
        return self.status in FINAL

    def is_held_by(self, worker_id: str) -> bool:
        """Tells whether `worker_id` is running this job now."""
        return self.status is Status.IN_PROGRESS and worker_id in (self.worker_id, self.twin_worker_id)

    def shown_status(self, now: float) -> Status:
        """Returns the state that `/status` admits at `now`."""
        hidden = self.is_final and self.shown_from is not None and now < self.shown_from
        return Status.IN_PROGRESS if hidden else self.status

    def status_document(self, now: float) -> dict[str, Any]:
        """Returns what `/status` answers: only `id` and `status` are always there."""
        status = self.shown_status(now)
        document: dict[str, Any] = {"id": self.id, "status": status.value}
        if self.taken_at is not None:
            document["delayTime"] = _milliseconds(self.taken_at - self.submitted_at)
            ended_at = self.finished_at if status in FINAL and self.finished_at is not None else now
            document["executionTime"] = _milliseconds(ended_at - self.taken_at)
        if self.worker_id is not None:
            document["workerId"] = self.worker_id
        if self.output_json is not None:
            document["output"] = json.loads(self.output_json)
        if status in RETRYABLE and self.error is not None:
            document["error"] = self.error
        return document

    def webhook_document(self) -> dict[str, Any]:
        """Returns the body of the webhook: the final status document, the input and the webhook's address."""
        shown = self.status_document(max(self.shown_from or 0.0, self.finished_at or 0.0))
        return {**shown, "input": json.loads(self.input_json), "webhook": self.webhook}

    def worker_document(self) -> dict[str, Any]:
        """Returns what a worker takes."""
        document: dict[str, Any] = {"id": self.id, "input": json.loads(self.input_json)}
        if self.webhook is not None:
            document["webhook"] = self.webhook
        if self.s3_config_json is not None:
            document["s3Config"] = json.loads(self.s3_config_json)
        return document


def new_job_id(*, is_sync: bool) -> str:
    """Returns an id of the hosted service's shape."""
    return f"sync-{uuid.uuid4()}-u1" if is_sync else f"{uuid.uuid4()}-u1"


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))


@dataclass(kw_only=True, slots=True)
class Worker:
    """A worker as the endpoint knows it: by its calls alone.

    `ready_at` is the moment from which it may take jobs (None: scaled down, so the next job starts it cold).
    `left_at` is the moment when its last long poll was dropped without an answer.
    """

    id: str
    seen_at: float
    ready_at: float | None = None
    idle_since: float | None = None
    left_at: float | None = None
    is_lost: bool = False
    unhealthy_reason: str | None = None


@dataclass(kw_only=True, slots=True)
class Delivery:
    """One webhook on its way. `outcome` is empty until it was delivered or given up."""

    number: int
    job_id: str
    url: str
    body: str
    due_at: float
    num_tries: int = 0
    outcome: str = ""
