"""The worker's environment, read once into one frozen object."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from gpu_worker.contract import SP_SIZES, Engine, Model

_GIBIBYTE: Final = 1024**3
#: The names of the presets with random weights (`engine/presets.py`).
TINY_MODELS: Final = ("tiny-7b", "tiny-3b")


class SettingsError(ValueError):
    """A variable cannot be used; the message names it, its value and what is accepted."""


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """Everything that an operator can set. An empty variable counts as one that is not set."""

    #: WORKER_ENGINE: what restores videos here; `cpu` needs no GPU.
    engine: Engine = Engine.CPU
    #: WORKER_MODEL: what the SeedVR2 engine loads at the start; other models that jobs ask for are loaded then.
    #: A tiny one (random weights, no GPU needed) takes the place of whatever jobs ask for: for tests only.
    model: str = Model.SEEDVR2_7B.value
    #: WORKER_MODEL_DIR: where `gpu_worker.tools.fetch_models` put the weights.
    model_dir: Path = Path("/models")
    #: WORKER_GPUS, or RunPod's RUNPOD_GPU_COUNT: one rank is started for each.
    num_gpus: int = 1
    #: WORKER_MEMORY_GIB: the most memory a rank plans with, instead of what is free.
    memory_gib: float | None = None
    #: WORKER_READY_SECONDS: how long the ranks may take from their start until they are ready.
    ready_seconds: float = 600.0
    #: WORKER_STUCK_SECONDS: a rank that says nothing for so long while it works is stuck.
    stuck_seconds: float = 600.0
    #: WORKER_CANCEL_SECONDS: how long ranks may take to stop; afterwards they are killed and started anew.
    cancel_seconds: float = 10.0
    #: WORKER_SLACK_BYTES: a rank that keeps more memory than this after a job is started anew.
    slack_bytes: int = _GIBIBYTE
    #: WORKER_MIN_SCRATCH_BYTES: with less free space for jobs' files the worker does not start.
    min_scratch_bytes: int = 2 * _GIBIBYTE
    #: WORKER_SCRATCH_DIR: where a job's files lie while it runs; cleaned after each job and at the start.
    scratch_dir: Path = Path(tempfile.gettempdir()) / "seedvr-worker"
    #: WORKER_MAX_SOURCE_BYTES: larger sources are refused before a byte of them is fetched.
    max_source_bytes: int = 16 * _GIBIBYTE
    #: WORKER_TRANSFER_TRIES: how often a download or an upload is tried in all.
    transfer_tries: int = 5
    #: WORKER_TRANSFER_TIMEOUT_SECONDS: how long a transfer may stand still before a try counts as failed.
    transfer_timeout_seconds: float = 60.0
    #: WORKER_TRANSFER_PAUSE_SECONDS: the pause after the first failed try; it doubles with each further one.
    transfer_pause_seconds: float = 1.0
    #: WORKER_PROGRESS_SECONDS: progress is sent at most once in this time.
    progress_seconds: float = 0.5

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Reads `os.environ` or a mapping like it. Raises `SettingsError`."""
        return cls(
            engine=_engine(environment, "WORKER_ENGINE", cls.engine),
            model=_model(environment, "WORKER_MODEL", cls.model),
            model_dir=_path(environment, "WORKER_MODEL_DIR", cls.model_dir),
            num_gpus=_gpus(environment, "WORKER_GPUS", "RUNPOD_GPU_COUNT"),
            memory_gib=_memory(environment, "WORKER_MEMORY_GIB"),
            ready_seconds=_seconds(environment, "WORKER_READY_SECONDS", cls.ready_seconds),
            stuck_seconds=_seconds(environment, "WORKER_STUCK_SECONDS", cls.stuck_seconds),
            cancel_seconds=_seconds(environment, "WORKER_CANCEL_SECONDS", cls.cancel_seconds),
            slack_bytes=_whole(environment, "WORKER_SLACK_BYTES", cls.slack_bytes),
            min_scratch_bytes=_whole(environment, "WORKER_MIN_SCRATCH_BYTES", cls.min_scratch_bytes),
            scratch_dir=_path(environment, "WORKER_SCRATCH_DIR", cls.scratch_dir),
            max_source_bytes=_whole(environment, "WORKER_MAX_SOURCE_BYTES", cls.max_source_bytes),
            transfer_tries=_whole(environment, "WORKER_TRANSFER_TRIES", cls.transfer_tries),
            transfer_timeout_seconds=_seconds(
                environment, "WORKER_TRANSFER_TIMEOUT_SECONDS", cls.transfer_timeout_seconds
            ),
            transfer_pause_seconds=_seconds(
                environment, "WORKER_TRANSFER_PAUSE_SECONDS", cls.transfer_pause_seconds
            ),
            progress_seconds=_seconds(environment, "WORKER_PROGRESS_SECONDS", cls.progress_seconds),
        )

    @property
    def is_tiny(self) -> bool:
        """True when a model with random weights takes the place of whatever jobs ask for."""
        return self.model in TINY_MODELS


def _engine(environment: Mapping[str, str], name: str, default: Engine) -> Engine:
    text = environment.get(name) or default.value
    if text not in list(Engine):
        raise SettingsError(f"{name} is {text!r}; accepted here are {', '.join(Engine)}")
    return Engine(text)


def _model(environment: Mapping[str, str], name: str, default: str) -> str:
    text = environment.get(name) or default
    if text not in (accepted := [*Model, *TINY_MODELS]):
        raise SettingsError(f"{name} is {text!r}; accepted here are {', '.join(accepted)}")
    return text


def _path(environment: Mapping[str, str], name: str, default: Path) -> Path:
    return Path(environment.get(name) or default)


def _memory(environment: Mapping[str, str], name: str) -> float | None:
    return _positive(environment, name, 1.0, "GiB") if environment.get(name) else None


def _gpus(environment: Mapping[str, str], name: str, otherwise: str) -> int:
    name = name if environment.get(name) else otherwise
    count = _whole(environment, name, 1)
    if count not in SP_SIZES:
        raise SettingsError(f"{name} is {count}; accepted here are {', '.join(map(str, SP_SIZES))}")
    return count


def _whole(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isdecimal() or int(text) < 1:
        raise SettingsError(f"{name} is {text!r}; expected a whole number, 1 or more")
    return int(text)


def _seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    return _positive(environment, name, default, "seconds")


def _positive(environment: Mapping[str, str], name: str, default: float, unit: str) -> float:
    text = environment.get(name) or str(default)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise SettingsError(f"{name} is {text!r}; expected a number of {unit} greater than 0")
    return number
