"""What the local endpoint does by itself as time passes: webhooks, TTL, retention, time-outs, restarts."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable

import httpx
import pytest

from tests.gpu_worker.http_servers import WebhookSink
from tests.gpu_worker.processes import EndpointProcess, until

pytestmark = pytest.mark.services

HOUR = 3600.0


def finish(endpoint: EndpointProcess, job_id: str, result: object) -> None:
    """Lets a worker take the job and post this result."""
    worker = endpoint.worker("w")
    job = worker.take()
    assert job is not None
    assert job["id"] == job_id
    worker.done(job_id, result)


# Webhooks


@pytest.mark.parametrize(
    ("result", "status"),
    [({"output": {"a": 1}}, "COMPLETED"), ({"error": "no"}, "FAILED"), (None, "CANCELLED")],
)
def test_every_end_is_announced_with_the_input(
    endpoint: EndpointProcess, webhook_sink: WebhookSink, result: object, status: str
) -> None:
    job_id = endpoint.run({"id": "Hello"}, webhook=webhook_sink.url)
    if result is None:
        endpoint.http.post(f"/v2/local/cancel/{job_id}")
    else:
        finish(endpoint, job_id, result)
    until(lambda: webhook_sink.received)
    (body,) = webhook_sink.received
    shown = endpoint.status(job_id)
    assert body == {**shown, "input": {"id": "Hello"}, "webhook": webhook_sink.url}
    assert body["status"] == status
    assert webhook_sink.content_types == ["application/json"]
    assert "topsecret" not in endpoint.log.read_text()
    assert "Hello" not in endpoint.log.read_text()


@pytest.mark.parametrize("bad_answers", [[500, 500], [302, 404]])
def test_a_refused_webhook_is_tried_three_times_ten_seconds_apart(
    own_endpoint: EndpointProcess, webhook_sink: WebhookSink, bad_answers: list[int]
) -> None:
    webhook_sink.answers.extend([*bad_answers, 500, 500])
    job_id = own_endpoint.run({}, webhook=webhook_sink.url)
    own_endpoint.http.post(f"/v2/local/cancel/{job_id}")
    for number in (1, 2, 3):
        until(lambda number=number: len(webhook_sink.received) == number)
        own_endpoint.advance(8)
        time.sleep(0.3)
        assert len(webhook_sink.received) == number
        own_endpoint.advance(3)
    time.sleep(0.3)
    assert len(webhook_sink.received) == 3
    (delivery,) = own_endpoint.http.get("/admin/deliveries").json()
    assert (delivery["num_tries"], delivery["outcome"]) == (3, "given up: 500")


def test_webhooks_can_be_dropped_doubled_delayed_and_early(
    own_endpoint: EndpointProcess, webhook_sink: WebhookSink
) -> None:
    def cancelled() -> str:
        job_id = own_endpoint.run({}, webhook=webhook_sink.url)
        own_endpoint.http.post(f"/v2/local/cancel/{job_id}")
        return job_id

    own_endpoint.fault("webhook_drop", times=1, status="CANCELLED")
    cancelled()
    own_endpoint.fault("webhook_delay", times=1, seconds=60)
    cancelled()
    time.sleep(0.4)
    assert webhook_sink.received == []
    own_endpoint.advance(61)
    until(lambda: len(webhook_sink.received) == 1)
    own_endpoint.fault("webhook_duplicate", times=1)
    cancelled()
    until(lambda: len(webhook_sink.received) == 3)
    own_endpoint.fault("webhook_early", times=1, seconds=60)
    early = cancelled()
    until(lambda: len(webhook_sink.received) == 4)
    assert webhook_sink.received[3]["status"] == "CANCELLED"
    assert own_endpoint.status(early)["status"] == "IN_PROGRESS"
    own_endpoint.advance(61)
    assert own_endpoint.status(early)["status"] == "CANCELLED"


# Clocks


def test_results_are_kept_for_half_an_hour_and_sync_results_for_a_minute(
    own_endpoint: EndpointProcess,
) -> None:
    job_id = own_endpoint.run({})
    finish(own_endpoint, job_id, {"output": 1})
    sync = own_endpoint.http.post("/v2/local/runsync?wait=1000", json={"input": {}}).json()["id"]
    finish(own_endpoint, sync, {"output": 2})
    own_endpoint.advance(59)
    assert own_endpoint.status(sync)["output"] == 2
    own_endpoint.advance(2)
    assert own_endpoint.status(sync)["status"] == 404
    own_endpoint.advance(30 * 60 - 65)
    assert own_endpoint.status(job_id)["output"] == 1
    own_endpoint.advance(10)
    assert own_endpoint.status(job_id)["status"] == 404


def test_a_ttl_erases_a_job_in_any_state_without_a_webhook(
    own_endpoint: EndpointProcess, webhook_sink: WebhookSink
) -> None:
    policy = {"ttl": 60_000, "executionTimeout": 600_000}
    running = own_endpoint.run({}, policy=policy, webhook=webhook_sink.url)
    own_endpoint.worker("w").take()
    queued = own_endpoint.run({}, policy=policy, webhook=webhook_sink.url)
    extended = own_endpoint.run({}, policy=policy)
    own_endpoint.http.get(f"/v2/local/status/{extended}?ttl=120000")
    own_endpoint.advance(61)
    assert own_endpoint.status(running)["status"] == 404
    assert own_endpoint.status(queued)["status"] == 404
    assert own_endpoint.status(extended)["status"] == "IN_QUEUE"
    assert webhook_sink.received == []


def test_a_job_that_was_never_taken_can_time_out_instead(own_endpoint: EndpointProcess) -> None:
    own_endpoint.fault("ttl_timed_out_state", times=1)
    job_id = own_endpoint.run({}, policy={"ttl": 10_000})
    own_endpoint.advance(11)
    assert own_endpoint.status(job_id)["status"] == "TIMED_OUT"
    assert own_endpoint.http.post(f"/v2/local/retry/{job_id}").json()["status"] == "IN_QUEUE"


def test_the_execution_timeout_fires_late_and_stops_the_job(own_endpoint: EndpointProcess) -> None:
    worker = own_endpoint.worker("w")
    job_id = own_endpoint.run({}, policy={"executionTimeout": 30_000})
    worker.take()
    own_endpoint.advance(31)
    assert own_endpoint.status(job_id)["status"] == "IN_PROGRESS"
    own_endpoint.advance(3)
    document = own_endpoint.status(job_id)
    assert (document["status"], document["error"]) == ("FAILED", "executionTimeout exceeded")
    assert document["executionTime"] >= 33_000
    assert worker.stops() == [job_id]


def test_an_execution_timeout_can_have_its_own_state(own_endpoint: EndpointProcess) -> None:
    own_endpoint.fault("timed_out_state", times=1)
    job_id = own_endpoint.run({})
    own_endpoint.worker("w").take()
    own_endpoint.advance(604)
    assert own_endpoint.status(job_id)["status"] == "TIMED_OUT"


def test_a_speed_factor_shortens_the_services_clocks(start_endpoint: Callable[..., EndpointProcess]) -> None:
    endpoint = start_endpoint("--speed", "60")
    job_id = endpoint.run({}, policy={"ttl": 90_000})
    assert endpoint.status(job_id)["status"] == "IN_QUEUE"
    until(lambda: endpoint.status(job_id)["status"] == 404, seconds=5)


# Faults of the client's network


def test_operations_answer_what_a_fault_says(own_endpoint: EndpointProcess) -> None:
    own_endpoint.fault("http_status", on="run", http_status=429, retry_after=7, times=1)
    reply = own_endpoint.http.post("/v2/local/run", json={"input": {}})
    assert (reply.status_code, reply.headers["Retry-After"]) == (429, "7")
    own_endpoint.fault("http_status", on="status", http_status=502)
    job_id = own_endpoint.run({})
    for _ in range(3):
        assert own_endpoint.status(job_id)["status"] == 502
    own_endpoint.clear_faults()
    assert own_endpoint.status(job_id)["status"] == "IN_QUEUE"


def test_a_slow_reply_is_slow(own_endpoint: EndpointProcess) -> None:
    own_endpoint.fault("slow", on="health", seconds=0.5, times=1)
    started_at = time.monotonic()
    own_endpoint.http.get("/v2/local/health")
    assert time.monotonic() - started_at > 0.5


@pytest.mark.parametrize(("kind", "num_jobs"), [("cut", 0), ("reply_lost", 1)])
def test_a_cut_connection_gives_no_reply(own_endpoint: EndpointProcess, kind: str, num_jobs: int) -> None:
    own_endpoint.fault(kind, on="run", times=1)
    with pytest.raises(httpx.TransportError):
        own_endpoint.http.post("/v2/local/run", json={"input": {}})
    assert len(own_endpoint.http.get("/admin/jobs").json()) == num_jobs


def test_a_new_job_can_be_unseen_at_first(own_endpoint: EndpointProcess) -> None:
    own_endpoint.fault("unseen", seconds=30)
    job_id = own_endpoint.run({})
    assert own_endpoint.status(job_id)["status"] == 404
    own_endpoint.advance(31)
    assert own_endpoint.status(job_id)["status"] == "IN_QUEUE"


def test_results_can_be_lost_or_stuck(own_endpoint: EndpointProcess) -> None:
    lost = own_endpoint.run({})
    own_endpoint.fault("output_lost", times=1)
    finish(own_endpoint, lost, {"output": 1})
    assert own_endpoint.status(lost)["status"] == "COMPLETED"
    assert "output" not in own_endpoint.status(lost)
    stuck = own_endpoint.run({})
    own_endpoint.fault("result_stuck", times=1)
    finish(own_endpoint, stuck, {"output": 1})
    assert own_endpoint.status(stuck)["status"] == "IN_PROGRESS"


def test_a_throttled_endpoint_starts_nothing(own_endpoint: EndpointProcess) -> None:
    own_endpoint.fault("throttled")
    worker = own_endpoint.worker("w")
    own_endpoint.run({})
    assert worker.take() is None
    assert own_endpoint.http.get("/v2/local/health").json()["workers"]["throttled"] == 1
    own_endpoint.clear_faults()
    assert worker.take() is not None


@pytest.mark.parametrize("fault", [{"kind": "bad weather"}, {"kind": "slow", "times": 1, "colour": 1}, []])
def test_an_unknown_fault_is_refused(own_endpoint: EndpointProcess, fault: object) -> None:
    assert own_endpoint.http.post("/admin/faults", content=json.dumps(fault)).status_code == 400


# Restarts


def test_nothing_is_forgotten_over_a_restart(
    own_endpoint: EndpointProcess, webhook_sink: WebhookSink
) -> None:
    worker = own_endpoint.worker("w")
    done, running, queued = (own_endpoint.run({"n": n}, webhook=webhook_sink.url) for n in range(3))
    worker.take()
    webhook_sink.answers.append(500)
    worker.done(done, {"output": 1})
    worker.take()
    worker.done(running, {"status": "IN_PROGRESS", "output": "half"})
    until(lambda: webhook_sink.received)
    before = own_endpoint.status(done)
    own_endpoint.stop(signal.SIGKILL)
    own_endpoint.start()
    assert own_endpoint.status(done) == before
    assert own_endpoint.status(running)["output"] == "half"
    assert own_endpoint.status(queued)["status"] == "IN_QUEUE"
    assert own_endpoint.http.get("/v2/local/health").json()["jobs"]["completed"] == 1
    own_endpoint.advance(11)
    until(lambda: len(webhook_sink.received) == 2)
    worker.done(running, {"output": "whole"})
    assert own_endpoint.status(running)["output"] == "whole"


def test_a_job_whose_worker_did_not_survive_the_restart_is_queued_again(
    own_endpoint: EndpointProcess,
) -> None:
    job_id = own_endpoint.run({})
    own_endpoint.worker("w").take()
    own_endpoint.stop()
    own_endpoint.start()
    assert own_endpoint.status(job_id)["status"] == "IN_PROGRESS"
    until(lambda: own_endpoint.status(job_id)["status"] == "IN_QUEUE", seconds=6)


def test_open_polls_do_not_hold_a_stop_up(own_endpoint: EndpointProcess) -> None:
    worker = own_endpoint.worker("w")
    poll = threading.Thread(target=worker.take)
    poll.start()
    time.sleep(0.3)
    started_at = time.monotonic()
    assert own_endpoint.stop() == 0
    assert time.monotonic() - started_at < 3
    poll.join()
    own_endpoint.start()


def test_the_admin_face_takes_the_clients_key(own_endpoint: EndpointProcess) -> None:
    assert httpx.get(f"http://127.0.0.1:{own_endpoint.port}/admin/jobs", trust_env=False).status_code == 401
