"""The endpoint's workers: who is there, who is warm, who is gone.

The endpoint starts no process. It knows a worker by its calls: a ping, a long poll, a result. A worker is
lost when it keeps silent for three ping intervals, or when its long poll was dropped and it does not come
back: the second catches a killed worker whose heartbeat process lives on.
"""

from __future__ import annotations

from typing import Final

from gpu_worker.local_endpoint.clock import Clock
from gpu_worker.local_endpoint.jobs import Worker
from gpu_worker.local_endpoint.options import EndpointOptions
from gpu_worker.local_endpoint.store import Store

_SILENT_INTERVALS: Final = 3
_FORGET_SECONDS: Final = 3600.0


class Fleet:
    """The workers of one endpoint."""

    def __init__(self, *, options: EndpointOptions, store: Store, clock: Clock) -> None:
        self._options = options
        self._store = store
        self._clock = clock

    def seen(self, worker_id: str, *, is_ping: bool = False, unhealthy_reason: str | None = None) -> Worker:
        """Notes a call of a worker. A ping alone does not bring back a worker whose long poll was dropped."""
        now = self._clock.now()
        worker = self._store.worker(worker_id) or Worker(id=worker_id, seen_at=now)
        worker.seen_at = now
        worker.unhealthy_reason = unhealthy_reason
        if not is_ping:
            worker.left_at = None
            worker.is_lost = False
        self._store.save_worker(worker)
        return worker

    def left(self, worker_id: str) -> None:
        """Notes that a worker dropped its long poll: it was killed, or it ends."""
        if worker := self._store.worker(worker_id):
            worker.left_at = self._clock.now()
            self._store.save_worker(worker)

    def revive(self) -> None:
        """Gives every worker a full interval to call again, after the endpoint itself was away."""
        for worker in self._store.workers():
            if not worker.is_lost:
                worker.seen_at, worker.left_at = self._clock.now(), None
                self._store.save_worker(worker)

    def missing(self) -> list[tuple[Worker, str]]:
        """Returns the workers that are lost but not yet marked so, each with the reason."""
        now = self._clock.now()
        silence = self._options.ping_seconds * _SILENT_INTERVALS
        lost = []
        for worker in self._store.workers():
            if worker.is_lost:
                continue
            if worker.left_at is not None and now >= worker.left_at + self._options.return_seconds:
                lost.append((worker, "it dropped its connection and did not come back"))
            elif now >= worker.seen_at + silence:
                lost.append((worker, f"it kept silent for {silence:g} s"))
        return lost

    def forget_gone(self) -> None:
        """Removes workers that were lost an hour ago: each start of a worker may bring a new id."""
        long_ago = self._clock.now() - _FORGET_SECONDS
        for worker in self._store.workers():
            if worker.is_lost and worker.seen_at < long_ago:
                self._store.forget_worker(worker.id)

    def mark_lost(self, worker_id: str) -> None:
        """Counts a worker as gone until it calls again."""
        if worker := self._store.worker(worker_id):
            worker.is_lost = True
            worker.ready_at = None
            self._store.save_worker(worker)

    def stop(self, worker_id: str) -> None:
        """Scales a worker down, so that its next job waits for a cold start."""
        if worker := self._store.worker(worker_id):
            worker.ready_at = worker.idle_since = None
            self._store.save_worker(worker)

    def may_start(self, worker_id: str) -> bool:
        """Tells whether a worker may take a job now; the first question starts a cold worker."""
        worker = self._store.worker(worker_id)
        if worker is None or worker.is_lost:
            return False
        now = self._clock.now()
        if self._has_idled_out(worker, now):
            worker.ready_at = worker.idle_since = None
        if worker.ready_at is None:
            if self._num_started() >= self._options.workers_max:
                return False
            worker.ready_at = now + self._clock.span(self._options.cold_start_seconds)
        self._store.save_worker(worker)
        return now >= worker.ready_at

    def started(self, worker_id: str) -> None:
        """Notes that a worker runs a job."""
        self._set_idle_since(worker_id, None)

    def finished(self, worker_id: str) -> None:
        """Notes that a worker's job is over."""
        self._set_idle_since(worker_id, self._clock.now())

    def counts(self, *, is_throttled: bool) -> dict[str, int]:
        """Returns the worker counters of `/health`."""
        now = self._clock.now()
        states = [self._state(worker, now) for worker in self._store.workers() if not worker.is_lost]
        num_idle = states.count("idle")
        return {
            "idle": 0 if is_throttled else num_idle,
            "initializing": states.count("initializing"),
            "ready": 0 if is_throttled else num_idle,
            "running": states.count("running"),
            "throttled": num_idle if is_throttled else 0,
            "unhealthy": states.count("unhealthy"),
        }

    def _state(self, worker: Worker, now: float) -> str:
        if worker.unhealthy_reason is not None:
            return "unhealthy"
        if self._store.held_by(worker.id):
            return "running"
        if worker.ready_at is not None and now < worker.ready_at:
            return "initializing"
        return "idle"

    def _has_idled_out(self, worker: Worker, now: float) -> bool:
        idle = self._clock.span(self._options.idle_seconds)
        return worker.idle_since is not None and now >= worker.idle_since + idle

    def _num_started(self) -> int:
        now = self._clock.now()
        return sum(
            worker.ready_at is not None and not worker.is_lost and not self._has_idled_out(worker, now)
            for worker in self._store.workers()
        )

    def _set_idle_since(self, worker_id: str, moment: float | None) -> None:
        if worker := self._store.worker(worker_id):
            worker.idle_since = moment
            self._store.save_worker(worker)
