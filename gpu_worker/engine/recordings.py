"""Reads files in which the clock starts anew: recordings that somebody put behind each other as they were.

Cameras and discs cut long recordings into files, and MPEG's streams may simply be appended to each other. Every
recording counts its moments from its own beginning; here each follows the one before it. Sound and picture of a
recording move by the same time, so they stay together.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator
from fractions import Fraction
from typing import Any, Final

from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

#: In seconds. Packets are less out of order than `_BACK`, and no pause is longer than `_AHEAD`: a clock that
#: jumps further was set.
_BACK: Final = Fraction(1, 2)
_AHEAD: Final = Fraction(3600)
#: Streams whose moments grow.
_TELLING: Final = ("video", "audio")
#: Sound can begin a recording before its picture, by no more packets than these.
_MAX_WAITING: Final = 1000


def read_packets(
    container: InputContainer, picture: VideoStream, wanted: Collection[Stream]
) -> Iterator[Packet[Any]]:
    """Yields the packets of some streams, their moments counted through all recordings of a file.

    All streams of picture and sound are looked at, so whoever reads a file finds the same moments.
    """
    indices = {stream.index for stream in wanted}
    telling = [one for one in container.streams if one.type in _TELLING or one.index in indices]
    for packet in _Recordings(picture).follow(container.demux(telling)):
        # The empty packets at the end of a file have no number of their stream.
        if packet.stream.index in indices:
            yield packet


class _Recordings:
    """By how much each recording moves: until its first picture stands behind the last one of the recording before."""

    def __init__(self, picture: VideoStream) -> None:
        self._picture = picture.index
        self._shifts = [Fraction(0)]
        self._end = Fraction(0)
        #: Of each stream: the recording that it is in, and its last moment there.
        self._number: Counter[int] = Counter()
        self._last: dict[int, Fraction] = {}

    def follow(self, packets: Iterable[Packet[Any]]) -> Iterator[Packet[Any]]:
        """Yields each packet at its moment, in their order."""
        waiting: deque[tuple[Packet[Any], int]] = deque()
        for packet in packets:
            waiting.append((packet, self._number_of(packet)))
            if len(waiting) > _MAX_WAITING:
                self._go_on_with(*waiting[0])
            while waiting and waiting[0][1] < len(self._shifts):
                yield self._moved(*waiting.popleft())
        for packet, number in waiting:
            self._go_on_with(packet, number)
            yield self._moved(packet, number)

    def _number_of(self, packet: Packet[Any]) -> int:
        """Returns the number of a packet's recording."""
        index = packet.stream.index
        if packet.dts is None or packet.stream.type not in _TELLING:
            return self._number[index if packet.stream.type in _TELLING else self._picture]
        moment = packet.dts * packet.time_base
        since_last = moment - self._last.get(index, moment)
        if not -_BACK <= since_last <= _AHEAD:
            # A track can be missing in the recordings before this one.
            newest = len(self._shifts) - 1
            self._number[index] = newest if self._number[index] < newest else newest + 1
            if index == self._picture:
                self._go_on_with(packet, self._number[index])
        self._last[index] = moment
        if index == self._picture:
            self._end = moment + ((packet.duration or 0) * packet.time_base or max(since_last, Fraction(0)))
        return self._number[index]

    def _go_on_with(self, packet: Packet[Any], number: int) -> None:
        """Puts a recording that begins with this packet behind what was shown so far."""
        if number == len(self._shifts):
            moment = Fraction(0) if packet.dts is None else packet.dts * packet.time_base
            self._shifts.append(self._shifts[-1] + self._end - moment)

    def _moved(self, packet: Packet[Any], number: int) -> Packet[Any]:
        if (shift := self._shifts[number]) and packet.size:
            ticks = round(shift / packet.time_base)
            packet.dts = None if packet.dts is None else packet.dts + ticks
            packet.pts = None if packet.pts is None else packet.pts + ticks
        return packet
