"""Find what a crash, a lost message or a silent endpoint left behind, and put it right.

Every side effect that a commit rings for is found here by its row, so that a dead broker or a killed worker
costs time and nothing else. No restoration stays in a state longer than that state's limit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.core.cache import cache
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from accounts.models import DataExport
from gpu_worker.contract import ErrorCode, Stage
from restorations import dispatch, lifecycle, losses, objects, partial, watching
from restorations.doorbells import Doorbell, ring
from restorations.links import imports
from restorations.models import Attempt, Restoration, Video

logger = logging.getLogger(__name__)

#: A ring that was heard is answered within seconds; older rows have lost theirs.
RING_LOST: Final = timedelta(seconds=20)
#: A mail that could not be sent is tried for this long.
MAIL_LIMIT: Final = timedelta(hours=24)
#: Joining a long video takes minutes: a ring before that would join it twice.
PARTIAL_LOST: Final = timedelta(minutes=30)
#: A task tries to cancel a job for about so long.
CANCEL_LOST: Final = timedelta(minutes=1)
INSPECTION_LOST: Final = timedelta(minutes=15)
#: Encoders have half an hour, and others may wait before this one.
PROXY_LOST: Final = timedelta(hours=1)
#: A copy that has not come by then ends its encoder each time: it is downloaded, and not played.
PROXY_LIMIT: Final = timedelta(days=1)
#: An order at the endpoint always has an open attempt; the moment between two statements is far shorter.
FORSAKEN: Final = timedelta(minutes=2)


def repair() -> None:
    """Runs every repair once; one that goes wrong does not keep the others from running."""
    for part in (
        _give_up_lost_senders,
        _end_overdue_attempts,
        _settle_unannounced,
        _fail_overdue_queue,
        _end_forsaken,
        _undo_clock_jumps,
        losses.look_again,
        _ring_again,
        _go_on_with_imports,
    ):
        _safely(part)


def _safely(work: Callable[..., object], *arguments: object) -> None:
    try:
        work(*arguments)
    except Exception:
        # Storage that is away, one broken row: the next run meets it again.
        logger.exception("repair failed part=%s of=%s", work.__name__, arguments)


def _give_up_lost_senders() -> None:
    limit = timezone.now() - dispatch.SENDING_LIMIT
    lost = Attempt.objects.filter(status=Attempt.Status.SENDING, created_at__lt=limit)
    # With its sender dead, an attempt may have been sent or not: as when the answer was lost.
    for attempt in lost.select_related("restoration__workspace"):
        _safely(lifecycle.attempt_answer_lost, attempt)


def _end_overdue_attempts() -> None:
    waiting = Q(status__in=(Attempt.Status.IN_FLIGHT, Attempt.Status.UNKNOWN), deadline_at__lt=timezone.now())
    for attempt in Attempt.objects.filter(waiting).select_related("restoration__workspace"):
        _safely(_end_overdue, attempt)
    # An attempt whose answer was lost is settled by its manifest as soon as that arrives.
    unknown = Attempt.objects.filter(status=Attempt.Status.UNKNOWN)
    for attempt in unknown.select_related("restoration__workspace"):
        _safely(_settle_if_proven, attempt)


def _end_overdue(attempt: Attempt) -> None:
    ended = lifecycle.settle(attempt, otherwise=ErrorCode.EXPIRED, detail="past its deadline")
    if ended and attempt.runpod_id:
        Attempt.objects.filter(pk=attempt.pk).update(cancel_wanted=True)


def _settle_if_proven(attempt: Attempt) -> bool:
    return lifecycle.settle(attempt, otherwise=None)


def _settle_unannounced() -> None:
    """Ends jobs whose result is there while the endpoint goes on saying that they run, or queues them again."""
    saving = Attempt.objects.filter(
        status=Attempt.Status.IN_FLIGHT,
        restoration__stage__in=(Stage.JOINING.value, Stage.UPLOADING.value),
    )
    for attempt in saving.select_related("restoration__workspace"):
        _safely(_settle_if_silent, attempt)


def _settle_if_silent(attempt: Attempt) -> None:
    if not objects.exists(attempt.manifest_key):
        return
    # Usually the endpoint tells within a second: only what is there at a second look is settled without it.
    if cache.add(f"manifest-seen:{attempt.pk}", 1, timeout=10 * 60):
        return
    if _settle_if_proven(attempt):
        Attempt.objects.filter(pk=attempt.pk).update(cancel_wanted=True)


def _end_forsaken() -> None:
    """Ends what has no attempt left that could still bring something; only a fault of ours makes such a row."""
    now = timezone.now()
    sent = Restoration.objects.filter(
        status__in=(Restoration.Status.SUBMITTED, Restoration.Status.RUNNING),
        status_at__lt=now - FORSAKEN,
    )
    for restoration in sent.exclude(attempts__status__in=Attempt.OPEN):
        _safely(lifecycle.fail, restoration, ErrorCode.WORKER_LOST)


def _undo_clock_jumps() -> None:
    """Brings forward what was planned by a clock that went ahead: nothing is planned so far away."""
    now = timezone.now()
    Attempt.objects.filter(
        status=Attempt.Status.IN_FLIGHT, next_look_at__gt=now + 3 * watching.UNWATCHED
    ).update(next_look_at=now)
    Attempt.objects.filter(
        status=Attempt.Status.REFUSED, next_try_at__gt=now + lifecycle.LONGEST_PAUSE
    ).update(next_try_at=now)


def _fail_overdue_queue() -> None:
    """Fails what no machine took in time: neither the endpoint's door nor its queue is a place to stay."""
    for restoration in _overdue():
        _safely(_fail_overdue, restoration)


