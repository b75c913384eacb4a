"""Convolutions of bounded size: strips of rows, with the values of one call (vae_and_pipeline.md, 7)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def conv_in_strips(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: Sequence[int],
    padding: tuple[int, int],
    max_elements: int,
) -> Tensor:
    """Convolves, one strip of output rows after the other where a call would grow too large.

    Args:
        x: `[B, C, H, W]` or `[B, C, T, H, W]`, any memory format; never padded in time.
        weight: `[O, C, kh, kw]` or `[O, C, kt, kh, kw]`, which decides between two and three dimensions.
        bias: `[O]` or None.
        stride: one number per kernel axis.
        padding: zero rows above and below, zero columns left and right.
        max_elements: most elements that the input or the output of one call may have. Kernels index with 32
            bits, and libraries need workspace in proportion. A strip has at least one output row.
    """
    height, (kernel_rows, row_stride) = x.shape[-2], (weight.shape[-2], stride[-2])
    out_rows = (height + 2 * padding[0] - kernel_rows) // row_stride + 1
    # Output rows have as many elements as input rows, up to channels and strides.
    per_row = max(
        x.numel() // height * row_stride, x.numel() // (height * x.shape[1] * row_stride) * weight.shape[0]
    )
    if max(x.numel(), per_row * out_rows) <= max_elements:
        return _conv(x, weight, bias, stride, padding)
    rows = max(1, max_elements // per_row - kernel_rows)
    out: Tensor | None = None
    for first in range(0, out_rows, rows):
        last = min(first + rows, out_rows)
        top, bottom = first * row_stride - padding[0], (last - 1) * row_stride - padding[0] + kernel_rows
        strip = x[..., max(top, 0) : min(bottom, height), :]
        # Zero rows belong to the picture's border alone; between strips the neighbours' rows serve.
        strip = F.pad(strip, (0, 0, max(-top, 0), max(bottom - height, 0)))
        part = _conv(strip, weight, bias, stride, (0, padding[1]))
        if out is None:
            out = _empty_rows(part, out_rows)
        out[..., first:last, :] = part
    assert out is not None
    return out


def _conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: tuple[int, int]
) -> Tensor:
    if weight.ndim == 4:
        return F.conv2d(x, weight, bias, tuple(stride), padding)
    return F.conv3d(x, weight, bias, tuple(stride), (0, *padding))


def _empty_rows(like: Tensor, rows: int) -> Tensor:
    """An empty tensor of the shape of `like` but for the rows, in its memory format."""
    shape = (*like.shape[:-2], rows, like.shape[-1])
    return empty_like_format(shape, like)


def empty_like_format(shape: Sequence[int], like: Tensor) -> Tensor:
    """An empty tensor with the dtype, device and memory format of `like`, channels last or first."""
    channels_last = torch.channels_last_3d if len(shape) == 5 else torch.channels_last
    is_last = like.is_contiguous(memory_format=channels_last)
    return torch.empty(
        tuple(shape),
        dtype=like.dtype,
        device=like.device,
        memory_format=channels_last if is_last else torch.contiguous_format,
    )
