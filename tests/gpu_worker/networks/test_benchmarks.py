"""The benchmark runs on a CPU with the tiny models; on a GPU the full sizes run and leave their figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gpu_worker.benchmarks.gpu import main as measure_gpu
from gpu_worker.benchmarks.loading import measure as measure_loading
from gpu_worker.benchmarks.run import Bench, bench_attention, bench_stages, report
from gpu_worker.engine.presets import PRESETS

pytestmark = pytest.mark.torch


def bench(model: str, device: str, **changes: object) -> Bench:
    settings: dict[str, object] = {
        "preset": PRESETS[model],
        "width": 64,
        "height": 48,
        "num_frames": 5,
        "device": torch.device(device),
        "dtype": torch.float32,
        "warmups": 0,
        "repeats": 2,
    }
    return Bench(**settings | changes)


def test_report_ends_with_one_json_line_per_case() -> None:
    command = (
        "stages --model tiny-3b --size 64x48 --frames 5 --device cpu --dtype float32 --warmups 0 --repeats 1"
    )
    run = subprocess.run(
        [sys.executable, "-m", "gpu_worker.benchmarks.run", *command.split()],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )

    cases = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    assert [case["stage"] for case in cases] == ["encode", "decode", "denoise"]
    assert all(case["seconds"] > 0 and case["frames"] == 5 for case in cases)
    assert run.stdout.startswith("| stage |")


@pytest.mark.parametrize("model", ["tiny-7b", "tiny-3b"])
def test_backends_of_this_machine_are_compared(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    cases = bench_attention(bench(model, "cpu"))

    assert [case.variant for case in cases] == ["sdpa-grouped", "sdpa-each"]
    assert "flash was asked for, but it needs CUDA" in capsys.readouterr().err


def test_sizes_that_no_network_takes_are_refused() -> None:
    with pytest.raises(ValueError, match="64x50"):
        bench("tiny-7b", "cpu", height=50)
    with pytest.raises(ValueError, match="4 frames"):
        bench("tiny-7b", "cpu", num_frames=4)


@pytest.mark.timeout(300)  # two processes import PyTorch, and this machine may be busy
def test_the_gpu_benchmark_runs_whole_with_tiny_networks(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "gpu_worker.benchmarks.gpu", "--tiny", "--save", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
        # One thread: the machine may be busy, and tiny networks are slower in several.
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert [stage["case"]["stage"] for stage in found["stages"]] == ["encode", "decode", "denoise", "colors"]
    one, four = found["whole"]
    assert (one["num_gpus"], one["simulated"], four["num_gpus"], four["simulated"]) == (1, False, 4, True)
    waits = {"wait_for_pictures", "wait_for_encoder"}
    assert set(one["busy"]) == {"decode", "restore", "encode", "total", *waits}
    assert one["num_frames"] == four["num_frames"] == 16
    (cold,) = found["cold"].values()
    assert cold["imports_seconds"] > 0
    assert cold["warm_up_seconds"] > 0
    (filed,) = tmp_path.iterdir()
    assert filed.name.startswith("bench-gpu_cpu_")
    assert filed.read_text().endswith(run.stdout)


def test_every_way_to_load_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    save_file({"matrix": torch.ones(1000, 100)}, path)
    rates = measure_loading(path, torch.device("cpu"))
    assert "8 readers" in rates
    assert all(rate > 0 for way in rates.values() for rate in way.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU to measure")
def test_the_gpu_benchmark_says_kindly_that_there_is_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert measure_gpu([]) == 2
    out, err = capsys.readouterr()
    assert "nothing was measured" in err
    assert out == ""


@pytest.mark.gpu
@pytest.mark.timeout(900)
@pytest.mark.parametrize("model", ["seedvr2-7b", "seedvr2-3b"])
def test_full_size_runs_720p_on_one_gpu(model: str) -> None:
    full = bench(
        model, "cuda", width=1280, height=720, num_frames=33, dtype=torch.bfloat16, warmups=1, repeats=3
    )

    cases = bench_stages(full, compiled=False)
    sys.stdout.write(report(full, cases))

    assert all(case.peak_gib is not None and case.peak_gib < 76 for case in cases)
