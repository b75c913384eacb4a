"""The way to the endpoint and back, against the real local endpoint, with its faults switched on."""

import io
import json
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from django.utils import timezone

from billing import ledger
from gpu_worker.contract import RestoreRequest
from restorations import dispatch, lifecycle, objects, repair, runpod
from restorations.doorbells import Doorbell
from restorations.models import Attempt, Restoration
from tests.factories import RestorationFactory
from tests.gpu_worker.processes import KEY, EndpointProcess
from tests.restorations.test_lifecycle import deliver, running

pytestmark = [pytest.mark.django_db, pytest.mark.services]
Status = Restoration.Status


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    endpoint = EndpointProcess(tmp_path_factory.mktemp("endpoint"), "--poll-seconds", "1")
    yield endpoint
    endpoint.close()


@pytest.fixture
def endpoint(server, settings):
    settings.RUNPOD_BASE_URL = f"http://127.0.0.1:{server.port}/v2"
    settings.RUNPOD_ENDPOINT_ID = "local"
    settings.RUNPOD_API_KEY = KEY
    yield server
    server.clear_faults()
    for job in server.http.get("/admin/jobs").json():
        if job["status"] in ("IN_QUEUE", "IN_PROGRESS"):
            server.http.post(f"/v2/local/cancel/{job['id']}")


@pytest.fixture
def restoration(endpoint):
    restoration = RestorationFactory()
    objects.save(restoration.video.storage_key, io.BytesIO(b"x" * 1000))
    return restoration


@pytest.fixture
def worker(endpoint, request):
    return endpoint.worker(request.node.name[:60])


def attempt_of(restoration):
    return restoration.attempts.order_by("-number")[0]


def now(restoration):
    restoration.refresh_from_db()
    return restoration.status


def sweep():
    """Asks for every job in flight, also for those whose turn has not come."""
    Attempt.objects.update(next_look_at=timezone.now())
    return dispatch.watch()


def test_a_job_goes_from_the_queue_to_its_result(restoration, worker):
    dispatch.dispatch(restoration.pk)
    assert now(restoration) == Status.SUBMITTED
    sweep()
    assert now(restoration) == Status.SUBMITTED

    job = worker.take()
    attempt = attempt_of(restoration)
    assert job["id"] == attempt.runpod_id
    worker.done(
        job["id"], {"status": "IN_PROGRESS", "output": running(attempt, frames=40, sequence=1).output}
    )
    sweep()
    assert now(restoration) == Status.RUNNING
    assert restoration.num_frames_done == 40

    deliver(attempt)
    worker.done(job["id"], {"output": {"only": "a hint"}})
    sweep()
    attempt.refresh_from_db()
    assert now(restoration) == Status.SUCCEEDED
    assert (attempt.worker_id, attempt.runpod_status) == (worker.id, "COMPLETED")
    assert attempt.execution_ms is not None


def test_what_is_asked_for_is_what_was_ordered(restoration, worker):
    dispatch.dispatch(restoration.pk)
    job = worker.take()
    request = RestoreRequest.from_json(job["input"])
    assert (request.res_w, request.res_h, request.sp_size, request.seed) == (960, 720, 1, 42)
    assert request.source_bytes == restoration.video.size_bytes
    assert attempt_of(restoration).webhook_token in job["webhook"]


def test_workers_get_signed_addresses_and_no_key(restoration, worker, settings):
    settings.SECRET_KEY = "a-secret-that-must-not-travel"
    dispatch.dispatch(restoration.pk)
    travelled = json.dumps(worker.take())
    for secret in (settings.SECRET_KEY, KEY, str(settings.DATABASES["default"]["NAME"])):
        assert secret not in travelled
    for address in ("source_url", "result_url", "manifest_url"):
        assert f'"{address}": "{settings.SITE_URL}/objects/' in travelled


@pytest.mark.parametrize("status", [429, 500, 502, 503, 401])
def test_a_job_that_is_not_taken_is_sent_again_as_the_same_attempt(restoration, endpoint, status):
    endpoint.fault("http_status", on="run", http_status=status, times=1, retry_after=7)
    dispatch.dispatch(restoration.pk)
    attempt = attempt_of(restoration)
    assert (now(restoration), attempt.status) == (Status.QUEUED, Attempt.Status.REFUSED)
    wait = attempt.next_try_at - timezone.now()
    assert timedelta(seconds=5) < wait <= timedelta(seconds=7 if status == 429 else 10)

    Attempt.objects.update(next_try_at=timezone.now())
    dispatch.dispatch(restoration.pk)
    assert now(restoration) == Status.SUBMITTED
    assert restoration.attempts.count() == 1


