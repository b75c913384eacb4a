"""The noise schedule: linear interpolation between picture and noise (dit.md, section 10).

x_t = A(t) * x_0 + B(t) * x_T        A(t) = 1 - t / 1000        B(t) = t / 1000        0 <= t <= 1000
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: The timestep at which a state is pure noise.
T_MAX = 1000.0
#: Latents are multiplied by this after encoding and divided by it before decoding.
LATENT_SCALE = 0.9152


def signal_share(t: Tensor) -> Tensor:
    """A(t), the weight of the picture, for timesteps on the 0..1000 scale."""
    return 1.0 - t / T_MAX


def noise_share(t: Tensor) -> Tensor:
    """B(t), the weight of the noise, for timesteps on the 0..1000 scale."""
    return t / T_MAX


def sampling_timesteps(num_steps: int) -> Tensor:
    """Timesteps of the network's calls, float32 `[num_steps]`, from 1000 down: `[1000]` for one step.

    The range's own rounding is kept, so that the timesteps are the reference's to the bit; its length is not:
    it yields one timestep too many, near zero, for 49, 98, 103... steps.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}; at least 1 is needed")
    return torch.arange(1.0, 0.0, -1.0 / num_steps, dtype=torch.float32)[:num_steps] * T_MAX


def shift_timestep(t: Tensor, latent_shape: Sequence[int]) -> Tensor:
    """Moves a timestep towards noise for large pictures and long clips (dit.md, section 10.3).

    Args:
        t: timesteps on the 0..1000 scale, computed in float32.
        latent_shape: latent frames, rows and columns. (The reference passes rows, columns, channels by
            mistake; pass those three to reproduce it.)

    The shift is a line through two sizes at which it is known, and is not clamped.
    """
    frames = 4 * (latent_shape[0] - 1) + 1
    pixels = float(8 * latent_shape[1] * 8 * latent_shape[2])
    if frames == 1:
        shift = _line(pixels, (256.0 * 256, 1.0), (1024.0 * 1024, 3.2))
    else:
        shift = _line(pixels * frames, (256.0 * 256 * 37, 1.0), (1280.0 * 720 * 145, 5.0))
    u = t.float() / T_MAX
    return T_MAX * shift * u / (1.0 + (shift - 1.0) * u)


def _line(x: float, first: tuple[float, float], second: tuple[float, float]) -> float:
    slope = (second[1] - first[1]) / (second[0] - first[0])
    return first[1] + slope * (x - first[0])
