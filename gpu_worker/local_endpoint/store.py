"""The endpoint's memory in one SQLite file, so that a restart loses nothing.

One process and one thread use it. Every method is synchronous and short, so that a change of a job is atomic
for the event loop: it reads, decides and writes without an `await` in between. SQL is put together from names
of this module alone; values are bound.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from gpu_worker.local_endpoint.jobs import Delivery, Job, Status, Worker

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE, is_sync INTEGER NOT NULL, input_json TEXT NOT NULL, status TEXT NOT NULL,
    submitted_at REAL NOT NULL, ttl_seconds REAL NOT NULL, execution_timeout_seconds REAL NOT NULL,
    low_priority INTEGER NOT NULL, webhook TEXT, s3_config_json TEXT, taken_at REAL, finished_at REAL,
    shown_from REAL, worker_id TEXT, twin_worker_id TEXT, deliveries INTEGER NOT NULL,
    num_missed_pings INTEGER NOT NULL, output_json TEXT, error TEXT
);
CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (status, low_priority, number);
CREATE TABLE IF NOT EXISTS workers (
    id TEXT PRIMARY KEY, seen_at REAL NOT NULL, ready_at REAL, idle_since REAL, left_at REAL,
    is_lost INTEGER NOT NULL, unhealthy_reason TEXT
);
CREATE TABLE IF NOT EXISTS deliveries (
    number INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT NOT NULL, url TEXT NOT NULL, body TEXT NOT NULL,
    due_at REAL NOT NULL, num_tries INTEGER NOT NULL, outcome TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS chunks (
    number INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT NOT NULL, body TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS stops (worker_id TEXT NOT NULL, job_id TEXT NOT NULL, UNIQUE (worker_id, job_id));
CREATE TABLE IF NOT EXISTS figures (name TEXT PRIMARY KEY, value REAL NOT NULL);
"""
_JOB_FIELDS: Final = tuple(field.name for field in dataclasses.fields(Job))
_WORKER_FIELDS: Final = tuple(field.name for field in dataclasses.fields(Worker))


