"""What clients see of the local endpoint: routes, replies, limits, policies."""

from __future__ import annotations

import threading
import time

import httpx
import pytest

from tests.gpu_worker.processes import KEY, EndpointProcess

pytestmark = pytest.mark.services

DAY = 24 * 3600


@pytest.fixture(autouse=True)
def _no_faults(endpoint: EndpointProcess) -> None:
    endpoint.clear_faults()


def problem(reply: httpx.Response) -> tuple[int, str]:
    """Returns an error's HTTP status and detail, and checks the shape of its body."""
    body = reply.json()
    assert body["status"] == reply.status_code
    assert body["title"]
    return reply.status_code, body["detail"]


def test_run_answers_at_once_with_an_id_of_runpods_shape(endpoint: EndpointProcess) -> None:
    started_at = time.perf_counter()
    reply = endpoint.http.post("/v2/local/run", json={"input": {"a": 1}})
    assert time.perf_counter() - started_at < 0.5
    assert reply.json() == {"id": reply.json()["id"], "status": "IN_QUEUE"}
    assert reply.json()["id"].endswith("-u1")
    assert len(reply.json()["id"]) <= 128


def test_a_queued_job_shows_only_id_and_status(endpoint: EndpointProcess) -> None:
    job_id = endpoint.run({})
    assert endpoint.status(job_id) == {"id": job_id, "status": "IN_QUEUE"}


@pytest.mark.parametrize("header", [f"Bearer {KEY}", f"bearer {KEY}", KEY])
def test_the_key_counts_with_and_without_bearer(endpoint: EndpointProcess, header: str) -> None:
    assert endpoint.http.get("/v2/local/health", headers={"Authorization": header}).status_code == 200


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", "worker-key", f"Basic {KEY}"])
def test_any_other_key_is_refused(endpoint: EndpointProcess, header: str) -> None:
    reply = endpoint.http.get("/v2/local/health", headers={"Authorization": header})
    assert problem(reply) == (401, "unauthorized")


def test_an_unknown_endpoint_is_not_found(endpoint: EndpointProcess) -> None:
    assert problem(endpoint.http.get("/v2/other/health")) == (404, "endpoint not found")


@pytest.mark.parametrize(
    ("verb", "path"),
    [("GET", "status"), ("GET", "stream"), ("POST", "cancel"), ("POST", "retry")],
)
def test_an_unknown_job_is_not_found(endpoint: EndpointProcess, verb: str, path: str) -> None:
    assert problem(endpoint.http.request(verb, f"/v2/local/{path}/nothing-u1")) == (404, "job not found")


@pytest.mark.parametrize(
    ("verb", "path"),
    [("GET", "run"), ("GET", "runsync"), ("POST", "status/x"), ("GET", "cancel/x"), ("POST", "health")],
)
def test_a_wrong_verb_is_refused(endpoint: EndpointProcess, verb: str, path: str) -> None:
    assert problem(endpoint.http.request(verb, f"/v2/local/{path}"))[0] == 405


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{not json", b"{}", b'{"input": null}', b'{"input": [1]}', b'{"input": {}, "webhook": 3}'],
)
def test_a_bad_body_is_refused(endpoint: EndpointProcess, body: bytes) -> None:
    status, detail = problem(endpoint.http.post("/v2/local/run", content=body))
    assert status == 400
    assert detail.startswith("bad request")


@pytest.mark.parametrize(("path", "mebibytes"), [("run", 10), ("runsync", 20)])
def test_a_body_over_the_limit_is_refused(endpoint: EndpointProcess, path: str, mebibytes: int) -> None:
    body = b'{"input": {"a": "' + b"x" * (mebibytes * 1024 * 1024) + b'"}}'
    status, detail = problem(endpoint.http.post(f"/v2/local/{path}", content=body))
    assert (status, detail) == (400, f"bad request: body: exceeded max body size of {mebibytes}MiB")


@pytest.mark.parametrize(
    ("policy", "is_accepted"),
    [
        ({"executionTimeout": 5_000, "ttl": 10_000}, True),
        ({"executionTimeout": 7 * DAY * 1000, "ttl": 7 * DAY * 1000, "lowPriority": True}, True),
        ({"executionTimeout": 4_999}, False),
        ({"executionTimeout": 7 * DAY * 1000 + 1}, False),
        ({"ttl": 9_999}, False),
        ({"ttl": "soon"}, False),
        ({"ttl": True}, False),
        ([], True),
        ("fast", False),
    ],
)
def test_policies_are_checked(endpoint: EndpointProcess, policy: object, is_accepted: bool) -> None:
    reply = endpoint.http.post("/v2/local/run", json={"input": {}, "policy": policy})
    assert reply.status_code == (200 if is_accepted else 400), reply.text


def test_unknown_top_level_keys_do_not_reach_the_worker(
    own_endpoint: EndpointProcess,
) -> None:
    s3_config = {"bucketName": "results"}
    job_id = own_endpoint.run({"a": 1}, surprise=1, webhook="http://127.0.0.1:9/", s3Config=s3_config)
    job = own_endpoint.worker("w").take()
    assert job == {"id": job_id, "input": {"a": 1}, "webhook": "http://127.0.0.1:9/", "s3Config": s3_config}


def test_runsync_answers_the_state_when_its_wait_is_over(endpoint: EndpointProcess) -> None:
    document = endpoint.http.post("/v2/local/runsync?wait=1000", json={"input": {"sync": 1}}).json()
    assert document["id"].startswith("sync-")
    assert document["status"] == "IN_QUEUE"


