"""What a restoration costs: whole credits from pixels and frames; pure integers, no database.

One credit is sold for one cent. The price is one cent for ten million pixels of output, the lowest published
price for SeedVR2 (0.001 dollars per megapixel, November 2026): 720p about 2.2, 1080p about 5 and 2K about 8.8
credits for each second at 24 frames per second. The number of GPUs changes the time, not the price.
"""

from __future__ import annotations

from typing import Final

PIXELS_PER_CREDIT: Final = 10_000_000
MINIMUM_CREDITS: Final = 1


def restoration_credits(*, width: int, height: int, num_frames: int) -> int:
    """Returns the price of `num_frames` frames of `width` x `height` pixels, rounded up to whole credits.

    Raises `ValueError` when one of them is not positive.
    """
    if min(width, height, num_frames) <= 0:
        raise ValueError(f"cannot price {width} x {height} pixels and {num_frames} frames")
    pixels = width * height * num_frames
    return max(MINIMUM_CREDITS, -(-pixels // PIXELS_PER_CREDIT))


def undelivered_credits(*, price: int, num_frames_done: int, num_frames: int) -> int:
    """Returns what goes back when a running job is cancelled: the share not yet done, rounded up."""
    if num_frames <= 0:
        return price
    done = min(max(num_frames_done, 0), num_frames)
    return price - price * done // num_frames
