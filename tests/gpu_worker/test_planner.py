"""The planner: windows stay within bounds, memory stays below what is free."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.engine.memory import FUSED, GIBIBYTE, UNFUSED, Footprint
from gpu_worker.engine.planner import (
    MAX_LENGTH,
    DoesNotFit,
    Mode,
    Work,
    halved,
    memory_needed,
    num_latents,
    plan,
    plan_like,
    recommended_gpus,
)

LENGTHS = st.integers(1, MAX_LENGTH)
WORK = st.builds(
    Work,
    model=st.sampled_from(["seedvr2-7b", "seedvr2-7b-sharp", "seedvr2-3b", "tiny-7b", "tiny-3b"]),
    width=st.integers(16, 4096),
    height=st.integers(16, 4096),
    num_frames=st.none() | st.integers(1, 10_000),
    num_gpus=st.sampled_from([1, 2, 4]),
)


@given(WORK, st.integers(0, 200 * GIBIBYTE), st.booleans())
def test_a_plan_stays_within_the_memory(work: Work, free_bytes: int, may_share: bool) -> None:
    try:
        made = plan(work, free_bytes, may_share=may_share)
    except DoesNotFit:
        footprint = Footprint(model=work.model, width=work.width, height=work.height)
        assert memory_needed(footprint, Mode.EVICTING, 1, 1) > free_bytes
    else:
        assert made.peak_bytes <= free_bytes
        assert 1 <= made.window_length <= MAX_LENGTH
        assert work.num_frames is None or made.window_length <= num_latents(work.num_frames)
        assert made.num_sharing <= made.sp_size <= work.num_gpus
        assert made.num_sharing == 1 or may_share
        assert made.tiles is None or 0 < made.tiles.overlap < made.tiles.size


@given(WORK, st.integers(1, 200 * GIBIBYTE))
def test_half_the_memory_never_gives_a_plan_that_comes_earlier(work: Work, free_bytes: int) -> None:
    def place(memory: int) -> tuple[int, int]:
        try:
            made = plan(work, memory)
        except DoesNotFit:
            return 4, 0
        return (3, -made.tiles.size) if made.tiles else (list(Mode).index(made.mode), -made.window_length)

    assert place(free_bytes) <= place(free_bytes // 2)


#: performance.md, section 4, in GiB and latents: streaming's fixed part and longest windows with fused and unfused
#: kernels; the phase of the encoder with the least and the most frames per call; that of the decoder, with the
#: transformer and without; the longest windows of a phase.
TABLE = {
    (1280, 720): (25.9, (236, 113), (None, 23.1), (None, 26.9), (None, 11.6), (282, 135)),
    (1920, 1080): (38.2, (79, 37), (27, 32), (33, 41), (18, 25), (124, 59)),
    (2560, 1440): (55.1, (24, 11), (35.3, None), (46.2, None), (30.8, None), (70, 33)),
    (3840, 2160): (None, (0, 0), (59.3, None), (83.7, None), (68.4, None), (30, 14)),
}


@pytest.mark.parametrize("size", TABLE, ids=lambda size: f"{size[1]}p")
def test_the_memory_model_gives_the_published_table(size: tuple[int, int]) -> None:
    fixed, longest, encoding, decoding, evicted, longest_phased = TABLE[size]
    for kernels, streaming, phased in zip((FUSED, UNFUSED), longest, longest_phased, strict=True):
        parts = Footprint(model="seedvr2-7b", width=size[0], height=size[1], kernels=kernels)
        base = sum(parts.weights) + parts.in_and_out
        caches = parts.encoder_caches + parts.decoder_caches
        # One latent more or less is the table's rounding.
        assert _longest(parts, base + caches) == pytest.approx(streaming, abs=1)
        assert _longest(parts, base) == phased
        if fixed is not None:
            assert round((base + caches) / GIBIBYTE, 1) == fixed
        for frames, encode, decode, without in zip((1, 4), encoding, decoding, evicted, strict=True):
            coding = parts.decoder_caches + parts.decode_work(frames)
            phases = {
                base + parts.encoder_caches + parts.encode_work(frames): encode,
                base + coding: decode,
                parts.weights.vae + parts.in_and_out + coding: without,
            }
            for needed, expected in phases.items():
                if expected is not None:
                    digits = 1 if isinstance(expected, float) else 0
                    assert round(needed / GIBIBYTE, digits) == expected


def _longest(parts: Footprint, base: int) -> int:
    """The longest window beside `base` bytes on a card of 80 GB, of which 76 GiB can be used."""
    fits = [length for length in range(1, 400) if base + parts.transformer_work(length) <= 76 * GIBIBYTE]
    return max(fits, default=0)


@pytest.mark.parametrize(
    ("size", "mode", "length", "frames"),
    [
        ((1280, 720), Mode.STREAMING, 32, 4),
        ((1920, 1080), Mode.STREAMING, 32, 2),
        ((2560, 1440), Mode.PHASED, 32, 1),
        ((3840, 2160), Mode.EVICTING, 12, 1),
    ],
    ids=lambda value: f"{value[1]}p" if isinstance(value, tuple) else str(value),
)
def test_one_card_of_80_gigabytes_has_a_plan_for_every_size(
    size: tuple[int, int], mode: Mode, length: int, frames: int
) -> None:
    made = plan(Work(model="seedvr2-7b", width=size[0], height=size[1]), 76 * GIBIBYTE)
    assert (made.mode, made.window_length, made.frames_per_call) == (mode, length, frames)
    assert made.tiles is None


def test_fused_kernels_would_give_2160p_the_published_windows() -> None:
    uhd = Work(model="seedvr2-7b", width=3840, height=2160)
    made = plan(uhd, 76 * GIBIBYTE, kernels=FUSED)
    assert (made.mode, made.window_length) == (Mode.EVICTING, 28)


def test_gpus_share_rows_before_anything_is_cut_into_tiles() -> None:
    uhd = Work(model="seedvr2-7b", width=3840, height=2160, num_gpus=4)
    shared = plan(uhd, 46 * GIBIBYTE, may_share=True)
    assert (shared.num_sharing, shared.tiles) == (2, None)
    tiled = plan(uhd, 46 * GIBIBYTE)
    assert tiled.num_sharing == 1
    assert tiled.tiles is not None
    with pytest.raises(DoesNotFit, match="3840x2160"):
        plan(uhd, 8 * GIBIBYTE)


@pytest.mark.parametrize(
    ("size", "num_gpus", "num_segments", "expected"),
    [
        ((1280, 720), 4, None, 1),
        ((720, 1280), 4, None, 1),
        ((1920, 1080), 4, None, 4),
        ((1920, 1080), 3, None, 2),
        ((2560, 1440), 4, 1, 1),
        ((2560, 1440), 8, 9, 4),
    ],
)
def test_gpus_that_a_job_should_take(
    size: tuple[int, int], num_gpus: int, num_segments: int | None, expected: int
) -> None:
    work = Work(
        model="seedvr2-7b", width=size[0], height=size[1], num_gpus=num_gpus, num_segments=num_segments
    )
    assert recommended_gpus(work) == plan(work, 76 * GIBIBYTE).sp_size == expected


def test_parked_latents_take_what_was_counted() -> None:
    assert Footprint(model="seedvr2-7b", width=3840, height=2160).parked(1) == pytest.approx(4.1e6, rel=0.02)


@pytest.mark.parametrize(("num_frames", "expected"), [(1, 1), (2, 2), (5, 2), (6, 3), (101, 26)])
def test_latents_of_a_shot(num_frames: int, expected: int) -> None:
    assert num_latents(num_frames) == expected


def test_halving_ends() -> None:
    assert [halved(length) for length in (32, 3, 2, 1)] == [16, 1, 1, None]


@pytest.mark.parametrize("broken", [{"model": "other"}, {"width": 0}, {"num_gpus": 0}, {"num_frames": 0}])
def test_impossible_work_is_refused(broken: dict[str, int | str]) -> None:
    with pytest.raises(ValueError, match=next(iter(broken))):
        Work(**{"model": "tiny-7b", "width": 64, "height": 48, **broken})  # type: ignore[arg-type]


@given(WORK, st.integers(0, 200 * GIBIBYTE), st.integers(0, 200 * GIBIBYTE))
def test_another_workers_plan_is_kept_where_it_fits(work: Work, there: int, here: int) -> None:
    try:
        made = plan(work, there).in_the_picture
    except DoesNotFit:
        return
    like = plan_like(work, here, made)
    if like is None:
        # What fitted there fits wherever there is as much.
        assert here < there
    else:
        assert like.in_the_picture == made
        assert like.peak_bytes <= here
