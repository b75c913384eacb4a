"""Transitions: compare-and-set, money moved once, storage is the truth."""

import hashlib
import io
import json
from datetime import timedelta

import pytest
from django.utils import timezone

from billing import ledger
from billing.models import CreditEntry
from billing.price_tables import gpu_microdollars_a_second
from gpu_worker.contract import Engine, ErrorCode, Manifest, Output, Progress, Stage
from restorations import dispatch, lifecycle, objects, repair, results, tasks
from restorations.doorbells import Doorbell
from restorations.models import Attempt, Restoration
from restorations.runpod import JobState, JobStatus
from tests.factories import AttemptFactory, RestorationFactory

pytestmark = pytest.mark.django_db
Status = Restoration.Status


def deliver(attempt: Attempt, *, result: bytes = b"a video", **changes: object) -> None:
    """Puts into storage what a worker uploads when it has finished."""
    values = {
        "attempt_id": attempt.contract_id,
        "engine": Engine.CPU,
        "result_bytes": len(result),
        "result_sha256": hashlib.sha256(result).hexdigest(),
        "width": 960,
        "height": 720,
        "num_frames": 100,
        "frame_rate": "25/1",
        "duration_seconds": 4.0,
        "num_audio_tracks": 1,
        "seed": 42,
        "model": "",
        "output": Output.H264,
        "media_type": "video/mp4",
        "bit_depth": 8,
        "seconds": {"download": 0.1, "restore": 2.0},
    }
    manifest = Manifest(**(values | changes))
    objects.save(attempt.result_key, io.BytesIO(result))
    objects.save(attempt.manifest_key, io.BytesIO(json.dumps(manifest.to_json()).encode()))


def running(attempt: Attempt, *, frames: int, sequence: int, stage: Stage = Stage.RESTORING) -> JobStatus:
    report = Progress(
        attempt_id=attempt.contract_id, sequence=sequence, stage=stage, num_frames_done=frames, num_frames=100
    )
    return JobStatus(state=JobState.IN_PROGRESS, output=report.to_json(), worker_id="w1")


@pytest.fixture
def attempt():
    return AttemptFactory(restoration__status=Status.SUBMITTED)


def test_progress_starts_the_restoration_and_counts_its_frames(attempt):
    dispatch.apply_status(attempt, running(attempt, frames=30, sequence=1))
    restoration = Restoration.objects.get()
    assert (restoration.status, restoration.num_frames_done, restoration.percent) == (Status.RUNNING, 30, 30)
    assert [event.kind for event in restoration.events.all()] == ["started"]


def test_progress_out_of_order_does_not_go_back(attempt):
    for frames, sequence in [(30, 5), (10, 2), (20, 5)]:
        dispatch.apply_status(attempt, running(attempt, frames=frames, sequence=sequence))
    assert Restoration.objects.get().num_frames_done == 30


@pytest.mark.parametrize("output", ["text", {"attempt_id": "other"}, [1], {"version": 9}])
def test_progress_that_cannot_be_read_still_says_that_it_runs(attempt, output):
    dispatch.apply_status(attempt, JobStatus(state=JobState.IN_PROGRESS, output=output, worker_id="w1"))
    restoration = Restoration.objects.get()
    assert (restoration.status, restoration.num_frames_done) == (Status.RUNNING, 0)


@pytest.mark.parametrize("state", [JobState.COMPLETED, JobState.FAILED, JobState.TIMED_OUT, JobState.GONE])
def test_a_manifest_settles_the_job_whatever_the_endpoint_says(attempt, state):
    deliver(attempt)
    dispatch.apply_status(attempt, JobStatus(state=state, error="lost"))
    restoration = Restoration.objects.get()
    assert restoration.status == Status.SUCCEEDED
    assert restoration.result_key == attempt.result_key
    assert restoration.engine == "cpu"
    assert restoration.expires_at is not None
    assert ledger.balance(restoration.workspace) == 0


def test_a_machine_costs_all_of_its_gpus(attempt, settings):
    settings.RESTORATION_ENGINE = "seedvr2"
    attempt.execution_ms = 1000
    attempt.save()
    deliver(attempt, gpus=4)
    dispatch.apply_status(attempt, JobStatus(state=JobState.COMPLETED, execution_ms=1000))
    attempt.refresh_from_db()
    assert (attempt.gpus, attempt.cost_microdollars) == (4, 4 * gpu_microdollars_a_second("H100"))


