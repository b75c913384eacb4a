"""What a frame's numbers mean: H.273 code points, range, and what a display has to know about HDR."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame

from gpu_worker.contract import ErrorCode, WorkerError

# ITU-T H.273 numbers, as ffmpeg uses them.
RGB: Final = 0
_UNSPECIFIED: Final = 2
_BT709: Final = 1
_BT601: Final = 6
_BT2020: Final = 9
PQ: Final = 16
HLG: Final = 18
#: ffmpeg's numbers for 16..235 and 0..255.
LIMITED_RANGE: Final = 1
FULL_RANGE: Final = 2
_SD_HEIGHT: Final = 576
_SD_WIDTH: Final = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Colors:
    """What a frame's numbers mean: H.273 code points, and ffmpeg's number for the range."""

    primaries: int
    transfer: int
    matrix: int
    color_range: int

    @classmethod
    def of(cls, frame: VideoFrame) -> Colors:
        """Reads a frame's colors; RGB is written as BT.709 of limited range.

        A matrix that the file leaves open becomes the one that players assume for its size: they would assume
        another one for the larger result.
        """
        matrix = int(frame.colorspace)
        color_range = int(frame.color_range)
        primaries = int(frame.color_primaries)
        if frame.format.is_rgb or frame.format.has_palette:
            matrix = _BT2020 if primaries == _BT2020 else _BT709
            color_range = LIMITED_RANGE
        elif matrix in (_UNSPECIFIED, RGB):
            is_sd = frame.height <= _SD_HEIGHT and frame.width <= _SD_WIDTH
            matrix = _BT2020 if primaries == _BT2020 else _BT601 if is_sd else _BT709
        return cls(
            primaries=primaries,
            transfer=int(frame.color_trc),
            matrix=matrix,
            color_range=color_range,
        )

    @property
    def is_hdr(self) -> bool:
        """True for PQ and HLG."""
        return self.transfer in (PQ, HLG)

    @property
    def range_name(self) -> str:
        """ffmpeg's name of the range."""
        return "full" if self.color_range == FULL_RANGE else "limited"

    @property
    def matrix_name(self) -> str:
        """The name of the matrix for ffmpeg's scaler; BT.709 stands in for those that it does not know."""
        return _MATRICES.get(self.matrix, "bt709")


_MATRICES: Final = {1: "bt709", 4: "fcc", 5: "bt470", 6: "smpte170m", 7: "smpte240m", 9: "bt2020"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Hdr:
    """The display that the film was mastered on, as SMPTE ST 2086 and CTA-861.3 count.

    `mastering` holds green, blue, red and white, each x and y in units of 0.00002, then the greatest and the
    least luminance in units of 0.0001 cd/m2; `light` the brightest pixel and the brightest frame in cd/m2.
    `dynamic` names what changes from scene to scene; no encoder here writes that.
    """

    mastering: tuple[int, ...] | None = None
    light: tuple[int, int] | None = None
    dynamic: tuple[str, ...] = ()

    @classmethod
    def of(cls, attached: Mapping[Type, bytes]) -> Hdr:
        """Reads what is attached to a frame. Raises `SOURCE_UNREADABLE`."""
        mastering, light = (
            attached.get(Type.MASTERING_DISPLAY_METADATA),
            attached.get(Type.CONTENT_LIGHT_LEVEL),
        )
        if is_dolby_vision_alone(attached.get(Type.DOVI_METADATA, b"")):
            raise WorkerError(
                ErrorCode.SOURCE_UNREADABLE,
                "Dolby Vision profile 5: its colors mean nothing without its player",
            )
        return cls(
            dynamic=tuple(name for kind, name in _DYNAMIC.items() if kind in attached),
            mastering=None if mastering is None else _mastering(mastering),
            light=None if light is None else struct.unpack_from("=II", light),
        )

    def x265_parameters(self) -> list[str]:
        """What makes libx265 write the same into its stream."""
        parameters = []
        if self.mastering is not None:
            gx, gy, bx, by, rx, ry, wx, wy, most, least = self.mastering
            parameters.append(
                f"master-display=G({gx},{gy})B({bx},{by})R({rx},{ry})WP({wx},{wy})L({most},{least})"
            )
        if self.light is not None:
            parameters.append(f"max-cll={self.light[0]},{self.light[1]}")
        return parameters


_DYNAMIC: Final = {Type.DOVI_METADATA: "Dolby Vision", Type.DYNAMIC_HDR_PLUS: "HDR10+"}


def is_dolby_vision_alone(metadata: bytes) -> bool:
    """True for profile 5, whose base layer is in a color space of its own: RPU profile 0 with full range.

    `metadata` is ffmpeg's AVDOVIMetadata, which begins with the offset of its header.
    """
    if len(metadata) < struct.calcsize("=Q"):
        return False
    (header,) = struct.unpack_from("=Q", metadata)
    rpu_profile, is_full_range = metadata[header + 4], metadata[header + 10]
    return bool(rpu_profile == 0 and is_full_range == 1)


def _mastering(content: bytes) -> tuple[int, ...] | None:
    """Reads ffmpeg's AVMasteringDisplayMetadata: ten fractions and two flags."""
    numbers = struct.unpack_from("=22i", content)
    if not (numbers[20] and numbers[21]):
        return None
    values = [
        Fraction(top, bottom) if bottom else Fraction(0)
        for top, bottom in zip(numbers[0:20:2], numbers[1:20:2], strict=True)
    ]
    red, green, blue, white = (values[i : i + 2] for i in range(0, 8, 2))
    least, most = values[8], values[9]
    chromaticities = [round(value * 50_000) for value in (*green, *blue, *red, *white)]
    return (*chromaticities, round(most * 10_000), round(least * 10_000))
