"""What a restoration costs: whole credits from pixels, frames, model and GPUs; pure integers, no database.

One credit is sold for one cent. Each figure comes from a published price table (`billing.price_tables`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """One version of the price table: output pixels that a credit buys, by model and GPUs."""

    version: int
    minimum_credits: int
    pixels_per_credit: Mapping[tuple[str, int], int]


def restoration_credits(
    prices: Prices, *, width: int, height: int, num_frames: int, model: str, gpus: int
) -> int:
    """Returns the price of `num_frames` frames of `width` x `height` pixels, rounded up to whole credits.

    Raises `ValueError` when one of them is not positive, or when the table has no rate for model and GPUs.
    """
    if min(width, height, num_frames) <= 0:
        raise ValueError(f"cannot price {width} x {height} pixels and {num_frames} frames")
    rate = prices.pixels_per_credit.get((model, gpus))
    if rate is None:
        raise ValueError(f"price table v{prices.version} has no rate for {model} on {gpus} GPUs")
    pixels = width * height * num_frames
    return max(prices.minimum_credits, -(-pixels // rate))


def undelivered_credits(*, price: int, num_frames_done: int, num_frames: int) -> int:
    """Returns what goes back when a running job is cancelled: the share not yet done, rounded up."""
    if num_frames <= 0:
        return price
    done = min(max(num_frames_done, 0), num_frames)
    return price - price * done // num_frames


def returned_credits(*, credits: int, paid: int, returned: int) -> int:
    """Returns the credits that go with a returned part of a payment, rounded down; all of them with all of it.

    `paid` and `returned` are in the currency's smallest unit.
    """
    if returned <= 0:
        return 0
    if returned >= paid:
        return credits
    return credits * returned // paid
