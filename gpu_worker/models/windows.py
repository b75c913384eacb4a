"""Attention windows over a token grid: which tokens attend to each other (dit.md, section 7).

Pure index arithmetic on the standard library. All intervals are half-open and count tokens, not pixels;
grids are (frames T, rows H, columns W) after patching.

    regular, w = 15, n = 45      |0    15   |15   30   |30   45   |
    shifted, w = 15, n = 45      |0 7|7     22|22     37|37    45|      half a window first, then whole ones

There is no roll, no mask and no padding: windows at a border are simply smaller sequences.
"""

from __future__ import annotations

import math
from typing import NamedTuple

#: Frames, rows and columns of tokens; also the number of windows along each axis of a reference frame.
Grid = tuple[int, int, int]

#: The token area that the window size is scaled to: a 720p frame of 45 x 80 tokens.
REFERENCE_AREA = 45 * 80
#: Windows stop growing in time at this number of latent frames.
MAX_WINDOW_FRAMES = 30


class Window(NamedTuple):
    """A box of tokens, half-open on every axis."""

    t0: int
    t1: int
    h0: int
    h1: int
    w0: int
    w1: int

    @property
    def shape(self) -> Grid:
        """Frames, rows and columns inside the window."""
        return self.t1 - self.t0, self.h1 - self.h0, self.w1 - self.w0

    @property
    def num_tokens(self) -> int:
        """Tokens inside the window."""
        return math.prod(self.shape)


def window_size(grid: Grid, counts: Grid) -> Grid:
    """Returns the extent (t, h, w) of a full window for a token grid.

    Spatially a window covers 1 / (counts[1] * counts[2]) of a frame of `REFERENCE_AREA` with the aspect ratio
    of the grid, so its size does not depend on the resolution. It may be larger than the grid.
    """
    _check("grid", grid)
    _check("counts", counts)
    frames, rows, columns = grid
    # Divide first, then take the root: the order decides ties. Python's round is ties-to-even, as required.
    scale = math.sqrt(REFERENCE_AREA / (rows * columns))
    return (
        math.ceil(min(frames, MAX_WINDOW_FRAMES) / counts[0]),
        math.ceil(round(rows * scale) / counts[1]),
        math.ceil(round(columns * scale) / counts[2]),
    )


def cut_axis(length: int, size: int, *, shifted: bool) -> list[tuple[int, int]]:
    """Cuts `length` tokens into consecutive pieces of at most `size`; the last one is whatever is left.

    Shifted axes begin with half a window, rounded down; an axis that one window covers is never shifted.
    """
    if size < 1 or length < 1:
        raise ValueError(f"cannot cut {length} tokens into windows of {size}")
    if shifted and size < length:
        # The first cut of windows of one token falls on 0 and would leave an empty piece.
        inner = [cut for k in range(length // size + 1) if 0 < (cut := (2 * k + 1) * size // 2) < length]
    else:
        inner = list(range(size, length, size))
    return list(zip([0, *inner], [*inner, length], strict=True))


def axis_pieces(grid: Grid, counts: Grid, *, shifted: bool) -> tuple[list[tuple[int, int]], ...]:
    """Returns the pieces of the T, the H and the W axis; windows are their Cartesian product."""
    sizes = window_size(grid, counts)
    return tuple(cut_axis(length, size, shifted=shifted) for length, size in zip(grid, sizes, strict=True))


def partition(grid: Grid, counts: Grid, *, shifted: bool) -> list[Window]:
    """Returns every window of a grid in packed order: W outermost, then H, T innermost."""
    pieces_t, pieces_h, pieces_w = axis_pieces(grid, counts, shifted=shifted)
    return [Window(*t, *h, *w) for w in pieces_w for h in pieces_h for t in pieces_t]


def _check(name: str, values: Grid) -> None:
    if len(values) != 3 or min(values) < 1:
        raise ValueError(f"{name} is {values}; expected three numbers of at least 1")
