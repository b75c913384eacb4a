"""The real processes that tests talk to: a local endpoint, and workers that run the RunPod SDK's own loop."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import httpx

from tests.services.processes import free_port

REPOSITORY: Final = Path(__file__).resolve().parents[2]
KEY: Final = "client-key"
WORKER_KEY: Final = "worker-key"
FINAL: Final = {"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"}


def until(question: Callable[[], Any], *, seconds: float = 20.0, what: str = "") -> Any:
    """Asks until the answer is true and returns it; fails when it does not become true in time."""
    deadline = time.monotonic() + seconds
    while True:
        if answer := question():
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what or question}")
        time.sleep(0.05)


class EndpointProcess:
    """A local endpoint in a process of its own, restartable on the same port and store."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.port = free_port()
        self.log = folder / "endpoint.log"
        self._arguments = [
            *("--port", str(self.port), "--store", str(folder / "endpoint.sqlite3")),
            *("--api-key", KEY, "--worker-key", WORKER_KEY, "--admin", *arguments),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._workers: list[RawWorker] = []
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=40,
            trust_env=False,
        )
        self.start()

    @property
    def address(self) -> str:
        """Where clients and workers find the endpoint's routes."""
        return f"http://127.0.0.1:{self.port}/v2/local"

    def start(self) -> None:
        """Starts the process and waits until it answers."""
        command = [sys.executable, "-m", "gpu_worker.local_endpoint", *self._arguments]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log)
        until(self._answers, what="the endpoint answers")

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> int:
        """Ends the process and returns its exit code."""
        assert self._process is not None
        self._process.send_signal(sign)
        code = self._process.wait(timeout=20)
        self._process = None
        return code

    def close(self) -> None:
        """Ends the process, if it runs, and closes all connections to it."""
        for worker in self._workers:
            worker.close()
        self.http.close()
        if self._process is not None:
            self.stop(signal.SIGKILL)

    def worker(self, worker_id: str) -> RawWorker:
        """Returns a worker that calls by hand."""
        self._workers.append(RawWorker(self, worker_id))
        return self._workers[-1]

    def run(self, document: dict[str, Any], **more: Any) -> str:
        """Submits a job with this input and returns its id."""
        reply = self.http.post("/v2/local/run", json={"input": document, **more})
        assert reply.status_code == 200, reply.text
        return str(reply.json()["id"])

    def status(self, job_id: str) -> dict[str, Any]:
        """Returns the job's status document; `{"status": 404}` when there is none."""
        reply = self.http.get(f"/v2/local/status/{job_id}")
        document: dict[str, Any] = reply.json()
        return document

    def until_status(self, job_id: str, *statuses: str, seconds: float = 30.0) -> dict[str, Any]:
        """Waits until the job is in one of these states and returns its document."""
        wanted = set(statuses) or FINAL
        deadline = time.monotonic() + seconds
        while (document := self.status(job_id))["status"] not in wanted:
            assert time.monotonic() < deadline, f"still {document}; {self.log.read_text()[-2000:]}"
            time.sleep(0.05)
        return document

    def fault(self, kind: str, **fields: Any) -> None:
        """Switches a fault on."""
        reply = self.http.post("/admin/faults", json={"kind": kind, **fields})
        assert reply.status_code == 201, reply.text

    def clear_faults(self) -> None:
        """Switches all faults off."""
        assert self.http.delete("/admin/faults").status_code == 204

    def reset(self) -> None:
        """Makes the endpoint forget everything."""
        assert self.http.post("/admin/reset").status_code == 204

    def advance(self, seconds: float) -> None:
        """Moves the endpoint's clock ahead."""
        assert self.http.post("/admin/clock", json={"advance_seconds": seconds}).status_code == 200

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        with contextlib.suppress(httpx.TransportError):
            return self.http.get("/v2/local/health").status_code == 200
        return False


