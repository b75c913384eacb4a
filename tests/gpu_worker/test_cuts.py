"""Cuts: found where two videos were joined, and nowhere else."""

from __future__ import annotations

from contextlib import closing
from itertools import pairwise

import numpy as np
import pytest

from gpu_worker.engine.colors import Colors
from gpu_worker.engine.cuts import LUMA_SIZE, Luma, number_shots
from gpu_worker.engine.pictures import read_pictures
from gpu_worker.engine.video import VideoSource
from tests import samples

pytestmark = pytest.mark.services


def small_frames(name: str, num_frames: int | None = None) -> list[Luma]:
    """Returns a sample's first frames as the engine sees them when it looks for cuts."""
    with closing(VideoSource(samples.path(name))) as source:
        frames = list(source.frames())[:num_frames]
        return [luma for _, luma in read_pictures(frames, Colors.of(frames[0][0]))]


def cuts(frames: list[Luma]) -> list[int]:
    """Returns the frames that start a shot, the first one apart."""
    shots = [shot for _, shot in number_shots((None, luma) for luma in frames)]
    return [index + 1 for index, (one, other) in enumerate(pairwise(shots)) if one != other]


def flat(brightness: int) -> Luma:
    return np.full(LUMA_SIZE[::-1], brightness, np.uint8)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("bigbuckbunny.mp4", "carphone_pristine.mp4"),
        ("carphone_pristine.mp4", "bigbuckbunny.mp4"),
        ("grand_prix_1906.ogv", "bikes.mp4"),
    ],
)
@pytest.mark.parametrize("length", [1, 2, 20])
def test_the_joint_of_two_videos_is_the_only_cut(one: str, other: str, length: int) -> None:
    frames = small_frames(one, length) + small_frames(other, 20)
    assert cuts(frames) == [length]


@pytest.mark.parametrize("name", ["carphone_pristine.mp4", "carphone_distorted.mp4", "interlaced.mp4"])
def test_a_video_of_one_shot_has_no_cut(name: str) -> None:
    assert cuts(small_frames(name)) == []


def test_a_flash_and_a_fade_are_no_cuts() -> None:
    assert cuts([flat(60)] * 5 + [flat(250)] + [flat(60)] * 5) == []
    assert cuts([flat(brightness) for brightness in range(0, 256, 10)]) == []


def test_a_cut_stands_out_of_noise() -> None:
    generator = np.random.default_rng(3)
    noise = generator.integers(40, 72, (20, *LUMA_SIZE[::-1]), dtype=np.uint8)
    noise[9:] += 60
    assert cuts(list(noise)) == [9]


def test_a_change_of_size_is_a_cut() -> None:
    assert cuts([flat(60), flat(60), np.full((4, 4), 60, np.uint8)]) == [2]


def test_every_item_comes_out_in_order() -> None:
    numbered = list(number_shots((name, flat(value)) for name, value in [("a", 0), ("b", 0), ("c", 200)]))
    assert numbered == [("a", 0), ("b", 0), ("c", 1)]
    assert list(number_shots(iter(()))) == []