class Store:
    """Jobs, workers, webhooks, stop signals and lifetime figures."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode=WAL")
        # A power cut may lose the last moments, a crash of the process does not.
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def clear(self) -> None:
        """Forgets everything."""
        for table in ("jobs", "workers", "deliveries", "chunks", "stops", "figures"):
            self._db.execute(f"DELETE FROM {table}")  # noqa: S608

    # Jobs

    def add_job(self, job: Job) -> None:
        """Appends a new job to the queue's end."""
        self._insert("jobs", _JOB_FIELDS, dataclasses.astuple(job))

    def save_job(self, job: Job) -> None:
        """Writes every field of a job that is already there."""
        self._update("jobs", _JOB_FIELDS, dataclasses.astuple(job), job.id)

    def job(self, job_id: str) -> Job | None:
        """Returns the job, or None when it is unknown or erased."""
        return next(iter(self._jobs("WHERE id = ?", job_id)), None)

    def next_queued(self) -> Job | None:
        """Returns the job whose turn it is: first in, first out, low priority last."""
        rows = self._jobs("WHERE status = ? ORDER BY low_priority, number LIMIT 1", Status.IN_QUEUE)
        return next(iter(rows), None)

    def jobs_in(self, *statuses: Status) -> list[Job]:
        """Returns the jobs in any of these states, oldest first."""
        marks = ", ".join("?" * len(statuses))
        return self._jobs(f"WHERE status IN ({marks}) ORDER BY number", *statuses)

    def jobs(self) -> list[Job]:
        """Returns every job that is not erased, oldest first."""
        return self._jobs("ORDER BY number")

    def jobs_past_ttl(self, now: float, *, speed: float) -> list[Job]:
        """Returns the jobs in any state that have lived longer than they may."""
        return self._jobs("WHERE submitted_at + ttl_seconds / ? <= ?", speed, now)

    def jobs_finished_before(self, moment: float, *, is_sync: bool) -> list[Job]:
        """Returns the jobs of one kind whose result is older than the moment."""
        return self._jobs("WHERE finished_at <= ? AND is_sync = ?", moment, is_sync)

    def held_by(self, worker_id: str) -> list[Job]:
        """Returns the jobs that this worker is running."""
        return [job for job in self.jobs_in(Status.IN_PROGRESS) if job.is_held_by(worker_id)]

    def num_in(self, status: Status) -> int:
        """Counts the jobs in a state."""
        row = self._db.execute("SELECT count(*) FROM jobs WHERE status = ?", (status,)).fetchone()
        return int(row[0])

    def erase_job(self, job_id: str) -> None:
        """Forgets a job and its chunks."""
        self._db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
        self._db.execute("DELETE FROM chunks WHERE job_id = ?", (job_id,))

    # Streamed chunks, handed out once

    def add_chunk(self, job_id: str, body: str) -> None:
        """Keeps one streamed chunk."""
        self._db.execute("INSERT INTO chunks (job_id, body) VALUES (?, ?)", (job_id, body))

    def take_chunks(self, job_id: str) -> list[str]:
        """Returns the chunks that nobody has read yet and forgets them."""
        rows = self._db.execute(
            "SELECT body FROM chunks WHERE job_id = ? ORDER BY number", (job_id,)
        ).fetchall()
        self._db.execute("DELETE FROM chunks WHERE job_id = ?", (job_id,))
        return [row["body"] for row in rows]

    # Workers and what they are told to stop

    def worker(self, worker_id: str) -> Worker | None:
        """Returns a worker that has called before."""
        return next((worker for worker in self.workers() if worker.id == worker_id), None)

    def workers(self) -> list[Worker]:
        """Returns every worker that has called."""
        rows = self._db.execute(f"SELECT {', '.join(_WORKER_FIELDS)} FROM workers ORDER BY id")  # noqa: S608
        return [Worker(**{**dict(row), "is_lost": bool(row["is_lost"])}) for row in rows]

    def save_worker(self, worker: Worker) -> None:
        """Writes a worker, new or known."""
        self._insert("workers", _WORKER_FIELDS, dataclasses.astuple(worker), verb="INSERT OR REPLACE")

    def forget_worker(self, worker_id: str) -> None:
        """Removes a worker and its stop signals."""
        self._db.execute("DELETE FROM workers WHERE id = ?", (worker_id,))
        self._db.execute("DELETE FROM stops WHERE worker_id = ?", (worker_id,))

    def add_stop(self, worker_id: str, job_id: str) -> None:
        """Puts a job on a worker's stop channel."""
        self._db.execute("INSERT OR IGNORE INTO stops (worker_id, job_id) VALUES (?, ?)", (worker_id, job_id))

    def drop_stop(self, worker_id: str, job_id: str) -> None:
        """Takes a job off the stop channel, for it was given to this worker anew."""
        self._db.execute("DELETE FROM stops WHERE worker_id = ? AND job_id = ?", (worker_id, job_id))

    def take_stops(self, worker_id: str) -> list[str]:
        """Returns the stop signals for a worker and forgets them."""
        rows = self._db.execute("SELECT job_id FROM stops WHERE worker_id = ?", (worker_id,)).fetchall()
        self._db.execute("DELETE FROM stops WHERE worker_id = ?", (worker_id,))
        return [row["job_id"] for row in rows]

    # Webhooks

    def add_delivery(self, *, job_id: str, url: str, body: str, due_at: float) -> None:
        """Keeps a webhook that has to be delivered."""
        self._db.execute(
            "INSERT INTO deliveries (job_id, url, body, due_at, num_tries, outcome)"
            " VALUES (?, ?, ?, ?, 0, '')",
            (job_id, url, body, due_at),
        )

    def deliveries(self) -> list[Delivery]:
        """Returns every webhook, delivered, given up or on its way."""
        return self._deliveries("ORDER BY number")

    def due_deliveries(self, now: float) -> list[Delivery]:
        """Returns the webhooks whose turn it is."""
        return self._deliveries("WHERE outcome = '' AND due_at <= ? ORDER BY number", now)

    def save_delivery(self, delivery: Delivery) -> None:
        """Writes what changes on a webhook: its tries, its next moment, its outcome."""
        self._db.execute(
            "UPDATE deliveries SET num_tries = ?, due_at = ?, outcome = ? WHERE number = ?",
            (delivery.num_tries, delivery.due_at, delivery.outcome, delivery.number),
        )

    def erase_deliveries(self, finished_before: float) -> None:
        """Forgets settled webhooks that are older than the moment."""
        self._db.execute("DELETE FROM deliveries WHERE outcome <> '' AND due_at < ?", (finished_before,))

    # Lifetime figures: counters of /health, and the clock's advance

    def figure(self, name: str) -> float:
        """Returns a figure; 0 when it was never set."""
        row = self._db.execute("SELECT value FROM figures WHERE name = ?", (name,)).fetchone()
        return 0.0 if row is None else float(row["value"])

    def add_to_figure(self, name: str, amount: float) -> None:
        """Adds to a figure."""
        self._db.execute(
            "INSERT INTO figures (name, value) VALUES (?, ?)"
            " ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            (name, amount),
        )

    # Rows

    def _jobs(self, clause: str, *values: object) -> list[Job]:
        rows = self._db.execute(f"SELECT {', '.join(_JOB_FIELDS)} FROM jobs {clause}", values)  # noqa: S608
        return [_job(row) for row in rows]

    def _deliveries(self, clause: str, *values: object) -> list[Delivery]:
        return [
            Delivery(**dict(row))
            for row in self._db.execute(f"SELECT * FROM deliveries {clause}", values)  # noqa: S608
        ]

    def _insert(
        self, table: str, fields: Iterable[str], values: tuple[Any, ...], *, verb: str = "INSERT"
    ) -> None:
        marks = ", ".join("?" * len(values))
        self._db.execute(f"{verb} INTO {table} ({', '.join(fields)}) VALUES ({marks})", values)

    def _update(self, table: str, fields: Iterable[str], values: tuple[Any, ...], row_id: str) -> None:
        changes = ", ".join(f"{field} = ?" for field in fields)
        self._db.execute(f"UPDATE {table} SET {changes} WHERE id = ?", (*values, row_id))  # noqa: S608


def _job(row: sqlite3.Row) -> Job:
    fields = dict(row)
    fields["status"] = Status(fields["status"])
    fields["is_sync"] = bool(fields["is_sync"])
    fields["low_priority"] = bool(fields["low_priority"])
    return Job(**fields)
