"""Converts a published checkpoint once into the safetensors file that the worker loads.

    python -m gpu_worker.tools.convert_checkpoint SOURCE TARGET --model seedvr2-7b

Checks every key and shape, drops rotary buffers, rounds matrices to 16 bits and keeps the small vectors
that the reference keeps in float32. `.pth` files are read as data alone; nothing in them is executed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gpu_worker.engine.presets import PRESETS
from gpu_worker.models.checkpoint import check_fit, read_weights, target_dtype
from gpu_worker.models.dit import NaDiT
from gpu_worker.models.sources import VAE
from gpu_worker.models.vae import VAEConfig, VideoVAE

#: Stored precision. bfloat16 matrices are what the reference computes with; the VAE keeps float16's digits
#: and is cast when it is loaded.
_STORED: Final = {VAE: torch.float16}


def build_on_meta(name: str) -> nn.Module:
    """The network whose weights a file holds, without memory. Raises KeyError for unknown names."""
    with torch.device("meta"):
        return VideoVAE(VAEConfig()) if name == VAE else NaDiT(PRESETS[name].transformer)


def convert(
    source: Path, target: Path, network: nn.Module, *, dtype: torch.dtype, metadata: Mapping[str, str]
) -> None:
    """Writes a network's weights to `target`, completely or not at all.

    Args:
        source: `.pth` or `.safetensors` with the published names.
        target: the file to write; its folder exists.
        network: built on the meta device; decides which keys and shapes must be there.
        dtype: of matrices and kernels.
        metadata: where the weights come from, kept in the file.

    Raises CheckpointError, which lists every key that does not fit.
    """
    weights = check_fit(network, read_weights(source))
    converted = {name: tensor.to(target_dtype(name, dtype)).contiguous() for name, tensor in weights.items()}
    write_safetensors(converted, target, metadata)


def write_safetensors(tensors: dict[str, Tensor], target: Path, metadata: Mapping[str, str]) -> None:
    """Saves to a neighbouring file and renames it, so that a crash never leaves half a checkpoint."""
    partial = target.with_suffix(".partial")
    save_file(tensors, partial, dict(metadata))
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(target)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    published = [name for name, preset in PRESETS.items() if preset.weights]
    parser.add_argument("--model", required=True, choices=[*published, VAE])
    arguments = parser.parse_args()
    convert(
        arguments.source,
        arguments.target,
        build_on_meta(arguments.model),
        dtype=stored_dtype(arguments.model),
        metadata={"model": arguments.model, "source": arguments.source.name},
    )


def stored_dtype(name: str) -> torch.dtype:
    """The precision in which a model's matrices are stored."""
    return _STORED.get(name, torch.bfloat16)


if __name__ == "__main__":
    main()
