"""Every transition of a restoration, and of its attempts.

A transition is one conditional UPDATE inside the transaction that also writes the event and moves the credits.
Whoever loses a race changes nothing. Storage is the truth about results: a manifest that is there settles the
job, whatever the endpoint says or forgets.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Sum
from django.utils import timezone

from accounts import audit
from accounts.audit import Deed
from accounts.models import User
from billing import ledger
from billing.price_tables import gpu_microdollars_a_second
from billing.pricing import undelivered_credits
from gpu_worker.contract import ContractError, ErrorCode, Manifest, Progress
from restorations import notifications, results
from restorations.doorbells import Doorbell, ring
from restorations.models import Attempt, Restoration, RestorationEvent
from restorations.quotes import price_of_result

logger = logging.getLogger(__name__)

#: An attempt that was not taken is sent again after at most so long, whatever the endpoint wishes.
LONGEST_PAUSE: Final = timedelta(minutes=5)

Status = Restoration.Status
Kind = RestorationEvent.Kind


# --- Restorations -------------------------------------------------------------------------------------------


def created(restoration: Restoration, *, actor: User) -> None:
    """Records a new order and rings for its dispatch; called in the transaction that made it."""
    _record(restoration, Kind.CREATED, actor=actor)
    _audit(restoration, Deed.ORDERED, actor, preset=restoration.preset, credits=restoration.price_credits)
    ring(Doorbell.DISPATCH, restoration_id=restoration.pk)


@transaction.atomic
def cancel(restoration: Restoration, *, actor: User | None) -> bool:
    """Stops a restoration and gives back the share not done; False when it had ended already."""
    current = Restoration.objects.select_for_update().get(pk=restoration.pk)
    refunded = cancel_refund(current)
    if not _move(current, Status.CANCELLED, finished_at=timezone.now(), refunded_credits=refunded):
        return False
    _free_previews(current)
    _refund(current, refunded, note=f"{current.num_frames_done} of {current.num_frames} frames were done")
    _record(current, Kind.CANCELLED, actor=actor)
    _audit(current, Deed.CANCELLED, actor, refunded_credits=refunded)
    _stop_attempts(current)
    _keep_partial(current)
    return True


def cancel_refund(restoration: Restoration) -> int:
    """Returns the credits that come back when this restoration is cancelled now.

    Nothing stays of a preview, so all of them do. Frames that previews had paid are in neither the price nor its
    share.
    """
    if restoration.status != Status.RUNNING or restoration.is_preview:
        return restoration.price_credits
    paid = restoration.previews.aggregate(frames=Sum("num_frames"))["frames"] or 0
    return undelivered_credits(
        price=restoration.price_credits,
        num_frames_done=restoration.num_frames_done - paid,
        num_frames=restoration.num_frames - paid,
    )


def _free_previews(restoration: Restoration) -> None:
    """Has the previews come off the next order when all that this one cost is given back."""
    if restoration.refunded_credits == restoration.price_credits:
        # Locked, so that one that is lost at this moment is either seen here or sees that it is free.
        for preview in restoration.previews.select_for_update().order_by("pk"):
            if preview.status == Status.LOST:
                # Nothing is left of what it paid for.
                _return_rest(preview)
        restoration.previews.update(credited_to=None)


@transaction.atomic
def fail(restoration: Restoration, code: ErrorCode) -> bool:
    """Ends a restoration without a result and gives everything back; False when it had ended already."""
    refunded = restoration.price_credits
    if not _move(
        restoration,
        Status.FAILED,
        finished_at=timezone.now(),
        error_code=code.value,
        refunded_credits=refunded,
    ):
        return False
    _free_previews(restoration)
    _refund(restoration, refunded, note=code.value)
    _record(restoration, Kind.FAILED, detail=code.value)
    _stop_attempts(restoration)
    _keep_partial(restoration)
    _mail_finish(restoration)
    return True


@transaction.atomic
def expire(restoration: Restoration, *, actor: User | None = None) -> bool:
    """Gives up a result's files, on time or because its owner says so; the row stays."""
    if not _move(restoration, Status.EXPIRED):
        return False
    _record(restoration, Kind.EXPIRED, actor=actor)
    if actor is not None:
        _audit(restoration, Deed.RESULT_DELETED, actor)
    ring(Doorbell.PURGE)
    return True


@transaction.atomic
def lose(restoration: Restoration) -> int:
    """Ends a restoration whose result storage has lost, and gives back what it still cost.

    Returns the credits; 0 when the result had gone another way, or for a preview that an order was lowered by.
    """
    locked = Restoration.objects.select_for_update(of=("self",)).select_related("workspace")
    current = locked.get(pk=restoration.pk)
    values = {"result_key": "", "proxy_key": "", "proxy_wanted_at": None, "finish_mailed_at": None}
    if not _move(current, Status.LOST, **values):
        return 0
    returned = 0 if current.credited_to_id else _return_rest(current)
    _free_previews(current)
    _record(current, Kind.LOST)
    _mail_finish(current)
    return returned


