"""Pictures between a video's pixel format and RGB, with the color matrix and range that its file states.

A picture is RGB `[height, width, 3]`, upright and progressive, at the source's own size: uint8 0..255, or
uint16 0..65535 where the source has more than 8 bits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter
from numpy.typing import NDArray

from gpu_worker.engine.colors import FULL_RANGE, Colors
from gpu_worker.engine.cuts import LUMA_SIZE, Luma
from gpu_worker.engine.filters import Filter, FilterChain, Shape

#: RGB `[height, width, 3]`, uint8 or uint16, each over its whole range.
Pixels = NDArray[Any]

#: White as ffmpeg's scaler expects it in RGB of 16 bits, whatever range it writes: 255 with eight bits more.
_WHITE_WRITTEN: Final = 255 << 8
_EXACT: Final = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"


class Picture:
    """A frame of the source: its size, its moment in ticks of the source's timeline, and its pixels.

    The pixels are made when they are first asked for, which takes longer than decoding the frame: whoever reads on to
    a later part of a video asks for none.
    """

    __slots__ = ("_alpha", "_make", "_pixels", "size", "ticks")

    def __init__(
        self, make: Callable[[], tuple[Pixels, Pixels | None]], *, size: tuple[int, int], ticks: int
    ) -> None:
        """`make` returns pixels and alpha; `size` is height and width."""
        self.size = size
        self.ticks = ticks
        self._make: Callable[[], tuple[Pixels, Pixels | None]] | None = make
        self._pixels: Pixels | None = None
        self._alpha: Pixels | None = None

    @classmethod
    def of(cls, pixels: Pixels, ticks: int, alpha: Pixels | None = None) -> Picture:
        """Returns a picture of pixels that are there already."""
        return cls(lambda: (pixels, alpha), size=(pixels.shape[0], pixels.shape[1]), ticks=ticks)

    @property
    def pixels(self) -> Pixels:
        """RGB `[height, width, 3]`."""
        self.develop()
        assert self._pixels is not None
        return self._pixels

    @property
    def alpha(self) -> Pixels | None:
        """How opaque each pixel is, `[height, width]`, in the pixels' own range; None is opaque."""
        self.develop()
        return self._alpha

    def develop(self) -> None:
        """Makes the pixels now, in this thread. One thread at a time may have a picture."""
        if self._make is not None:
            self._pixels, self._alpha = self._make()
            self._make = None  # and the frame with it


def read_pictures(
    frames: Iterable[tuple[VideoFrame, int]],
    colors: Colors,
    *,
    is_deep: bool = False,
    has_alpha: bool = False,
) -> Iterator[tuple[Picture, Luma]]:
    """Yields upright, progressive frames as pictures, each with a small frame of brightness."""
    developer = _Developer(colors, _PIXEL_FORMATS[is_deep, has_alpha])
    reformatter = VideoReformatter()
    width, height = LUMA_SIZE
    for frame, ticks in frames:
        picture = Picture(partial(developer.develop, frame), size=(frame.height, frame.width), ticks=ticks)
        small = reformatter.reformat(
            *(frame, width, height),
            format="gray",
            interpolation="AREA",
            dst_color_range=ColorRange.JPEG,
        )
        yield picture, small.to_ndarray().astype(np.uint8, copy=False)


class _Developer:
    """Makes the pixels of a video's frames, for one thread at a time."""

    def __init__(self, colors: Colors, pixel_format: str) -> None:
        self._chain = FilterChain(lambda shape: _to_rgb(shape, colors, pixel_format))
        self._lock = threading.Lock()

    def develop(self, frame: VideoFrame) -> tuple[Pixels, Pixels | None]:
        """Returns a frame's pixels and alpha."""
        with self._lock:
            (converted,) = self._chain.push(frame)
        pixels = converted.to_ndarray()
        return pixels[..., :3], pixels[..., 3] if pixels.shape[-1] == 4 else None


#: By more than 8 bits, and by alpha.
_PIXEL_FORMATS: Final = {
    (False, False): "rgb24",
    (False, True): "rgba",
    (True, False): "rgb48le",
    (True, True): "rgba64le",
}


