"""When a frame is decoded: earlier than it is shown, where B frames need it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from gpu_worker.contract import ErrorCode, WorkerError


class DecodingOrder:
    """Gives packets the moments at which they are decoded, also across the joints of segments.

    Packet by packet they are the moments of the frames in the order of showing, `reordering` frames earlier.
    Encoders say so too, but each begins anew with its segment, where its moments could cross those of the
    segment before, and x265 gives nonsense for a segment of one frame.
    """

    def __init__(self, reordering: int, frame_ticks: int) -> None:
        self._reordering = reordering
        self._frame_ticks = frame_ticks
        self._moments: deque[int] = deque()
        self._last: int | None = None

    def expect(self, moments: Iterable[int]) -> None:
        """Takes the moments of the next frames, in the order of showing. Raises `WorkerError` when they go back."""
        for moment in moments:
            if self._last is None:
                early = range(self._reordering, 0, -1)
                self._moments.extend(moment - frames * self._frame_ticks for frames in early)
            elif moment <= self._last:
                raise WorkerError(
                    ErrorCode.ENGINE_FAILED, f"a frame at {moment} comes before one at {self._last}"
                )
            self._last = moment
            self._moments.append(moment)

    def decoded_at(self, shown_at: int) -> int:
        """Returns when the next packet, whose frame is shown at `shown_at`, is decoded."""
        moment = self._moments.popleft()
        if moment > shown_at:
            raise WorkerError(ErrorCode.ENGINE_FAILED, f"a frame shown at {shown_at} is decoded at {moment}")
        return moment
