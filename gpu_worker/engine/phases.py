"""Lets the stages take turns on a GPU: latents wait on the host, and the transformer's weights may wait there too.

Both ways keep every bit. Host memory is pinned when the device is a GPU, so that copies run at the bus's speed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import torch
from torch import Tensor, nn

#: PyTorch pins host memory in powers of two: weights share blocks of this size, of which nothing is wasted.
_BLOCK_BYTES: Final = 1 << 30
#: Where one of several tensors begins in a block.
_ALIGNMENT: Final = 256


class Parked:
    """Tensors of one phase that wait on the host for the next one; each is given back once, in order."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        """Runs a phase to its end: `tensors` is drained, and what its generator holds on the device is freed."""
        self._waiting: list[Tensor] = []
        device = torch.device("cpu")
        for tensor in tensors:
            device = tensor.device
            host = torch.empty_like(tensor, device="cpu", pin_memory=device.type == "cuda")
            self._waiting.append(host.copy_(tensor, non_blocking=True))
        self._device = device
        _finish_copies(device)

    def back(self) -> Iterator[Tensor]:
        """Yields the tensors on the device where they came from, and frees the host's."""
        self._waiting.reverse()
        while self._waiting:
            yield self._waiting.pop().to(self._device, non_blocking=True)


class Evictable:
    """A loaded network whose weights can leave its device and come back; both are for free when nothing moves.

    Weights never change, so the host's copy is made at the first eviction and kept; later ones copy nothing.
    """

    def __init__(self, network: nn.Module, device: torch.device, *, block_bytes: int = _BLOCK_BYTES) -> None:
        self._network = network
        self._device = device
        self._block_bytes = block_bytes
        self._copies: list[Tensor] | None = None
        #: True while the weights are on the host; the network must not run then.
        self.is_away = False

    def evict(self) -> None:
        """Frees the weights' memory on the device."""
        if self.is_away:
            return
        if self._copies is None:
            self._copies = self._copied()
        for tensor, copy in zip(self._tensors(), self._copies, strict=True):
            tensor.data = copy
        self.is_away = True
        _release(self._device)

    def restore(self) -> None:
        """Brings the weights back, every bit and stride as before."""
        if not self.is_away:
            return
        assert self._copies is not None
        # What the phase before left in the allocator's cache may not have room for these.
        _release(self._device)
        for tensor, copy in zip(self._tensors(), self._copies, strict=True):
            tensor.data = torch.empty_like(copy, device=self._device).copy_(copy, non_blocking=True)
        _finish_copies(self._device)
        self.is_away = False

    def _tensors(self) -> list[Tensor]:
        return [*self._network.parameters(), *self._network.buffers()]

    def _copied(self) -> list[Tensor]:
        copies: list[Tensor] = []
        block, used = torch.empty(0, dtype=torch.uint8), 0
        for tensor in self._tensors():
            num_bytes = tensor.untyped_storage().nbytes()
            if used + num_bytes > len(block):
                size = max(self._block_bytes, num_bytes)
                block = torch.empty(size, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
                used = 0
            flat = block[used : used + num_bytes].view(tensor.dtype)
            copy = flat.as_strided(tensor.size(), tensor.stride())
            copies.append(copy.copy_(tensor.data, non_blocking=True))
            used += -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
        _finish_copies(self._device)
        return copies


def _finish_copies(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def _release(device: torch.device) -> None:
    """Gives freed memory back, so that the next phase can ask for it in other sizes."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
