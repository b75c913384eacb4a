"""What a file of one picture says beside its pixels: which way is up, and what its colors are measured by.

Pillow reads it. PyAV 18.1 gives the orientation without the mirroring, and ends the process over an ICC profile
(`side_data.py`).
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import ExifTags, Image

from gpu_worker.engine.side_data import Orientation

logger = logging.getLogger(__name__)

#: EXIF's numbers for how a picture is to be seen.
_ORIENTATIONS: Final[dict[int, Orientation]] = {
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}
#: No profile of a camera or a screen comes near to it.
_PROFILE_MAX_BYTES: Final = 8 * 2**20
#: Where an ICC profile names what its numbers are.
_SPACE: Final = slice(16, 20)
_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
#: Other statements about color, which a profile takes the place of; readers would believe the first of them.
_ABOUT_COLOR: Final = frozenset({b"cICP", b"sRGB", b"gAMA", b"cHRM", b"iCCP"})


@dataclass(frozen=True, slots=True)
class Still:
    """`orientation` is None where the file does not say; `profile` is an ICC profile for RGB, empty without one.

    `lost` names in words a profile that the result, which is RGB, cannot have.
    """

    orientation: Orientation | None = None
    profile: bytes = b""
    lost: str = ""


def read_still(path: Path) -> Still:
    """Reads what a picture's file says; nothing for a kind that Pillow does not know."""
    try:
        # Opening reads the head alone: no pixel is decoded.
        with Image.open(path) as image:
            number, profile = image.getexif().get(ExifTags.Base.Orientation), image.info.get("icc_profile")
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        logger.info("nothing is known of the picture beside its pixels: %s", error)
        return Still()
    orientation = _ORIENTATIONS.get(number) if isinstance(number, int) else None
    if not isinstance(profile, bytes) or not profile:
        return Still(orientation)
    space = profile[_SPACE].decode("ascii", "replace").strip()
    if space != "RGB" or len(profile) > _PROFILE_MAX_BYTES:
        return Still(orientation, lost=f"color profile ({space}, {len(profile)} bytes)")
    return Still(orientation, profile)


def with_profile(png: bytes, profile: bytes) -> bytes:
    """Returns a PNG file whose colors are measured by an ICC profile."""
    chunks = list(_chunks(png))
    head, *others = [chunk for chunk in chunks if chunk[4:8] not in _ABOUT_COLOR]
    return b"".join([_SIGNATURE, head, _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)), *others])


def _chunks(png: bytes) -> Iterator[bytes]:
    position = len(_SIGNATURE)
    while position < len(png):
        (length,) = struct.unpack_from(">I", png, position)
        # Length, kind and checksum have four bytes each.
        yield png[position : position + length + 12]
        position += length + 12


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
