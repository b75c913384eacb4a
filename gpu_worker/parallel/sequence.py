"""Sequence parallelism: each rank holds a slice of the tokens and attends with a share of the heads.

Shapes: L tokens of all ranks, u = ceil(L / world) rows per rank (the last ones zero), N heads, D head size,
n = N / world local heads, S stacked tensors (3 for q, k, v). The scheme is that of DeepSpeed-Ulysses
(arXiv:2309.14509), laid out in dit.md, section 12.2. Each function is the identity at world 1.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from gpu_worker.parallel.ranks import Ranks


def rows_per_rank(num_rows: int, ranks: Ranks) -> int:
    """u: how many rows each rank holds, counting the zero rows that fill the last ranks."""
    return -(-num_rows // ranks.world)


def shard_rows(x_LC: Tensor, ranks: Ranks) -> Tensor:
    """Takes this rank's rows: `[L, ...]` on every rank -> `[u, ...]`, zero-filled at the end."""
    if ranks.world == 1:
        return x_LC
    rows = rows_per_rank(x_LC.shape[0], ranks)
    mine = x_LC[ranks.rank * rows : (ranks.rank + 1) * rows]
    return _fill_rows(mine, rows)


def gather_rows(x_uC: Tensor, num_rows: int, ranks: Ranks) -> Tensor:
    """Undoes `shard_rows` on every rank: `[u, ...]` -> `[L, ...]` with L = `num_rows`."""
    if ranks.world == 1:
        return x_uC
    out = x_uC.new_empty((ranks.world * x_uC.shape[0], *x_uC.shape[1:]))
    dist.all_gather(list(out.chunk(ranks.world)), x_uC.contiguous(), group=ranks.group)
    return out[:num_rows]


def tokens_to_heads(x_uSND: Tensor, num_rows: int, ranks: Ranks) -> Tensor:
    """All-to-all from my tokens of all heads to all tokens of my heads: `[u, S, N, D]` -> `[L, S, n, D]`.

    Raises ValueError when the heads do not divide by the ranks.
    """
    if ranks.world == 1:
        return x_uSND
    num_heads = x_uSND.shape[2]
    if num_heads % ranks.world:
        raise ValueError(f"{num_heads} heads do not divide by {ranks.world} ranks")
    send = torch.unflatten(x_uSND, 2, (ranks.world, -1)).permute(2, 0, 1, 3, 4).contiguous()
    received = torch.empty_like(send)
    dist.all_to_all_single(received, send, group=ranks.group)
    return received.flatten(0, 1)[:num_rows]


def heads_to_tokens(x_LnD: Tensor, ranks: Ranks) -> Tensor:
    """All-to-all back from all tokens of my heads to my tokens of all heads: `[L, n, D]` -> `[u, N, D]`."""
    if ranks.world == 1:
        return x_LnD
    rows = rows_per_rank(x_LnD.shape[0], ranks)
    send = _fill_rows(x_LnD, rows * ranks.world).contiguous()
    received = torch.empty_like(send)
    dist.all_to_all_single(received, send, group=ranks.group)
    # Rank r sent the heads r*n to (r+1)*n, so blocks of rows become blocks of heads.
    return torch.unflatten(received, 0, (ranks.world, rows)).transpose(0, 1).flatten(1, 2)


def _fill_rows(x: Tensor, num_rows: int) -> Tensor:
    missing = num_rows - x.shape[0]
    return F.pad(x, (0, 0) * (x.ndim - 1) + (0, missing)) if missing else x
