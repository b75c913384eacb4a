"""The SeedVR2 engine on files: as people run it, and as the worker runs it."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from pathlib import Path

import pytest

from gpu_worker.__main__ import main
from gpu_worker.contract import ErrorCode, Model, RestoreRequest, WorkerError
from gpu_worker.engine.video import measure
from gpu_worker.engine_process import EngineReport, run_engine, seedvr2_command
from tests import samples
from tests.gpu_worker.test_cpu_engine import moments, packets

pytestmark = pytest.mark.torch

SIZE = ("--res-w", "64", "--res-h", "48")


def restore(name: str, result: Path, *more: str) -> int:
    """Runs the command in this process: starting Python and PyTorch for each case would take seconds."""
    return main(["restore", str(samples.path(name)), str(result), "--model", "tiny-7b", *SIZE, *more])


@pytest.fixture
def result(tmp_path: Path) -> Path:
    return tmp_path / "result.mp4"


def test_a_file_is_restored_with_its_rate_and_its_sound(
    result: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert restore("ntsc_2997.mp4", result) == 0
    said = capsys.readouterr()
    assert "60/60 frames" in said.err
    assert "60 frames of 64x48" in said.out
    assert "random weights" in caplog.text
    measured = measure(result)
    assert (measured.width, measured.height, measured.num_frames) == (64, 48, 60)
    assert measured.frame_rate == Fraction(30000, 1001)
    assert packets(result) == packets(samples.path("ntsc_2997.mp4"))


def test_a_variable_rate_keeps_every_moment(result: Path) -> None:
    assert restore("vfr.mp4", result) == 0
    wanted, found = moments(samples.path("vfr.mp4")), moments(result)
    assert len(wanted) == len(found)
    assert all(abs(one - other) <= Fraction(1, 1000) for one, other in zip(wanted, found, strict=True))


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("text.mp4", (), "source_unreadable"),
        ("single_frame.mp4", ("--memory-gib", "0.001"), "out_of_memory"),
        ("single_frame.mp4", ("--strength", "200"), "invalid_request"),
        ("single_frame.mp4", ("--seed", "-1"), "invalid_request"),
        ("single_frame.mp4", ("--model", "seedvr2-7b"), "engine_failed"),
    ],
)
def test_what_cannot_be_done_ends_with_a_code(
    name: str, more: tuple[str, ...], said: str, result: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert restore(name, result, *more) == 1
    assert said in capsys.readouterr().err
    assert not result.exists()


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["improve"]) == 2
    assert "improve" in capsys.readouterr().err


def request() -> RestoreRequest:
    address = "http://127.0.0.1:9/object"
    return RestoreRequest(
        attempt_id="attempt-1",
        source_url=address,
        source_bytes=1,
        result_url=address,
        manifest_url=address,
        model=Model.SEEDVR2_7B,
        res_w=64,
        res_h=48,
        sp_size=1,
        seed=7,
    )


def run_as_child(name: str, result: Path, model: str | None, heard: list[int]) -> EngineReport:
    command = seedvr2_command(samples.path(name), result, request=request(), weights=None, model=model)
    return asyncio.run(run_engine(command, heard.append))


def test_the_worker_runs_it_as_a_child(result: Path) -> None:
    heard: list[int] = []
    report = run_as_child("pal_25.mp4", result, "tiny-3b", heard)
    assert (report.width, report.height, report.num_frames, report.frame_rate) == (64, 48, 50, "25")
    assert heard == sorted(heard)
    assert heard
    assert heard[-1] <= 50


def test_a_child_without_its_weights_says_so(result: Path) -> None:
    with pytest.raises(WorkerError) as caught:
        run_as_child("single_frame.mp4", result, None, [])
    assert caught.value.code is ErrorCode.ENGINE_FAILED
    assert "seedvr2-7b" in caught.value.detail
