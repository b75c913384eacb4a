"""The SeedVR2 engine as a process: loads the networks, plans from memory, restores one file.

The worker runs `python -m gpu_worker.engine.seedvr2 IN OUT ...` and reads the lines of `report.py`; people run
`python -m gpu_worker restore IN OUT ...` with the same options and see a progress bar.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Final

import torch

from gpu_worker.contract import MAX_SEED, ColorFix, ErrorCode, WorkerError
from gpu_worker.engine.lifeline import die_with_parent
from gpu_worker.engine.planner import DoesNotFit, Plan, Work, plan
from gpu_worker.engine.presets import PRESETS, Networks, load_networks
from gpu_worker.engine.report import OnFrame, Restored, report_to_worker
from gpu_worker.engine.restorer import Restorer
from gpu_worker.engine.shots import Look, is_out_of_memory
from gpu_worker.engine.video import VideoSource
from gpu_worker.models.checkpoint import CheckpointError

logger = logging.getLogger(__name__)

#: Of the free memory; the rest is for what the driver and the allocator keep.
_USABLE_PERCENT: Final = 95
_GIBIBYTE: Final = 1024**3


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what one restoration needs to know."""
    parser.add_argument("source", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument(
        "--model", choices=sorted(PRESETS), required=True, help="tiny-* have random weights: for tests only"
    )
    parser.add_argument("--res-w", type=int, required=True, help="width of the result in pixels, even")
    parser.add_argument("--res-h", type=int, required=True, help="height of the result in pixels, even")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same result (default 0)")
    parser.add_argument(
        "--strength", type=int, default=100, help="0 is a plain resize, 100 the model's output (default)"
    )
    parser.add_argument(
        "--color-fix",
        choices=[method.value for method in ColorFix],
        default=ColorFix.WAVELET.value,
        help="how colors are brought back to the source's (default wavelet)",
    )
    parser.add_argument("--weights", type=Path, help="folder with the weights; the tiny models need none")
    parser.add_argument("--memory-gib", type=float, help="use at most so much memory instead of what is free")


def restore_file(options: argparse.Namespace, on_frame: OnFrame) -> Restored:
    """Does what the options say. Raises `WorkerError`."""
    look = _look(options)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = _plan(options, device)
    try:
        restorer = Restorer(_networks(options, device), chosen)
        return restorer.restore(options.source, options.result, look, on_frame=on_frame)
    except RuntimeError as error:
        # The transformer's windows shrink; what is left are the weights and the VAE, whose sizes were planned.
        if not is_out_of_memory(error):
            raise
        raise WorkerError(ErrorCode.OUT_OF_MEMORY, "weights and VAE do not fit") from error


def _look(options: argparse.Namespace) -> Look:
    if not 0 <= options.seed <= MAX_SEED:
        raise WorkerError(ErrorCode.INVALID_REQUEST, f"seed is {options.seed}; accepted are 0 to {MAX_SEED}")
    try:
        return Look(
            width=options.res_w,
            height=options.res_h,
            seed=options.seed,
            strength=options.strength,
            color_fix=ColorFix(options.color_fix),
        )
    except ValueError as error:
        raise WorkerError(ErrorCode.INVALID_REQUEST, str(error)) from error


def _plan(options: argparse.Namespace, device: torch.device) -> Plan:
    source = VideoSource(options.source)
    source.close()
    work = Work(
        model=options.model, width=options.res_w, height=options.res_h, num_frames=source.num_frames or None
    )
    free_bytes = free_memory(device) if options.memory_gib is None else int(options.memory_gib * _GIBIBYTE)
    try:
        return plan(work, free_bytes)
    except DoesNotFit as error:
        raise WorkerError(ErrorCode.OUT_OF_MEMORY, str(error)) from error


def free_memory(device: torch.device) -> int:
    """Bytes that a restoration may use on a device, weights included."""
    if device.type == "cuda":
        free_bytes, _ = torch.cuda.mem_get_info(device)
    else:
        free_bytes = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return free_bytes * _USABLE_PERCENT // 100


def _networks(options: argparse.Namespace, device: torch.device) -> Networks:
    preset = PRESETS[options.model]
    if preset.weights is None:
        logger.warning("%s has random weights: its result is for tests only, not a restoration", preset.name)
    # CPUs have no fast 16-bit arithmetic.
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    try:
        return load_networks(preset, options.weights, device=device, dtype=dtype)
    except (FileNotFoundError, CheckpointError, ValueError) as error:
        raise WorkerError(ErrorCode.ENGINE_FAILED, str(error)) from error


def main(arguments: list[str] | None = None) -> int:
    """Runs one restoration as the worker's child; returns 0 when it succeeded."""
    parser = argparse.ArgumentParser(prog="python -m gpu_worker.engine.seedvr2", description=__doc__)
    add_options(parser)
    parser.add_argument("--parent-pid", type=int, help="die when this process, our parent, dies")
    options = parser.parse_args(arguments)
    if options.parent_pid is not None:
        die_with_parent(options.parent_pid)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    return report_to_worker(lambda on_frame: restore_file(options, on_frame))


if __name__ == "__main__":
    sys.exit(main())
