"""Everything that can go wrong between an order and its result; each ends with a result or with all credits back.

One order goes through each scenario, with the real local endpoint, on both databases. Afterwards: a final state, right
money, nothing left at the endpoint, and a reason that a person understands.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from gpu_worker.contract import ErrorCode, Stage
from restorations import dispatch, lifecycle, objects, repair, results, runpod
from restorations.failures import explain
from restorations.models import Attempt, Restoration
from seedvr_site.object_storage import s3_backend
from tests.factories import RestorationFactory, UserFactory
from tests.faults.world import Misdeed, World, check
from tests.gpu_worker.processes import KEY, EndpointProcess, until
from tests.restorations.test_lifecycle import deliver, running

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.services, pytest.mark.both_databases]
Status = Restoration.Status


@pytest.fixture
def restoration(world: World) -> Restoration:
    restoration = RestorationFactory(created_by=UserFactory())
    objects.save(restoration.video.storage_key, io.BytesIO(b"x" * 1000))
    return restoration


def look() -> None:
    Attempt.objects.update(next_look_at=timezone.now())
    dispatch.watch()


# --- What machines do ---------------------------------------------------------------------------------------


def fails_with(error: str) -> Misdeed:
    return lambda world, job_id, attempt: world.machine.done(job_id, {"error": error})


def hands_over_nothing(world: World, job_id: str, attempt: Attempt) -> None:
    world.machine.done(job_id, {"output": {"all": "well"}})


def hands_over(*, result: bytes = b"a video", stored: bytes | None = None, **manifest: object) -> Misdeed:
    def misdeed(world: World, job_id: str, attempt: Attempt) -> None:
        deliver(attempt, result=result, **manifest)
        if stored is not None:
            objects.save(attempt.result_key, io.BytesIO(stored))
        world.machine.done(job_id, {"output": {}})

    return misdeed


def reports_after_the_end(world: World, job_id: str, attempt: Attempt) -> None:
    look()
    report = running(attempt, frames=100, sequence=9, stage=Stage.UPLOADING).output
    world.machine.done(job_id, {"status": "IN_PROGRESS", "output": report})
    look()
    world.restore(job_id, attempt)
    world.machine.done(job_id, {"status": "IN_PROGRESS", "output": report})


def has_its_result_thrown_away(world: World, job_id: str, attempt: Attempt) -> None:
    report = running(attempt, frames=100, sequence=9, stage=Stage.UPLOADING).output
    world.machine.done(job_id, {"status": "IN_PROGRESS", "output": report})
    look()
    world.endpoint.fault("result_stuck", times=1)
    world.restore(job_id, attempt)


def takes_too_long(world: World, job_id: str, attempt: Attempt) -> None:
    world.endpoint.advance(lifecycle.execution_seconds(attempt.restoration) + 30)


def is_forgotten(world: World, job_id: str, attempt: Attempt) -> None:
    world.endpoint.advance(lifecycle.ttl_seconds(attempt.restoration) + 3600)
    Attempt.objects.update(submitted_at=timezone.now() - timedelta(minutes=10))


def is_cancelled_by_somebody(world: World, job_id: str, attempt: Attempt) -> None:
    runpod.cancel(job_id)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Faults at the endpoint's door, what machines do, and how the order ends."""

    faults: list[dict[str, Any]] = field(default_factory=list)
    misdeeds: list[Misdeed] = field(default_factory=list)
    ends: Status = Status.SUCCEEDED
    error: str = ""


def fault(kind: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "times": 1, **more}