def test_succeeding_twice_changes_nothing(attempt):
    deliver(attempt)
    for _ in range(2):
        dispatch.apply_status(Attempt.objects.get(), JobStatus(state=JobState.COMPLETED))
    assert Restoration.objects.get().events.count() == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda a: deliver(a, result_bytes=3),
        lambda a: deliver(a, attempt_id="another"),
        lambda a: objects.save(a.manifest_key, io.BytesIO(b"{")),
        lambda a: None,
    ],
)
def test_completed_without_a_fitting_result_is_tried_again(attempt, spoil):
    spoil(attempt)
    dispatch.apply_status(attempt, JobStatus(state=JobState.COMPLETED, output={"anything": 1}))
    attempt.refresh_from_db()
    restoration = Restoration.objects.get()
    assert (attempt.status, attempt.error_code) == (Attempt.Status.FAILED, ErrorCode.RESULT_MISSING)
    assert (restoration.status, restoration.num_frames_done) == (Status.QUEUED, 0)


def test_a_fault_of_the_input_is_final_and_refunded_at_once(attempt):
    dispatch.apply_status(attempt, JobStatus(state=JobState.FAILED, error="source_unreadable: no moov atom"))
    restoration = Restoration.objects.get()
    assert (restoration.status, restoration.error_code) == (Status.FAILED, "source_unreadable")
    assert restoration.refunded_credits == 7
    assert ledger.balance(restoration.workspace) == 7


def test_a_machines_fault_is_tried_again_until_the_attempts_are_used_up(attempt, settings):
    restoration = attempt.restoration
    for number in range(1, settings.MAX_ATTEMPTS + 1):
        current = restoration.attempts.get(number=number)
        dispatch.apply_status(current, JobStatus(state=JobState.FAILED, error="worker_lost: gone"))
        if number < settings.MAX_ATTEMPTS:
            following = lifecycle.open_attempt(restoration.pk)
            lifecycle.attempt_accepted(following, f"job{number}")
    restoration.refresh_from_db()
    assert (restoration.status, restoration.error_code) == (Status.FAILED, "worker_lost")
    assert ledger.balance(restoration.workspace) == 7
    assert [e.kind for e in restoration.events.all()] == [
        "retried",
        "submitted",
        "retried",
        "submitted",
        "failed",
    ]


def test_a_job_that_the_endpoint_does_not_know_yet_is_left_alone(attempt):
    dispatch.apply_status(attempt, JobStatus(state=JobState.GONE))
    attempt.refresh_from_db()
    assert attempt.status == Attempt.Status.IN_FLIGHT


def test_a_job_that_the_endpoint_forgot_is_tried_again(attempt):
    attempt.submitted_at = timezone.now() - timedelta(minutes=10)
    attempt.save()
    dispatch.apply_status(attempt, JobStatus(state=JobState.GONE))
    assert Restoration.objects.get().status == Status.QUEUED


def test_two_dispatchers_get_one_attempt():
    restoration = RestorationFactory()
    assert lifecycle.open_attempt(restoration.pk) is not None
    assert lifecycle.open_attempt(restoration.pk) is None


def test_an_attempt_not_taken_is_sent_again_as_itself():
    restoration = RestorationFactory()
    first = lifecycle.open_attempt(restoration.pk)
    lifecycle.attempt_not_taken(first, seconds=30)
    assert lifecycle.open_attempt(restoration.pk) is None
    Attempt.objects.update(next_try_at=timezone.now())
    assert lifecycle.open_attempt(restoration.pk) == first


def test_a_lost_answer_is_sent_again_and_the_first_result_wins():
    restoration = RestorationFactory()
    first = lifecycle.open_attempt(restoration.pk)
    lifecycle.attempt_answer_lost(first)
    second = lifecycle.open_attempt(restoration.pk)
    lifecycle.attempt_accepted(second, "job2")
    deliver(first)
    repair.repair()
    restoration.refresh_from_db()
    second.refresh_from_db()
    assert (restoration.status, restoration.result_key) == (Status.SUCCEEDED, first.result_key)
    assert (second.status, second.cancel_wanted) == (Attempt.Status.CANCELLED, True)
    deliver(second)
    dispatch.apply_status(second, JobStatus(state=JobState.COMPLETED))
    assert CreditEntry.objects.for_workspace(restoration.workspace).count() == 2  # the gift and the charge


def test_lost_answers_do_not_send_more_than_all_tries(settings):
    restoration = RestorationFactory()
    for _ in range(settings.MAX_ATTEMPTS):
        lifecycle.attempt_answer_lost(lifecycle.open_attempt(restoration.pk))
    assert lifecycle.open_attempt(restoration.pk) is None
    restoration.refresh_from_db()
    assert restoration.status == Status.QUEUED
    deliver(restoration.attempts.get(number=1))
    repair.repair()
    restoration.refresh_from_db()
    assert restoration.status == Status.SUCCEEDED


def test_cancel_before_the_start_gives_everything_back(alice):
    restoration = RestorationFactory()
    assert lifecycle.cancel(restoration, actor=alice)
    assert ledger.balance(restoration.workspace) == 7


