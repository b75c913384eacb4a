"""Measures one cold start in a process of its own: `python -m gpu_worker.benchmarks.cold --help`.

Phases: interpreter and imports, the process group (and the device's context), weights from a folder with their
bytes and rate, and the first restoration of a few frames, which chooses kernels and compiles. Prints one JSON line.
Weights are random and written to the folder when it has none; `--forget` drops them from the page cache first.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from gpu_worker.benchmarks.material import frames
from gpu_worker.engine.cold_start import ColdStart
from gpu_worker.engine.pictures import Picture
from gpu_worker.engine.planner import Work, plan
from gpu_worker.engine.presets import PRESETS, Preset, load_networks
from gpu_worker.engine.restorer import Restorer
from gpu_worker.engine.seedvr2 import free_memory
from gpu_worker.engine.shots import Look
from gpu_worker.models.checkpoint import random_weights
from gpu_worker.models.dit import NaDiT
from gpu_worker.models.sources import VAE
from gpu_worker.models.vae import VideoVAE


def with_weights(preset: Preset) -> Preset:
    """The preset, loading from files also where its weights are random."""
    return preset if preset.weights else replace(preset, weights=preset.name)


def write_weights(preset: Preset, folder: Path, device: torch.device) -> None:
    """Writes a folder with random weights as `fetch_models` leaves one; what is there already stays."""
    folder.mkdir(parents=True, exist_ok=True)
    name = with_weights(preset).weights
    assert name is not None
    transformer, vae = folder / f"{name}.safetensors", folder / f"{VAE}.safetensors"
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


def start(preset: Preset, folder: Path, device: torch.device, size: tuple[int, int]) -> ColdStart:
    """Starts as a rank does, and notes the phases."""
    cold = ColdStart()
    cold.imported()
    with cold.phase("group"), tempfile.TemporaryDirectory() as meeting:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{meeting}/group", rank=0, world_size=1)
        dist.all_reduce(torch.zeros(1, device=device))
        dist.destroy_process_group()
    work = Work(model=preset.name, width=size[0], height=size[1])
    chosen = plan(work, free_memory(device))
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    networks = load_networks(with_weights(preset), folder, device=device, dtype=dtype, cold=cold)
    with cold.phase("warm up"), torch.inference_mode():
        restorer = Restorer(networks, chosen)
        pictures = (Picture(pixels, i) for i, pixels in enumerate(frames(*size, 5)))
        look = Look(width=size[0], height=size[1], seed=0)
        for _ in restorer.pictures(((picture, 0) for picture in pictures), look):
            pass
        if device.type == "cuda":
            torch.cuda.synchronize()
    return cold


def main() -> int:
    """Reads the command line, starts, prints the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=list(PRESETS), required=True)
    parser.add_argument(
        "--weights", type=Path, required=True, help="folder; random weights are written if empty"
    )
    parser.add_argument("--device", required=True)
    parser.add_argument("--size", type=int, nargs=2, default=(1280, 720), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--forget", action="store_true", help="drop the weights from the page cache first")
    arguments = parser.parse_args()
    preset, device = PRESETS[arguments.model], torch.device(arguments.device)
    write_weights(preset, arguments.weights, device)
    if arguments.forget:
        forget(arguments.weights)
    cold = start(preset, arguments.weights, device, (arguments.size[0], arguments.size[1]))
    sys.stdout.write(json.dumps(cold.to_json()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
