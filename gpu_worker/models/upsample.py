"""The decoder's upsampler as small convolutions on the low-resolution grid (performance.md, section 3.1).

An upsampler is a pointwise convolution C -> 4rC, a rearrangement of channels into rows, columns and frames,
and a causal 3x3x3 convolution. All three are linear, so each of the 4r output phases is one small
convolution of the low-resolution input: 2 taps instead of 3 on every axis that grows, and no
high-resolution intermediate at all.

Shapes: C channels, r = 2 where time doubles, else 1; phase (a, b, z) is the parity of output row, column and
frame; J taps in time: 2 when r = 2 (one earlier frame), 3 when r = 1 (two earlier frames).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class MergedUpsampler(NamedTuple):
    """Weights for the four spatial phases p = 2a + b; z and C share the output channels, z slowest.

    `weight` `[4, rC, C, J, 2, 2]`, `bias` `[4, rC]` inside the picture. On the border the taps that fall in
    the zero padding contribute no bias: `row` and `column` `[4, rC]` are to be subtracted there, `corner`
    added back.
    """

    weight: Tensor
    bias: Tensor
    row: Tensor
    column: Tensor
    corner: Tensor


def merge_upsampler(
    up_weight: Tensor, up_bias: Tensor, conv_weight: Tensor, conv_bias: Tensor, ratio: int
) -> MergedUpsampler:
    """Multiplies an upsampler's two convolutions into one per phase, in float32 or better, rounded once.

    Args:
        up_weight, up_bias: pointwise convolution `[4rC, C, 1, 1, 1]`, `[4rC]`, channels ordered (a, b, z, C).
        conv_weight, conv_bias: causal convolution `[C, C, 3, 3, 3]`, `[C]`.
        ratio: r, how many frames one input frame becomes.
    """
    dtype, channels = up_weight.dtype, conv_weight.shape[0]
    wide = torch.promote_types(dtype, torch.float32)
    expand = up_weight.to(wide).view(2, 2, ratio, channels, channels)
    expand_bias = up_bias.to(wide).view(2, 2, ratio, channels)
    conv = conv_weight.to(wide)
    taps_t = 2 if ratio == 2 else 3
    weight = conv.new_zeros(4, ratio, channels, channels, taps_t, 2, 2)
    bias = conv_bias.to(wide).repeat(4, ratio, 1)
    row, column, corner = (conv.new_zeros(4, ratio, channels) for _ in range(3))
    for phase, z in ((p, z) for p in range(4) for z in range(ratio)):
        a, b = divmod(phase, 2)
        for k_t, k_h, k_w in ((t, h, w) for t in range(3) for h in range(3) for w in range(3)):
            # Output row 2i + a reads high-resolution row 2i + a + k - 1: low row i + (a + k - 1) // 2,
            # phase % 2.
            (low_h, phase_h), (low_w, phase_w) = divmod(a + k_h - 1, 2), divmod(b + k_w - 1, 2)
            low_t, phase_t = divmod(z + k_t - 2, 2) if ratio == 2 else (k_t - 2, 0)
            tap = conv[:, :, k_t, k_h, k_w]
            merged = tap @ expand[phase_h, phase_w, phase_t]
            weight[phase, z, :, :, low_t + taps_t - 1, low_h + 1 - a, low_w + 1 - b] += merged
            constant = tap @ expand_bias[phase_h, phase_w, phase_t]
            bias[phase, z] += constant
            beyond_row, beyond_column = k_h == 2 * a, k_w == 2 * b
            row[phase, z] += constant * beyond_row
            column[phase, z] += constant * beyond_column
            corner[phase, z] += constant * (beyond_row and beyond_column)
    return MergedUpsampler(*(part.flatten(1, 2).to(dtype) for part in (weight, bias, row, column, corner)))


def write_phase(
    out: Tensor,
    y: Tensor,
    merged: MergedUpsampler,
    phase: int,
    ratio: int,
    at_border: tuple[bool, bool] = (True, True),
) -> None:
    """Puts one phase into the output `[B, C, rT, 2H, 2W]`.

    `y` `[B, rC, T, H+1, W+1]` comes from a convolution that sees one more row and column on every side:
    phase 0 of an axis uses its leading positions, phase 1 its trailing ones. `at_border` says whether the
    first and the last row are the picture's own, rather than those of a band in it. `y` is modified in
    place.
    """
    a, b = divmod(phase, 2)
    y = y[..., a : y.shape[-2] - 1 + a, b : y.shape[-1] - 1 + b]
    row, column, corner = (part[phase][:, None] for part in merged[2:])
    edge_row, edge_column = (-1 if a else 0), (-1 if b else 0)
    y[..., :, edge_column] -= column[..., None]
    if at_border[a]:
        y[..., edge_row, :] -= row[..., None]
        y[..., edge_row, edge_column] += corner
    channels = out.shape[1]
    for z in range(ratio):
        out[:, :, z::ratio, a::2, b::2] = y[:, z * channels : (z + 1) * channels]


def interleave(u: Tensor, ratio: int) -> Tensor:
    """Channels into space and time: `[B, 4rC, T, H, W]` -> `[B, C, rT, 2H, 2W]` (vae_and_pipeline.md, 3.5).

    The input's channels are ordered (row phase, column phase, frame phase, channel), the last one fastest;
    that is not the order of PyTorch's pixel shuffle.
    """
    batch, channels, frames, height, width = u.shape
    out = u.view(batch, 2, 2, ratio, channels // (4 * ratio), frames, height, width)
    out = out.permute(0, 4, 5, 3, 6, 1, 7, 2)
    return out.reshape(batch, -1, frames * ratio, 2 * height, 2 * width)


def to_channels_last(x: Tensor) -> Tensor:
    """The same values with the channel as the fastest axis in memory; five dimensions."""
    return x.contiguous(memory_format=torch.channels_last_3d)
