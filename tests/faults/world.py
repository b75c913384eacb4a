"""Everything but the site's own process: the endpoint, its machines, time, and what other processes do all the time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.core.cache import cache
from django.db.models import F
from django.utils import timezone

from billing.models import CreditEntry
from restorations import dispatch, notifications, objects, repair, retention
from restorations.models import Attempt, Restoration
from tests.gpu_worker.processes import EndpointProcess, RawWorker
from tests.restorations.test_lifecycle import deliver, running

Status = Restoration.Status


Misdeed = Callable[["World", str, Attempt], object]


class World:
    """Everything but the site's own process: the endpoint, its machines, time, and the sweeps of other processes."""

    def __init__(self, endpoint: EndpointProcess) -> None:
        self.endpoint = endpoint
        self.machine: RawWorker = endpoint.worker("machine")
        #: What machines do with the next jobs instead of restoring them.
        self.misdeeds: list[Misdeed] = []

    def jobs(self, *statuses: str) -> list[dict[str, Any]]:
        """Returns the endpoint's jobs in one of these states."""
        return [job for job in self.endpoint.http.get("/admin/jobs").json() if job["status"] in statuses]

    def take(self, restoration: Restoration) -> dict[str, Any]:
        """Has the machine take the order's job, and say that it is half done."""
        job = self.machine.take()
        assert job is not None
        report = running(restoration.attempts.get(), frames=50, sequence=1).output
        self.machine.done(job["id"], {"status": "IN_PROGRESS", "output": report})
        return job

    def finish_all(self) -> None:
        """Has machines do whatever is waiting or half done."""
        for job in self.jobs("IN_QUEUE", "IN_PROGRESS"):
            taken = self.machine.take() if job["status"] == "IN_QUEUE" else job
            assert taken is not None
            attempts = Attempt.objects.select_related("restoration")
            [attempt] = [
                attempt
                for attempt in attempts
                if attempt.runpod_id == taken["id"] or attempt.contract_id == attempt_id_of(taken)
            ]
            if self.misdeeds:
                self.misdeeds.pop(0)(self, taken["id"], attempt)
            else:
                self.restore(taken["id"], attempt)

    def restore(self, job_id: str, attempt: Attempt) -> None:
        """Does what a good machine does."""
        deliver(attempt)
        self.machine.done(job_id, {"output": {}})

    def let_time_pass(self) -> None:
        """Makes every row as old as the repairs want it, and everything that was planned due."""
        cache.delete(dispatch._PAUSE_KEY)
        then = timezone.now() - timedelta(minutes=5)
        Attempt.objects.filter(status=Attempt.Status.SENDING).update(created_at=then)
        Attempt.objects.update(next_look_at=then, next_try_at=then)
        Restoration.objects.update(status_at=then, finished_at=F("finished_at") - timedelta(minutes=5))

    def go_on(self, restoration: Restoration) -> None:
        """Runs what other processes run all the time, until the order has ended and nothing is left to do."""
        for _ in range(8):
            self.let_time_pass()
            repair.repair()
            dispatch.dispatch(restoration.pk)
            for attempt in Attempt.objects.filter(cancel_wanted=True):
                dispatch.cancel(attempt.pk)
            notifications.mail_finish(restoration.pk)
            restoration.refresh_from_db()
            is_over = not restoration.is_active and not Attempt.objects.filter(cancel_wanted=True).exists()
            if is_over and not Attempt.objects.filter(status__in=Attempt.OPEN).exists():
                return
            self.finish_all()
            self.let_time_pass()
            dispatch.watch()
        raise AssertionError(f"{restoration} with {list(restoration.attempts.all())}")


def attempt_id_of(job: dict[str, Any]) -> object:
    document = job.get("input")
    return document.get("attempt_id") if isinstance(document, dict) else None


def check(restoration: Restoration, point: object) -> None:
    """Right money, one result, one end, nothing left at the endpoint or in storage."""
    moved = CreditEntry.objects.for_workspace(restoration.workspace).exclude(kind=CreditEntry.Kind.GRANT)
    kept = {Status.FAILED: 0, Status.CANCELLED: restoration.price_credits - restoration.refunded_credits}
    paid = kept.get(Status(restoration.status), restoration.price_credits)
    assert -sum(entry.credits for entry in moved) == paid, point
    attempts = list(restoration.attempts.all())
    has_result = restoration.status in (Status.SUCCEEDED, Status.EXPIRED)
    assert [a.status for a in attempts].count(Attempt.Status.SUCCEEDED) == has_result, point
    ends = [event.kind for event in restoration.events.all() if event.kind in Status.values]
    assert ends.count("succeeded") + ends.count("failed") + ends.count("cancelled") == 1, (point, ends)
    if restoration.status in (Status.SUCCEEDED, Status.FAILED):
        assert restoration.finish_mailed_at is not None, point
    if restoration.status == Status.EXPIRED:
        retention.purge()
        assert not any(objects.exists(attempt.result_key) for attempt in attempts), point
    elif has_result:
        assert objects.exists(restoration.result_key), point
