"""What a decoder attaches to a frame beside its pixels."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import cast

from av.sidedata.sidedata import SideData, Type
from av.video.frame import VideoFrame

#: The signs of a display matrix's a, b, c and d: a pixel at (x, y) is to be seen at (ax + cy, bx + dy).
Orientation = tuple[int, int, int, int]
UPRIGHT: Orientation = (1, 0, 0, 1)


def side_data(frame: VideoFrame) -> dict[Type, bytes]:
    """Returns what is attached, by kind. It is empty when something is attached that PyAV 18 does not know."""
    try:
        # A mapping by PyAV's annotations, its iterator yields the values.
        attached = list(cast("Iterable[SideData]", frame.side_data))
    except ValueError:
        # EXIF, for one, makes PyAV fail for all that is there.
        return {}
    return {one.type: bytes(one) for one in attached}


def orientation(frame: VideoFrame) -> Orientation:
    """Returns how a frame is to be seen. A turn that is none by quarters is taken for the nearest that is."""
    matrix = side_data(frame).get(Type.DISPLAYMATRIX)
    if matrix is None:
        # By this way a picture with EXIF tells its turns; a mirrored one looks like one that is not.
        turns = {90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), 270: (0, 1, -1, 0)}
        return turns.get(round(frame.rotation) % 360, UPRIGHT)
    a, b, _u, c, d, *_rest = struct.unpack_from("=9i", matrix)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return (-1 if a < 0 else 1, 0, 0, -1 if d < 0 else 1)
    return (0, -1 if b < 0 else 1, -1 if c < 0 else 1, 0)
