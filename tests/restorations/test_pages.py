"""Pages: the same number of queries however many rows, every state shown, honest about the engine."""

import io
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from billing import ledger
from gpu_worker.contract import ErrorCode
from restorations import lifecycle, objects
from restorations.failures import explain
from restorations.forecast import time_left
from restorations.models import Restoration
from tests.factories import RestorationFactory, VideoFactory

pytestmark = pytest.mark.django_db


def queries(client, path):
    with CaptureQueriesContext(
        connection,
    ) as captured:
        assert client.get(path).status_code == 200
    return len(captured)


@pytest.mark.parametrize("name", ["workspace-home", "restoration-list", "credit-statement"])
def test_lists_cost_the_same_number_of_queries_however_long(alice_client, workspace, name):
    path = reverse(name, args=[workspace.slug])
    RestorationFactory(video__workspace=workspace)
    alice_client.get(path)  # the first look of a person wakes the poller, once
    few = queries(alice_client, path)
    RestorationFactory.create_batch(8, video__workspace=workspace)
    assert queries(alice_client, path) == few
    assert few <= 10


@pytest.mark.parametrize("status", Restoration.Status.values)
def test_every_state_has_a_page(alice_client, workspace, status):
    restoration = RestorationFactory(
        video__workspace=workspace,
        status=status,
        error_code="worker_lost" if status == "failed" else "",
        result_key="x/results/1.mp4" if status == "succeeded" else "",
        engine="cpu" if status == "succeeded" else "",
    )
    page = alice_client.get(restoration.get_absolute_url()).content.decode()
    assert f'data-state="{status}-' in page
    assert "CPU preview engine" in page
    fragment = alice_client.get(restoration.get_absolute_url(), HTTP_HX_REQUEST="true").content.decode()
    assert "<html" not in fragment
    assert ("data-poll" in fragment) == (status in Restoration.ACTIVE)


def test_credits_of_failed_work_are_back_at_once_with_a_line_on_the_job(alice_client, workspace):
    restoration = RestorationFactory(video__workspace=workspace)
    lifecycle.fail(restoration, ErrorCode.WORKER_LOST)
    refund = ledger.refunds_of(workspace=workspace, reference=restoration.reference).get()
    assert refund.credits == 7
    assert abs(refund.created_at - restoration.status_at) < timedelta(seconds=60)
    page = alice_client.get(restoration.get_absolute_url()).content.decode()
    history = page[page.index('class="timeline"') :]
    assert "7 credits given back" in history


def test_one_address_with_two_bodies_says_so_to_caches(alice_client, workspace):
    answer = alice_client.get(RestorationFactory(video__workspace=workspace).get_absolute_url())
    assert "HX-Request" in answer.headers["Vary"]


@pytest.mark.parametrize("code", ErrorCode)
def test_every_error_code_has_a_sentence_and_a_next_step(code):
    failure = explain(Restoration(status="failed", error_code=code.value))
    assert str(failure.sentence).endswith(".")
    assert str(failure.next_step).endswith(".")


def test_downloads_have_a_good_name(alice_client, workspace):
    restoration = RestorationFactory(
        video__workspace=workspace,
        video__file_name="Summer holiday (1987)/take 2.avi",
        status="succeeded",
        result_key="x/results/1.mp4",
    )
    address = reverse("restoration-download", args=[workspace.slug, restoration.pk])
    missing = alice_client.get(address)
    assert (missing.status_code, "This file is missing" in missing.content.decode()) == (410, True)
    objects.save(restoration.result_key, io.BytesIO(b"film"))
    answer = alice_client.get(address)
    assert answer.status_code == 302
    assert answer.headers["location"].startswith("/objects/")
    assert restoration.download_name == "take_2_720p_seed42.mp4"


def test_a_cancel_that_came_too_late_leaves_no_message_to_the_next_page(alice_client, workspace):
    restoration = RestorationFactory(video__workspace=workspace, status="cancelled")
    cancel = reverse("restoration-cancel", args=[workspace.slug, restoration.pk])
    fragment = alice_client.post(cancel, headers={"HX-Request": "true"}).content.decode()
    assert 'data-state="cancelled-' in fragment
    home = workspace.get_absolute_url()
    assert "It had ended already." not in alice_client.get(home).content.decode()
    assert "It had ended already." in alice_client.post(cancel, follow=True).content.decode()


def test_a_videos_page_follows_its_restorations_while_one_runs(alice_client, workspace):
    restoration = RestorationFactory(video__workspace=workspace, status="running")
    address = restoration.video.get_absolute_url()
    assert f'data-poll="{address}?runs"' in alice_client.get(address).content.decode()
    Restoration.objects.update(status="cancelled")
    runs = alice_client.get(f"{address}?runs", headers={"HX-Request": "true"}).content.decode()
    assert runs.lstrip().startswith('<section id="runs"')
    assert ('data-state="cancelled-' in runs, "data-poll" in runs) == (True, False)


def test_viewers_see_and_do_not_touch(vera_client, workspace):
    restoration = RestorationFactory(video__workspace=workspace)
    page = vera_client.get(restoration.get_absolute_url()).content.decode()
    assert "Cancel restoration" not in page
    for name in ("restoration-cancel", "restoration-delete"):
        assert vera_client.post(reverse(name, args=[workspace.slug, restoration.pk])).status_code == 403


@pytest.fixture
def operators_client(signed_in, operator):
    return signed_in(operator)


def test_operators_find_a_job_by_its_runpod_id(operators_client):
    from tests.factories import AttemptFactory

    attempt = AttemptFactory(runpod_id="abc-123-u1")
    found = operators_client.get(reverse("admin:restorations_restoration_changelist"), {"q": "abc-123-u1"})
    assert str(attempt.restoration.pk) in found.content.decode()
    page = reverse("admin:restorations_restoration_change", args=[attempt.restoration.pk])
    assert "abc-123-u1" in operators_client.get(page).content.decode()


@pytest.mark.parametrize("model", ["restorations_restoration", "restorations_video", "billing_purchase"])
def test_the_admin_reads_what_only_transitions_write(operators_client, model):
    RestorationFactory()
    assert operators_client.get(reverse(f"admin:{model}_changelist")).status_code == 200
    assert operators_client.get(reverse(f"admin:{model}_add")).status_code == 403


# --- Time left ----------------------------------------------------------------------------------------------


def test_time_left_follows_the_measured_pace(workspace):
    now = timezone.now()
    halfway = Restoration(
        status="running",
        stage="restoring",
        started_at=now - timedelta(seconds=100),
        num_frames=100,
        num_frames_done=50,
    )
    low, high = time_left(halfway, now=now)
    assert low <= 100 <= high


def test_before_the_first_frame_the_quote_has_to_do():
    low, high = time_left(Restoration(status="queued", expected_seconds=60))
    assert low < 60 < high


def test_what_has_ended_has_no_time_left():
    assert time_left(Restoration(status="succeeded")) is None


def test_a_video_page_shows_the_exact_output_size(alice_client, workspace):
    video = VideoFactory(workspace=workspace, width=480, height=854)
    page = alice_client.get(video.get_absolute_url()).content.decode()
    for size in ("720 × 1280", "1080 × 1920", "1438 × 2560"):
        assert size in page