class RawWorker:
    """A worker's calls by hand, for what the SDK's loop cannot be made to do."""

    def __init__(self, endpoint: EndpointProcess, worker_id: str) -> None:
        self.id = worker_id
        self.http = httpx.Client(
            base_url=f"{endpoint.address}/",
            headers={"Authorization": WORKER_KEY},
            timeout=40,
            trust_env=False,
        )

    def take(self, *, has_job: bool = False) -> dict[str, Any] | None:
        """Asks for a job; None when there is none."""
        reply = self.http.get(f"job-take/{self.id}?gpu=none&job_in_progress={int(has_job)}")
        assert reply.status_code in (200, 204), reply.text
        job: dict[str, Any] | None = reply.json() if reply.status_code == 200 else None
        return job

    def done(self, job_id: str, result: Any) -> int:
        """Posts a result or a progress report as the SDK does; returns the HTTP status."""
        return self.done_raw(job_id, httpx.Request("POST", "http://x", json=result).content)

    def done_raw(self, job_id: str, body: bytes) -> int:
        """Posts any bytes as a result; returns the HTTP status."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        reply = self.http.post(
            f"job-done/{self.id}/{job_id}?gpu=none&isStream=false", content=body, headers=headers
        )
        return reply.status_code

    def stops(self) -> list[str]:
        """Polls the stop channel."""
        reply = self.http.get(f"job-stop/{self.id}?gpu=none")
        return list(reply.json()["jobsToStop"]) if reply.status_code == 200 else []

    def ping(self, *job_ids: str, **query: str) -> None:
        """Sends a heartbeat."""
        named = {"job_id": ",".join(job_ids)} if job_ids else {}
        reply = self.http.get(f"ping/{self.id}", params={**named, **query, "runpod_version": "1.12.0"})
        assert reply.status_code == 200

    def close(self) -> None:
        """Closes the connections."""
        self.http.close()


class WorkerProcess:
    """A process that runs the unmodified SDK's loop against an endpoint."""

    def __init__(
        self,
        endpoint: EndpointProcess,
        folder: Path,
        *,
        worker_id: str,
        command: list[str],
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.id = worker_id
        self.log = folder / f"{worker_id}.log"
        self.scratch = folder / "scratch"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                cwd=REPOSITORY,
                env={**_environment(endpoint, worker_id, self.scratch), **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def kill(self) -> None:
        """Kills the main process alone, as the kernel does when memory runs out."""
        self._process.kill()
        self._process.wait(timeout=10)

    def terminate(self) -> int:
        """Asks the process to end and returns its exit code."""
        self._process.terminate()
        return self._process.wait(timeout=30)

    def wait(self) -> int:
        """Waits until the process ends by itself and returns its exit code."""
        return self._process.wait(timeout=60)

    def close(self) -> None:
        """Kills the process and all that it started in its own session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(timeout=10)

    def ranks(self) -> list[int]:
        """Returns the process ids of the ranks that this worker runs, itself or under torchrun."""
        table = list(_processes())
        launchers = {pid for pid, parent, name in table if parent == self.pid and "launch_ranks" in name}
        return [
            pid
            for pid, parent, name in table
            if "gpu_worker.rank" in name and parent in {self.pid, *launchers}
        ]


def _environment(endpoint: EndpointProcess, worker_id: str, scratch: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    base = endpoint.address
    return {
        **kept,
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONUNBUFFERED": "1",
        "RUNPOD_ENDPOINT_ID": "local",
        "RUNPOD_POD_ID": worker_id,
        "RUNPOD_AI_API_KEY": WORKER_KEY,
        "RUNPOD_PING_INTERVAL": "1000",
        "RUNPOD_LOG_LEVEL": "INFO",
        "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID?gpu=none",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=none",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/$RUNPOD_POD_ID/$ID?gpu=none",
        "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID",
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
        "WORKER_SCRATCH_DIR": str(scratch),
        "WORKER_TRANSFER_TRIES": "3",
        "WORKER_TRANSFER_PAUSE_SECONDS": "0.1",
    }


def _processes() -> Iterator[tuple[int, int, str]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                name = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                yield int(folder.name), int(fields[1]), name


def is_running(pid: int) -> bool:
    """Tells whether a process lives; one that only waits to be collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
