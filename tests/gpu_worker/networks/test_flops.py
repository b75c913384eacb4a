"""The networks do the arithmetic that the closed forms count: full size, on tensors without memory."""

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gpu_worker.benchmarks.flops import (
    decode_flops,
    dit_edge_flops,
    dit_flops,
    dit_saved_flops,
    encode_flops,
    image_flops,
)
from gpu_worker.engine.presets import PRESETS
from gpu_worker.models.dit import NaDiT
from gpu_worker.models.vae import VAEConfig, VideoVAE
from gpu_worker.models.vae_layers import PLAIN, Execution

pytestmark = pytest.mark.torch

#: The closed forms of the VAE are given with four digits.
DIGITS = 5e-4


def counted(run, *arguments) -> int:
    with FlopCounterMode(display=False) as counter:
        run(*arguments)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", ["seedvr2-7b", "seedvr2-3b"])
@pytest.mark.parametrize(("width", "height", "num_latents"), [(1280, 720, 26), (1920, 1088, 1)])
def test_transformer_does_what_the_closed_form_counts(
    name: str, width: int, height: int, num_latents: int
) -> None:
    config = PRESETS[name].transformer
    shape = (num_latents, height // 8, width // 8)
    grid = (num_latents, height // 16, width // 16)
    with torch.device("meta"):
        network = NaDiT(config)
        condition = network.condition(torch.zeros(58, 5120), [58], torch.tensor([1000.0]))
        video = torch.zeros(shape[0] * shape[1] * shape[2], 33)

    flops = counted(network, video, [shape], condition)

    assert flops == dit_flops(config, grid) + dit_edge_flops(config, grid) - dit_saved_flops(config)


@pytest.mark.parametrize(("name", "petaflops"), [("seedvr2-7b", 0.859), ("seedvr2-3b", 0.546)])
def test_closed_form_gives_the_published_total(name: str, petaflops: float) -> None:
    assert dit_flops(PRESETS[name].transformer, (26, 45, 80)) / 1e15 == pytest.approx(petaflops, abs=6e-4)


@pytest.fixture(scope="module")
def vae() -> VideoVAE:
    with torch.device("meta"):
        return VideoVAE(VAEConfig()).prepare()


@pytest.mark.parametrize(("width", "height", "num_frames"), [(1280, 720, 21), (640, 368, 101)])
def test_plain_vae_does_what_the_closed_forms_count(
    vae: VideoVAE, width: int, height: int, num_frames: int
) -> None:
    vae.execution = PLAIN
    x = torch.zeros(1, 3, num_frames, height, width, device="meta")
    z = torch.zeros(1, 16, (num_frames + 3) // 4, height // 8, width // 8, device="meta")

    assert counted(vae.encode, x) == pytest.approx(encode_flops(width, height, num_frames), rel=DIGITS)
    expected = decode_flops(width, height, num_frames, merged=False)
    assert counted(vae.decode, z) == pytest.approx(expected, rel=DIGITS)


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (1920, 1088)])
def test_merged_decoder_does_what_its_closed_form_counts(vae: VideoVAE, width: int, height: int) -> None:
    vae.execution = Execution(fold_images=False, latents_per_slice=None, frames_per_call=None)
    counts, forms = [], []
    for num_frames in (33, 101):
        z = torch.zeros(1, 16, (num_frames + 3) // 4, height // 8, width // 8, device="meta")
        counts.append(counted(vae.decode, z))
        forms.append(decode_flops(width, height, num_frames, merged=True))

    # Each merged convolution computes one row and one column more than it keeps: less than one per cent.
    assert 1.0 <= (counts[1] - counts[0]) / (forms[1] - forms[0]) < 1.01
    # The last upsampler is merged from the first frame on; the closed form leaves it plain until the sixth.
    assert counts[1] < forms[1]


def test_images_cost_what_the_folded_forms_count(vae: VideoVAE) -> None:
    vae.execution = Execution(merge_upsamplers=False)
    encode, decode = image_flops(1280, 720)

    assert counted(vae.encode, torch.zeros(1, 3, 1, 720, 1280, device="meta")) == pytest.approx(
        encode, rel=1e-3
    )
    assert counted(vae.decode, torch.zeros(1, 16, 1, 90, 160, device="meta")) == pytest.approx(
        decode, rel=1e-3
    )


def test_slices_and_pieces_add_no_arithmetic(vae: VideoVAE) -> None:
    z = torch.zeros(1, 16, 6, 40, 64, device="meta")
    totals = []
    for execution in (PLAIN, dataclasses.replace(PLAIN, latents_per_slice=1, frames_per_call=1)):
        vae.execution = execution
        totals.append(counted(vae.decode, z))

    assert totals[0] == totals[1]


@pytest.mark.parametrize(("merge", "gib_per_megapixel"), [(False, 8.048), (True, 6.81)])
def test_decoder_state_is_what_the_memory_model_counts(merge: bool, gib_per_megapixel: float) -> None:
    with torch.device("meta"):
        vae = VideoVAE(VAEConfig(), Execution(merge_upsamplers=merge)).bfloat16().prepare()
    stream = vae.stream()
    latents = torch.zeros(1, 16, 2, 90, 160, device="meta", dtype=torch.bfloat16)
    vae.decode_slice(latents, stream, ends=False)

    assert stream.num_bytes / 2**30 == pytest.approx(gib_per_megapixel * 0.9216, rel=1e-3)


def test_encoder_state_is_what_the_memory_model_counts() -> None:
    with torch.device("meta"):
        vae = VideoVAE(VAEConfig()).bfloat16().prepare()
    stream = vae.stream()
    frames = torch.zeros(1, 3, 5, 720, 1280, device="meta", dtype=torch.bfloat16)
    vae.encode_slice(frames, stream, ends=False)

    assert stream.num_bytes / 2**30 == pytest.approx(3.618 * 0.9216, rel=1e-3)
