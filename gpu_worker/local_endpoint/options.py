"""What the endpoint is started with: one frozen object, each field explained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MEBIBYTE: Final = 1024 * 1024
#: Requests above these sizes are refused; results above them are thrown away by the hosted service.
MAX_RUN_BYTES: Final = 10 * MEBIBYTE
MAX_RUNSYNC_BYTES: Final = 20 * MEBIBYTE

MIN_EXECUTION_TIMEOUT_SECONDS: Final = 5.0
MIN_TTL_SECONDS: Final = 10.0
MAX_POLICY_SECONDS: Final = 7 * 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class EndpointOptions:
    """Spans are the documented ones in seconds; the clock divides those of the service by its speed."""

    #: The path's `/v2/<endpoint_id>/`; any other id is "endpoint not found".
    endpoint_id: str
    #: What clients send as `Authorization: Bearer <key>` or bare.
    api_key: str
    #: What workers send bare as `Authorization` (their RUNPOD_AI_API_KEY).
    worker_key: str
    #: How long job-take and job-stop are held open when there is nothing to say. Real time.
    poll_seconds: float = 20.0
    #: The workers' RUNPOD_PING_INTERVAL; three silent intervals mean that a worker is lost. Real time.
    ping_seconds: float = 10.0
    #: How long a worker whose long poll was dropped may stay away before it is lost. Real time.
    return_seconds: float = 3.0
    #: How often one job is given to a worker before it fails.
    max_deliveries: int = 3
    #: How long a scaled-down worker takes to start; 0 means that workers are always warm.
    cold_start_seconds: float = 0.0
    #: How long an idle worker stays warm.
    idle_seconds: float = 5.0
    #: How many workers may be started at the same time.
    workers_max: int = 100
    #: The endpoint's own execution timeout, where a job's policy names none.
    execution_timeout_seconds: float = 600.0
    #: Between the end of the execution timeout and the moment when it strikes.
    execution_timeout_slack_seconds: float = 3.0
    #: How long a job lives at most, where its policy does not say.
    ttl_seconds: float = 24 * 3600.0
    #: How long a finished job can be read, by way of submission.
    retention_seconds: float = 30 * 60.0
    sync_retention_seconds: float = 60.0
    #: Webhooks: time for an answer (real time), pause between tries, tries in total.
    webhook_timeout_seconds: float = 10.0
    webhook_pause_seconds: float = 10.0
    webhook_tries: int = 3
    #: Whether `/admin/` is served.
    has_admin: bool = False
