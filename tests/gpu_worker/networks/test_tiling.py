"""Tiles cover the frame, blend to one, and come near the untiled result."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_worker.models.checkpoint import random_weights
from gpu_worker.models.tiling import (
    Codec,
    decode_tiled,
    decoder_layout,
    encode_tiled,
    encoder_layout,
    spans,
    stream_tiled,
)
from gpu_worker.models.vae import VAEConfig, VideoVAE

pytestmark = pytest.mark.torch

TINY = VAEConfig(latent_channels=4, block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=4)


@given(size=st.integers(1, 200), tile=st.integers(1, 60), overlap=st.integers(0, 59))
def test_tiles_cover_every_latent(size: int, tile: int, overlap: int) -> None:
    cut = spans(size, tile, min(overlap, tile - 1))

    assert sorted({i for first, last in cut for i in range(first, last)}) == list(range(size))
    assert all(0 < last - first <= tile for first, last in cut)


@given(rows=st.integers(1, 20), columns=st.integers(1, 20), overlap=st.sampled_from([0, 8, 16, 24]))
@settings(max_examples=40)
def test_codec_without_context_is_tiled_exactly(rows: int, columns: int, overlap: int) -> None:
    z = torch.randn(1, 3, 2, rows, columns)

    def codec(x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(8, 3).repeat_interleave(8, 4)

    tiled = decode_tiled(codec, z, tile=64, overlap=overlap)

    assert (tiled - codec(z)).abs().max().item() < 1e-5


def test_tiled_vae_stays_near_the_whole_one() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        vae = VideoVAE(TINY).prepare()
    generator = torch.Generator().manual_seed(6)
    x = torch.rand(1, 3, 1, 160, 192, generator=generator) * 2 - 1
    z = torch.randn(1, 4, 1, 20, 24, generator=generator)

    # A tile is normalised with its own statistics and padded with zeros. On noise, through random weights and
    # tiles of 16 latents, that is a large change; what holds is that it shrinks with the overlap.
    for push, whole, codec, clip in (
        (decode_tiled, vae.decode(z), vae.decode, z),
        (encode_tiled, vae.encode(x).mean, lambda piece: vae.encode(piece).mean, x),
    ):
        errors = [
            ((push(codec, clip, tile=tile, overlap=overlap) - whole).norm() / whole.norm()).item()
            for tile, overlap in ((128, 32), (128, 64), (152, 96))
        ]
        assert 0.4 > errors[0] > errors[1] > errors[2]
        assert errors[2] < 0.2


@pytest.mark.parametrize("num_latents", [1, 4])
def test_a_stream_in_tiles_is_the_whole_clip_in_tiles(num_latents: int) -> None:
    vae = random_weights(lambda: VideoVAE(TINY), seed=8, dtype=torch.float32).prepare()
    generator = torch.Generator().manual_seed(9)
    z = torch.randn(1, 4, num_latents, 14, 18, generator=generator)
    x = torch.rand(1, 3, 4 * num_latents - 3, 112, 144, generator=generator) * 2 - 1
    sizes = {"tile": 64, "overlap": 16}

    def decoder() -> Codec:
        stream = vae.stream()
        return lambda piece: vae.decode_slice(piece, stream, ends=False)

    def encoder() -> Codec:
        stream = vae.stream()
        return lambda piece: vae.encode_slice(piece, stream, ends=False)

    # The whole clip's first slice has two latents; other slices round differently.
    cuts = [2, 1, 1] if num_latents > 1 else [1]
    decoded = stream_tiled(
        decoder, lambda: iter(z.split(cuts, 2)), decoder_layout((14, 18), **sizes), dtype=torch.float32
    )
    slices = x.split([5, 4, 4] if num_latents > 1 else [1], 2)
    encoded = stream_tiled(
        encoder, lambda: iter(slices), encoder_layout((112, 144), **sizes), dtype=torch.float32
    )

    assert torch.equal(torch.cat(list(decoded), 2), decode_tiled(vae.decode, z, **sizes))
    means = torch.cat(list(encoded), 2).chunk(2, 1)[0]
    assert torch.equal(means, encode_tiled(lambda piece: vae.encode(piece).mean, x, **sizes))


def test_impossible_overlap_is_refused() -> None:
    with pytest.raises(ValueError, match="tiles of 4 latents with an overlap of 4"):
        spans(10, 4, 4)
