"""Noise that depends on nothing but its key: drawn on the CPU, so equal on every device and number of GPUs.

Every draw has a generator of its own; the global generator is neither read nor moved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def chunk_noise(seed: int, chunk: int, shape: Sequence[int], *, purpose: str = "latent") -> Tensor:
    """Standard normal float32 noise on the CPU, keyed by (seed, chunk).

    `purpose` keeps draws of one chunk apart: `latent` for the initial state, `condition` for the noise on the
    condition, `posterior` for sampling the VAE's posterior.
    """
    return torch.randn(tuple(shape), generator=_generator(seed, chunk, purpose), dtype=torch.float32)


def frame_noise(seed: int, first_frame: int, shape: Sequence[int], *, purpose: str = "latent") -> Tensor:
    """Standard normal noise `[t, ...]` whose frame i is keyed by (seed, first_frame + i).

    Chunks that overlap get equal noise where they overlap, and a job may resume anywhere
    (vae_and_pipeline.md, section 13.3).
    """
    frames = [
        torch.randn(tuple(shape[1:]), generator=_generator(seed, first_frame + i, f"frame {purpose}"))
        for i in range(shape[0])
    ]
    return torch.stack(frames)


def _generator(seed: int, index: int, purpose: str) -> torch.Generator:
    # A hash keeps neighbouring keys apart: seed + chunk would give (1, 2) and (2, 1) the same noise.
    digest = hashlib.sha256(f"{seed}/{index}/{purpose}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little") >> 1)