def test_a_job_that_is_taken_late_has_all_its_time(restoration, endpoint):
    endpoint.fault("http_status", on="run", http_status=429, times=1, retry_after=7)
    dispatch.dispatch(restoration.pk)
    an_hour = timedelta(hours=1)
    for attempt in Attempt.objects.all():
        attempt.created_at, attempt.deadline_at = attempt.created_at - an_hour, attempt.deadline_at - an_hour
        attempt.next_try_at = timezone.now()
        attempt.save()
    dispatch.dispatch(restoration.pk)
    at_the_endpoint = timedelta(seconds=lifecycle.ttl_seconds(restoration))
    assert attempt_of(restoration).deadline_at > timezone.now() + at_the_endpoint


def test_a_job_refused_for_good_fails_and_is_refunded(restoration, endpoint):
    endpoint.fault("http_status", on="run", http_status=400, times=1)
    dispatch.dispatch(restoration.pk)
    assert (now(restoration), restoration.error_code) == (Status.FAILED, "invalid_request")
    assert ledger.balance(restoration.workspace) == 7


def test_an_endpoint_that_is_away_costs_time_only(restoration, settings):
    settings.RUNPOD_BASE_URL = "http://127.0.0.1:9/v2"
    dispatch.dispatch(restoration.pk)
    assert (now(restoration), attempt_of(restoration).status) == (Status.QUEUED, Attempt.Status.REFUSED)


def test_an_endpoint_that_stays_away_is_called_less_and_less(
    restoration, settings, django_capture_on_commit_callbacks
):
    settings.RUNPOD_BASE_URL = "http://127.0.0.1:9/v2"
    Restoration.objects.update(status_at=timezone.now() - timedelta(minutes=16))
    dispatch.dispatch(restoration.pk)
    wait = attempt_of(restoration).next_try_at - timezone.now()
    assert timedelta(seconds=110) < wait <= timedelta(minutes=2, seconds=10)
    with django_capture_on_commit_callbacks() as rings:
        repair.repair()
    assert rings == []
    Attempt.objects.update(next_try_at=timezone.now())
    with django_capture_on_commit_callbacks() as rings:
        repair.repair()
    assert [ring.args[0] for ring in rings] == [Doorbell.DISPATCH]


def test_a_lost_answer_may_run_twice_and_is_delivered_once(restoration, endpoint, worker):
    endpoint.fault("reply_lost", on="run", times=1)
    dispatch.dispatch(restoration.pk)
    first = attempt_of(restoration)
    assert first.status == Attempt.Status.UNKNOWN
    dispatch.dispatch(restoration.pk)
    second = attempt_of(restoration)
    assert (second.number, second.status) == (2, Attempt.Status.IN_FLIGHT)

    for attempt in (first, second):  # both jobs exist at the endpoint, and both bring a result
        job = worker.take()
        assert job["input"]["attempt_id"] == attempt.contract_id
        deliver(attempt)
        worker.done(job["id"], {"output": {}})
    sweep()
    repair.repair()
    assert now(restoration) == Status.SUCCEEDED
    assert [event.kind for event in restoration.events.all()].count("succeeded") == 1
    assert ledger.balance(restoration.workspace) == 0


def test_the_webhook_of_a_job_whose_answer_was_lost_tells_its_id(restoration, endpoint, worker, client):
    endpoint.fault("reply_lost", on="run", times=1)
    dispatch.dispatch(restoration.pk)
    attempt = attempt_of(restoration)
    job = worker.take()
    body = json.dumps({"id": job["id"], "status": "COMPLETED"})
    answer = client.post(f"/hooks/runpod/{attempt.webhook_token}/", body, content_type="application/json")
    attempt.refresh_from_db()
    assert answer.status_code == 200
    assert (attempt.runpod_id, attempt.status) == (job["id"], Attempt.Status.IN_FLIGHT)


def test_a_job_that_is_not_seen_at_first_is_waited_for(restoration, endpoint):
    endpoint.fault("unseen", seconds=60, times=1)
    dispatch.dispatch(restoration.pk)
    sweep()
    assert now(restoration) == Status.SUBMITTED