def _return_rest(restoration: Restoration) -> int:
    """Gives back what had not come back yet, such as when it finished; returns the credits."""
    note = "the result was lost"
    ledger.refund_rest(workspace=restoration.workspace, reference=restoration.reference, note=note)
    rest = restoration.price_credits - restoration.refunded_credits
    restoration.refunded_credits = restoration.price_credits
    restoration.save(update_fields=["refunded_credits"])
    return rest


def _mail_finish(restoration: Restoration) -> None:
    # Whoever orders a preview waits for it.
    if not restoration.is_preview:
        ring(Doorbell.MAIL_FINISH, restoration_id=restoration.pk)


def _keep_partial(restoration: Restoration) -> None:
    if restoration.num_segment_objects:
        ring(Doorbell.KEEP_PARTIAL, restoration_id=restoration.pk)


def _move(restoration: Restoration, to: Restoration.Status, **values: Any) -> bool:
    """Moves to a status from any that allows it; False when another process moved first."""
    sources = [status for status, targets in Restoration.ALLOWED.items() if to in targets]
    won = (
        Restoration.objects.filter(pk=restoration.pk, status__in=sources).update(
            status=to, status_at=timezone.now(), **values
        )
        == 1
    )
    if won:
        restoration.refresh_from_db()
        notifications.restoration_changed(restoration)
    return won


def _record(restoration: Restoration, kind: Kind, *, detail: str = "", actor: User | None = None) -> None:
    RestorationEvent.objects.create(restoration=restoration, kind=kind, detail=detail[:300], actor=actor)


def _audit(restoration: Restoration, deed: Deed, actor: User | None, **details: Any) -> None:
    audit.record(
        workspace=restoration.workspace,
        deed=deed,
        subject=restoration.video.file_name,
        actor=actor,
        restoration=str(restoration.pk),
        **details,
    )


def _refund(restoration: Restoration, credits: int, *, note: str) -> None:
    ledger.refund(
        workspace=restoration.workspace, credits=credits, reference=restoration.reference, note=note[:200]
    )


def _stop_attempts(restoration: Restoration, *, but: Attempt | None = None) -> None:
    """Marks the other attempts for cancelling at the endpoint; `repair` rings again for those not reached."""
    others = restoration.attempts.filter(status__in=Attempt.OPEN)
    if but is not None:
        others = others.exclude(pk=but.pk)
    for attempt in others:
        attempt.status = Attempt.Status.CANCELLED
        attempt.finished_at = timezone.now()
        attempt.cancel_wanted = bool(attempt.runpod_id)
        attempt.save(update_fields=["status", "finished_at", "cancel_wanted"])
        if attempt.cancel_wanted:
            ring(Doorbell.CANCEL_ATTEMPT, attempt_id=attempt.pk)


# --- Attempts: sending --------------------------------------------------------------------------------------


@transaction.atomic
def open_attempt(restoration_id: UUID | str) -> Attempt | None:
    """Returns the attempt to send now, marked as being sent; None when there is nothing to send.

    The restoration's row is locked: of two dispatchers one gets the attempt, the other None.
    """
    restoration = (
        Restoration.objects.select_for_update().filter(pk=restoration_id, status=Status.QUEUED).first()
    )
    if restoration is None:
        return None
    now = timezone.now()
    refused = restoration.attempts.filter(status=Attempt.Status.REFUSED).first()
    if refused is not None:
        if refused.next_try_at and refused.next_try_at > now:
            return None
        refused.status = Attempt.Status.SENDING
        refused.created_at = now
        refused.deadline_at = _deadline(restoration, now)
        refused.save(update_fields=["status", "created_at", "deadline_at"])
        return refused
    if restoration.attempts.filter(status__in=(Attempt.Status.SENDING, Attempt.Status.IN_FLIGHT)).exists():
        return None
    # All tries are used up, and one whose answer was lost may still bring the result: nothing more is sent.
    if restoration.attempts.count() >= settings.MAX_ATTEMPTS:
        return None
    return _new_attempt(restoration, now)


def _new_attempt(restoration: Restoration, now: datetime) -> Attempt:
    number = restoration.attempts.count() + 1
    folder = f"{restoration.workspace_id}/results/{restoration.pk}"
    return Attempt.objects.create(
        restoration=restoration,
        number=number,
        endpoint_id=settings.RUNPOD_ENDPOINT_ID,
        result_key=f"{folder}/{number}{restoration.result_suffix}",
        manifest_key=f"{folder}/{number}.json",
        gpus=restoration.sp_size,
        deadline_at=_deadline(restoration, now),
    )


