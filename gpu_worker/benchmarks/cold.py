"""Measures one cold start in a process of its own: `python -m gpu_worker.benchmarks.cold --help`.

Phases: interpreter and imports, the device's context, weights from a folder with their bytes and rate, and the first
restoration of a few frames, which chooses kernels and compiles. Prints one JSON line. Weights are random and written to
the folder when it has none; `--forget` drops them from the page cache first. The tiny models have no files.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from gpu_worker.benchmarks.material import write_clip
from gpu_worker.contract import SegmentPlan
from gpu_worker.engine.job import EngineJob, SegmentSpan
from gpu_worker.engine.presets import PRESETS, Preset
from gpu_worker.engine.seedvr2 import SeedVR2Engine
from gpu_worker.engine.work import run
from gpu_worker.models.checkpoint import random_weights
from gpu_worker.models.dit import NaDiT
from gpu_worker.models.sources import VAE
from gpu_worker.models.vae import VideoVAE

_WARM_UP_FRAMES = 5


class Unheard:
    """Events of a job that nobody waits for."""

    is_cancelled = False

    def expect(self, num_frames: int) -> None:
        """Nobody waits."""

    def frames(self, num_done: int) -> None:
        """Nobody counts."""

    def segment(self, span: SegmentSpan, path: Path, plan: SegmentPlan | None) -> None:
        """Nobody takes it away."""

    def check(self) -> None:
        """Nobody cancels."""


def write_weights(preset: Preset, folder: Path, device: torch.device) -> None:
    """Writes a folder with random weights as `fetch_models` leaves one; what is there already stays."""
    if preset.weights is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    transformer, vae = folder / f"{preset.weights}.safetensors", folder / f"{VAE}.safetensors"
    if not transformer.exists():
        network = random_weights(
            lambda: NaDiT(preset.transformer), seed=2, dtype=torch.bfloat16, device=device
        )
        save_file({key: tensor.cpu() for key, tensor in network.state_dict().items()}, transformer)
    if not vae.exists():
        codec = random_weights(lambda: VideoVAE(preset.vae), seed=3, dtype=torch.float16, device=device)
        save_file({key: tensor.cpu() for key, tensor in codec.state_dict().items()}, vae)
    prompt = folder / "prompt-positive.safetensors"
    if not prompt.exists():
        shape = (preset.num_text_tokens, preset.transformer.txt_in_dim)
        save_file({"prompt": torch.randn(shape, generator=torch.Generator().manual_seed(1))}, prompt)


def forget(folder: Path) -> None:
    """Drops the folder's files from the page cache, as after a start of the machine."""
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            # Only clean pages can be dropped.
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def start(model: str, weights: Path, size: tuple[int, int]) -> Mapping[str, float]:
    """Starts as a rank does and restores a few frames; returns the figures."""
    engine = SeedVR2Engine(model=model, weights=weights)
    width, height = size
    started_at = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        clip = Path(name) / "clip.mp4"
        write_clip(clip, width=width // 2, height=height // 2, num_frames=_WARM_UP_FRAMES)
        job = EngineJob(source=clip, folder=Path(name), model=model, width=width, height=height)
        run(job, engine, rank=0, world=1, events=Unheard())
    seconds = time.perf_counter() - started_at
    total = engine.cold_start["total_seconds"] + seconds
    return {**engine.cold_start, "warm_up_seconds": round(seconds, 3), "total_seconds": round(total, 3)}


def main() -> int:
    """Reads the command line, starts, prints the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=list(PRESETS), required=True)
    parser.add_argument(
        "--weights", type=Path, required=True, help="folder; random weights are written if empty"
    )
    parser.add_argument("--size", type=int, nargs=2, default=(1280, 720), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--forget", action="store_true", help="drop the weights from the page cache first")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    write_weights(PRESETS[arguments.model], arguments.weights, device)
    if arguments.forget:
        forget(arguments.weights)
    figures = start(arguments.model, arguments.weights, (arguments.size[0], arguments.size[1]))
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