def test_completed_without_output_is_settled_by_storage(restoration, endpoint, worker):
    endpoint.fault("output_lost", times=1)
    dispatch.dispatch(restoration.pk)
    job = worker.take()
    deliver(attempt_of(restoration))
    worker.done(job["id"], {"output": {"any": 1}})
    sweep()
    assert now(restoration) == Status.SUCCEEDED


def test_an_expired_result_is_settled_by_storage(restoration, endpoint, worker):
    dispatch.dispatch(restoration.pk)
    job = worker.take()
    deliver(attempt_of(restoration))
    worker.done(job["id"], {"output": {}})
    endpoint.advance(31 * 60)
    assert runpod.statuses([job["id"]]).statuses[job["id"]].state == runpod.JobState.GONE
    sweep()
    assert now(restoration) == Status.SUCCEEDED


def test_an_execution_timeout_is_tried_again(restoration, endpoint, worker):
    dispatch.dispatch(restoration.pk)
    worker.take()
    endpoint.advance(lifecycle.execution_seconds(restoration) + 30)
    sweep()
    assert (now(restoration), attempt_of(restoration).error_code) == (Status.QUEUED, "execution_timeout")


def test_a_job_cancelled_at_the_endpoint_by_somebody_else_is_tried_again(restoration, endpoint, worker):
    dispatch.dispatch(restoration.pk)
    runpod.cancel(attempt_of(restoration).runpod_id)
    sweep()
    assert now(restoration) == Status.QUEUED


def test_cancel_stops_the_job_at_the_endpoint(restoration, endpoint, worker, alice, settings):
    dispatch.dispatch(restoration.pk)
    job = worker.take()
    lifecycle.cancel(restoration, actor=alice)
    attempt = attempt_of(restoration)
    endpoint.fault("http_status", on="cancel", http_status=429, times=1)
    with pytest.raises(runpod.NotTaken):
        dispatch.cancel(attempt.pk)
    settings.RUNPOD_API_KEY = "an old one"
    with pytest.raises(runpod.NotTaken):
        dispatch.cancel(attempt.pk)
    settings.RUNPOD_API_KEY = KEY
    dispatch.cancel(attempt.pk)
    attempt.refresh_from_db()
    assert attempt.cancel_wanted is False
    assert endpoint.status(job["id"])["status"] == "CANCELLED"
    assert worker.stops() == [job["id"]]


def test_one_job_without_an_answer_does_not_keep_the_others(endpoint, worker):
    restorations = [RestorationFactory(), RestorationFactory()]
    for number, restoration in enumerate(restorations):
        dispatch.dispatch(restoration.pk)
        worker.take(has_job=number > 0)
    endpoint.fault("http_status", on="status", http_status=500, times=1)
    assert sweep() == 2
    assert sorted(now(restoration) for restoration in restorations) == [Status.RUNNING, Status.SUBMITTED]


def test_a_webhook_with_a_wrong_token_is_not_found(client):
    assert client.post("/hooks/runpod/guessed/", "{}", content_type="application/json").status_code == 404


def test_a_forged_webhook_changes_nothing(restoration, client, endpoint):
    dispatch.dispatch(restoration.pk)
    token = attempt_of(restoration).webhook_token
    for body in ('{"id": "forged", "status": "COMPLETED"}', "not json", ""):
        assert (
            client.post(f"/hooks/runpod/{token}/", body, content_type="application/json").status_code == 200
        )
    assert now(restoration) == Status.SUBMITTED
    assert attempt_of(restoration).runpod_id != "forged"


def test_the_endpoint_posts_its_webhook(restoration, endpoint, worker, settings):
    """The address that we give away is really called, with the job's id."""
    called = threading.Event()
    bodies = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append((self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))
            self.send_response(200)
            self.end_headers()
            called.set()

        def log_message(self, *_args):
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Listener) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        settings.SITE_URL = f"http://127.0.0.1:{listener.server_port}"
        dispatch.dispatch(restoration.pk)
        job = worker.take()
        worker.done(job["id"], {"output": {}})
        assert called.wait(10)
        listener.shutdown()
    path, body = bodies[0]
    assert path == f"/hooks/runpod/{attempt_of(restoration).webhook_token}/"
    assert (body["id"], body["status"]) == (job["id"], "COMPLETED")
