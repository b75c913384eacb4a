"""What a decoder attaches to a frame beside its pixels."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Final, cast

from av.sidedata.sidedata import SideData, Type
from av.video.frame import VideoFrame

#: The signs of a display matrix's a, b, c and d: a pixel at (x, y) is to be seen at (ax + cy, bx + dy).
Orientation = tuple[int, int, int, int]

# PyAV 18.1 frees the name of an ICC profile that ffmpeg frees as well, which ends the process, and it fails for
# EXIF. Both come with the codecs of images, so what is attached is read for these codecs alone.
_SAFE_CODECS: Final = frozenset(
    {
        *("h264", "hevc", "vvc", "av1", "vp8", "vp9", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v3"),
        *("h263", "vc1", "wmv1", "wmv2", "wmv3", "prores", "dnxhd", "cfhd", "dvvideo", "theora"),
        *("ffv1", "huffyuv", "ffvhuff", "utvideo", "rawvideo", "v210"),
    }
)


def side_data(frame: VideoFrame, codec: str) -> dict[Type, bytes]:
    """Returns what is attached to a frame of a codec, by kind; nothing for images."""
    if codec not in _SAFE_CODECS:
        return {}
    try:
        # A mapping by PyAV's annotations, its iterator yields the values.
        attached = list(cast("Iterable[SideData]", frame.side_data))
    except ValueError:
        # A kind that PyAV does not know makes it fail for all that is there.
        return {}
    return {one.type: bytes(one) for one in attached}


def orientation(attached: Mapping[Type, bytes], rotation: int) -> Orientation:
    """Returns how frames are to be seen. A turn that is none by quarters is taken for the nearest that is.

    `rotation` is PyAV's, in degrees counter-clockwise: it counts where no display matrix can be read, and then
    a mirrored picture looks like one that is not.
    """
    matrix = attached.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return turned(rotation)
    a, b, _u, c, d, *_rest = struct.unpack_from("=9i", matrix)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return (-1 if a < 0 else 1, 0, 0, -1 if d < 0 else 1)
    return (0, -1 if b < 0 else 1, -1 if c < 0 else 1, 0)


def turned(rotation: int) -> Orientation:
    """Returns the orientation of a picture that is turned and not mirrored."""
    quarters: list[Orientation] = [(1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0)]
    return quarters[round(rotation / 90) % 4]
