"""The VAE: streamed = whole, fast = plain, bounded = unbounded, and what it refuses."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_worker.kernels.conv import conv_in_strips
from gpu_worker.kernels.norm import group_moments, normalise_groups
from gpu_worker.models.checkpoint import load_weights, random_weights
from gpu_worker.models.upsample import merge_upsampler
from gpu_worker.models.vae import VAEConfig, VideoVAE
from gpu_worker.models.vae_layers import PLAIN, Execution, Stream, Upsampler

pytestmark = pytest.mark.torch

TINY = VAEConfig(latent_channels=4, block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=4)


@pytest.fixture(scope="module")
def vae() -> VideoVAE:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return VideoVAE(TINY).prepare()


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def clip(num_frames: int, batch: int = 1, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 3, num_frames, 24, 16, generator=generator) * 2 - 1


def latents(num_latents: int, batch: int = 1, seed: int = 2) -> torch.Tensor:
    return torch.randn(batch, 4, num_latents, 3, 2, generator=torch.Generator().manual_seed(seed))


def pushed(vae: VideoVAE, direction: str, x: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    push = {"encode": vae.encode_slice, "decode": vae.decode_slice}[direction]
    stream = vae.stream()
    parts = x.split(sizes, 2)
    out = [push(part, stream, ends=index == len(parts) - 1) for index, part in enumerate(parts)]
    assert stream.num_bytes == 0
    return torch.cat(out, 2)


EXECUTIONS = st.builds(
    Execution,
    fold_images=st.booleans(),
    merge_upsamplers=st.booleans(),
    frames_per_call=st.sampled_from([None, 1, 2, 3]),
    max_elements=st.sampled_from([2**31 - 1, 9000]),
)


@given(sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4), execution=EXECUTIONS)
@settings(max_examples=40)
def test_decoding_in_any_slices_equals_decoding_at_once(
    vae: VideoVAE, sizes: list[int], execution: Execution
) -> None:
    with torch.inference_mode():
        z = latents(sum(sizes))
        vae.execution = PLAIN
        whole = vae.decode(z)
        vae.execution = execution
        streamed = pushed(vae, "decode", z, sizes)

    assert whole.shape[2] == 4 * (sum(sizes) - 1) + 1
    assert relative_error(streamed, whole) < 1e-5


@given(groups=st.lists(st.integers(0, 2), min_size=1, max_size=4), execution=EXECUTIONS)
@settings(max_examples=40)
def test_encoding_in_any_legal_slices_equals_encoding_at_once(
    vae: VideoVAE, groups: list[int], execution: Execution
) -> None:
    sizes = [1 + 4 * groups[0]] + [4 * max(1, group) for group in groups[1:]]
    with torch.inference_mode():
        x = clip(sum(sizes))
        vae.execution = PLAIN
        whole = vae.encode_slice(x, vae.stream(), ends=True)
        vae.execution = execution
        streamed = pushed(vae, "encode", x, sizes)

    assert relative_error(streamed, whole) < 1e-5


@pytest.mark.parametrize("execution", [PLAIN, Execution()], ids=["plain", "fast"])
def test_clips_of_a_batch_do_not_see_each_other(vae: VideoVAE, execution: Execution) -> None:
    vae.execution = execution
    x, z = clip(9, batch=2), latents(3, batch=2)

    together = vae.encode(x).mean, vae.decode(z)
    for index in range(2):
        one = slice(index, index + 1)
        assert relative_error(together[0][one], vae.encode(x[one]).mean) < 1e-5
        assert relative_error(together[1][one], vae.decode(z[one])) < 1e-5


@pytest.mark.parametrize(
    ("widths", "doublings"), [((8, 8, 16, 16), 0), ((8, 8, 16, 16), 3), ((8, 16, 8), 1), ((8, 16, 8), 2)]
)
def test_fast_equals_plain_for_other_stages_too(widths: tuple[int, ...], doublings: int) -> None:
    config = dataclasses.replace(TINY, block_out_channels=widths, temporal_scale_num=doublings)
    vae = random_weights(lambda: VideoVAE(config), seed=1, dtype=torch.float32).prepare()
    num_frames, side = 1 + 2 * config.time_factor, config.space_factor
    x = torch.rand(1, 3, num_frames, 3 * side, 2 * side, generator=torch.Generator().manual_seed(1)) - 0.5
    results = []
    for execution in (PLAIN, Execution(frames_per_call=1, latents_per_slice=1)):
        vae.execution = execution
        results.append((vae.encode(x).mean, vae.decode(latents(3))))

    assert results[0][0].shape[2:] == (3, 3, 2)
    assert results[0][1].shape == x.shape
    for plain, fast in zip(*results, strict=True):
        assert relative_error(fast, plain) < 1e-5


def test_later_frames_never_change_earlier_ones(vae: VideoVAE) -> None:
    vae.execution = Execution()
    z = latents(4)
    changed = z.clone()
    changed[:, :, 3] += 1.0

    before, after = vae.decode(z), vae.decode(changed)

    assert torch.equal(before[:, :, :9], after[:, :, :9])
    assert not torch.equal(before[:, :, 9:], after[:, :, 9:])


def test_state_does_not_grow_with_the_video(vae: VideoVAE) -> None:
    vae.execution = Execution()
    stream, sizes = vae.stream(), []
    for _ in range(5):
        vae.decode_slice(latents(1), stream, ends=False)
        sizes.append(stream.num_bytes)

    assert sizes[2] == sizes[3] == sizes[4] > 0


def test_merged_upsamplers_keep_less_state_than_plain_ones(vae: VideoVAE) -> None:
    held = {}
    for name, merge in (("plain", False), ("merged", True)):
        vae.execution = Execution(merge_upsamplers=merge)
        stream = vae.stream()
        for _ in range(3):
            vae.decode_slice(latents(1), stream, ends=False)
        held[name] = stream.num_bytes

    assert held["merged"] < held["plain"]


@pytest.mark.parametrize("sizes", [[2], [0], [1, 3], [5, 2]])
def test_slices_that_would_lose_frames_are_refused(vae: VideoVAE, sizes: list[int]) -> None:
    stream = vae.stream()
    for size in sizes[:-1]:
        vae.encode_slice(clip(size), stream, ends=False)

    with pytest.raises(ValueError, match=f"a slice of {sizes[-1]} frames"):
        vae.encode_slice(clip(sizes[-1]), stream, ends=True)


def test_frames_that_eight_does_not_divide_are_refused(vae: VideoVAE) -> None:
    with pytest.raises(ValueError, match="frames of 12x24"):
        vae.encode(torch.zeros(1, 3, 1, 24, 12))


@pytest.mark.parametrize("ratio", [1, 2])
def test_merged_upsampler_is_the_plain_one_in_float64(ratio: int) -> None:
    generator = torch.Generator().manual_seed(3)
    upsampler = Upsampler(6, doubles_time=ratio == 2).double()
    for parameter in upsampler.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    upsampler.merge()
    x = torch.randn(1, 6, 5, 3, 4, generator=generator).double()

    outputs = []
    for merge in (False, True):
        stream = Stream(Execution(merge_upsamplers=merge))
        outputs.append(torch.cat([upsampler(part, stream) for part in x.split([1, 1, 3], 2)], 2))

    assert outputs[0].shape[2] == (9 if ratio == 2 else 5)
    assert (outputs[0] - outputs[1]).abs().max().item() < 1e-12 * outputs[0].abs().max().item()


def test_merged_weights_have_the_stated_number_of_taps() -> None:
    up, conv = torch.randn(4 * 2 * 6, 6, 1, 1, 1), torch.randn(6, 6, 3, 3, 3)

    merged = merge_upsampler(up, torch.zeros(48), conv, torch.zeros(6), 2)

    assert merged.weight.shape == (4, 2 * 6, 6, 2, 2, 2)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("max_elements", [1, 700, 1500])
def test_convolution_in_strips_equals_one_call(
    stride: int, padding: int, max_elements: int, generator: torch.Generator
) -> None:
    x = torch.randn(1, 5, 4, 13, 7, generator=generator)
    weight, bias = torch.randn(6, 5, 3, 3, 3, generator=generator), torch.randn(6, generator=generator)
    steps = (1, stride, stride)

    whole, strips = (
        conv_in_strips(x, weight, bias, stride=steps, padding=(padding, padding), max_elements=limit)
        for limit in (2**31, max_elements)
    )

    assert strips.shape == whole.shape
    assert relative_error(strips, whole) < 1e-6


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_group_norm_by_moments_equals_pytorch(
    channels_last: bool, dtype: torch.dtype, bound: float, generator: torch.Generator
) -> None:
    x = torch.randn(3, 16, 9, 7, generator=generator) * 2 + 1
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    weight, bias = torch.randn(16, generator=generator), torch.randn(16, generator=generator)

    ours = normalise_groups(x.to(dtype), *group_moments(x.to(dtype), 4), weight, bias, 1e-6)

    assert ours.dtype is dtype
    assert ours.stride() == x.stride()
    expected = torch.nn.functional.group_norm(x, 4, weight, bias, 1e-6)
    assert relative_error(ours.float(), expected) < bound


@pytest.mark.parametrize("execution", [PLAIN, Execution()], ids=["plain", "fast"])
def test_bfloat16_stays_near_float32(vae: VideoVAE, execution: Execution) -> None:
    half = VideoVAE(TINY, execution)
    half.load_state_dict(vae.state_dict())
    half.bfloat16().prepare()
    vae.execution = execution
    x, z = clip(9), latents(3)

    for ours, theirs in (
        (half.encode(x.bfloat16()).mean, vae.encode(x).mean),
        (half.decode(z.bfloat16()), vae.decode(z)),
    ):
        assert ((ours.float() - theirs).norm() / theirs.norm()).item() < 3e-2


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_published_size_on_the_gpu_stays_near_float32_on_the_cpu(dtype: torch.dtype) -> None:
    """Also a guard against cuDNN releases whose 16-bit conv3d returns wrong values."""
    exact = random_weights(lambda: VideoVAE(VAEConfig()), seed=9, dtype=torch.float32).prepare()
    device = torch.device("cuda")
    half = load_weights(lambda: VideoVAE(VAEConfig()), exact.state_dict(), dtype=dtype, device=device)
    half.prepare()
    x = torch.rand(1, 3, 9, 64, 96, generator=torch.Generator().manual_seed(1)) * 2 - 1
    z = torch.randn(1, 16, 3, 8, 12, generator=torch.Generator().manual_seed(2))

    for ours, theirs in (
        (half.encode(x.to(device, dtype)).mean, exact.encode(x).mean),
        (half.decode(z.to(device, dtype)), exact.decode(z)),
    ):
        assert ((ours.float().cpu() - theirs).norm() / theirs.norm()).item() < 5e-2


def test_unprepared_vae_says_what_is_missing() -> None:
    unprepared = VideoVAE(TINY)

    with pytest.raises(RuntimeError, match="prepare"):
        unprepared.decode(latents(1))


def test_latents_are_scaled_once_each_way(vae: VideoVAE) -> None:
    z = latents(2)

    latent = vae.to_latent(z)

    assert latent.shape == (2, 3, 2, 4)
    assert torch.equal(latent[1, 2, 1], z[0, :, 1, 2, 1] * 0.9152)
    assert relative_error(vae.from_latent(latent), z) < 1e-6


def test_configurations_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="6 channels do not divide into 4 groups"):
        dataclasses.replace(TINY, block_out_channels=(6, 8, 8, 8))
    with pytest.raises(ValueError, match="temporal_scale_num is 4 of 4 stages"):
        dataclasses.replace(TINY, temporal_scale_num=4)