class FrameMaker:
    """Turns pictures into frames for an encoder, in its pixel format and with a result's matrix and range.

    `alpha` of another size is stretched to the pixels' size. Where the format has none, transparent parts
    become black.
    """

    def __init__(self, colors: Colors, pixel_format: str = "yuv420p") -> None:
        self._colors = colors
        self._pixel_format = pixel_format
        self._has_alpha = pixel_format.startswith("rgba")
        self._chain = FilterChain(self._describe)

    def frame(self, pixels: Pixels, alpha: Pixels | None = None) -> VideoFrame:
        """Returns the frame of one picture."""
        if alpha is not None:
            pixels = self._with_alpha(pixels, alpha)
        is_deep, has_alpha = pixels.dtype == np.uint16, pixels.shape[-1] == 4
        frame = VideoFrame.from_ndarray(
            np.ascontiguousarray(pixels), format=_PIXEL_FORMATS[is_deep, has_alpha]
        )
        return self.converted(frame)

    def converted(self, frame: VideoFrame) -> VideoFrame:
        """Returns a frame of another pixel format, with the result's own matrix and range, as the encoder's."""
        (converted,) = self._chain.push(frame)
        return converted

    def _with_alpha(self, pixels: Pixels, alpha: Pixels) -> Pixels:
        height, width = pixels.shape[:2]
        if alpha.shape != (height, width):
            gray = "gray16le" if alpha.dtype == np.uint16 else "gray"
            stretched = VideoFrame.from_ndarray(np.ascontiguousarray(alpha), format=gray).reformat(
                width=width, height=height, interpolation="BICUBIC"
            )
            alpha = stretched.to_ndarray()
        if alpha.dtype != pixels.dtype:
            alpha = (
                (alpha.astype(np.uint16) * 257)
                if pixels.dtype == np.uint16
                else (alpha >> 8).astype(np.uint8)
            )
        if self._has_alpha:
            return np.dstack([pixels, alpha])
        opacity = alpha[..., None] / np.iinfo(alpha.dtype).max
        over_black: Pixels = np.rint(pixels * opacity).astype(pixels.dtype)
        return over_black

    def _describe(self, shape: Shape) -> list[Filter]:
        colors, is_rgb = self._colors, self._pixel_format.startswith("rgb")
        into = ("format", f"pix_fmts={self._pixel_format}")
        if shape.is_rgb and is_rgb:
            return [("scale", _EXACT), into]
        if is_rgb:
            return [("scale", f"{_EXACT}:{_meaning(colors, 'in')}:out_range=full"), into]
        meaning = _meaning(colors, "out")
        if not shape.is_rgb:
            return [("scale", f"{_EXACT}:{_meaning(colors, 'in')}:{meaning}"), into]
        darker = [_stretched(65535, _WHITE_WRITTEN)] if shape.is_deep else []
        return [*darker, ("scale", f"{_EXACT}:in_range=full:{meaning}"), into]


def _to_rgb(shape: Shape, colors: Colors, rgb: str) -> list[Filter]:
    into = ("format", f"pix_fmts={rgb}")
    if shape.is_rgb:
        return [("scale", f"{_EXACT}:out_range=full"), into]
    # A file can change its mind about the range.
    meaning = _meaning(replace(colors, color_range=shape.color_range), "in")
    brighter = []
    if rgb in (_PIXEL_FORMATS[True, False], _PIXEL_FORMATS[True, True]):
        white = _white_read(shape.color_range, VideoFormat(shape.pixel_format))
        brighter = [_stretched(white, 65535)]
    return [("scale", f"{_EXACT}:{meaning}:out_range=full"), into, *brighter]


def _meaning(colors: Colors, side: str) -> str:
    return f"{side}_color_matrix={colors.matrix_name}:{side}_range={colors.range_name}"


def _white_read(color_range: int, pixel_format: VideoFormat) -> int:
    """White as ffmpeg's scaler reads it into RGB of 16 bits: it is not 65535 there."""
    if color_range != FULL_RANGE:
        return 65283
    bits = int(max(component.bits for component in pixel_format.components))
    return ((1 << bits) - 1) << (16 - bits)


def _stretched(white: int, wanted: int) -> Filter:
    """Brings white from one value to another, and everything below in proportion."""
    level = f"clip(val*{wanted}/{white}\\,0\\,65535)"
    return ("lutrgb", f"r={level}:g={level}:b={level}")
