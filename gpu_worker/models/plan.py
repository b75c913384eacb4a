"""What depends on shapes alone: window order, rotations and segments, planned once and used by every block.

Shapes: Lv video tokens, Lt text tokens, Lp packed rows (every window's video tokens followed by its sample's
text), P rotated pairs. Text rows appear once per window.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpu_worker.kernels.attention import Segments
from gpu_worker.models.layers import Rotation, language_frequencies, pixel_frequencies
from gpu_worker.models.windows import Grid, Window, axis_pieces, partition


class Rope(enum.Enum):
    """Which positions and frequencies rotate queries and keys (dit.md, section 8)."""

    PIXEL = "pixel3d"  # 7B: positions -1..1, linear frequencies, video only
    LANGUAGE = "mmrope3d"  # 3B: integer positions, base 10000, video and text

    def frequencies(self, rope_dim: int) -> Tensor:
        """Float32 `[F]`, the same for each of the three axes; never read from a checkpoint."""
        return pixel_frequencies(rope_dim) if self is Rope.PIXEL else language_frequencies(rope_dim)


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowPlan:
    """One kind of windows for one packed batch; every tensor lies on the device of the tokens.

    `video_rows_L` int64 `[Lv]`: where each video token stands in the packed order.
    `text_rows_L` int64: where text stands, sample by sample, window by window.
    `text_source_L` int64: the text token behind each of those rows.
    `texts` per sample: how many windows its text stands in, and how many tokens it has.
    """

    segments: Segments
    video_rows_L: Tensor
    text_rows_L: Tensor
    text_source_L: Tensor
    texts: tuple[tuple[int, int], ...]
    video_rotation: Rotation
    text_rotation: Rotation | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Both kinds of windows for one packed batch, and which sample each token belongs to.

    `video_sample_L`, `text_sample_L` int64, or None for a single sample, whose vectors broadcast.
    """

    regular: WindowPlan
    shifted: WindowPlan
    video_sample_L: Tensor | None
    text_sample_L: Tensor | None

    def of_kind(self, *, shifted: bool) -> WindowPlan:
        """The windows of one kind."""
        return self.shifted if shifted else self.regular


def make_plan(
    grids: Sequence[Grid],
    text_lengths: Sequence[int],
    *,
    counts: Grid,
    rope: Rope,
    rope_dim: int,
    device: torch.device,
) -> Plan:
    """Plans a packed batch: token grids (T, H, W) after patching, and the text length of each sample."""
    if not grids or len(grids) != len(text_lengths):
        raise ValueError(f"{len(grids)} video samples and {len(text_lengths)} texts")

    def kind(*, shifted: bool) -> WindowPlan:
        return _plan_kind(grids, text_lengths, counts, rope, rope_dim, shifted, device)

    single = len(grids) == 1
    return Plan(
        regular=kind(shifted=False),
        shifted=kind(shifted=True),
        video_sample_L=None if single else _sample_ids([math.prod(grid) for grid in grids], device),
        text_sample_L=None if single else _sample_ids(text_lengths, device),
    )


def window_tokens(grid: Grid, window: Window) -> Tensor:
    """Rows of the row-major (T, H, W) sequence that lie in a window, int64, themselves row-major."""
    t0, t1, h0, h1, w0, w1 = window
    rows = torch.arange(t0, t1)[:, None, None] * grid[1] + torch.arange(h0, h1)[:, None]
    return (rows * grid[2] + torch.arange(w0, w1)).flatten()


def _plan_kind(
    grids: Sequence[Grid],
    text_lengths: Sequence[int],
    counts: Grid,
    rope: Rope,
    rope_dim: int,
    shifted: bool,
    device: torch.device,
) -> WindowPlan:
    windows = [
        (sample, window)
        for sample, grid in enumerate(grids)
        for window in partition(grid, counts, shifted=shifted)
    ]
    # Neighbours of equal length form one batch for PyTorch's attention; the longest first keeps kernels busy.
    windows.sort(key=lambda item: -(item[1].num_tokens + text_lengths[item[0]]))
    lengths = [window.num_tokens + text_lengths[sample] for sample, window in windows]
    video_starts = _starts([math.prod(grid) for grid in grids])
    video_rows_L = torch.empty(sum(math.prod(grid) for grid in grids), dtype=torch.int64)
    text_rows: list[list[Tensor]] = [[] for _ in grids]
    for start, (sample, window) in zip(_starts(lengths), windows, strict=True):
        tokens = window_tokens(grids[sample], window) + video_starts[sample]
        video_rows_L[tokens] = torch.arange(start, start + window.num_tokens)
        first = start + window.num_tokens
        text_rows[sample].append(torch.arange(first, first + text_lengths[sample]))
    text_starts = _starts(text_lengths)
    text_source = [
        torch.arange(start, start + length).repeat(len(rows))
        for start, length, rows in zip(text_starts, text_lengths, text_rows, strict=True)
    ]
    frequencies = rope.frequencies(rope_dim)
    return WindowPlan(
        segments=Segments.of(lengths, device),
        video_rows_L=video_rows_L.to(device),
        text_rows_L=torch.cat([torch.cat(rows) for rows in text_rows]).to(device),
        text_source_L=torch.cat(text_source).to(device),
        texts=tuple((len(rows), length) for rows, length in zip(text_rows, text_lengths, strict=True)),
        video_rotation=_video_rotation(grids, text_lengths, counts, rope, frequencies, shifted, device),
        text_rotation=_text_rotation(text_lengths, frequencies, device) if rope is Rope.LANGUAGE else None,
    )


def _video_rotation(
    grids: Sequence[Grid],
    text_lengths: Sequence[int],
    counts: Grid,
    rope: Rope,
    frequencies_F: Tensor,
    shifted: bool,
    device: torch.device,
) -> Rotation:
    """Rotations of all video tokens in grid order; positions restart in every window."""
    samples = []
    for grid, text_length in zip(grids, text_lengths, strict=True):
        axes = []
        for dim, pieces in enumerate(axis_pieces(grid, counts, shifted=shifted)):
            if rope is Rope.PIXEL:
                # The ends of a window are -1 and 1 whatever its extent; one lone token stands at -1.
                position = torch.cat([torch.linspace(-1.0, 1.0, last - first) for first, last in pieces])
            else:
                position = torch.cat([torch.arange(last - first) for first, last in pieces]).float()
                # Video continues the text's time line.
                position += text_length if dim == 0 else 0
            angle_nF = position[:, None] * frequencies_F
            axes.append(angle_nF.view(*(-1 if d == dim else 1 for d in range(3)), len(frequencies_F)))
        samples.append(torch.cat([axis.expand(*grid, -1) for axis in axes], -1).flatten(0, 2))
    return _rotation(torch.cat(samples), device)


def _text_rotation(text_lengths: Sequence[int], frequencies_F: Tensor, device: torch.device) -> Rotation:
    """Text token m stands at m on all three axes, in every window."""
    position = torch.cat([torch.arange(length) for length in text_lengths]).float()
    return _rotation((position[:, None] * frequencies_F).repeat(1, 3), device)


def _rotation(angle_LP: Tensor, device: torch.device) -> Rotation:
    return Rotation(angle_LP.cos()[:, None].to(device), angle_LP.sin()[:, None].to(device))


def _sample_ids(lengths: Sequence[int], device: torch.device) -> Tensor:
    return torch.repeat_interleave(torch.tensor(list(lengths))).to(device)


def _starts(lengths: Sequence[int]) -> list[int]:
    starts, total = [], 0
    for length in lengths:
        starts.append(total)
        total += length
    return starts
