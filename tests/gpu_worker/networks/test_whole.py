"""A clip from bytes to bytes through the tiny networks: the announced size, and the same every time."""

import pytest
import torch

from gpu_worker.contract import ColorFix
from gpu_worker.diffusion.noise import chunk_noise, frame_noise
from gpu_worker.diffusion.sampler import SamplerConfig, assemble_condition, sample
from gpu_worker.engine.color import fix_color, quantize
from gpu_worker.engine.preprocess import exact_geometry, from_network, repeat_last, to_network
from gpu_worker.engine.presets import PRESETS, Networks, load_networks

pytestmark = pytest.mark.torch


def restore(
    networks: Networks,
    frames: torch.Tensor,
    size: tuple[int, int],
    seed: int,
    *,
    keyed_by_frame: bool = False,
) -> torch.Tensor:
    """uint8 `[T, 3, h, w]` -> uint8 `[T, 3, *size]`, in the order of docs/networks.md."""
    geometry = exact_geometry(tuple(frames.shape[-2:]), size)
    source = to_network(frames, geometry)[:, repeat_last(len(frames))]
    latent = networks.vae.to_latent(networks.vae.encode(source[None]).mean)
    shape = tuple(latent.shape[:3])
    condition = networks.transformer.condition(
        networks.prompt, [len(networks.prompt)], torch.tensor([1000.0])
    )

    def velocity(x: torch.Tensor, _t: torch.Tensor) -> torch.Tensor:
        return networks.transformer(x.flatten(0, 2), [shape], condition).unflatten(0, shape)

    model_input = assemble_condition(latent, None, torch.zeros(1))
    noise = (frame_noise if keyed_by_frame else chunk_noise)(seed, 0, latent.shape)
    restored = sample(noise, model_input, velocity, SamplerConfig())
    clip = networks.vae.decode(networks.vae.from_latent(restored))[0]
    output = from_network(clip, geometry, len(frames))
    style = from_network(source, geometry, len(frames))
    return quantize(fix_color(output, style, ColorFix.WAVELET))


@pytest.mark.parametrize("name", ["tiny-7b", "tiny-3b"])
@pytest.mark.parametrize("num_frames", [1, 7])
def test_clip_comes_back_restored_at_the_announced_size(name: str, num_frames: int) -> None:
    networks = load_networks(PRESETS[name], None, device=torch.device("cpu"), dtype=torch.float32)
    generator = torch.Generator().manual_seed(3)
    frames = torch.randint(0, 256, (num_frames, 3, 40, 51), generator=generator, dtype=torch.uint8)

    first = restore(networks, frames, (79, 101), seed=42)

    assert first.shape == (num_frames, 3, 79, 101)
    assert first.dtype is torch.uint8
    assert torch.equal(restore(networks, frames, (79, 101), seed=42), first)
    assert not torch.equal(restore(networks, frames, (79, 101), seed=43), first)
    # The wavelet keeps the source's coarse colours whatever the random networks make of the detail.
    assert abs(first.float().mean() - frames.float().mean()) < 8
