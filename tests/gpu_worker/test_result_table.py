"""Every way in which a handler can end, through the unmodified SDK's loop and into the client's status."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpu_worker.contract import ErrorCode, parse_error
from tests.gpu_worker.processes import EndpointProcess, WorkerProcess, until

pytestmark = pytest.mark.services

ABSENT = object()


def start(endpoint: EndpointProcess, folder: Path, worker_id: str, *arguments: str) -> WorkerProcess:
    """Starts the table's worker."""
    command = ["-m", "tests.gpu_worker.table_handler", *arguments]
    return WorkerProcess(endpoint, folder, worker_id=worker_id, command=command)


@pytest.fixture(scope="module")
def table_worker(
    endpoint: EndpointProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerProcess]:
    worker = start(endpoint, tmp_path_factory.mktemp("table"), "table")
    yield worker
    worker.close()


@pytest.mark.usefixtures("table_worker")
@pytest.mark.parametrize(
    ("value", "status", "output", "error"),
    [
        ({"result": 1}, "COMPLETED", {"result": 1}, ABSENT),
        ("text", "COMPLETED", "text", ABSENT),
        ([1, 2], "COMPLETED", [1, 2], ABSENT),
        (False, "COMPLETED", False, ABSENT),
        (None, "COMPLETED", None, ABSENT),
        ({}, "COMPLETED", ABSENT, ABSENT),
        ({"output": {"x": 1}}, "COMPLETED", {"output": {"x": 1}}, ABSENT),
        ({"error": "bad input", "extra": 1}, "FAILED", {"extra": 1}, "bad input"),
        ({"error": "bad input"}, "FAILED", ABSENT, "bad input"),
        ({"error": {"code": 5}}, "COMPLETED", ABSENT, ABSENT),
        ({"error": "", "extra": 1}, "COMPLETED", {"extra": 1}, ABSENT),
        ([{"error": "in a list"}], "COMPLETED", [{"error": "in a list"}], ABSENT),
        ({"status": "failed"}, "COMPLETED", {"status": "failed"}, ABSENT),
    ],
)
def test_what_a_handler_returns(
    endpoint: EndpointProcess, value: object, status: str, output: object, error: object
) -> None:
    document = endpoint.until_status(endpoint.run({"value": value}))
    assert document["status"] == status
    assert document.get("output", ABSENT) == output
    assert document.get("error", ABSENT) == error
    assert document["workerId"] == "table"


@pytest.mark.usefixtures("table_worker")
def test_an_exception_fails_the_job_and_its_message_can_be_read_back(endpoint: EndpointProcess) -> None:
    document = endpoint.until_status(endpoint.run({"do": "raise"}))
    assert document["status"] == "FAILED"
    assert json.loads(document["error"])["error_type"] == "<class 'RuntimeError'>"
    assert parse_error(document["error"]) == (ErrorCode.ENGINE_FAILED, "handler broke")


@pytest.mark.usefixtures("table_worker")
@pytest.mark.parametrize("wish", [{"do": "nan"}, {"do": "large", "bytes": 11_000_000}])
def test_a_result_that_the_service_refuses_is_lost(endpoint: EndpointProcess, wish: dict[str, Any]) -> None:
    document = endpoint.until_status(endpoint.run(wish))
    assert document["status"] == "COMPLETED"
    assert "output" not in document


@pytest.mark.usefixtures("table_worker")
def test_progress_is_seen_while_the_job_runs(endpoint: EndpointProcess) -> None:
    job_id = endpoint.run({"do": "progress"})
    progress = until(lambda: endpoint.status(job_id).get("output"))
    assert progress == {"half": True}
    assert endpoint.until_status(job_id)["output"] == {"value": 1}


