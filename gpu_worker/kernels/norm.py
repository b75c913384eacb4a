"""Normalisation: root mean square over channels, and groups of channels per frame.

Statistics are float32 whatever the dtype of the values; results have the dtype of the values.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

logger = logging.getLogger(__name__)


def rms_norm(x: Tensor, weight_C: Tensor | None, eps: float) -> Tensor:
    """Divides by the root mean square over the last axis, times a weight (dit.md, section 1).

    `x` is `[..., C]` of any floating dtype; `weight_C` is `[C]` or None. Always returns a new tensor, which
    callers modify in place. Uses apex's fused kernel on CUDA where apex is installed.
    """
    shape = (x.shape[-1],)
    # Autocast rounds this weight to the dtype of the values; a mixed pair also loses PyTorch's fused kernel.
    weight_C = weight_C if weight_C is None or weight_C.dtype == x.dtype else weight_C.to(x.dtype)
    apex = _apex() if x.is_cuda else None
    if apex is None:
        return F.rms_norm(x, shape, weight_C, eps)
    normed: Tensor
    if weight_C is None:
        normed = apex.fused_rms_norm(x, shape, eps)
    else:
        normed = apex.fused_rms_norm_affine(x, weight_C, shape, eps)
    return normed


@functools.cache
def _apex() -> Any | None:
    """apex's normalisation module, looked up once per process."""
    try:
        from apex.normalization import fused_layer_norm
    except ImportError:
        logger.info("rms norm=torch reason=apex is not installed")
        return None
    logger.info("rms norm=apex")
    return fused_layer_norm


def group_norm(x_BCHW: Tensor, num_groups: int, weight_C: Tensor, bias_C: Tensor, eps: float) -> Tensor:
    """Normalises each group of consecutive channels of each image (vae_and_pipeline.md, section 3.2).

    `x_BCHW` of any floating dtype and memory format, frames folded into B. Returns a new tensor with the
    dtype and memory format of `x_BCHW`.
    """
    if x_BCHW.is_cuda and x_BCHW.dtype in (torch.float16, torch.bfloat16):
        mean_BG, variance_BG = group_moments(x_BCHW, num_groups)
        return normalise_groups(x_BCHW, mean_BG, variance_BG, weight_C, bias_C, eps)
    return F.group_norm(x_BCHW, num_groups, weight_C.to(x_BCHW.dtype), bias_C.to(x_BCHW.dtype), eps)


def group_moments(x_BCHW: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each group of channels of each image, float32 `[B, G]`.

    16-bit values are summed with their squares in one reading pass each, in float32 without a float32 copy:
    E[x^2] - E[x]^2 loses digits when the mean is far larger than the spread, which 16-bit values cannot
    resolve either. Wider values take the stable way.
    """
    batch, channels, height, width = x_BCHW.shape
    if x_BCHW.dtype not in (torch.float16, torch.bfloat16):
        groups = x_BCHW.reshape(batch, num_groups, -1)
        variance, mean = torch.var_mean(groups, -1, correction=0)
        return mean, variance
    count = channels // num_groups * height * width
    sum_BC = torch.sum(x_BCHW, (2, 3), dtype=torch.float32)
    norm_BC = torch.linalg.vector_norm(x_BCHW, 2, (2, 3), dtype=torch.float32)
    mean_BG = sum_BC.view(batch, num_groups, -1).sum(-1) / count
    square_BG = norm_BC.square().view(batch, num_groups, -1).sum(-1) / count
    return mean_BG, (square_BG - mean_BG.square()).clamp_min(0)


def normalise_groups(
    x_BCHW: Tensor, mean_BG: Tensor, variance_BG: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float
) -> Tensor:
    """Applies moments from `group_moments` in one pass that keeps dtype and memory format.

    PyTorch's own CUDA kernel turns channels-last input into channels-first and back, two more passes over the
    largest tensors there are.
    """
    per_group = x_BCHW.shape[1] // mean_BG.shape[1]
    rstd_BG = (variance_BG + eps).rsqrt()
    scale_BC = weight_C.float() * rstd_BG.repeat_interleave(per_group, 1)
    shift_BC = bias_C.float() - scale_BC * mean_BG.repeat_interleave(per_group, 1)
    out_BCHW = torch.empty_like(x_BCHW)
    torch.addcmul(shift_BC[:, :, None, None], x_BCHW, scale_BC[:, :, None, None], out=out_BCHW)
    return out_BCHW
