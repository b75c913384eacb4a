"""Segments: every frame in one of them, the same ones whoever looks, enough context on both sides of a border."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gpu_worker.contract import Frames, WorkerError
from gpu_worker.engine.job import EngineJob, SegmentSpan
from gpu_worker.engine.planner import num_latents
from gpu_worker.engine.segments import (
    CONTEXT_AFTER,
    CONTEXT_BEFORE,
    MIN_SEGMENT_FRAMES,
    Role,
    Segments,
    Turns,
    assigned,
    place,
)

#: Lengths of a video's shots, in frames.
SHOTS = st.lists(st.integers(1, 150), min_size=1, max_size=8)
LENGTHS = st.integers(MIN_SEGMENT_FRAMES, 60)
PINS = st.lists(
    st.tuples(st.integers(0, 300), st.integers(1, 90)).map(lambda pin: (pin[0], sum(pin))), max_size=2
)


def job(frames: int, **settings: object) -> EngineJob:
    return EngineJob(
        source=Path("in.mp4"),
        folder=Path(),
        model="tiny-7b",
        width=64,
        height=64,
        segment_frames=frames,
        **settings,
    )


def shot_of_each(shots: list[int]) -> list[int]:
    return [number for number, length in enumerate(shots) for _ in range(length)]


def spans(shots: list[int], work: EngineJob) -> list[SegmentSpan]:
    keys = shot_of_each(shots)
    found = []
    for segment, _ in assigned(Segments(place(enumerate(keys), work)), Turns(work, rank=0, world=1)):
        segment.skip()
        found.append(segment.span)
    return found


def read(
    shots: list[int], work: EngineJob, *, rank: int = 0, world: int = 1
) -> dict[int, list[list[tuple[int, Role]]]]:
    """The frames of each part of each segment that a rank computes, by the segment's number."""
    segments = Segments(place(enumerate(shot_of_each(shots)), work))
    return {
        segment.index: [list(part.frames()) for part in segment.parts()]
        for segment, is_mine in assigned(segments, Turns(work, rank=rank, world=world))
        if is_mine
    }


@given(SHOTS, LENGTHS, PINS)
def test_every_frame_lies_in_one_segment(shots: list[int], length: int, pins: list[Frames]) -> None:
    found = spans(shots, job(length, pins=tuple(pins)))
    assert [span.index for span in found] == list(range(len(found)))
    assert [span.start for span in found] == [0, *(span.end for span in found[:-1])]
    assert found[-1].end == sum(shots)


@given(SHOTS, LENGTHS)
def test_lengths_stay_within_bounds(shots: list[int], length: int) -> None:
    for span in spans(shots, job(length))[:-1]:
        assert length <= span.num_frames < 2 * length + 4


@given(SHOTS, LENGTHS, PINS)
def test_borders_lie_at_cuts_or_where_a_latent_of_the_shot_ends(
    shots: list[int], length: int, pins: list[Frames]
) -> None:
    keys = shot_of_each(shots)
    for span in spans(shots, job(length, pins=tuple(pins))):
        start_of_shot = keys.index(keys[span.start])
        assert (span.start - start_of_shot) % 4 == 1 or span.start == start_of_shot


@given(SHOTS, LENGTHS, PINS, st.sampled_from([1, 2, 4]), st.sets(st.integers(0, 20)))
def test_ranks_share_what_is_not_done(
    shots: list[int], length: int, pins: list[Frames], world: int, done: set[int]
) -> None:
    work = job(length, pins=tuple(pins))
    whole = read(shots, work)
    ready = tuple(span for span in spans(shots, work) if span.index in done)
    shares = [read(shots, work.without(ready), rank=rank, world=world) for rank in range(world)]
    assert sum(len(share) for share in shares) == len(whole) - len(ready)
    for share in shares:
        for index, parts in share.items():
            assert parts == whole[index], "who computes a segment, and what is done, does not change it"


