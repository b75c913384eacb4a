"""Which latents the transformer sees at once: windows over one part of a shot, with joint windows at its borders.

Counted in the part's own latents, context included. A part that a border in mid-shot ends, or begins, has
context beyond it; both sides of the border compute the same *joint window* around it, so their results meet:

    left    | ... regular windows ... |====J====|           J reaches as far before the border as behind it;
    right               |====J====| ... regular windows ... the left part ends and the right begins in its middle

The rest is covered by windows of the full length that share latents with their neighbours; over some of these
the earlier result fades into the later. What is shared with a joint window lies away from the border. The windows
follow from the part and the length alone, not from how much of it is known when.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gpu_worker.engine.planner import overlap_of
from gpu_worker.engine.segments import JOINT_LATENTS


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Latents `start` to `end` (exclusive), which the transformer sees.

    The results of `fresh` to `until` are taken, and over the `fade` latents before `fresh` the earlier results
    fade into this window's.
    """

    start: int
    end: int
    fresh: int
    until: int
    fade: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Latents:
    """What is known of a part's latents: how many are there, and where its own begin and end.

    `own_end` is None as long as only own ones have come; `ends` is True when no more will.
    """

    known: int
    own_start: int = 0
    own_end: int | None = None
    ends: bool = False

    @property
    def end_of_own(self) -> int | None:
        """Where the own ones end, None while more of them may come."""
        return self.known if self.own_end is None and self.ends else self.own_end

    @property
    def num_own(self) -> int:
        """Own ones that are there."""
        return (self.known if self.own_end is None else self.own_end) - self.own_start


def next_window(latents: Latents, *, done: int | None, length: int) -> Window | None:
    """Returns the next window; None when it has to wait for more latents, or all own ones are done.

    Args:
        latents: what is there.
        done: `until` of the window before, None for the first one.
        length: the most latents of a window; may change from call to call.
    """
    return _Windows(latents, length).after(done)


def windows(latents: Latents, length: int) -> Iterator[Window]:
    """Yields the windows of a part that is there as a whole."""
    done = None
    while window := next_window(latents, done=done, length=length):
        yield window
        done = window.until


class _Windows:
    """The windows of one length."""

    def __init__(self, latents: Latents, length: int) -> None:
        self._latents = latents
        self._length = length
        #: Latents of a joint window on each side of the border; a window of one latent cannot be one.
        self._reach = min(JOINT_LATENTS, length // 2)
        self._overlap = overlap_of(length)
        self._fade = min(self._overlap, self._reach // 2)
        self._has_joint_before = latents.own_start > 0 and self._reach > 0
        self._has_joint_after = (
            latents.own_end is not None and latents.own_end < latents.known and self._reach > 0
        )
        # The decoder needs a latent in front, whatever the windows are.
        self._first = max(0, latents.own_start - max(1, self._reach))

    def after(self, done: int | None) -> Window | None:
        if done is None:
            if self._has_joint_before:
                return self._joint_before()
            done = self._first
        end = self._latents.end_of_own
        if end is not None and done >= end:
            return None
        if end is None or not self._has_joint_after:
            return self._regular(done, stop=end)
        # What is left for regular windows: up to where the joint window has taken over.
        stop = end - self._reach + self._fade
        if done >= stop or self._joints_meet or end - self._reach <= self._first:
            return self._joint_after(done, end)
        return self._regular(done, stop=stop)

    @property
    def _joints_meet(self) -> bool:
        """True for a part too short for anything between its two joint windows."""
        return self._has_joint_before and self._has_joint_after and self._latents.num_own < 2 * self._reach

    def _joint_before(self) -> Window | None:
        latents, border = self._latents, self._latents.own_start
        # Whether the joints meet has to be known, and all that the window shows.
        if not latents.ends:
            if latents.own_end is None and latents.num_own < 2 * self._reach:
                return None
            if latents.known < border + self._reach:
                return None
        end = min(latents.known, border + self._reach)
        until = end
        if self._joints_meet:
            # In the middle, where both windows show it.
            until = border + (latents.num_own + self._fade_of_meeting) // 2
        return Window(start=self._first, end=end, fresh=self._first, until=until, fade=0)

    @property
    def _fade_of_meeting(self) -> int:
        num_own = self._latents.num_own
        return min(self._fade, num_own - 1, 2 * self._reach - num_own)

    def _joint_after(self, done: int, border: int) -> Window | None:
        latents = self._latents
        if not latents.ends and latents.known < border + self._reach:
            return None
        start = max(self._first, min(border - self._reach, done))
        fade = min(self._fade_of_meeting if self._joints_meet else self._fade, done - start)
        end = min(latents.known, border + self._reach)
        return Window(start=start, end=end, fresh=done, until=border, fade=fade)

    def _regular(self, done: int, *, stop: int | None) -> Window | None:
        """The next window of full length, or the last one, moved back to its full length where it can be."""
        start = max(self._first, done - self._overlap)
        # As long as the end is not known, a joint window may have to follow.
        there = self._latents.known - self._reach + self._fade if stop is None else stop
        if start + self._length <= there:
            end = start + self._length
        elif stop is not None:
            end = stop
            start = max(self._first, min(start, stop - self._length))
        else:
            return None
        fade = min(self._fade_before(done), done - start)
        return Window(start=start, end=end, fresh=done, until=end, fade=fade)

    def _fade_before(self, done: int) -> int:
        """How much is shared with the window before, which is shorter behind a joint window."""
        is_behind_joint = self._has_joint_before and done == self._latents.own_start + self._reach
        return self._fade if is_behind_joint else self._overlap
