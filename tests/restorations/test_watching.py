"""Who is asked about next: watched jobs at once, all others in turn, never more than the endpoint allows."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from django.core.cache import cache
from django.utils import timezone

from restorations import dispatch, runpod, watching
from restorations.models import Attempt
from tests.factories import AttemptFactory, RestorationFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _nobody_looks():
    cache.clear()


def overdue(seconds, pause=watching.UNWATCHED, **values):
    at = timezone.now() - timedelta(seconds=seconds)
    return AttemptFactory(next_look_at=at, look_pause=pause, **values)


def planned(attempt):
    watching.plan_next_looks([attempt])
    return attempt.look_pause


def test_pauses_follow_who_looks():
    attempt = AttemptFactory()
    assert planned(attempt) == watching.UNWATCHED
    watching.note_workspace(attempt.restoration.workspace_id)
    assert planned(attempt) == watching.LISTED
    watching.note_restoration(attempt.restoration_id)
    assert planned(attempt) == watching.WATCHED
    assert attempt.next_look_at - timezone.now() < watching.WATCHED


def test_the_first_look_of_a_person_has_the_job_asked_about_at_once():
    attempt, other = AttemptFactory(), AttemptFactory()
    Attempt.objects.update(next_look_at=timezone.now() + timedelta(seconds=15), look_pause=watching.UNWATCHED)
    assert watching.due() == []
    watching.note_restoration(attempt.restoration_id)
    assert watching.due() == [attempt]
    watching.note_workspace(other.restoration.workspace_id)
    assert set(watching.due()) == {attempt, other}


def test_a_sweep_is_bounded_and_serves_both_the_watched_and_the_longest_waiting(monkeypatch):
    monkeypatch.setattr(watching, "SWEEP_LIMIT", 4)
    restoration = RestorationFactory()
    unwatched = [overdue(100 - n, restoration=restoration, number=n) for n in range(6)]
    watched = [overdue(9 - n, watching.WATCHED, restoration=restoration, number=10 + n) for n in range(3)]
    assert watching.due() == [*watched[:2], *unwatched[:2]]


def test_final_attempts_are_not_asked_about():
    overdue(5, status=Attempt.Status.SUCCEEDED)
    assert watching.due() == []


@pytest.mark.services
def test_after_too_many_requests_nobody_asks_until_the_pause_is_over(settings, tmp_path):
    from tests.gpu_worker.processes import KEY, EndpointProcess

    server = EndpointProcess(tmp_path, "--poll-seconds", "1")
    try:
        settings.RUNPOD_BASE_URL = f"http://127.0.0.1:{server.port}/v2"
        settings.RUNPOD_ENDPOINT_ID, settings.RUNPOD_API_KEY = "local", KEY
        server.fault("http_status", on="status", http_status=429, times=1)
        attempts = [overdue(5, restoration=RestorationFactory()) for _ in range(40)]
        assert dispatch.watch() == 40
        # The first answer stopped the sweep: what was not under way was not sent.
        unseen = Attempt.objects.filter(pk__in=[a.pk for a in attempts], last_seen_at=None).count()
        assert unseen >= 1
        Attempt.objects.update(next_look_at=timezone.now())
        assert dispatch.watch() == 0
        cache.clear()
        assert dispatch.watch() == 40
    finally:
        server.close()


class OddEndpoint(BaseHTTPRequestHandler):
    """Says of one job what no column holds."""

    def do_GET(self):
        said = {"status": "IN_PROGRESS", "workerId": "machine", "delayTime": 10, "executionTime": 20}
        if self.path.endswith("/odd"):
            said |= {"workerId": "\0" + 500 * "m", "delayTime": "soon", "executionTime": 1e300, "error": "\0"}
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        pass


def test_one_jobs_odd_answer_does_not_keep_the_sweep_from_the_others(settings):
    for name in ("odd", "even"):
        overdue(5, restoration=RestorationFactory(status="submitted"), runpod_id=name)
    with ThreadingHTTPServer(("127.0.0.1", 0), OddEndpoint) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        settings.RUNPOD_BASE_URL = f"http://127.0.0.1:{server.server_address[1]}/v2"
        settings.RUNPOD_API_KEY = "key"
        assert dispatch.watch() == 2
        server.shutdown()
    odd, even = (
        Attempt.objects.select_related("restoration").get(runpod_id=name) for name in ("odd", "even")
    )
    assert (even.restoration.status, even.delay_ms, even.execution_ms) == ("running", 10, 20)
    assert (odd.restoration.status, odd.delay_ms, odd.execution_ms) == ("running", None, None)


def test_answers_keep_only_what_could_be_read():
    assert runpod.statuses([]).statuses == {}
