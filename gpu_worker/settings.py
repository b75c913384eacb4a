"""The worker's environment, read once into one frozen object."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from gpu_worker.contract import Engine

_GIBIBYTE: Final = 1024**3


class SettingsError(ValueError):
    """A variable cannot be used; the message names it, its value and what is accepted."""


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """Everything that an operator can set. An empty variable counts as one that is not set."""

    #: WORKER_ENGINE: what restores videos here; `cpu` needs no GPU.
    engine: Engine = Engine.CPU
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
            scratch_dir=Path(environment.get("WORKER_SCRATCH_DIR") or cls.scratch_dir),
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


def _engine(environment: Mapping[str, str], name: str, default: Engine) -> Engine:
    text = environment.get(name) or default.value
    if text not in _ENGINES:
        raise SettingsError(f"{name} is {text!r}; accepted here are {', '.join(_ENGINES)}")
    return Engine(text)


#: Only what this build can run: the SeedVR2 engine adds itself here.
_ENGINES: Final = (Engine.CPU.value,)


def _whole(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isdecimal() or int(text) < 1:
        raise SettingsError(f"{name} is {text!r}; expected a whole number, 1 or more")
    return int(text)


def _seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name) or str(default)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise SettingsError(f"{name} is {text!r}; expected a number of seconds greater than 0")
    return seconds
