"""Talk to the endpoint about attempts: send, ask, cancel. What the answers mean, `lifecycle` says."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.conf import settings
from django.core.cache import cache
from django.urls import reverse
from django.utils import timezone

from gpu_worker.contract import (
    ColorFix,
    ErrorCode,
    Model,
    Output,
    RestoreRequest,
    ResultParts,
    SegmentStore,
    parse_error,
)
from restorations import lifecycle, objects, runpod, segments, watching
from restorations.models import Attempt, Restoration
from restorations.quotes import expected_bytes
from restorations.runpod import JobState, JobStatus

logger = logging.getLogger(__name__)

#: Right after /run, RunPod may not know a job yet; public reports go up to 150 seconds.
UNKNOWN_AT_FIRST: Final = timedelta(seconds=150)
#: An attempt that is being sent for longer has lost its sender: /run answers within 35 seconds or never.
SENDING_LIMIT: Final = timedelta(seconds=90)
#: What a look writes about an attempt, beside what comes of it.
_NOTED: Final = (
    *("runpod_status", "last_seen_at", "worker_id", "delay_ms", "execution_ms"),
    *("next_look_at", "look_pause"),
)
#: What the endpoint calls a job that it will not work on any more.
_OVER: Final = frozenset(
    state.value for state in JobState if state not in (JobState.IN_QUEUE, JobState.IN_PROGRESS)
)
_PAUSE_KEY: Final = "endpoint:status-pause"
RESULT_MAX_BYTES: Final = 2**40
MANIFEST_MAX_BYTES: Final = 2**16


def dispatch(restoration_id: UUID | str) -> None:
    """Sends a queued restoration to the endpoint, once however many callers there are."""
    attempt = lifecycle.open_attempt(restoration_id)
    if attempt is None:
        return
    restoration = attempt.restoration
    try:
        runpod_id = runpod.submit(
            job_input=_request(attempt).to_json(),
            webhook=f"{settings.SITE_URL}{reverse('runpod-webhook', args=[attempt.webhook_token])}",
            execution_seconds=lifecycle.execution_seconds(restoration),
            ttl_seconds=lifecycle.ttl_seconds(restoration),
        )
    except objects.StorageUnavailable as exc:
        # Before anything was sent: the addresses of a large result could not be made.
        logger.warning("storage unavailable attempt=%s reason=%s", attempt.contract_id, exc)
        lifecycle.attempt_not_taken(attempt, seconds=15)
    except runpod.NotTaken as exc:
        logger.warning("attempt not taken attempt=%s reason=%s", attempt.contract_id, exc)
        lifecycle.attempt_not_taken(attempt, seconds=exc.retry_after or 10)
    except runpod.Refused as exc:
        lifecycle.settle(attempt, otherwise=ErrorCode.INVALID_REQUEST, detail=str(exc))
    except runpod.AnswerLost as exc:
        logger.warning("answer lost attempt=%s reason=%s", attempt.contract_id, exc)
        lifecycle.attempt_answer_lost(attempt)
    else:
        lifecycle.attempt_accepted(attempt, runpod_id)


def _request(attempt: Attempt) -> RestoreRequest:
    restoration = attempt.restoration
    video = restoration.video
    results = objects.address_to_write(attempt.result_key, max_bytes=RESULT_MAX_BYTES)
    manifests = objects.address_to_write(attempt.manifest_key, max_bytes=MANIFEST_MAX_BYTES)
    source = objects.address_to_read(video.storage_key, seconds=objects.WORKER_SECONDS)
    return RestoreRequest(
        attempt_id=attempt.contract_id,
        source_url=objects.for_worker(source),
        source_bytes=video.size_bytes,
        source_sha256=video.sha256 or None,
        result_url=objects.for_worker(results),
        manifest_url=objects.for_worker(manifests),
        model=Model(restoration.model),
        res_w=restoration.res_w,
        res_h=restoration.res_h,
        sp_size=restoration.sp_size,
        seed=restoration.seed,
        num_frames=video.num_frames or None,
        strength=restoration.strength,
        color_fix=ColorFix(restoration.color_fix),
        output=Output(restoration.output),
        range=restoration.frames,
        pins=segments.pins_of(restoration),
        segments=_segments(restoration),
        result_parts=_result_parts(attempt),
    )


def _segments(restoration: Restoration) -> SegmentStore | None:
    store = segments.store_for(restoration)
    if store is not None:
        segments.take_over(restoration)
    return store


def _result_parts(attempt: Attempt) -> ResultParts | None:
    """Returns where a result goes that may be too large for one PUT: room for three times what is expected."""
    likely = 3 * expected_bytes(attempt.restoration)
    if likely <= objects.MAX_PUT_BYTES:
        return None
    upload = objects.worker_multipart(attempt.result_key, num_bytes=likely)
    return ResultParts(
        part_bytes=upload.part_bytes, put=tuple(upload.part_urls), complete=upload.complete_url
    )


def watch() -> int:
    """Asks for the attempts that are due and applies the answers; returns how many were asked for."""
    if cache.get(_PAUSE_KEY):
        return 0
    return _check(watching.due())


def check(attempt_id: int | str) -> None:
    """Asks for one attempt now, because its webhook rang."""
    wanted = Attempt.objects.filter(pk=attempt_id, status=Attempt.Status.IN_FLIGHT)
    _check(list(wanted.select_related("restoration__workspace")))


def _check(attempts: list[Attempt]) -> int:
    if not attempts:
        return 0
    answers = runpod.statuses(attempt.runpod_id for attempt in attempts)
    if answers.pause_seconds:
        # Whoever asks on after a 429 is kept out for longer.
        cache.set(_PAUSE_KEY, 1, timeout=answers.pause_seconds)
    watching.plan_next_looks(attempts)
    for attempt in attempts:
        if status := answers.statuses.get(attempt.runpod_id):
            _note(attempt, status)
    # One statement for the sweep: with thousands of jobs in flight, one for each would be most of its work.
    Attempt.objects.bulk_update(attempts, _NOTED, batch_size=200)
    for attempt in attempts:
        if status := answers.statuses.get(attempt.runpod_id):
            _apply_safely(attempt, status)
    return len(attempts)


def _apply_safely(attempt: Attempt, status: JobStatus) -> None:
    try:
        apply_status(attempt, status)
    except Exception:
        # One job's surprise must not keep the sweep from all the others; the next sweep meets it again.
        logger.exception("status could not be applied attempt=%s state=%s", attempt.contract_id, status.state)


def apply_status(attempt: Attempt, status: JobStatus) -> None:
    """Does what one answer of the endpoint asks for."""
    match status.state:
        case JobState.IN_QUEUE:
            return
        case JobState.IN_PROGRESS:
            lifecycle.attempt_running(attempt, worker_id=status.worker_id, progress=status.output)
        case JobState.COMPLETED:
            lifecycle.settle(attempt, otherwise=ErrorCode.RESULT_MISSING, detail=str(status.output)[:1000])
        case JobState.FAILED:
            code, detail = parse_error(status.error)
            lifecycle.settle(attempt, otherwise=code, detail=detail[:2000])
        case JobState.TIMED_OUT:
            lifecycle.settle(attempt, otherwise=ErrorCode.EXECUTION_TIMEOUT, detail=status.error)
        case JobState.CANCELLED:
            lifecycle.settle(
                attempt,
                otherwise=ErrorCode.ENDPOINT_UNAVAILABLE,
                detail="cancelled at the endpoint, not by us",
            )
        case JobState.GONE:
            known_at_first = attempt.submitted_at and timezone.now() - attempt.submitted_at > UNKNOWN_AT_FIRST
            code_now = ErrorCode.EXPIRED if known_at_first else None
            lifecycle.settle(attempt, otherwise=code_now, detail="the endpoint does not know the job")


def check_result(attempt_id: int | str) -> None:
    """Hashes the result of one attempt, however large, and ends the attempt by it."""
    waiting = Attempt.objects.filter(pk=attempt_id, status__in=Attempt.OPEN)
    attempt = waiting.select_related("restoration__workspace").first()
    if attempt is None:
        return
    is_over = attempt.runpod_status in _OVER or attempt.deadline_at < timezone.now()
    lifecycle.settle(
        attempt,
        otherwise=ErrorCode.RESULT_MISSING if is_over else None,
        detail="the result is not the one that the manifest describes",
        is_patient=True,
    )


def _note(attempt: Attempt, status: JobStatus) -> None:
    """Sets, without saving, what the endpoint said, for operators and for the cost."""
    if attempt.worker_id and status.worker_id not in ("", attempt.worker_id):
        # Another machine took the job over and counts its reports from the beginning.
        attempt.progress_sequence = -1
        Attempt.objects.filter(pk=attempt.pk).update(progress_sequence=-1)
    attempt.runpod_status = status.state.value
    attempt.last_seen_at = timezone.now()
    attempt.worker_id = status.worker_id or attempt.worker_id
    attempt.delay_ms = status.delay_ms if status.delay_ms is not None else attempt.delay_ms
    attempt.execution_ms = status.execution_ms if status.execution_ms is not None else attempt.execution_ms


def adopt(attempt: Attempt, runpod_id: str) -> None:
    """Learns the id of a job whose answer to /run was lost, from the webhook that only this job knows."""
    adopted = Attempt.objects.filter(pk=attempt.pk, runpod_id="", status=Attempt.Status.UNKNOWN)
    now = timezone.now()
    adopted.update(runpod_id=runpod_id, status=Attempt.Status.IN_FLIGHT, submitted_at=now, next_look_at=now)


def cancel(attempt_id: int | str) -> None:
    """Stops an attempt at the endpoint; raises `runpod.NotTaken` when the endpoint could not be asked."""
    attempt = Attempt.objects.filter(pk=attempt_id, cancel_wanted=True).exclude(runpod_id="").first()
    if attempt is not None:
        runpod.cancel(attempt.runpod_id)
        Attempt.objects.filter(pk=attempt.pk).update(cancel_wanted=False)
