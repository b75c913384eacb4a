"""What has to be true before the first job; each check fails with a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_worker import fitness
from gpu_worker.contract import Engine
from gpu_worker.fitness import Unfit, check_encoders, check_gpus, check_scratch, checks, gpu_table
from gpu_worker.settings import WorkerSettings
from gpu_worker.weights_check import WeightsBroken

H100 = "NVIDIA H100 80GB HBM3, 81559\n"
T4 = "Tesla T4, 15360\n"


def settings(**changes: object) -> WorkerSettings:
    return WorkerSettings(engine=Engine.SEEDVR2, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("table", "changes", "sentence"),
    [
        ("", {}, "0 GPUs are here; 1 are needed"),
        (H100, {"num_gpus": 2}, "1 GPUs are here; 2 are needed"),
        (T4, {}, "Tesla T4 has 15.0 GiB of memory; seedvr2-7b needs at least 23.8 GiB"),
        (H100 + T4, {"num_gpus": 2}, "Tesla T4 has"),
    ],
)
def test_too_little_of_a_gpu_is_said(table: str, changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(Unfit, match=sentence):
        check_gpus(settings(**changes), table)


def test_enough_gpus_are_enough() -> None:
    check_gpus(settings(num_gpus=2), H100 * 2)
    check_gpus(settings(), H100 + T4)
    check_gpus(settings(model="seedvr2-3b"), T4)


def test_a_machine_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unfit, match="nvidia-smi does not answer"):
        gpu_table()


def test_too_little_scratch_space_is_said(tmp_path: Path) -> None:
    check_scratch(settings(scratch_dir=tmp_path, min_scratch_bytes=1))
    with pytest.raises(Unfit, match="WORKER_MIN_SCRATCH_BYTES"):
        check_scratch(settings(scratch_dir=tmp_path, min_scratch_bytes=2**60))


def test_encoders_are_here_or_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_encoders()
    monkeypatch.setattr(fitness, "_ENCODERS", ("libx264", "libquantum"))
    with pytest.raises(Unfit, match="no encoder libquantum"):
        check_encoders()


def test_missing_weights_are_named(tmp_path: Path) -> None:
    *_common, _gpus, weights = checks(settings(model_dir=tmp_path))
    with pytest.raises(WeightsBroken, match="seedvr2-7b"):
        weights()


def test_an_engine_without_a_gpu_checks_what_it_needs() -> None:
    names = [check.__name__ for check in checks(WorkerSettings())]
    assert names == ["scratch_space", "check_encoders"]
    assert [check.__name__ for check in checks(settings(model="tiny-7b"))] == names
