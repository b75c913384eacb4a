"""Doorbells: each task takes ids and makes one call inward. All of them may run twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from celery import shared_task
from celery.signals import worker_shutting_down
from django.core.cache import cache

from accounts.scope import sees_everything
from restorations import (
    data_export,
    dispatch,
    inspection,
    notifications,
    objects,
    orphans,
    partial,
    previews,
    result_proxies,
    retention,
    runpod,
    uploads,
)
from restorations.links import imports
from restorations.repair import repair as run_repairs

#: A sweep holds its lock at most this long, should its process be killed.
_SWEEP_SECONDS: Final = 60
#: Seconds after which a task is ended, where the settings' limit does not fit it.
_QUICK: Final = 45
_INSPECTION: Final = 75
_ENCODING: Final = 30 * 60
_IMPORT: Final = 60 * 60


@contextmanager
def _alone(name: str, *, seconds: int = _SWEEP_SECONDS) -> Iterator[bool]:
    """Yields whether this process is the only one in the named sweep."""
    mine = bool(cache.add(f"sweep:{name}", 1, timeout=seconds))
    try:
        yield mine
    finally:
        if mine:
            cache.delete(f"sweep:{name}")


def _sweep(name: str, work: Callable[[], Any]) -> None:
    with _alone(name) as mine:
        if mine:
            work()


@shared_task(time_limit=_QUICK)
@sees_everything
def watch_jobs_in_flight() -> None:
    """Every second or two: asks the endpoint for all jobs in flight."""
    _sweep("watch", dispatch.watch)


@shared_task(time_limit=_QUICK)
@sees_everything
def repair() -> None:
    """Every quarter of a minute: finds what was left behind."""
    _sweep("repair", run_repairs)


@shared_task
@sees_everything
def enforce_retention() -> None:
    """Every five minutes: deletes files on time."""
    _sweep("retention", retention.enforce)


# Its worker has threads, which Celery cannot end at a limit: what holds there is `max_seconds` of `links.fetching`.
@shared_task(time_limit=_IMPORT)
def import_link(*, import_id: str) -> None:
    """Fetches a file from a link."""
    imports.run(import_id)


@worker_shutting_down.connect
def _stop_imports(**_signal: Any) -> None:
    imports.stop()


@shared_task(time_limit=_ENCODING)
@sees_everything
def sweep_storage() -> None:
    """Every hour: removes objects that no row names, and reports rows that have lost theirs."""
    with _alone("storage", seconds=_ENCODING) as mine:
        if mine:
            orphans.sweep()


@shared_task(
    time_limit=_INSPECTION,
    autoretry_for=(objects.StorageUnavailable,),
    retry_backoff=2,
    retry_backoff_max=60,
    max_retries=8,
)
def inspect_video(*, video_id: str) -> None:
    """Looks into an uploaded file; rings that come meanwhile are for the same look, and none that counts."""
    with _alone(f"inspection:{video_id}", seconds=_INSPECTION) as mine:
        if mine:
            inspection.inspect(video_id)


@shared_task(
    time_limit=_ENCODING,
    autoretry_for=(objects.StorageUnavailable,),
    retry_backoff=10,
    retry_backoff_max=300,
    max_retries=5,
)
def hash_source(*, video_id: str) -> None:
    """Computes the checksum of an uploaded file."""
    uploads.hash_source(video_id)


@shared_task(time_limit=_ENCODING)
def make_proxy(*, video_id: str) -> None:
    """Makes a copy that browsers play."""
    previews.make_proxy(video_id)


@shared_task(time_limit=_ENCODING)
def make_result_proxy(*, restoration_id: str) -> None:
    """Makes a copy of a result that browsers play."""
    result_proxies.make(restoration_id)


@shared_task(time_limit=_QUICK)
def dispatch_restoration(*, restoration_id: str) -> None:
    """Sends a queued restoration to the endpoint."""
    dispatch.dispatch(restoration_id)


@shared_task(time_limit=_QUICK)
def check_attempt(*, attempt_id: str) -> None:
    """Asks for one job, because its webhook rang."""
    dispatch.check(attempt_id)


# The largest result that is hashed may come from a slow storage: a check that is always killed would never end.
@shared_task(time_limit=_ENCODING)
def check_result(*, attempt_id: str) -> None:
    """Hashes a large result and ends its attempt; rings that come meanwhile are for the same."""
    with _alone(f"result:{attempt_id}", seconds=_ENCODING) as mine:
        if mine:
            dispatch.check_result(attempt_id)


@shared_task(
    time_limit=_QUICK, autoretry_for=(runpod.NotTaken,), retry_backoff=2, retry_backoff_max=30, max_retries=5
)
def cancel_attempt(*, attempt_id: str) -> None:
    """Stops a job at the endpoint; `repair` rings again when the retries are used up."""
    dispatch.cancel(attempt_id)


@shared_task(
    time_limit=_QUICK, autoretry_for=(OSError,), retry_backoff=10, retry_backoff_max=300, max_retries=5
)
def mail_finish(*, restoration_id: str) -> None:
    """Mails that a restoration is ready or has failed."""
    notifications.mail_finish(restoration_id)


@shared_task(time_limit=_ENCODING)
def keep_partial(*, restoration_id: str) -> None:
    """Joins what was finished of a restoration that was cancelled or failed; one process at a time."""
    with _alone(f"partial:{restoration_id}", seconds=_ENCODING) as mine:
        if mine:
            partial.keep(restoration_id)


@shared_task
@sees_everything
def purge_deleted() -> None:
    """Deletes the files of what was deleted."""
    retention.purge()


@shared_task(autoretry_for=(OSError,), retry_backoff=10, retry_backoff_max=300, max_retries=5)
def build_export(*, export_id: str) -> None:
    """Collects a person's own data and mails where it is."""
    data_export.build(export_id)
