"""Presets: from what a person picks to the exact size and the number of GPUs. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.db import models


class Preset(models.TextChoices):
    """The resolutions on offer."""

    P720 = "720p", "720p"
    P1080 = "1080p", "1080p"
    P2K = "2k", "2K"


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputSize:
    """Pixels of the restored picture and the GPUs that share the work."""

    width: int
    height: int
    sp_size: int


#: Long side, short side and GPUs of each preset: H100s, one for 720p, four above.
_BOXES: Final = {
    Preset.P720: (1280, 720, 1),
    Preset.P1080: (1920, 1080, 4),
    Preset.P2K: (2560, 1440, 4),
}


def output_size(preset: str, *, width: int, height: int) -> OutputSize:
    """Returns the largest size inside the preset's box with the picture's shape, in even numbers.

    The box turns with the picture: a portrait phone video at 1080p becomes 1080 x 1920, an old 4:3 film
    1440 x 1080, a wide one 1920 x 804. Raises `ValueError` for a picture without size.
    """
    if width <= 0 or height <= 0:
        raise ValueError(f"a picture of {width} x {height} pixels has no shape")
    long_side, short_side, sp_size = _BOXES[Preset(preset)]
    box_w, box_h = (long_side, short_side) if width >= height else (short_side, long_side)
    # Compare the shapes by cross-multiplication: integers stay exact where a division would not.
    if width * box_h >= height * box_w:
        size = box_w, _even(height * box_w, width)
    else:
        size = _even(width * box_h, height), box_h
    return OutputSize(width=size[0], height=size[1], sp_size=sp_size)


def recommended_preset(*, width: int, height: int) -> str:
    """Returns the smallest preset that enlarges the picture; 1080p is enough for most, so never above it."""
    size = output_size(Preset.P720, width=width, height=height)
    return Preset.P720 if size.width > width * 3 // 2 else Preset.P1080


def _even(numerator: int, denominator: int) -> int:
    """Returns the even number nearest to a fraction, at least 16: codecs with 4:2:0 colour need even sides."""
    return max(16, 2 * ((numerator + denominator) // (2 * denominator)))