@pytest.mark.usefixtures("table_worker")
def test_a_cancelled_job_makes_room_for_the_next(endpoint: EndpointProcess) -> None:
    long_job = endpoint.run({"do": "sleep", "seconds": 60})
    endpoint.until_status(long_job, "IN_PROGRESS")
    endpoint.http.post(f"/v2/local/cancel/{long_job}")
    next_job = endpoint.run({"value": "next"})
    assert endpoint.until_status(next_job, seconds=10)["output"] == "next"
    assert endpoint.status(long_job)["status"] == "CANCELLED"


@pytest.mark.usefixtures("table_worker")
def test_an_execution_timeout_fails_the_job_and_stops_it(endpoint: EndpointProcess) -> None:
    endpoint.fault("short_execution_timeout", times=1, seconds=0.5)
    job_id = endpoint.run({"do": "sleep", "seconds": 60})
    document = endpoint.until_status(job_id)
    assert (document["status"], document["error"]) == ("FAILED", "executionTimeout exceeded")
    assert endpoint.until_status(endpoint.run({"value": 1}), seconds=10)["status"] == "COMPLETED"


@pytest.mark.usefixtures("table_worker")
def test_a_result_that_is_no_json_is_never_posted_and_the_job_comes_back(endpoint: EndpointProcess) -> None:
    job_id = endpoint.run({"do": "set"})
    # The worker forgets it and asks for another: given back three times, it fails.
    document = endpoint.until_status(job_id)
    assert (document["status"], document["error"]) == ("FAILED", "job timed out after 2 retries")


@pytest.mark.usefixtures("table_worker")
def test_five_hundreds_are_survived_by_the_sdk(endpoint: EndpointProcess) -> None:
    job_id = endpoint.run({"do": "sleep", "seconds": 0.5})
    endpoint.until_status(job_id, "IN_PROGRESS")
    endpoint.fault("http_status", on="job-done", http_status=502, times=1)
    document = endpoint.until_status(job_id)
    assert (document["status"], document["output"]) == ("COMPLETED", {"slept": 0.5})


def test_refresh_worker_completes_the_job(endpoint: EndpointProcess, table_worker: WorkerProcess) -> None:
    document = endpoint.until_status(endpoint.run({"value": {"refresh_worker": True, "a": 1}}))
    assert (document["status"], document["output"]) == ("COMPLETED", {"a": 1})
    empty = endpoint.until_status(endpoint.run({"value": {"refresh_worker": True}}))
    assert empty["status"] == "COMPLETED"
    assert "output" not in empty


def test_a_worker_that_dies_gives_its_job_to_the_next(start_endpoint: Any, tmp_path: Path) -> None:
    endpoint = start_endpoint()
    dying = start(endpoint, tmp_path, "dying")
    try:
        job_id = endpoint.run({"do": "exit"})
        endpoint.until_status(job_id, "IN_PROGRESS")
        # The process is gone, its heartbeat goes on: only the dropped connection tells.
        document = until(lambda: (d := endpoint.status(job_id))["status"] == "IN_QUEUE" and d, seconds=15)
        assert document["id"] == job_id
        endpoint.http.post(f"/v2/local/cancel/{job_id}")
    finally:
        dying.close()


def test_a_generator_streams_its_chunks(start_endpoint: Any, tmp_path: Path) -> None:
    endpoint = start_endpoint()
    worker = start(endpoint, tmp_path, "generator", "generator")
    try:
        job_id = endpoint.run({"values": [1, {"b": 2}]})
        document = endpoint.until_status(job_id)
        assert (document["status"], document["output"]) == ("COMPLETED", [1, {"b": 2}])
        chunks = endpoint.http.get(f"/v2/local/stream/{job_id}").json()["stream"]
        assert chunks == [{"output": 1}, {"output": {"b": 2}}]
        failed = endpoint.until_status(endpoint.run({"values": [1, {"error": "m"}, 2]}))
        assert (failed["status"], failed["error"]) == ("FAILED", "m")
        broken = endpoint.until_status(endpoint.run({"values": [1, "raise"]}))
        assert broken["status"] == "FAILED"
        assert "generator broke" in broken["error"]
    finally:
        worker.close()
