"""Pictures between a video's pixel format and RGB, with the color matrix and range that its file states.

A picture is uint8 RGB `[height, width, 3]`, upright and progressive, at the source's own size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from gpu_worker.contract import ErrorCode, WorkerError
from gpu_worker.engine.cuts import LUMA_SIZE, Luma
from gpu_worker.engine.filters import Filter, FilterChain, Shape, upright
from gpu_worker.engine.video import Colors

#: uint8 RGB `[height, width, 3]`.
Pixels = NDArray[np.uint8]

#: ffmpeg's number for a range of 0..255; anything else is 16..235.
_FULL_RANGE: Final = 2
#: ffmpeg's names of H.273 matrices; BT.709 stands in for those that its scaler does not know.
_MATRICES: Final = {1: "bt709", 4: "fcc", 5: "bt470", 6: "smpte170m", 7: "smpte240m", 9: "bt2020"}
_DEINTERLACE: Final[Filter] = ("bwdif", "mode=send_frame:parity=auto:deint=all")
_EXACT: Final = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"


@dataclass(frozen=True, slots=True)
class Picture:
    """A frame of the source: its pixels, and its moment in ticks of the source's timeline."""

    pixels: Pixels
    ticks: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]


def read_pictures(frames: Iterable[tuple[VideoFrame, int]], colors: Colors) -> Iterator[tuple[Picture, Luma]]:
    """Yields each frame as a picture and as a small frame of brightness. Raises `WorkerError`."""
    chain = FilterChain(lambda shape: _to_rgb(shape, colors))
    # Deinterlacing holds frames back but keeps their order and number, so the moments wait in a line.
    moments: deque[int] = deque()
    for frame, ticks in frames:
        moments.append(ticks)
        for ready in chain.push(frame):
            yield _picture(ready, moments.popleft())
    for ready in chain.finish():
        yield _picture(ready, moments.popleft())
    if moments:
        raise WorkerError(ErrorCode.ENGINE_FAILED, f"the filters kept {len(moments)} frames")


class FrameMaker:
    """Turns pixels into frames for the encoder: 4:2:0 with the source's matrix and range."""

    def __init__(self, colors: Colors) -> None:
        value_range = "full" if colors.color_range == _FULL_RANGE else "limited"
        scale = f"{_EXACT}:in_range=full:out_color_matrix={_matrix(colors)}:out_range={value_range}"
        self._chain = FilterChain(lambda _shape: [("scale", scale), ("format", "pix_fmts=yuv420p")])

    def frame(self, pixels: Pixels) -> VideoFrame:
        """Returns the frame of one picture with even sides."""
        (frame,) = self._chain.push(VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"))
        return frame


def _to_rgb(shape: Shape, colors: Colors) -> list[Filter]:
    value_range = "full" if shape.color_range == _FULL_RANGE else "limited"
    meaning = "" if shape.is_rgb else f":in_color_matrix={_matrix(colors)}:in_range={value_range}"
    return [
        *([_DEINTERLACE] if shape.is_interlaced else []),
        *upright(shape),
        ("scale", f"{_EXACT}{meaning}:out_range=full"),
        ("format", "pix_fmts=rgb24"),
    ]


def _matrix(colors: Colors) -> str:
    return _MATRICES.get(colors.matrix, "bt709")


def _picture(frame: VideoFrame, ticks: int) -> tuple[Picture, Luma]:
    width, height = LUMA_SIZE
    small = frame.reformat(width=width, height=height, format="gray", interpolation="AREA")
    return Picture(_bytes(frame), ticks), _bytes(small)


def _bytes(frame: VideoFrame) -> NDArray[np.uint8]:
    """The frame's values; the formats asked for here hold bytes, others hold wider numbers."""
    return frame.to_ndarray().astype(np.uint8, copy=False)
