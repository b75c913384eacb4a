"""Quotes: size, price and expected time of a restoration; the same function for page, charge and API."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from django.conf import settings

from billing import offers, price_tables
from billing.pricing import Prices, restoration_credits
from gpu_worker.contract import Engine, Model
from restorations.models import Restoration, Video
from restorations.presets import OutputSize, output_size


@dataclass(frozen=True, kw_only=True, slots=True)
class Quote:
    """What a person is told before pressing the button, and what is charged then."""

    preset: str
    size: OutputSize
    num_frames: int
    credits: int
    expected_seconds: int
    #: The stored offer that makes the price binding; None until it was made.
    offer_id: UUID | None = None

    @property
    def price_cents(self) -> int:
        """The price in US cents: one credit is sold for one."""
        return self.credits

    @property
    def expected_range(self) -> tuple[int, int]:
        """Seconds that the restoration takes at best and, most likely, at worst."""
        return self.expected_seconds * 2 // 3, self.expected_seconds * 2


#: Millions of output pixels a second, and seconds before the first frame (machine, weights).
#: SeedVR2: counted FLOPs at 60 % of an H100, 95 % of linear on four. CPU: two cores, where `make bench` showed 17
#: when they were busy and 48 when not.
_SPEED: Final = {
    (Engine.SEEDVR2, 1): (12.7, 60),
    (Engine.SEEDVR2, 2): (24.1, 60),
    (Engine.SEEDVR2, 4): (48.2, 60),
    (Engine.CPU, 1): (30.0, 4),
    (Engine.CPU, 2): (30.0, 4),
    (Engine.CPU, 4): (30.0, 4),
}


def quote(video: Video, preset: str, *, prices: Prices | None = None) -> Quote:
    """Returns the quote for one inspected video and one preset, by the price table in force or a given one."""
    size = output_size(preset, width=video.width, height=video.height)
    megapixels_a_second, seconds_before = _SPEED[Engine(settings.RESTORATION_ENGINE), size.sp_size]
    megapixels = size.width * size.height * video.num_frames / 1e6
    return Quote(
        preset=preset,
        size=size,
        num_frames=video.num_frames,
        credits=_price(prices or price_tables.current(), size, video.num_frames),
        expected_seconds=round(seconds_before + megapixels / megapixels_a_second) + 1,
    )


def _price(prices: Prices, size: OutputSize, num_frames: int) -> int:
    return restoration_credits(
        prices,
        width=size.width,
        height=size.height,
        num_frames=num_frames,
        model=Model.SEEDVR2_7B.value,
        gpus=size.sp_size,
    )


def subject(video: Video, preset: str) -> str:
    """Names what an offer is for."""
    return f"video:{video.pk}:{preset}"


def binding_quotes(video: Video) -> list[Quote]:
    """Returns a quote for each preset, stored so that its price holds for 15 minutes."""
    prices = price_tables.current()
    quotes = [quote(video, preset, prices=prices) for preset in Restoration.Preset.values]
    return [replace(offer, offer_id=_store(video, offer, prices)) for offer in quotes]


def _store(video: Video, offer: Quote, prices: Prices) -> UUID:
    stored = offers.make(
        workspace=video.workspace,
        subject=subject(video, offer.preset),
        credits=offer.credits,
        prices=prices,
    )
    return stored.pk


def price_of_result(restoration: Restoration, *, num_frames: int) -> int:
    """Returns what a delivered result costs: its frames by the order's own price table, never above the order."""
    version = offers.version_accepted_by(restoration.reference)
    if version is None or num_frames <= 0:
        return restoration.price_credits
    size = OutputSize(width=restoration.res_w, height=restoration.res_h, sp_size=restoration.sp_size)
    price = _price(price_tables.version(version), size, num_frames)
    return min(price, restoration.price_credits)


def price_examples() -> list[dict[str, object]]:
    """Returns what one minute of widescreen video at 25 frames per second costs at each preset."""
    examples: list[dict[str, object]] = []
    prices = price_tables.current()
    for preset in Restoration.Preset:
        size = output_size(preset, width=1920, height=1080)
        price = _price(prices, size, 60 * 25)
        examples.append(
            {"preset": preset.value, "label": preset.label, "credits": price, "price_cents": price}
        )
    return examples
