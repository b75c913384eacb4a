"""The VAE in tiles, for frames that do not fit (vae_and_pipeline.md, section 13.4).

An approximation: group norm and attention see a tile instead of the frame, so each tile is normalised with
its own statistics. Every exact means (slices, few frames per call, strips inside convolutions) comes first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

#: Runs the codec on one tile: the whole clip in time, `[B, C, T, H, W]` -> `[B, C', T', H', W']`.
Codec = Callable[[Tensor], Tensor]


class Span(NamedTuple):
    """A tile's extent along one axis, in latents, half-open."""

    first: int
    last: int


def spans(size: int, tile: int, overlap: int) -> list[Span]:
    """Cuts one axis into tiles that overlap; a rest that an overlap already covers gets no tile."""
    if tile < 1 or not 0 <= overlap < tile:
        raise ValueError(f"tiles of {tile} latents with an overlap of {overlap}")
    cut = [Span(first, min(first + tile, size)) for first in range(0, size, tile - overlap)]
    return [span for span in cut if span.first == 0 or span.last - span.first > overlap]


def encode_tiled(encode: Codec, x: Tensor, *, tile: int, overlap: int, factor: int = 8) -> Tensor:
    """Encodes `[B, 3, T, H, W]` in tiles of `tile` pixels; returns blended moments `[B, C, t, H/8, W/8]`."""
    return _tiled(encode, x, tile, overlap, factor, encodes=True)


def decode_tiled(decode: Codec, z: Tensor, *, tile: int, overlap: int, factor: int = 8) -> Tensor:
    """Decodes `[B, C, t, h, w]` in tiles of `tile` pixels; returns blended pixels `[B, 3, T, 8h, 8w]`."""
    return _tiled(decode, z, tile, overlap, factor, encodes=False)


def _tiled(codec: Codec, x: Tensor, tile: int, overlap: int, factor: int, *, encodes: bool) -> Tensor:
    latent_tile = max(1, tile // factor)
    latent_overlap = min(overlap // factor, latent_tile - 1)
    sizes = [side // factor if encodes else side for side in x.shape[-2:]]
    rows, columns = (spans(size, latent_tile, latent_overlap) for size in sizes)
    if len(rows) == len(columns) == 1:
        return codec(x)
    into, out_of, ramp = (factor, 1, latent_overlap) if encodes else (1, factor, overlap)
    total: Tensor | None = None
    weight = torch.zeros(sizes[0] * out_of, sizes[1] * out_of, device=x.device)
    for row in rows:
        for column in columns:
            piece = x[..., row.first * into : row.last * into, column.first * into : column.last * into]
            out = codec(piece)
            if total is None:
                total = torch.zeros(*out.shape[:-2], *weight.shape, device=x.device)
            mask = (_ramps(row, sizes[0], out_of, ramp)[:, None] * _ramps(column, sizes[1], out_of, ramp)).to(
                x.device
            )
            place = (
                slice(row.first * out_of, row.last * out_of),
                slice(column.first * out_of, column.last * out_of),
            )
            total[..., place[0], place[1]] += out.float() * mask
            weight[place] += mask
    assert total is not None
    return (total / weight.clamp_min(1e-6)).to(x.dtype)


def _ramps(span: Span, size: int, factor: int, ramp: int) -> Tensor:
    """One axis of a tile's weights: 1 inside, a raised cosine on every edge that is not the picture's."""
    length = (span.last - span.first) * factor
    rising = 0.5 - 0.5 * torch.cos(math.pi * torch.linspace(0.0, 1.0, ramp))
    if length <= ramp:
        rising = rising[: length - 1]
    weights = torch.ones(length)
    if span.first > 0 and len(rising):
        weights[: len(rising)] = rising
    if span.last < size and len(rising):
        weights[-len(rising) :] = 1.0 - rising  # where both edges ramp, the trailing one has the last word
    return weights
