"""The sampler: from noise to a restored latent in one Euler step, or in several (dit.md, section 10).

Shapes: latents `[t, h, w, 16]` in the scaled space (encoder output times 0.9152), one clip at a time.
Prediction type is velocity, v = x_T - x_0, so at t = 1000 the restored latent is noise - v.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gpu_worker.diffusion.schedule import noise_share, sampling_timesteps, shift_timestep, signal_share

#: Network input `[t, h, w, 33]` and timestep `[1]` -> velocity `[t, h, w, 16]`.
Velocity = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerConfig:
    """The released scripts' settings: one step, no guidance, no noise on the condition."""

    num_steps: int = 1
    cfg_scale: float = 1.0
    cfg_rescale: float = 0.0
    cond_noise_scale: float = 0.0

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps is {self.num_steps}; at least 1 is needed")
        if not 0.0 <= self.cond_noise_scale <= 1.0:
            raise ValueError(f"cond_noise_scale is {self.cond_noise_scale}; accepted are 0 to 1")


def condition_timestep(latent_shape: tuple[int, int, int], cond_noise_scale: float) -> Tensor:
    """How much noise the condition gets, as a timestep float32 `[1]`; exactly 0 for scale 0."""
    return shift_timestep(torch.tensor([1000.0 * cond_noise_scale]), latent_shape)


def assemble_condition(latent_THWC: Tensor, noise_THWC: Tensor | None, timestep_1: Tensor) -> Tensor:
    """The degraded clip's latent, noised to `timestep_1`, and a mask of ones: `[t, h, w, 17]`.

    `noise_THWC` may be None when the timestep is 0.
    """
    if noise_THWC is not None:
        t = timestep_1.to(latent_THWC.device)
        latent_THWC = (signal_share(t) * latent_THWC + noise_share(t) * noise_THWC).to(latent_THWC.dtype)
    elif timestep_1.item() != 0.0:
        raise ValueError(f"the condition's timestep is {timestep_1.item()}, but no noise was given")
    return torch.cat([latent_THWC, torch.ones_like(latent_THWC[..., :1])], -1)


def sample(
    noise_THWC: Tensor,
    condition_THWC: Tensor,
    velocity: Velocity,
    config: SamplerConfig,
    negative: Velocity | None = None,
) -> Tensor:
    """Restores one clip.

    Args:
        noise_THWC: the initial state `[t, h, w, 16]`, standard normal.
        condition_THWC: from `assemble_condition`, `[t, h, w, 17]`.
        velocity: the network with the positive prompt.
        config: steps and guidance.
        negative: the network with the negative prompt; called only when `cfg_scale` is not 1.

    Returns:
        x_0 `[t, h, w, 16]`, float32, still in the scaled space.
    """
    if config.cfg_scale != 1.0 and negative is None:
        raise ValueError(f"cfg_scale is {config.cfg_scale}, but there is no negative prompt")
    timesteps = sampling_timesteps(config.num_steps).to(noise_THWC.device)
    x_t = noise_THWC.float()
    for step, t in enumerate(timesteps):
        model_input = torch.cat([x_t.to(condition_THWC.dtype), condition_THWC], -1)
        v = velocity(model_input, t[None]).float()
        if config.cfg_scale != 1.0 and negative is not None:
            v = _guide(v, negative(model_input, t[None]).float(), config)
        x_0 = x_t - noise_share(t) * v
        if step + 1 == len(timesteps):
            break
        x_T = x_t + signal_share(t) * v
        after = timesteps[step + 1]
        x_t = signal_share(after) * x_0 + noise_share(after) * x_T
    return x_0


def _guide(positive: Tensor, negative: Tensor, config: SamplerConfig) -> Tensor:
    """Classifier-free guidance; the rescaling takes its deviations per token over the channels, unbiased."""
    guided = negative + config.cfg_scale * (positive - negative)
    if config.cfg_rescale:
        ratio = positive.std(-1, keepdim=True) / guided.std(-1, keepdim=True)
        guided = guided * (config.cfg_rescale * ratio + (1.0 - config.cfg_rescale))
    return guided
