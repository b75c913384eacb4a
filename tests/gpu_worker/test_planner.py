"""The planner: every latent is covered, windows stay within bounds, memory stays below what is free."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.engine.planner import (
    MAX_LENGTH,
    DoesNotFit,
    Work,
    halved,
    memory_needed,
    next_window,
    num_latents,
    overlap_of,
    plan_length,
    windows,
)

GIBIBYTE = 1024**3
LENGTHS = st.integers(1, MAX_LENGTH)
WORK = st.builds(
    Work,
    model=st.sampled_from(["seedvr2-7b", "seedvr2-7b-sharp", "seedvr2-3b", "tiny-7b", "tiny-3b"]),
    width=st.integers(16, 4096),
    height=st.integers(16, 4096),
    num_frames=st.none() | st.integers(1, 10_000),
    num_gpus=st.sampled_from([1, 2, 4]),
)


@given(st.integers(1, 500), LENGTHS)
def test_windows_cover_every_latent_once_and_share_the_overlap(known: int, length: int) -> None:
    planned = list(windows(known, length))
    fresh = [range(window.fresh, window.end) for window in planned]
    assert list(itertools.chain(*fresh)) == list(range(known))
    for window in planned:
        assert 0 <= window.start <= window.fresh < window.end <= known
        # A shot that is long enough never has a short window: the last one is moved back.
        assert window.end - window.start == min(length, known)
        assert window.start == 0 or window.fresh - window.start >= overlap_of(length)


@given(st.integers(1, 200), LENGTHS, st.integers(1, 40))
def test_a_stream_gets_the_same_windows_as_the_whole_shot(known: int, length: int, step: int) -> None:
    found, done = [], 0
    for there in [*range(step, known, step), known]:
        while window := next_window(done=done, known=there, length=length, ends=there == known):
            found.append(window)
            done = window.end
    assert found == list(windows(known, length))


@given(st.integers(1, 200), st.lists(LENGTHS, min_size=1, max_size=40))
def test_lengths_that_change_on_the_way_still_cover_everything(known: int, lengths: list[int]) -> None:
    done, lengths_in_turn = 0, itertools.cycle(lengths)
    while done < known:
        length = next(lengths_in_turn)
        window = next_window(done=done, known=known, length=length, ends=True)
        assert window is not None
        assert window.fresh == done < window.end
        assert window.end - window.start <= length
        done = window.end


@given(WORK, st.integers(0, 200 * GIBIBYTE))
def test_a_plan_stays_within_the_memory(work: Work, free_bytes: int) -> None:
    try:
        length = plan_length(work, free_bytes)
    except DoesNotFit:
        assert memory_needed(work, 1) > free_bytes
    else:
        assert memory_needed(work, length) <= free_bytes
        assert 1 <= length <= MAX_LENGTH
        assert work.num_frames is None or length <= num_latents(work.num_frames)


@given(WORK, st.integers(1, 400 * GIBIBYTE))
def test_half_the_memory_gives_a_window_no_longer(work: Work, spare_bytes: int) -> None:
    enough = memory_needed(work, 1)
    whole, half = (plan_length(work, enough + spare) for spare in (spare_bytes, spare_bytes // 2))
    assert 1 <= half <= whole


@given(WORK, st.integers(1, MAX_LENGTH - 1))
def test_memory_never_falls_with_the_length(work: Work, length: int) -> None:
    assert memory_needed(work, length) <= memory_needed(work, length + 1)


def test_one_card_of_80_gigabytes_takes_what_the_model_promises() -> None:
    free_bytes = 76 * GIBIBYTE
    assert plan_length(Work(model="seedvr2-7b", width=1280, height=720), free_bytes) == 32
    assert plan_length(Work(model="seedvr2-7b", width=1920, height=1080), free_bytes) == 32
    assert 8 <= plan_length(Work(model="seedvr2-7b", width=2560, height=1440), free_bytes) <= 12
    uhd = {"model": "seedvr2-7b", "width": 3840, "height": 2160}
    with pytest.raises(DoesNotFit, match="3840x2160"):
        plan_length(Work(**uhd), free_bytes)
    assert plan_length(Work(**uhd, num_gpus=4), free_bytes) == 32


@pytest.mark.parametrize(("num_frames", "expected"), [(1, 1), (2, 2), (5, 2), (6, 3), (101, 26)])
def test_latents_of_a_shot(num_frames: int, expected: int) -> None:
    assert num_latents(num_frames) == expected


def test_halving_ends() -> None:
    assert [halved(length) for length in (32, 3, 2, 1)] == [16, 1, 1, None]


@pytest.mark.parametrize("broken", [{"model": "other"}, {"width": 0}, {"num_gpus": 0}, {"num_frames": 0}])
def test_impossible_work_is_refused(broken: dict[str, int | str]) -> None:
    with pytest.raises(ValueError, match=next(iter(broken))):
        Work(**{"model": "tiny-7b", "width": 64, "height": 48, **broken})  # type: ignore[arg-type]
