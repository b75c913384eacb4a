"""`python -m gpu_worker restore` on files, with both engines."""

from __future__ import annotations

import zipfile
from fractions import Fraction
from pathlib import Path

import pytest

from gpu_worker.__main__ import main
from gpu_worker.engine.video import measure
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


def test_a_range_of_a_file_is_a_preview(result: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Moved on to where latents of the shot end: 21 to 29.
    assert restore("ntsc_2997.mp4", result, "--range", "20:28") == 0
    assert "8 frames of 64x48" in capsys.readouterr().out
    assert measure(result).num_frames == 8


def test_the_engine_of_filters_runs_by_the_same_command(result: Path) -> None:
    assert restore("pal_25.mp4", result, "--model", "cpu", "--output", "h265") == 0
    assert measure(result).num_frames == 50


@pytest.mark.parametrize("span", ["5", "8:4", "a:b"])
def test_impossible_ranges_are_refused(span: str, result: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        restore("pal_25.mp4", result, "--range", span)
    assert "120:240" in capsys.readouterr().err


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["improve"]) == 2
    assert "improve" in capsys.readouterr().err


@pytest.mark.timeout(180)
def test_two_ranks_restore_a_file_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ("--segment-frames", "16", "--output", "png")
    assert restore("pal_25.mp4", tmp_path / "alone.zip", *settings) == 0
    assert restore("pal_25.mp4", tmp_path / "together.zip", *settings, "--sp-size", "2") == 0
    assert "50 frames of 64x48" in capsys.readouterr().out
    alone, together = (zipfile.ZipFile(tmp_path / name) for name in ("alone.zip", "together.zip"))
    with alone, together:
        assert alone.namelist() == together.namelist()
        pictures = [name for name in alone.namelist() if name.endswith(".png")]
        assert len(pictures) == 50
        assert all(alone.read(name) == together.read(name) for name in pictures)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone.zip", "together.zip"]
