"""Prices: whole credits, rounded up, in proportion to output pixels and frames."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.pricing import Prices, restoration_credits, returned_credits, undelivered_credits

MODEL = "seedvr2-7b"
PRICES = Prices(
    version=1, minimum_credits=1, pixels_per_credit={(MODEL, 1): 10_000_000, (MODEL, 4): 5_000_000}
)


def price(width, height, num_frames, *, model=MODEL, gpus=1):
    return restoration_credits(
        PRICES, width=width, height=height, num_frames=num_frames, model=model, gpus=gpus
    )


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
    assert price(width, height, num_frames) == expected


@pytest.mark.parametrize("wrong", [{"width": 0}, {"height": -1}, {"num_frames": 0}])
def test_what_has_no_size_has_no_price(wrong):
    with pytest.raises(ValueError, match="cannot price"):
        price(**({"width": 100, "height": 100, "num_frames": 1} | wrong))


def test_the_table_decides_by_model_and_gpus():
    assert price(1000, 1000, 10, gpus=4) == 2
    with pytest.raises(ValueError, match="v1 has no rate for seedvr2-7b on 3 GPUs"):
        price(1000, 1000, 10, gpus=3)


@given(full=st.integers(1, 10**6), total=st.integers(1, 10**6), done=st.integers(-5, 2 * 10**6))
def test_what_comes_back_stays_between_nothing_and_all(full, total, done):
    back = undelivered_credits(price=full, num_frames_done=done, num_frames=total)
    assert 0 <= back <= full
    assert back == full or done > 0
    assert back == 0 or done < total


def test_without_a_frame_count_everything_comes_back():
    assert undelivered_credits(price=7, num_frames_done=0, num_frames=0) == 7


@given(credits=st.integers(1, 10**6), paid=st.integers(1, 10**6), part=st.integers(-5, 2 * 10**6))
def test_credits_go_with_the_part_of_the_payment_that_is_returned(credits, paid, part):
    gone = returned_credits(credits=credits, paid=paid, returned=part)
    assert 0 <= gone <= credits
    assert (gone == credits) if part >= paid else gone * paid <= credits * max(part, 0)
