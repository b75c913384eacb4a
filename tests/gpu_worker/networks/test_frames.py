"""Frames in, frames out: sizes are exact, colours stay, nothing is changed in place."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_worker.contract import ColorFix
from gpu_worker.engine.color import adain, fix_color, lab, low_pass, match_ranks, quantize, wavelet
from gpu_worker.engine.preprocess import (
    area_geometry,
    crossfade,
    exact_geometry,
    from_network,
    padded_length,
    repeat_last,
    to_network,
)

pytestmark = pytest.mark.torch


@given(height=st.integers(1, 90), width=st.integers(1, 90), num_frames=st.integers(1, 9))
@settings(max_examples=60)
def test_what_goes_in_comes_out_at_exactly_the_announced_size(
    height: int, width: int, num_frames: int
) -> None:
    generator = torch.Generator().manual_seed(height * 100 + width)
    frames = torch.randint(0, 256, (num_frames, 3, height, width), generator=generator, dtype=torch.uint8)
    geometry = exact_geometry((height, width), (height, width))

    clip = to_network(frames, geometry)[:, repeat_last(num_frames)]
    back = quantize(from_network(clip, geometry, num_frames))

    assert clip.shape[1] == padded_length(num_frames)
    assert all(side % 16 == 0 for side in clip.shape[2:])
    assert torch.equal(back, frames)


def test_odd_target_size_is_delivered_and_its_border_repeats() -> None:
    frames = torch.randint(0, 256, (2, 3, 60, 106), dtype=torch.uint8)
    geometry = exact_geometry((60, 106), (479, 853))

    clip = to_network(frames, geometry)

    assert clip.shape == (3, 2, 480, 864)
    assert torch.equal(clip[:, :, 479], clip[:, :, 478])
    assert torch.equal(clip[..., 860], clip[..., 852])
    assert from_network(clip, geometry, 2).shape == (2, 3, 479, 853)


def test_reference_rule_depends_on_the_area_alone() -> None:
    assert area_geometry((480, 640), (720, 1280)) == area_geometry((480, 640), (1280, 720))
    assert area_geometry((480, 640), (720, 1280)).output == (816, 1104)


@given(num_frames=st.integers(2, 500), sp_size=st.sampled_from([1, 2, 4]))
def test_padded_length_is_the_least_that_the_ranks_can_share(num_frames: int, sp_size: int) -> None:
    padded = padded_length(num_frames, sp_size)

    assert (padded - 1) % (4 * sp_size) == 0
    assert 4 * sp_size < padded
    assert num_frames <= padded < num_frames + 4 * sp_size


def test_crossfade_falls_from_one_to_zero() -> None:
    weights = crossfade(9)

    assert weights[0] == 1.0
    assert weights[-1] == 0.0
    assert bool((weights.diff() <= 0).all())


def test_wrong_sizes_are_refused_with_their_numbers() -> None:
    geometry = exact_geometry((30, 40), (32, 48))
    with pytest.raises(ValueError, match=r"frames of \(31, 40\); the geometry is for \(30, 40\)"):
        to_network(torch.zeros(1, 3, 31, 40, dtype=torch.uint8), geometry)
    with pytest.raises(ValueError, match="1 frames"):
        from_network(torch.zeros(3, 1, 32, 48), geometry, 2)
    with pytest.raises(ValueError, match="num_frames is 0"):
        padded_length(0)
    with pytest.raises(ValueError, match=r"leaves \(0, 16\)"):
        area_geometry((100, 200), (10, 20))


@pytest.fixture
def pair(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    content = torch.rand(3, 3, 40, 56, generator=generator) * 2 - 1
    style = (content * 0.7 + 0.2).clamp(-1, 1)
    return content, style


@pytest.mark.parametrize("method", list(ColorFix))
def test_corrections_leave_their_arguments_alone(
    method: ColorFix, pair: tuple[torch.Tensor, torch.Tensor]
) -> None:
    before = [frames.clone() for frames in pair]

    fix_color(*pair, method)

    assert all(torch.equal(now, then) for now, then in zip(pair, before, strict=True))


@pytest.mark.parametrize("method", [ColorFix.WAVELET, ColorFix.ADAIN, ColorFix.LAB])
def test_corrections_bring_the_mean_colour_to_the_source(
    method: ColorFix, pair: tuple[torch.Tensor, torch.Tensor]
) -> None:
    content, style = pair

    def distance(frames: torch.Tensor) -> float:
        return (frames.mean((0, 2, 3)) - style.mean((0, 2, 3))).abs().max().item()

    assert distance(fix_color(content, style, method)) < 0.2 * distance(content)


@pytest.mark.parametrize("correct", [wavelet, adain])
def test_frames_are_corrected_one_by_one(correct, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    together = correct(*pair)
    alone = torch.cat([correct(c[None], s[None]) for c, s in zip(*pair, strict=True)])

    assert (together - alone).abs().max().item() < 1e-6


def test_equal_pictures_are_left_as_they_are(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    content, _ = pair

    assert torch.equal(wavelet(content, content), content)
    assert (lab(content, content) - content).abs().max().item() < 2e-3


def test_low_pass_keeps_a_flat_picture() -> None:
    flat = torch.full((1, 3, 20, 30), 0.25)

    assert torch.equal(low_pass(flat), flat)


def test_ranks_match_across_different_lengths() -> None:
    matched = match_ranks(torch.tensor([3.0, 1.0, 2.0, 9.0]), torch.tensor([10.0, 30.0, 20.0]))

    assert matched.tolist() == [20.0, 10.0, 10.0, 30.0]


def test_bytes_are_rounded_to_the_nearest() -> None:
    levels = torch.arange(256)

    assert torch.equal(quantize(levels / 127.5 - 1.0), levels.to(torch.uint8))
    assert quantize(torch.tensor([-7.0, 7.0, math.inf])).tolist() == [0, 255, 255]