def test_runsync_answers_the_result_as_soon_as_it_is_there(
    own_endpoint: EndpointProcess,
) -> None:
    worker = own_endpoint.worker("w")

    def work() -> None:
        job = worker.take()
        assert job is not None
        worker.done(job["id"], {"output": job["input"]})

    thread = threading.Thread(target=work)
    thread.start()
    document = own_endpoint.http.post("/v2/local/runsync", json={"input": {"n": 7}}).json()
    thread.join()
    assert (document["status"], document["output"]) == ("COMPLETED", {"n": 7})


@pytest.mark.parametrize("wait", ["999", "300001", "long", "nan"])
def test_a_wait_out_of_range_is_refused(endpoint: EndpointProcess, wait: str) -> None:
    reply = endpoint.http.post(f"/v2/local/runsync?wait={wait}", json={"input": {}})
    assert problem(reply)[0] == 400


def test_a_queued_job_is_cancelled_at_once_and_never_taken(
    own_endpoint: EndpointProcess,
) -> None:
    job_id = own_endpoint.run({})
    for _ in range(2):  # twice is harmless
        reply = own_endpoint.http.post(f"/v2/local/cancel/{job_id}")
        assert reply.json() == {"id": job_id, "status": "CANCELLED"}
    assert own_endpoint.worker("w").take() is None
    assert own_endpoint.status(job_id) == {"id": job_id, "status": "CANCELLED"}


def test_a_completed_job_keeps_its_state_when_cancelled_or_retried(
    own_endpoint: EndpointProcess,
) -> None:
    worker = own_endpoint.worker("w")
    job_id = own_endpoint.run({})
    assert worker.take() is not None
    worker.done(job_id, {"output": 1})
    assert own_endpoint.http.post(f"/v2/local/cancel/{job_id}").json()["status"] == "COMPLETED"
    assert problem(own_endpoint.http.post(f"/v2/local/retry/{job_id}"))[0] == 400


def test_a_failed_job_is_retried_under_its_id(own_endpoint: EndpointProcess) -> None:
    worker = own_endpoint.worker("w")
    job_id = own_endpoint.run({"try": 1})
    worker.take()
    worker.done(job_id, {"error": "bad luck", "output": {"n": 1}})
    assert own_endpoint.status(job_id)["error"] == "bad luck"
    assert own_endpoint.http.post(f"/v2/local/retry/{job_id}").json() == {"id": job_id, "status": "IN_QUEUE"}
    assert own_endpoint.status(job_id) == {"id": job_id, "status": "IN_QUEUE"}
    assert worker.take() == {"id": job_id, "input": {"try": 1}}


def test_jobs_are_taken_first_in_first_out_with_low_priority_last(
    own_endpoint: EndpointProcess,
) -> None:
    worker = own_endpoint.worker("w")
    low = own_endpoint.run({}, policy={"lowPriority": True})
    first, second = own_endpoint.run({}), own_endpoint.run({})
    taken = []
    while job := worker.take():
        taken.append(job["id"])
        worker.done(job["id"], {"output": 1})
    assert taken == [first, second, low]


def test_purge_drops_queued_jobs_only_and_is_limited(own_endpoint: EndpointProcess) -> None:
    running = own_endpoint.run({})
    assert own_endpoint.worker("w").take() is not None
    queued = own_endpoint.run({})
    assert own_endpoint.http.post("/v2/local/purge-queue").json() == {"removed": 1, "status": "completed"}
    assert own_endpoint.status(queued)["status"] == 404
    assert own_endpoint.status(running)["status"] == "IN_PROGRESS"
    own_endpoint.http.post("/v2/local/purge-queue")
    reply = own_endpoint.http.post("/v2/local/purge-queue")  # the third within ten seconds
    assert problem(reply) == (429, "rate limit exceeded")
    assert 1 <= int(reply.headers["Retry-After"]) <= 10


def test_health_counts_jobs_and_workers(own_endpoint: EndpointProcess) -> None:
    busy, idle = own_endpoint.worker("busy"), own_endpoint.worker("idle")
    done, failed, running, _queued = (own_endpoint.run({"n": n}) for n in range(4))
    busy.take()
    busy.done(done, {"output": 1})
    busy.take()
    busy.done(failed, {"error": "no"})
    busy.take()
    idle.ping()
    assert own_endpoint.status(running)["workerId"] == "busy"
    assert own_endpoint.http.get("/v2/local/health").json() == {
        "jobs": {"completed": 1, "failed": 1, "inProgress": 1, "inQueue": 1, "retried": 0},
        "workers": {
            "idle": 1,
            "initializing": 0,
            "ready": 1,
            "running": 1,
            "throttled": 0,
            "unhealthy": 0,
        },
    }


def test_a_stream_hands_its_chunks_out_once(own_endpoint: EndpointProcess) -> None:
    worker = own_endpoint.worker("w")
    job_id = own_endpoint.run({})
    worker.take()
    for number in range(2):
        reply = worker.http.post(f"job-stream/w/{job_id}?isStream=true", json={"output": number})
        assert reply.status_code == 200
    stream = f"/v2/local/stream/{job_id}"
    assert own_endpoint.http.get(stream).json() == {
        "status": "IN_PROGRESS",
        "stream": [{"output": 0}, {"output": 1}],
    }
    assert own_endpoint.http.get(stream).json() == {"status": "IN_PROGRESS", "stream": []}
