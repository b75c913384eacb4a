"""What has to be true before this worker takes its first job. Each check fails with a sentence for operators.

They stand in for the SDK's own checks, which import PyTorch into the parent and take memory on the GPU there.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from typing import Final

import av.codec

from gpu_worker.contract import Engine
from gpu_worker.engine.memory import GIBIBYTE, WEIGHTS
from gpu_worker.settings import WorkerSettings
from gpu_worker.weights_check import files_of, verify_folder

#: Beside its weights a model needs at least so much to work at all.
_WORK_BYTES: Final = 8 * GIBIBYTE
_NVIDIA_SECONDS: Final = 60
_ENCODERS: Final = ("libx264", "libx265", "prores_ks", "png", "aac")


class Unfit(RuntimeError):
    """This machine cannot do the work; the message says what is missing, and what is needed."""


def checks(settings: WorkerSettings) -> list[Callable[[], None]]:
    """Returns the checks for an engine: the CPU engine needs space and encoders, SeedVR2 GPUs and weights too."""

    def scratch_space() -> None:
        check_scratch(settings)

    def gpus() -> None:
        check_gpus(settings, gpu_table())

    def weights() -> None:
        verify_folder(settings.model_dir, files_of(settings.model))

    common = [scratch_space, check_encoders]
    if settings.engine is Engine.CPU or settings.is_tiny:
        return common
    return [*common, gpus, weights]


def check_scratch(settings: WorkerSettings) -> None:
    """Raises `Unfit` when jobs' files have too little space."""
    free_bytes = shutil.disk_usage(settings.scratch_dir).free
    if free_bytes < settings.min_scratch_bytes:
        raise Unfit(
            f"{settings.scratch_dir} has {free_bytes} bytes free; at least {settings.min_scratch_bytes} are needed "
            "(WORKER_MIN_SCRATCH_BYTES)"
        )


def check_encoders() -> None:
    """Raises `Unfit` when this build of ffmpeg cannot write what jobs ask for."""
    missing = [name for name in _ENCODERS if name not in av.codec.codecs_available]
    if missing:
        raise Unfit(f"this build of PyAV has no encoder {', '.join(missing)}")


def gpu_table() -> str:
    """Returns what the driver says: a line `name, MiB` for each GPU. Raises `Unfit` without a driver."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_NVIDIA_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unfit(
            f"nvidia-smi does not answer ({type(error).__name__}): is this machine started with a GPU?"
        ) from None
    return done.stdout


def check_gpus(settings: WorkerSettings, table: str) -> None:
    """Raises `Unfit` when there are too few GPUs, or one has too little memory for the model."""
    rows = [line.rpartition(", ") for line in table.splitlines() if line.strip()]
    if len(rows) < settings.num_gpus:
        raise Unfit(f"{len(rows)} GPUs are here; {settings.num_gpus} are needed (WORKER_GPUS)")
    needed_bytes = sum(WEIGHTS[settings.model]) + _WORK_BYTES
    for name, _, mebibytes in rows[: settings.num_gpus]:
        if int(mebibytes) * 1024**2 < needed_bytes:
            raise Unfit(
                f"{name} has {int(mebibytes) / 1024:.1f} GiB of memory; "
                f"{settings.model} needs at least {needed_bytes / GIBIBYTE:.1f} GiB"
            )