SCENARIOS = {
    "/run is cut before it is heard": Scenario(faults=[fault("cut", on="run")]),
    "the answer of /run is lost": Scenario(faults=[fault("reply_lost", on="run")]),
    "all answers of /run are lost": Scenario(faults=[fault("reply_lost", on="run", times=3)]),
    "/run is too often asked": Scenario(
        faults=[fault("http_status", on="run", http_status=429, retry_after=2, times=3)]
    ),
    "/run is broken": Scenario(faults=[fault("http_status", on="run", http_status=503, times=3)]),
    "/status is broken": Scenario(faults=[fault("http_status", on="status", http_status=500, times=2)]),
    "/status is too often asked": Scenario(
        faults=[fault("http_status", on="status", http_status=429, retry_after=1, times=1)]
    ),
    "/status is cut": Scenario(faults=[fault("cut", on="status", times=2)]),
    "the job is not seen at first": Scenario(faults=[fault("unseen", seconds=1)]),
    "the output is lost": Scenario(faults=[fault("output_lost")]),
    "the result is thrown away": Scenario(misdeeds=[has_its_result_thrown_away]),
    "progress comes after the end": Scenario(
        faults=[fault("progress_reopens")], misdeeds=[reports_after_the_end]
    ),
    "the machine is lost": Scenario(misdeeds=[fails_with("worker_lost: gone")]),
    "the machine is lost twice": Scenario(misdeeds=[fails_with("worker_lost: gone")] * 2),
    "RunPod gives up on its machines": Scenario(misdeeds=[fails_with("job timed out after 2 retries")]),
    "the machine is lost each time": Scenario(
        misdeeds=[fails_with("worker_lost: gone")] * 3, ends=Status.FAILED, error="worker_lost"
    ),
    "memory runs out once": Scenario(misdeeds=[fails_with("out_of_memory: 81 GiB")]),
    "memory runs out each time": Scenario(
        misdeeds=[fails_with("out_of_memory: 81 GiB")] * 3, ends=Status.FAILED, error="out_of_memory"
    ),
    "the machine's disk is full": Scenario(misdeeds=[fails_with("out_of_disk: 0 bytes left")]),
    "the machine cannot reach storage": Scenario(misdeeds=[fails_with("source_unreachable: 503")]),
    "the machine cannot hand over": Scenario(misdeeds=[fails_with("upload_failed: 503")]),
    "the engine raises something": Scenario(misdeeds=[fails_with("ZeroDivisionError: division by zero")]),
    "the machine takes too long": Scenario(misdeeds=[takes_too_long]),
    "each machine takes too long": Scenario(
        misdeeds=[takes_too_long] * 3, ends=Status.FAILED, error="execution_timeout"
    ),
    "the endpoint forgets the job": Scenario(misdeeds=[is_forgotten]),
    "somebody cancels the job at RunPod": Scenario(misdeeds=[is_cancelled_by_somebody]),
    "no result is there": Scenario(misdeeds=[hands_over_nothing]),
    "no result is ever there": Scenario(
        misdeeds=[hands_over_nothing] * 3, ends=Status.FAILED, error="result_missing"
    ),
    "the result is truncated": Scenario(misdeeds=[hands_over(stored=b"a vid")]),
    "the result is another one": Scenario(misdeeds=[hands_over(stored=b"A VIDEO")]),
    "the manifest is another job's": Scenario(misdeeds=[hands_over(attempt_id="another")]),
    "the file is damaged": Scenario(
        misdeeds=[fails_with("source_unreadable: no moov")], ends=Status.FAILED, error="source_unreadable"
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_fault_ends_well_or_costs_nothing(world: World, restoration: Restoration, name: str) -> None:
    scenario = SCENARIOS[name]
    for each in scenario.faults:
        world.endpoint.fault(**each)
    world.misdeeds = list(scenario.misdeeds)
    dispatch.dispatch(restoration.pk)
    look()
    world.go_on(restoration)
    assert (restoration.status, restoration.error_code) == (scenario.ends, scenario.error)
    assert not world.misdeeds, "every misdeed was met"
    check(restoration, name)
    assert not world.jobs("IN_QUEUE", "IN_PROGRESS"), "no machine works for nothing"
    if scenario.ends is Status.FAILED:
        assert restoration.refunded_credits == restoration.price_credits
        failure = explain(restoration)
        assert failure is not None
        assert failure.sentence
        assert failure.next_step


def test_every_error_code_of_a_machine_was_met() -> None:
    met = " ".join(
        cell.cell_contents
        for scenario in SCENARIOS.values()
        for misdeed in scenario.misdeeds
        for cell in getattr(misdeed, "__closure__", None) or ()
        if isinstance(cell.cell_contents, str)
    )
    of_the_site = {ErrorCode.ENDPOINT_UNAVAILABLE, ErrorCode.EXPIRED, ErrorCode.EXECUTION_TIMEOUT}
    of_others = {ErrorCode.INVALID_REQUEST, ErrorCode.ENGINE_FAILED, ErrorCode.ENGINE_STUCK}
    of_sources = {ErrorCode.SOURCE_CHANGED, ErrorCode.SOURCE_TOO_LARGE, ErrorCode.RESULT_MISSING}
    assert {code for code in ErrorCode if code.value not in met} == of_the_site | of_others | of_sources


# --- Webhooks -----------------------------------------------------------------------------------------------


def test_webhooks_twice_late_and_for_others_change_nothing(world: World, restoration: Restoration) -> None:
    dispatch.dispatch(restoration.pk)
    attempt = restoration.attempts.get()
    address, client = f"/hooks/runpod/{attempt.webhook_token}/", Client()
    body = json.dumps({"id": attempt.runpod_id, "status": "COMPLETED"})

    def ring() -> None:
        assert client.post(address, body, content_type="application/json").status_code == 200
        dispatch.check(attempt.pk)

    ring()  # before anything was done
    assert Restoration.objects.get().status == Status.SUBMITTED
    world.finish_all()
    ring()
    ring()
    restoration.refresh_from_db()
    assert restoration.status == Status.SUCCEEDED, "the webhook alone is enough"
    world.go_on(restoration)
    check(restoration, "webhooks")


# --- A machine that is really lost --------------------------------------------------------------------------


@pytest.fixture
def impatient(tmp_path: Any, settings: Settings) -> Iterator[EndpointProcess]:
    """An endpoint that takes a machine for lost after a second of silence."""
    options = ("--poll-seconds", "0.2", "--ping-seconds", "0.2")
    endpoint = EndpointProcess(tmp_path, *options)
    settings.RUNPOD_BASE_URL = f"http://127.0.0.1:{endpoint.port}/v2"
    settings.RUNPOD_ENDPOINT_ID, settings.RUNPOD_API_KEY = "local", KEY
    yield endpoint
    endpoint.close()


def test_a_job_taken_over_by_another_machine_goes_on_being_counted(impatient: EndpointProcess) -> None:
    restoration = RestorationFactory()
    objects.save(restoration.video.storage_key, io.BytesIO(b"x" * 1000))
    dispatch.dispatch(restoration.pk)
    attempt = restoration.attempts.get()
    for name, frames, sequence in (("first", 60, 9), ("second", 80, 1)):
        machine = impatient.worker(name)
        job = until(machine.take, seconds=30, what=f"{name} takes the job")
        report = running(attempt, frames=frames, sequence=sequence).output
        machine.done(job["id"], {"status": "IN_PROGRESS", "output": report})
        look()
        restoration.refresh_from_db()
        assert restoration.num_frames_done == frames, "a new machine counts its reports anew"
    deliver(attempt)
    machine.done(job["id"], {"output": {}})
    look()
    restoration.refresh_from_db()
    assert restoration.status == Status.SUCCEEDED


# --- Storage, clocks ----------------------------------------------------------------------------------------


def test_storage_that_is_down_costs_time_only(
    world: World, restoration: Restoration, settings: Settings
) -> None:
    dispatch.dispatch(restoration.pk)
    world.finish_all()
    usual = settings.STORAGES
    nowhere = s3_backend(
        bucket="b", endpoint="http://127.0.0.1:9", region="us-east-1", access_key="a", secret_key="b"
    )
    settings.STORAGES = {**usual, "default": nowhere}
    look()
    repair.repair()
    restoration.refresh_from_db()
    assert restoration.is_active, "nobody knows yet whether there is a result"
    settings.STORAGES = usual
    world.go_on(restoration)
    assert restoration.status == Status.SUCCEEDED
    check(restoration, "storage")


def test_a_large_result_is_hashed_by_a_task_of_its_own(
    world: World, restoration: Restoration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "QUICK_BYTES", 3)
    world.misdeeds = [hands_over(stored=b"A VIDEO")]
    for number, status in ((1, Status.QUEUED), (2, Status.SUCCEEDED)):
        dispatch.dispatch(restoration.pk)
        world.finish_all()
        look()
        restoration.refresh_from_db()
        assert restoration.is_active, "not before it was hashed"
        dispatch.check_result(restoration.attempts.get(number=number).pk)
        restoration.refresh_from_db()
        assert restoration.status == status
    world.go_on(restoration)
    check(restoration, "large")


@pytest.mark.parametrize("hours", [-3, 3])
def test_a_clock_that_jumps_loses_nothing(
    world: World, restoration: Restoration, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    real = timezone.now
    dispatch.dispatch(restoration.pk)
    world.take(restoration)
    monkeypatch.setattr(timezone, "now", lambda: real() + timedelta(hours=hours))
    look()
    repair.repair()
    monkeypatch.setattr(timezone, "now", real)
    repair.repair()
    due = Attempt.objects.filter(status__in=Attempt.OPEN, next_look_at__gt=real() + timedelta(minutes=1))
    assert not due.exists(), "nothing waits for a time that was a mistake"
    world.go_on(restoration)
    assert restoration.status == Status.SUCCEEDED
    check(restoration, hours)


# --- Limits -------------------------------------------------------------------------------------------------


def test_a_row_that_no_attempt_can_end_is_ended(world: World) -> None:
    restoration = RestorationFactory(status=Status.RUNNING, created_by=UserFactory())
    Restoration.objects.update(status_at=timezone.now() - timedelta(minutes=3))
    repair.repair()
    restoration.refresh_from_db()
    assert (restoration.status, restoration.refunded_credits) == (Status.FAILED, 7)


def test_one_row_that_cannot_be_repaired_keeps_no_other_from_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = timezone.now() - timedelta(days=1)
    broken, other = RestorationFactory(status_at=late), RestorationFactory(status_at=late)
    fail: Callable[..., bool] = lifecycle.fail

    def fail_unless_broken(restoration: Restoration, code: ErrorCode) -> bool:
        if restoration.pk == broken.pk:
            raise httpx.ReadError("as a database that is gone for a moment")
        return fail(restoration, code)

    fail_unless_broken.__name__ = "fail"
    monkeypatch.setattr(lifecycle, "fail", fail_unless_broken)
    repair.repair()
    other.refresh_from_db()
    assert other.status == Status.FAILED
