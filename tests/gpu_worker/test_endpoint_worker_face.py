"""What workers see of the local endpoint, call by call, and what becomes of jobs that they lose."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import httpx
import pytest

from tests.gpu_worker.processes import EndpointProcess, until

pytestmark = pytest.mark.services


def test_a_taken_job_shows_its_worker_and_growing_times(own_endpoint: EndpointProcess) -> None:
    job_id = own_endpoint.run({"a": 1})
    time.sleep(0.1)
    assert own_endpoint.worker("w").take() == {"id": job_id, "input": {"a": 1}}
    first = own_endpoint.status(job_id)
    time.sleep(0.05)
    second = own_endpoint.status(job_id)
    assert first["workerId"] == "w"
    assert first["delayTime"] == second["delayTime"] >= 100
    assert second["executionTime"] >= first["executionTime"] + 50
    assert "output" not in first


def test_an_empty_poll_is_held_and_ends_with_204(own_endpoint: EndpointProcess) -> None:
    started_at = time.monotonic()
    assert own_endpoint.worker("w").take() is None
    assert 0.9 < time.monotonic() - started_at < 3


def test_a_waiting_poll_gets_a_new_job_at_once(own_endpoint: EndpointProcess) -> None:
    taken: list[object] = []
    poll = threading.Thread(target=lambda: taken.append(own_endpoint.worker("w").take()))
    poll.start()
    time.sleep(0.5)
    started_at = time.monotonic()
    job_id = own_endpoint.run({})
    poll.join()
    assert time.monotonic() - started_at < 0.5
    assert taken == [{"id": job_id, "input": {}}]


def test_a_batch_takes_several_jobs_as_a_list(own_endpoint: EndpointProcess) -> None:
    ids = [own_endpoint.run({}) for _ in range(3)]
    worker = own_endpoint.worker("w")
    reply = worker.http.get("job-take-batch/w?gpu=none&batch_size=2&job_in_progress=0")
    assert [job["id"] for job in reply.json()] == ids[:2]


def test_a_wrong_key_is_refused_slowly_so_that_the_sdk_does_not_spin(own_endpoint: EndpointProcess) -> None:
    started_at = time.monotonic()
    path = f"{own_endpoint.address}/job-take/w?gpu=none&job_in_progress=0"
    reply = httpx.get(path, headers={"Authorization": "wrong"}, timeout=10, trust_env=False)
    assert reply.status_code == 401
    assert time.monotonic() - started_at > 0.9


def test_progress_is_the_output_until_the_result_replaces_it(own_endpoint: EndpointProcess) -> None:
    worker = own_endpoint.worker("w")
    job_id = own_endpoint.run({})
    worker.take()
    worker.done(job_id, {"status": "IN_PROGRESS", "output": {"frames": 1}})
    worker.done(job_id, {"status": "IN_PROGRESS", "output": {"frames": 2}})
    assert own_endpoint.status(job_id)["output"] == {"frames": 2}
    worker.done(job_id, {"output": {"done": True}})
    worker.done(job_id, {"status": "IN_PROGRESS", "output": {"frames": 3}})
    document = own_endpoint.status(job_id)
    assert (document["status"], document["output"]) == ("COMPLETED", {"done": True})


def test_a_late_progress_report_reopens_the_job_when_the_fault_is_on(own_endpoint: EndpointProcess) -> None:
    worker = own_endpoint.worker("w")
    job_id = own_endpoint.run({})
    worker.take()
    worker.done(job_id, {"output": 1})
    own_endpoint.fault("progress_reopens", times=1)
    worker.done(job_id, {"status": "IN_PROGRESS", "output": "late"})
    document = own_endpoint.status(job_id)
    assert (document["status"], document["output"]) == ("IN_PROGRESS", "late")


@pytest.mark.parametrize(
    "body", [b"not json", b'{"output": NaN}', b"[]", b'{"output": "' + b"x" * 10_485_760 + b'"}']
)
def test_a_result_that_cannot_be_read_completes_the_job_without_output(
    own_endpoint: EndpointProcess, body: bytes
) -> None:
    worker = own_endpoint.worker("w")
    job_id = own_endpoint.run({})
    worker.take()
    assert worker.done_raw(job_id, body) == 400
    document = own_endpoint.status(job_id)
    assert document["status"] == "COMPLETED"
    assert "output" not in document


def test_a_result_for_an_unknown_job_is_404(own_endpoint: EndpointProcess) -> None:
    assert own_endpoint.worker("w").done("gone-u1", {"output": 1}) == 404


def test_cancelling_a_running_job_tells_its_worker_and_drops_the_late_result(
    own_endpoint: EndpointProcess,
) -> None:
    worker = own_endpoint.worker("w")
    job_id = own_endpoint.run({})
    worker.take()
    assert own_endpoint.http.post(f"/v2/local/cancel/{job_id}").json()["status"] == "CANCELLED"
    assert worker.stops() == [job_id]
    assert worker.stops() == []
    assert worker.done(job_id, {"output": "late"}) == 200
    document = own_endpoint.status(job_id)
    assert document["status"] == "CANCELLED"
    assert "output" not in document


def test_a_worker_that_asks_for_a_job_has_lost_the_one_it_held(own_endpoint: EndpointProcess) -> None:
    worker = own_endpoint.worker("w")
    job_id = own_endpoint.run({})
    worker.take()
    worker.done(job_id, {"status": "IN_PROGRESS", "output": "half"})
    job = worker.take()
    assert job is not None
    assert job["id"] == job_id
    assert own_endpoint.http.get("/v2/local/health").json()["jobs"]["retried"] == 1
    assert "output" not in own_endpoint.status(job_id)


def test_a_silent_worker_loses_its_job_to_the_next(own_endpoint: EndpointProcess) -> None:
    lost, next_worker = own_endpoint.worker("lost"), own_endpoint.worker("next")
    job_id = own_endpoint.run({})
    lost.take()
    for _ in range(4):  # pings keep it
        lost.ping(job_id)
        time.sleep(0.5)
    assert own_endpoint.status(job_id)["workerId"] == "lost"
    job = until(next_worker.take, seconds=10)
    assert job["id"] == job_id
    assert lost.done(job_id, {"output": "late"}) == 200
    assert own_endpoint.status(job_id)["status"] == "IN_PROGRESS"
    next_worker.done(job_id, {"output": "right"})
    assert own_endpoint.status(job_id)["output"] == "right"


def test_a_worker_whose_pings_forget_its_job_loses_it(own_endpoint: EndpointProcess) -> None:
    worker = own_endpoint.worker("w")
    job_id = own_endpoint.run({})
    worker.take()
    worker.ping()
    worker.ping(job_id)
    for _ in range(2):
        worker.ping()
    assert own_endpoint.status(job_id)["status"] == "IN_PROGRESS"
    worker.ping()
    assert own_endpoint.status(job_id)["status"] == "IN_QUEUE"


def test_a_dropped_poll_means_a_lost_worker_even_if_its_heartbeat_goes_on(
    own_endpoint: EndpointProcess,
) -> None:
    worker = own_endpoint.worker("w")
    job_id = own_endpoint.run({})
    worker.take()
    with pytest.raises(httpx.ReadTimeout):
        worker.http.get("job-stop/w?gpu=none", timeout=0.3)  # the process dies, its connection with it

    def is_back_in_the_queue() -> bool:
        worker.ping(job_id)
        return own_endpoint.status(job_id)["status"] == "IN_QUEUE"

    until(is_back_in_the_queue, seconds=5)


def test_a_worker_that_polls_again_in_time_keeps_its_job(own_endpoint: EndpointProcess) -> None:
    worker = own_endpoint.worker("w")
    job_id = own_endpoint.run({})
    worker.take()
    with pytest.raises(httpx.ReadTimeout):
        worker.http.get("job-stop/w?gpu=none", timeout=0.3)
    assert worker.stops() == []
    assert own_endpoint.status(job_id)["status"] == "IN_PROGRESS"


def test_a_job_that_is_lost_too_often_fails(own_endpoint: EndpointProcess) -> None:
    worker = own_endpoint.worker("w")
    job_id = own_endpoint.run({})
    for _ in range(3):
        job = worker.take()
        assert job is not None
        assert own_endpoint.http.post("/admin/workers/w/lose").status_code == 204
    document = own_endpoint.status(job_id)
    assert (document["status"], document["error"]) == ("FAILED", "job timed out after 2 retries")
    assert worker.take() is None


def test_a_job_delivered_twice_takes_the_first_result(own_endpoint: EndpointProcess) -> None:
    one, two = own_endpoint.worker("one"), own_endpoint.worker("two")
    job_id = own_endpoint.run({})
    one.take()
    own_endpoint.fault("duplicate_delivery", times=1)
    twin = two.take()
    assert twin is not None
    assert twin["id"] == job_id
    assert two.done(job_id, {"output": "two"}) == 200
    assert one.done(job_id, {"output": "one"}) == 200
    assert own_endpoint.status(job_id)["output"] == "two"


def test_a_worker_that_runs_an_erased_job_is_told_to_stop(own_endpoint: EndpointProcess) -> None:
    worker = own_endpoint.worker("w")
    job_id = own_endpoint.run({}, policy={"ttl": 10_000})
    worker.take()
    own_endpoint.advance(11)
    assert own_endpoint.status(job_id)["status"] == 404
    assert worker.stops() == [job_id]
    worker.ping(job_id)  # it did not hear the signal
    assert worker.stops() == [job_id]


def test_a_worker_that_stops_its_pod_starts_cold(start_endpoint: Callable[..., EndpointProcess]) -> None:
    endpoint = start_endpoint("--cold-start-seconds", "1.5", "--idle-seconds", "60")
    worker = endpoint.worker("w")
    endpoint.run({})
    started_at = time.monotonic()
    first = until(worker.take, seconds=5)
    assert time.monotonic() - started_at > 1.4
    endpoint.run({})
    worker.done(first["id"], {"output": 1})
    second = worker.take()
    assert second is not None
    assert time.monotonic() - started_at < 3  # warm
    worker.done(second["id"], {"output": 1, "stopPod": True})
    third = endpoint.run({})
    stopped_at = time.monotonic()
    until(worker.take, seconds=5)
    assert time.monotonic() - stopped_at > 1.4
    assert endpoint.status(third)["delayTime"] > 1400


def test_a_worker_that_is_long_gone_is_forgotten(own_endpoint: EndpointProcess) -> None:
    own_endpoint.worker("gone").ping()
    own_endpoint.http.post("/admin/workers/gone/lose")
    own_endpoint.worker("here").ping()
    own_endpoint.advance(3500)
    assert [each["id"] for each in own_endpoint.http.get("/admin/workers").json()] == ["gone", "here"]
    own_endpoint.advance(200)
    assert [each["id"] for each in own_endpoint.http.get("/admin/workers").json()] == ["here"]


def test_an_unhealthy_worker_is_counted(own_endpoint: EndpointProcess) -> None:
    own_endpoint.worker("w").ping(status="unhealthy", check="gpu", reason="no memory")
    assert own_endpoint.http.get("/v2/local/health").json()["workers"]["unhealthy"] == 1
