"""Moments of frames: exact grids stay exact, anything else stays as it is."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.engine.timeline import Timeline, find_timeline

MILLISECOND = Fraction(1, 1000)
RATES = ["24000/1001", "24", "25", "30000/1001", "30", "50", "60000/1001", "60", "12", "15"]


def timeline(moments: list[int], unit: Fraction, *declared: str, start: Fraction = Fraction(0)) -> Timeline:
    return find_timeline(
        moments, unit=unit, declared_rates=[Fraction(rate) for rate in declared], start_seconds=start
    )


@pytest.mark.parametrize("text", RATES)
@pytest.mark.parametrize("unit", [MILLISECOND, Fraction(1, 90_000)])
def test_moments_that_the_container_rounded_return_to_their_grid(text: str, unit: Fraction) -> None:
    rate = Fraction(text)
    moments = [round(number / rate / unit) for number in range(500)]
    found = timeline(moments, unit)
    assert found.rate == rate
    ticks = [found.ticks(moment) for moment in moments]
    step = {later - earlier for earlier, later in pairwise(ticks)}
    assert len(step) == 1
    assert step.pop() * found.time_base == 1 / rate


def test_the_declared_rate_comes_first() -> None:
    moments = [number * 100 for number in range(100)]
    assert timeline(moments, Fraction(1, 2997), "2997/100").rate == Fraction(2997, 100)


def test_a_gap_stays_a_gap() -> None:
    found = timeline([0, 1, 2, 10, 11, 12, 13, 14], Fraction(1, 25), "25")
    assert found.rate == 25
    assert (found.ticks(10) - found.ticks(2)) * found.time_base == Fraction(8, 25)


def test_a_variable_rate_keeps_every_moment() -> None:
    moments = [0, 33, 47, 120, 121, 300]
    found = timeline(moments, MILLISECOND, "25")
    assert found.rate is None
    assert [found.ticks(moment) * found.time_base for moment in moments] == [m * MILLISECOND for m in moments]


def test_a_late_picture_stays_late() -> None:
    found = timeline([40, 80, 120, 160], MILLISECOND, "25", start=Fraction(17, 1000))
    assert found.rate == 25
    assert abs(found.ticks(40) * found.time_base - Fraction(23, 1000)) < Fraction(1, 10_000)


def test_a_single_frame_has_a_moment() -> None:
    found = timeline([7], MILLISECOND, "25")
    assert found.ticks(7) == round(7 * MILLISECOND / found.time_base)


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=50, unique=True))
def test_order_and_number_survive_whatever_the_moments(moments: list[int]) -> None:
    found = timeline(moments, MILLISECOND, "25")
    ticks = [found.ticks(moment) for moment in sorted(moments)]
    assert ticks == sorted(set(ticks))
    assert ticks[0] >= 0
