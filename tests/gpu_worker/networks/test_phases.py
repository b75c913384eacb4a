"""Stages that take turns: what waits on the host comes back with every bit, and leaves the device meanwhile."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from gpu_worker.engine.phases import Evictable, Parked
from gpu_worker.engine.presets import PRESETS
from gpu_worker.models.checkpoint import random_weights
from gpu_worker.models.dit import NaDiT

pytestmark = pytest.mark.torch
CPU = torch.device("cpu")


def test_parked_tensors_come_back_in_order_once_the_phase_is_over() -> None:
    running = []

    def phase() -> Iterator[torch.Tensor]:
        for number in range(3):
            running.append(number)
            yield torch.full((2, 3), number / 3, dtype=torch.bfloat16)

    parked = Parked(phase())
    assert running == [0, 1, 2]
    back = list(parked.back())
    assert all(
        torch.equal(one, torch.full((2, 3), i / 3, dtype=torch.bfloat16)) for i, one in enumerate(back)
    )
    assert list(parked.back()) == []


@pytest.mark.parametrize("block_bytes", [1 << 30, 4096], ids=["one block", "many blocks"])
def test_evicted_weights_come_back_with_every_bit(block_bytes: int) -> None:
    config = PRESETS["tiny-7b"].transformer
    network = random_weights(lambda: NaDiT(config), seed=5, dtype=torch.bfloat16)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    places = {tensor.data_ptr() for tensor in network.parameters()}
    evictable = Evictable(network, CPU, block_bytes=block_bytes)

    for _ in range(2):
        evictable.evict()
        evictable.evict()
        assert evictable.is_away
        # Nothing points to the device's memory any more.
        assert not places & {tensor.data_ptr() for tensor in network.parameters()}
        evictable.restore()
        evictable.restore()
        assert not evictable.is_away

    after = network.state_dict()
    assert list(after) == list(before)
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name])
        assert tensor.dtype == before[name].dtype
        assert tensor.stride() == before[name].stride()


def test_other_layouts_than_rows_keep_their_strides() -> None:
    layer = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(1, 4, 8, 8)
    with torch.inference_mode():
        expected = layer(x)
        evictable = Evictable(layer, CPU)
        evictable.evict()
        evictable.restore()
        assert layer.weight.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(layer(x), expected)


@pytest.mark.gpu
def test_eviction_frees_the_device() -> None:
    network = nn.Linear(4096, 4096, device="cuda", dtype=torch.bfloat16)
    expected, before = network.weight.clone().cpu(), torch.cuda.memory_allocated()
    evictable = Evictable(network, torch.device("cuda"))
    evictable.evict()
    assert torch.cuda.memory_allocated() < before - 4096**2
    evictable.restore()
    assert torch.equal(network.weight.cpu(), expected)
