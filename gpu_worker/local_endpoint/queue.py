"""What happens to jobs: every move between states, and every reason for it.

Nothing here awaits, so each method is one atomic step for requests that arrive at the same time.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from gpu_worker.local_endpoint.clock import Clock
from gpu_worker.local_endpoint.faults import FaultKind, Faults
from gpu_worker.local_endpoint.fleet import Fleet
from gpu_worker.local_endpoint.jobs import FINAL, RETRYABLE, Job, Status, Worker, new_job_id
from gpu_worker.local_endpoint.options import EndpointOptions
from gpu_worker.local_endpoint.store import Store

logger = logging.getLogger(__name__)

EXECUTION_TIMEOUT_TEXT: Final = "executionTimeout exceeded"


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """A checked request body: spans in seconds, as the client asked for them."""

    input_json: str
    is_sync: bool
    webhook: str | None = None
    s3_config_json: str | None = None
    execution_timeout_seconds: float | None = None
    ttl_seconds: float | None = None
    low_priority: bool = False


class Queue:
    """The jobs of one endpoint and the workers that run them."""

    def __init__(self, *, options: EndpointOptions, store: Store, clock: Clock, faults: Faults) -> None:
        self.options = options
        self.store = store
        self.clock = clock
        self.faults = faults
        self.fleet = Fleet(options=options, store=store, clock=clock)
        self._changed = asyncio.Event()

    # Waiting for a change

    async def wait_for_change(self, seconds: float) -> None:
        """Returns when any job changed, or after `seconds`."""
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return

    def announce(self) -> None:
        """Wakes everyone who waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    # Clients

    def submit(self, submission: Submission) -> Job:
        """Puts a new job at the end of the queue."""
        options, now = self.options, self.clock.now()
        job = Job(
            id=new_job_id(is_sync=submission.is_sync),
            is_sync=submission.is_sync,
            input_json=submission.input_json,
            status=Status.IN_QUEUE,
            submitted_at=now,
            ttl_seconds=submission.ttl_seconds or options.ttl_seconds,
            execution_timeout_seconds=(
                submission.execution_timeout_seconds or options.execution_timeout_seconds
            ),
            low_priority=submission.low_priority,
            webhook=submission.webhook,
            s3_config_json=submission.s3_config_json,
        )
        self.store.add_job(job)
        logger.info("job %s: queued", job.id)
        self.announce()
        return job

    def set_ttl(self, job: Job, seconds: float) -> None:
        """Changes how long the job lives, counted from its submission."""
        job.ttl_seconds = seconds
        self.store.save_job(job)

    def cancel(self, job: Job) -> None:
        """Ends a queued or running job; a final one stays as it is."""
        if job.is_final:
            return
        self._stop_on_workers(job)
        self._finish(job, Status.CANCELLED, output_json=None)

    def retry(self, job: Job) -> bool:
        """Queues a failed job again under its id; False when its state does not allow that."""
        if job.status not in RETRYABLE:
            return False
        job.deliveries = 0
        job.taken_at = job.worker_id = None
        self._requeue(job)
        return True

    def purge(self) -> int:
        """Drops the queued jobs and returns how many they were."""
        queued = self.store.jobs_in(Status.IN_QUEUE)
        for job in queued:
            self.store.erase_job(job.id)
        self.announce()
        return len(queued)

    def health(self) -> dict[str, dict[str, int]]:
        """Returns the eleven counters of `/health`."""
        counted = {name: int(self.store.figure(name)) for name in ("completed", "failed", "retried")}
        open_jobs = {
            "inProgress": self.store.num_in(Status.IN_PROGRESS),
            "inQueue": self.store.num_in(Status.IN_QUEUE),
        }
        is_throttled = self.faults.find(FaultKind.THROTTLED) is not None
        return {"jobs": {**counted, **open_jobs}, "workers": self.fleet.counts(is_throttled=is_throttled)}

    # Workers

    def greet(self, worker_id: str, *, is_idle: bool) -> Worker:
        """Notes a worker's job-take. One that says it has no job has lost those it was given."""
        worker = self.fleet.seen(worker_id)
        if is_idle:
            for job in self.store.held_by(worker_id):
                self._lose(job, worker_id, "its worker asks for another job")
        return worker

    def take(self, worker_id: str) -> Job | None:
        """Gives the next job to a worker that may start one."""
        if self.faults.find(FaultKind.THROTTLED):
            return None
        if twin := self._take_twin(worker_id):
            return twin
        job = self.store.next_queued()
        if job is None or not self.fleet.may_start(worker_id):
            return None
        job.status = Status.IN_PROGRESS
        job.worker_id = worker_id
        job.taken_at = self.clock.now()
        job.deliveries += 1
        job.num_missed_pings = 0
        self._shorten_execution(job)
        self._hand_out(job, worker_id)
        return job

    def report_progress(self, job: Job, worker_id: str, output_json: str) -> None:
        """Keeps a running job's progress; late reports change nothing unless a fault says so."""
        self.fleet.seen(worker_id)
        if job.is_final and self.faults.strike(FaultKind.PROGRESS_REOPENS):
            job.status, job.output_json = Status.IN_PROGRESS, output_json
        elif job.is_held_by(worker_id):
            job.output_json = output_json
        else:
            logger.info("job %s: progress of %s ignored, the job is %s", job.id, worker_id, job.status)
            return
        self.store.save_job(job)
        self.announce()

    def complete(self, job: Job, worker_id: str, result: dict[str, Any]) -> None:
        """Ends a running job with what its worker posted; a result that comes too late changes nothing."""
        self.fleet.seen(worker_id)
        if result.get("stopPod"):
            self.fleet.stop(worker_id)
        if not job.is_held_by(worker_id):
            logger.info("job %s: result of %s ignored, the job is %s", job.id, worker_id, job.status)
            return
        error = result.get("error")
        output_json = json.dumps(result["output"]) if "output" in result else None
        if self.faults.strike(FaultKind.OUTPUT_LOST) or (error is not None and not isinstance(error, str)):
            # The hosted service loses the whole result of a job whose error is not text.
            self._finish(job, Status.COMPLETED, output_json=None)
        elif error:
            self._finish(job, Status.FAILED, output_json=output_json, error=error)
        else:
            self._finish(job, Status.COMPLETED, output_json=output_json)

    def lose_result(self, job: Job, worker_id: str) -> None:
        """Ends a job whose result could not be read: COMPLETED, with nothing in it."""
        self.fleet.seen(worker_id)
        if job.is_held_by(worker_id):
            self._finish(job, Status.COMPLETED, output_json=None)

    def lets_result_stick(self, job: Job, worker_id: str) -> bool:
        """Drops a result and leaves the job IN_PROGRESS with nobody, when a fault says so."""
        if not job.is_held_by(worker_id) or self.faults.strike(FaultKind.RESULT_STUCK) is None:
            return False
        job.worker_id = job.twin_worker_id = None
        self.store.save_job(job)
        self.fleet.finished(worker_id)
        return True

    def reset(self) -> None:
        """Forgets everything, as if the endpoint had just been made."""
        self.store.clear()
        self.faults.clear()
        self.clock.advanced_seconds = 0.0
        self.announce()

    def ping(self, worker_id: str, job_ids: Collection[str], *, unhealthy_reason: str | None) -> None:
        """Compares what a worker says it runs with what it was given."""
        self.fleet.seen(worker_id, is_ping=True, unhealthy_reason=unhealthy_reason)
        for job in self.store.held_by(worker_id):
            job.num_missed_pings = 0 if job.id in job_ids else job.num_missed_pings + 1
            self.store.save_job(job)
            # A ping may have been on its way while the job was handed out; three in a row were not.
            if job.num_missed_pings >= 3:
                self._lose(job, worker_id, "its worker does not name it in its pings")
        for job_id in job_ids:
            known = self.store.job(job_id)
            if known is None or (known.status is not Status.IN_PROGRESS):
                self.store.add_stop(worker_id, job_id)
                self.announce()

    def lose_worker(self, worker_id: str, reason: str) -> None:
        """Takes a worker's jobs back and forgets it until it calls again."""
        logger.warning("worker %s: lost, %s", worker_id, reason)
        for job in self.store.held_by(worker_id):
            self._lose(job, worker_id, reason)
        self.fleet.mark_lost(worker_id)

    # Time

    def sweep(self) -> None:
        """Does what is due by now: time-outs, TTL, retention, lost workers."""
        now = self.clock.now()
        for job in self.store.jobs_in(Status.IN_PROGRESS):
            self._sweep_running(job, now)
        for job in self.store.jobs_past_ttl(now, speed=self.clock.speed):
            self._expire(job)
        for is_sync, retention in self._retentions():
            for job in self.store.jobs_finished_before(now - self.clock.span(retention), is_sync=is_sync):
                self.store.erase_job(job.id)
        for worker, reason in self.fleet.missing():
            self.lose_worker(worker.id, reason)
        self.fleet.forget_gone()
        self.store.erase_deliveries(now - self.clock.span(self.options.retention_seconds))

    def _sweep_running(self, job: Job, now: float) -> None:
        slack = self.options.execution_timeout_slack_seconds
        allowed = self.clock.span(job.execution_timeout_seconds + slack)
        if job.taken_at is not None and now >= job.taken_at + allowed:
            self._time_out(job)

    def _retentions(self) -> tuple[tuple[bool, float], ...]:
        return (False, self.options.retention_seconds), (True, self.options.sync_retention_seconds)

    def _expire(self, job: Job) -> None:
        if job.status is Status.IN_QUEUE and self.faults.strike(FaultKind.TTL_TIMED_OUT_STATE):
            # Its life starts anew, or the next sweep would erase it unseen.
            job.ttl_seconds = 2 * job.ttl_seconds + self.options.retention_seconds * self.clock.speed
            self._finish(job, Status.TIMED_OUT, output_json=None, error="ttl exceeded")
            return
        logger.info("job %s: erased, its TTL is over while %s", job.id, job.status)
        if job.status is Status.IN_PROGRESS:
            self._stop_on_workers(job)
        self.store.erase_job(job.id)
        self.announce()

    def _time_out(self, job: Job) -> None:
        self._stop_on_workers(job)
        is_own_state = self.faults.strike(FaultKind.TIMED_OUT_STATE) is not None
        status = Status.TIMED_OUT if is_own_state else Status.FAILED
        self._finish(job, status, output_json=job.output_json, error=EXECUTION_TIMEOUT_TEXT)

    # Moves

    def _take_twin(self, worker_id: str) -> Job | None:
        if self.faults.find(FaultKind.DUPLICATE_DELIVERY) is None:
            return None
        for job in self.store.jobs_in(Status.IN_PROGRESS):
            if job.twin_worker_id is None and job.worker_id != worker_id and self.fleet.may_start(worker_id):
                self.faults.strike(FaultKind.DUPLICATE_DELIVERY)
                job.twin_worker_id = worker_id
                self._hand_out(job, worker_id)
                return job
        return None

    def _hand_out(self, job: Job, worker_id: str) -> None:
        self.store.drop_stop(worker_id, job.id)
        self.store.save_job(job)
        self.fleet.started(worker_id)
        logger.info("job %s: given to %s, delivery %d", job.id, worker_id, job.deliveries)
        self.announce()

    def _shorten_execution(self, job: Job) -> None:
        if fault := self.faults.strike(FaultKind.SHORT_EXECUTION_TIMEOUT):
            slack = self.options.execution_timeout_slack_seconds
            job.execution_timeout_seconds = fault.seconds * self.clock.speed - slack

    def _stop_on_workers(self, job: Job) -> None:
        for worker_id in filter(None, (job.worker_id, job.twin_worker_id)):
            self.store.add_stop(worker_id, job.id)

    def _lose(self, job: Job, worker_id: str, reason: str) -> None:
        if job.twin_worker_id is not None and job.twin_worker_id != job.worker_id:
            # The other worker still has it.
            other = job.twin_worker_id if worker_id == job.worker_id else job.worker_id
            job.worker_id, job.twin_worker_id = other, None
            self.store.save_job(job)
            return
        logger.warning("job %s: lost by %s, %s", job.id, worker_id, reason)
        if job.deliveries >= self.options.max_deliveries:
            text = f"job timed out after {job.deliveries - 1} retries"
            self._finish(job, Status.FAILED, output_json=None, error=text)
            return
        self.store.add_to_figure("retried", 1)
        self._requeue(job)

    def _requeue(self, job: Job) -> None:
        job.status = Status.IN_QUEUE
        job.twin_worker_id = job.output_json = job.error = job.finished_at = job.shown_from = None
        self.store.take_chunks(job.id)
        self.store.save_job(job)
        self.announce()

    def _finish(self, job: Job, status: Status, *, output_json: str | None, error: str | None = None) -> None:
        assert status in FINAL
        now = self.clock.now()
        job.status, job.output_json, job.error, job.finished_at = status, output_json, error, now
        if early := self.faults.strike(FaultKind.WEBHOOK_EARLY, status=status):
            job.shown_from = now + early.seconds
        self.store.save_job(job)
        if status is Status.COMPLETED:
            self.store.add_to_figure("completed", 1)
        elif status in RETRYABLE:
            self.store.add_to_figure("failed", 1)
        for worker_id in filter(None, (job.worker_id, job.twin_worker_id)):
            self.fleet.finished(worker_id)
        self._post_webhook(job)
        logger.info("job %s: %s", job.id, status)
        self.announce()

    def _post_webhook(self, job: Job) -> None:
        if job.webhook is None or self.faults.strike(FaultKind.WEBHOOK_DROP, status=job.status):
            return
        delay = self.faults.strike(FaultKind.WEBHOOK_DELAY, status=job.status)
        due_at = self.clock.now() + (delay.seconds if delay else 0.0)
        copies = 2 if self.faults.strike(FaultKind.WEBHOOK_DUPLICATE, status=job.status) else 1
        body = json.dumps(job.webhook_document())
        for _ in range(copies):
            self.store.add_delivery(job_id=job.id, url=job.webhook, body=body, due_at=due_at)
