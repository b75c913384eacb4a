"""Frames split by rows over ranks: what convolutions, norms and attention need from the neighbours.

Shapes: `[..., H, W]` with the rows of the whole picture cut into one consecutive band per rank, top to
bottom. Every function is the identity at world 1. Exact up to the order of sums (performance.md, section
3.6).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.distributed as dist
from torch import Tensor

from gpu_worker.parallel.ranks import Ranks


def bands(num_rows: int, ranks: Ranks) -> tuple[int, ...]:
    """How many rows each rank gets; raises ValueError when there are fewer rows than ranks."""
    if num_rows < ranks.world:
        raise ValueError(f"{num_rows} rows do not go round {ranks.world} ranks")
    edges = [rank * num_rows // ranks.world for rank in range(ranks.world + 1)]
    return tuple(after - before for before, after in pairwise(edges))


def take_band(x: Tensor, sizes: Sequence[int], scale: int, ranks: Ranks) -> Tensor:
    """This rank's rows of the whole picture; `sizes` from `bands`, in units of `scale` rows of x."""
    if ranks.world == 1:
        return x
    first = sum(sizes[: ranks.rank]) * scale
    return x[..., first : first + sizes[ranks.rank] * scale, :]


def with_neighbours(x: Tensor, above: int, below: int, ranks: Ranks) -> Tensor:
    """Adds rows of the neighbouring bands, zeros beyond the picture: `[..., H, W]` -> `[..., a + H + b, W]`.

    `above` and `below` are at most the rows of the thinnest band.
    """
    if ranks.world == 1 or above == below == 0:
        return x
    height = x.shape[-2]
    first, last = x[..., :below, :].contiguous(), x[..., height - above :, :].contiguous()
    from_above, from_below = torch.zeros_like(last), torch.zeros_like(first)
    transfers = []
    if ranks.rank > 0:
        transfers += _swap(first, from_above, ranks.rank - 1, ranks)
    if ranks.rank < ranks.world - 1:
        transfers += _swap(last, from_below, ranks.rank + 1, ranks)
    for work in dist.batch_isend_irecv(transfers):
        work.wait()
    return torch.cat([from_above, x, from_below], -2)


def _swap(sent: Tensor, received: Tensor, peer: int, ranks: Ranks) -> list[dist.P2POp]:
    """Both directions with one neighbour; rows that nobody needs do not travel."""
    pairs = [(dist.isend, sent), (dist.irecv, received)]
    return [dist.P2POp(op, rows, group=ranks.group, group_peer=peer) for op, rows in pairs if rows.numel()]


def join_bands(x: Tensor, sizes: Sequence[int], dim: int, ranks: Ranks) -> Tensor:
    """Every rank's part, one after the other along `dim`, on every rank; `sizes` along it may differ."""
    if ranks.world == 1:
        return x
    mine = x.movedim(dim, 0)
    filled = mine.new_zeros((max(sizes), *mine.shape[1:]))
    filled[: len(mine)] = mine
    parts = [torch.empty_like(filled) for _ in sizes]
    dist.all_gather(parts, filled, group=ranks.group)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]).movedim(0, dim)


def join_moments(mean: Tensor, variance: Tensor, count: int, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over all ranks from each rank's own and its count of values.

    Joins deviations from the means (Chan, Golub, LeVeque, 1979) instead of sums of squares, which lose
    digits.
    """
    if ranks.world == 1:
        return mean, variance
    mine = torch.stack([mean, variance, torch.full_like(mean, count)])
    parts = [torch.empty_like(mine) for _ in range(ranks.world)]
    dist.all_gather(parts, mine, group=ranks.group)
    means, variances, counts = torch.stack(parts).unbind(1)
    share = counts / counts.sum(0)
    joined = (share * means).sum(0)
    return joined, (share * (variances + (means - joined).square())).sum(0)
