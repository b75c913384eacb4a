"""Prices: whole credits, rounded up, in proportion to output pixels and frames."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.pricing import restoration_credits, undelivered_credits


@pytest.mark.parametrize(
    ("width", "height", "num_frames", "expected"),
    [
        (16, 16, 1, 1),  # never free
        (1280, 720, 24, 3),  # a second at 720p: 2.2 credits
        (1920, 1080, 24, 5),
        (2560, 1440, 24, 9),
        (1920, 1080, 24 * 60, 299),  # a minute at 1080p: three dollars
        (1000, 1000, 10, 1),  # exactly one credit stays one
        (1000, 1000, 11, 2),
    ],
)
def test_examples(width, height, num_frames, expected):
    assert restoration_credits(width=width, height=height, num_frames=num_frames) == expected


@pytest.mark.parametrize("wrong", [{"width": 0}, {"height": -1}, {"num_frames": 0}])
def test_what_has_no_size_has_no_price(wrong):
    with pytest.raises(ValueError, match="cannot price"):
        restoration_credits(**({"width": 100, "height": 100, "num_frames": 1} | wrong))


@given(price=st.integers(1, 10**6), total=st.integers(1, 10**6), done=st.integers(-5, 2 * 10**6))
def test_what_comes_back_stays_between_nothing_and_all(price, total, done):
    back = undelivered_credits(price=price, num_frames_done=done, num_frames=total)
    assert 0 <= back <= price
    assert back == price or done > 0
    assert back == 0 or done < total


def test_without_a_frame_count_everything_comes_back():
    assert undelivered_credits(price=7, num_frames_done=0, num_frames=0) == 7
