"""The layers of the diffusion transformer: rotary embedding, modulation, timestep embedding, MLPs.

Shapes: L packed tokens, B samples, C channels, N heads, D head size, P rotated channel pairs per head.
Module and parameter names are the checkpoint's names; where a better name suggests itself, it is not used.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Rotation(NamedTuple):
    """Cosines and sines `[L, 1, P]`, float32, of the angles that rotate each token's channel pairs."""

    cos_L1P: Tensor
    sin_L1P: Tensor


def rotate_(x_LND: Tensor, rotation: Rotation) -> Tensor:
    """Rotates neighbouring channel pairs (2j, 2j+1) in place, in float32 (dit.md, 8; arXiv:2104.09864).

    `x_LND` of any floating dtype; its channels from 2P on stay as they are. Returns `x_LND`.
    """
    cos, sin = rotation
    pairs = torch.unflatten(x_LND[..., : 2 * cos.shape[-1]], -1, (-1, 2))
    even, odd = pairs.float().unbind(-1)
    # Both before either is written: float32 input makes `even` and `odd` views of it.
    rotated_even, rotated_odd = even * cos - odd * sin, odd * cos + even * sin
    pairs[..., 0] = rotated_even
    pairs[..., 1] = rotated_odd
    return x_LND


def pixel_frequencies(rope_dim: int) -> Tensor:
    """7B: pi times evenly spaced values from 1 to 128, float32 `[F]`, F = rope_dim // 6 (dit.md, 8.2)."""
    return torch.linspace(1.0, 128.0, rope_dim // 3 // 2) * math.pi


def language_frequencies(rope_dim: int) -> Tensor:
    """3B: 10000^(-2j/A), float32 `[F]`, A = rope_dim // 3, F = A // 2 (dit.md, 8.1)."""
    width = rope_dim // 3
    exponents = torch.arange(0, 2 * (width // 2), 2, dtype=torch.float32) / width
    return 1.0 / 10000.0**exponents


class Modulation(NamedTuple):
    """What the timestep does to one stream of one block: six float32 `[B, C]` vectors (dit.md, section 5)."""

    attn_shift: Tensor
    attn_scale: Tensor
    attn_gate: Tensor
    mlp_shift: Tensor
    mlp_scale: Tensor
    mlp_gate: Tensor


class BlockModulation(nn.Module):
    """A block's learned additions to the shared timestep embedding; there is no implicit `1 +`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        for name in Modulation._fields:
            setattr(self, name, nn.Parameter(torch.zeros(dim)))

    def forward(self, emb_BC23: Tensor) -> Modulation:
        """Adds the learned vectors to an embedding `[B, C, 2 sub-layers, 3 roles]`, in float32."""
        roles = emb_BC23.float().flatten(2).unbind(-1)
        learned = (getattr(self, name) for name in Modulation._fields)
        return Modulation(*(vector + role for vector, role in zip(learned, roles, strict=True)))


class OutputModulation(nn.Module):
    """The 3B's modulation before the output head; it reuses the embedding's attention slots (dit.md, 9)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out_shift = nn.Parameter(torch.zeros(dim))
        self.out_scale = nn.Parameter(torch.zeros(dim))

    def forward(self, emb_BC23: Tensor) -> tuple[Tensor, Tensor]:
        """Returns shift and scale, float32 `[B, C]`, for an embedding `[B, C, 2, 3]`."""
        emb_BC23 = emb_BC23.float()
        return self.out_shift + emb_BC23[:, :, 0, 0], self.out_scale + emb_BC23[:, :, 0, 1]


class TimestepEmbedding(nn.Module):
    """Sinusoid and three linear layers: timestep 0..1000 -> 6C values per sample (dit.md, section 5)."""

    SINUSOID = 256

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.proj_in = nn.Linear(self.SINUSOID, dim)
        self.proj_hid = nn.Linear(dim, dim)
        self.proj_out = nn.Linear(dim, out_dim)

    def forward(self, timestep_B: Tensor) -> Tensor:
        """`[B]` float, fractions allowed -> `[B, 6C]` in the weights' dtype; sines come before cosines."""
        half = self.SINUSOID // 2
        steps = torch.arange(half, dtype=torch.float32, device=timestep_B.device)
        angles = timestep_B.float()[:, None] * torch.exp(-math.log(10000.0) * steps / half)
        sinusoid = torch.cat([angles.sin(), angles.cos()], -1).to(self.proj_in.weight.dtype)
        hidden = F.silu(self.proj_hid(F.silu(self.proj_in(sinusoid))))
        out: Tensor = self.proj_out(hidden)
        return out


class GeluMLP(nn.Module):
    """7B: two linear layers with biases, tanh-approximated GELU between them."""

    def __init__(self, dim: int, expand_ratio: int) -> None:
        super().__init__()
        self.proj_in = nn.Linear(dim, dim * expand_ratio)
        self.proj_out = nn.Linear(dim * expand_ratio, dim)

    def forward(self, x_LC: Tensor) -> Tensor:
        """`[L, C]` -> `[L, C]`."""
        out: Tensor = self.proj_out(F.gelu(self.proj_in(x_LC), approximate="tanh"))
        return out


class SwiGLU(nn.Module):
    """3B: gated linear unit, SiLU on the gate, no biases (arXiv:2002.05202)."""

    def __init__(self, dim: int, expand_ratio: int) -> None:
        super().__init__()
        hidden = self.hidden_dim(dim, expand_ratio)
        self.proj_in_gate = nn.Linear(dim, hidden, bias=False)
        self.proj_in = nn.Linear(dim, hidden, bias=False)
        self.proj_out = nn.Linear(hidden, dim, bias=False)

    @staticmethod
    def hidden_dim(dim: int, expand_ratio: int) -> int:
        """Two thirds of the plain width, rounded up to a multiple of 256 (dit.md, section 2)."""
        return -(-(2 * dim * expand_ratio // 3) // 256) * 256

    def forward(self, x_LC: Tensor) -> Tensor:
        """`[L, C]` -> `[L, C]`."""
        hidden = F.silu(self.proj_in_gate(x_LC), inplace=True).mul_(self.proj_in(x_LC))
        out: Tensor = self.proj_out(hidden)
        return out