def test_cancel_while_running_gives_back_the_share_not_done(attempt, alice):
    dispatch.apply_status(attempt, running(attempt, frames=50, sequence=1))
    restoration = Restoration.objects.get()
    assert lifecycle.cancel_refund(restoration) == 4
    assert lifecycle.cancel(restoration, actor=alice)
    attempt.refresh_from_db()
    assert ledger.balance(restoration.workspace) == 4
    assert (attempt.status, attempt.cancel_wanted) == (Attempt.Status.CANCELLED, True)


def test_a_result_that_comes_after_the_cancel_changes_nothing(attempt, alice):
    lifecycle.cancel(attempt.restoration, actor=alice)
    deliver(attempt)
    dispatch.apply_status(attempt, JobStatus(state=JobState.COMPLETED))
    restoration = Restoration.objects.get()
    assert restoration.status == Status.CANCELLED
    assert ledger.balance(restoration.workspace) == 7


def test_cancel_after_the_end_changes_nothing(attempt, alice):
    deliver(attempt)
    dispatch.apply_status(attempt, JobStatus(state=JobState.COMPLETED))
    assert not lifecycle.cancel(Restoration.objects.get(), actor=alice)
    assert Restoration.objects.get().status == Status.SUCCEEDED


def test_a_cancel_while_the_job_is_being_sent_stops_it_at_the_endpoint(alice):
    restoration = RestorationFactory()
    sending = lifecycle.open_attempt(restoration.pk)
    lifecycle.cancel(restoration, actor=alice)
    lifecycle.attempt_accepted(sending, "job1")
    sending.refresh_from_db()
    assert (sending.runpod_id, sending.cancel_wanted) == ("job1", True)
    assert Restoration.objects.get().status == Status.CANCELLED


# --- Limits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [Status.QUEUED, Status.SUBMITTED])
def test_nothing_waits_for_a_machine_for_ever(status, settings):
    late = timezone.now() - timedelta(seconds=settings.QUEUE_LIMIT_SECONDS + 1)
    restoration = RestorationFactory(status=status, status_at=late)
    repair.repair()
    restoration.refresh_from_db()
    assert (restoration.status, restoration.error_code) == (Status.FAILED, "endpoint_unavailable")
    assert ledger.balance(restoration.workspace) == 7


def test_what_is_there_is_delivered_also_where_the_endpoint_was_silent_all_the_time(attempt, settings):
    late = timezone.now() - timedelta(seconds=settings.QUEUE_LIMIT_SECONDS + 1)
    Restoration.objects.update(status_at=late)
    deliver(attempt)
    repair.repair()
    assert Restoration.objects.get().status == Status.SUCCEEDED


def test_what_a_machine_takes_at_the_last_moment_goes_on(attempt, settings, monkeypatch):
    late = timezone.now() - timedelta(seconds=settings.QUEUE_LIMIT_SECONDS + 1)
    Restoration.objects.update(status_at=late)
    exists = objects.exists

    def taken_meanwhile(key):
        lifecycle.attempt_running(attempt, worker_id="w1", progress=None)
        return exists(key)

    monkeypatch.setattr(objects, "exists", taken_meanwhile)
    repair.repair()
    assert Restoration.objects.get().status == Status.RUNNING


def test_nothing_runs_for_ever(settings):
    settings.MAX_ATTEMPTS = 1
    attempt = AttemptFactory(
        restoration__status=Status.RUNNING, deadline_at=timezone.now() - timedelta(seconds=1)
    )
    repair.repair()
    attempt.restoration.refresh_from_db()
    assert (attempt.restoration.status, attempt.restoration.error_code) == (Status.FAILED, "expired")


def test_a_check_of_the_largest_result_that_is_hashed_ends_also_on_a_slow_storage():
    bytes_a_second = 15 * 2**20
    assert results.HASHED_BYTES / bytes_a_second < tasks.check_result.time_limit


def test_an_attempt_whose_sender_died_is_sent_again():
    restoration = RestorationFactory()
    lifecycle.open_attempt(restoration.pk)
    Attempt.objects.update(created_at=timezone.now() - timedelta(minutes=5))
    repair.repair()
    assert Attempt.objects.get().status == Attempt.Status.UNKNOWN
    assert lifecycle.open_attempt(restoration.pk).number == 2


def test_a_job_that_cannot_be_cancelled_is_rung_for_once_a_minute(
    attempt, alice, django_capture_on_commit_callbacks
):
    lifecycle.cancel(attempt.restoration, actor=alice)
    with django_capture_on_commit_callbacks() as callbacks:
        for _ in range(4):
            repair.repair()
    assert [ring.args[0] for ring in callbacks] == [Doorbell.CANCEL_ATTEMPT]


@pytest.mark.parametrize("status", Status.values)
def test_every_active_status_has_a_way_to_each_end(status):
    ends = {Status.FAILED, Status.CANCELLED, Status.SUCCEEDED}
    assert (ends <= set(Restoration.ALLOWED[status])) == (status in Restoration.ACTIVE)