def _overdue() -> QuerySet[Restoration]:
    limit = timezone.now() - timedelta(seconds=settings.QUEUE_LIMIT_SECONDS)
    waiting = (Restoration.Status.QUEUED, Restoration.Status.SUBMITTED)
    return Restoration.objects.filter(status__in=waiting, status_at__lt=limit)


def _fail_overdue(restoration: Restoration) -> None:
    sent = restoration.attempts.filter(status__in=(Attempt.Status.IN_FLIGHT, Attempt.Status.UNKNOWN))
    for attempt in sent.select_related("restoration__workspace"):
        # An endpoint that says nothing may have done the work; a result that does not fit ends at the deadline.
        if objects.exists(attempt.manifest_key):
            _settle_if_proven(attempt)
            return
    with transaction.atomic():
        # A machine may have taken it while others were looked after.
        if _overdue().select_for_update().filter(pk=restoration.pk).first() is not None:
            lifecycle.fail(restoration, ErrorCode.ENDPOINT_UNAVAILABLE)


def _go_on_with_imports() -> None:
    imports.repair(RING_LOST)


def _ring_again() -> None:
    now = timezone.now()
    queued = Restoration.objects.filter(status=Restoration.Status.QUEUED, status_at__lt=now - RING_LOST)
    refused = Restoration.objects.filter(
        status=Restoration.Status.QUEUED,
        attempts__status=Attempt.Status.REFUSED,
        attempts__next_try_at__lt=now,
    )
    paused = Attempt.objects.filter(status=Attempt.Status.REFUSED, next_try_at__gte=now)
    for restoration in (queued | refused).exclude(pk__in=paused.values("restoration")).distinct():
        ring(Doorbell.DISPATCH, restoration_id=restoration.pk)
    for attempt in Attempt.objects.filter(cancel_wanted=True):
        # Each ring is tried for a minute: an endpoint that is away must not fill the queue with them.
        if cache.add(f"cancel-rung:{attempt.pk}", 1, timeout=int(CANCEL_LOST.total_seconds())):
            ring(Doorbell.CANCEL_ATTEMPT, attempt_id=attempt.pk)
    for restoration in partial.waiting().filter(status_at__lt=now - PARTIAL_LOST):
        # The next ring comes as late as this one, should the join be killed, or wait behind others.
        if cache.add(f"partial-rung:{restoration.pk}", 1, timeout=int(PARTIAL_LOST.total_seconds())):
            ring(Doorbell.KEEP_PARTIAL, restoration_id=restoration.pk)
    unmailed = Restoration.objects.filter(
        status__in=(Restoration.Status.SUCCEEDED, Restoration.Status.FAILED),
        finish_mailed_at=None,
        range_start=None,
        finished_at__range=(now - MAIL_LIMIT, now - RING_LOST),
    )
    lost = Restoration.objects.filter(
        status=Restoration.Status.LOST,
        finish_mailed_at=None,
        range_start=None,
        status_at__range=(now - MAIL_LIMIT, now - RING_LOST),
    )
    for restoration in unmailed | lost:
        ring(Doorbell.MAIL_FINISH, restoration_id=restoration.pk)
    unplayed = Restoration.objects.filter(
        status=Restoration.Status.SUCCEEDED, proxy_wanted_at__lt=now - PROXY_LOST
    )
    unplayed.filter(finished_at__lt=now - PROXY_LIMIT).update(proxy_wanted_at=None)
    for restoration in unplayed:
        # The next ring comes as late as this one, should the encoder be killed by this result.
        Restoration.objects.filter(pk=restoration.pk).update(proxy_wanted_at=now)
        ring(Doorbell.MAKE_RESULT_PROXY, restoration_id=restoration.pk)
    unshown = Video.objects.present().filter(proxy_wanted_at__lt=now - PROXY_LOST)
    unshown.filter(created_at__lt=now - PROXY_LIMIT).update(proxy_wanted_at=None)
    for video in unshown:
        Video.objects.filter(pk=video.pk).update(proxy_wanted_at=now)
        ring(Doorbell.MAKE_PROXY, video_id=video.pk)
    for video in Video.objects.present().filter(hash_wanted_at__lt=now - PROXY_LOST):
        # As with proxies: the next ring comes as late as this one.
        Video.objects.filter(pk=video.pk).update(hash_wanted_at=now)
        ring(Doorbell.HASH_SOURCE, video_id=video.pk)
    for export in DataExport.objects.unfinished().filter(created_at__lt=now - RING_LOST):
        ring(Doorbell.BUILD_EXPORT, export_id=export.pk)
    stuck = Video.objects.present().filter(status=Video.Status.INSPECTING)
    fresh = stuck.filter(num_inspections=0, created_at__lt=now - RING_LOST)
    dead = stuck.filter(created_at__lt=now - INSPECTION_LOST)
    for video in (fresh | dead).distinct():
        ring(Doorbell.INSPECT_VIDEO, video_id=video.pk)