def _deadline(restoration: Restoration, now: datetime) -> datetime:
    """Returns when an attempt that is sent now is given up: once the endpoint has forgotten it."""
    return now + timedelta(seconds=ttl_seconds(restoration) + 60)


def execution_seconds(restoration: Restoration) -> int:
    """Returns how long the endpoint lets a machine work: ten times what is expected, at least 15 minutes."""
    return max(15 * 60, 10 * restoration.expected_seconds)


def ttl_seconds(restoration: Restoration) -> int:
    """Returns when the endpoint forgets the job: its clock starts at the submission, so waiting counts."""
    return int(settings.QUEUE_LIMIT_SECONDS) + execution_seconds(restoration)


@transaction.atomic
def attempt_accepted(attempt: Attempt, runpod_id: str) -> None:
    """Records RunPod's id. A restoration that ended meanwhile gets its job cancelled."""
    _lock_order(attempt)
    now = timezone.now()
    values = {"runpod_id": runpod_id, "submitted_at": now, "last_seen_at": now, "next_look_at": now}
    if _move_attempt(attempt, Attempt.Status.IN_FLIGHT, **values):
        if _move(attempt.restoration, Status.SUBMITTED):
            _record(attempt.restoration, Kind.SUBMITTED, detail=runpod_id)
        return
    Attempt.objects.filter(pk=attempt.pk).update(runpod_id=runpod_id, cancel_wanted=True)
    ring(Doorbell.CANCEL_ATTEMPT, attempt_id=attempt.pk)


def attempt_not_taken(attempt: Attempt, *, seconds: float) -> None:
    """Keeps an attempt that does not run, to be sent again after a while: the longer the order waits, the later.

    Many orders in front of an endpoint that does not answer would keep all workers at it.
    """
    now = timezone.now()
    pause = max(seconds, (now - attempt.restoration.status_at).total_seconds() / 8)
    pause = min(pause, LONGEST_PAUSE.total_seconds())
    _move_attempt(attempt, Attempt.Status.REFUSED, next_try_at=now + timedelta(seconds=pause))


def attempt_answer_lost(attempt: Attempt) -> None:
    """Keeps an attempt that may run; a new one is sent, and the first to bring a result wins."""
    if _move_attempt(attempt, Attempt.Status.UNKNOWN):
        _retry_or_fail(attempt, ErrorCode.ENDPOINT_UNAVAILABLE)


# --- Attempts: watching -------------------------------------------------------------------------------------


def attempt_running(attempt: Attempt, *, worker_id: str, progress: object) -> None:
    """Records that a machine works on an attempt, and how far it is."""
    report = _read_progress(attempt, progress)
    if report is not None and report.sequence <= attempt.progress_sequence:
        report = None
    if report is None and attempt.started_at is not None:
        return
    with transaction.atomic():
        _lock_order(attempt)
        if attempt.started_at is None:
            _start(attempt, worker_id)
        if report is not None:
            _advance(attempt, report)


def _start(attempt: Attempt, worker_id: str) -> None:
    now = timezone.now()
    taken = Attempt.objects.filter(pk=attempt.pk, started_at=None, status__in=Attempt.OPEN)
    if taken.update(started_at=now, worker_id=worker_id):
        attempt.started_at = now
        if _move(attempt.restoration, Status.RUNNING, started_at=now):
            _record(attempt.restoration, Kind.STARTED, detail=worker_id)


def _advance(attempt: Attempt, report: Progress) -> None:
    newer = Attempt.objects.filter(pk=attempt.pk, progress_sequence__lt=report.sequence)
    if not newer.update(progress_sequence=report.sequence):
        return
    running = Restoration.objects.filter(pk=attempt.restoration_id, status=Status.RUNNING)
    # The worker counts the frames that come out; until it knows, the inspection's count stays.
    values: dict[str, Any] = {
        "stage": report.stage.value,
        "num_frames_done": report.num_frames_done,
        "num_segments_done": report.num_segments_done,
        "num_segments": report.num_segments or 0,
    }
    if report.num_frames:
        values["num_frames"] = report.num_frames
    if running.update(**values):
        notifications.restoration_changed(attempt.restoration)


def _read_progress(attempt: Attempt, progress: object) -> Progress | None:
    if progress is None:
        return None
    try:
        report = Progress.from_json(progress)
    except ContractError as exc:
        logger.warning("unreadable progress attempt=%s error=%s", attempt.pk, exc)
        return None
    return report if report.attempt_id == attempt.contract_id else None