@given(SHOTS, LENGTHS, PINS)
def test_parts_are_of_one_shot_and_borders_have_context(
    shots: list[int], length: int, pins: list[Frames]
) -> None:
    keys = shot_of_each(shots)
    for parts in read(shots, job(length, pins=tuple(pins))).values():
        for frames in parts:
            numbers = [number for number, _ in frames]
            assert numbers == list(range(numbers[0], numbers[-1] + 1))
            assert len({keys[number] for number in numbers}) == 1, "nothing crosses a cut"
            own = [number for number, role in frames if role is Role.OWN]
            shot = [number for number, key in enumerate(keys) if key == keys[own[0]]]
            before, after = own[0] - numbers[0], numbers[-1] - own[-1]
            assert before in (min(CONTEXT_BEFORE, own[0] - shot[0]), 0 if own[0] == shot[0] else -1)
            assert before == 0 or before % 4 == 1
            assert after == min(CONTEXT_AFTER, shot[-1] - own[-1])


@given(SHOTS, LENGTHS)
def test_latents_are_counted_through_the_whole_video(shots: list[int], length: int) -> None:
    work = job(length)
    starts = [sum(shots[:number]) for number in range(len(shots))]
    for segment, _ in assigned(
        Segments(place(enumerate(shot_of_each(shots)), work)), Turns(work, rank=0, world=1)
    ):
        for part in segment.parts():
            first, _role = next(iter(frames := list(part.frames())))
            number = shot_of_each(shots)[first]
            of_shots_before = sum(num_latents(count) for count in shots[:number])
            in_shot = first - starts[number]
            assert in_shot % 4 == 0, "the frame is the last of its latent"
            assert part.first_latent == of_shots_before + in_shot // 4
            assert part.num_before == sum(role is Role.BEFORE for _, role in frames)


@given(SHOTS, LENGTHS, st.integers(0, 200), st.integers(8, 80))
def test_a_preview_computes_what_the_whole_run_does_with_the_same_pins(
    shots: list[int], length: int, start: int, num_frames: int
) -> None:
    span = (start, start + num_frames)
    whole = read(shots, job(length, pins=(span,)))
    assume(start + 4 <= sum(shots))
    preview = read(shots, job(length, span=span))
    assert preview
    for index, parts in preview.items():
        assert parts == whole[index]
        assert start <= parts[0][0][0] + CONTEXT_BEFORE


@given(SHOTS, LENGTHS, PINS, st.integers(1, 4), st.data())
def test_ranks_share_what_is_open_and_each_frame_says_whose_it_is(
    shots: list[int], length: int, pins: list[Frames], world: int, data: st.DataObject
) -> None:
    work = job(length, pins=tuple(pins))
    every = spans(shots, work)
    done = tuple(span for span in every if data.draw(st.booleans()))
    work = work.without(done)
    takers: dict[int, list[int]] = {}
    for rank in range(world):
        turns = Turns(work, rank=rank, world=world)
        frames = place(enumerate(shot_of_each(shots)), work)
        mine = {f.segment for f in frames if turns.is_mine(f.segment, f.segment_start, is_wanted=f.is_wanted)}
        assert mine == set(read(shots, work, rank=rank, world=world))
        for index in mine:
            takers.setdefault(index, []).append(rank)
    opened = [span.index for span in every if span not in done]
    assert takers == {index: [turn % world] for turn, index in enumerate(opened)}


def test_a_segment_that_was_done_for_another_video_is_refused() -> None:
    work = job(20).without((SegmentSpan(index=0, start=0, end=19),))
    with pytest.raises(WorkerError, match="segment 0 ends at frame 41; what was done ends at 19"):
        spans([100], work)


def test_a_span_behind_the_end_is_refused() -> None:
    with pytest.raises(WorkerError, match="the video has 100"):
        spans([100], job(20, span=(120, 140)))
