"""Windows over a part: every latent is covered, borders get the same joint window from both sides."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.engine.planner import MAX_LENGTH, overlap_of
from gpu_worker.engine.segments import JOINT_LATENTS
from gpu_worker.engine.windows import Latents, Window, next_window, windows

LENGTHS = st.integers(1, MAX_LENGTH)
#: As `segments.py` gives them: context before is all of the shot, or eight latents; after it, four at most.
BEFORE = st.integers(0, 2 * JOINT_LATENTS)
AFTER = st.integers(0, JOINT_LATENTS)


def part(before: int, own: int, after: int) -> Latents:
    return Latents(known=before + own + after, own_start=before, own_end=before + own, ends=True)


@given(BEFORE, st.integers(1, 200), AFTER, LENGTHS)
def test_windows_cover_every_own_latent_once(before: int, own: int, after: int, length: int) -> None:
    planned = list(windows(part(before, own, after), length))
    fresh = list(itertools.chain(*(range(window.fresh, window.until) for window in planned)))
    assert fresh == list(range(fresh[0], before + own))
    # The decoder is given a latent in front of a border, up to as many as a joint window has on one side.
    assert before - fresh[0] == min(before, max(1, min(JOINT_LATENTS, length // 2)))
    done = fresh[0]
    for window in planned:
        assert 0 <= window.start <= window.fresh - window.fade <= window.fresh < window.until <= window.end
        assert window.end <= min(before + own + after, window.start + length)
        assert window.fresh == done
        # What fades was taken from the window before, and no other.
        assert window.fade <= overlap_of(length)
        done = window.until


@given(st.integers(1, 200), LENGTHS)
def test_a_shot_alone_never_has_a_short_window(own: int, length: int) -> None:
    for window in windows(part(0, own, 0), length):
        assert window.end - window.start == min(length, own)
        assert window.fade == (0 if window.fresh == 0 else overlap_of(length))


@given(st.integers(1, 60), st.integers(1, 60), LENGTHS.filter(lambda length: length > 1))
def test_both_sides_of_a_border_compute_the_same_window(left: int, right: int, length: int) -> None:
    # Counted from the shot's first latent; the right side's context begins eight latents before the border.
    hidden = max(0, left - 2 * JOINT_LATENTS)
    (*_, last) = windows(part(0, left, min(JOINT_LATENTS, right)), length)
    first = next(windows(part(left - hidden, right, 0), length))
    assert (last.start, last.end) == (first.start + hidden, first.end + hidden)
    # The last latent before the border and the first behind it are of this window alone, unless there is but one.
    assert last.fresh < left or last.start == left - 1 or length < 4
    behind = next(itertools.islice(windows(part(left - hidden, right, 0), length), 1, None), None)
    assert behind is None or behind.fresh - behind.fade + hidden > left or length < 4


#: From here on the joint window is as long as it gets.
LONG = st.integers(2 * JOINT_LATENTS, MAX_LENGTH)


@given(st.integers(1, 60), st.integers(1, 60), LONG, LONG)
def test_long_windows_of_two_lengths_meet_at_a_border(left: int, right: int, one: int, other: int) -> None:
    hidden = max(0, left - 2 * JOINT_LATENTS)
    (*_, last) = windows(part(0, left, min(JOINT_LATENTS, right)), one)
    first = next(windows(part(left - hidden, right, 0), other))
    assert (last.start, last.end) == (first.start + hidden, first.end + hidden)


@given(BEFORE, st.integers(1, 100), st.integers(1, JOINT_LATENTS), LENGTHS.filter(lambda length: length > 1))
def test_between_two_borders_both_joint_windows_show(before: int, own: int, after: int, length: int) -> None:
    reach = min(JOINT_LATENTS, length // 2)
    planned = list(windows(part(before, own, after), length))
    border = before + own
    assert (planned[-1].start, planned[-1].end) == (
        max(0, border - reach),
        min(border + after, border + reach),
    )
    if before:
        assert planned[0].start == max(0, before - reach)
        assert planned[0].end == min(border + after, before + reach)


@given(BEFORE, st.integers(1, 100), AFTER, LENGTHS, st.integers(1, 40))
def test_a_stream_gets_the_same_windows_as_the_whole_part(
    before: int, own: int, after: int, length: int, step: int
) -> None:
    whole = part(before, own, after)
    found: list[Window] = []
    for there in [*range(step, whole.known, step), whole.known]:
        latents = Latents(
            known=there,
            own_start=min(before, there),
            own_end=before + own if there > before + own else None,
            ends=there == whole.known,
        )
        # The stages ask once the first own latent is there.
        while there > before and (
            window := next_window(latents, done=found[-1].until if found else None, length=length)
        ):
            found.append(window)
    assert found == list(windows(whole, length))


@given(BEFORE, st.integers(1, 100), AFTER, st.lists(LENGTHS, min_size=1, max_size=40))
def test_lengths_that_shrink_on_the_way_still_cover_everything(
    before: int, own: int, after: int, lengths: list[int]
) -> None:
    whole, done = part(before, own, after), None
    shrinking = itertools.chain(sorted(lengths, reverse=True), itertools.repeat(min(lengths)))
    while window := next_window(whole, done=done, length=(length := next(shrinking))):
        assert window.end - window.start <= length
        assert done in (None, window.fresh)
        assert window.start <= window.fresh - window.fade <= window.fresh < window.until
        done = window.until
    assert done == before + own
