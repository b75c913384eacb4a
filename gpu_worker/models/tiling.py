"""The VAE in tiles, for frames that do not fit (vae_and_pipeline.md, section 13.4).

An approximation: group norm and attention see a tile instead of the frame, so each tile is normalised with
its own statistics. Every exact means (slices, few frames per call, strips inside convolutions) comes first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

#: Runs the codec on one tile: the whole clip in time, `[B, C, T, H, W]` -> `[B, C', T', H', W']`.
Codec = Callable[[Tensor], Tensor]
#: Begins a stream of tiles: what it returns is called with one slice after the other.
StreamCodec = Callable[[], Codec]


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """Where a tile comes from, where its result goes, and how much it counts there `[rows, columns]`."""

    source: tuple[slice, slice]
    target: tuple[slice, slice]
    mask: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The tiles of one direction; `weight` `[rows, columns]` is what they count in all."""

    tiles: tuple[Tile, ...]
    weight: Tensor

    def add(self, total: Tensor, tile: Tile, out: Tensor) -> None:
        """Adds the result of one tile to `total` `[..., rows, columns]`, wherever that lies."""
        counted = out.float() * tile.mask.to(out.device)
        total[..., tile.target[0], tile.target[1]] += counted.to(total.device, total.dtype)

    def blended(self, total: Tensor) -> Tensor:
        """The mean of what the tiles added."""
        return total / self.weight.to(total.device).clamp_min(1e-6)


def encoder_layout(size: tuple[int, int], *, tile: int, overlap: int, factor: int = 8) -> Layout:
    """Tiles of `tile` pixels over frames of `size` (rows, columns); results are latents."""
    return _layout((size[0] // factor, size[1] // factor), tile, overlap, factor, encodes=True)


def decoder_layout(size: tuple[int, int], *, tile: int, overlap: int, factor: int = 8) -> Layout:
    """Tiles of `tile` pixels over latents of `size` (rows, columns); results are pixels."""
    return _layout(size, tile, overlap, factor, encodes=False)


def encode_tiled(encode: Codec, x: Tensor, *, tile: int, overlap: int, factor: int = 8) -> Tensor:
    """Encodes `[B, 3, T, H, W]` in tiles of `tile` pixels; returns blended moments `[B, C, t, H/8, W/8]`."""
    size = (x.shape[-2], x.shape[-1])
    return _tiled(encode, x, encoder_layout(size, tile=tile, overlap=overlap, factor=factor))


def decode_tiled(decode: Codec, z: Tensor, *, tile: int, overlap: int, factor: int = 8) -> Tensor:
    """Decodes `[B, C, t, h, w]` in tiles of `tile` pixels; returns blended pixels `[B, 3, T, 8h, 8w]`."""
    size = (z.shape[-2], z.shape[-1])
    return _tiled(decode, z, decoder_layout(size, tile=tile, overlap=overlap, factor=factor))


def _tiled(codec: Codec, x: Tensor, layout: Layout) -> Tensor:
    if len(layout.tiles) == 1:
        return codec(x)
    total: Tensor | None = None
    for tile in layout.tiles:
        out = codec(x[..., tile.source[0], tile.source[1]])
        if total is None:
            total = torch.zeros(*out.shape[:-2], *layout.weight.shape, device=x.device)
        layout.add(total, tile, out)
    assert total is not None
    return layout.blended(total).to(x.dtype)


def stream_tiled(
    codec: StreamCodec, slices: Callable[[], Iterator[Tensor]], layout: Layout, *, dtype: torch.dtype
) -> Iterator[Tensor]:
    """Yields the blended results of a stream's slices, each `[B, C, T, rows, columns]` on the host.

    A tile sees the whole stream before the next one begins, so that one tile's caches are held at a time; the
    results of all slices wait on the host. Equal to tiles over the whole clip.

    Args:
        codec: begins a stream; what it returns takes the slices in order.
        slices: begins the stream's slices anew, for each tile.
        layout: the tiles.
        dtype: of results that wait; they are at most a few units large.
    """
    totals: list[Tensor] = []
    for tile in layout.tiles:
        push = codec()
        for index, piece in enumerate(slices()):
            out = push(piece[..., tile.source[0], tile.source[1]])
            if index == len(totals):
                totals.append(torch.zeros(*out.shape[:-2], *layout.weight.shape, dtype=dtype))
            layout.add(totals[index], tile, out)
    totals.reverse()
    while totals:
        yield layout.blended(totals.pop())


def _layout(latent_size: tuple[int, int], tile: int, overlap: int, factor: int, *, encodes: bool) -> Layout:
    latent_tile = max(1, tile // factor)
    latent_overlap = min(overlap // factor, latent_tile - 1)
    rows, columns = (spans(size, latent_tile, latent_overlap) for size in latent_size)
    into, out_of, ramp = (factor, 1, latent_overlap) if encodes else (1, factor, overlap)
    tiles = tuple(
        Tile(
            source=(_scaled(row, into), _scaled(column, into)),
            target=(_scaled(row, out_of), _scaled(column, out_of)),
            mask=_ramps(row, latent_size[0], out_of, ramp)[:, None]
            * _ramps(column, latent_size[1], out_of, ramp),
        )
        for row in rows
        for column in columns
    )
    weight = torch.zeros(latent_size[0] * out_of, latent_size[1] * out_of)
    for one in tiles:
        weight[one.target] += one.mask
    return Layout(tiles=tiles, weight=weight)


def _scaled(span: Span, factor: int) -> slice:
    return slice(span.first * factor, span.last * factor)


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
