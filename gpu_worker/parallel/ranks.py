"""Who takes part in a restoration: this process's rank, how many there are, and how they talk."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """A group of processes that work on the same clip; every collective is the identity when `world` is 1.

    `group` carries tensors (NCCL between GPUs, gloo between CPUs); `control` is always gloo and carries
    messages, so that a hung GPU cannot block them.
    """

    rank: int = 0
    world: int = 1
    group: dist.ProcessGroup | None = None
    control: dist.ProcessGroup | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank is {self.rank}; expected 0 to {self.world - 1}")
        if self.world > 1 and self.group is None:
            raise ValueError(f"{self.world} ranks need a process group")


#: One process on its own.
ALONE = Ranks()


def join(
    *, rank: int, world: int, address: str, device: torch.device, timeout: timedelta = timedelta(minutes=5)
) -> Ranks:
    """Joins the process group and proves it with one small all-reduce, so that a broken link fails here.

    `address` is where rank 0 listens (`tcp://host:port` or `file:///path`). Raises RuntimeError when the sum
    over the ranks is wrong, and torch's own errors when a rank does not come within `timeout`.
    """
    if world == 1:
        return ALONE
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=address, rank=rank, world_size=world, timeout=timeout)
    group = dist.group.WORLD
    control = dist.new_group(backend="gloo", timeout=timeout) if backend == "nccl" else group
    total = torch.tensor([rank + 1.0], device=device)
    dist.all_reduce(total, group=group)
    if int(total.item()) != world * (world + 1) // 2:
        raise RuntimeError(f"{world} ranks summed to {total.item()}; expected {world * (world + 1) // 2}")
    return Ranks(rank=rank, world=world, group=group, control=control)


def leave(ranks: Ranks) -> None:
    """Leaves the process group; the identity for one process."""
    if ranks.world > 1:
        dist.destroy_process_group()
