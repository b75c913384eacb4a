"""Plans how much of a shot the transformer sees at once: integers only, no tensors.

Times are in latent frames: the first frame of a shot is one latent, each further four frames are one more.
The VAE streams exactly, so it needs no plan; only the transformer works in windows. Windows overlap, and the
results of an overlap are blended. A shot is planned alone, so no window spans a cut.

Memory in bytes, for one GPU of `num_gpus` that share the rows of each frame and the tokens of each window
(performance.md, section 4, mode A, which streams; P is padded pixels, L the window's latents):

    weights                                    counted
  + (encoder caches + decoder caches) * P      counted: 3.62 and 6.81 GiB per 10^6 pixels
  + the largest of
      encode work 1.90 GiB * P / 10^6          target for two frames per call at full rate
      decode work 2.38 GiB * P / 10^6          target, likewise
      127.2 KiB * tokens + 2.73 MiB * windows  published for unfused code; tokens = L * P / 256
  + 0.3 GiB + 0.15 GiB * P / 10^6              frames on their way in and out
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_GIBIBYTE: Final = 1024**3

#: Longer windows gain nothing: the networks look at most 30 latents far (performance.md, 1.3).
MAX_LENGTH: Final = 32
#: Windows of a multiple of this divide into equal parts in time.
_EVEN_LENGTH: Final = 4
_MAX_OVERLAP: Final = 2
_FRAMES_PER_LATENT: Final = 4
_PIXELS_PER_TOKEN: Final = 16

#: Weights of transformer and VAE. The tiny models' weights are below a mebibyte.
_WEIGHTS: Final = {
    "seedvr2-7b": (1535 + 47) * _GIBIBYTE // 100,
    "seedvr2-7b-sharp": (1535 + 47) * _GIBIBYTE // 100,
    "seedvr2-3b": (632 + 47) * _GIBIBYTE // 100,
    "tiny-7b": 1024**2,
    "tiny-3b": 1024**2,
}


def _bytes_per_pixel(hundredths_of_gibibyte: int) -> int:
    """Bytes per pixel of what takes so many hundredths of a GiB per 10^6 pixels, rounded up."""
    return -(-hundredths_of_gibibyte * _GIBIBYTE // 10**8)


_CACHES: Final = _bytes_per_pixel(362 + 681)
_VAE_WORK: Final = _bytes_per_pixel(238)
_IN_AND_OUT: Final = _bytes_per_pixel(15)
_IN_AND_OUT_FIXED: Final = 30 * _GIBIBYTE // 100
_TOKEN: Final = 1272 * 1024 // 10
_WINDOW: Final = 273 * 1024**2 // 100


class DoesNotFit(ValueError):
    """Not even a window of one latent fits into the memory; the message has both numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What is to be planned: the result's size in pixels, its frames (None when unknown), and who does it."""

    model: str
    width: int
    height: int
    num_frames: int | None = None
    num_gpus: int = 1

    def __post_init__(self) -> None:
        if self.model not in _WEIGHTS:
            raise ValueError(f"model is {self.model!r}; planned are {', '.join(_WEIGHTS)}")
        for name in ("width", "height", "num_gpus"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        if self.num_frames is not None and self.num_frames < 1:
            raise ValueError(f"num_frames is {self.num_frames}; at least 1 is needed")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens after filling up to multiples of 16 pixels."""
        return -(-self.height // _PIXELS_PER_TOKEN), -(-self.width // _PIXELS_PER_TOKEN)


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Latents `start` to `end` (exclusive) of a shot; those before `fresh` have a result already."""

    start: int
    end: int
    fresh: int


def num_latents(num_frames: int) -> int:
    """Latents of a shot: one for its first frame, one for each further four or part of four."""
    return 1 + -(-(num_frames - 1) // _FRAMES_PER_LATENT)


def overlap_of(length: int) -> int:
    """Latents that a window of this length shares with the one before it."""
    return min(_MAX_OVERLAP, length // 2)


def memory_needed(work: Work, length: int) -> int:
    """Bytes on each GPU for windows of `length` latents; never falls when the length grows."""
    rows, columns = work.grid
    pixels = rows * columns * _PIXELS_PER_TOKEN**2
    transformer = _TOKEN * length * rows * columns + _WINDOW * _num_windows(length, rows, columns)
    shared = _CACHES * pixels + max(_VAE_WORK * pixels, transformer) + _IN_AND_OUT * pixels
    return _WEIGHTS[work.model] + _IN_AND_OUT_FIXED + -(-shared // work.num_gpus)


def _num_windows(length: int, rows: int, columns: int) -> int:
    """Attention windows of a shifted layer, never too few: performance.md, 1.3, with roots rounded down.

    The model fits one window of 45 x 80 tokens to the picture's shape and cuts it into 3 x 3, and time into
    at most 4. Shifting by half a window adds one on each axis.
    """
    high = max(1, math.isqrt(3600 * rows // columns) // 3)
    wide = max(1, math.isqrt(3600 * columns // rows) // 3)
    return (-(-rows // high) + 1) * (-(-columns // wide) + 1) * (min(length, 4) + 1)


def plan_length(work: Work, free_bytes: int) -> int:
    """Returns the longest window, in latents, that fits into `free_bytes` on each GPU.

    Never longer than the video or `MAX_LENGTH`; longer ones than 4 are multiples of 4 unless they hold the
    whole video. Raises `DoesNotFit`.
    """
    longest = MAX_LENGTH if work.num_frames is None else min(MAX_LENGTH, num_latents(work.num_frames))
    for length in range(longest, 0, -1):
        is_even = length <= _EVEN_LENGTH or length % _EVEN_LENGTH == 0 or length == longest
        if is_even and memory_needed(work, length) <= free_bytes:
            return length
    raise DoesNotFit(
        f"{work.width}x{work.height} with {work.model} on {work.num_gpus} GPUs needs "
        f"{memory_needed(work, 1)} bytes on each; {free_bytes} are free"
    )


def halved(length: int) -> int | None:
    """The next shorter window after one that did not fit; None when there is no shorter one."""
    return length // 2 or None


def next_window(*, done: int, known: int, length: int, ends: bool) -> Window | None:
    """Returns the next window of a shot; None when it has to wait for more latents, or all are done.

    The last window of a shot is moved back to its full length where it can be: the network sees more, and
    results that are there already are not used again beyond the overlap.

    Args:
        done: latents that have a result.
        known: latents that are there.
        length: of a window; may change from call to call.
        ends: no latent follows the known ones.
    """
    if done >= known:
        return None
    start = max(0, done - overlap_of(length))
    if start + length <= known:
        return Window(start=start, end=start + length, fresh=done)
    return Window(start=max(0, known - length), end=known, fresh=done) if ends else None


def windows(known: int, length: int) -> Iterator[Window]:
    """Yields the windows of a whole shot of `known` latents."""
    done = 0
    while window := next_window(done=done, known=known, length=length, ends=True):
        yield window
        done = window.end