def settle(
    attempt: Attempt, *, otherwise: ErrorCode | None, detail: str = "", is_patient: bool = False
) -> bool:
    """Ends an attempt by what storage holds: with a proven result it succeeded, without it failed by `otherwise`.

    With no code to fail by, an attempt without result is left as it is. Only a patient caller waits until a large
    result is hashed; for the others a task does it. Returns whether the attempt ended.
    """
    try:
        manifest = results.proven(attempt, is_patient=is_patient)
    except results.NotCheckedYet:
        ring(Doorbell.CHECK_RESULT, attempt_id=attempt.pk)
        return False
    if manifest is not None:
        return _succeed(attempt, manifest)
    return otherwise is not None and _attempt_failed(attempt, otherwise, detail)


@transaction.atomic
def _succeed(attempt: Attempt, manifest: Manifest) -> bool:
    _lock_order(attempt)
    # Who took the job may have more GPUs than were asked for, and all of them cost.
    attempt.gpus = manifest.gpus or attempt.gpus
    values = {"finished_at": timezone.now(), "gpus": attempt.gpus, **_cost(attempt)}
    if not _move_attempt(attempt, Attempt.Status.SUCCEEDED, **values):
        return False
    restoration = attempt.restoration
    now = timezone.now()
    # The order was priced by what inspection counted; what was not there to be restored is given back.
    cheaper = restoration.price_credits - price_of_result(restoration, num_frames=manifest.num_frames)
    won = _move(
        restoration,
        Status.SUCCEEDED,
        refunded_credits=cheaper,
        finished_at=now,
        started_at=restoration.started_at or attempt.started_at or attempt.submitted_at or now,
        engine=manifest.engine.value,
        num_frames=manifest.num_frames,
        num_frames_done=manifest.num_frames,
        result_key=attempt.result_key,
        result_bytes=manifest.result_bytes,
        manifest=manifest.to_json(),
        expires_at=now + timedelta(hours=restoration.workspace.retention_hours),
        proxy_wanted_at=now if restoration.needs_proxy else None,
    )
    if won:
        _refund(restoration, cheaper, note=f"{manifest.num_frames} frames were restored")
        _record(restoration, Kind.SUCCEEDED)
        _stop_attempts(restoration, but=attempt)
        if restoration.num_segment_objects and not restoration.is_preview:
            ring(Doorbell.PURGE)
        _mail_finish(restoration)
        if restoration.proxy_wanted_at:
            ring(Doorbell.MAKE_RESULT_PROXY, restoration_id=restoration.pk)
    return won


@transaction.atomic
def _attempt_failed(attempt: Attempt, code: ErrorCode, detail: str) -> bool:
    _lock_order(attempt)
    values = {"error_code": code.value, "error_detail": detail, "finished_at": timezone.now()}
    if not _move_attempt(attempt, Attempt.Status.FAILED, **values, **_cost(attempt)):
        return False
    logger.warning("attempt failed attempt=%s code=%s detail=%s", attempt.contract_id, code.value, detail)
    if code.is_fault_of_input:
        fail(attempt.restoration, code)
    else:
        _retry_or_fail(attempt, code)
    return True


@transaction.atomic
def _retry_or_fail(attempt: Attempt, code: ErrorCode) -> None:
    """Tries a machine's fault again as a new attempt, unless another one is under way or it was the last."""
    restoration = attempt.restoration
    others = restoration.attempts.exclude(pk=attempt.pk)
    if others.filter(status__in=(Attempt.Status.SENDING, Attempt.Status.IN_FLIGHT)).exists():
        return
    if restoration.attempts.count() >= settings.MAX_ATTEMPTS:
        # An attempt whose answer was lost may still bring the result, until its deadline.
        if not restoration.attempts.filter(status=Attempt.Status.UNKNOWN).exists():
            fail(restoration, code)
        return
    back = Restoration.objects.filter(pk=restoration.pk, status=Status.QUEUED).exists() or _move(
        restoration, Status.QUEUED, stage="", num_frames_done=0, num_segments_done=0, started_at=None
    )
    if back:
        _record(restoration, Kind.RETRIED, detail=code.value)
        ring(Doorbell.DISPATCH, restoration_id=restoration.pk)


def _lock_order(attempt: Attempt) -> None:
    """Locks the order before its attempts, as a cancel does: two that meet wait in one line and not in a circle."""
    Restoration.objects.select_for_update().get(pk=attempt.restoration_id)


def _move_attempt(attempt: Attempt, to: Attempt.Status, **values: Any) -> bool:
    open_now = Attempt.objects.filter(pk=attempt.pk, status__in=Attempt.OPEN)
    won = open_now.update(status=to, **values) == 1
    if won:
        attempt.refresh_from_db()
    return won


def _cost(attempt: Attempt) -> dict[str, Any]:
    """Returns the cost of the machine's time in millionths of a dollar; the CPU engine costs nothing."""
    if attempt.execution_ms is None or settings.RESTORATION_ENGINE == "cpu":
        return {}
    return {
        "cost_microdollars": attempt.execution_ms * attempt.gpus * gpu_microdollars_a_second("H100") // 1000
    }
