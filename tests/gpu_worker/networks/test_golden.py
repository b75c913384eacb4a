"""Every numeric fixture in `golden/` agrees with our networks within its limit."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gpu_worker.tools.check_fixtures import UnknownFixtureError, check
from gpu_worker.tools.fixtures.results import Fixture, Result, compare

pytestmark = pytest.mark.torch

FILES = sorted(p for p in (Path(__file__).parent / "golden").iterdir() if p.suffix != ".md")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_fixture_agrees_within_its_limit(path: Path) -> None:
    results = check(path)

    assert results
    assert [result for result in results if not result.passed] == []


def test_changed_weight_is_noticed(golden: Path, tmp_path: Path) -> None:
    fixture = Fixture(golden / "dit_7b_tiny_a.safetensors")
    fixture.tensors["weights.blocks.0.ada.vid.attn_gate"] *= 1.001
    save_file(fixture.tensors, tmp_path / "changed.safetensors", fixture.metadata)

    run = subprocess.run(
        [sys.executable, "-m", "gpu_worker.tools.check_fixtures", tmp_path / "changed.safetensors"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )

    assert run.returncode == 1, run.stderr
    assert "FAIL" in run.stdout
    assert "video.outputs.vid" in run.stdout


def test_file_of_another_format_is_refused(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")

    with pytest.raises(UnknownFixtureError, match="known are seedvr2-dit"):
        check(tmp_path / "other.safetensors")


def test_shape_and_nan_never_pass() -> None:
    assert not compare("x", torch.zeros(2), torch.zeros(3)).passed
    assert not Result("x", float("nan")).passed
