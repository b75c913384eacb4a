"""Output sizes: the picture's shape inside the preset's box, in even numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restorations.models import Restoration
from restorations.presets import output_size, recommended_preset


@pytest.mark.parametrize(
    ("width", "height", "preset", "expected"),
    [
        (1920, 1080, "720p", (1280, 720)),
        (640, 480, "1080p", (1440, 1080)),
        (480, 854, "1080p", (1080, 1920)),
        (1920, 804, "1080p", (1920, 804)),
        (720, 720, "2k", (1440, 1440)),
        (853, 479, "1080p", (1920, 1078)),
        (214, 160, "720p", (964, 720)),
        (8000, 16, "720p", (1280, 16)),
    ],
)
def test_examples(width, height, preset, expected):
    size = output_size(preset, width=width, height=height)
    assert (size.width, size.height) == expected


def test_720p_takes_one_gpu_and_the_others_four():
    gpus = {
        preset: output_size(preset, width=640, height=480).sp_size for preset in Restoration.Preset.values
    }
    assert gpus == {"720p": 1, "1080p": 4, "2k": 4}


@given(
    width=st.integers(16, 8192), height=st.integers(16, 8192), preset=st.sampled_from(["720p", "1080p", "2k"])
)
def test_every_size_is_even_inside_the_box_and_keeps_the_shape(width, height, preset):
    size = output_size(preset, width=width, height=height)
    long_side, short_side = {"720p": (1280, 720), "1080p": (1920, 1080), "2k": (2560, 1440)}[preset]
    assert size.width % 2 == size.height % 2 == 0
    assert max(size.width, size.height) <= long_side
    assert min(size.width, size.height) <= short_side
    if min(size.width, size.height) > 16:
        # One side is rounded to an even number: at most one pixel away.
        assert abs(size.width * height - size.height * width) <= max(width, height)


def test_a_picture_without_size_is_refused():
    with pytest.raises(ValueError, match="no shape"):
        output_size("720p", width=0, height=100)


@pytest.mark.parametrize(
    ("width", "height", "expected"), [(214, 160, "720p"), (640, 480, "1080p"), (1280, 720, "1080p")]
)
def test_the_recommended_preset_enlarges(width, height, expected):
    assert recommended_preset(width=width, height=height) == expected
