"""Moves pictures to a device and back, without keeping it or the caller waiting.

On a GPU, host memory is pinned and copies run on streams of their own, beside the networks; on a CPU nothing has
to move, and the same calls pass everything on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from gpu_worker.engine.pictures import Pixels


class Transfers(Protocol):
    """Between the host and one device."""

    def to_device(self, pictures: Sequence[Pixels]) -> Tensor:
        """Returns pictures of one size and type on the device, `[n, ...]`."""

    def to_host(self, tensor: Tensor) -> Callable[[], Pixels]:
        """Begins to fetch a tensor; what is returned waits for it, on any thread."""


class OnHost:
    """The device is the host."""

    def to_device(self, pictures: Sequence[Pixels]) -> Tensor:
        """Puts the pictures into one tensor."""
        return torch.from_numpy(np.stack(pictures))

    def to_host(self, tensor: Tensor) -> Callable[[], Pixels]:
        """Passes the tensor on."""
        return tensor.contiguous().numpy


class OnGpu:
    """A GPU behind a bus."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._inward = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._outward = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def to_device(self, pictures: Sequence[Pixels]) -> Tensor:
        """Copies pictures to the GPU; whatever is asked of the GPU next waits for them, the caller does not."""
        first = torch.from_numpy(pictures[0])
        host = torch.empty((len(pictures), *first.shape), dtype=first.dtype, pin_memory=True)
        for place, picture in zip(host, pictures, strict=True):
            place.copy_(torch.from_numpy(picture))
        with torch.cuda.stream(self._inward):
            tensor = host.to(self._device, non_blocking=True)
        here = torch.cuda.current_stream(self._device)
        here.wait_stream(self._inward)
        tensor.record_stream(here)
        return tensor

    def to_host(self, tensor: Tensor) -> Callable[[], Pixels]:
        """Copies a tensor to the host once it is computed; the GPU goes on meanwhile."""
        tensor = tensor.contiguous()
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._outward.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._outward):
            host.copy_(tensor, non_blocking=True)
        tensor.record_stream(self._outward)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record(self._outward)

        def wait() -> Pixels:
            arrived.synchronize()
            pixels: Pixels = host.numpy()
            return pixels

        return wait


def transfers_for(device: torch.device) -> Transfers:
    """Returns what moves pictures to and from a device."""
    return OnGpu(device) if device.type == "cuda" else OnHost()
