"""Pictures to measure with: motion, edges and grain, the same in every run; grain is what encoders work for."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np

from gpu_worker.engine.pictures import Pixels

#: Standard deviation of the grain, of 255: that of film; less would flatter the encoders.
_GRAIN: Final = 6.0
_STRIPES: Final = 48


def frames(width: int, height: int, num_frames: int, *, seed: int = 1) -> Iterator[Pixels]:
    """Yields RGB frames `[H, W, 3]` of 8 bits: a drifting pattern with edges under grain."""
    generator = np.random.default_rng(seed)
    # Each frame shows another part of one larger field: drawing anew would take longer than encoding.
    field = generator.normal(0.0, _GRAIN, (2 * height, 2 * width, 1)).astype(np.float32)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    for index in range(num_frames):
        shade = 110 + 60 * np.sin((columns + 3 * index) / 37) * np.cos((rows - 2 * index) / 53)
        shade += 25 * (((columns + rows + 5 * index) // _STRIPES) % 2)
        picture = shade[..., None] * np.array([1.0, 0.9, 0.8], np.float32)
        top, left = generator.integers(height), generator.integers(width)
        grain = field[top : top + height, left : left + width]
        yield np.clip(picture + grain, 0, 255).astype(np.uint8)


def write_clip(path: Path, *, width: int, height: int, num_frames: int, rate: int = 30) -> None:
    """Writes the frames as a bad old video: few bits, so that its reader has what readers usually have."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=Fraction(rate), options={"crf": "30", "preset": "veryfast"}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in frames(width, height, num_frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
